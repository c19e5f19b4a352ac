"""Media types: JSON under all its names, nothing else."""

from __future__ import annotations

import pytest

from bridge import wire
from bridge.errors import NotAcceptable, UnsupportedMediaType

TAKEN = (
    None,
    "",
    "application/fhir+json",
    "application/json",
    "text/json",
    "Application/FHIR+JSON",
    "application/fhir+json; charset=utf-8",
    'application/fhir+json;charset="UTF-8"; fhirVersion=4.0',
)
NOT_TAKEN = (
    "application/fhir+xml",
    "application/xml",
    "text/xml",
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/json-patch+json",
    "application/fhir+json; charset=iso-8859-1",
    "application/fhir+json; fhirVersion=5.0",
    "nonsense",
    ";",
)
ANSWERED = {
    (None, None): wire.FHIR_JSON,
    ("", None): wire.FHIR_JSON,
    ("*/*", None): wire.FHIR_JSON,
    ("application/*", None): wire.FHIR_JSON,
    ("application/fhir+json", None): wire.FHIR_JSON,
    ("application/fhir+json; fhirVersion=4.0", None): wire.FHIR_JSON,
    ("application/json", None): wire.JSON,
    ("text/json", None): wire.JSON,
    ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", None): wire.FHIR_JSON,
    ("application/fhir+xml, application/json;q=0.1", None): wire.JSON,
    ("application/json;q=0.5, application/fhir+json", None): wire.FHIR_JSON,
    ("application/fhir+xml", "json"): wire.FHIR_JSON,
    (None, "application/fhir+json"): wire.FHIR_JSON,
    (None, "application/fhir json"): wire.FHIR_JSON,
    (None, "application/fhir json; fhirVersion=4.0"): wire.FHIR_JSON,
    (None, "application/json"): wire.JSON,
    (None, "text/json"): wire.JSON,
}
NOT_ANSWERED = (
    ("application/fhir+xml", None),
    ("text/html", None),
    ("application/json;q=0", None),
    ("application/json;q=much", None),
    ("application/json;q=nan", None),
    ("application/fhir+json; fhirVersion=3.0", None),
    ("application/json", "xml"),
    ("application/json", "application/fhir+xml"),
    (None, "application/fhir xml"),
    (None, "ttl"),
    (None, ""),
)


@pytest.mark.parametrize("header", TAKEN)
def test_takes(header: str | None) -> None:
    wire.check_content_type(header)


@pytest.mark.parametrize("header", NOT_TAKEN)
def test_refuses_other_bodies_in_words(header: str) -> None:
    with pytest.raises(UnsupportedMediaType, match=r"JSON|FHIR version") as error:
        wire.check_content_type(header)
    assert error.value.status == 415


@pytest.mark.parametrize(("asked", "answer"), ANSWERED.items())
def test_answers_with(asked: tuple[str | None, str | None], answer: str) -> None:
    assert wire.check_accept(*asked) == answer


@pytest.mark.parametrize("asked", NOT_ANSWERED)
def test_refuses_to_answer_otherwise_in_words(asked: tuple[str | None, str | None]) -> None:
    with pytest.raises(NotAcceptable, match="JSON") as error:
        wire.check_accept(*asked)
    assert error.value.status == 406
