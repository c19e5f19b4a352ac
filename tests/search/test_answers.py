"""How a search answers: order, pages, totals, summaries, what comes along, and how it may be asked."""

from __future__ import annotations

import gc
from datetime import tzinfo
from typing import Any

import pytest

from bridge import wire
from bridge.homes import Record
from bridge.search.query import Query
from bridge.search.sorting import sort_key
from mappings import REGISTRY
from tests.helpers import Caller, assert_outcome, count_calls
from tests.search.conftest import Library
from tests.search.library import LOINC, observation

Bundle = dict[str, Any]


def links(bundle: Bundle) -> dict[str, str]:
    return {link["relation"]: link["url"] for link in bundle["link"]}


def modes(bundle: Bundle) -> dict[str, list[str]]:
    """Returns the client ids in a bundle by search mode."""
    found: dict[str, list[str]] = {}
    for entry in bundle.get("entry", []):
        ids = [
            i["value"]
            for i in entry["resource"].get("identifier", [])
            if i["system"] == "https://dxm.icure.dev"
        ]
        found.setdefault(entry["search"]["mode"], []).append(*(ids or ["?"]))
    return {mode: sorted(ids) for mode, ids in found.items()}


# order

ORDERS = {
    "Patient?_id=anna,bo,chris&_sort=family": "bo anna chris",
    "Patient?_id=anna,bo,chris&_sort=-family": "chris anna bo",
    "Patient?_id=anna,bo,chris,empty&_sort=birthdate": "chris bo anna empty",
    "Patient?_id=anna,bo,chris,empty&_sort=-birthdate": "anna bo chris empty",
    "Patient?_id=anna,bo,chris,dora&_sort=deceased,-family": "dora anna chris bo",
    "Patient?_id=anna,bo,chris&_sort=gender": "anna bo chris",
    "Patient?_id=anna,empty,bo&_sort=-gender,family": "bo anna empty",
    "Observation?patient=anna&_sort=date": "open period exact gram",
    "Observation?patient=anna&_sort=-date": "gram exact period open",
    "Observation?patient=anna,bo&_sort=-date": "gram exact milli period less open",
    "Observation?_id=gram,exact,period,absent&_sort=date": "period exact gram absent",
    "Observation?_id=gram,exact,milli,open&_sort=value-quantity": "gram exact milli open",
    "Observation?_id=gram,exact,milli,open&_sort=-value-quantity": "milli exact gram open",
    "Observation?_id=gram,exact,milli&_sort=subject,-value-quantity": None,
    "Observation?_id=gram,exact,milli&_sort=-_id": None,
    "Observation?_id=gram,exact,milli&_sort=_id": None,
    "Observation?_id=gram,exact,milli&_sort=-_lastUpdated": "milli exact gram",
}


@pytest.mark.parametrize(("query", "expected"), ORDERS.items())
def test_matches_come_in_the_order_asked_on_every_page_size(
    library: Library, query: str, expected: str | None
) -> None:
    whole = library.found(query)
    if expected is not None:
        assert whole == expected.split()
    for count in (1, 2, 3):
        assert library.found(f"{query}&_count={count}") == whole


def test_sorting_by_id_is_by_id(library: Library) -> None:
    found = [r["id"] for r in library.esmith.found("Observation?_sort=-_id")]
    assert found == sorted(found, reverse=True)


def test_the_first_page_of_a_history_by_date_reads_no_more_than_a_page(esmith: Caller) -> None:
    person = esmith.created({"resourceType": "Patient", "name": [{"family": "Long"}]})["id"]
    made = [
        observation(f"o{at}", person, effectiveDateTime=f"2024-{at % 12 + 1:02}-{at % 28 + 1:02}")
        for at in range(120)
    ]
    entries = [{"resource": o, "request": {"method": "POST", "url": "Observation"}} for o in made]
    assert (
        esmith.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries}).status_code
        == 200
    )
    upstream = count_calls(esmith.app)
    bundle = esmith.get(f"Observation?patient={person}&_sort=-date&_count=10").json
    read = [body for method, path, body in upstream.calls if path == "contact/service"]
    assert len(read) == 1
    assert len(wire.loads(read[0])["ids"]) <= 20
    dates = [e["resource"]["effectiveDateTime"] for e in bundle["entry"]]
    assert dates == sorted((o["effectiveDateTime"] for o in made), reverse=True)[:10]
    whole = [
        o["effectiveDateTime"] for o in esmith.found(f"Observation?patient={person}&_sort=-date&_count=50")
    ]
    assert whole == sorted((o["effectiveDateTime"] for o in made), reverse=True)


