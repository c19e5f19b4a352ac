"""Whatever is done to a valid document, it is accepted or refused in words, and nothing of it is repeated."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import wire
from bridge.errors import BridgeError
from bridge.wire.gate import MODEL_REFUSES
from mappings.values import Number
from tests.wire.examples import OWN, patient

DOCUMENTS = [wire.parse(path.read_bytes()) for path in OWN]
NAMES = sorted({name for document in DOCUMENTS for name in json.loads(wire.dump(document))} | {
    "_given", "_valueCode", "data", "div", "end", "extension", "family", "fhir_comments", "gender__ext", "given",
    "reference", "resource_type", "start", "text", "url", "use", "value", "valueBase64Binary", "valueCode",
    "valueCodeableReference", "valueDateTime", "valueOid", "valueString", "valueUrl", "valueUuid", "when", "_", "",
})  # fmt: skip
CANARY = "Lovelace-1815"

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**31) - 1, 2**31),
    st.sampled_from(["0", "-0", "7.50", "1e400", "-1E-400", "99999999999999999999"]).map(Number),
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
