"""`fhir-bridge import`: what goes together, that it goes once, and what is said of what does not."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bridge import demo, wire
from bridge.cli import main
from bridge.errors import Invalid, Issue, outcome
from bridge.importing.answers import place
from bridge.importing.contents import Skipped, Unit, contents, references, with_references
from bridge.importing.ledger import Ledger
from bridge.importing.packing import pack
from bridge.importing.progress import Progress
from bridge.importing.reading import Source, documents, sources
from bridge.importing.remote import CannotImport, Login
from bridge.importing.remote import Remote as Target
from bridge.importing.report import Report
from bridge.importing.spool import DONE, Spool
from mappings.values import Number
from tests.canaries import Canaries
from tests.helpers import FHIR, Account, Remote, Server, eventually, free_port, serving, stored

SUPPORTED = ("Patient", "Observation", "Condition", "Practitioner", "Organization")
Json = dict[str, Any]


def patient(logical_id: str | None = None, family: str = "Import", **more: Any) -> Json:
    named = {} if logical_id is None else {"id": logical_id}
    return {"resourceType": "Patient", **named, "name": [{"family": family}], **more}


def observation(logical_id: str | None = None, subject: str | None = None, **more: Any) -> Json:
    named = {} if logical_id is None else {"id": logical_id}
    about = {} if subject is None else {"subject": {"reference": subject}}
    code = {"coding": [{"system": "http://loinc.org", "code": "718-7"}]}
    return {"resourceType": "Observation", **named, "status": "final", "code": code, **about, **more}


def bundle(*resources: Json, kind: str = "transaction", **urls: str) -> Json:
    """Returns a Bundle of creates; a fullUrl is given by the place of its resource, `_0`."""
    entries: list[Json] = []
    for at, resource in enumerate(resources):
        full_url = {"fullUrl": urls[f"_{at}"]} if f"_{at}" in urls else {}
        request = {"request": {"method": "POST", "url": resource["resourceType"]}}
        entries.append(
            {**full_url, "resource": resource, **(request if kind in ("transaction", "batch") else {})}
        )
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def ndjson(file: Path, resources: Iterable[Json]) -> Path:
    file.write_bytes(b"".join(wire.dump(one) + b"\n" for one in resources))
    return file


URN = "urn:uuid:05efabf0-4be2-4561-91ce-51548425acb9"


def texts(file: Path) -> list[tuple[int | None, bytes]]:
    return [(d.line, d.text) for d in documents(Source(str(file)))]


READ = {
    "a document": ("a.json", b'{\n "a": 1\n}\n', [(None, b'{\n "a": 1\n}\n')]),
    "lines": ("a.ndjson", b'{"a": 1}\n\n{"b": 2}\n', [(1, b'{"a": 1}'), (3, b'{"b": 2}')]),
    "lines called a document": ("a.json", b'{"a": 1}\r\n{"b": 2}', [(1, b'{"a": 1}'), (2, b'{"b": 2}')]),
    "a document called lines": ("a.ndjson", b'{\n "a": 1\n}', [(None, b'{\n "a": 1\n}')]),
    "lines of which the first is bad": ("a.ndjson", b'{"a" 1}\n{}\n', [(1, b'{"a" 1}'), (2, b"{}")]),
    "a byte order mark": ("a.json", b'\xef\xbb\xbf{"a": 1}', [(1, b'{"a": 1}')]),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("name", "content", "read"), READ.values(), ids=READ)
def test_what_a_file_holds_decides(
    tmp_path: Path, name: str, content: bytes, read: list[tuple[int | None, bytes]], packed: bool
) -> None:
    file = tmp_path / name
    file.write_bytes(gzip.compress(content) if packed else content)
    assert [(line, text.strip()) for line, text in texts(file)] == [(line, t.strip()) for line, t in read]


@pytest.mark.parametrize(
    "content",
    [b"", b"\n \n", gzip.compress(b'{"a": 1}' * 1000)[:-12], b"\x1f\x8bno gzip"],
    ids=["empty", "blank", "cut", "no gzip"],
)
def test_a_file_that_cannot_be_read_is_said_in_words(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(Invalid):
        texts(file)


def test_a_line_that_is_too_long_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.importing.reading.MOST_BYTES", 32)
    file = tmp_path / "a.ndjson"
    file.write_bytes(b'{"a": 1}\n{"b": "%b"}\n{"c": 3}\n' % (b"x" * 100))
    assert [(d.line, bool(d.problem)) for d in documents(Source(str(file)))] == [
        (1, False),
        (2, True),
        (3, False),
    ]


def test_directories_and_globs_name_files_each_once(tmp_path: Path) -> None:
    for name in ("b.json", "a.ndjson", "in/c.JSON.gz", "in/d.ndjson.gz", "in/e.txt", ".hidden/f.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = sources([str(tmp_path), str(tmp_path / "*.json"), str(tmp_path / "in" / "e.txt")])
    named = [str(Path(source.name).relative_to(tmp_path)) for source in found]
    assert named == ["a.ndjson", "b.json", "in/c.JSON.gz", "in/d.ndjson.gz", "in/e.txt"]


@pytest.mark.parametrize("path", ["nothing.json", "*.nothing", "empty"])
def test_a_path_that_names_nothing_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=re.escape(path)):
        sources([str(tmp_path / path)])


def test_a_file_is_told_of_whatever_its_name(tmp_path: Path) -> None:
    report = Report(tmp_path / "report")
    report.tell(place(os.fsdecode(b"\xff.json")), "not sent", outcome([Issue("invalid", "This is none.")]))
    report.close(1)
    assert reported(tmp_path / "report")["outcomes"][0]["file"] == "\\xff.json"
    assert report.failures == ["\\xff.json: not sent: This is none."]


@pytest.mark.parametrize("search", ["match", ["match"], 1, True, {"mode": ["outcome"]}])
def test_what_is_odd_beside_a_resource_is_let_be(search: Any) -> None:
    found = {
        "resourceType": "Bundle",
        "type": "searchset",
        "entry": [{"resource": patient(), "search": search}],
    }
    (unit,) = held(found)
    assert isinstance(unit, Unit)


def held(document: Json) -> list[Unit | Skipped]:
    return list(contents(wire.dump(document), SUPPORTED))


def test_a_transaction_stays_to_the_byte() -> None:
    text = b'{"resourceType" : "Bundle","type":"batch","entry":[ {"resource":{"resourceType":"Patient",\t"x":1.50}}]}'
    (unit,) = contents(text, SUPPORTED)
    assert isinstance(unit, Unit)
    assert unit.text == text


def test_what_is_left_out_of_a_bundle_leaves_the_rest_as_it_was() -> None:
    about = observation(subject=URN, valueQuantity={"value": Number("7.50")})
    skipped, unit = held(
        bundle({"resourceType": "Encounter", "id": "e"}, patient(), about, _0="urn:oid:1.2", _1=URN)
    )
    assert isinstance(skipped, Skipped)
    assert (skipped.part.resource_type, skipped.part.entry, skipped.stands) == ("Encounter", 0, "Encounter/e")
    assert isinstance(unit, Unit)
    assert [part.entry for part in unit.parts] == [1, 2]
    assert b"7.50" in unit.text
    assert b"Encounter" not in unit.text
    assert unit.references == set()


@pytest.mark.parametrize("kind", ["collection", "searchset", "document", "message"])
def test_a_bundle_that_asks_for_nothing_is_taken_apart(kind: str) -> None:
    about = observation(subject=URN, valueQuantity={"value": Number("7.50")})
    one, other = held(bundle(patient("p"), about, kind=kind, _0=URN))
    assert isinstance(one, Unit)
    assert one.addresses == [("Patient/p", 0), (URN, 0)]
    assert isinstance(other, Unit)
    assert b"7.50" in other.text
    assert (other.references, other.parts[0].entry) == ({URN}, 1)


NO_IMPORT: dict[str, bytes] = {
    "no JSON": b'{"resourceType": ',
    "no object": b"[]",
    "no resource": b'{"name": "manifest"}',
    "no type": b'{"resourceType": 3}',
    "a history": b'{"resourceType": "Bundle", "type": "history", "entry": []}',
    "an answer": b'{"resourceType": "Bundle", "type": "transaction-response"}',
    "entries that are none": b'{"resourceType": "Bundle", "type": "transaction", "entry": [3]}',
    "a name twice": b'{"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {}, "resource": {}}]}',
    "no resource in a collection": b'{"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {}}]}',
}


@pytest.mark.parametrize("text", NO_IMPORT.values(), ids=NO_IMPORT)
def test_what_cannot_be_imported_is_refused(text: bytes) -> None:
    with pytest.raises(Invalid):
        list(contents(text, SUPPORTED))


def test_a_bundle_of_nothing_is_nothing() -> None:
    assert held(bundle()) == []


def test_references_are_found_and_rewritten_where_they_stand() -> None:
    text = (
        rb'{"a":{"reference" : "Patient\/1/_history/2"},"b":[{"reference":"Patient/2"}],'
        rb'"c":"\"reference\":\"Patient/1\"","reference":"#p","n":1.50}'
    )
    assert references(text) == {"Patient/1", "Patient/2"}
    rewritten = with_references(text, {"Patient/1": 'Patient/"new"'}.get)
    assert json.loads(rewritten)["a"]["reference"] == 'Patient/"new"'
    assert rewritten.endswith(text[text.index(b'"b"') :][text[text.index(b'"b"') :].index(b',"c"') :])
    assert rewritten[rewritten.index(b',"b"') :] == text[text.index(b',"b"') :]


def packed(resources: Iterable[Json], most: int) -> list[list[list[str]]]:
    """Returns the ids of what goes in each transaction, those that may go side by side together."""
    with Spool() as spool:
        for at, resource in enumerate(resources):
            for unit in contents(wire.dump(resource), SUPPORTED):
                assert isinstance(unit, Unit)
                spool.add(unit, 0, at)
        pack(spool, most)
        found = [[spool.units(n) for n in batches] for batches in spool.batches()]
    waves = [[[_id(one.text) for one in units] for units in batches if units] for batches in found]
    return [wave for wave in waves if wave]


def _id(text: bytes) -> str:
    document = json.loads(text)
    return str(document["id"] if "id" in document else document["entry"][0]["resource"]["id"])


def test_little_goes_in_one_transaction() -> None:
    resources = [
        observation("o", "Patient/p", performer=[{"reference": "Practitioner/d"}]),
        patient("p"),
        {"resourceType": "Practitioner", "id": "d"},
    ]
    assert packed(resources, 3) == [[["p", "d", "o"]]]


def test_a_patient_goes_with_what_refers_to_it_wherever_it_stands() -> None:
    resources = [
        *(observation(f"o{i}{j}", f"Patient/p{i}") for j in range(2) for i in range(4)),
        *(patient(f"p{i}") for i in range(4)),
    ]
    first, second = packed(resources, 6)[0]
    assert first == ["p0", "o00", "o01", "p1", "o10", "o11"]
    assert second == ["p2", "o20", "o21", "p3", "o30", "o31"]


def test_a_large_patient_is_spread_its_first_transaction_before_the_others() -> None:
    resources = [patient("p"), *(observation(str(i), "Patient/p") for i in range(9)), patient("q")]
    assert packed(resources, 4) == [[["p", "0", "1", "2"], ["q"]], [["3", "4", "5", "6"], ["7", "8"]]]


def test_what_many_refer_to_goes_before() -> None:
    resources = [
        patient("p", managingOrganization={"reference": "Organization/o"}),
        patient("q", managingOrganization={"reference": "Organization/o"}),
        {"resourceType": "Organization", "id": "o", "partOf": {"reference": "Organization/w"}},
        {"resourceType": "Organization", "id": "w"},
    ]
    assert packed(resources, 2) == [[["w", "o"]], [["p", "q"]]]


def test_patients_that_are_linked_go_together() -> None:
    def linked(one: str, other: str) -> Json:
        return patient(one, link=[{"other": {"reference": f"Patient/{other}"}, "type": "seealso"}])

    assert packed([linked("a", "z"), patient("b"), patient("c"), linked("z", "a")], 2) == [
        [["a", "z"], ["b", "c"]]
    ]


def test_bundles_wait_for_what_they_refer_to() -> None:
    late = bundle(observation("late", "Patient/p"))
    asking = bundle(observation("asking", "Patient?identifier=a|b"))
    assert packed([asking, late, bundle(patient("p")), patient("loose")], 9) == [
        [["p"], ["loose"]],
        [["late"]],
        [["asking"]],
    ]


def test_a_long_chain_of_references_is_packed_in_its_order() -> None:
    chain = [observation(str(i), derivedFrom=[{"reference": f"Observation/{i + 1}"}]) for i in range(300)]
    waves = packed(chain, 100)
    assert [len(batches) for batches in waves] == [1, 1, 1]
    assert [i for (batch,) in waves for i in batch] == [str(i) for i in reversed(range(300))]


@st.composite
def inputs(draw: st.DrawFn) -> list[Json]:
    """Resources that refer to each other without circles, in any order."""
    kinds = draw(st.lists(st.sampled_from(["Patient", "Observation", "Organization"]), max_size=30))
    resources = []
    for at, kind in enumerate(kinds):
        targets = draw(st.sets(st.integers(0, at - 1), max_size=3)) if at else set()
        references = [{"reference": f"{kinds[t]}/{t}"} for t in sorted(targets)]
        resources.append({"resourceType": kind, "id": str(at), "any": references})
    return draw(st.permutations(resources))


@given(inputs(), st.integers(1, 12))
def test_each_goes_once_beside_or_after_what_it_refers_to(resources: list[Json], most: int) -> None:
    waves = packed(resources, most)
    place = {
        one: (wave, at)
        for wave, batches in enumerate(waves)
        for at, batch in enumerate(batches)
        for one in batch
    }
    assert sorted(one for batches in waves for batch in batches for one in batch) == sorted(
        r["id"] for r in resources
    )
    assert all(len(batch) <= most for batches in waves for batch in batches)
    for resource in resources:
        for reference in resource["any"]:
            target = place[reference["reference"].rpartition("/")[2]]
            own = place[resource["id"]]
            assert target == own or target[0] < own[0]


SPOOLING = """
import os, re, sys
from pathlib import Path
from bridge.importing.contents import contents
from bridge.importing.packing import pack
from bridge.importing.spool import Spool
with Spool() as spool:
    for at in range(int(sys.argv[1])):
        about = b'"subject": {"reference": "Patient/%d"}' % (at // 100 * 100)
        kind = b"Observation" if at % 100 else b"Patient"
        long = os.urandom(2000).hex().encode()
        text = b'{"resourceType": "%b", "id": "%d", %b, "long": "%b"}' % (kind, at, about, long)
        for unit in contents(text, ("Patient", "Observation")):
            spool.add(unit, 0, at)
    pack(spool, 200)
    sent = 0
    for batches in spool.batches():
        for batch in batches:
            for unit in spool.units(batch):
                spool.settle(unit.n, "done", ["Patient/1"])
                sent += 1
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(sent, int(peak[1]) // 1024)
"""


def test_memory_does_not_grow_with_the_input() -> None:
    def most(resources: int) -> int:
        done = subprocess.run(
            [sys.executable, "-c", SPOOLING, str(resources)],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        sent, mebibytes = map(int, done.stdout.split())
        assert sent == resources
        return mebibytes

    assert most(5_000) <= most(500) + 8, "20 MB of input"


def test_the_same_input_is_known_again_by_content_and_number_of_its_like() -> None:
    def names(resources: list[Json], run: str = "") -> list[bytes]:
        with Spool(run) as spool:
            for resource in resources:
                (unit,) = contents(wire.dump(resource), SUPPORTED)
                assert isinstance(unit, Unit)
                spool.add(unit, 0, None)
            return [name for (name,) in spool.db.execute("SELECT name FROM unit ORDER BY n")]

    twins = names([patient("a"), patient("a"), patient("b")])
    assert len(set(twins)) == 3
    assert names([patient("b"), patient("a"), patient("a")]) == [twins[2], twins[0], twins[1]]
    assert set(names([patient("a")], "again")) & set(twins) == set()


def test_what_the_spool_writes_is_sealed_and_has_no_name() -> None:
    written = bytearray()
    with Spool() as spool:
        for at in range(3000):
            long = [{"system": "urn:a", "value": os.urandom(2000).hex()}]
            (unit,) = contents(wire.dump(patient(f"secret-{at}", "Findme", identifier=long)), SUPPORTED)
            assert isinstance(unit, Unit)
            spool.add(unit, 0, None)
        for file in list(Path("/proc/self/fd").iterdir()):
            with suppress(FileNotFoundError):  # closed meanwhile
                if re.search(r"/etilqs_\w+ \(deleted\)$", str(file.readlink())):
                    written += file.read_bytes()
    assert len(written) > 100_000
    assert b"Findme" not in written
    assert b"secret-" not in written


def test_a_state_file_ends_where_a_run_was_ended(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with Ledger(file, "me") as ledger, Spool() as spool:
        ledger.tell(spool)
        ledger.send("k1", [b"\1" * 16])
        ledger.done("k1", ["Patient/1"], [])
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"send": "k2", "o')
    with Ledger(file, "me") as ledger, Spool() as spool:
        ledger.tell(spool)
        assert spool.db.execute("SELECT name, locations FROM done").fetchall() == [
            (b"\1" * 16, b'["Patient/1"]')
        ]
        ledger.send("k3", [b"\2" * 16])
    assert file.read_bytes().startswith(whole + b'{"send":"k3"')
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "content", [b"{}", b'{"resourceType": "Patient"}\n', b'{"import":1}\n', b"x\n", b"\0" * 9]
)
def test_a_file_that_is_no_state_file_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state"
    file.write_bytes(content)
    with Ledger(file, "me") as ledger, Spool() as spool, pytest.raises(CannotImport):
        ledger.tell(spool)
    assert file.read_bytes() == content


def test_a_state_file_is_of_one_server_and_login_and_used_by_one_import(tmp_path: Path) -> None:
    file = tmp_path / "state"
    with Ledger(file, "me") as ledger, Spool() as spool:
        ledger.tell(spool)
        with pytest.raises(CannotImport, match="Another import"):
            Ledger(file, "me")
    with Ledger(file, "you") as ledger, Spool() as spool, pytest.raises(CannotImport, match="another server"):
        ledger.tell(spool)


@pytest.fixture(scope="module")
def server(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two worker processes, for all tests that do not disturb them."""
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("import") / "data"))
    with serving(data_dir) as running:
        yield running


