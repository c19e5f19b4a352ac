"""Whatever is done to a valid document, it is accepted or refused in words, and nothing of it is repeated."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import wire
from bridge.errors import BridgeError, Invalid
from bridge.wire.gate import MODEL_REFUSES, pass_model
from bridge.wire.primitives import RULES
from bridge.wire.shapes import resource_shape
from bridge.wire.walk import Findings, Path, walk_resource
from mappings import REGISTRY
from mappings.values import Number
from tests.mappings.strategies import resources
from tests.wire.examples import OWN, patient

DOCUMENTS = [wire.parse(path.read_bytes()) for path in OWN]
NAMES = sorted({name for document in DOCUMENTS for name in json.loads(wire.dump(document))} | {
    "_given", "_valueCode", "data", "div", "end", "extension", "family", "fhir_comments", "gender__ext", "given",
    "reference", "resource_type", "start", "text", "url", "use", "value", "valueBase64Binary", "valueCode",
    "valueCodeableReference", "valueDateTime", "valueOid", "valueString", "valueUrl", "valueUuid", "when", "_", "",
})  # fmt: skip
CANARY = "Lovelace-1815"

PATH: Path = (None, "Resource", None)
_DAY = "[0-9]{4}-[01][0-9]-[0-3][0-9]"
_CLOCK = r"[0-2][0-9]:[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]{1,12})?"
FORMS = {
    "base64Binary": "(?:[A-Za-z0-9+/]{4}){0,3}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|\\s)?",
    "canonical": r"[^\s]{1,9}",
    "code": r"[^\s]{1,4}(?:\s[^\s]{1,4}){0,2}",
    "date": f"(?:[0-9]{{4}}(?:-[01][0-9])?|{_DAY})",
    "dateTime": f"(?:[0-9]{{4}}|{_DAY}T{_CLOCK}(?:Z|[+-][01][0-9]:[0-5][0-9]))",
    "id": r"[A-Za-z0-9\-.]{1,64}",
    "instant": f"{_DAY}T{_CLOCK}(?:Z|[+-][01][0-9]:[0-5][0-9])",
    "markdown": r"[\s\S]{1,9}",
    "oid": r"urn:oid:[0-2](?:\.[0-9]{1,3}){1,3}",
    "string": r"[\s\S]{1,9}",
    "time": _CLOCK,
    "uri": r"[^\s]{1,9}",
    "url": r"[^\s]{1,9}",
    "uuid": r"urn:uuid:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
}
"""What comes near the text of a primitive value, by type."""

EXTENDED = {"extension": [{"url": "urn:a", "valueString": "b"}]}
ONLY_EXTENDED = patient(
    contained=[
        {
            "resourceType": "MedicationAdministration",
            "status": "completed",
            "subject": {"display": "a"},
            "medicationReference": {"display": "b"},
            "_effectiveDateTime": EXTENDED,
        }
    ]
)
"""R4 requires a time here; the model does not take an extension for it."""

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31) - 1, 2**31),
    st.sampled_from(["0.0", "-0", "7.50", "1e400", "-1E-400", "99999999999999999999"]).map(Number),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        [CANARY, "1970", "2021-02-30", "2024-02-29T10:00:00Z", "2024-02-29T10:00:00.123456789012+14:00", "10:00:00",
         "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60-14:00", "male", "final", "<", "a b", " ", "#", "//",
         "?a=b", "mailto:a", "http://a b", "urn:oid:1.2", "urn:uuid:c757873d-ec9a-1326-a141-556f43239520",
         "SGVs\nbG8=", "!!!!", "Patient", "FooType", '<div xmlns="http://www.w3.org/1999/xhtml">a</div>']
    ),
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)


def containers(node: Any) -> list[Any]:
    """All objects and lists of a document."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    found = [node] if isinstance(node, dict | list) else []
    return [*found, *(container for value in inner for container in containers(value))]


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A valid document with one to three changes: a value replaced, added or removed anywhere."""
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 3))):
        target = draw(st.sampled_from(containers(document)))
        value = draw(values)
        if isinstance(target, list):
            place = draw(st.integers(0, len(target)))
            target[place : place + draw(st.integers(0, 1))] = draw(st.sampled_from([[value], []]))
        else:
            name = draw(st.sampled_from([*target, *NAMES]))
            if draw(st.booleans()):
                target[name] = value
            else:
                target.pop(name, None)
    return document


@settings(max_examples=300, deadline=None)
@given(mutated(), st.booleans())
def test_a_changed_document_is_accepted_or_refused_in_words(document: dict[str, Any], strict: bool) -> None:
    before = copy.deepcopy(document)
    try:
        checked, warnings = wire.check(document, strict=strict)
    except BridgeError as error:
        assert 400 <= error.status < 500
        told = error.issues
        # The walk finds whatever the model finds, so that all problems are told at once and by their rule.
        assert MODEL_REFUSES not in [issue.text for issue in told]
    else:
        told = warnings
        assert wire.loads(wire.dump(checked)) == checked
        assert wire.check(checked, strict=strict)[0] == checked
    assert document == before
    assert all(issue.path for issue in told)
    assert CANARY not in repr(told)


def takes(document: dict[str, Any]) -> tuple[bool, bool]:
    """Whether the walk finds nothing wrong with a document, and whether it has no doubt."""
    found = Findings(strict=True)
    walk_resource(document, PATH, found)
    return not found.errors, not found.doubtful


def refused(document: dict[str, Any]) -> bool:
    """Whether the model refuses the document."""
    shape = resource_shape(document["resourceType"])
    assert shape is not None
    try:
        pass_model(shape, document, PATH)
    except Invalid:
        return True
    return False


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_what_the_walk_takes_without_doubt_the_model_takes_too(document: dict[str, Any]) -> None:
    assert takes(document) != (True, True) or not refused(document)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(REGISTRY)).flatmap(resources))
def test_any_valid_resource_is_taken_and_by_the_model_too(document: dict[str, Any]) -> None:
    assert takes(document)[0]
    assert not refused(document)


@pytest.mark.parametrize("document", DOCUMENTS, ids=[path.stem for path in OWN])
def test_only_where_null_holds_a_place_an_example_is_doubtful(document: dict[str, Any]) -> None:
    assert takes(document) == (True, b"null" not in wire.dump(document))


@pytest.mark.parametrize(("name", "form"), FORMS.items(), ids=FORMS)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_primitive_value_that_its_rule_takes_the_model_takes_too(
    name: str, form: str, data: st.DataObject
) -> None:
    value = data.draw(st.from_regex(form, fullmatch=True))
    extension = {"url": "urn:a", f"value{name[0].upper()}{name[1:]}": value}
    assert RULES[name](value) is not None or not refused(patient(extension=[extension]))


def test_where_the_walk_is_in_doubt_the_model_decides() -> None:
    assert takes(ONLY_EXTENDED) == (True, False)
    with pytest.raises(Invalid) as told:
        wire.check(ONLY_EXTENDED)
    assert [(issue.text, issue.path) for issue in told.value.issues] == [
        (MODEL_REFUSES, "Patient.contained[0]")
    ]


@pytest.mark.parametrize(
    "document",
    [
        patient(name=[{"given": ["a", None], "_given": [None, EXTENDED]}]),
        {"resourceType": "Observation", "_status": EXTENDED, "code": {"text": "a"}},
    ],
    ids=["a place that is held", "an extension for a value"],
)
def test_what_the_model_takes_in_doubt_is_accepted(document: dict[str, Any]) -> None:
    assert takes(document) == (True, False)
    assert wire.check(document) == (document, [])


@settings(max_examples=150, deadline=None)
@given(values, values, values)
def test_any_bundle_is_read_or_refused_in_words(entry: Any, request: Any, type_: Any) -> None:
    entries = [{"resource": patient(), "request": request}, entry, {"resource": entry, "request": request}]
    for sent in ({"resourceType": "Bundle", "type": "transaction", "entry": entries}, {"type": type_}, entry):
        try:
            read, _ = wire.check_bundle_envelope(sent)
        except BridgeError as error:
            assert 400 <= error.status < 500
            assert CANARY not in repr(error.issues)
        else:
            assert all(isinstance(one, wire.Entry) for one in read)


methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "MOVE"])
urls = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["/", "?", "Patient", "1", "$op", "a=b", "|", "_history", "http://h/"])).map(
        "".join
    ),
)


@given(methods, urls, urls, st.one_of(st.none(), urls))
def test_any_request_is_read_or_refused_in_words(
    method: str, url: str, full_url: str, condition: str | None
) -> None:
    request = {"method": method, "url": url, **({} if condition is None else {"ifNoneExist": condition})}
    entry = {"fullUrl": full_url, "request": request, "resource": patient(id="1")}
    if method in ("GET", "HEAD", "DELETE"):
        del entry["resource"]
    try:
        read, _ = wire.check_bundle_envelope(
            {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
        )
    except BridgeError as error:
        assert 400 <= error.status < 500
    else:
        assert [(one.index, one.method) for one in read] == [(0, method)]
