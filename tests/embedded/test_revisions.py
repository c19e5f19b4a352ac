from __future__ import annotations

import re

import pytest

from .world import contact, health_element, new_id, ok, patient, refused, service

KINDS = {"patient": patient, "contact": contact, "helement": health_element}


@pytest.fixture(params=KINDS)
def kind(request) -> str:
    return f"/{request.param}"


@pytest.fixture
def stored(alice, kind):
    return alice.create(kind, KINDS[kind.strip("/")]())


def generation(entity) -> int:
    assert re.fullmatch(r"\d+-[0-9a-f]{32}", entity["rev"])
    return int(entity["rev"].split("-")[0])


def test_every_write_is_a_new_generation(alice, kind, stored):
    seen = [stored]
    seen.append(ok(alice.put(kind, seen[-1] | {"endOfLife": 5})))
    deleted = ok(alice.delete(f"{kind}/{stored['id']}"))
    assert deleted.keys() == {"id", "rev"}
    seen.append(deleted)
    seen.append(ok(alice.post(f"{kind}/undelete/{stored['id']}", rev=deleted["rev"])))
    assert [generation(one) for one in seen] == [1, 2, 3, 4]
    assert seen[-1].items() >= (seen[1] | {"rev": seen[-1]["rev"]}).items()


def test_reading_gives_what_writing_answered(alice, kind, stored):
    assert ok(alice.get(f"{kind}/{stored['id']}")) == stored
    assert ok(alice.post(f"{kind}/byIds", {"ids": [stored["id"], "unknown", stored["id"]]})) == [stored]


def test_conflicts(alice, kind, stored):
    newer = ok(alice.put(kind, stored))
    assert newer["rev"] != stored["rev"]
    refused(alice.put(kind, stored), 409)
    refused(alice.put(kind, stored | {"id": new_id("unknown")}), 409)
    refused(alice.put(kind, {name: value for name, value in stored.items() if name != "rev"}), 400)
    refused(alice.post(kind, {name: value for name, value in stored.items() if name != "rev"}), 409)
    refused(alice.delete(f"{kind}/{stored['id']}", rev=stored["rev"]), 409)
    refused(alice.post(f"{kind}/undelete/{stored['id']}", rev=stored["rev"]), 409)
    refused(alice.delete(f"{kind}/purge/{stored['id']}", rev=stored["rev"]), 409)
    assert ok(alice.get(f"{kind}/{stored['id']}")) == newer


def test_undelete_and_purge_need_the_revision(alice, kind, stored):
    refused(alice.post(f"{kind}/undelete/{stored['id']}"), 400)
    refused(alice.delete(f"{kind}/purge/{stored['id']}"), 400)


def test_what_does_not_exist_is_not_found(alice, kind):
    refused(alice.get(f"{kind}/unknown"), 404)
    refused(alice.delete(f"{kind}/unknown"), 404)
    refused(alice.post(f"{kind}/undelete/unknown", rev="1-a"), 404)
    refused(alice.delete(f"{kind}/purge/unknown", rev="1-a"), 404)


def test_a_deleted_entity_is_read_and_keeps_its_id(alice, kind, stored):
    ok(alice.delete(f"{kind}/{stored['id']}", rev=stored["rev"]))
    deleted = ok(alice.get(f"{kind}/{stored['id']}"))
    assert deleted["deletionDate"] > 1_600_000_000_000
    assert deleted.items() >= {name: value for name, value in stored.items() if name != "rev"}.items()
    refused(alice.post(kind, {name: value for name, value in stored.items() if name != "rev"}), 409)


def test_deleting_again_moves_the_date(alice, kind, stored):
    ok(alice.delete(f"{kind}/{stored['id']}"))
    first = ok(alice.put(kind, ok(alice.get(f"{kind}/{stored['id']}")) | {"deletionDate": 5}))
    assert first["deletionDate"] == 5
    ok(alice.delete(f"{kind}/{stored['id']}"))
    assert ok(alice.get(f"{kind}/{stored['id']}"))["deletionDate"] > 5


def test_a_write_without_deletion_date_revives(alice, kind, stored):
    ok(alice.delete(f"{kind}/{stored['id']}"))
    deleted = ok(alice.get(f"{kind}/{stored['id']}"))
    del deleted["deletionDate"]
    ok(alice.put(kind, deleted))
    assert "deletionDate" not in ok(alice.get(f"{kind}/{stored['id']}"))


def test_a_purged_entity_is_gone_and_frees_its_id(alice, kind, stored):
    assert ok(alice.delete(f"{kind}/purge/{stored['id']}", rev=stored["rev"])) == {
        "id": stored["id"],
        "rev": stored["rev"],
    }
    refused(alice.get(f"{kind}/{stored['id']}"), 404)
    again = alice.create(kind, {name: value for name, value in stored.items() if name != "rev"})
    assert generation(again) == 1