@pytest.fixture
def esmith(server: Server) -> Remote:
    """Looks at what was imported."""
    remote = Remote(server, account(server))
    remote.load_key()
    return remote


def account(server: Server) -> Account:
    return demo.accounts(server.log.parent)[0]


def arguments(server: Server, *more: str | Path, url: str = "") -> list[str]:
    key = server.log.parent / demo.FILE
    return ["import", "--url", url or server.url, "--login", "esmith", "--key", str(key), *map(str, more)]


def run(server: Server, *more: str | Path, status: int = 0, url: str = "") -> Result:
    """Returns what an import said, which must end with this status."""
    result = CliRunner().invoke(main, arguments(server, *more, url=url))
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def reported(file: Path) -> Json:
    return dict(json.loads(file.read_text()))


def test_files_of_each_kind_are_imported(server: Server, esmith: Remote, tmp_path: Path) -> None:
    whole = bundle(patient(family="Kindone"), observation(subject=URN), _0=URN)
    (tmp_path / "bundle.json").write_bytes(wire.dump(whole))
    (tmp_path / "one.json").write_bytes(wire.dump_pretty(patient(family="Kindtwo")))
    (tmp_path / "packed.json.gz").write_bytes(gzip.compress(wire.dump(patient(family="Kindthree"))))
    lines = [patient("kind-4", "Kindfour"), observation("kind-o", "Patient/kind-4")]
    (tmp_path / "lines.ndjson.gz").write_bytes(gzip.compress(b"\n".join(map(wire.dump, lines))))
    (tmp_path / "found.json").write_bytes(wire.dump(bundle(patient(family="Kindfive"), kind="collection")))
    said = run(server, tmp_path)
    assert re.search(r"^Patient +5$", said.stdout, re.MULTILINE)
    assert re.search(r"^Total +7$", said.stdout, re.MULTILINE)
    for name in ("Kindone", "Kindtwo", "Kindthree", "Kindfour", "Kindfive"):
        assert len(esmith.found(f"Patient?family={name}")) == 1, name
    assert len(esmith.found("Observation?subject:Patient.family=Kindfour")) == 1


