"""Whatever is done to a good resource, the answer is a yes that holds or a no in words, never half a write."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DataObject

from bridge import demo, wire
from bridge.app import create_app
from bridge.config import Config
from mappings.values import Number
from tests.helpers import DEMO_PATIENT, FHIR, READING, Caller, count_calls

EXAMPLES = sorted((Path(__file__).parent / "data" / "wire").glob("*.json"))
PLANTED = [
    *(None, True, False, 0, -1, 5, 10**15, Number("9" * 22), [], {}, [[]], [{}], [None], ""),
    *(" ", "a", "2020-02-30", "0000", "9999-12-31T23:59:60+14:00", "\u202e", "\U0001f600", "e\u0301", "\x7f"),
    *(
        "x" * 5000,
        "urn:uuid:1",
        "#",
        "#a",
        "Patient/",
        "Patient/..",
        "?",
        "Patient?name=a",
        "http://",
        "%2e%2e",
    ),
    *("<div xmlns='http://www.w3.org/1999/xhtml'><script/></div>", "__proto__", "resourceType", "\ufeff"),
    *(Number("1e400"), Number("-1E-400"), Number("-0.0"), Number("9" * 60), Number("0." + "3" * 60)),
    *({"reference": "Patient/nobody"}, {"resourceType": "Patient"}, {"extension": [{"url": "u"}]}),
    *(
        {"id": "a"},
        {"value": Number("1E+2")},
        {"coding": [{"code": "a"}]},
        {"reference": f"Patient/{DEMO_PATIENT}"},
    ),
]
KEPT_APART = ("id", "meta", "identifier")
"""What a create changes by design."""
NAMES = [
    "resourceType",
    "id",
    "extension",
    "_status",
    "_gender",
    "value",
    "valueString",
    "contained",
    "meta",
    "foo",
]
BROKEN = [
    b"1E999999", b"1e-999999", b"NaN", b"-Infinity", b"9" * 5000, b'"\\ud800"', b'"\\u0000"', b'{"a":1,"a":2}',
    b"[" * 500 + b"]" * 500, b"01", b"'a'", b"\xff", b'"\x01"', b"",
]  # fmt: skip


def good(path: Path) -> Any:
    """Returns an example whose references can be resolved."""
    resource = wire.parse(path.read_bytes())
    for inner in places(resource):
        if inner[-1] == "reference" and any(mark in at(resource, inner) for mark in ("?", "urn:")):
            at(resource, inner[:-1])["reference"] = "Practitioner/f005"
    if "subject" in resource:
        resource["subject"] = {"reference": f"Patient/{DEMO_PATIENT}"}
    return resource


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yields the path of every value inside."""
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in members:
        yield (*path, key)
        yield from places(inner, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def mutated(data: DataObject, document: Any) -> Any:
    """Returns the document with something dropped, retyped, doubled, renamed, planted or nested anew."""
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        every = list(places(document))
        if not every:
            break
        *above, key = data.draw(st.sampled_from(every))
        holder = at(document, tuple(above))
        value = holder[key]
        match data.draw(
            st.sampled_from(["drop", "plant", "double", "rename", "wrap", "swap", "text", "add"])
        ):
            case "drop":
                del holder[key]
            case "plant":
                holder[key] = copy.deepcopy(data.draw(st.sampled_from(PLANTED)))
            case "double" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(value))
            case "double":
                holder[key] = [value, copy.deepcopy(value)]
            case "rename" if isinstance(holder, dict):
                holder[data.draw(st.sampled_from(NAMES))] = holder.pop(key)
            case "wrap":
                holder[key] = data.draw(st.sampled_from([[value], {"extension": value}, {"a": value}]))
            case "swap":
                holder[key] = copy.deepcopy(at(document, data.draw(st.sampled_from(every))))
            case "text":
                holder[key] = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
            case _:
                if isinstance(value, dict):
                    value[data.draw(st.sampled_from(NAMES))] = copy.deepcopy(
                        data.draw(st.sampled_from(PLANTED))
                    )
    return document


class Holding:
    """A running bridge, and how many documents it has written."""

    def __init__(self, data_dir: Path) -> None:
        app = create_app(Config(data_dir=data_dir))
        app.testing = True
        self.caller = Caller(app, demo.accounts(data_dir)[0])
        assert self.caller.load_key().status_code == 200
        self.caller.created({"resourceType": "Observation", "status": "final", "code": {"text": "warm"}})
        self.upstream = count_calls(app)

    def send(self, path: str, body: bytes, method: str = "POST", **headers: str) -> Any:
        """Returns the answer; one that refuses has written nothing."""
        self.upstream.told()
        response = self.caller.send(method, path, body, **headers)
        writes = [call for call in self.upstream.told() if not READING.fullmatch(call)]
        if response.status_code >= 300:
            assert 400 <= response.status_code < 500, response.text
            assert response.json["resourceType"] == "OperationOutcome"
            assert all(i["severity"] in ("error", "warning", "information") for i in response.json["issue"])
            assert len(response.data) < 200_000
            assert writes == []
        return response


@pytest.fixture(scope="module")
def holding(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Holding:
    return Holding(Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("mutations") / "data")))


bounded = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@bounded
@given(data=st.data())
def test_a_mutated_resource_is_taken_whole_or_refused(
    holding: Holding, example: Path, data: DataObject
) -> None:
    original = good(example)
    resource = mutated(data, original)
    body = wire.dump(resource) if isinstance(resource, dict) else b"[]"
    response = holding.send(original["resourceType"], body)
    if response.status_code == 201:
        created = wire.parse(response.data)
        read = holding.caller.get(f"{created['resourceType']}/{created['id']}")
        assert read.status_code == 200
        assert wire.parse(read.data) == created
        compared = {k: v for k, v in wire.parse(body).items() if k not in KEPT_APART}
        assert response.headers.get("Warning") or {k: created.get(k) for k in compared} == compared


@bounded
@given(data=st.data())
def test_a_mutated_transaction_is_taken_whole_or_refused(holding: Holding, data: DataObject) -> None:
    entries = []
    for example in EXAMPLES:
        resource = good(example)
        if data.draw(st.booleans()):
            resource = mutated(data, resource)
        kind = resource.get("resourceType")
        entries.append({"resource": resource, "request": {"method": "POST", "url": kind}})
    bundle: Any = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    if data.draw(st.booleans()):
        bundle = mutated(data, bundle)
    response = holding.send("", wire.dump(bundle))
    if response.status_code == 200:
        for entry in wire.parse(response.data)["entry"]:
            location = entry["response"].get("location")
            if location is not None:
                path = location.partition(FHIR + "/")[2].partition("/_history")[0]
                assert holding.caller.get(path).status_code == 200


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
@bounded
@given(data=st.data())
def test_mutated_text_is_taken_or_refused(holding: Holding, example: Path, data: DataObject) -> None:
    original = good(example)
    text = wire.dump(original)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 30, len(text))))
        planted = data.draw(st.sampled_from(BROKEN) | st.binary(max_size=4))
        text = text[:start] + planted + text[end:]
    holding.send(original["resourceType"], text)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken[:12].hex())
def test_a_value_that_is_no_json_is_refused_wherever_it_stands(holding: Holding, broken: bytes) -> None:
    for example in EXAMPLES:
        original = good(example)
        for path in list(places(original))[:40]:
            document = copy.deepcopy(original)
            at(document, path[:-1])[path[-1]] = "PLANTED"
            body = wire.dump(document).replace(b'"PLANTED"', broken)
            assert holding.send(original["resourceType"], body).status_code == 400