def test_batch_create_leaves_out_taken_ids(alice, kind):
    taken, fresh = KINDS[kind.strip("/")](), KINDS[kind.strip("/")]()
    first = alice.create(kind, taken)
    answer = ok(alice.post(f"{kind}/batch/full", [taken | {"endOfLife": 1}, fresh, fresh]))
    assert [one["id"] for one in answer] == [fresh["id"]]
    assert ok(alice.get(f"{kind}/{taken['id']}")) == first


def test_batch_create_refuses_all_for_one_revision(alice, kind):
    fresh = KINDS[kind.strip("/")]()
    refused(alice.post(f"{kind}/batch/full", [fresh, KINDS[kind.strip("/")]() | {"rev": "1-a"}]), 400)
    refused(alice.get(f"{kind}/{fresh['id']}"), 404)


def test_batch_modify_leaves_out_stale_unknown_and_inaccessible_ones(alice, bob, kind):
    make = KINDS[kind.strip("/")]
    good, stale, other = (
        alice.create(kind, make()),
        alice.create(kind, make()),
        bob.create(kind, make(owner="bob-owner")),
    )
    ok(alice.put(kind, stale))
    sent = [stale, good | {"endOfLife": 7}, make() | {"rev": "1-a"}, other]
    answer = ok(alice.put(f"{kind}/batch/full", sent))
    assert [(one["id"], one["endOfLife"], generation(one)) for one in answer] == [(good["id"], 7, 2)]
    assert ok(bob.get(f"{kind}/{other['id']}")) == other


def test_batch_modify_refuses_all_for_one_missing_revision(alice, kind, stored):
    refused(alice.put(f"{kind}/batch/full", [stored, KINDS[kind.strip("/")]()]), 400)
    assert ok(alice.get(f"{kind}/{stored['id']}")) == stored


def test_batch_modify_refuses_all_for_one_changed_security_metadata(alice, kind, stored):
    other = alice.create(kind, KINDS[kind.strip("/")]())
    moved = other | {"securityMetadata": patient(owner="bob-owner")["securityMetadata"]}
    refused(alice.put(f"{kind}/batch/full", [stored | {"endOfLife": 1}, moved]), 400)
    assert ok(alice.get(f"{kind}/{stored['id']}")) == stored


def test_one_nameless_patient_refuses_the_batch(alice):
    good = patient()
    refused(alice.post("/patient/batch", [good, {"id": new_id("p")}]), 400)
    refused(alice.get(f"/patient/{good['id']}"), 404)


def test_shapes_of_batch_answers(alice):
    assert ok(alice.post("/patient/batch", [patient()]))[0].keys() == {"id", "rev"}
    assert ok(alice.post("/patient/batch/minimal", [patient()]))[0].keys() == {"id", "rev"}
    assert "firstName" in ok(alice.post("/patient/batch/full", [patient()]))[0]
    assert "services" in ok(alice.post("/contact/batch", [contact(service())]))[0]
    assert "services" not in ok(alice.post("/contact/batch/minimal", [contact(service())]))[0]
    assert "id" in ok(alice.post("/helement/batch", [health_element()]))[0]


def test_deleting_undeleting_and_purging_in_batches(alice, bob, kind):
    make = KINDS[kind.strip("/")]
    mine = [alice.create(kind, make()) for _ in range(3)]
    other = bob.create(kind, make(owner="bob-owner"))
    pairs = [{"id": one["id"], "rev": one["rev"]} for one in (*mine[:2], other)]
    pairs[1]["rev"] = "1-stale"
    deleted = ok(alice.post(f"{kind}/delete/batch/withrev", {"ids": [*pairs, {"id": "unknown"}]}))
    assert [one["id"] for one in deleted] == [mine[0]["id"]]
    deleted += ok(alice.post(f"{kind}/delete/batch", {"ids": [mine[1]["id"], other["id"], "unknown"]}))
    assert [one["id"] for one in deleted] == [mine[0]["id"], mine[1]["id"]]
    restored = ok(
        alice.post(f"{kind}/undelete/batch", {"ids": [*deleted, {"id": mine[2]["id"], "rev": "1-stale"}]})
    )
    assert [one["id"] for one in restored] == [mine[0]["id"], mine[1]["id"]]
    assert not any("deletionDate" in one for one in restored)
    revisions = {one["id"]: one["rev"] for one in restored}
    purged = ok(
        alice.post(
            f"{kind}/purge/batch", {"ids": [{"id": key, "rev": rev} for key, rev in revisions.items()]}
        )
    )
    assert [one["id"] for one in purged] == list(revisions)
    assert ok(alice.post(f"{kind}/byIds", {"ids": [one["id"] for one in (*mine, other)]})) == [mine[2]]


def test_contacts_and_healthcare_parties_by_no_ids_are_refused(alice):
    for kind in ("contact", "hcparty"):
        refused(alice.post(f"/{kind}/byIds", {"ids": []}), 400)
    assert ok(alice.post("/patient/byIds", {"ids": []})) == []
