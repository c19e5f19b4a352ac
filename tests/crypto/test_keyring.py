from __future__ import annotations

import base64
import copy
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from bridge.crypto import envelope, exchange, lookup
from bridge.crypto.exchange import ExchangeKey
from bridge.crypto.keyring import Keyring
from bridge.crypto.keys import OwnKey
from bridge.errors import BusinessRule, KeyMissing

from . import reader


@pytest.fixture
def ann(world, key):
    return world.settle(key(0))


@pytest.fixture
def bob(world, key):
    return world.settle(key(1))


def entity_of(ring: Keyring, *delegates: str, type_name: str = "Patient") -> dict:
    metadata = envelope.new_metadata(ring, type_name, delegates=delegates)
    stored = envelope.encrypt_entity({"id": "e", "note": "secret"}, type_name, metadata.entity_key)
    return {**stored, "securityMetadata": metadata.security_metadata}


def reads(ring: Keyring, entity: dict, type_name: str = "Patient") -> bool:
    opened = ring.open(entity, type_name)
    return bool(opened.entity_keys) and envelope.decrypt(entity, opened.entity_keys)["note"] == "secret"


def test_own_exchange_data_is_made_once_and_used_again(world, ann):
    first, second = ann.keyring(world), ann.keyring(world)
    made = first.own_exchange_key()
    assert first.own_exchange_key() is made
    assert second.own_exchange_key().key == made.key
    assert world.calls["create_exchange_data"] == 1


def test_what_is_made_is_announced_to_the_delegate(world, ann, bob):
    made = ann.keyring(world).exchange_key_to(bob.id)
    assert ExchangeKey(world.stored[made.id], bob.keys).key == made.key


def test_both_keys_of_an_owner_open_what_either_made(world, key):
    both = world.settle(key(0), key(1))
    entity = entity_of(both.keyring(world))
    for own in both.keys:
        assert reads(Keyring(both.id, False, {both.id: [own]}, world), entity)


@pytest.mark.parametrize(
    "spoil",
    [
        {"sharedSignature": "AAAA"},
        {"delegatorSignature": {}},
        {"deletionDate": 1},
    ],
    ids=["shared signature", "delegator signature", "deleted"],
)
def test_garbage_is_read_and_never_used_to_write(spoil, world, ann):
    entity = entity_of(ann.keyring(world))
    (exchange_id,) = world.stored
    world.stored[exchange_id] |= spoil
    ring = ann.keyring(world)
    assert reads(ring, entity)
    assert ring.own_exchange_key().id != exchange_id


def test_the_same_exchange_data_is_chosen_by_every_worker(world, ann):
    documents = [exchange.create(ann.id, ann.id, ann.keys, ())[0] for _ in range(5)]
    world.stored = {document["id"]: document for document in documents}
    one = ann.keyring(world).own_exchange_key().id
    world.stored = {document["id"]: document for document in reversed(documents)}
    assert ann.keyring(world).own_exchange_key().id == one


def test_what_was_made_for_another_is_not_taken_from_a_wrong_answer(monkeypatch, world, ann, bob, key):
    eve = world.settle(key(2))
    for_eve = ann.keyring(world).exchange_key_to(eve.id)
    monkeypatch.setattr(world, "exchange_data_between", lambda *_: [world.stored[for_eve.id]])
    assert ann.keyring(world).exchange_key_to(bob.id).id != for_eve.id


def test_exchange_data_that_a_key_was_added_to_opens_after_a_while(world, ann, key):
    made = ann.keyring(world).own_exchange_key()
    entity = entity_of(ann.keyring(world))
    new = world.settle(key(2), id=ann.id).keyring(world)
    assert not reads(new, entity)
    world.stored[made.id]["exchangeKey"] |= exchange.encrypt_for([OwnKey(key(2), "sha256").public], made.key)
    assert not reads(new, entity), "asked a moment ago"
    missing = new._lookup._missing
    missing.expire(missing.timer() + lookup.MISS_SECONDS)
    assert reads(new, entity)


def test_exchange_data_that_changed_is_opened_anew(world, ann):
    ring = ann.keyring(world)
    made = ring.own_exchange_key()
    entity = entity_of(ring)
    worn = ann.keyring(world)
    (stored,) = world.stored.values()
    world.stored[made.id] = {**stored, "exchangeKey": dict.fromkeys(stored["exchangeKey"], "AAAA")}
    assert not reads(worn, entity)
    world.stored[made.id] = stored
    assert worn.own_exchange_key().id == made.id
    assert reads(worn, entity)