def test_references_lead_to_what_was_sent_before(server: Server, esmith: Remote, tmp_path: Path) -> None:
    about = {"performer": [{"reference": "Practitioner/far-d"}], "valueQuantity": {"value": Number("7.50")}}
    resources = [
        *(observation(f"far-{i}", "Patient/far", **about) for i in range(7)),
        observation(
            "far-panel", "Patient/far", hasMember=[{"reference": f"Observation/far-{i}"} for i in range(7)]
        ),
        patient("far", "Far"),
        patient("near", "Near", generalPractitioner=[{"reference": "Practitioner/far-d"}]),
        {"resourceType": "Practitioner", "id": "far-d"},
    ]
    run(server, "--batch", "3", ndjson(tmp_path / "a.ndjson", resources))
    (far,) = esmith.found("Patient?family=Far")
    observations = esmith.found(f"Observation?subject=Patient/{far['id']}")
    assert len(observations) == 8
    (panel,) = [one for one in observations if "hasMember" in one]
    members = {one["reference"] for one in panel["hasMember"]}
    assert members == {f"Observation/{one['id']}" for one in observations if one is not panel}
    (near,) = esmith.found("Patient?family=Near")
    (doctor,) = near["generalPractitioner"]
    assert {one["performer"][0]["reference"] for one in observations if one is not panel} == {
        doctor["reference"]
    }
    assert esmith.read(doctor["reference"])["resourceType"] == "Practitioner"
    assert {one["valueQuantity"]["value"] for one in observations if one is not panel} == {Number("7.50")}


