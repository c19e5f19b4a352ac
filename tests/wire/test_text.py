"""JSON text in and out: numbers keep their text, what JSON allows and FHIR does not is refused with its path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import wire
from bridge.errors import BridgeError, Invalid
from mappings.values import Number
from tests.wire.examples import OWN, corpus, issues


def nested(depth: int) -> bytes:
    """JSON of an object with lists in it, `depth` containers inside each other."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


REFUSED: dict[str, tuple[bytes, list[tuple[str | None, str]]]] = {
    "empty": (b"", [(None, "structure")]),
    "blank": (b" \n", [(None, "structure")]),
    "only a byte order mark": (b"\xef\xbb\xbf", [(None, "structure")]),
    "not JSON": (b"<Patient/>", [(None, "structure")]),
    "cut off": (b'{"resourceType":"Patient"', [(None, "structure")]),
    "something behind it": (b'{"a":1} {"a":1}', [(None, "structure")]),
    "a list": (b'[{"resourceType":"Patient"}]', [(None, "structure")]),
    "a number": (b"5", [(None, "structure")]),
    "null": (b"null", [(None, "structure")]),
    "UTF-16": ('{"a":1}'.encode("utf-16"), [(None, "structure")]),
    "Latin-1": ('{"a":"ü"}'.encode("latin-1"), [(None, "structure")]),
    "a surrogate in UTF-8": (b'{"a":"\xed\xa0\x80"}', [(None, "structure")]),
    "a raw control character": (b'{"a":"\x07"}', [(None, "structure")]),
    "a raw line feed": (b'{"a":"\n"}', [(None, "structure")]),
    "1,000 lists deep": (nested(1000), [(None, "structure")]),
    "100,000 lists deep": (nested(100_000), [(None, "structure")]),
    "100,000 lists never closed": (b'{"a":' + b"[" * 100_000, [(None, "structure")]),
    "one deeper than allowed": (nested(wire.MAX_DEPTH + 1), [(None, "structure")]),
    "a huge exponent": (
        b'{"resourceType":"Observation","valueQuantity":{"value":1E999999}}',
        [("Observation.valueQuantity.value", "structure")],
    ),
    "exponent 401": (b'{"a":1e401}', [("Resource.a", "structure")]),
    "exponent -401": (b'{"a":1e-401}', [("Resource.a", "structure")]),
    "a very long exponent": (b'{"a":1e' + b"9" * 10_000 + b"}", [("Resource.a", "structure")]),
    "5,000 digits": (b'{"a":[0,' + b"1" * 5000 + b"]}", [("Resource.a[1]", "structure")]),
    "65 digits": (b'{"a":-' + b"1" * 65 + b"}", [("Resource.a", "structure")]),
    "65 digits with a point": (b'{"a":1.' + b"0" * 64 + b"}", [("Resource.a", "structure")]),
    "NaN and Infinity, both told": (
        b'{"a":NaN,"b":{"c":-Infinity}}',
        [("Resource.a", "structure"), ("Resource.b.c", "structure")],
    ),
    "names twice, all told": (
        b'{"resourceType":"Patient","id":"1","id":"2","name":[{"text":"a","text":"b","text":"c"}]}',
        [("Patient.id", "structure"), ("Patient.name[0].text", "structure")],
    ),
    "half a surrogate pair": (
        b'{"resourceType":"Patient","name":[{"given":["a","\\ud800"]}]}',
        [("Patient.name[0].given[1]", "structure")],
    ),
    "the other half": (b'{"a":"\\uDC00x"}', [("Resource.a", "structure")]),
    "an escaped control character": (b'{"a":"\\u0000"}', [("Resource.a", "structure")]),
    "an escaped backspace": (b'{"a":"\\u0008"}', [("Resource.a", "structure")]),
    "a control character in a name": (b'{"a":{"b\\u0001":1}}', [("Resource.a", "structure")]),
    "an entry of a nameless Bundle": (b'{"entry":[{"x":NaN}]}', [("Bundle.entry[0].x", "structure")]),
}


@pytest.mark.parametrize(("body", "expected"), REFUSED.values(), ids=REFUSED)
def test_refuses_with_the_path(body: bytes, expected: list[tuple[str | None, str]]) -> None:
    with pytest.raises(Invalid) as error:
        wire.parse(body)
    assert issues(error.value) == expected


def test_tells_line_and_column_of_broken_json() -> None:
    with pytest.raises(Invalid, match="line 2 column 7"):
        wire.parse(b'{"a":1,\n "b": }')


def test_names_that_cannot_be_elements_are_not_repeated_in_an_error() -> None:
    with pytest.raises(Invalid) as error:
        wire.parse(b'{"resourceType":"Patient","Ada Lovelace, 1815":NaN}')
    assert issues(error.value) == [("Patient", "structure")]


def test_tells_a_bounded_number_of_flaws() -> None:
    with pytest.raises(Invalid) as error:
        wire.parse(b'{"a":[' + b",".join([b"NaN"] * 5000) + b"]}")
    assert len(error.value.issues) == 200


