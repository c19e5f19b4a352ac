"""Media types, gzip and preferences."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.helpers import Caller, assert_outcome

PATIENT = {"resourceType": "Patient", "name": [{"family": "Curie", "text": "x" * 2000}]}


def test_a_body_may_be_sent_with_gzip(esmith: Caller) -> None:
    packed = gzip.compress(json.dumps(PATIENT).encode())
    created = esmith.post("Patient", packed, Content_Encoding="gzip")
    assert created.status_code == 201, created.text
    assert created.json["name"] == PATIENT["name"]


BAD = {
    "no gzip": (b"{}", "gzip", 400),
    "half of it": (gzip.compress(json.dumps(PATIENT).encode())[:-9], "gzip", 400),
    "another encoding": (b"{}", "br", 415),
}


@pytest.mark.parametrize(("body", "encoding", "status"), BAD.values(), ids=BAD)
def test_a_body_that_cannot_be_unpacked_is_refused(
    esmith: Caller, body: bytes, encoding: str, status: int
) -> None:
    assert_outcome(esmith.post("Patient", body, Content_Encoding=encoding), status)


def test_an_answer_is_packed_for_who_takes_it(esmith: Caller) -> None:
    created = esmith.created(PATIENT)
    url = f"Patient/{created['id']}"
    plain, packed = esmith.get(url), esmith.get(url, Accept_Encoding="gzip, br")
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] == plain.headers["ETag"]
    assert "Accept-Encoding" in packed.headers["Vary"]


JSON_TYPES = {
    "*/*": "application/fhir+json",
    "application/fhir+json": "application/fhir+json",
    "application/fhir+json; fhirVersion=4.0": "application/fhir+json",
    "application/json": "application/json",
    "application/fhir+xml;q=0.5, application/fhir+json": "application/fhir+json",
}


@pytest.mark.parametrize(("accept", "answered"), JSON_TYPES.items())
def test_json_is_answered_as_asked_for(esmith: Caller, accept: str, answered: str) -> None:
    response = esmith.get("metadata", Accept=accept)
    assert response.status_code == 200
    assert response.mimetype == answered


@pytest.mark.parametrize(
    "accept", ["application/fhir+xml", "text/turtle", "application/fhir+json; fhirVersion=3.0"]
)
def test_what_is_not_served_is_refused_in_words(esmith: Caller, accept: str) -> None:
    assert_outcome(esmith.get("metadata", Accept=accept), 406, "not-supported")


def test_format_goes_before_accept(esmith: Caller) -> None:
    assert esmith.get("metadata?_format=json", Accept="application/fhir+xml").status_code == 200
    assert esmith.get("metadata?_format=application/fhir+json", Accept="text/html").status_code == 200
    assert_outcome(esmith.get("metadata?_format=xml"), 406)


def test_xml_is_refused_in_words(esmith: Caller) -> None:
    refused = esmith.post("Patient", b"<Patient/>", Content_Type="application/fhir+xml")
    assert_outcome(refused, 415, "not-supported")


def test_pretty_is_for_people(esmith: Caller) -> None:
    assert b'\n  "resourceType": "CapabilityStatement"' in esmith.get("metadata?_pretty=true").data


PREFER: dict[str, Any] = {
    "return=minimal": lambda r: r.data == b"",
    "return=representation": lambda r: r.json["resourceType"] == "Patient",
    "return=OperationOutcome": lambda r: r.json["resourceType"] == "OperationOutcome",
    "respond-async, return=minimal": lambda r: r.data == b"",
    "handling=strict; return=minimal": lambda r: r.data == b"",
}


@pytest.mark.parametrize(("prefer", "holds"), PREFER.items())
def test_the_answer_is_what_the_caller_prefers(esmith: Caller, prefer: str, holds: Any) -> None:
    created = esmith.post("Patient", PATIENT, Prefer=prefer)
    assert created.status_code == 201
    assert holds(created)
    assert created.headers["Location"]


def test_a_delete_answers_with_an_outcome_when_the_caller_prefers_one(esmith: Caller) -> None:
    created = esmith.created(PATIENT)
    answer = esmith.delete(f"Patient/{created['id']}", Prefer="return=OperationOutcome")
    assert answer.status_code == 200
    assert answer.json["resourceType"] == "OperationOutcome"
    again = esmith.delete(f"Patient/{created['id']}", Prefer="return=representation")
    assert (again.status_code, again.data) == (204, b"")


def test_a_long_answer_of_a_bundle_is_written_while_it_is_sent(esmith: Caller) -> None:
    """Plain, with gzip and indented it says the same; a short one has its length."""
    names = [f"Of{'a' * 200}{at:03}" for at in range(200)]
    entries = [
        {
            "resource": {"resourceType": "Patient", "name": [{"family": name}]},
            "request": {"method": "POST", "url": "Patient"},
        }
        for name in names
    ]
    sent = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    shown = {"Prefer": "return=representation", "Idempotency_Key": "long"}
    plain = esmith.post("", sent, **shown)
    assert "Content-Length" not in plain.headers
    assert [e["resource"]["name"][0]["family"] for e in plain.json["entry"]] == names
    packed = esmith.post("", sent, **shown, Accept_Encoding="gzip")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert esmith.post("?_pretty=true", sent, Prefer="return=representation").text.count("\n") > len(names)
    short = esmith.post("", {**sent, "entry": entries[:1]})
    assert short.headers["Content-Length"] == str(len(short.data))
