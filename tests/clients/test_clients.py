"""Four public client libraries, unmodified, create, read, search, update, patch, delete and send a transaction."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from fhirpy import SyncFHIRClient

from bridge import demo
from mappings.values import Resource
from tests.clients.stories import PATCH, STORIES, SYSTEM, UPDATE, Story
from tests.helpers import Remote, basic, serving


@pytest.fixture(scope="module")
def esmith(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A person at a running server, whose key is loaded."""
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("clients") / "data"))
    account = next(a for a in demo.accounts(data_dir) if a["name"] == "esmith")
    with serving(data_dir) as server:
        person = Remote(server, account)
        person.load_key()
        yield person


@pytest.fixture(scope="module", params=STORIES.values(), ids=STORIES)
def story(request: pytest.FixtureRequest, esmith: Remote) -> Story:
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # their own deprecations are not ours
        heard: Story = request.param(esmith.server.fhir, esmith.account)
    return heard


def said(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name not in ("id", "meta")}


def test_what_is_created_is_what_was_sent_and_is_read(story: Story) -> None:
    sent = story.sent
    assert [said(created) for created in story.created] == sent
    assert said(story.read) == sent[0]
    assert story.read["meta"]["versionId"] == story.created[0]["meta"]["versionId"]


def test_a_search_finds_them_over_all_pages(story: Story) -> None:
    assert len(story.found) == len(story.created) == 5
    assert set(story.found) == {created["id"] for created in story.created}


def test_an_update_changes_what_it_says(story: Story) -> None:
    assert said(story.updated) == said(story.read) | UPDATE
    assert story.updated["meta"]["versionId"] != story.read["meta"]["versionId"]


def test_a_patch_changes_what_it_says(story: Story) -> None:
    if story.patched is None:
        return
    expected = said(story.updated) | PATCH
    assert said(story.patched) == {name: value for name, value in expected.items() if value is not None}


def test_what_is_deleted_is_gone(story: Story) -> None:
    assert story.gone


def test_a_transaction_is_applied_with_its_references(story: Story, esmith: Remote) -> None:
    statuses = [entry["response"]["status"] for entry in story.answer["entry"]]
    assert [status[:3] for status in statuses] == ["201", "201"]
    observation, patient = (
        "/".join(entry["response"]["location"].split("/")[-4:-2]) for entry in story.answer["entry"]
    )
    assert esmith.read(observation)["subject"] == {"reference": patient}
    assert esmith.read(patient)["name"] == [{"family": "Becquerel"}]


def test_get_or_create_of_fhirpy_makes_one(esmith: Remote) -> None:
    client = SyncFHIRClient(esmith.server.fhir, authorization=basic(esmith.account))
    identifier = {"system": f"{SYSTEM}/once", "value": "1"}
    search = client.resources("Patient").search(identifier=f"{identifier['system']}|1")
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # its own deprecations are not ours
        made = [
            search.get_or_create(client.resource("Patient", identifier=[identifier], active=True))
            for _ in range(2)
        ]
        updated, fresh = search.update(client.resource("Patient", identifier=[identifier], gender="other"))
    assert [created for _, created in made] == [True, False]
    assert made[0][0].id == made[1][0].id == updated.id
    assert fresh is False
    assert [p["gender"] for p in esmith.found(f"Patient?identifier={identifier['system']}|1")] == ["other"]