TAKEN: dict[str, tuple[bytes, Any]] = {
    "a byte order mark": (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    "as deep as allowed": (nested(wire.MAX_DEPTH), json.loads(nested(wire.MAX_DEPTH))),
    "tab, line feed, carriage return": (b'{"a":"\\t\\n\\r\\u000a"}', {"a": "\t\n\r\n"}),
    "a whole surrogate pair": (b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    "an escaped backslash before u0000": (b'{"a":"\\\\u0000"}', {"a": "\\u0000"}),
    "64 digits": (b'{"a":' + b"1" * 64 + b"}", {"a": Number("1" * 64)}),
    "exponent 400": (b'{"a":[1e400,1e-0000400]}', {"a": [Number("1e400"), Number("1e-0000400")]}),
    "integers stay integers up to 15 digits": (
        b'{"a":[0,7,-123456789012345,123456789012345]}',
        {"a": [0, 7, -123456789012345, 123456789012345]},
    ),
    "beyond, they keep their text": (
        b'{"a":[1234567890123456,-1234567890123456,-0]}',
        {"a": [Number("1234567890123456"), Number("-1234567890123456"), Number("-0")]},
    ),
    "decimals keep their text": (
        b'{"a":[7.50,1.0e2,1E+2,-0.0,0.000001]}',
        {"a": [Number(text) for text in ("7.50", "1.0e2", "1E+2", "-0.0", "0.000001")]},
    ),
    "true, false, null": (b'{"a":[true,false,null]}', {"a": [True, False, None]}),
}


@pytest.mark.parametrize(("body", "document"), TAKEN.values(), ids=TAKEN)
def test_takes(body: bytes, document: Any) -> None:
    parsed = wire.parse(body)
    assert parsed == document
    assert [type(value) for value in parsed.values()] == [type(value) for value in document.values()]


def test_depth_may_be_set() -> None:
    assert wire.parse(nested(3), max_depth=3)
    with pytest.raises(Invalid):
        wire.parse(nested(4), max_depth=3)


def lexical(text: str | bytes) -> Any:
    """JSON with every number as its text."""
    return json.loads(text, parse_float=lambda t: ("number", t), parse_int=lambda t: ("number", t))


@pytest.mark.parametrize("path", [*OWN, *corpus("hl7-r4/*.json")])
def test_what_was_parsed_is_written_with_every_number_as_it_came(path: Any) -> None:
    body = path.read_bytes()
    resource = wire.parse(body)
    assert lexical(wire.dump(resource)) == lexical(body)
    assert lexical(wire.dump_pretty(resource)) == lexical(body)


digits = st.integers(0, 10**20).map(str)
literals = st.builds(
    lambda sign, whole, fraction, e, exponent: sign + whole + fraction + (f"{e}{exponent}" if e else ""),
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), st.text("0123456789", min_size=1, max_size=30).map(lambda t: f".{t}")),
    st.sampled_from(["", "e", "E"]),
    st.one_of(st.integers(-400, 400).map(str), st.integers(0, 400).map(lambda n: f"+0{n}")),
)
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=10)
documents = st.recursive(
    st.one_of(literals, st.sampled_from(["true", "false", "null"]), texts.map(json.dumps)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(lambda items: f"[{','.join(items)}]"),
        st.dictionaries(texts, inner, max_size=4).map(
            lambda members: "{" + ",".join(f"{json.dumps(k)}:{v}" for k, v in members.items()) + "}"
        ),
    ),
    max_leaves=12,
)


@given(documents)
def test_any_document_within_the_limits_keeps_every_number(text: str) -> None:
    body = f'{{"a":{text}}}'.encode()
    assert lexical(wire.dump(wire.parse(body))) == lexical(body)


@given(st.one_of(st.binary(), st.text().map(str.encode), documents.map(lambda t: t[: len(t) // 2].encode())))
def test_any_bytes_give_an_object_or_a_refusal(body: bytes) -> None:
    try:
        assert isinstance(wire.parse(body), dict)
    except BridgeError as error:
        assert error.status == 400
        assert error.issues


def test_elements_are_written_in_fhir_order() -> None:
    wire.warm_up()
    resource = {
        "gender": "male",
        "_birthDate": {"id": "b"},
        "birthDate": "1990",
        "name": [{"text": "a"}],
        "meta": {},
        "id": "1",
        "resourceType": "Patient",
    }
    ordered = ["resourceType", "id", "meta", "name", "gender", "birthDate", "_birthDate"]
    assert list(json.loads(wire.dump(resource))) == ordered
    bundle = {"entry": [{"resource": resource}], "type": "searchset", "resourceType": "Bundle"}
    written = json.loads(wire.dump(bundle))
    assert list(written) == ["resourceType", "type", "entry"]
    assert list(written["entry"][0]["resource"]) == ordered


def test_resources_of_other_types_start_with_type_id_and_meta() -> None:
    written = wire.dump({"x": 1, "meta": {}, "id": "1", "resourceType": "Unheard"})
    assert written == b'{"resourceType":"Unheard","id":"1","meta":{},"x":1}'


def test_what_is_no_resource_is_written_as_given() -> None:
    assert wire.dump({"b": Number("1.50"), "a": None}) == b'{"b":1.50,"a":null}'
    assert wire.loads(wire.dump({"b": Number("1.50")})) == {"b": Number("1.50")}


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(TypeError):
        wire.dump({"a": object()})


def test_pretty_text_is_indented() -> None:
    assert wire.dump_pretty({"a": [Number("1.0")]}) == b'{\n  "a": [\n    1.0\n  ]\n}'