@pytest.mark.parametrize("rings", [1, 20], ids=["one keyring", "a keyring each"])
def test_twenty_threads_make_one(rings, world, ann, bob):
    world.creation_seconds = 0.05
    all_rings = [ann.keyring(world) for _ in range(rings)]
    start = threading.Barrier(20)

    def ask(n: int) -> str:
        start.wait()
        return all_rings[n % rings].exchange_key_to(bob.id).id

    with ThreadPoolExecutor(20) as pool:
        assert len(set(pool.map(ask, range(20)))) == 1
    assert world.calls["create_exchange_data"] == 1


def test_what_another_process_made_meanwhile_is_used(world, ann, bob):
    made, _ = exchange.create(ann.id, bob.id, ann.keys, [own.public for own in bob.keys])
    names = []

    @contextmanager
    def lock(name: str) -> Iterator[None]:
        names.append(name)
        world.stored[made["id"]] = made
        yield

    ring = ann.keyring(world, lock=lock)
    assert ring.exchange_key_to(bob.id).id == made["id"]
    assert ring.exchange_key_to(bob.id).id == made["id"]
    assert len(names) == 1 and ann.id in names[0] and bob.id in names[0]
    assert world.calls["create_exchange_data"] == 0


def test_no_lock_is_taken_for_what_is_there(world, ann):
    made = ann.keyring(world).own_exchange_key()

    def lock(name: str):
        raise AssertionError(name)

    assert ann.keyring(world, lock=lock).own_exchange_key().id == made.id


def test_nothing_is_shared_with_who_has_no_key(world, ann):
    for stranger in (world.settle().id, "nobody"):
        with pytest.raises(BusinessRule, match=stranger):
            ann.keyring(world).exchange_key_to(stranger)
    assert not world.stored


def test_writing_needs_the_own_key(world, ann, bob):
    ring = Keyring(ann.id, False, {bob.id: bob.keys, ann.id: []}, world)
    assert ring.owners == {bob.id}
    with pytest.raises(KeyMissing, match="own data owner"):
        ring.own_exchange_key()


def test_the_key_of_an_ancestor_opens_what_was_shared_with_it(world, key, ann, bob):
    parent = world.settle(key(2))
    entity = entity_of(ann.keyring(world), parent.id)
    child = Keyring(bob.id, False, {bob.id: bob.keys, parent.id: parent.keys}, world)
    assert reads(child, entity)
    assert not reads(bob.keyring(world), entity)


def test_another_key_opens_nothing(world, key, ann):
    entity = entity_of(ann.keyring(world))
    opened = Keyring(ann.id, False, {ann.id: [OwnKey(key(3), "sha256")]}, world).open(entity, "Patient")
    assert (opened.entity_keys, opened.secret_ids) == ((), ())
    with pytest.raises(KeyMissing):
        _ = opened.entity_key


def test_a_key_announced_for_the_other_hash_opens_nothing(world, key, ann):
    entity = entity_of(ann.keyring(world))
    assert not reads(Keyring(ann.id, False, {ann.id: [OwnKey(key(0), "sha1")]}, world), entity)


def test_delegations_that_do_not_open_are_passed_over(world, ann, bob):
    entity = entity_of(ann.keyring(world), bob.id)
    ring = bob.keyring(world)
    (name,) = [
        n for n, d in entity["securityMetadata"]["secureDelegations"].items() if d["delegate"] == bob.id
    ]
    for garbage in ("é", "AAAA", base64.b64encode(bytes(48)).decode()):
        spoiled = copy.deepcopy(entity)
        spoiled["securityMetadata"]["secureDelegations"][name]["encryptionKeys"].insert(0, garbage)
        assert reads(ring, spoiled)