def test_a_circle_is_imported_where_it_fits_and_refused_in_words_where_not(
    server: Server, tmp_path: Path
) -> None:
    around = [
        observation(f"c{i}", derivedFrom=[{"reference": f"Observation/c{(i + 1) % 4}"}]) for i in range(4)
    ]
    file = ndjson(tmp_path / "circle.ndjson", around)
    assert "raise --batch" in run(server, "--batch", "3", file, status=1).stderr
    run(server, "--batch", "4", file)


def test_what_is_wrong_spoils_no_other(server: Server, esmith: Remote, tmp_path: Path) -> None:
    lines = [
        *(
            patient(f"good-{i}", "Spoilt", identifier=[{"system": "urn:spoil", "value": str(i)}])
            for i in range(5)
        ),
        patient("bad", "Spoilt", gender="neither"),
        observation("of-bad", "Patient/bad"),
        {**observation("also-bad"), "status": "unheard"},
    ]
    file = ndjson(tmp_path / "a.ndjson", lines)
    file.write_bytes(file.read_bytes() + b'{"resourceType": \n')
    (tmp_path / "b.json").write_bytes(b"no JSON")
    (tmp_path / "c.json").write_bytes(wire.dump(bundle(patient(gender="neither"), patient(family="Spoilt"))))
    report = tmp_path / "out" / "report.json"
    report.parent.mkdir()
    said = run(server, "--report", report, file, tmp_path / "b.json", tmp_path / "c.json", status=1)
    assert len(esmith.found("Patient?family=Spoilt")) == 5
    outcomes = [one for one in reported(report)["outcomes"] if not one["status"].startswith("2")]
    places = {(Path(o["file"]).name, o.get("line"), o.get("entry")): o for o in outcomes}
    assert set(places) == {
        ("a.ndjson", 6, None),
        ("a.ndjson", 7, None),
        ("a.ndjson", 8, None),
        ("a.ndjson", 9, None),
        ("b.json", None, None),
        ("c.json", 1, 0),
    }
    issue = places["a.ndjson", 6, None]["outcome"]["issue"][0]
    assert issue["expression"] == ["Patient.gender"]
    told = places["a.ndjson", 7, None]["outcome"]["issue"][0]["diagnostics"]
    assert "was not imported" in told
    assert places["c.json", 1, 0]["outcome"]["issue"][0]["expression"] == ["Bundle.entry[0].resource.gender"]
    assert reported(report)["summary"]["resources"]["Patient"] == {"imported": 5, "failed": 3}
    assert "a.ndjson, line 6: 4" in said.stderr
    assert "neither" not in said.output + report.read_text()


