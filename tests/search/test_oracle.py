"""Whatever is asked, the server finds what going over all resources finds."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import DEMO_PATIENT, Caller
from tests.search.conftest import Library
from tests.search.library import CATEGORY, LOINC, OBSERVATIONS, PATIENTS
from tests.search.naive import GENDER, STATUS, meets

Criterion = tuple[str, str, str, str]
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
LAW = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def dates(name: str) -> st.SearchStrategy[Criterion]:
    days = st.dates().map(str) | st.sampled_from(
        (
            "1974-03-05",
            "1974-03-06",
            "1974-04-01",
            "2023-12-30",
            "2024-01-02",
            "2024-05-17",
            "2024-05-18",
            "2020-01-01",
        )
    )
    texts = days.filter(lambda d: d[:4] >= "1000")
    shortened = texts.flatmap(lambda d: st.sampled_from((d, d[:7], d[:4])))
    moments = st.sampled_from(("2024-05-17T08:30:00Z", "2024-05-17T08:29:59Z", "2024-05-17T10:30:01+02:00"))
    return st.tuples(st.just("date"), st.just(name), st.sampled_from(PREFIXES), shortened | moments)


def tokens(name: str, *known: str) -> st.SearchStrategy[Criterion]:
    texts = st.sampled_from(known) | st.sampled_from(("zanzibar", "http://x|y"))
    said = st.tuples(st.just("token"), st.just(name), st.sampled_from(("", "not")), texts)
    missing = st.sampled_from(("true", "false"))
    return said | st.tuples(st.just("token"), st.just(name), st.just("missing"), missing)


def strings() -> st.SearchStrategy[Criterion]:
    names = [part for p in PATIENTS for n in p["name"] for part in (n["family"], *n.get("given", []))]
    parts = st.sampled_from(names).flatmap(
        lambda n: st.tuples(st.integers(0, len(n) - 1), st.integers(1, len(n))).map(
            lambda at: n[at[0] : at[1]] or n
        )
    )
    texts = parts | parts.map(str.upper) | st.sampled_from(names)
    kept = texts.filter(lambda t: t.strip() == t and "," not in t)
    hows = st.sampled_from(("", "exact", "contains"))
    return st.tuples(st.just("string"), st.sampled_from(("name", "family", "given")), hows, kept)


OF_PATIENTS = st.one_of(
    dates("birthdate"),
    strings(),
    tokens("gender", "male", "female", "other", "unknown", f"{GENDER}|male"),
    tokens("active", "true", "false"),
    tokens("deceased", "true", "false"),
    tokens("identifier", "A-1", "urn:hospital|A-1", "urn:other|A-1", "|A-1"),
    tokens("telecom", "555", "phone|555", "email|anna@example.org"),
)
OF_OBSERVATIONS = st.one_of(
    dates("date"),
    tokens("code", "718-7", f"{LOINC}|718-7", f"{LOINC}|29463-7", "|718-7"),
    tokens("combo-code", "8480-6", f"{LOINC}|8480-6", f"{LOINC}|55284-4"),
    tokens("status", "final", "amended", f"{STATUS}|preliminary"),
    tokens("category", "laboratory", f"{CATEGORY}|laboratory"),
    tokens("value-concept", "yes", "urn:v|yes"),
    st.tuples(
        st.just("quantity"),
        st.just("value-quantity"),
        st.sampled_from(PREFIXES),
        st.decimals(0, 6000, places=1).map(str) | st.sampled_from(("5", "5.4", "5.40", "5400", "5.0")),
    ),
)


def said(criterion: Criterion) -> str:
    kind, name, how, value = criterion
    if kind in ("date", "quantity"):
        return f"{name}={how}{quote(value)}"
    return f"{name}{':' if how else ''}{how}={quote(value)}"


@LAW
@given(criteria=st.lists(OF_PATIENTS, min_size=1, max_size=3), count=st.sampled_from((1, 2, 50)))
def test_patients_are_those_that_meet_every_criterion(
    library: Library, criteria: list[Criterion], count: int
) -> None:
    expected = {p["id"] for p in PATIENTS if all(meets(library.resources[p["id"]], c) for c in criteria)}
    query = "&".join(map(said, criteria))
    assert set(library_found(library, f"Patient?{query}&_count={count}")) == expected


@LAW
@given(criteria=st.lists(OF_OBSERVATIONS, min_size=1, max_size=3))
def test_observations_are_those_that_meet_every_criterion(
    library: Library, criteria: list[Criterion]
) -> None:
    checked = [o["id"] for o in OBSERVATIONS if "comparator" not in o.get("valueQuantity", {})]
    expected = {i for i in checked if all(meets(library.resources[i], c) for c in criteria)}
    found = set(library_found(library, f"Observation?{'&'.join(map(said, criteria))}"))
    assert found & set(checked) == expected


@LAW
@given(
    criteria=st.lists(OF_OBSERVATIONS, min_size=1, max_size=2),
    order=st.sampled_from(("date", "-date", "code")),
)
def test_an_order_or_a_patient_changes_nothing_of_what_is_found(
    library: Library, criteria: list[Criterion], order: str
) -> None:
    query = "&".join(map(said, criteria))
    alone = set(library_found(library, f"Observation?{query}"))
    annas = {o["id"] for o in OBSERVATIONS if o.get("subject", {}).get("reference") == "Patient/anna"}
    found = library_found(library, f"Observation?patient=anna&{query}&_sort={order}&_count=2")
    assert set(found) == alone & annas
    assert len(found) == len(set(found))


def library_found(library: Library, path: str) -> list[str]:
    back = {server_id: client_id for client_id, server_id in library.ids.items()}
    return [back[r["id"]] for r in library.esmith.found(path) if r["id"] != DEMO_PATIENT]


TEXTS = (
    "O,N|e$i\\l",
    "a,b",
    "a|b",
    "a$b",
    "\\",
    "Ωμέγα",
    "李",
    "Żółć",
    "ﬁn",
    "e\u0301t",
    "  two  words",
    "%2C",
    "+",
    "&=?#",
)


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_found_by_itself_escaped(esmith: Caller, text: str) -> None:
    made = esmith.created(
        {
            "resourceType": "Patient",
            "name": [{"family": text.strip()}],
            "identifier": [{"system": "urn:texts", "value": text.strip()}],
        }
    )
    escaped = quote("".join(f"\\{c}" if c in "\\,|$" else c for c in text.strip()), safe="")
    queries = (
        f"name={escaped}",
        f"name:exact={escaped}",
        f"name:contains={escaped}",
        f"identifier={escaped}",
        f"identifier=urn:texts%7C{escaped}",
        f"family={escaped}&identifier={escaped}",
    )
    for query in queries:
        assert [p["id"] for p in esmith.found(f"Patient?{query}")] == [made["id"]], query