def test_an_order_that_needs_everything_to_be_read_is_bounded(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.search.candidates.CHAIN_BOUND", 3)
    monkeypatch.setattr("bridge.search.pages.CHAIN_BOUND", 3)
    for query in (
        "Observation?patient=anna&_sort=value-quantity",
        "Observation?_summary=count",
        "Observation?_count=1&_total=accurate",
        "Observation?patient._has:Observation:patient:code=718-7",
    ):
        assert_outcome(library.esmith.get(library.asked(query)), 422, "too-costly")
    assert library.found("Observation?patient=anna&_sort=-date") == ["gram", "exact", "period", "open"]


# pages and totals


def test_a_page_that_has_to_open_too_much_ends_there_and_the_next_goes_on(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.search.pages.PAGE_BOUND", 2)
    first = library.esmith.get("Observation?status:not=final").json
    assert "total" not in first
    assert library.found("Observation?status:not=final") == library.found(
        "Observation?status=amended,preliminary"
    )
    assert sorted(library.found("Observation?code:not=718-7")) == ["dated", "exact", "panel", "texty"]


SPARSE = [
    "Observation?status:not=final",
    "Observation?patient=anna,bo&value-quantity=gt100&_sort=-date",
    "Observation?patient=anna,bo&_sort=date",
    "Observation?code:text=zzz",
    "Patient?gender=male&_sort=-birthdate",
    "Patient?language:missing=true",
    "Observation?_sort=-_id&status:not=final",
]


@pytest.mark.parametrize("query", SPARSE)
@pytest.mark.parametrize(("bound", "count"), [(1, 1), (1, 50), (2, 1), (3, 2), (4, 50)])
def test_short_pages_come_to_an_end_and_hold_everything_once(
    library: Library, monkeypatch: pytest.MonkeyPatch, query: str, bound: int, count: int
) -> None:
    whole = [r["id"] for r in library.esmith.found(library.asked(query))]
    monkeypatch.setattr("bridge.search.pages.PAGE_BOUND", bound)
    bundle, found, pages = (
        library.esmith.get(library.asked(f"{query}&_count={count}&_total=accurate")).json,
        [],
        1,
    )
    while True:
        matches = [e["resource"]["id"] for e in bundle.get("entry", [])]
        assert len(matches) <= min(bound, count)
        assert bundle["total"] == len(whole)
        found += matches
        if "next" not in links(bundle):
            break
        bundle, pages = library.esmith.get(links(bundle)["next"]).json, pages + 1
    assert found == whole
    assert pages <= len(library.resources) + 2


TOTALS = {
    "Patient?name=mul": 2,
    "Patient?name=mul&_total=none": None,
    "Patient?name=mul&_count=1": None,
    "Patient?name=mul&_count=1&_total=none": None,
    "Patient?name=mul&_count=1&_total=accurate": 2,
    "Patient?name=mul&_count=1&_total=estimate": 2,
    "Patient?name=mul&_count=0": 2,
    "Patient?name=mul&_summary=count": 2,
    "Patient?name=nobody": 0,
    "Patient?name=nobody&_summary=count": 0,
}


@pytest.mark.parametrize(("query", "total"), TOTALS.items())
def test_a_total_is_told_when_it_was_counted_or_asked_for(
    library: Library, query: str, total: int | None
) -> None:
    bundle = library.esmith.get(query).json
    assert bundle.get("total") == total
    assert ("entry" in bundle) is ("_count=0" not in query and query[-5:] != "count" and total != 0)


def test_a_total_is_the_same_on_every_page(library: Library) -> None:
    bundle, totals = library.esmith.get("Observation?_count=3&_total=accurate").json, []
    while True:
        totals.append(bundle["total"])
        if "next" not in links(bundle):
            break
        bundle = library.esmith.get(links(bundle)["next"]).json
    assert totals == [10, 10, 10, 10]


def test_self_is_the_query_as_it_was_understood(library: Library) -> None:
    bundle = library.esmith.get(
        "Patient?name=mul%2Cduck&shoe-size=9&_sort=-family&_pretty=true&_total=none"
    ).json
    assert links(bundle)["self"] == (
        "http://localhost/rest/fhir/r4/Patient?name=mul,duck&_sort=-family&_total=none&_count=50"
    )
    assert library.esmith.get(links(bundle)["self"]).json["entry"][0] == bundle["entry"][0]


def test_a_cursor_holds_the_whole_query(library: Library) -> None:
    first = library.esmith.get("Observation?patient=anna&_sort=-date&_elements=status&_count=1").json
    second = library.esmith.get(links(first)["next"] + "&patient=bo").json
    assert modes(first) == modes(library.esmith.get(links(first)["self"]).json)
    (entry,) = second["entry"]
    assert entry["resource"].keys() == {"resourceType", "id", "meta", "status", "code"}
    assert "anna" not in links(first)["next"]


def test_the_cursor_of_a_long_query_fits_into_a_url(library: Library) -> None:
    many = ",".join(f"{LOINC}|{n}-7" for n in range(700, 900))
    first = library.esmith.send(
        "POST",
        "Observation/_search",
        f"code={many}&_count=2".encode(),
        Content_Type="application/x-www-form-urlencoded",
    ).json
    assert len(links(first)["next"]) < 2000
    assert_outcome(library.callers["jdoe"].get(links(first)["next"]), 400)
    second = library.esmith.get(links(first)["next"]).json
    assert len(second["entry"]) == 2
    assert not {e["fullUrl"] for e in first["entry"]} & {e["fullUrl"] for e in second["entry"]}


# summaries

KEPT = {
    "_elements=name": {"name"},
    "_elements=name,birthDate": {"name", "birthDate"},
    "_elements=Patient.gender": {"gender"},
    "_elements=zanzibar": set(),
    "_summary=true": {"identifier", "active", "name", "telecom", "gender", "birthDate", "address"},
    "_summary=text": set(),
    "_summary=data": {
        "identifier", "active", "name", "telecom", "gender", "birthDate", "address", "communication",
    },
}  # fmt: skip


@pytest.mark.parametrize(("query", "elements"), KEPT.items())
def test_a_summary_keeps_some_elements_and_says_so(library: Library, query: str, elements: set[str]) -> None:
    (entry,) = library.esmith.get(f"Patient?_id=anna&{query}").json["entry"]
    resource = entry["resource"]
    assert resource.keys() - {"resourceType", "id", "meta"} == elements
    assert [t["code"] for t in resource["meta"]["tag"]][-1] == "SUBSETTED"
    wire.check(wire.loads(wire.dump(resource).decode()), expected_type="Patient")


def test_a_choice_is_asked_for_by_its_stem_and_what_must_be_there_stays(library: Library) -> None:
    (entry,) = library.esmith.get("Observation?_id=gram&_elements=value").json["entry"]
    assert entry["resource"].keys() == {"resourceType", "id", "meta", "status", "code", "valueQuantity"}


def test_without_a_summary_everything_is_there(library: Library) -> None:
    for query in ("Patient?_id=anna", "Patient?_id=anna&_summary=false"):
        (entry,) = library.esmith.get(query).json["entry"]
        assert entry["resource"] == library.resources["anna"]


# what comes along

INCLUDED = {
    "Observation?_id=gram&_include=Observation:subject": "anna",
    "Observation?_id=gram&_include=Observation:patient": "anna",
    "Observation?_id=gram&_include=Observation:subject:Patient": "anna",
    "Observation?_id=gram&_include=Observation:subject:Group": "",
    "Observation?_id=gram,exact&_include=Observation:subject": "anna",
    "Observation?_id=panel&_include=Observation:has-member": "gram",
    "Observation?_id=panel&_include=Observation:has-member&_include=Observation:subject": "gram",
    "Observation?_id=panel&_include=Observation:has-member&_include:iterate=Observation:subject": "anna gram",
    "Observation?_id=absent&_include=*": "bo exact",
    "Observation?_id=absent&_include=Observation:*": "bo exact",
    "Observation?_id=gram&_include=Patient:link": "",
    "Patient?_id=chris&_include=Patient:link": "anna",
    "Patient?_id=bo&_revinclude=Observation:patient": "less milli",
    "Patient?_id=bo&_revinclude=Observation:subject": "less milli",
    "Patient?_id=bo&_revinclude=Observation:focus": "absent",
    "Patient?_id=anna&_revinclude=Patient:link": "chris",
    "Observation?_id=gram&_revinclude=Observation:has-member": "panel",
    "Patient?_id=bo&_revinclude=Observation:focus&_include:iterate=Observation:derived-from": "absent exact",
    "Patient?_id=bo&_revinclude=Observation:focus&_revinclude:iterate=Observation:has-member": "absent",
}


@pytest.mark.parametrize(("query", "expected"), INCLUDED.items())
def test_what_matches_refer_to_comes_along_once(library: Library, query: str, expected: str) -> None:
    assert modes(library.esmith.get(query).json).get("include", []) == expected.split()


def test_what_matches_is_no_include(library: Library) -> None:
    found = modes(library.esmith.get("Observation?_id=panel,gram&_include=Observation:has-member").json)
    assert found == {"match": ["gram", "panel"]}


def test_an_include_never_brings_what_belongs_to_another(library: Library) -> None:
    jdoe = library.callers["jdoe"]
    mine = {r["id"] for r in jdoe.found("Observation")} | {r["id"] for r in jdoe.found("Patient")}
    bundle = jdoe.get("Observation?_include=*&_revinclude=Observation:has-member").json
    brought = [e["resource"] for e in bundle["entry"]]
    assert {r["id"] for r in brought if r["resourceType"] in ("Patient", "Observation")} <= mine


UNSERVED = (
    "_include=Observation:encounter",
    "_include=Observation:subject:Group",
    "_include=Observation:has-part",
    "_include=Encounter:subject",
    "_revinclude=Provenance:target",
)


@pytest.mark.parametrize("include", UNSERVED)
def test_an_include_of_what_is_not_served_is_told_of_or_refused_as_preferred(
    library: Library, include: str
) -> None:
    found = library.esmith.get(f"Observation?_id=gram&{include}").json
    assert modes(found)["match"] == ["gram"]
    (told,) = [e["resource"] for e in found["entry"] if e["search"]["mode"] == "outcome"]
    (issue,) = told["issue"]
    assert issue["severity"] == "warning"
    assert issue["diagnostics"].startswith(include.partition("=")[0])
    assert "include" not in links(found)["self"]
    assert_outcome(library.esmith.get(f"Observation?{include}", Prefer="handling=strict"), 400)


def test_more_than_may_come_along_is_too_costly(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.search.includes.MOST_INCLUDED", 1)
    assert_outcome(library.esmith.get("Patient?_id=bo&_revinclude=Observation:patient"), 422, "too-costly")


# how it may be asked


def test_every_include_of_metadata_is_answered(library: Library) -> None:
    (rest,) = library.esmith.get("metadata").json["rest"]
    for resource in (one for one in rest["resource"] if one["type"] in REGISTRY):
        kind = resource["type"]
        for name, listed in (("_include", "searchInclude"), ("_revinclude", "searchRevInclude")):
            for value in resource[listed]:
                answer = library.esmith.get(f"{kind}?_count=2&{name}={value}")
                assert answer.status_code == 200, (kind, name, value, answer.text)


def test_every_parameter_of_metadata_is_answered_and_says_how_it_is_found(library: Library) -> None:
    (rest,) = library.esmith.get("metadata").json["rest"]
    for resource in (one for one in rest["resource"] if one["type"] in REGISTRY):
        for said in resource["searchParam"]:
            query = f"{resource['type']}?{said['name']}:missing=true&_count=1"
            answer = library.esmith.get(query, Prefer="handling=strict")
            assert answer.status_code == 200, (query, answer.text)
            assert said["documentation"].endswith(".")


FORM = {"Content_Type": "application/x-www-form-urlencoded"}


def test_a_form_is_searched_like_a_url_and_beside_it(library: Library) -> None:
    by_url = library.esmith.get("Patient?name=mul&gender=male").json
    by_form = library.esmith.send("POST", "Patient/_search", b"name=mul&gender=male", **FORM).json
    by_both = library.esmith.send("POST", "Patient/_search?gender=male", b"name=mul", **FORM).json
    assert modes(by_url) == modes(by_form) == modes(by_both) == {"match": ["bo"]}
    accented = library.esmith.send("POST", "Patient/_search", b"name=M%C3%BCller", **FORM).json
    assert modes(accented) == {"match": ["anna"]}
    assert len(library.esmith.send("POST", "Patient/_search", b"", **FORM).json["entry"]) == 6


def test_a_search_by_post_that_is_no_form_is_refused(library: Library) -> None:
    assert_outcome(library.esmith.send("POST", "Patient/_search", b"{}"), 415)
    assert_outcome(library.esmith.send("POST", "Zanzibar/_search", b"", **FORM), 404, "not-supported")


def test_a_search_over_all_types_is_refused_in_words(library: Library) -> None:
    for response in (
        library.esmith.get(""),
        library.esmith.get("?name=x"),
        library.esmith.send("POST", "_search", b"name=x", **FORM),
    ):
        assert_outcome(response, 404, "not-supported")
        assert "one resource type" in response.json["issue"][0]["diagnostics"]


def test_unknown_parameters_are_told_of_or_refused_as_preferred(library: Library) -> None:
    lenient = library.esmith.get("Patient?shoe-size=9&name=mul").json
    assert modes(lenient)["match"] == ["anna", "bo"]
    assert "outcome" in modes(lenient)
    assert_outcome(library.esmith.get("Patient?shoe-size=9", Prefer="handling=strict"), 400)
    assert_outcome(library.esmith.get("Patient?name=mul", Prefer="handling=bad"), 400)
    assert library.esmith.get("Patient?name=mul", Prefer="return=minimal; handling=strict").status_code == 200


def records() -> list[Record]:
    """Returns all that this process holds."""
    return [each for each in gc.get_objects() if type(each) is Record]


def test_a_search_holds_no_more_resources_at_once_than_it_reads_at_once(
    esmith: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    others: list[Record] = []

    def counting(query: Query, record: Record, zone: tzinfo) -> Any:
        looking = len(held) % 9 == 0
        held.append(len(records()) - len(others) if looking else 0)
        return sort_key(query, record, zone)

    person = esmith.created({"resourceType": "Patient", "name": [{"family": "Long"}]})["id"]
    made = [observation(f"o{at}", person) for at in range(100)]
    entries = [{"resource": o, "request": {"method": "POST", "url": "Observation"}} for o in made]
    assert (
        esmith.post("", {"resourceType": "Bundle", "type": "transaction", "entry": entries}).status_code
        == 200
    )
    monkeypatch.setattr("bridge.search.candidates.LARGEST_STEP", 20)
    monkeypatch.setattr("bridge.search.candidates.sort_key", counting)
    gc.collect()
    others += records()  # what tests before this one left stays until its end
    assert len(esmith.get(f"Observation?patient={person}&_sort=code&_count=1").json["entry"]) == 1
    assert len(held) == 100
    assert 0 < max(held) <= 25