def test_a_page_costs_one_call_and_the_next_reading_none(world, ann, bob):
    entities = [entity_of(ann.keyring(world), bob.id)]
    for _ in range(20):
        document, made = exchange.create(ann.id, bob.id, ann.keys, [own.public for own in bob.keys])
        world.stored[document["id"]] = document
        delegation = {
            "delegator": ann.id,
            "delegate": bob.id,
            "exchangeDataId": document["id"],
            "encryptionKeys": [made.seal(bytes(32))],
        }
        metadata = {"secureDelegations": {made.delegation_key("Patient"): delegation}}
        stored = envelope.encrypt(
            {"id": "e", "note": "secret"}, bytes(32), envelope.DEFAULT_MANIFESTS["Patient"]
        )
        entities.append({**stored, "securityMetadata": metadata})
    ring = bob.keyring(world)
    world.forget_calls()
    ring.preload(entities, "Patient")
    assert all(reads(ring, entity) for entity in entities)
    assert world.calls == {"exchange_data": 1}
    ring.preload(entities, "Patient")
    assert all(reads(ring, entity) for entity in entities)
    assert world.calls == {"exchange_data": 1}


def test_what_icure_does_not_have_is_not_asked_for_again_and_again(world, ann, bob):
    entity = entity_of(ann.keyring(world), bob.id)
    world.stored.clear()
    world.forget_calls()
    ring = bob.keyring(world)
    ring.preload([entity] * 3, "Patient")
    assert not any(reads(ring, entity) for _ in range(10))
    assert world.calls == {"exchange_data": 1}


def test_rsa_runs_once_for_each_exchange_key(world, key, ann):
    entity = entity_of(ann.keyring(world))
    ring = ann.keyring(world)
    key(0).used = 0
    start = threading.Barrier(20)

    def read(_: int) -> bool:
        start.wait()
        return reads(ring, entity)

    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(read, range(20)))
    assert key(0).used == 1
    ring.own_exchange_key()
    assert key(0).used == 3


def test_an_entity_shared_with_many_costs_its_maker_one_rsa(world, key, ann):
    friends = [world.settle(key(n)).id for n in (1, 2, 3)]
    entity = entity_of(ann.keyring(world), *friends)
    ring = ann.keyring(world)
    key(0).used = 0
    assert reads(ring, entity)
    assert key(0).used == 1
    assert ring.open(entity, "Patient", whole=True).secret_ids == ring.open(entity, "Patient").secret_ids


def test_what_is_shared_with_oneself_is_opened_first(world, key, ann):
    friends = [world.settle(key(n)).id for n in (1, 2, 3)]
    maker = ann.keyring(world)
    entities = [entity_of(maker, friend) for friend in friends]
    for entity in entities:
        delegations = entity["securityMetadata"]["secureDelegations"]
        entity["securityMetadata"] = {"secureDelegations": dict(reversed(delegations.items()))}
    ring = ann.keyring(world)
    key(0).used = 0
    world.forget_calls()
    for entity in entities:
        ring.preload([entity], "Patient")
        assert reads(ring, entity)
    assert key(0).used == 1
    assert world.calls == {"exchange_data": 1}


def test_whole_finds_every_secret_id(world, ann, bob):
    ring = ann.keyring(world)
    entity = entity_of(ring, bob.id)
    to_bob = ring.exchange_key_to(bob.id)
    delegation = entity["securityMetadata"]["secureDelegations"][to_bob.delegation_key("Patient")]
    delegation["secretIds"].append(to_bob.seal(b"another"))
    fresh = ann.keyring(world)
    assert "another" not in fresh.open(entity, "Patient").secret_ids
    assert "another" in fresh.open(entity, "Patient", whole=True).secret_ids


def test_a_small_cache_costs_calls_and_nothing_else(monkeypatch, world, ann, bob):
    monkeypatch.setattr(lookup, "CACHE_SIZE", 1)
    entities = [entity_of(ann.keyring(world)), entity_of(bob.keyring(world), ann.id)]
    ring = ann.keyring(world)
    assert all(reads(ring, entity) for entity in entities * 3)


def test_a_dropped_keyring_opens_and_makes_nothing(world, ann, bob):
    ring = ann.keyring(world)
    entity = entity_of(ring)
    assert reads(ring, entity)
    ring.drop()
    assert not reads(ring, entity)
    for delegate in (ann.id, bob.id):
        with pytest.raises(KeyMissing):
            ring.exchange_key_to(delegate)


def test_a_dropped_keyring_proves_nothing(world, key):
    ring = world.settle(key(0), anonymous=True).keyring(world)
    ring.own_exchange_key()
    assert ring.access_control_header("Patient")
    ring.drop()
    assert ring.access_control_header("Patient") == []


