"""A worker that dies half-way: what it wrote is undone by whoever comes next, and a resend ends with one copy.

Strategy: real processes, killed with SIGKILL before or after their first, second, … call to iCure.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from requests.adapters import BaseAdapter

from bridge import journal
from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config
from bridge.journal import Journal, applying
from tests.helpers import READING, Caller, basic, count_calls, stored

Resource = dict[str, Any]
forked = multiprocessing.get_context("fork")


class Watched(BaseAdapter):
    """An upstream that says each writing call before and after it is made."""

    def __init__(self, app: Any, met: Callable[[int, str], None]) -> None:
        super().__init__()
        session = app.extensions["bridge"].upstream.session
        self.inner, self.met, self.count = session.get_adapter(EMBEDDED_URL), met, 0
        session.mount(EMBEDDED_URL, self)

    def send(self, request: Any, **options: Any) -> Any:
        path = request.path_url.partition("?")[0].removeprefix("/rest/v2/")
        if READING.fullmatch(f"{request.method} {path}"):
            return self.inner.send(request, **options)
        self.count += 1
        self.met(self.count, "before")
        answer = self.inner.send(request, **options)
        self.met(self.count, "after")
        return answer

    def close(self) -> None:
        self.inner.close()


class World:
    """A store with something to change, a transaction of twelve entries, and processes that die in it."""

    def __init__(self, config: Config, account: dict[str, str]) -> None:
        self.config, self.account = config, account
        self.app = create_app(config)
        self.app.testing = True
        self.caller = Caller(self.app, account)
        assert self.caller.load_key().status_code == 200
        self.patient = self.caller.created({"resourceType": "Patient", "name": [{"family": "Before"}]})
        self.run = 0
        self.renew()

    @property
    def journal(self) -> Journal:
        return Journal(self.app.extensions["bridge"].state)

    def renew(self) -> None:
        """Makes something new to change and to delete."""
        self.run += 1
        self.changed = self.caller.created(self.observation("changed", valueInteger=1))
        self.deleted = self.caller.created(self.observation("deleted"))

    def observation(self, mark: str, **members: Any) -> Resource:
        return {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "mark", "code": mark}]},
            "subject": {"reference": f"Patient/{self.patient['id']}"},
            **members,
        }

    def transaction(self) -> Resource:
        """Two Patients, eight Observations in as many Contacts, an update and a deletion."""
        mark = f"m{self.run}"
        new = [{"resourceType": "Patient", "identifier": [{"system": "mark", "value": mark}]}] * 2
        new += [self.observation(mark, effectiveDateTime=f"19{n:02}-01-01") for n in range(8)]
        entries: list[Resource] = [
            {"resource": one, "request": {"method": "POST", "url": one["resourceType"]}} for one in new
        ]
        update = {**self.changed, "valueInteger": 2}
        entries.append({"resource": update, "request": {"method": "PUT", "url": self.url(self.changed)}})
        entries.append({"request": {"method": "DELETE", "url": self.url(self.deleted)}})
        return {"resourceType": "Bundle", "type": "transaction", "entry": entries}

    def url(self, resource: Resource) -> str:
        return f"{resource['resourceType']}/{resource['id']}"

    def process(self, met: Callable[[int, str], None], **headers: str) -> Any:
        """Starts a worker that posts the transaction; `met` is called around its writing calls."""

        def run() -> None:
            app = create_app(self.config)
            Watched(app, met)
            Caller(app, self.account).post("", self.transaction(), **headers)
            os._exit(0)

        process = forked.Process(target=run)
        process.start()
        return process

    def dies(self, count: int, moment: str, **headers: str) -> bool:
        """Returns whether a worker died at this call; else it ended well."""

        def met(at: int, when: str) -> None:
            if (at, when) == (count, moment):
                os.kill(os.getpid(), signal.SIGKILL)

        process = self.process(met, **headers)
        process.join(120)
        assert process.exitcode in (0, -signal.SIGKILL)
        return bool(process.exitcode)

    def standing(self) -> tuple[int, int, int]:
        """Returns what stands in the store: new Patients and Services, changes, deletions."""
        new = 0
        for (kind, _), (_, body) in stored(self.config.data_dir).items():
            document = orjson.loads(body)
            if document.get("deletionDate"):
                continue
            new += f'"m{self.run}"'.encode() in body if kind == "Patient" else 0
            new += sum(
                any(c.get("code") == f"m{self.run}" for c in s.get("codes", ()))
                for s in document.get("services", ())
                if not s.get("endOfLife")
            )
        changed = self.caller.get(self.url(self.changed)).json["valueInteger"] == 2
        return new, changed, self.caller.get(self.url(self.deleted)).status_code == 410


NOTHING, EVERYTHING = (0, 0, 0), (10, 1, 1)


@pytest.fixture
def world(config: Config, accounts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(applying.BATCH, "contact", 3)
    return World(config, accounts["esmith"])


def moments() -> Iterator[tuple[int, str]]:
    for count in range(1, 100):
        yield count, "before"
        yield count, "after"


def each_death(world: World, *, keyed: bool = False) -> Iterator[dict[str, str]]:
    """Yields the headers of the request after a worker died in it, at every moment that there is."""
    died = 0
    for count, moment in moments():
        headers = {"Idempotency_Key": f"k{world.run}"} if keyed else {}
        if not world.dies(count, moment, **headers):
            break
        died += 1
        yield headers
        world.renew()
    assert died >= 10


def test_the_callers_next_request_undoes_what_a_dead_worker_left(world: World) -> None:
    found = 0
    for _ in each_death(world):
        found += len(world.journal.open_names())
        assert world.caller.get("Patient?identifier=mark|none").status_code == 200
        assert world.standing() == NOTHING
        assert world.journal.open_names() == []
    assert found >= 10


@pytest.mark.parametrize("keyed", [False, True], ids=["by body", "by key"])
def test_a_resend_after_a_death_ends_with_one_copy(world: World, *, keyed: bool) -> None:
    for headers in each_death(world, keyed=keyed):
        answer = world.caller.post("", world.transaction(), **headers)
        assert answer.status_code == 200, answer.text
        assert world.standing() == EVERYTHING
        assert world.journal.open_names() == []
    assert world.standing() == EVERYTHING


def test_any_worker_undoes_it_without_the_caller(world: World) -> None:
    other = create_app(world.config).extensions["bridge"]
    for _ in each_death(world):
        journal.sweep(other)
        assert world.journal.open_names() == []
        assert world.standing() == NOTHING


def test_the_caller_undoes_it_although_its_token_was_not_taken(world: World) -> None:
    assert world.dies(2, "after")
    other = create_app(world.config)
    bridge = other.extensions["bridge"]
    (entry,) = world.journal.open_entries()
    entry.refresh = "ended"
    world.journal.keep(entry)
    for _ in range(2):
        journal.sweep(bridge)
    assert len(world.journal.open_names()) == 1
    assert world.caller.get("Patient?identifier=mark|none").status_code == 200
    assert world.standing() == NOTHING
    assert world.journal.open_names() == []


def test_a_worker_that_lives_is_never_touched(world: World) -> None:
    inner, outer = forked.Event(), forked.Event()

    def met(at: int, when: str) -> None:
        if (at, when) == (3, "after"):
            inner.set()
            assert outer.wait(300)

    process = world.process(met)
    assert inner.wait(60)
    other = create_app(world.config)
    calls = count_calls(other)
    journal.sweep(other.extensions["bridge"])
    assert calls.told() == []
    assert world.caller.get("Patient?identifier=mark|none").status_code == 200
    assert len(world.journal.open_names()) == 1
    assert world.standing()[0] > 0
    outer.set()
    process.join(60)
    assert process.exitcode == 0
    assert world.standing() == EVERYTHING
    assert world.journal.open_names() == []


def test_what_somebody_else_changed_since_is_left_and_stays_in_the_journal(world: World) -> None:
    assert world.dies(3, "after")
    client = world.app.extensions["bridge"].scope(basic(world.account), "").client
    contact = next(
        orjson.loads(body)
        for (kind, _), (_, body) in stored(world.config.data_dir).items()
        if kind == "Contact" and f'"m{world.run}"'.encode() in body
    )
    client.modify("contact", {**contact, "modified": contact["modified"] + 1})
    resent = world.caller.post("", world.transaction())
    assert resent.status_code == 409
    assert {i["code"] for i in resent.json["issue"]} == {"incomplete"}
    assert world.standing()[0] == 1
    (entry,) = world.journal.open_entries()
    assert [step.id for step in entry.steps] == [contact["id"]]
    assert entry.overtaken
    journal.sweep(world.app.extensions["bridge"])
    assert world.caller.get("Patient?identifier=mark|none").status_code == 200
    assert len(world.journal.open_names()) == 1


def test_who_was_given_access_meanwhile_keeps_it_after_undo(world: World) -> None:
    """The update is undone, and a delegation that was added after it stays."""
    last = 0
    while world.dies(last + 1, "after"):
        world.caller.get("Patient?identifier=mark|none")
        last += 1
    world.renew()
    assert world.dies(last - 1, "after")
    client = world.app.extensions["bridge"].scope(basic(world.account), "").client
    (contact_id,) = {s["contactId"] for s in client.by_ids("contact/service", [world.changed["id"]])}
    before = client.read("contact", contact_id)
    assert before is not None
    (parent,) = before["securityMetadata"]["secureDelegations"]
    share = {
        "accessControlKeys": ["ab" * 16],
        "explicitDelegator": world.account["dataOwnerId"],
        "explicitDelegate": "somebody",
        "exchangeDataId": "x",
        "encryptedExchangeDataId": {},
        "secretIds": ["czE="],
        "encryptionKeys": ["azE="],
        "owningEntityIds": ["bzE="],
    }
    asked = {"requests": {"0": {"share": share}}, "potentialParentDelegations": [parent]}
    (told,) = client._list(
        "PUT", "contact/bulkSharedMetadataUpdate", {"requestsByEntityId": {contact_id: asked}}
    )
    given = told["updatedEntity"]["securityMetadata"]
    assert len(given["secureDelegations"]) == 2
    assert world.caller.get("Patient?identifier=mark|none").status_code == 200
    assert world.standing() == NOTHING
    after = client.read("contact", contact_id)
    assert after is not None
    assert after["securityMetadata"] == given
