"""What a search finds, what it must never find, and how its pages hang together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bridge import demo, wire
from bridge.app import create_app
from bridge.config import Config
from mappings.values import Resource
from tests.helpers import FHIR, Caller, assert_outcome

LOINC, OWN = "http://loinc.org", "http://example.org/a,b|c"


def patient(key: str, *names: Resource, **members: Any) -> Resource:
    return {"resourceType": "Patient", "id": key, "name": list(names), **members}


def observation(key: str, about: str | None, *codings: Resource, **members: Any) -> Resource:
    subject = {"subject": {"reference": f"Patient/{about}"}} if about else {}
    made = {"resourceType": "Observation", "id": key, "status": "final", "code": {"coding": list(codings)}}
    return {**made, **subject, **members}


PATIENTS = [
    patient("anna", {"family": "Müller-Lüdenscheidt", "given": ["Anna", "Élise"]}, gender="female"),
    patient("bo", {"family": "Ng", "given": ["Bo"]}, gender="male"),
    patient("two", {"use": "usual", "family": "Duck"}, {"use": "old", "family": "Drake"}, gender="other"),
    patient("duck", {"family": "Duckworth", "given": ["Dora"]}, gender="female"),
    patient("text", {"text": "Wanda the Great"}, gender="unknown"),
    patient("kyiv", {"family": "Шевченко", "given": ["Тарас"]}, gender="male"),
    patient("li", {"family": "李", "given": ["雷"]}),
    patient("comma", {"family": "O'Neill, Jr", "prefix": ["Dr"], "suffix": ["PhD"]}),
    {"resourceType": "Patient", "id": "nameless", "gender": "male"},
]
GLUCOSE = {"system": LOINC, "version": "2", "code": "15074-8"}
WEIGHT = {"system": LOINC, "code": "29463-7"}
OBSERVATIONS = [
    observation("glucose", "anna", GLUCOSE, {"system": OWN, "code": "G,1"}),
    observation("weight", "anna", WEIGHT, meta={"tag": [{"system": "http://tags", "code": "fasting"}]}),
    observation("bare", "bo", {"code": "15074-8"}),
    observation("other", "bo", {"system": "http://other.org", "code": "15074-8"}),
    observation("alone", None, GLUCOSE),
    observation(
        "part", "duck", {"code": "x"}, component=[{"code": {"coding": [GLUCOSE]}, "valueInteger": 1}]
    ),
]
EVERY_PATIENT = {p["id"] for p in PATIENTS} | {"(demo)"}
EVERY_OBSERVATION = {o["id"] for o in OBSERVATIONS}

FOUND = {
    # Patient
    "all": ("Patient", EVERY_PATIENT),
    "_id of a client": ("Patient?_id=bo", {"bo"}),
    "_id of the server": ("Patient?_id={bo}", {"bo"}),
    "_id of several": ("Patient?_id={bo},anna,nobody", {"bo", "anna"}),
    "_id of none": ("Patient?_id=nobody", set()),
    "_id of an Observation": ("Patient?_id=glucose", set()),
    "gender": ("Patient?gender=female", {"anna", "duck"}),
    "gender of two": ("Patient?gender=other,unknown", {"two", "text"}),
    "gender with system": ("Patient?gender=http://hl7.org/fhir/administrative-gender|other", {"two"}),
    "gender of none": ("Patient?gender=none", set()),
    "name": ("Patient?name=duck", {"two", "duck"}),
    "name in capitals": ("Patient?name=DUCK", {"two", "duck"}),
    "name without accents": ("Patient?name=muller", {"anna"}),
    "name with accents": ("Patient?name=MÜLLER", {"anna"}),
    "name with a hyphen": ("Patient?name=müller-lüd", {"anna"}),
    "second given name": ("Patient?name=elise", {"anna"}),
    "name from its beginning only": ("Patient?name=worth", set()),
    "two names, or": ("Patient?name=anna,dora", {"anna", "duck"}),
    "another name than the official, usual or first": (
        "Patient?name=drake",
        set(),
    ),  # iCure has no index of it
    "two names, and": ("Patient?name=duck&name=dora", {"duck"}),
    "name of two letters": ("Patient?name=ng", {"bo"}),
    "name of one letter": ("Patient?name=d", {"two", "duck", "comma"}),
    "prefix": ("Patient?name=dr", {"comma", "two"}),
    "nothing of a parameter": ("Patient?name=&gender=female", {"anna", "duck"}),
    "name in Cyrillic": ("Patient?name=шевч", {"kyiv"}),
    "given name in Cyrillic": ("Patient?name=ТАРАС", {"kyiv"}),
    "name in Chinese": ("Patient?name=李", {"li"}),
    "name with an escaped comma": (r"Patient?name=o'neill\, jr", {"comma"}),
    "name and gender": ("Patient?name=duck&gender=female", {"duck"}),
    "having a code": (f"Patient?_has:Observation:code={LOINC}|15074-8", {"anna"}),
    "having a code, by subject": (f"Patient?_has:Observation:subject:code={LOINC}|15074-8", {"anna"}),
    "having a code, by patient": (f"Patient?_has:Observation:patient:code={LOINC}|29463-7", {"anna"}),
    "having a tag or code": (f"Patient?_has:Observation:_tag=http://tags|fasting,{LOINC}|15074-8", {"anna"}),
    "having a code of no system": ("Patient?_has:Observation:code=|15074-8", {"bo"}),
    "having what nobody has": ("Patient?_has:Observation:code=http://none|1", set()),
    "having and named": (f"Patient?_has:Observation:code={LOINC}|15074-8&name=ng", set()),
    # Observation
    "all observations": ("Observation", EVERY_OBSERVATION),
    "observation by client id": ("Observation?_id=glucose", {"glucose"}),
    "code": (f"Observation?code={LOINC}|15074-8", {"glucose", "alone"}),
    "code of any system": ("Observation?code=15074-8", {"glucose", "alone", "bare", "other"}),
    "code of no system": ("Observation?code=|15074-8", {"bare"}),
    "any code of a system": (f"Observation?code={LOINC}|", {"glucose", "weight", "alone"}),
    "code with escapes": (r"Observation?code=http://example.org/a\,b\|c|G\,1", {"glucose"}),
    "codes, or": (f"Observation?code={LOINC}|29463-7,{LOINC}|15074-8", {"glucose", "weight", "alone"}),
    "codes, and": (f"Observation?code={LOINC}|29463-7&code={LOINC}|15074-8", set()),
    "tag": ("Observation?_tag=http://tags|fasting", {"weight"}),
    "tag that is a code": (f"Observation?_tag={LOINC}|29463-7", {"weight"}),
    "code that is a tag": ("Observation?code=http://tags|fasting", set()),
    "subject": ("Observation?subject=Patient/{anna}", {"glucose", "weight"}),
    "subject by bare id": ("Observation?subject={anna}", {"glucose", "weight"}),
    "subject by client id": ("Observation?subject=Patient/anna", {"glucose", "weight"}),
    "subject by URL": (f"Observation?subject=http://localhost{FHIR}/Patient/{{anna}}", {"glucose", "weight"}),
    "subjects, or": ("Observation?subject=Patient/anna,Patient/bo", {"glucose", "weight", "bare", "other"}),
    "subject that is none": ("Observation?subject=Patient/nobody", set()),
    "subject of another type": ("Observation?subject=Group/{anna}", set()),
    "patient": ("Observation?patient={bo}", {"bare", "other"}),
    "patient and code": ("Observation?patient={bo}&code=http://other.org|15074-8", {"other"}),
    "chained name": ("Observation?subject:Patient.name=müller", {"glucose", "weight"}),
    "chained name of iCure": ("Observation?_has:Patient:name=müller", {"glucose", "weight"}),
    "chained gender": ("Observation?patient.gender=male", {"bare", "other"}),
    "chained gender of iCure": ("Observation?_has:Patient:gender=male", {"bare", "other"}),
    "chained id of iCure": ("Observation?_has:Patient:_id=anna", {"glucose", "weight"}),
    "chained to nobody": ("Observation?patient.name=nobody", set()),
    "chained and code": (f"Observation?patient.name=müller&code={LOINC}|29463-7", {"weight"}),
}


@pytest.fixture(scope="module")
def data(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("search") / "data"))


@pytest.fixture(scope="module")
def library(data: Path) -> Iterator[dict[str, Any]]:
    """Everything above, posted by esmith; and as much again by jdoe, which esmith must never find."""
    app = create_app(Config(data_dir=data))
    app.testing = True
    callers = {account["name"]: Caller(app, account) for account in demo.accounts(data)}
    ids: dict[str, str] = {}
    for name in ("jdoe", "esmith"):
        callers[name].load_key()
        for resource in (*PATIENTS, *OBSERVATIONS):
            ids[resource["id"]] = callers[name].created(resource)["id"]
    gone = [patient("gone", {"family": "Duck"}, gender="female"), observation("gone", "anna", GLUCOSE)]
    for resource in gone:
        callers["esmith"].created(resource)
        assert callers["esmith"].delete(f"{resource['resourceType']}/gone").status_code == 204
    yield {"callers": callers, "ids": ids}


def names(resources: list[Resource]) -> list[str]:
    """Returns the client ids of what was found."""
    return [next((i["value"] for i in r.get("identifier", [])), "(demo)") for r in resources]


def asked(query: str, ids: dict[str, str]) -> str:
    """Returns a query with server ids in the place of client ids in braces, percent-encoded."""
    for key, server_id in ids.items():
        query = query.replace(f"{{{key}}}", server_id)
    return quote(query, safe="/?&=:,|")


@pytest.mark.parametrize(("query", "expected"), FOUND.values(), ids=FOUND)
def test_a_search_finds(library: dict[str, Any], query: str, expected: set[str]) -> None:
    found = library["callers"]["esmith"].found(asked(query, library["ids"]))
    assert sorted(names(found)) == sorted(expected)
    assert len({r["id"] for r in found}) == len(found)


@pytest.mark.parametrize("query", ["Patient", "Patient?name=duck", "Patient?gender=female"])
def test_another_finds_its_own_only(library: dict[str, Any], query: str) -> None:
    mine, theirs = ({r["id"] for r in library["callers"][name].found(query)} for name in ("esmith", "jdoe"))
    assert mine
    assert theirs
    assert mine.isdisjoint(theirs)


def test_a_match_is_what_a_read_answers(library: dict[str, Any]) -> None:
    caller = library["callers"]["esmith"]
    for query in ("Patient?_id=anna", "Observation?_id=glucose"):
        bundle = caller.get(query).json
        assert (bundle["resourceType"], bundle["type"], bundle["total"]) == ("Bundle", "searchset", 1)
        (entry,) = bundle["entry"]
        assert entry["search"] == {"mode": "match"}
        assert entry["resource"] == caller.get(entry["fullUrl"]).json
        wire.check(wire.parse(caller.get(query).data), expected_type="Bundle")


def test_nothing_found_is_an_empty_bundle(library: dict[str, Any]) -> None:
    bundle = library["callers"]["esmith"].get("Patient?name=nobody").json
    assert bundle["total"] == 0
    assert "entry" not in bundle


# pages


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize(
    "query", ["Patient?", "Observation?", "Patient?name=du&", "Observation?code=15074-8&"]
)
def test_all_pages_together_are_all_matches(library: dict[str, Any], query: str, count: int) -> None:
    caller = library["callers"]["esmith"]
    whole = [r["id"] for r in caller.found(query)]
    assert [r["id"] for r in caller.found(f"{query}_count={count}")] == whole
    first = caller.get(f"{query}_count={count}").json
    assert len(first["entry"]) == min(count, len(whole))
    assert first.get("total", len(whole)) == len(whole)
    assert ("next" in links(first)) == (count < len(whole))


def links(bundle: Resource) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


def test_next_tells_nothing_of_the_query_and_is_the_caller_s_own(library: dict[str, Any]) -> None:
    mine, other = library["callers"]["esmith"], library["callers"]["jdoe"]
    following = links(mine.get("Patient?name=du&_count=1").json)["next"]
    assert "name" not in following
    assert "du" not in following.partition("?")[2].partition("_cursor=")[0]
    assert_outcome(other.get(following), 400)
    assert_outcome(mine.get(following.replace("/Patient?", "/Observation?")), 400)
    assert_outcome(mine.get(following[:-2]), 400)
    assert_outcome(mine.get("Patient?_cursor=nonsense"), 400)


def test_self_says_what_was_asked(library: dict[str, Any]) -> None:
    bundle = library["callers"]["esmith"].get("Patient?name=du&_count=1").json
    assert links(bundle)["self"] == f"http://localhost{FHIR}/Patient?name=du&_count=1"


def test_pages_stay_apart_while_others_insert_and_delete(esmith: Caller) -> None:
    ids = {esmith.created(patient(f"p{at}", {"family": f"Page{at}"}))["id"] for at in range(9)}
    seen: list[str] = []
    path = "Patient?name=page&_count=2"
    while path:
        bundle = esmith.get(path).json
        seen += [entry["resource"]["id"] for entry in bundle["entry"]]
        esmith.created(patient(f"late{len(seen)}", {"family": "Page"}))
        esmith.delete(f"Patient/{seen[0]}")
        path = links(bundle).get("next", "")
    assert len(seen) == len(set(seen))
    assert ids <= set(seen)


@pytest.mark.parametrize("count", ["-1", "x", "1.5", "1e3", "²", ""])
def test_a_count_that_is_no_number_is_refused(library: dict[str, Any], count: str) -> None:
    response = library["callers"]["esmith"].get(f"Patient?_count={quote(count)}")
    assert_outcome(response, 400)


def test_a_count_beyond_the_bound_is_taken_as_the_bound(library: dict[str, Any]) -> None:
    caller = library["callers"]["esmith"]
    bundle = caller.get("Patient?_count=99999999").json
    assert len(bundle["entry"]) == bundle["total"] == len(EVERY_PATIENT)


# what is not understood, not readable, or too much


@pytest.mark.parametrize(
    "query", ["Patient?shoe-size=9", "Patient?_has:Observation:patient:shoe=x", "Observation?patient.shoe=9"]
)
def test_an_unknown_parameter_is_left_out_and_told_or_refused(library: dict[str, Any], query: str) -> None:
    caller = library["callers"]["esmith"]
    bundle = caller.get(query).json
    (told,) = [e["resource"] for e in bundle["entry"] if e["search"]["mode"] == "outcome"]
    assert {issue["severity"] for issue in told["issue"]} == {"warning"}
    everything = EVERY_PATIENT if query.startswith("Patient") else EVERY_OBSERVATION
    assert sorted(names(caller.found(query))) == sorted(everything)
    assert_outcome(caller.get(query, Prefer="handling=strict"), 400)
    assert caller.get(query, Prefer="handling=lenient").json["entry"] == bundle["entry"]


def test_no_value_reaches_an_answer_about_what_was_wrong(library: dict[str, Any]) -> None:
    caller = library["callers"]["esmith"]
    for query in ("Patient?_count=secret", "Patient?secret=1"):
        assert "secret" not in caller.get(query, Prefer="handling=strict").text


def test_what_no_loaded_key_opens_is_left_out_and_told(esmith: Caller, jdoe: Caller) -> None:
    """A patient of jdoe's, delegated to esmith with a key that esmith never got."""
    created = jdoe.created(patient("closed", {"family": "Closed"}))
    store = Caller(jdoe.app, jdoe.account)
    document = store.get(f"/rest/v2/patient/{created['id']}").json
    reader = esmith.account["dataOwnerId"]
    bare = {k: v for k, v in document.items() if k in ("firstName", "lastName", "names", "encryptedSelf")}
    lost = bare | {"id": "closed-to-all", "delegations": {reader: [{"owner": reader, "delegatedTo": reader}]}}
    assert store.post("/rest/v2/patient", lost, Content_Type="application/json").status_code < 300

    bundle = esmith.get("Patient?name=closed").json
    matches = [e for e in bundle["entry"] if e["search"]["mode"] == "match"]
    (told,) = [e["resource"] for e in bundle["entry"] if e["search"]["mode"] == "outcome"]
    assert matches == []
    assert "cannot be opened" in told["issue"][0]["diagnostics"]


def test_a_search_that_nothing_narrows_is_too_costly(esmith: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [observation(f"o{at}", None, WEIGHT) for at in range(5)]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": o} for o in made]}
    assert esmith.post("", bundle).status_code == 200
    monkeypatch.setattr("bridge.search.candidates.SCAN_BOUND", 4)
    refused = esmith.get("Observation?code=29463-7")
    assert_outcome(refused, 422, "too-costly")
    assert "patient" in refused.json["issue"][0]["diagnostics"]
    assert len(esmith.found(f"Observation?code={LOINC}|29463-7")) == 5
