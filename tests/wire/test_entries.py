"""The envelope of a transaction: what each entry asks for, or every problem with its path."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from bridge import wire
from bridge.errors import Invalid, TooLarge
from tests.wire.examples import corpus, issues, patient, told

UUID = "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"


def bundle(*entries: Any, **elements: Any) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "transaction", "entry": list(entries), **elements}


def request(method: str, url: str, **elements: Any) -> dict[str, Any]:
    return {"request": {"method": method, "url": url, **elements}}


def post(resource: Any = None, *, full_url: str | None = None, **elements: Any) -> dict[str, Any]:
    entry = {"resource": resource or patient(), **request("POST", "Patient", **elements)}
    return entry if full_url is None else {"fullUrl": full_url, **entry}


def put(url: str, **elements: Any) -> dict[str, Any]:
    return {"resource": patient(**elements), **request("PUT", url)}


READ: dict[str, tuple[dict[str, Any], wire.Entry]] = {
    "create": (
        post(full_url=UUID),
        wire.Entry(0, "POST", "Patient", "Patient", full_url=UUID, resource=patient()),
    ),
    "create with a slash": (
        {"resource": patient(), **request("POST", "/Patient")},
        wire.Entry(0, "POST", "Patient", "Patient", resource=patient()),
    ),
    "conditional create": (
        post(ifNoneExist="identifier=a|b"),
        wire.Entry(0, "POST", "Patient", "Patient", if_none_exist="identifier=a|b", resource=patient()),
    ),
    "conditional create with a question mark": (
        post(ifNoneExist="?identifier=a|b"),
        wire.Entry(0, "POST", "Patient", "Patient", if_none_exist="identifier=a|b", resource=patient()),
    ),
    "conditional create with the type": (
        post(ifNoneExist="Patient?identifier=a|b"),
        wire.Entry(0, "POST", "Patient", "Patient", if_none_exist="identifier=a|b", resource=patient()),
    ),
    "update": (
        {"resource": patient(id="1"), **request("PUT", "Patient/1", ifMatch='W/"2"')},
        wire.Entry(0, "PUT", "Patient/1", "Patient", "1", if_match='W/"2"', resource=patient(id="1")),
    ),
    "conditional update": (
        put("Patient?identifier=a|b"),
        wire.Entry(0, "PUT", "Patient?identifier=a|b", "Patient", query="identifier=a|b", resource=patient()),
    ),
    "delete": (request("DELETE", "Patient/1"), wire.Entry(0, "DELETE", "Patient/1", "Patient", "1")),
    "conditional delete": (
        request("DELETE", "Patient?identifier=1"),
        wire.Entry(0, "DELETE", "Patient?identifier=1", "Patient", query="identifier=1"),
    ),
    "read": (
        request("GET", "Patient/1", ifNoneMatch='W/"4"', ifModifiedSince="2015-08-31T08:14:33Z"),
        wire.Entry(
            0,
            "GET",
            "Patient/1",
            "Patient",
            "1",
            if_none_match='W/"4"',
            if_modified_since="2015-08-31T08:14:33Z",
        ),
    ),
    "version read": (
        request("GET", "Patient/1/_history/2"),
        wire.Entry(0, "GET", "Patient/1/_history/2", "Patient", "1"),
    ),
    "search": (
        request("GET", "Patient?name=a"),
        wire.Entry(0, "GET", "Patient?name=a", "Patient", query="name=a"),
    ),
    "capabilities": (request("GET", "metadata"), wire.Entry(0, "GET", "metadata")),
    "patch": (
        {"resource": {"resourceType": "Parameters"}, **request("PATCH", "Patient/1")},
        wire.Entry(0, "PATCH", "Patient/1", "Patient", "1", resource={"resourceType": "Parameters"}),
    ),
}


@pytest.mark.parametrize(("entry", "expected"), READ.values(), ids=READ)
def test_reads(entry: dict[str, Any], expected: wire.Entry) -> None:
    assert wire.check_bundle_envelope(bundle(entry), strict=True) == ([expected], [])


def test_the_own_base_may_stand_before_a_url() -> None:
    base = "http://localhost:8080/rest/fhir/r4"
    sent = bundle({"resource": patient(), **request("POST", f"{base}/Patient")})
    entries, _ = wire.check_bundle_envelope(sent, base=base)
    assert entries[0].url == "Patient"


def test_entries_come_in_the_order_sent_with_their_places() -> None:
    sent = bundle(post(), request("DELETE", "Patient/1"), request("GET", "Patient/2"))
    entries, _ = wire.check_bundle_envelope(sent)
    assert [(entry.index, entry.method) for entry in entries] == [(0, "POST"), (1, "DELETE"), (2, "GET")]
    assert entries[2].path == "Bundle.entry[2]"


def test_a_transaction_without_entries_is_one() -> None:
    assert wire.check_bundle_envelope({"resourceType": "Bundle", "type": "transaction"}) == ([], [])


def test_a_bundle_that_does_not_say_so_is_taken_and_told() -> None:
    entries, warnings = wire.check_bundle_envelope(
        {"type": "transaction", "entry": [{"resource": patient()}]}
    )
    assert told(warnings) == [("Bundle", "required")]
    assert [(entry.method, entry.url, entry.resource_type) for entry in entries] == [
        ("POST", "Patient", "Patient")
    ]
    assert told(entries[0].warnings) == [("Bundle.entry[0].request", "required")]
    assert {issue.severity for issue in warnings + entries[0].warnings} == {"warning"}


def test_strict_validation_wants_both() -> None:
    with pytest.raises(Invalid) as error:
        wire.check_bundle_envelope({"type": "transaction", "entry": [{"resource": patient()}]}, strict=True)
    assert issues(error.value) == [("Bundle", "required"), ("Bundle.entry[0].request", "required")]


REFUSED: dict[str, tuple[Any, list[tuple[str | None, str]]]] = {
    "not an object": ([], [("Bundle", "structure")]),
    "another resource": (patient(), [(None, "invalid")]),
    "no type": ({"resourceType": "Bundle"}, [("Bundle.type", "required")]),
    "type history": (bundle(post(), type="history"), [("Bundle.type", "not-supported")]),
    "type searchset": (bundle(post(), type="searchset"), [("Bundle.type", "not-supported")]),
    "type unheard": (
        bundle(post(), type="deal"),
        [("Bundle.type", "code-invalid"), ("Bundle.type", "not-supported")],
    ),
    "type a list": (bundle(post(), type=["transaction"]), [("Bundle.type", "structure")]),
    "unknown element": (bundle(post(), foo=1), [("Bundle.foo", "structure")]),
    "total": (bundle(post(), total=1), [("Bundle.total", "structure")]),
    "entry empty": (bundle(), [("Bundle.entry", "structure")]),
    "entry an object": (bundle(entry={"resource": patient()}), [("Bundle.entry", "structure")]),
    "entry null": (bundle(None), [("Bundle.entry[0]", "structure")]),
    "entry a string": (bundle("Patient"), [("Bundle.entry[0]", "structure")]),
    "entry without anything": (
        bundle({}),
        [("Bundle.entry[0]", "structure"), ("Bundle.entry[0].resource", "required")],
    ),
    "entry with an unknown element": (
        bundle({**post(), "foo": 1}),
        [("Bundle.entry[0].foo", "structure")],
    ),
    "resource null": (bundle({**post(), "resource": None}), [("Bundle.entry[0].resource", "structure")]),
    "resource a list": (bundle({**post(), "resource": []}), [("Bundle.entry[0].resource", "structure")]),
    "no request and no type": (bundle({"resource": {"id": "1"}}), [("Bundle.entry[0].resource", "required")]),
    "request without method and url": (
        bundle({"resource": patient(), "request": {"ifMatch": "1"}}),
        [("Bundle.entry[0].request.method", "required"), ("Bundle.entry[0].request.url", "required")],
    ),
    "request a string": (
        bundle({"resource": patient(), "request": "POST"}),
        [("Bundle.entry[0].request", "structure")],
    ),
    "method unheard": (
        bundle(request("MOVE", "Patient/1")),
        [("Bundle.entry[0].request.method", "code-invalid")],
    ),
    "create with an id in the url": (
        bundle({"resource": patient(), **request("POST", "Patient/1")}),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "create of another type": (
        bundle({"resource": patient(), **request("POST", "Observation")}),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "create on another server": (
        bundle({"resource": patient(), **request("POST", "http://example.org/fhir/Patient")}),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "read on another server": (
        bundle(request("GET", "http://example.org/fhir/Patient/1")),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "operation": (
        bundle({"resource": {"resourceType": "Parameters"}, **request("POST", "ValueSet/$lookup")}),
        [("Bundle.entry[0].request.url", "not-supported")],
    ),
    "create without resource": (
        bundle(request("POST", "Patient")),
        [("Bundle.entry[0].resource", "required")],
    ),
    "delete with resource": (
        bundle({"resource": patient(), **request("DELETE", "Patient/1")}),
        [("Bundle.entry[0].resource", "structure")],
    ),
    "update without id in the url": (
        bundle(put("Patient", id="1")),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "update without id in the resource": (
        bundle(put("Patient/1")),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "update with another id": (bundle(put("Patient/1", id="2")), [("Bundle.entry[0].request.url", "value")]),
    "update with id and query": (
        bundle(put("Patient/1?name=a", id="1")),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "delete of a whole type": (
        bundle(request("DELETE", "Patient")),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "delete of a version": (
        bundle(request("DELETE", "Patient/1/_history/2")),
        [("Bundle.entry[0].request.url", "value")],
    ),
    "the same resource twice": (
        bundle(put("Patient/1", id="1"), request("GET", "Patient/1"), request("DELETE", "Patient/1")),
        [("Bundle.entry[2].request.url", "duplicate")],
    ),
    "fullUrl twice": (
        bundle(post(full_url=UUID), post(), post(full_url=UUID)),
        [("Bundle.entry[2].fullUrl", "duplicate")],
    ),
    "fullUrl relative": (bundle(post(full_url="Patient/1")), [("Bundle.entry[0].fullUrl", "value")]),
    "fullUrl not a uuid": (bundle(post(full_url="urn:uuid:1")), [("Bundle.entry[0].fullUrl", "value")]),
    "fullUrl of a version": (
        bundle(post(full_url="http://example.org/Patient/1/_history/2")),
        [("Bundle.entry[0].fullUrl", "value")],
    ),
    "fullUrl of another id": (
        bundle(post(patient(id="2"), full_url="http://example.org/Patient/1")),
        [("Bundle.entry[0].fullUrl", "value")],
    ),
    "fullUrl a number": (bundle({**post(), "fullUrl": 5}), [("Bundle.entry[0].fullUrl", "structure")]),
    "condition of another type": (
        bundle(post(ifNoneExist="Observation?identifier=1")),
        [("Bundle.entry[0].request.ifNoneExist", "value")],
    ),
    "condition without a parameter": (
        bundle(post(ifNoneExist="Patient")),
        [("Bundle.entry[0].request.ifNoneExist", "value")],
    ),
    "condition of another method": (
        bundle(post(ifMatch='W/"1"')),
        [("Bundle.entry[0].request.ifMatch", "value")],
    ),
    "nested Bundle": (
        bundle({"resource": bundle(post()), **request("POST", "Bundle")}),
        [("Bundle.entry[0].resource", "not-supported")],
    ),
    "search and response": (
        bundle({**post(), "search": {"mode": "match"}, "response": {"status": "200"}}),
        [("Bundle.entry[0].search", "structure"), ("Bundle.entry[0].response", "structure")],
    ),
    "all of it at once": (
        bundle(post(full_url="a"), put("Patient"), {**post(), "foo": 1}, total=3),
        [
            ("Bundle.entry[2].foo", "structure"),
            ("Bundle.total", "structure"),
            ("Bundle.entry[0].fullUrl", "value"),
            ("Bundle.entry[1].request.url", "value"),
        ],
    ),
}


@pytest.mark.parametrize(("sent", "expected"), REFUSED.values(), ids=REFUSED)
def test_refuses_with_the_path(sent: Any, expected: list[tuple[str | None, str]]) -> None:
    with pytest.raises(Invalid) as error:
        wire.check_bundle_envelope(sent)
    assert error.value.status == 400
    assert issues(error.value) == expected


def test_another_type_of_bundle_is_refused_in_words() -> None:
    with pytest.raises(Invalid, match="Only Bundles of type transaction and batch are served"):
        wire.check_bundle_envelope(bundle(post(), type="collection"))


def test_entries_of_a_batch_may_change_the_same_resource() -> None:
    twice = [{"request": {"method": "DELETE", "url": "Patient/1"}}] * 2
    entries, _ = wire.check_bundle_envelope(bundle(*twice, type="batch"))
    assert [entry.id for entry in entries] == ["1", "1"]
    with pytest.raises(Invalid):
        wire.check_bundle_envelope(bundle(*twice, type="transaction"))


def test_what_is_wrong_with_an_entry_of_a_batch_stays_with_it() -> None:
    odd = {"request": {"method": "POST", "url": "Patient/1"}, "resource": {"resourceType": "Patient"}}
    entries, _ = wire.check_bundle_envelope(bundle(post(), odd, type="batch"))
    assert [[issue.path for issue in entry.errors] for entry in entries] == [
        [],
        ["Bundle.entry[1].request.url"],
    ]
    with pytest.raises(Invalid):
        wire.check_bundle_envelope(bundle(post(), odd, type="transaction"))


def test_too_many_entries_are_too_large() -> None:
    with pytest.raises(TooLarge) as error:
        wire.check_bundle_envelope(bundle(post(), post(), post()), max_entries=2)
    assert error.value.status == 413
    assert issues(error.value) == [("Bundle.entry", "too-long")]
    assert wire.check_bundle_envelope(bundle(post(), post()), max_entries=2)


def test_tells_a_bounded_number_of_problems() -> None:
    with pytest.raises(Invalid) as error:
        wire.check_bundle_envelope(bundle(*[post(full_url="a")] * 1000))
    assert len(error.value.issues) == 201
    assert error.value.issues[-1].code == "informational"


def test_an_entry_prints_nothing_of_its_resource_or_its_query() -> None:
    sent = bundle(post(patient(id="Lovelace"), ifNoneExist="name=Lovelace"))
    assert "Lovelace" not in repr(wire.check_bundle_envelope(sent))


def test_the_resources_are_left_to_check() -> None:
    entries, _ = wire.check_bundle_envelope(bundle(post(patient(gender="man"))))
    with pytest.raises(Invalid) as error:
        wire.check(entries[0].resource, at=f"{entries[0].path}.resource")
    assert issues(error.value) == [("Bundle.entry[0].resource.gender", "code-invalid")]


@pytest.mark.parametrize("path", corpus("hl7-r4/Bundle-bundle-transaction.json"))
def test_the_hl7_transaction_is_refused_for_its_operation_alone(path: Any) -> None:
    sent = wire.parse(path.read_bytes())
    with pytest.raises(Invalid) as error:
        wire.check_bundle_envelope(sent, strict=True)
    assert issues(error.value) == [("Bundle.entry[7].request.url", "not-supported")]
    del sent["entry"][7]
    entries, _ = wire.check_bundle_envelope(sent, strict=True)
    methods = ["POST", "POST", "PUT", "PUT", "PUT", "DELETE", "DELETE", "GET", "GET"]
    assert [entry.method for entry in entries] == methods


@pytest.mark.parametrize("path", corpus("synthea/*.json.gz"))
def test_accepts_whole_synthea_records(path: Any) -> None:
    entries, warnings = wire.check_bundle_envelope(
        wire.parse(gzip.decompress(path.read_bytes())), strict=True
    )
    assert warnings == []
    for entry in entries:
        if entry.resource_type in ("Patient", "Observation"):
            assert wire.check(entry.resource, strict=True, at=entry.path)[1] == []
