"""One story, lived with each client library: what a library tells of it is compared by test_clients.py."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import requests
from fhirclient.client import FHIRClient
from fhirclient.models.bundle import Bundle
from fhirclient.models.fhirdate import FHIRDate
from fhirclient.models.patient import Patient
from fhirpy import SyncFHIRClient
from fhirpy.base.exceptions import ResourceNotFound

from mappings.values import Resource
from tests import npm
from tests.helpers import Account, basic

HERE = Path(__file__).parent
STORY_SECONDS = 300
SYSTEM = "http://example.org/clients"
PAGE = 2
UPDATE: Resource = {"birthDate": "1867-11-07"}
PATCH: Resource = {"gender": "other", "telecom": None}


@dataclass(frozen=True)
class Story:
    """What a library saw: its answers as JSON."""

    sent: list[Resource]
    created: list[Resource]
    read: Resource
    found: list[str]
    """The ids that a search found, over all pages."""
    updated: Resource
    patched: Resource | None
    """None from a library that has no patch."""
    gone: bool
    """Whether a read after the delete said so."""
    answer: Resource
    """The transaction's."""


def patients(library: str) -> list[Resource]:
    """Returns the five patients that a library creates; the system of their identifiers is this story's own."""
    system = f"{SYSTEM}/{library}/{uuid.uuid4()}"
    return [
        {
            "resourceType": "Patient",
            "identifier": [{"system": system, "value": str(number)}],
            "name": [{"family": "Skłodowska", "given": ["Marie"]}],
            "gender": "female",
            "telecom": [{"system": "phone", "value": "555"}],
        }
        for number in range(5)
    ]


def any_of_system(sent: list[Resource]) -> str:
    """Returns what finds these patients by their identifiers."""
    return f"{sent[0]['identifier'][0]['system']}|"


def transaction() -> Resource:
    """Returns a patient and an Observation that refers to it by its urn."""
    urn = "urn:uuid:8b0a2ff6-7b3e-4f0a-9d0e-2f6b1d2c3e4f"
    patient = {"resourceType": "Patient", "name": [{"family": "Becquerel"}]}
    observation = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]},
        "subject": {"reference": urn},
        "valueQuantity": {"value": 72.5, "unit": "kg"},
    }
    entries = [
        {"resource": observation, "request": {"method": "POST", "url": "Observation"}},
        {"fullUrl": urn, "resource": patient, "request": {"method": "POST", "url": "Patient"}},
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def with_fhirpy(url: str, account: Account) -> Story:
    """Returns the story as fhirpy tells it. https://github.com/beda-software/fhir-py"""
    client = SyncFHIRClient(url, authorization=basic(account))
    sent = patients("fhirpy")
    created = [client.resource("Patient", **patient).save() for patient in sent]
    first = created[0]
    read = client.reference("Patient", first.id).to_resource()
    search = client.resources("Patient").search(identifier=any_of_system(sent)).limit(PAGE)
    found = [patient.id for patient in search]
    assert search.count() == len(found)
    updated = client.resource("Patient", **{**read.serialize(), **UPDATE}).save()
    patched = client.patch("Patient", first.id, **PATCH)
    client.delete("Patient", first.id)
    try:
        client.get("Patient", first.id)
        gone = False
    except ResourceNotFound:
        gone = True
    return Story(
        sent=sent,
        created=[patient.serialize() for patient in created],
        read=read.serialize(),
        found=found,
        updated=updated.serialize(),
        patched=patched,
        gone=gone,
        answer=client.execute("", data=transaction()),
    )


def with_fhirclient(url: str, account: Account) -> Story:
    """Returns the story as fhirclient tells it. https://github.com/smart-on-fhir/client-py"""
    client = FHIRClient(settings={"app_id": "bridge", "api_base": url})
    server = client.server
    server.session.auth = (account["login"], account["password"])
    assert client.prepare()
    sent = patients("fhirclient-py")
    created = [Patient(patient).create(server) for patient in sent]
    first = created[0]["id"]
    read = Patient.read(first, server)
    asked = {"identifier": any_of_system(sent), "_count": str(PAGE)}
    found = [patient.id for patient in Patient.where(asked).perform_resources_iter(server)]
    updated = Patient.read(first, server)
    updated.birthDate = FHIRDate(UPDATE["birthDate"])
    answered = updated.update(server)
    updated.delete()
    try:
        Patient.read(first, server)
        gone = False
    except requests.HTTPError as e:
        gone = e.response.status_code == requests.codes.gone
    answer = server.post_json("", Bundle(transaction()).as_json()).json()
    server.session.close()
    return Story(
        sent=sent,
        created=created,
        read=read.as_json(),
        found=found,
        updated=answered,
        patched=None,
        gone=gone,
        answer=Bundle(answer).as_json(),
    )


def with_node(library: str) -> Callable[[str, Account], Story]:
    """Returns how to hear the story from a JavaScript library."""

    def live(url: str, account: Account) -> Story:
        npm.install(HERE, "JavaScript clients", "--omit=optional")
        sent = patients(library)
        told = {
            "url": url,
            "authorization": basic(account),
            "username": account["login"],
            "password": account["password"],
            "page": PAGE,
            "patients": sent,
            "update": UPDATE,
            "patch": PATCH,
            "transaction": transaction(),
        }
        ran = subprocess.run(
            ["node", "story.mjs", library],
            cwd=HERE,
            input=json.dumps(told),
            capture_output=True,
            text=True,
            timeout=STORY_SECONDS,
        )
        assert ran.returncode == 0, ran.stderr
        return Story(sent=sent, **json.loads(ran.stdout))

    return live


STORIES: dict[str, Callable[[str, Account], Story]] = {
    "fhirpy": with_fhirpy,
    "fhirclient, Python": with_fhirclient,
    "fhir-kit-client": with_node("fhir-kit-client"),
    "fhirclient, JavaScript": with_node("fhirclient"),
}
"""How to hear the story, by library."""
