"""$share and $access: what is shared is opened by who it was shared with, and by nobody else."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from requests.adapters import BaseAdapter

from bridge import demo, jobs, throttle
from bridge.app import EMBEDDED_URL, create_app
from bridge.crypto.keys import OwnKey, PrivateKey
from bridge.crypto.primitives import cbc_encrypt, to_base64
from bridge.demo import ESMITH
from bridge.embedded import Store, admin
from bridge.journal import Journal
from mappings.values import Resource
from tests.helpers import (
    DEMO_PATIENT,
    Account,
    Caller,
    Remote,
    Server,
    assert_outcome,
    count_calls,
    eventually,
    serving,
    stored,
)

LOINC = "http://loinc.org"
PATIENT = {
    "resourceType": "Patient",
    "name": [{"family": "Snow", "given": ["John"]}],
    "maritalStatus": {"text": "Winter is coming"},
}


def observation(patient: str = DEMO_PATIENT, code: str = "718-7", **members: Any) -> Resource:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": LOINC, "code": code}]},
        "subject": {"reference": f"Patient/{patient}"},
        "valueString": "Hello world",
        **members,
    }


def condition(patient: str = DEMO_PATIENT) -> Resource:
    text = "The patient has been diagnosed Pararibulitis"
    return {
        "resourceType": "Condition",
        "code": {"text": text},
        "subject": {"reference": f"Patient/{patient}"},
    }


def asking(
    recipient: Caller | str, permission: str | None = "write", *include: str, **members: Any
) -> Resource:
    """Parameters of $share."""
    name = recipient if isinstance(recipient, str) else f"Practitioner/{recipient.account['dataOwnerId']}"
    parts: list[Any] = [{"name": "recipient", "valueReference": {"reference": name}}]
    parts += [{"name": "permission", "valueCode": permission}] if permission else []
    parts += [{"name": "include", "valueCode": kind} for kind in include]
    return {"resourceType": "Parameters", "parameter": parts, **members}


def share(caller: Caller, location: str, *asked: Any, **headers: str) -> Resource:
    """Returns what $share answered."""
    response = caller.post(f"{location}/$share", asking(*asked), **headers)
    assert response.status_code == 200, response.text
    assert response.json["resourceType"] == "Parameters"
    told: Resource = response.json
    return told


def told(parameters: Resource, name: str) -> list[Any]:
    """The values of a parameter."""
    return [
        next((v for n, v in one.items() if n.startswith("value")), one.get("part"))
        for one in parameters["parameter"]
        if one["name"] == name
    ]


def references(parameters: Resource, name: str) -> list[str]:
    return [one["reference"] for one in told(parameters, name)]


def accesses(caller: Caller, path: str) -> set[tuple[str | None, str, str | None]]:
    """Who can open a resource, with what leave, through whom, as $access says it."""
    response = caller.get(f"{path}/$access")
    assert response.status_code == 200, response.text
    parts = [
        [next(v for n, v in p.items() if n != "name") for p in one] for one in told(response.json, "access")
    ]
    return {(who.get("reference"), leave, through.get("reference")) for who, leave, through in parts}


def person(one: Caller, data_dir: Path, name: str) -> Caller:
    """One more person, with whom nothing is shared."""
    account = demo.new_account(name, f"password of {name}", str(uuid.uuid4()))
    demo.store_account(data_dir, account)
    caller = Caller(one.app, account)
    assert caller.load_key().status_code == 200
    return caller


@pytest.fixture
def carol(esmith: Caller, data_dir: Path) -> Caller:
    return person(esmith, data_dir, "carol")


@pytest.fixture
def patient(esmith: Caller) -> Resource:
    return esmith.created(PATIENT)


def location(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def content(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name != "meta"}


# with another


def test_a_patient_is_shared_and_opened_by_who_it_was_shared_with(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    path = location(patient)
    assert jdoe.get(path).status_code in (403, 404)
    assert jdoe.found("Patient") == []
    answer = share(esmith, path, jdoe, "read")
    assert references(answer, "shared") == [path]
    assert told(answer, "permission") == ["read"]
    assert references(answer, "recipient") == [f"Practitioner/{jdoe.account['dataOwnerId']}"]
    fingerprints = jdoe.get(f"/rest/icdx/v1/keychain/{jdoe.account['dataOwnerId']}").json["fingerprints"]
    assert told(answer, "fingerprint") == fingerprints
    assert content(jdoe.get(path).json) == content(patient)
    assert [p["id"] for p in jdoe.found("Patient?name=Snow")] == [patient["id"]]


@pytest.mark.parametrize("kind", ["Observation", "Condition"])
def test_a_patient_s_data_is_shared_by_itself(esmith: Caller, jdoe: Caller, kind: str) -> None:
    made = esmith.created({"Observation": observation, "Condition": condition}[kind]())
    path = location(made)
    assert jdoe.get(path).status_code in (403, 404)
    assert jdoe.found(kind) == []
    share(esmith, path, jdoe)
    assert content(jdoe.get(path).json) == content(made)
    assert [one["id"] for one in jdoe.found(kind)] == [made["id"]]


def test_what_is_shared_with_one_is_shared_with_nobody_else(
    esmith: Caller, jdoe: Caller, carol: Caller, patient: Resource
) -> None:
    share(esmith, location(patient), jdoe)
    assert carol.get(location(patient)).status_code in (403, 404)
    assert carol.found("Patient") == []


@pytest.mark.parametrize("make", [lambda: PATIENT, observation, condition])
def test_sharing_twice_changes_nothing(
    esmith: Caller, jdoe: Caller, data_dir: Path, make: Callable[[], Resource]
) -> None:
    path = location(esmith.created(make()))
    first = share(esmith, path, jdoe)
    before = stored(data_dir)
    again = share(esmith, path, jdoe)
    assert (references(first, "shared"), references(first, "unchanged")) == ([path], [])
    assert (references(again, "shared"), references(again, "unchanged")) == ([], [path])
    assert stored(data_dir) == before
    share(esmith, path, jdoe, "read")
    assert stored(data_dir) == before, "who may write may read"


def test_a_share_is_a_new_version_of_a_patient_and_of_a_condition(esmith: Caller, jdoe: Caller) -> None:
    for made in (esmith.created(PATIENT), esmith.created(condition())):
        response = esmith.post(f"{location(made)}/$share", asking(jdoe))
        now = esmith.get(location(made))
        assert response.headers["ETag"] == now.headers["ETag"]
        assert now.json["meta"]["versionId"] != made["meta"]["versionId"]
        assert content(now.json) == content(made)


def test_a_share_is_no_new_version_of_an_observation(esmith: Caller, jdoe: Caller) -> None:
    made = esmith.created(observation())
    response = esmith.post(f"{location(made)}/$share", asking(jdoe))
    assert response.headers["ETag"] == f'W/"{made["meta"]["versionId"]}"'
    assert esmith.get(location(made)).json == made


@pytest.mark.parametrize("make", [lambda: PATIENT, observation, condition])
def test_a_share_of_another_version_than_the_caller_names_is_refused(
    esmith: Caller, jdoe: Caller, data_dir: Path, make: Callable[[], Resource]
) -> None:
    made = esmith.created(make())
    path, old = location(made), f'W/"{made["meta"]["versionId"]}"'
    changed = esmith.send("PUT", path, {**made, "identifier": [{"system": "urn:x", "value": "1"}]})
    assert changed.status_code == 200, changed.text
    before = stored(data_dir)
    assert_outcome(esmith.post(f"{path}/$share", asking(jdoe), If_Match=old), 412, "conflict")
    assert stored(data_dir) == before
    share(esmith, path, jdoe, If_Match=changed.headers["ETag"])


def test_the_second_share_names_the_version_that_the_first_one_made(
    esmith: Caller, jdoe: Caller, carol: Caller, patient: Resource
) -> None:
    path, first = location(patient), f'W/"{patient["meta"]["versionId"]}"'
    response = esmith.post(f"{path}/$share", asking(jdoe), If_Match=first)
    assert_outcome(esmith.post(f"{path}/$share", asking(carol), If_Match=first), 412, "conflict")
    share(esmith, path, carol, If_Match=response.headers["ETag"])


# permissions, and sharing on


def test_who_may_read_cannot_write(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    share(esmith, location(patient), jdoe, "read")
    seen = jdoe.get(location(patient)).json
    assert_outcome(jdoe.send("PUT", location(patient), {**seen, "active": False}), 403)
    assert esmith.get(location(patient)).json["name"] == patient["name"]


def test_leave_to_write_can_be_given_to_who_had_leave_to_read(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    path = location(patient)
    share(esmith, path, jdoe, "read")
    assert references(share(esmith, path, jdoe, "write"), "shared") == [path]
    seen = jdoe.get(path).json
    assert jdoe.send("PUT", path, {**seen, "active": False}).status_code == 200
    assert esmith.get(path).json["active"] is False
    assert references(share(esmith, path, jdoe, "write"), "unchanged") == [path]
    grants = {who: leave for who, leave, _ in accesses(esmith, path)}
    assert grants[f"Practitioner/{jdoe.account['dataOwnerId']}"] == "write"


@pytest.mark.parametrize("make", [lambda: PATIENT, observation, condition])
def test_whoever_received_access_shares_on(
    esmith: Caller, jdoe: Caller, carol: Caller, make: Callable[[], Resource]
) -> None:
    made = esmith.created(make())
    path = location(made)
    assert_outcome(jdoe.post(f"{path}/$share", asking(carol)), 403)
    share(esmith, path, jdoe, "read")
    assert_outcome(jdoe.post(f"{path}/$share", asking(carol, "write")), 403, "forbidden")
    assert carol.get(path).status_code == 403
    share(jdoe, path, carol, "read")
    assert content(carol.get(path).json) == content(made)
    share(carol, path, esmith, "read")
    people = {
        name: f"Practitioner/{one.account['dataOwnerId']}" for name, one in (("e", esmith), ("j", jdoe))
    }
    assert accesses(esmith, path) == {
        (people["e"], "write", people["e"]),
        (people["j"], "read", people["e"]),
        (f"Practitioner/{carol.account['dataOwnerId']}", "read", people["j"]),
        (people["e"], "read", f"Practitioner/{carol.account['dataOwnerId']}"),
    }


def test_what_was_posted_for_a_shared_patient_is_shared_back(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    share(esmith, location(patient), jdoe)
    made = jdoe.created(observation(patient["id"]))
    assert esmith.found(f"Observation?patient={patient['id']}") == []
    share(jdoe, location(made), esmith)
    assert [o["id"] for o in esmith.found(f"Observation?patient={patient['id']}")] == [made["id"]]


# a Contact with others


def together(caller: Caller, *resources: Resource) -> list[str]:
    """Posts resources in one Bundle, which puts Observations of one patient and day into one Contact."""
    entries = [{"request": {"method": "POST", "url": r["resourceType"]}, "resource": r} for r in resources]
    answer = caller.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status_code == 200, answer.text
    return [e["response"]["location"].partition("/_history")[0].split("r4/")[1] for e in answer.json["entry"]]


def contact_of(data_dir: Path, path: str) -> str:
    """The Contact in which an Observation was modified last."""
    wanted = path.partition("/")[2]
    found = {}
    for (kind, contact_id), (_, body) in stored(data_dir).items():
        if kind == "Contact":
            for service in orjson.loads(body)["services"]:
                if service["id"] == wanted:
                    found[service["modified"]] = contact_id
    return found[max(found)]


def entity_of(data_dir: Path, resource: Resource) -> dict[str, Any]:
    """The document in which a resource is stored."""
    held = {"Observation": "Contact", "Condition": "HealthElement"}.get(resource["resourceType"], "Patient")
    entity_id = contact_of(data_dir, location(resource)) if held == "Contact" else resource["id"]
    entity: dict[str, Any] = orjson.loads(stored(data_dir)[held, entity_id][1])
    return entity


def test_neighbours_of_what_is_shared_are_not_shared(esmith: Caller, jdoe: Caller, data_dir: Path) -> None:
    one, other, third = together(esmith, *(observation(code=f"{n}-{n}", note=[{"text": "x"}]) for n in "123"))
    before = {path: esmith.get(path).json for path in (one, other, third)}
    assert contact_of(data_dir, one) == contact_of(data_dir, other)
    assert references(share(esmith, one, jdoe), "shared") == [one]
    assert [o["id"] for o in jdoe.found("Observation")] == [one.partition("/")[2]]
    assert content(jdoe.get(one).json) == content(before[one])
    assert jdoe.get(other).status_code == 403
    assert contact_of(data_dir, one) != contact_of(data_dir, other) == contact_of(data_dir, third)
    assert {path: esmith.get(path).json for path in (other, third)} == {p: before[p] for p in (other, third)}
    assert content(esmith.get(one).json) == content(before[one])
    assert {o["id"] for o in esmith.found(f"Observation?patient={DEMO_PATIENT}")} == {
        path.partition("/")[2] for path in before
    }
    at_rest = stored(data_dir)
    assert references(share(esmith, one, jdoe), "unchanged") == [one]
    assert stored(data_dir) == at_rest


def test_what_moves_stays_with_all_who_could_open_it(
    esmith: Caller, jdoe: Caller, carol: Caller, patient: Resource, data_dir: Path
) -> None:
    one, other = together(esmith, observation(patient["id"], "1-1"), observation(patient["id"], "2-2"))
    share(esmith, location(patient), jdoe, "write", "Observation")
    share(esmith, location(patient), carol, "read", "Observation")
    dave = person(esmith, data_dir, "dave")
    share(jdoe, one, dave, "read")
    assert contact_of(data_dir, one) != contact_of(data_dir, other)
    for caller in (esmith, jdoe, carol, dave):
        assert caller.get(one).json["valueString"] == "Hello world"
    assert dave.get(other).status_code == 403
    seen = carol.get(one).json
    assert_outcome(carol.send("PUT", one, {**seen, "status": "amended"}), 403)
    for caller, status in ((esmith, "amended"), (jdoe, "corrected")):
        assert caller.send("PUT", one, {**caller.get(one).json, "status": status}).status_code == 200


def test_who_may_only_read_a_contact_cannot_share_one_of_its_observations_alone(
    esmith: Caller, jdoe: Caller, carol: Caller, patient: Resource, data_dir: Path
) -> None:
    one, _ = together(esmith, observation(patient["id"], "1-1"), observation(patient["id"], "2-2"))
    share(esmith, location(patient), jdoe, "read", "Observation")
    before = stored(data_dir)
    assert_outcome(jdoe.post(f"{one}/$share", asking(carol, "read")), 403, "forbidden")
    assert stored(data_dir).keys() == before.keys()
    assert jdoe.get(one).status_code == 200


def test_a_deleted_observation_is_not_shared_with_its_neighbour(
    esmith: Caller, jdoe: Caller, patient: Resource, data_dir: Path
) -> None:
    kept, deleted = together(esmith, observation(patient["id"], "1-1"), observation(patient["id"], "2-2"))
    assert esmith.delete(deleted).status_code == 204
    answer = share(esmith, location(patient), jdoe, "read", "Observation")
    assert references(answer, "shared") == [location(patient), kept]
    assert contact_of(data_dir, kept) != contact_of(data_dir, deleted)
    assert jdoe.get(deleted).status_code == 403


class Breaking(BaseAdapter):
    """Breaks the connection of upstream calls of one method and path, before they arrive."""

    def __init__(self, app: Any, method: str, path: str) -> None:
        super().__init__()
        self.session = app.extensions["bridge"].upstream.session
        self.inner = self.session.get_adapter(EMBEDDED_URL)
        self.call, self.broken = (method, f"/rest/v2/{path}"), 0
        self.session.mount(EMBEDDED_URL, self)

    def send(self, request: Any, **options: Any) -> Any:
        if (request.method, request.path_url) == self.call and not self.broken:
            self.broken += 1
            raise requests.ConnectionError
        return self.inner.send(request, **options)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("call", [("POST", "contact"), ("PUT", "contact")])
def test_a_move_that_breaks_off_half_way_is_undone(
    esmith: Caller, jdoe: Caller, data_dir: Path, call: tuple[str, str]
) -> None:
    one, other = together(esmith, observation(code="1-1"), observation(code="2-2"))
    before = {path: esmith.get(path).json for path in (one, other)}
    breaking = Breaking(esmith.app, *call)
    assert_outcome(esmith.post(f"{one}/$share", asking(jdoe)), 502, "transient")
    assert breaking.broken == 1
    assert {path: esmith.get(path).json for path in (one, other)} == before
    assert contact_of(data_dir, one) == contact_of(data_dir, other)
    assert jdoe.get(one).status_code == 403
    share(esmith, one, jdoe)
    assert content(jdoe.get(one).json) == content(before[one])
    assert jdoe.get(other).status_code == 403


@pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "once"}], ids=["no key", "a key"])
def test_a_share_that_breaks_off_after_moves_leaves_nothing_open(
    esmith: Caller, jdoe: Caller, patient: Resource, key: dict[str, str]
) -> None:
    """Whatever was moved stays where it is; nobody takes it back behind a share of it."""
    about = patient["id"]
    kept = []
    for day in ("2020-01-01", "2020-01-02"):
        one, deleted = together(
            esmith, *(observation(about, code, effectiveDateTime=day) for code in ("1-1", "2-2"))
        )
        assert esmith.delete(deleted).status_code == 204
        kept.append(one)
    before = {path: esmith.get(path).json for path in kept}
    Breaking(esmith.app, "PUT", "contact/bulkSharedMetadataUpdate")
    asked = asking(jdoe, "read", "Observation")
    assert_outcome(esmith.post(f"{location(patient)}/$share", asked, **key), 502, "transient")
    assert list(Journal(esmith.app.extensions["bridge"].state).open_entries()) == []
    answer = share(esmith, location(patient), jdoe, "read", "Observation", **key)
    assert sorted(references(answer, "shared")) == sorted(kept)
    for path in kept:
        assert content(jdoe.get(path).json) == content(esmith.get(path).json) == content(before[path])


def test_many_who_share_the_same_at_once_share_it_once(
    esmith: Caller, jdoe: Caller, patient: Resource, data_dir: Path
) -> None:
    def once_more(_: int) -> Resource:
        return share(Caller(esmith.app, esmith.account), location(patient), jdoe)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(once_more, range(8)))
    assert sorted(len(references(answer, "shared")) for answer in answers) == [*[0] * 7, 1]
    assert sum(len(references(answer, "unchanged")) for answer in answers) == 7
    delegations = entity_of(data_dir, patient)["securityMetadata"]["secureDelegations"]
    assert len(delegations) == 2
    pair = [kind for kind, _ in stored(data_dir) if kind == "ExchangeData"]
    assert len(pair) == 2


def test_neighbours_are_shared_at_once_one_by_one_while_they_are_written(
    esmith: Caller, jdoe: Caller, data_dir: Path
) -> None:
    paths = together(esmith, *(observation(code=f"{n}-{n}") for n in range(8)))

    def shared(path: str) -> Resource:
        return share(Caller(esmith.app, esmith.account), path, jdoe)

    def written(path: str) -> None:
        caller = Caller(esmith.app, esmith.account)
        answer = caller.send("PUT", path, {**caller.get(path).json, "status": "amended"})
        assert answer.status_code in (200, 409), answer.text

    with ThreadPoolExecutor(16) as pool:
        both = [pool.submit(do, path) for path in paths for do in (shared, shared, written)]
        for one in both:
            one.result()
    assert len({contact_of(data_dir, path) for path in paths}) == 8
    for path in paths:
        assert jdoe.get(path).json == esmith.get(path).json
    assert len(esmith.found("Observation")) == len(jdoe.found("Observation")) == 8


@pytest.mark.parametrize("make", [lambda: PATIENT, condition])
def test_what_changes_during_a_share_is_shared_unless_the_caller_names_its_version(
    esmith: Caller, jdoe: Caller, carol: Caller, make: Callable[[], Resource]
) -> None:
    made = esmith.created(make())
    path, kind = location(made), {"Patient": "patient", "Condition": "helement"}[made["resourceType"]]
    adapter = esmith.app.extensions["bridge"].upstream.session.get_adapter(EMBEDDED_URL)
    inner, meanwhile = adapter.send, ["fr", "de"]

    def send(request: Any, **options: Any) -> Any:
        """Lets somebody write just before the share, which iCure then rejects in these words."""
        if request.path_url != f"/rest/v2/{kind}/bulkSharedMetadataUpdate" or not meanwhile:
            return inner(request, **options)
        changed = {**esmith.get(path).json, "language": meanwhile.pop()}
        assert esmith.send("PUT", path, changed).status_code == 200
        rejected = {"share": {"code": 409, "reason": "conflict", "shouldRetry": True}}
        answer = requests.Response()
        answer.status_code = 200
        answer._content = orjson.dumps([{"entityId": made["id"], "rejectedRequests": rejected}])
        return answer

    adapter.send = send
    tag = esmith.get(path).headers["ETag"]
    assert_outcome(esmith.post(f"{path}/$share", asking(jdoe), If_Match=tag), 412, "conflict")
    assert jdoe.get(path).status_code == 403
    share(esmith, path, carol)
    assert meanwhile == []
    assert content(carol.get(path).json) == content(esmith.get(path).json)


# with all that belongs to it


def test_a_patient_is_shared_with_its_data(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    day = {"effectiveDateTime": "2020-01-01"}
    made = together(esmith, *(observation(patient["id"], f"{n}-1", **day) for n in "123"))
    made += [
        location(esmith.created(observation(patient["id"]))),
        location(esmith.created(condition(patient["id"]))),
    ]
    elsewhere = location(esmith.created(observation()))
    answer = share(esmith, location(patient), jdoe, "read", "Observation", "Condition")
    assert sorted(references(answer, "shared")) == sorted([location(patient), *made])
    assert told(answer, "failed") == []
    for path in made:
        assert content(jdoe.get(path).json) == content(esmith.get(path).json)
    assert len(jdoe.found(f"Observation?patient={patient['id']}")) == 4
    assert len(jdoe.found(f"Condition?patient={patient['id']}")) == 1
    assert jdoe.get(elsewhere).status_code == 403
    again = share(esmith, location(patient), jdoe, "read", "Observation", "Condition")
    assert sorted(references(again, "unchanged")) == sorted([location(patient), *made])
    everything = jdoe.get(f"{location(patient)}/$everything").json
    assert {f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in everything["entry"]} >= {*made}


def test_only_the_types_asked_for_are_shared_along(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    seen, unseen = (location(esmith.created(make(patient["id"]))) for make in (condition, observation))
    answer = share(esmith, location(patient), jdoe, "read", "Condition")
    assert references(answer, "shared") == [location(patient), seen]
    assert jdoe.get(unseen).status_code == 403


def test_many_are_shared_in_a_few_calls(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    together(esmith, *(observation(patient["id"], effectiveDateTime=f"20{n:02}-01-01") for n in range(60)))
    counting = count_calls(esmith.app)
    answer = share(esmith, location(patient), jdoe, "read", "Observation")
    assert len(references(answer, "shared")) == 61
    calls = counting.told()
    assert calls.count("PUT contact/bulkSharedMetadataUpdate") == 2
    assert len(calls) < 30, calls


# what is refused


REFUSED: dict[str, tuple[Any, int, str]] = {
    "no Parameters": ({"resourceType": "Patient"}, 400, "Parameters"),
    "nothing": ({"resourceType": "Parameters"}, 400, "Parameters.parameter"),
    "a list that is none": ({"resourceType": "Parameters", "parameter": {}}, 400, "Parameters.parameter"),
    "a part that is none": ({"resourceType": "Parameters", "parameter": [7]}, 400, "Parameters.parameter[0]"),
    "another parameter": (
        {"resourceType": "Parameters", "parameter": [{"name": "to", "valueCode": "x"}]},
        400,
        "Parameters.parameter[0].name",
    ),
    "a parameter without a name": (
        {"resourceType": "Parameters", "parameter": [{"valueCode": "read"}]},
        400,
        "Parameters.parameter[0].name",
    ),
    "a name that is none": (
        {"resourceType": "Parameters", "parameter": [{"name": ["recipient"]}]},
        400,
        "Parameters.parameter[0].name",
    ),
    "another member": ({**asking("Practitioner/x"), "to": "y"}, 400, "Parameters.to"),
    "two permissions in one": (
        {
            "resourceType": "Parameters",
            "parameter": [{"name": "permission", "valueCode": "read", "valueString": "write"}],
        },
        400,
        "Parameters.parameter[0].value",
    ),
    "a permission that is a number": (
        {"resourceType": "Parameters", "parameter": [{"name": "permission", "valueCode": 1}]},
        400,
        "Parameters.parameter[0].value",
    ),
    "a recipient that is a list": (
        {"resourceType": "Parameters", "parameter": [{"name": "recipient", "valueReference": []}]},
        400,
        "Parameters.parameter[0].value",
    ),
    "nothing in place of a part": (
        {"resourceType": "Parameters", "parameter": [None]},
        400,
        "Parameters.parameter[0]",
    ),
    "a recipient elsewhere": (
        asking("https://example.org/Practitioner/x"),
        422,
        "Parameters.parameter[0].value.reference",
    ),
    "a recipient by identifier": (
        {
            "resourceType": "Parameters",
            "parameter": [
                {"name": "permission", "valueCode": "read"},
                {"name": "recipient", "valueReference": {"identifier": {"value": "x"}}},
            ],
        },
        422,
        "Parameters.parameter[1].value.reference",
    ),
    "a version of a recipient": (
        asking("Practitioner/x/_history/1"),
        422,
        "Parameters.parameter[0].value.reference",
    ),
    "no permission": (asking("Practitioner/x", None), 400, "Parameters.parameter"),
    "another permission": (asking("Practitioner/x", "own"), 400, "Parameters.parameter[1].value"),
    "no recipient": (
        {"resourceType": "Parameters", "parameter": [{"name": "permission", "valueCode": "read"}]},
        400,
        "Parameters.parameter",
    ),
    "two recipients": (
        {"resourceType": "Parameters", "parameter": asking("Practitioner/x")["parameter"] * 2},
        400,
        "Parameters.parameter",
    ),
    "a recipient in text": (
        {
            "resourceType": "Parameters",
            "parameter": [
                {"name": "permission", "valueCode": "read"},
                {"name": "recipient", "valueString": "x"},
            ],
        },
        400,
        "Parameters.parameter[1]",
    ),
    "a recipient without reference": (
        {
            "resourceType": "Parameters",
            "parameter": [
                {"name": "permission", "valueCode": "read"},
                {"name": "recipient", "valueReference": {"reference": 7}},
            ],
        },
        400,
        "Parameters.parameter[1].value.reference",
    ),
    "an unknown recipient": (
        asking("Practitioner/unknown"),
        422,
        "Parameters.parameter[0].value.reference",
    ),
    "nobody's id": (asking("Practitioner/"), 422, "Parameters.parameter[0].value.reference"),
    "a group": (asking("Group/1"), 422, "Parameters.parameter[0].value.reference"),
    "a bare id": (asking("f005"), 400, "Parameters.parameter[0].value.reference"),
    "another type": (asking("Patient/f005"), 422, "Parameters.parameter[0].value.reference"),
    "a practitioner without key": (
        asking("Practitioner/f005"),
        422,
        "Parameters.parameter[0].value",
    ),
    "an organization without key": (asking("Organization/1"), 422, "Parameters.parameter[0].value"),
    "a patient without key": (
        asking(f"Patient/{DEMO_PATIENT}"),
        422,
        "Parameters.parameter[0].value",
    ),
    "oneself": (asking(f"Practitioner/{ESMITH}"), 422, "Parameters.parameter[0].value"),
    "an unknown type": (
        asking("Practitioner/x", "read", "Spaceship"),
        400,
        "Parameters.parameter[2].value",
    ),
    "a type in clear": (
        asking("Practitioner/x", "read", "Practitioner"),
        400,
        "Parameters.parameter[2].value",
    ),
    "a type that is none": (
        {
            "resourceType": "Parameters",
            "parameter": [*asking("Practitioner/x")["parameter"], {"name": "include", "valueBoolean": True}],
        },
        400,
        "Parameters.parameter[2]",
    ),
}


@pytest.mark.parametrize(("body", "status", "path"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_asked_for_is_refused_in_words(
    esmith: Caller, data_dir: Path, body: Any, status: int, path: str
) -> None:
    before = stored(data_dir)
    assert_outcome(esmith.post(f"Patient/{DEMO_PATIENT}/$share", body), status, path=path)
    assert stored(data_dir) == before


@pytest.mark.parametrize("kind", ["Practitioner", "Organization", "Patient"])
def test_a_data_owner_that_was_deleted_is_no_recipient(
    esmith: Caller, data_dir: Path, patient: Resource, kind: str
) -> None:
    members = {"name": "Ward"} if kind == "Organization" else {"name": [{"family": "Gone"}]}
    who = location(esmith.created({"resourceType": kind, **members}))
    announce(esmith, who.partition("/")[2], PrivateKey.generate())
    share(esmith, location(patient), who, "read")
    assert esmith.delete(who).status_code == 204
    before = stored(data_dir)
    assert_outcome(
        esmith.post(f"{location(patient)}/$share", asking(who, "write")),
        422,
        path="Parameters.parameter[0].value.reference",
    )
    assert stored(data_dir) == before


def test_a_recipient_goes_by_its_own_type(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    ward = location(esmith.created({"resourceType": "Organization", "name": "Ward"})).partition("/")[2]
    announce(esmith, ward, PrivateKey.generate())
    for who in (f"Practitioner/{ward}", f"Organization/{jdoe.account['dataOwnerId']}", f"Patient/{ward}"):
        assert_outcome(
            esmith.post(f"{location(patient)}/$share", asking(who, "read")),
            422,
            path="Parameters.parameter[0].value.reference",
        )
    answer = share(esmith, location(patient), f"Organization/{ward}", "read")
    assert references(answer, "recipient") == [f"Organization/{ward}"]
    esmiths = f"Practitioner/{ESMITH}"
    assert (f"Organization/{ward}", "read", esmiths) in accesses(esmith, location(patient))


def test_data_comes_along_with_a_patient_only(esmith: Caller, jdoe: Caller) -> None:
    path = location(esmith.created(observation()))
    response = esmith.post(f"{path}/$share", asking(jdoe, "read", "Observation"))
    assert_outcome(response, 400, path="Parameters.parameter[2].value")


@pytest.mark.parametrize("operation", ["$share", "$access"])
def test_what_is_not_there_or_not_the_callers_is_refused(
    esmith: Caller, jdoe: Caller, patient: Resource, operation: str
) -> None:
    body = asking(esmith) if operation == "$share" else {"resourceType": "Parameters"}
    assert_outcome(jdoe.post(f"{location(patient)}/{operation}", body), 403)
    assert_outcome(jdoe.post(f"Patient/unknown/{operation}", body), 404)
    assert_outcome(jdoe.post(f"Practitioner/{ESMITH}/{operation}", body), 404, "not-supported")
    assert esmith.delete(location(patient)).status_code == 204
    body = asking(jdoe) if operation == "$share" else {"resourceType": "Parameters"}
    assert_outcome(esmith.post(f"{location(patient)}/{operation}", body), 410)


@pytest.mark.parametrize("body", [[], 1, "x", {"resourceType": "Patient"}, asking("Practitioner/x")])
def test_access_takes_no_parameters(esmith: Caller, body: Any) -> None:
    assert esmith.post(f"Patient/{DEMO_PATIENT}/$access", None).status_code == 200
    assert esmith.post(f"Patient/{DEMO_PATIENT}/$access", {"resourceType": "Parameters"}).status_code == 200
    assert_outcome(esmith.post(f"Patient/{DEMO_PATIENT}/$access", body), 400)


def test_sharing_takes_the_callers_key(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    esmith.delete(f"/rest/icdx/v1/keychain/{ESMITH}")
    assert_outcome(esmith.post(f"{location(patient)}/$share", asking(jdoe)), 403, "security")


def test_a_recipient_is_known_by_its_client_id_too(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    owner = jdoe.account["dataOwnerId"]
    party = esmith.get(f"Practitioner/{owner}").json
    party["identifier"] = [{"system": "https://dxm.icure.dev", "value": "doctor-doe"}]
    assert esmith.send("PUT", f"Practitioner/{owner}", party).status_code == 200
    answer = share(esmith, location(patient), "Practitioner/doctor-doe")
    assert references(answer, "recipient") == [f"Practitioner/{owner}"]
    assert jdoe.get(location(patient)).status_code == 200


def test_a_share_with_a_key_of_its_own_may_be_sent_again(
    esmith: Caller, jdoe: Caller, patient: Resource, data_dir: Path
) -> None:
    path = f"{location(patient)}/$share"
    sent = {"If_Match": f'W/"{patient["meta"]["versionId"]}"', "Idempotency_Key": "once"}
    first = esmith.post(path, asking(jdoe, "read", "Observation"), **sent)
    later = location(esmith.created(observation(patient["id"])))
    before = stored(data_dir)
    again = esmith.post(path, asking(jdoe, "read", "Observation"), **sent)
    assert (first.status_code, again.status_code) == (200, 200)
    assert (again.json, again.headers["ETag"]) == (first.json, first.headers["ETag"])
    assert references(again.json, "shared") == [location(patient)]
    assert stored(data_dir) == before
    assert jdoe.get(later).status_code == 403, "it was posted after the share"
    assert_outcome(esmith.post(path, asking(jdoe, "read"), **sent), 422)


def test_a_share_that_is_answered_later_may_be_sent_again(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    path, sent = f"{location(patient)}/$share", {"Prefer": "respond-async", "Idempotency_Key": "once"}
    first, again = (esmith.post(path, asking(jdoe), **sent) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.headers["Content-Location"] == again.headers["Content-Location"]
    assert answered(esmith, again.headers["Content-Location"]).status_code == 200
    assert_outcome(esmith.post(path, asking(jdoe, "read"), **sent), 422)


class Died(BaseException):
    """What a worker dies of."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "call", ["POST /rest/v2/contact", "PUT /rest/v2/contact", "PUT /rest/v2/contact/bulkSharedMetadataUpdate"]
)
@pytest.mark.parametrize("key", [{}, {"Idempotency_Key": "once"}], ids=["no key", "a key"])
def test_a_share_during_which_the_worker_died_is_finished_by_sending_it_again(
    esmith: Caller, jdoe: Caller, key: dict[str, str], call: str, after: bool
) -> None:
    one, other = together(esmith, observation(code="1-1"), observation(code="2-2"))
    before = {path: esmith.get(path).json for path in (one, other)}
    adapter = esmith.app.extensions["bridge"].upstream.session.get_adapter(EMBEDDED_URL)
    inner, died = adapter.send, []

    def send(request: Any, **options: Any) -> Any:
        if f"{request.method} {request.path_url}" != call or died:
            return inner(request, **options)
        died.append(inner(request, **options) if after else None)
        raise Died

    adapter.send = send
    with pytest.raises(Died):
        esmith.post(f"{one}/$share", asking(jdoe), **key)
    assert jdoe.get(other).status_code == 403
    share(esmith, one, jdoe, **key)
    assert content(jdoe.get(one).json) == content(before[one])
    assert jdoe.get(other).status_code == 403
    for path in (one, other):
        assert content(esmith.get(path).json) == content(before[path])
    assert len(esmith.found(f"Observation?patient={DEMO_PATIENT}")) == 2