def test_entries_of_a_batch_that_fail_are_told(server: Server, esmith: Remote, tmp_path: Path) -> None:
    file, state = tmp_path / "batch.json", tmp_path / "state"
    file.write_bytes(wire.dump(bundle(patient(gender="neither"), patient(family="Batched"), kind="batch")))
    report = tmp_path / "report.json"
    for word in ("imported", "imported before"):
        run(server, "--report", report, "--state", state, file, status=1)
        assert reported(report)["summary"]["resources"] == {"Patient": {word: 1, "failed": 1}}
        assert [o["entry"] for o in reported(report)["outcomes"]] == [0]
    assert len(esmith.found("Patient?family=Batched")) == 1


def test_unsupported_types_are_refused_before_anything_is_sent(server: Server, tmp_path: Path) -> None:
    ndjson(tmp_path / "a.ndjson", [patient(family="Unsent")] * 3)
    (tmp_path / "b.json").write_bytes(
        wire.dump(bundle({"resourceType": "Encounter"}, {"resourceType": "Claim"}))
    )
    before = stored(server.log.parent)
    said = run(server, tmp_path, status=1).stderr
    assert "1 Claim, 1 Encounter" in said
    assert "--skip-unsupported" in said
    assert stored(server.log.parent) == before


def test_references_to_what_was_skipped_stay_as_type_and_id(
    server: Server, esmith: Remote, tmp_path: Path
) -> None:
    visit, about = {"resourceType": "Encounter", "status": "finished"}, {"encounter": {"reference": URN}}
    whole = bundle(
        visit, patient("skip-p", "Skipping"), observation(subject="Patient/skip-p", **about), _0=URN
    )
    (tmp_path / "b.json").write_bytes(wire.dump(whole))
    ndjson(tmp_path / "c.ndjson", [observation(subject="Patient/skip-p", **about)])
    said = run(server, "--skip-unsupported", tmp_path)
    assert re.search(r"^Encounter +0 +1$", said.stdout, re.MULTILINE)
    found = esmith.found("Observation?subject:Patient.family=Skipping")
    assert [one["encounter"]["reference"] for one in found] == [
        f"Encounter/{URN.removeprefix('urn:uuid:')}"
    ] * 2