def test_the_directory_may_be_replaced(world, ann):
    ring = ann.keyring(world)
    entity = entity_of(ring)
    fresh = ann.keyring(type(world)())
    assert not reads(fresh, entity)
    fresh = ann.keyring(type(world)())
    fresh.directory = world
    assert fresh.directory is world
    assert reads(fresh, entity)


@pytest.fixture
def pat(world, key):
    return world.settle(key(2), anonymous=True)


SIDES = {
    "both named": ("ann", "bob", {"delegator", "delegate", "exchangeDataId"}, 0),
    "anonymous delegate": ("ann", "pat", {"delegator"}, 1),
    "anonymous delegator": ("pat", "ann", {"delegate"}, 1),
    "both anonymous": ("pat", "quinn", set(), 0),
}


@pytest.mark.parametrize(("maker", "delegate", "named", "maps"), SIDES.values(), ids=SIDES)
def test_a_delegation_names_whom_it_may(maker, delegate, named, maps, world, key, ann, bob, pat):
    people = {"ann": ann, "bob": bob, "pat": pat, "quinn": world.settle(key(3), anonymous=True)}
    maker, delegate = people[maker], people[delegate]
    entity = entity_of(maker.keyring(world), delegate.id)
    root, child = entity["securityMetadata"]["secureDelegations"].values()
    assert named == child.keys() & {"delegator", "delegate", "exchangeDataId"}
    assert root.keys().isdisjoint({"delegator", "delegate", "exchangeDataId"}) == maker.anonymous
    assert len(world.maps) == maps
    for person in (maker, delegate):
        assert reads(person.keyring(world), entity)
    for person in people.values():
        if person not in (maker, delegate):
            assert not reads(person.keyring(world), entity)


def test_a_named_owner_finds_its_way_back_by_the_map_alone(world, ann, pat):
    entity = entity_of(ann.keyring(world), pat.id)
    delegations = entity["securityMetadata"]["secureDelegations"]
    (name,) = (name for name, d in delegations.items() if "delegate" not in d)
    alone = {**entity, "securityMetadata": {"secureDelegations": {name: delegations[name]}}}
    world.forget_calls()
    ring = ann.keyring(world)
    assert reads(ring, alone) and reads(ring, alone)
    assert world.calls == {"exchange_data_maps": 1, "exchange_data": 1}
    world.maps.clear()
    world.forget_calls()
    ring = ann.keyring(world)
    assert not reads(ring, alone) and not reads(ring, alone)
    assert world.calls == {"exchange_data_maps": 1}


def test_a_map_is_stored_once_for_many_entities(world, ann, pat):
    ring = ann.keyring(world)
    entities = [entity_of(ring, pat.id) for _ in range(5)]
    assert world.calls["create_exchange_data_maps"] == 1
    entity_of(ring, pat.id, type_name="Contact")
    assert world.calls["create_exchange_data_maps"] == 2
    patient = pat.keyring(world)
    assert all(reads(patient, entity) for entity in entities)
    assert world.calls["exchange_data_of"] == 1


def test_an_anonymous_owner_learns_of_later_shares(monkeypatch, world, ann, pat):
    monkeypatch.setattr(lookup, "RELOAD_SECONDS", 3600.0)
    ring = pat.keyring(world)
    assert ring.access_control_header("Patient") == []
    entity = entity_of(ann.keyring(world), pat.id)
    assert not reads(ring, entity), "asked a moment ago"
    monkeypatch.setattr(lookup, "RELOAD_SECONDS", -1.0)
    assert reads(ring, entity)
    assert len(ring.access_control_header("Patient")) == 1


def test_an_anonymous_owner_proves_what_it_just_made(world, pat):
    ring = pat.keyring(world)
    assert ring.access_control_header("Patient") == []
    made = ring.own_exchange_key()
    (value,) = ring.access_control_header("Patient")
    secret = made.access_control_secret
    assert base64.b64decode(value) == reader.access_control_key(secret, "Patient")


def test_a_header_value_holds_at_most_360_keys(world, pat):
    public = [own.public for own in pat.keys]
    for _ in range(361):
        document, _ = exchange.create(pat.id, pat.id, pat.keys, public)
        world.stored[document["id"]] = document
    values = pat.keyring(world).access_control_header("Contact")
    assert [len(base64.b64decode(value)) // 16 for value in values] == [360, 1]
