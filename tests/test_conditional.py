"""Conditional requests, patches, versions: what holds, what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest

from bridge.bundle import history
from bridge.interactions import find
from tests.helpers import DEMO_PATIENT, Caller, assert_outcome, basic

JSON_PATCH = {"Content_Type": "application/json-patch+json"}


def patient(value: str = "1", **members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "identifier": [{"system": "urn:oid:1.2.3", "value": value}],
        "name": [{"use": "official", "family": "Curie", "given": ["Marie", "Salomea"]}],
        **members,
    }


def observation(**members: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]},
        "subject": {"reference": f"Patient/{DEMO_PATIENT}"},
        "valueQuantity": {"value": 72, "unit": "/min"},
        **members,
    }


def url(resource: dict[str, Any]) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


BY_ID = "_id"


FORMS = [
    "_id={}",
    "?_id={}",
    "Patient?_id={}",
    "http://localhost/rest/fhir/r4/Patient?_id={}",
    "_id={}&_format=json&_pretty=true",
]


@pytest.mark.parametrize("form", FORMS)
def test_a_conditional_create_answers_what_is_there(esmith: Caller, form: str) -> None:
    created = esmith.created(patient(id="mc1"))
    again = esmith.post("Patient", patient(), If_None_Exist=form.format("mc1"))
    assert again.status_code == 200
    assert again.json == created
    assert esmith.post("Patient", patient(), If_None_Exist=form.format("mc2")).status_code == 201


def test_a_create_with_criteria_in_its_url_is_conditional(esmith: Caller) -> None:
    created = esmith.created(patient(id="mc1"))
    again = esmith.post("Patient?_id=mc1&_format=json", patient())
    assert (again.status_code, again.json) == (200, created)
    assert esmith.post("Patient?_id=mc2", patient()).status_code == 201
    assert esmith.post("Patient?_format=json&_pretty=true", patient("3")).status_code == 201
    assert_outcome(esmith.post("Patient?_id=mc1", patient(), If_None_Exist="_id=mc3"), 400)
    assert_outcome(esmith.post("Patient?shoe=9", patient()), 400)
    assert_outcome(esmith.post("Patient?name=Curie", patient()), 412, "multiple-matches")
    assert len(esmith.found("Patient?name=Curie")) == 3


def test_a_condition_in_a_url_stands_beside_how_to_answer(esmith: Caller) -> None:
    esmith.created(patient(id="mc1"))
    asked = "Patient?_id=mc1&_format=json&_pretty=true"
    change = esmith.send("PATCH", asked, b'[{"op":"add","path":"/gender","value":"female"}]', **JSON_PATCH)
    assert (change.status_code, change.json["gender"]) == (200, "female")
    assert esmith.send("PUT", asked, patient(gender="other")).json["gender"] == "other"
    assert esmith.delete(asked).status_code == 204
    assert_outcome(esmith.delete("Patient?_format=json"), 400)


def test_an_update_may_be_meant_for_something_new_only(esmith: Caller) -> None:
    new = patient(id="fresh")
    assert esmith.send("PUT", "Patient/fresh", new, If_None_Match="*").status_code == 201
    created = esmith.get("Patient/fresh").json
    assert_outcome(esmith.send("PUT", "Patient/fresh", new | {"gender": "male"}, If_None_Match="*"), 412)
    assert_outcome(esmith.send("PUT", "Patient?_id=fresh", patient(gender="male"), If_None_Match="*"), 412)
    assert_outcome(esmith.send("PUT", "Patient/other", patient(id="other"), If_None_Match='W/"1"'), 400)
    both = {"If_None_Match": "*", "If_Match": "*"}
    assert_outcome(esmith.send("PUT", "Patient/fresh", new | {"gender": "male"}, **both), 400)
    assert esmith.get("Patient/fresh").json == created
    esmith.delete("Patient/fresh")
    assert esmith.send("PUT", "Patient/fresh", new, If_None_Match="*").status_code == 200


def test_a_conditional_create_that_several_meet_creates_nothing(esmith: Caller) -> None:
    esmith.created(patient("1"))
    esmith.created(patient("2"))
    refused = esmith.post("Patient", patient("3"), If_None_Exist="name=Curie")
    assert_outcome(refused, 412, "multiple-matches")
    assert len(esmith.found("Patient?name=Curie")) == 2


def test_parallel_conditional_creates_make_one_resource(esmith: Caller, accounts: dict[str, Any]) -> None:
    esmith.created(patient("warm"))
    callers = [Caller(esmith.app, accounts["esmith"]) for _ in range(6)]
    answers: list[int] = []

    def create(caller: Caller) -> None:
        answers.append(caller.post("Patient", patient(id="once"), If_None_Exist="_id=once").status_code)

    threads = [threading.Thread(target=create, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 5 + [201]


UNUSABLE = {
    "nothing": "",
    "no value": "name=",
    "unknown parameter": "nome=Curie",
    "only a control": "_count=1",
    "only a format": "_format=json",
    "another type": "Observation?_id=x",
}


@pytest.mark.parametrize("condition", UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_condition_is_refused(esmith: Caller, condition: str) -> None:
    created = esmith.created(patient())
    assert_outcome(esmith.post("Patient", patient(), If_None_Exist=condition), 400)
    assert_outcome(esmith.send("PUT", f"Patient?{condition}", patient()), 400)
    assert_outcome(esmith.send("PATCH", f"Patient?{condition}", b"[]", **JSON_PATCH), 400)
    assert_outcome(esmith.delete(f"Patient?{condition}"), 400)
    assert esmith.get(url(created)).json == created


def test_a_conditional_update_updates_creates_or_refuses(esmith: Caller) -> None:
    created = esmith.send("PUT", "Patient?_id=mc9", patient())
    assert created.status_code == 201
    updated = esmith.send("PUT", f"Patient?_id={created.json['id']}", patient(gender="female"))
    assert (updated.status_code, updated.json["id"]) == (200, created.json["id"])
    other = esmith.send("PUT", f"Patient?_id={created.json['id']}", patient(id="other"))
    assert_outcome(other, 400, path="Patient.id")
    with_id = esmith.send("PUT", "Patient?_id=nobody", patient(id="chosen"))
    assert (with_id.status_code, with_id.json["id"]) == (201, "chosen")
    assert_outcome(esmith.send("PUT", "Patient?name=Curie", patient()), 412, "multiple-matches")


def test_a_conditional_delete_deletes_exactly_one(esmith: Caller) -> None:
    first, second = esmith.created(patient("1")), esmith.created(patient("2"))
    assert_outcome(esmith.delete("Patient?name=Curie"), 412, "multiple-matches")
    assert esmith.get(url(first)).status_code == esmith.get(url(second)).status_code == 200
    assert esmith.delete(f"Patient?_id={first['id']}").status_code == 204
    assert_outcome(esmith.get(url(first)), 410)
    assert esmith.delete("Patient?_id=nobody").status_code == 204


def test_a_conditional_patch_needs_exactly_one(esmith: Caller) -> None:
    change = json.dumps([{"op": "add", "path": "/gender", "value": "female"}]).encode()
    assert_outcome(esmith.send("PATCH", "Patient?name=Curie", change, **JSON_PATCH), 404)
    created = esmith.created(patient())
    assert esmith.send("PATCH", "Patient?name=Curie", change, **JSON_PATCH).status_code == 200
    assert esmith.get(url(created)).json["gender"] == "female"


def test_a_json_patch_changes_what_it_says_and_keeps_the_rest(esmith: Caller) -> None:
    body = (
        b'{"resourceType":"Observation","status":"final","code":{"text":"x"},"valueQuantity":{"value":7.50}}'
    )
    created = esmith.post("Observation", body).json
    change = json.dumps(
        [
            {"op": "test", "path": "/status", "value": "final"},
            {"op": "replace", "path": "/status", "value": "amended"},
            {"op": "add", "path": "/note", "value": [{"text": "again"}]},
        ]
    )
    answer = esmith.send("PATCH", url(created), change.encode(), **JSON_PATCH)
    assert answer.status_code == 200, answer.text
    read = esmith.get(url(created))
    assert read.json["status"] == "amended"
    assert read.json["note"] == [{"text": "again"}]
    assert b'"value":7.50' in read.data


MERGES = {
    "a type of its own": "application/merge-patch+json",
    "plain JSON": "application/json",
}


@pytest.mark.parametrize("content_type", MERGES.values(), ids=MERGES)
def test_a_merge_patch_puts_elements_in_the_place_of_others(esmith: Caller, content_type: str) -> None:
    created = esmith.created(patient(gender="female", maritalStatus={"text": "married"}, birthDate="1867"))
    change = b'{"gender":null,"birthDate":"1867-11-07","maritalStatus":{"text":null,"coding":[{"code":"W"}]}}'
    answer = esmith.send("PATCH", url(created), change, Content_Type=content_type)
    assert answer.status_code == 200, answer.text
    expected = created | {"birthDate": "1867-11-07", "maritalStatus": {"coding": [{"code": "W"}]}}
    del expected["gender"]
    assert answer.json | {"meta": created["meta"]} == expected


BAD_MERGES = {
    "a list": (b"[]", 400),
    "no JSON": (b"{", 400),
    "another id": (b'{"id":"x"}', 422),
    "no type": (b'{"resourceType":null}', 422),
    "invalid after it": (b'{"gender":"man"}', 400),
    "unknown element": (b'{"nome":"x"}', 400),
}


@pytest.mark.parametrize(("body", "status"), BAD_MERGES.values(), ids=BAD_MERGES)
def test_a_merge_patch_that_cannot_be_applied_changes_nothing(
    esmith: Caller, body: bytes, status: int
) -> None:
    created = esmith.created(patient())
    answer = esmith.send("PATCH", url(created), body, Content_Type="application/merge-patch+json")
    assert_outcome(answer, status)
    assert esmith.get(url(created)).json == created


def operation(kind: str, path: str, **parts: Any) -> dict[str, Any]:
    said = [{"name": "type", "valueCode": kind}, {"name": "path", "valueString": path}]
    return {"name": "operation", "part": said + [{"name": n, **v} for n, v in parts.items()]}


FHIRPATH = {
    "replace": (
        operation("replace", "Patient.name[0].family", value={"valueString": "Sklodowska"}),
        lambda p: p["name"][0]["family"] == "Sklodowska",
    ),
    "add": (
        operation("add", "Patient", name={"valueString": "birthDate"}, value={"valueDate": "1867-11-07"}),
        lambda p: p["birthDate"] == "1867-11-07",
    ),
    "add a choice": (
        operation("add", "Patient", name={"valueString": "deceased"}, value={"valueBoolean": True}),
        lambda p: p["deceasedBoolean"] is True,
    ),
    "add to a list": (
        operation(
            "add",
            "Patient.name.where(use = 'official')",
            name={"valueString": "given"},
            value={"valueString": "M"},
        ),
        lambda p: p["name"][0]["given"] == ["Marie", "Salomea", "M"],
    ),
    "add parts": (
        operation(
            "add",
            "Patient",
            name={"valueString": "contact"},
            value={
                "part": [
                    {"name": "gender", "valueCode": "female"},
                    {"name": "name", "valueHumanName": {"text": "Eve"}},
                ]
            },
        ),
        lambda p: p["contact"] == [{"gender": "female", "name": {"text": "Eve"}}],
    ),
    "insert": (
        operation("insert", "Patient.name[0].given", index={"valueInteger": 1}, value={"valueString": "X"}),
        lambda p: p["name"][0]["given"] == ["Marie", "X", "Salomea"],
    ),
    "delete": (operation("delete", "Patient.identifier[0]"), lambda p: "identifier" not in p),
    "delete nothing": (operation("delete", "Patient.photo"), lambda p: p["name"][0]["family"] == "Curie"),
    "move": (
        operation(
            "move", "Patient.name[0].given", source={"valueInteger": 1}, destination={"valueInteger": 0}
        ),
        lambda p: p["name"][0]["given"] == ["Salomea", "Marie"],
    ),
}


@pytest.mark.parametrize(("change", "holds"), FHIRPATH.values(), ids=FHIRPATH)
def test_a_fhirpath_patch_changes_what_it_says(esmith: Caller, change: Any, holds: Any) -> None:
    created = esmith.created(patient())
    answer = esmith.send("PATCH", url(created), {"resourceType": "Parameters", "parameter": [change]})
    assert answer.status_code == 200, answer.text
    assert holds(esmith.get(url(created)).json)


BAD_PATCHES = {
    "no list": (b'{"op":"add"}', 400),
    "no JSON": (b"[", 400),
    "unknown operation": (b'[{"op":"melt","path":"/gender"}]', 400),
    "no path": (b'[{"op":"remove"}]', 400),
    "bad pointer": (b'[{"op":"remove","path":"gender"}]', 422),
    "nothing there": (b'[{"op":"remove","path":"/photo/7"}]', 422),
    "failed test": (b'[{"op":"test","path":"/gender","value":"male"}]', 422),
    "invalid after it": (b'[{"op":"add","path":"/gender","value":"man"}]', 400),
    "unknown element": (b'[{"op":"add","path":"/nome","value":"x"}]', 400),
    "another id": (b'[{"op":"replace","path":"/id","value":"x"}]', 422),
    "another type": (b'[{"op":"replace","path":"/resourceType","value":"Observation"}]', 422),
    "nothing left": (b'[{"op":"replace","path":"","value":[]}]', 422),
    "a copy in what is now a Bundle": (
        b'[{"op":"replace","path":"","value":{"resourceType":"Bundle","entry":[5]}},'
        b'{"op":"copy","from":"/entry","path":"/x"}]',
        422,
    ),
}


@pytest.mark.parametrize(("body", "status"), BAD_PATCHES.values(), ids=BAD_PATCHES)
def test_a_patch_that_cannot_be_applied_changes_nothing(esmith: Caller, body: bytes, status: int) -> None:
    created = esmith.created(patient())
    assert_outcome(esmith.send("PATCH", url(created), body, **JSON_PATCH), status)
    assert esmith.get(url(created)).json == created


BAD_FHIRPATH = {
    "no parameters": {"resourceType": "Patient"},
    "no operation": {"resourceType": "Parameters", "parameter": [{"name": "x"}]},
    "unknown type": {"resourceType": "Parameters", "parameter": [operation("melt", "Patient.gender")]},
    "no path": {"resourceType": "Parameters", "parameter": [operation("delete", "")]},
    "another type": {"resourceType": "Parameters", "parameter": [operation("delete", "Observation.status")]},
    "clever path": {
        "resourceType": "Parameters",
        "parameter": [operation("delete", "Patient.name.select(given)")],
    },
    "several": {"resourceType": "Parameters", "parameter": [operation("delete", "Patient.name.given")]},
    "the whole resource": {
        "resourceType": "Parameters",
        "parameter": [operation("replace", "Patient", value={"valueString": "x"})],
    },
    "nothing left": {"resourceType": "Parameters", "parameter": [operation("delete", "Patient")]},
    "no value": {"resourceType": "Parameters", "parameter": [operation("replace", "Patient.name[0].family")]},
    "into an extension that is text": {
        "resourceType": "Parameters",
        "parameter": [
            operation("add", "Patient", name={"valueString": "extension"}, value={"valueString": "x"}),
            operation("delete", "Patient.extension('x')"),
        ],
    },
    "no such element": {
        "resourceType": "Parameters",
        "parameter": [operation("add", "Patient", name={"valueString": "nome"}, value={"valueString": "x"})],
    },
    "index beyond": {
        "resourceType": "Parameters",
        "parameter": [
            operation(
                "insert", "Patient.name[0].given", index={"valueInteger": 9}, value={"valueString": "x"}
            )
        ],
    },
}


@pytest.mark.parametrize("body", BAD_FHIRPATH.values(), ids=BAD_FHIRPATH)
def test_a_fhirpath_patch_that_cannot_be_applied_changes_nothing(esmith: Caller, body: Any) -> None:
    created = esmith.created(patient())
    answer = esmith.send("PATCH", url(created), body)
    assert answer.status_code in (400, 422), answer.text
    assert_outcome(answer, answer.status_code)
    assert esmith.get(url(created)).json == created


def deepened(kind: str, times: int) -> bytes:
    """A JSON Patch that puts an extension into the innermost one, again and again, by adding or by copying it."""
    change: list[Any] = [
        {"op": "add", "path": "/extension", "value": [{"url": "u", "extension": [{"url": "v"}]}]}
    ]
    inside = "/extension/0"
    for _ in range(times):
        inside += inside if kind == "copy" else "/extension/0"
        change.append(
            {"op": kind, "from": "/extension", "path": f"{inside}/extension", "value": [{"url": "w"}]}
        )
    return json.dumps(change).encode()


@pytest.mark.parametrize(("kind", "times"), [("add", 40), ("add", 900), ("copy", 6), ("copy", 14)])
def test_a_json_patch_that_nests_too_deep_changes_nothing(esmith: Caller, kind: str, times: int) -> None:
    created = esmith.created(patient())
    assert_outcome(esmith.send("PATCH", url(created), deepened(kind, times), **JSON_PATCH), 422, "processing")
    assert esmith.get(url(created)).json == created


@pytest.mark.parametrize("times", [40, 150])
def test_a_fhirpath_patch_that_nests_too_deep_changes_nothing(esmith: Caller, times: int) -> None:
    created = esmith.created(patient())
    extension = {"name": {"valueString": "extension"}, "value": {"part": [{"name": "url", "valueUri": "u"}]}}
    change = [operation("add", "Patient" + ".extension[0]" * at, **extension) for at in range(times)]
    answer = esmith.send("PATCH", url(created), {"resourceType": "Parameters", "parameter": change})
    assert_outcome(answer, 422, "processing")
    assert esmith.get(url(created)).json == created


def test_a_patch_of_a_stale_version_is_refused(esmith: Caller) -> None:
    created = esmith.created(patient())
    etag = f'W/"{created["meta"]["versionId"]}"'
    change = b'[{"op":"add","path":"/gender","value":"female"}]'
    assert esmith.send("PATCH", url(created), change, If_Match=etag, **JSON_PATCH).status_code == 200
    assert_outcome(esmith.send("PATCH", url(created), change, If_Match=etag, **JSON_PATCH), 412)


@pytest.mark.parametrize("header", ["x", 'W/"a", W/"b"', "W/x", '""', 'W/"a b"'])
def test_if_match_in_a_wrong_form_is_refused(esmith: Caller, header: str) -> None:
    created = esmith.created(patient())
    assert_outcome(esmith.send("PUT", url(created), created | {"gender": "female"}, If_Match=header), 400)
    assert_outcome(esmith.delete(url(created), If_Match=header), 400)
    assert esmith.get(url(created)).json == created


def test_a_read_of_what_the_caller_has_is_not_modified(esmith: Caller) -> None:
    for resource in (patient(), observation()):
        created = esmith.created(resource)
        read = esmith.get(url(created))
        same = esmith.get(url(created), If_None_Match=read.headers["ETag"])
        assert (same.status_code, same.data) == (304, b"")
        assert same.headers["ETag"] == read.headers["ETag"]
        assert esmith.get(url(created), If_Modified_Since=read.headers["Last-Modified"]).status_code == 304
        assert esmith.get(url(created), If_None_Match='W/"other"').status_code == 200
        assert esmith.get(url(created), If_Modified_Since="Mon, 01 Jan 2001 00:00:00 GMT").status_code == 200


def test_the_history_holds_the_versions_that_icure_keeps(esmith: Caller) -> None:
    other = esmith.created(patient())
    created = esmith.created(observation())
    moved = esmith.send("PUT", url(created), created | {"subject": {"reference": url(other)}}).json
    history = esmith.get(f"{url(created)}/_history").json
    assert history["type"] == "history"
    assert history["entry"][0]["resource"] == moved
    assert history["total"] == len(history["entry"])
    esmith.delete(url(other))
    deleted = esmith.get(f"{url(other)}/_history").json
    assert deleted["entry"][0]["request"]["method"] == "DELETE"
    assert_outcome(esmith.get("Patient/nobody/_history"), 404)


def test_a_history_comes_in_pages_and_from_an_instant_on(esmith: Caller) -> None:
    """Several versions of one resource are rare in iCure, so several resources stand for them."""
    scope = esmith.app.extensions["bridge"].scope(basic(esmith.account), "base")
    ids = [esmith.created(observation())["id"] for _ in range(3)]
    records = [find(scope, "Observation", one) for one in ids]
    versions = [replace(record, modified=at) for at, record in enumerate(records) if record is not None][::-1]

    def page(query: str) -> dict[str, Any]:
        return history("base", versions, "Observation/1", parse_qsl(query, keep_blank_values=True))

    whole = page("")
    assert [link["url"] for link in whole["link"]] == ["base/Observation/1/_history"]
    assert (whole["total"], len(whole["entry"])) == (3, 3)
    paged, query = [], "_count=2"
    while query:
        part = page(query)
        paged.append(part["entry"])
        urls = [link["url"] for link in part["link"] if link["relation"] == "next"]
        query = urls[0].partition("?")[2] if urls else ""
    assert paged == [whole["entry"][:2], whole["entry"][2:]]
    since = quote(versions[1].resource["meta"]["lastUpdated"])
    assert page(f"_since={since}")["entry"] == whole["entry"][:2]
    assert page("_count=0")["entry"] == []


@pytest.mark.parametrize("wrong", ["_since=soon", "_since=", "_count=-1", "_count=many", "_count="])
def test_a_history_is_asked_for_in_instants_and_numbers(esmith: Caller, wrong: str) -> None:
    created = esmith.created(observation())
    assert_outcome(esmith.get(f"{url(created)}/_history?{wrong}"), 400, "invalid")
    assert esmith.get(f"{url(created)}/_history?_since=2199-01-01T00:00:00Z").json["entry"] == []


def test_a_version_is_read_while_it_is_kept(esmith: Caller) -> None:
    created = esmith.created(patient())
    version = f"{url(created)}/_history/{created['meta']['versionId']}"
    assert esmith.get(version).json == created
    esmith.send("PUT", url(created), created | {"gender": "female"})
    assert_outcome(esmith.get(version), 404)
    assert_outcome(esmith.get(f"{url(created)}/_history/nothing"), 404)


def test_a_read_may_be_of_a_part(esmith: Caller) -> None:
    created = esmith.created(patient(gender="female"))
    version = f"_history/{created['meta']['versionId']}"
    for path in (url(created), f"{url(created)}/{version}"):
        part = esmith.get(f"{path}?_elements=gender").json
        assert part.keys() == {"resourceType", "id", "meta", "gender"}
        assert part["meta"]["tag"][0]["code"] == "SUBSETTED"
        assert "gender" in esmith.get(f"{path}?_summary=true").json
        assert "name" not in esmith.get(f"{path}?_summary=text").json
        assert esmith.get(f"{path}?_summary=false").json == created
        for wrong in ("_summary=count", "_summary=some"):
            assert_outcome(esmith.get(f"{path}?{wrong}"), 400)


def test_head_answers_like_get_without_a_body(esmith: Caller) -> None:
    created = esmith.created(patient())
    got, head = esmith.get(url(created)), esmith.send("HEAD", url(created))
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["ETag"] == got.headers["ETag"]