# answered later


class Halting(BaseAdapter):
    """Halts upstream calls of one path until they are let through."""

    def __init__(self, app: Any, path: str) -> None:
        super().__init__()
        self.session = app.extensions["bridge"].upstream.session
        self.inner = self.session.get_adapter(EMBEDDED_URL)
        self.path, self.came, self.go_on = path, threading.Event(), threading.Event()
        self.session.mount(EMBEDDED_URL, self)

    def send(self, request: Any, **options: Any) -> Any:
        if self.path in request.url:
            self.came.set()
            assert self.go_on.wait(120)
        return self.inner.send(request, **options)

    def close(self) -> None:
        self.inner.close()


def answered(caller: Caller, url: str) -> Any:
    """The answer that is found under a status URL."""
    eventually(lambda: caller.get(url).status_code != 202)
    return caller.get(url)


def test_a_share_is_answered_later_when_the_caller_prefers_that(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    made = location(esmith.created(observation(patient["id"])))
    halting = Halting(esmith.app, "contact/bulkSharedMetadataUpdate")
    path, body = f"{location(patient)}/$share", asking(jdoe, "read", "Observation")
    begun = esmith.post(path, body, Prefer="respond-async")
    url = begun.headers["Content-Location"]
    assert (begun.status_code, begun.data, url.startswith("http://localhost/rest/fhir/r4/")) == (
        202,
        b"",
        True,
    )
    assert halting.came.wait(120)
    waiting = esmith.get(url)
    assert (waiting.status_code, waiting.headers["X-Progress"]) == (202, "0 of 1 documents are done.")
    assert_outcome(jdoe.get(url), 404)
    halting.go_on.set()
    answer = answered(esmith, url)
    assert answer.status_code == 200
    assert references(answer.json, "shared") == [location(patient), made]
    assert answer.headers["ETag"] == esmith.get(location(patient)).headers["ETag"]
    assert jdoe.get(made).status_code == 200
    assert esmith.delete(url).status_code == 202
    assert_outcome(esmith.get(url), 404)


def test_what_is_wrong_is_said_at_once_to_who_would_wait(esmith: Caller, patient: Resource) -> None:
    response = esmith.post(f"{location(patient)}/$share", asking("Practitioner/f005"), Prefer="respond-async")
    assert_outcome(response, 422)


def test_a_share_that_is_answered_later_is_not_held_up_by_who_guesses_elsewhere(
    esmith: Caller, jdoe: Caller, patient: Resource, app: Any
) -> None:
    together(esmith, *(observation(patient["id"], effectiveDateTime=f"20{n:02}-01-01") for n in range(60)))
    halting = Halting(app, "contact/bulkSharedMetadataUpdate")
    path, body = f"{location(patient)}/$share", asking(jdoe, "read", "Observation")
    url = esmith.post(path, body, Prefer="respond-async").headers["Content-Location"]
    assert halting.came.wait(120)
    bridge, user = app.extensions["bridge"], esmith.get("/rest/v2/user/current").json["id"]
    for last in range(30):
        bridge.throttle.failed("esmith", f"192.0.2.{last}")
    bridge.state.put(throttle.KNOWN, "\0esmith", None)  # the demo logged in without an address
    bridge.authenticator._remembered.clear()
    halting.go_on.set()
    job_id = url.rpartition("/")[2]
    eventually(lambda: jobs.look(bridge.state, user, job_id).status is not None)
    assert jobs.look(bridge.state, user, job_id).status == 200


def test_a_share_does_not_outlive_its_keys(esmith: Caller, jdoe: Caller, patient: Resource) -> None:
    together(esmith, *(observation(patient["id"], effectiveDateTime=f"20{n:02}-01-01") for n in range(60)))
    halting = Halting(esmith.app, "contact/bulkSharedMetadataUpdate")
    path, body = f"{location(patient)}/$share", asking(jdoe, "read", "Observation")
    url = esmith.post(path, body, Prefer="respond-async").headers["Content-Location"]
    assert halting.came.wait(120)
    assert esmith.delete(f"/rest/icdx/v1/keychain/{ESMITH}").status_code == 204
    halting.go_on.set()
    assert_outcome(answered(esmith, url), 403, "security")
    assert len(jdoe.found("Observation")) == 50
    assert esmith.load_key().status_code == 200
    answer = share(esmith, location(patient), jdoe, "read", "Observation")
    assert len(references(answer, "unchanged")) == 51
    assert len(references(answer, "shared")) == 10


MANY = 400


def killed_during_a_share(server: Server, esmith: Remote, asked: Resource) -> tuple[str, Any]:
    """Kills the workers as soon as a share of very much is told to go on; returns its URL and what is told of it."""
    patient = esmith.created(PATIENT)
    days = (f"{1600 + n}-01-01" for n in range(MANY))
    resources = [observation(patient["id"], effectiveDateTime=day) for day in days]
    entries = [{"request": {"method": "POST", "url": "Observation"}, "resource": r} for r in resources]
    esmith.send("POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    path, later = location(patient), {**esmith.headers, "Prefer": "respond-async"}
    begun = requests.post(f"{server.fhir}/{path}/$share", json=asked, headers=later)

    def status() -> requests.Response:
        """What is told of it, nothing while a killed worker is being replaced."""
        try:
            return requests.get(begun.headers["Content-Location"], headers=esmith.headers)
        except requests.ConnectionError:
            return requests.Response()

    eventually(lambda: status().headers.get("X-Progress", "1")[0] in "123456789")
    for worker in server.workers():
        os.kill(worker, signal.SIGKILL)
    eventually(lambda: status().status_code not in (None, 202))  # a lease ends some seconds after its worker
    return path, status()


@pytest.mark.parametrize("state", ["sqlite", "redis"])
def test_a_share_whose_workers_were_killed_is_told_as_broken_off_and_finished_by_another(
    data_dir: Path, accounts: dict[str, Account], request: pytest.FixtureRequest, state: str
) -> None:
    environment = {}
    if state == "redis":
        (data_dir / "shared").write_bytes(os.urandom(32))
        (data_dir / "shared").chmod(0o600)
        url = request.getfixturevalue("redis_url")
        environment = {"BRIDGE_STATE_URL": url, "BRIDGE_SECRET_FILE": str(data_dir / "shared")}
    with serving(data_dir, **environment) as server:
        esmith, jdoe = (Remote(server, accounts[name]) for name in ("esmith", "jdoe"))
        esmith.load_key()
        jdoe.load_key()
        body = asking(f"Practitioner/{accounts['jdoe']['dataOwnerId']}", "read", "Observation")
        path, told_off = killed_during_a_share(server, esmith, body)
        while told_off.status_code == 200:  # it was over before they were killed
            path, told_off = killed_during_a_share(server, esmith, body)
        assert_outcome(told_off, 503, "incomplete")
        query = f"Observation?subject={path}&_count=1000"
        before = len(jdoe.found(query))
        assert before < MANY
        answer = requests.post(f"{server.fhir}/{path}/$share", json=body, headers=esmith.headers)
        assert answer.status_code == 200
        assert len(references(answer.json(), "unchanged")) >= before
        assert told(answer.json(), "failed") == []
        assert len(jdoe.found(query)) == MANY


# keys, lost and new


def icure(caller: Caller, method: str, path: str, body: Any = None) -> Any:
    """What iCure answers to a call of its own API."""
    account = caller.account
    login = {"username": account["login"], "password": account["password"]}
    token = caller.http.post("/rest/v2/auth/login", json=login).json["token"]
    headers = {"Authorization": f"Bearer {token}"}
    response = caller.http.open(f"/rest/v2/{path}", method=method, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return response.json


def announce(caller: Caller, owner: str, *keys: PrivateKey) -> None:
    """Adds keys to those that a data owner announces."""
    known = icure(caller, "GET", f"dataowner/stub/{owner}")
    known["stub"]["publicKeysForOaepWithSha256"] += [key.spki_hex for key in keys]
    icure(caller, "PUT", "dataowner/stub", known)


def test_a_share_opens_with_every_key_that_the_recipient_announces(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    first, new = location(patient), PrivateKey.generate()
    share(esmith, first, jdoe)
    owner = jdoe.account["dataOwnerId"]
    announce(jdoe, owner, new)
    answer = share(esmith, first, jdoe)
    assert references(answer, "shared") == [first], "the new key opens nothing of before"
    assert set(told(answer, "fingerprint")) == {
        PrivateKey.parse(jdoe.account["privateKey"]).fingerprint,
        new.fingerprint,
    }
    assert jdoe.get(first).status_code == 200
    jdoe.delete(f"/rest/icdx/v1/keychain/{owner}")
    assert jdoe.load_key(new.pkcs8_der.hex()).status_code == 200
    assert content(jdoe.get(first).json) == content(patient)
    assert references(share(esmith, first, jdoe), "unchanged") == [first]


def test_who_lost_a_key_reads_again_what_others_share_again(
    esmith: Caller, jdoe: Caller, patient: Resource, data_dir: Path
) -> None:
    one, other = together(esmith, observation(patient["id"], "1-1"), observation(patient["id"], "2-2"))
    unshared = location(esmith.created(PATIENT))
    share(esmith, location(patient), jdoe, "write", "Observation")
    new = PrivateKey.generate()
    announce(esmith, ESMITH, new)
    esmith.delete(f"/rest/icdx/v1/keychain/{ESMITH}")
    assert esmith.load_key(new.pkcs8_der.hex()).status_code == 200
    for path in (location(patient), one, other, unshared):
        assert_outcome(esmith.get(path), 403, "security")
    answer = share(jdoe, location(patient), esmith, "write", "Observation")
    assert references(answer, "shared") == [location(patient), *sorted((one, other))]
    for path in (location(patient), one, other):
        assert content(esmith.get(path).json) == content(jdoe.get(path).json)
    assert_outcome(esmith.get(unshared), 403, "security")
    assert esmith.send("PUT", location(patient), {**patient, "active": False}).status_code == 200
    made = location(esmith.created(observation(patient["id"])))
    share(esmith, made, jdoe)
    assert {o["id"] for o in jdoe.found(f"Observation?patient={patient['id']}")} == {
        path.partition("/")[2] for path in (one, other, made)
    }


def test_who_has_two_keys_opens_with_either_what_comes_after(
    esmith: Caller, jdoe: Caller, patient: Resource
) -> None:
    old, new = PrivateKey.parse(esmith.account["privateKey"]), PrivateKey.generate()
    announce(esmith, ESMITH, new)
    assert esmith.load_key(new.pkcs8_der.hex()).status_code == 200
    after = [location(one.created(PATIENT)) for one in (esmith, jdoe)]
    share(esmith, after[0], jdoe)
    share(jdoe, after[1], esmith)
    for key, before in ((new, 403), (old, 200)):
        assert esmith.delete(f"/rest/icdx/v1/keychain/{ESMITH}").status_code == 204
        assert esmith.load_key(key.pkcs8_der.hex()).status_code == 200
        assert [esmith.get(path).status_code for path in after] == [200, 200]
        assert esmith.get(location(patient)).status_code == before
    assert [jdoe.get(path).status_code for path in after] == [200, 200]


# hierarchies


def test_what_is_shared_with_a_parent_opens_with_the_parents_key(
    esmith: Caller, patient: Resource, data_dir: Path
) -> None:
    ward = person(esmith, data_dir, "ward")
    nurse_account = demo.new_account("nurse", "password of nurse", str(uuid.uuid4()))
    demo.store_account(data_dir, nurse_account)
    party = icure(esmith, "GET", f"hcparty/{nurse_account['dataOwnerId']}")
    icure(esmith, "PUT", "hcparty", {**party, "parentId": ward.account["dataOwnerId"]})
    nurse = Caller(esmith.app, nurse_account)
    assert nurse.load_key().status_code == 200
    made = location(esmith.created(observation(patient["id"])))
    share(esmith, location(patient), ward, "write", "Observation")
    assert_outcome(nurse.get(made), 403, "security")
    assert nurse.load_key(ward.account["privateKey"], ward.account["dataOwnerId"]).status_code == 200
    assert nurse.get(made).json["valueString"] == "Hello world"
    assert [o["id"] for o in nurse.found(f"Observation?patient={patient['id']}")] == [made.partition("/")[2]]
    dave = person(esmith, data_dir, "dave")
    share(nurse, location(patient), dave, "read", "Observation")
    assert content(dave.get(location(patient)).json) == content(patient)
    assert dave.get(made).status_code == 200
    assert (
        f"Practitioner/{dave.account['dataOwnerId']}",
        "read",
        f"Practitioner/{nurse_account['dataOwnerId']}",
    ) in accesses(dave, made)


# patients as data owners


def patient_user(caller: Caller, data_dir: Path, name: str) -> Caller:
    """A patient who has a key and logs in, and can open nothing yet."""
    made = caller.created({"resourceType": "Patient", "name": [{"family": name}]})
    account = demo.new_account(name, f"password of {name}", made["id"])
    announce(caller, made["id"], PrivateKey.parse(account["privateKey"]))
    admin.create_user(Store(data_dir), account["login"], account["password"], patient_id=made["id"])
    patient = Caller(caller.app, account)
    assert patient.load_key().status_code == 200
    return patient


@pytest.mark.parametrize("make", [lambda: PATIENT, observation, condition])
def test_a_patient_is_shared_with_and_shares_on(
    esmith: Caller, jdoe: Caller, data_dir: Path, make: Callable[[], Resource]
) -> None:
    paul = patient_user(esmith, data_dir, "paul")
    made = esmith.created(make())
    path, who = location(made), f"Patient/{paul.account['dataOwnerId']}"
    assert paul.get(path).status_code == 403
    answer = share(esmith, path, who, "read")
    assert references(answer, "recipient") == [who]
    assert content(paul.get(path).json) == content(made)
    assert made["id"] in {one["id"] for one in paul.found(made["resourceType"])}
    delegations = entity_of(data_dir, made)["securityMetadata"]["secureDelegations"]
    assert paul.account["dataOwnerId"] not in {d.get("delegate") for d in delegations.values()}
    assert references(share(esmith, path, who, "read"), "unchanged") == [path]
    assert jdoe.get(path).status_code == 403
    share(paul, path, jdoe, "read")
    assert content(jdoe.get(path).json) == content(made)
    assert references(share(paul, path, jdoe, "read"), "unchanged") == [path]
    esmiths, jdoes = (f"Practitioner/{one.account['dataOwnerId']}" for one in (esmith, jdoe))
    assert accesses(esmith, path) == {
        (esmiths, "write", esmiths),
        (who, "read", esmiths),
        (jdoes, "read", None),
    }
    assert accesses(jdoe, path) == {
        (esmiths, "write", esmiths),
        (None, "read", esmiths),
        (jdoes, "read", who),
    }


def test_a_patient_shares_what_it_made_and_the_recipient_shares_it_on(
    esmith: Caller, jdoe: Caller, data_dir: Path
) -> None:
    paul = patient_user(esmith, data_dir, "paul")
    who = f"Patient/{paul.account['dataOwnerId']}"
    share(esmith, who, who, "write")
    made = paul.created(observation(paul.account["dataOwnerId"]))
    path = location(made)
    assert esmith.get(path).status_code == 403
    share(paul, path, esmith, "write")
    assert content(esmith.get(path).json) == content(made)
    share(esmith, path, jdoe, "read")
    assert content(jdoe.get(path).json) == content(made)


def test_patients_share_with_each_other(esmith: Caller, data_dir: Path) -> None:
    paul, mary = (patient_user(esmith, data_dir, name) for name in ("paul", "mary"))
    made = esmith.created(condition())
    path, pauls, marys = location(made), *(f"Patient/{p.account['dataOwnerId']}" for p in (paul, mary))
    share(esmith, path, pauls, "write")
    assert mary.get(path).status_code == 403
    share(paul, path, marys, "read")
    assert content(mary.get(path).json) == content(made)
    assert (None, "read", None) in accesses(esmith, path)
    assert (marys, "read", pauls) in accesses(mary, path)


def test_what_would_be_lost_to_somebody_without_a_name_is_not_moved(
    esmith: Caller, jdoe: Caller, data_dir: Path
) -> None:
    paul, mary = (patient_user(esmith, data_dir, name) for name in ("paul", "mary"))
    about = paul.account["dataOwnerId"]
    one, other = together(esmith, observation(about, "1-1"), observation(about, "2-2"))
    share(esmith, f"Patient/{about}", f"Patient/{about}", "write", "Observation")
    share(paul, f"Patient/{about}", f"Patient/{mary.account['dataOwnerId']}", "read", "Observation")
    before = stored(data_dir)
    assert_outcome(esmith.post(f"{one}/$share", asking(jdoe, "read")), 422, "business-rule")
    assert stored(data_dir) == before
    share(paul, one, jdoe, "read")
    for caller in (esmith, paul, mary, jdoe):
        assert caller.get(one).json["valueString"] == "Hello world"
    assert jdoe.get(other).status_code == 403


# what older clients encrypted

EXCHANGE_KEY, ENTITY_KEY = bytes(range(32)), uuid.UUID("28ee3984-7e09-4ef0-b962-a298a7354398")


def older(caller: Caller, kind: str = "patient", **members: Any) -> dict[str, Any]:
    """An entity as iCure's clients wrote it years ago, by default a Patient."""
    owner, made_id = caller.account["dataOwnerId"], str(uuid.uuid4())
    key = OwnKey(PrivateKey.parse(caller.account["privateKey"]), "sha256")
    box = key.public.encrypt(EXCHANGE_KEY).hex()
    known = icure(caller, "GET", f"dataowner/stub/{owner}")
    known["stub"]["aesExchangeKeys"] = {key.private.spki_hex: {owner: {key.private.fingerprint_v1: box}}}
    icure(caller, "PUT", "dataowner/stub", known)

    def sealed(value: str) -> dict[str, Any]:
        text = cbc_encrypt(EXCHANGE_KEY, f"{made_id}:{value}".encode()).hex()
        return {owner: [{"owner": owner, "delegatedTo": owner, "key": text}]}

    entity = {
        "id": made_id,
        "delegations": sealed(str(uuid.uuid4())),
        "encryptionKeys": sealed(str(ENTITY_KEY)),
        **(members or {"firstName": "Ada", "lastName": "Lovelace", "encryptedSelf": hidden(note="old")}),
    }
    made: dict[str, Any] = icure(caller, "POST", kind, entity)
    return made


def hidden(**members: Any) -> str:
    """What an older client has in `encryptedSelf`."""
    return to_base64(cbc_encrypt(ENTITY_KEY.bytes, orjson.dumps(members)))


def test_an_entity_of_an_older_client_gets_a_root_and_keeps_its_maps(
    esmith: Caller, jdoe: Caller, carol: Caller, data_dir: Path
) -> None:
    made = older(esmith)
    path, before = f"Patient/{made['id']}", esmith.get(f"Patient/{made['id']}").json
    assert references(share(esmith, path, jdoe, "write"), "shared") == [path]
    assert content(jdoe.get(path).json) == content(before) == content(esmith.get(path).json)
    entity = icure(esmith, "GET", f"patient/{made['id']}")
    assert entity["delegations"] == made["delegations"]
    assert len(entity["securityMetadata"]["secureDelegations"]) == 2
    share(jdoe, path, carol, "read")
    assert content(carol.get(path).json) == content(before)
    assert references(share(esmith, path, jdoe, "write"), "unchanged") == [path]
    esmiths = f"Practitioner/{ESMITH}"
    assert (esmiths, "write", esmiths) in accesses(jdoe, path)


def test_an_observation_of_an_older_client_is_moved_out_and_shared_alone(
    esmith: Caller, jdoe: Caller, data_dir: Path
) -> None:
    one, other = (f"Observation/{uuid.uuid4()}" for _ in range(2))
    services = [
        {"id": path.partition("/")[2], "encryptedSelf": hidden(content={"en": {"stringValue": path}})}
        for path in (one, other)
    ]
    contact = older(esmith, "contact", services=services)
    assert contact_of(data_dir, one) == contact_of(data_dir, other) == contact["id"]
    assert references(share(esmith, one, jdoe, "write"), "shared") == [one]
    assert jdoe.get(one).json["valueString"] == esmith.get(one).json["valueString"] == one
    assert jdoe.get(other).status_code == 403
    assert esmith.get(other).json["valueString"] == other
    assert contact_of(data_dir, one) != contact_of(data_dir, other) == contact["id"]


def test_what_an_older_client_gave_to_a_parent_is_shared_by_its_children(
    esmith: Caller, jdoe: Caller, data_dir: Path
) -> None:
    ward, nurse = (person(esmith, data_dir, name) for name in ("ward", "nurse"))
    made = older(ward)
    path = f"Patient/{made['id']}"
    assert nurse.get(path).status_code == 403
    party = icure(esmith, "GET", f"hcparty/{nurse.account['dataOwnerId']}")
    icure(esmith, "PUT", "hcparty", {**party, "parentId": ward.account["dataOwnerId"]})
    nurse = Caller(create_app(esmith.app.extensions["bridge"].config), nurse.account)
    assert nurse.load_key().status_code == 200
    assert nurse.load_key(ward.account["privateKey"], ward.account["dataOwnerId"]).status_code == 200
    assert references(share(nurse, path, jdoe, "write"), "shared") == [path]
    assert content(jdoe.get(path).json) == content(nurse.get(path).json) == content(ward.get(path).json)
    assert references(share(nurse, path, jdoe, "write"), "unchanged") == [path]