def test_nothing_at_all_is_imported_well(server: Server, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(wire.dump(bundle()))
    assert "0 in " in run(server, tmp_path).stdout


def test_standard_input_is_read(server: Server, esmith: Remote) -> None:
    lines = b"\n".join(wire.dump(patient(family="Piped")) for _ in range(3))
    command = [sys.executable, "-m", "bridge.cli", *arguments(server, "-")]
    done = subprocess.run(command, input=gzip.compress(lines), capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(esmith.found("Patient?family=Piped")) == 3


def test_what_is_sent_again_is_done_once(server: Server, esmith: Remote, tmp_path: Path) -> None:
    whole = wire.dump(bundle(patient("twice", "Twice"), observation(subject="Patient/twice")))
    (tmp_path / "a.json").write_bytes(whole)
    (tmp_path / "b.json").write_bytes(whole)
    ndjson(tmp_path / "c.ndjson", [patient(family="Twice")] * 3)
    for _ in range(2):
        run(server, "--batch", "2", tmp_path)
        assert len(esmith.found("Patient?family=Twice")) == 5
    run(server, "--batch", "2", "--run", "again", tmp_path)
    assert len(esmith.found("Patient?family=Twice")) == 10


def test_what_a_state_file_knows_is_not_sent_again(server: Server, esmith: Remote, tmp_path: Path) -> None:
    state, lines = tmp_path / "state", [patient(f"known-{i}", "Known") for i in range(5)]
    file = ndjson(tmp_path / "a.ndjson", lines)
    run(server, "--state", state, "--batch", "2", file)
    ndjson(file, [*lines[1:], patient("known-5", "Known"), observation("known-o", "Patient/known-3")])
    said = run(server, "--state", state, "--batch", "3", file).stdout
    assert re.search(r"^Patient +1 +4$", said, re.MULTILINE)
    assert len(esmith.found("Patient?family=Known")) == 6
    (one,) = esmith.found("Observation?subject:Patient.family=Known")
    assert one["subject"]["reference"] == f"Patient/{esmith.read('Patient/known-3')['id']}"


def test_what_failed_is_sent_again_when_it_was_put_right(
    server: Server, esmith: Remote, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    wrong = [
        patient("right-1", "Right"),
        patient("right-2", "Right", gender="neither"),
        observation("x", "Patient/right-2"),
    ]
    file = ndjson(tmp_path / "a.ndjson", wrong)
    run(server, "--state", state, file, status=1)
    ndjson(file, [wrong[0], patient("right-2", "Right", gender="other"), wrong[2]])
    said = run(server, "--state", state, file).stdout
    assert re.search(r"^Total +2 +1$", said, re.MULTILINE)
    assert len(esmith.found("Patient?family=Right")) == 2


class Between:
    """A real HTTP server between the import and the bridge, where answers get lost."""

    def __init__(self, server: Server, trouble: Callable[[int], str]) -> None:
        self.posts = 0
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                what = ""
                if self.command == "POST" and self.path == FHIR:
                    with lock:
                        outer.posts += 1
                        what = trouble(outer.posts)
                if what.isdecimal():
                    self.answer(int(what), b"", {"Retry-After": "0"})
                    return
                if what == "lost on its way":
                    self.close_connection = True
                    return
                headers = {n: v for n, v in self.headers.items() if n not in ("Host", "Accept-Encoding")}
                said = requests.request(self.command, server.url + self.path, data=body, headers=headers)
                if what == "answer lost":
                    self.close_connection = True
                    return
                self.answer(said.status_code, said.content, {"Content-Type": "application/fhir+json"})

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = forward

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@contextmanager
def between(server: Server, trouble: Callable[[int], str]) -> Iterator[Between]:
    it = Between(server, trouble)
    thread = threading.Thread(target=it.http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield it
    finally:
        it.http.shutdown()
        thread.join()
        it.http.server_close()


TROUBLES = ["answer lost", "lost on its way", "503", "429", "409", "502", "504"]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_on_the_way_is_overcome_and_nothing_doubled(
    server: Server, esmith: Remote, tmp_path: Path, trouble: str
) -> None:
    name = f"Way{TROUBLES.index(trouble)}"
    file = ndjson(tmp_path / "a.ndjson", [patient(family=name) for _ in range(6)])
    with between(server, lambda nth: trouble if nth % 2 else "") as proxy:
        run(server, "--batch", "2", "--jobs", "1", file, url=proxy.url)
    assert proxy.posts == 6
    assert len(esmith.found(f"Patient?family={name}")) == 6


def test_an_answer_that_never_comes_leaves_the_rest_for_the_next_run(
    server: Server, esmith: Remote, tmp_path: Path
) -> None:
    state, lines = tmp_path / "state", [patient(f"never-{i}", "Never") for i in range(12)]
    file = ndjson(tmp_path / "a.ndjson", lines)
    options = ("--jobs", "1", "--tries", "1", "--state", state, file)
    with between(server, lambda nth: "answer lost" if nth == 2 else "") as proxy:
        said = run(server, "--batch", "2", *options, url=proxy.url, status=1)
        assert "cannot be reached any more" in said.stderr
        assert re.search(r"imported +failed +not sent\nPatient +[24] +2 +[68]$", said.stdout, re.MULTILINE)
        before = len(esmith.found("Patient?family=Never"))
        assert 4 <= before < 12
        # The input is another one by then, and packed otherwise; what had no answer is sent as it was.
        ndjson(file, [patient("never-new", "Never"), *lines])
        run(server, "--batch", "5", *options, url=proxy.url)
    assert len(esmith.found("Patient?family=Never")) == 13


def test_what_had_no_answer_is_not_sent_without_its_neighbours(
    server: Server, esmith: Remote, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    file = ndjson(tmp_path / "a.ndjson", [patient(f"torn-{i}", "Torn") for i in range(2)])
    with between(server, lambda nth: "answer lost" if nth == 1 else "") as proxy:
        run(server, "--tries", "1", "--state", state, file, url=proxy.url, status=1)
        ndjson(file, [patient("torn-1", "Torn")])
        said = run(server, "--state", state, file, url=proxy.url, status=1)
    assert "no longer in the input" in said.stderr
    assert len(esmith.found("Patient?family=Torn")) == 2


BUNDLES = 24


def many(folder: Path) -> Path:
    """Writes Bundles, each with a patient of its own name, and loose resources."""
    folder.mkdir()
    for at in range(BUNDLES):
        about = [observation(subject=URN, note=[{"text": str(i)}]) for i in range(10)]
        (folder / f"{at:02}.json").write_bytes(
            wire.dump(bundle(patient(family=f"Once{at:02}"), *about, _0=URN))
        )
    loose = [patient(f"once-{at}", "Onceloose") for at in range(20)]
    ndjson(
        folder / "loose.ndjson",
        [*loose, *(observation(f"once-o{i}", f"Patient/once-{i}") for i in range(20))],
    )
    return folder


def patients(data_dir: Path) -> int:
    return sum(kind == "Patient" for kind, _ in stored(data_dir))


@contextmanager
def importing(server: Server, *more: str | Path, url: str = "") -> Iterator[subprocess.Popen[bytes]]:
    options = arguments(server, "--jobs", "4", "--batch", "7", *more, url=url)
    command = [sys.executable, "-m", "bridge.cli", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_each_once(remote: Remote, data_dir: Path, before: int) -> None:
    assert patients(data_dir) == before + BUNDLES + 20
    for at in range(BUNDLES):
        assert len(remote.found(f"Patient?family=Once{at:02}")) == 1
        assert len(remote.found(f"Observation?subject:Patient.family=Once{at:02}")) == 10
    assert len(remote.found("Patient?family=Onceloose")) == 20
    assert len(remote.found("Observation?subject:Patient.family=Onceloose")) == 20


@pytest.mark.parametrize("with_state", [True, False])
def test_an_import_that_is_killed_again_and_again_is_done_once(
    data_dir: Path, accounts: dict[str, Account], tmp_path: Path, with_state: bool
) -> None:
    folder = many(tmp_path / "input")
    state = ["--state", tmp_path / "state"] if with_state else []
    before, killed = patients(data_dir), 0
    with serving(data_dir) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        for reached in (1, 7, 13, 25, 31):
            with importing(server, *state, folder) as process:
                while process.poll() is None and patients(data_dir) < before + reached:
                    pass
                killed += process.poll() is None
                process.send_signal(signal.SIGKILL)
        assert killed
        run(server, "--jobs", "4", "--batch", "7", *state, folder)
        assert_each_once(remote, data_dir, before)


def test_an_import_that_is_interrupted_says_so_and_goes_on_later(
    data_dir: Path, accounts: dict[str, Account], tmp_path: Path
) -> None:
    folder, state, report = many(tmp_path / "input"), tmp_path / "state", tmp_path / "report"
    before, interrupted = patients(data_dir), threading.Event()

    def held_up(nth: int) -> str:
        if nth > 5:
            interrupted.wait()
        return ""

    with serving(data_dir) as server, between(server, held_up) as proxy:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        options = ("--state", state, "--report", report, folder)
        with importing(server, *options, url=proxy.url) as process:
            eventually(lambda: proxy.posts > 5 or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            interrupted.set()
            _, said = process.communicate(timeout=300)
        assert process.returncode == 1
        assert b"Interrupted. Run it again" in said
        assert b"Traceback" not in said
        counted = reported(report)["summary"]["resources"]["Patient"]
        assert counted["imported"] == patients(data_dir) - before
        assert sum(counted.values()) == BUNDLES + 20
        run(server, "--state", state, folder, url=proxy.url)
        assert_each_once(remote, data_dir, before)


def test_a_bridge_whose_workers_are_killed_takes_each_once(
    data_dir: Path, accounts: dict[str, Account], tmp_path: Path
) -> None:
    folder = many(tmp_path / "input")
    before = patients(data_dir)
    with serving(data_dir) as server:
        remote = Remote(server, accounts["esmith"])
        remote.load_key()
        with importing(server, folder) as process:
            for reached in (3, 12, 20):
                while process.poll() is None and patients(data_dir) < before + reached:
                    pass
                for pid in server.workers():
                    with suppress(ProcessLookupError):  # it was killed before
                        os.kill(pid, signal.SIGKILL)
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
        assert_each_once(remote, data_dir, before)


def test_an_import_that_waits_for_a_silent_server_ends_when_interrupted_twice(
    server: Server, tmp_path: Path
) -> None:
    file, silence = ndjson(tmp_path / "a.ndjson", [patient() for _ in range(9)]), threading.Event()

    def silent(nth: int) -> str:
        silence.wait()
        return "lost on its way"

    with between(server, silent) as proxy:
        try:
            with importing(server, "--batch", "1", "--jobs", "2", file, url=proxy.url) as process:
                eventually(lambda: proxy.posts or process.poll() is not None)
                process.send_signal(signal.SIGINT)
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(1)
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 128 + signal.SIGINT
        finally:
            silence.set()


def test_what_is_queued_when_the_import_is_stopped_is_not_sent() -> None:
    remote = Target("http://127.0.0.1:1", Login("esmith", "password"), 1)
    remote.stop()
    assert remote.post(b"{}", "key") is None


def test_a_wrong_login_is_said_in_words(server: Server, tmp_path: Path) -> None:
    file = ndjson(tmp_path / "a.ndjson", [patient()])
    (tmp_path / "password").write_text("wrong password\n")
    result = CliRunner().invoke(
        main,
        [
            "import",
            "--url",
            server.url,
            "--login",
            "esmith",
            "--password-file",
            str(tmp_path / "password"),
            str(file),
        ],
    )
    assert (result.exit_code, "does not accept this login" in result.output) == (1, True)
    assert "wrong password" not in result.output


def test_a_bridge_that_is_not_there_is_said_in_words(server: Server, tmp_path: Path) -> None:
    file = ndjson(tmp_path / "a.ndjson", [patient()])
    said = run(server, file, url=f"http://127.0.0.1:{free_port()}", status=1).output
    assert "cannot be reached" in said


def test_a_server_that_is_no_bridge_is_said_in_words(server: Server, tmp_path: Path) -> None:
    file = ndjson(tmp_path / "a.ndjson", [patient()])
    assert "no FHIR server" in run(server, file, url=f"{server.url}/elsewhere", status=1).output


def test_without_a_key_nothing_is_sent(data_dir: Path, accounts: dict[str, Account], tmp_path: Path) -> None:
    file = ndjson(tmp_path / "a.ndjson", [patient()])
    with serving(data_dir, workers=1) as server:
        (tmp_path / "password").write_text(accounts["jdoe"]["password"])
        options = ["--login", "jdoe", "--password-file", str(tmp_path / "password"), "--url", server.url]
        result = CliRunner().invoke(main, ["import", *options, str(file)])
        assert (result.exit_code, "--key" in result.output) == (1, True), result.output
        (tmp_path / "key").write_text(accounts["jdoe"]["privateKey"])
        result = CliRunner().invoke(main, ["import", *options, "--key", str(tmp_path / "key"), str(file)])
        assert (result.exit_code, "--data-owner" in result.output) == (2, True), result.output
        owner = ["--data-owner", accounts["esmith"]["dataOwnerId"]]
        result = CliRunner().invoke(
            main, ["import", *options, *owner, "--key", str(tmp_path / "key"), str(file)]
        )
        assert (result.exit_code, "refuses the key" in result.output) == (1, True), result.output
        owner = ["--data-owner", accounts["jdoe"]["dataOwnerId"]]
        result = CliRunner().invoke(
            main, ["import", *options, *owner, "--key", str(tmp_path / "key"), str(file)]
        )
        assert result.exit_code == 0, result.output


def test_a_key_that_is_forgotten_on_the_way_is_loaded_again(
    server: Server, esmith: Remote, tmp_path: Path
) -> None:
    file = ndjson(tmp_path / "a.ndjson", [patient(family="Forgotten") for _ in range(4)])
    path = f"{server.url}/rest/icdx/v1/keychain/{account(server)['dataOwnerId']}"

    def forget(nth: int) -> str:
        if nth == 2:
            assert requests.delete(path, headers=esmith.headers).status_code == 204
        return ""

    with between(server, forget) as proxy:
        run(server, "--batch", "2", "--jobs", "1", file, url=proxy.url)
    assert len(esmith.found("Patient?family=Forgotten")) == 4


USAGE = {
    "no path": [],
    "a path that names nothing": ["nothing.json"],
    "a url that is none": ["--url", "bridge", "."],
    "a url of half an address": ["--url", "http://[::1", "."],
    "a url of an empty label": ["--url", "http://a..b", "."],
    "standard input without a login": ["-"],
    "standard input twice": ["--password-file", "-", "-"],
    "a batch of nothing": ["--batch", "0", "."],
    "a key file that is not there": ["--key", "nothing", "."],
}


@pytest.mark.parametrize("given", USAGE.values(), ids=USAGE)
def test_a_wrong_use_ends_with_2(given: list[str]) -> None:
    assert CliRunner().invoke(main, ["import", *given], input="").exit_code == 2


def test_nobody_is_asked_where_the_input_stands() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "import", "--login", "esmith", "-"],
        input=wire.dump(patient()),
        capture_output=True,
        start_new_session=True,
    )
    assert (process.returncode, b"--password-file is needed" in process.stderr) == (2, True), process.stderr


def test_a_key_file_of_several_accounts_wants_a_login(server: Server, tmp_path: Path) -> None:
    file, key = ndjson(tmp_path / "a.ndjson", [patient()]), str(server.log.parent / demo.FILE)
    for login, told in ((["--login", "nobody"], "no key for this login"), ([], "several")):
        result = CliRunner().invoke(main, ["import", "--key", key, *login, str(file)])
        assert (result.exit_code, told in result.output) == (2, True), result.output


def test_neither_report_nor_state_nor_what_is_said_holds_content(server: Server, tmp_path: Path) -> None:
    canaries = Canaries()
    resources = [one for kind in ("Patient", "Observation") for one in canaries.variants(kind)]
    assert canaries.elements
    file, report, state = ndjson(tmp_path / "a.ndjson", resources), tmp_path / "report", tmp_path / "state"
    result = CliRunner().invoke(main, arguments(server, "--report", report, "--state", state, file))
    assert report.stat().st_size > 1000
    assert state.stat().st_size > 100
    told = [report.read_bytes(), state.read_bytes(), result.output.encode()]
    assert {canaries.elements[one] for one in canaries.found_in(told)} == set()
    secrets = [account(server)["password"], account(server)["privateKey"]]
    assert not any(secret.encode() in text for secret in secrets for text in told)


def test_synthea_is_imported(corpus: Path, server: Server, esmith: Remote, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = run(server, "--skip-unsupported", "--report", report, corpus / "synthea")
    assert re.search(r"^Total +473 +305$", said.stdout, re.MULTILINE)
    failed = [one for one in reported(report)["outcomes"] if not one["status"].startswith("2")]
    assert failed == []
    (strosin,) = esmith.found("Patient?family=Strosin630") or esmith.found("Patient?family:contains=strosin")
    about = esmith.found(f"Observation?subject=Patient/{strosin['id']}")
    assert len(about) == 92
    assert all(one["encounter"]["reference"].startswith("Encounter/") for one in about)


def test_a_terminal_sees_a_bar_with_rate_and_remaining_time() -> None:
    screen = io.StringIO()
    progress = Progress(Console(file=screen, force_terminal=True, width=120))
    with progress.sending(40):
        progress.advance(10)
        progress.say("Something is told above it.")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    assert re.search(r"10/40 .*\d/s .*remaining ", shown)
    assert "Something is told above it." in shown


def test_elsewhere_a_few_plain_lines_are_said() -> None:
    log = io.StringIO()
    progress = Progress(Console(file=log))
    with progress.sending(1000):
        for _ in range(1000):
            progress.advance(1)
    assert log.getvalue().splitlines()[:2] == ["Importing 1,000 resources.", "100 of 1,000"]
    assert len(log.getvalue().splitlines()) == 11


def test_every_option_is_told_of_in_the_docs() -> None:
    page = (Path(demo.__file__).parents[1] / "docs" / "import.md").read_text()
    options = {option for one in main.commands["import"].params for option in one.opts if option[0] == "-"}
    assert len(options) == 12
    assert {option for option in options if f"`{option}" not in page} == set()


@pytest.mark.parametrize("option", ["--state", "--report"])
def test_a_file_that_cannot_be_written_is_said_in_words(server: Server, tmp_path: Path, option: str) -> None:
    file = ndjson(tmp_path / "a.ndjson", [patient()])
    before = stored(server.log.parent)
    assert "cannot be" in run(server, option, tmp_path / "no" / "file", file, status=1).stderr
    assert stored(server.log.parent) == before


def test_the_rest_of_what_a_spool_holds_is_forgotten_when_it_is_done() -> None:
    with Spool() as spool:
        (unit,) = contents(wire.dump(patient("p")), SUPPORTED)
        assert isinstance(unit, Unit)
        spool.add(unit, 0, None)
        pack(spool, 1)
        (one,) = [u for batches in spool.batches() for n in batches for u in spool.units(n)]
        spool.settle(one.n, DONE, ["Patient/1"])
        assert spool.db.execute("SELECT count(*) FROM text").fetchone() == (0,)
        assert spool.open_parts() == 0
