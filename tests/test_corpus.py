"""Nothing lost, nothing in clear but the list: over HL7's and Synthea's examples, and our own."""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge import wire
from mappings.values import Json, Resource
from tests.helpers import CORPUS, DEMO_PATIENT, Caller, count_calls
from tests.promises import LOOKED_UP, assert_same, bare, coming_back, in_clear, leaves

OWN = sorted(
    f for t in ("Patient", "Observation") for f in (Path(__file__).parent / "data" / t).glob("*.json")
)
HL7 = sorted(f for t in ("Patient", "Observation") for f in (CORPUS / "hl7-r4").glob(f"{t}-*.json"))
SYNTHEA = sorted((CORPUS / "synthea").glob("*.json.gz"))
EXAMPLES = {f"{f.parent.name}/{f.stem}": f for f in (*OWN, *HL7)}
TELLING = 6
"""Shorter strings occur by chance."""
BARE_SUBJECT = {DEMO_PATIENT: f"Patient/{DEMO_PATIENT}"}


def read(path: Path) -> Resource:
    return wire.parse(path.read_bytes())


def test_the_corpus_is_whole(corpus: Path) -> None:
    assert (len(HL7), len(SYNTHEA)) == (86, 5)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_is_stored_encrypted_and_comes_back_as_sent(esmith: Caller, example: Path) -> None:
    served = stand_in(esmith, read(example))
    upstream = count_calls(esmith.app)
    answered = esmith.created(read(example))
    stored = wire.parse(esmith.get(f"{answered['resourceType']}/{answered['id']}").data)
    expected = coming_back(read(example), served)
    assert_same(bare(answered), expected)
    assert_same(stored, answered)
    assert readable(read(example), upstream.sent) == []


def stand_in(caller: Caller, resource: Resource) -> dict[str, str]:
    """Creates the Patient that the resource is about where there is none; returns what references become."""
    subject = resource.get("subject", {}).get("reference", "")
    kind, _, client_id = subject.rpartition("/")
    if kind != "Patient" or client_id == DEMO_PATIENT:
        return BARE_SUBJECT
    created = caller.created({"resourceType": "Patient", "id": client_id})
    return {subject: f"Patient/{created['id']}"}


def readable(resource: Resource, sent: list[bytes]) -> list[str]:
    """Returns the paths of strings that left in clear although they are not on the list."""
    kind = resource["resourceType"]
    strings = [(path, value) for path, value in leaves(resource) if isinstance(value, str)]
    allowed = "\n".join(value for path, value in strings if in_clear(kind, path)).casefold()
    return [
        path
        for path, value in strings
        if not in_clear(kind, path)
        and path != "resourceType"
        and len(value) > TELLING
        and value.casefold() not in allowed
        and not is_asked_for(path, value)
        and any(value.encode() in chunk for chunk in sent)
    ]


def is_asked_for(path: str, value: str) -> bool:
    return path.endswith("reference") and (value.startswith(LOOKED_UP) or "/" not in value)


def test_all_examples_come_back_from_one_transaction(esmith: Caller, corpus: Path) -> None:
    resources = [read(f) for f in (*HL7, *OWN)]
    known = {f"{r['resourceType']}/{r['id']}" for r in resources if "id" in r}
    subjects = {r.get("subject", {}).get("reference", "") for r in resources} - known
    patients = sorted(s.removeprefix("Patient/") for s in subjects if s.startswith("Patient/"))
    resources += [{"resourceType": "Patient", "id": p} for p in patients if p != DEMO_PATIENT]
    assert_come_back(esmith, [{"resource": r} for r in resources])


@pytest.mark.parametrize("bundle", SYNTHEA, ids=lambda path: path.stem.partition("_")[0])
def test_a_synthea_bundle_comes_back(esmith: Caller, bundle: Path) -> None:
    sent = wire.parse(gzip.decompress(bundle.read_bytes()))["entry"]
    kept = [e for e in sent if e["resource"]["resourceType"] in ("Patient", "Observation")]
    unserved = {e["fullUrl"]: e["resource"]["resourceType"] for e in sent if e not in kept}
    entries = elsewhere(kept, unserved)
    assert len(entries) > 60
    assert_come_back(esmith, entries)


def elsewhere(value: Json, unserved: Mapping[str, str]) -> Any:
    """Returns entries with references to what is not sent along as references to elsewhere."""
    if isinstance(value, list):
        return [elsewhere(inner, unserved) for inner in value]
    if not isinstance(value, dict):
        return value
    found = {name: elsewhere(inner, unserved) for name, inner in value.items()}
    if found.get("reference") in unserved:
        found["reference"] = f"{unserved[found['reference']]}/{found['reference'].removeprefix('urn:uuid:')}"
    return found


def assert_come_back(caller: Caller, entries: list[Resource]) -> None:
    """Asserts that each resource of a transaction is read as it was sent, references within it resolved."""
    sent = [{"request": {"method": "POST", "url": e["resource"]["resourceType"]}, **e} for e in entries]
    answer = caller.post("", {"resourceType": "Bundle", "type": "transaction", "entry": sent})
    assert answer.status_code == 200, answer.text
    places = [location(entry["response"]["location"]) for entry in answer.json["entry"]]
    assert len(set(places)) == len(entries)
    served = dict(BARE_SUBJECT)
    for entry, place in zip(entries, places, strict=True):
        if "id" in entry["resource"]:
            served[f"{entry['resource']['resourceType']}/{entry['resource']['id']}"] = place
        if "fullUrl" in entry:
            served[entry["fullUrl"]] = place
    for entry, place in zip(entries, places, strict=True):
        stored = wire.parse(caller.get(place).data)
        assert_same(bare(stored), coming_back(entry["resource"], served))


def location(url: str) -> str:
    found = re.search(r"(\w+/[^/]+)/_history/", url)
    assert found is not None
    return found[1]
