"""A Bundle read entry by entry says what it says read whole, and is refused in the same words."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import wire
from bridge.errors import Invalid
from mappings.values import Number
from tests.wire.examples import corpus, observation, patient
from tests.wire.test_text import REFUSED, TAKEN, nested

BUNDLE = json.dumps(
    {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"resource": patient(id="1", name=[{"family": "é\U0001f600"}]), "request": {"method": "POST"}},
            {"fullUrl": "urn:oid:1.2", "resource": observation(valueInteger=-5)},
            {"request": {"method": "DELETE", "url": "Patient/1"}},
        ],
        "link": [{"url": "a"}],
    }
)


def outcome(read: Any, body: bytes, **options: Any) -> Any:
    """What reading a body came to: the document, or everything that is said against it."""
    try:
        document = read(body, **options)
    except Invalid as error:
        return [(issue.path, issue.code, issue.text) for issue in error.issues]
    entries = document.get("entry")
    for entry in entries if type(entries) is list else ():
        if type(entry) is dict and "resource" in entry:
            entry["resource"] = wire.unpacked(entry["resource"])
    return document, json.dumps(document, default=lambda number: number.text)


parse_long = partial(wire.parse_bundle, pack_from=0)


def packed(body: bytes) -> int:
    """How many resources of a Bundle are text."""
    return sum(isinstance(entry.get("resource"), wire.Packed) for entry in parse_long(body)["entry"])


def same(body: bytes, **options: Any) -> None:
    assert outcome(parse_long, body, **options) == outcome(wire.parse, body, **options)


@pytest.mark.parametrize("escaped", [True, False])
def test_the_resources_of_a_bundle_are_text(escaped: bool) -> None:
    body = json.dumps(json.loads(BUNDLE), ensure_ascii=escaped).encode()
    assert (b"\\ud83d" in body) == escaped
    same(body)
    assert packed(body) == 2
    assert wire.parse_bundle(body) == wire.parse(body)


def test_braces_in_a_text_are_no_nesting() -> None:
    same(json.dumps({"resourceType": "Bundle", "entry": ["{" * 100, "[" * 100]}).encode())


def test_a_packed_resource_keeps_its_numbers() -> None:
    body = b'{"entry":[{"resource":{"resourceType":"Observation","a":[7.50,1E+2,-0,1234567890123456,7]}}]}'
    (entry,) = parse_long(body)["entry"]
    read = entry["resource"].unpack()["a"]
    assert read == [Number("7.50"), Number("1E+2"), Number("-0"), Number("1234567890123456"), 7]
    assert type(read[-1]) is int


ALL = {name: body for name, (body, _) in (REFUSED | TAKEN).items()}
AROUND = {
    "the body": b"%b",
    "a resource": b'{"entry":[{"resource":%b}]}',
    "in a resource": b'{"entry":[{"resource":{"resourceType":"Patient","x":%b}}]}',
    "in the second entry": b'{"entry":[{"resource":{"resourceType":"Patient"}},{"x":%b}]}',
    "an entry": b'{"entry":[%b]}',
    "the entries": b'{"entry":%b}',
    "beside the entries": b'{"entry":[{"resource":{"resourceType":"Patient"}}],"x":%b}',
    "before the entries": b'{"x":%b,"entry":[{"resource":{"resourceType":"Patient"}}]}',
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("body", ALL.values(), ids=ALL)
def test_is_read_as_it_is_read_whole(around: bytes, body: bytes) -> None:
    same(around % body)


ODD = {
    "entries twice": b'{"entry":[{"resource":{"resourceType":"Patient"}}],"entry":[]}',
    "an escaped name": b'{"\\u0065ntry":[{"resource":{"resourceType":"Patient"}}]}',
    "no entries": b'{"entry":[ ]}',
    "a comma too many behind an entry": b'{"entry":[{"a":1},]}',
    "a comma too many behind a member": b'{"entry":[{"a":1}],}',
    "a comma too many before": b'{"entry":[,{"a":1}]}',
    "no comma": b'{"entry":[{"a":1}{"a":1}]}',
    "a list that does not end": b'{"entry":[{"a":1}',
    "a name that is none": b'{1:[{"a":1}]}',
    "no colon": b'{"entry"[{"a":1}]}',
    "a form feed": b'{"entry":\x0c[{"a":1}]}',
    "blanks": b' {\t"entry" :\r\n[ {"resource" : {"resourceType":"Patient"} } , {"a":1} ] } \n',
    "more behind": BUNDLE.encode() + b"{}",
    "two brackets behind": BUNDLE.encode() + b"]}",
    "a control character in an escaped name": b'{"entry":[{"resource":{"resourceType":"P","a\\u0001":1}}]}',
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_odd_ones_too(body: bytes) -> None:
    same(body)


@pytest.mark.parametrize("depth", range(wire.MAX_DEPTH - 6, wire.MAX_DEPTH + 2))
def test_depth_counts_from_the_bundle(depth: int) -> None:
    same(b'{"entry":[{"resource":{"resourceType":"P","x":%b}}]}' % nested(depth))
    same(b'{"entry":[{"x":%b}]}' % nested(depth))


def test_brackets_in_text_are_no_depth() -> None:
    body = b'{"entry":[{"resource":{"resourceType":"P","x":"%b"}}]}' % (b"[{" * 1000)
    same(body)
    assert packed(body) == 1


pieces = st.one_of(
    st.sampled_from(
        [*'{}[]:,"\\ \n-0.5e', "\\u0000", "\\ud800", "null", "NaN", '"entry":', '"a":1,', "\x00"]
    ),
    st.text(max_size=3),
)


@given(st.lists(st.tuples(st.integers(0, len(BUNDLE)), st.integers(0, 3), pieces), min_size=1, max_size=3))
@example([(BUNDLE.index("urn:oid"), 0, "\\ud800")])
@example([(BUNDLE.index('"id"'), 0, '"id": "2", ')])
def test_what_is_spoiled_anywhere_is_refused_in_the_same_words(spoiled: list[tuple[int, int, str]]) -> None:
    text = BUNDLE
    for at, gone, piece in spoiled:
        text = text[:at] + piece + text[at + gone :]
    same(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("path", corpus("**/*undle*.json"))
def test_bundles_of_the_corpus_too(path: Any) -> None:
    same(path.read_bytes())
