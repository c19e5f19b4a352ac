"""All or nothing, whatever call to iCure fails and however.

Strategy: one transaction with every kind of write runs against an upstream that fails at its first call, its second, …
Afterwards the store is looked into. What is written says in clear which entry it is from.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import requests
from requests.adapters import BaseAdapter

from bridge import auth, demo
from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config
from bridge.journal import Entry, Journal, applying, recovery, sweep, undoing
from bridge.upstream import REPEATS
from tests.helpers import READING, Caller, stored

Resource = dict[str, Any]
Send = Callable[..., Any]
DAYS, BATCH = 8, 3
"""More Contacts than go into one batch, which is made small for it."""


class Broken(BaseAdapter):
    """An upstream that fails at some of its calls."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[str] = []
        self.faults: Callable[[int, str], Fault | None] = lambda at, call: None

    def send(self, request: Any, **options: Any) -> Any:
        path = request.path_url.partition("?")[0].removeprefix("/rest/v2/")
        call = f"{request.method} {path}"
        self.calls.append(call)
        fault = self.faults(len(self.calls) - 1, call)
        send = self.inner.send
        return fault(send, request, options) if fault else send(request, **options)

    def close(self) -> None:
        self.inner.close()


Fault = Callable[[Send, Any, Any], Any]


def answered(status: int) -> Fault:
    """The upstream does nothing and answers this."""

    def fault(send: Send, request: Any, options: Any) -> Any:
        response = requests.Response()
        response.status_code, response.request, response.url = status, request, request.url
        response._content = b'{"message": "zanzibar"}'
        return response

    return fault


def lost(send: Send, request: Any, options: Any) -> Any:
    """The upstream does it, and the answer is lost."""
    send(request, **options)
    raise requests.ConnectionError("zanzibar")


def refused(send: Send, request: Any, options: Any) -> Any:
    """The upstream is not reached."""
    raise requests.ConnectionError("zanzibar")


def late(send: Send, request: Any, options: Any) -> Any:
    """The upstream does it, and answers too late."""
    send(request, **options)
    raise requests.ReadTimeout("zanzibar")


def without_last(send: Send, request: Any, options: Any) -> Any:
    """Of a batch the last item is not stored, and left out silently, as iCure does."""
    items = orjson.loads(request.body or b"null")
    if isinstance(items, list):
        request = request.copy()
        request.prepare_body(orjson.dumps(items[:-1]), None)
    return send(request, **options)


def silent_of_last(send: Send, request: Any, options: Any) -> Any:
    """Of a batch all items are stored, and the last is left out of the answer."""
    response = send(request, **options)
    items = orjson.loads(response.content)
    if isinstance(items, list):
        response._content = orjson.dumps(items[:-1])
    return response


def garbled(send: Send, request: Any, options: Any) -> Any:
    """The upstream does it, and answers nonsense."""
    response = send(request, **options)
    response._content = b'[{"zanzibar'
    return response


def misshapen(send: Send, request: Any, options: Any) -> Any:
    """The upstream does it, and answers JSON of another shape."""
    response = send(request, **options)
    response._content = b'{"zanzibar": [1]}'
    return response


FAULTS: dict[str, Fault] = {
    "500": answered(500),
    "503": answered(503),
    "409": answered(409),
    "403": answered(403),
    "401": answered(401),
    "429": answered(429),
    "302": answered(302),
    "answer lost": lost,
    "not reached": refused,
    "too late": late,
    "an item not stored": without_last,
    "an item not told": silent_of_last,
    "nonsense": garbled,
    "another shape": misshapen,
}


class World:
    """A store with something to change, a transaction, and an upstream that can be broken."""

    def __init__(self, app: Any, caller: Caller, data_dir: Path) -> None:
        self.app, self.caller, self.data_dir, self.run = app, caller, data_dir, 0
        upstream = app.extensions["bridge"].upstream
        upstream._pause_seconds = 0.001
        self.upstream = Broken(upstream.session.get_adapter(EMBEDDED_URL))
        upstream.session.mount(EMBEDDED_URL, self.upstream)
        self.patient = caller.created({"resourceType": "Patient", "name": [{"family": "Before"}]})
        self.about = {"reference": f"Patient/{self.patient['id']}"}
        self.renew()

    def renew(self) -> None:
        """Makes new resources to be changed and deleted; what stands or is open of earlier runs counts no longer."""
        self.run += 1
        for entry in self.journal.open_entries():
            self.journal.drop(entry)
        self.changed = self.caller.created(marked("changed", subject=self.about, valueInteger=1))
        self.deleted = self.caller.created(marked("deleted", subject=self.about, valueInteger=1))

    @property
    def journal(self) -> Journal:
        return Journal(self.app.extensions["bridge"].state)

    def mark(self, at: int) -> str:
        return f"{self.run}-{at}"

    def transaction(self) -> Resource:
        """A Bundle with two new Patients, Observations in many new Contacts, an update and a deletion."""
        patients = [
            {"resourceType": "Patient", "identifier": [{"system": "mark", "value": self.mark(at)}]}
            for at in range(2)
        ]
        observations = [
            marked(self.mark(2 + n), subject=self.about, effectiveDateTime=f"{1900 + n}-01-01")
            for n in range(DAYS)
        ]
        update = {**self.changed, "valueInteger": 2}
        return {
            "resourceType": "Bundle",
            "type": "transaction",
            "entry": [
                *map(post, patients),
                *map(post, observations),
                {"resource": update, "request": {"method": "PUT", "url": f"Observation/{update['id']}"}},
                {"request": {"method": "DELETE", "url": f"Observation/{self.deleted['id']}"}},
            ],
        }

    def posted(self, faults: Callable[[int, str], Fault | None]) -> Any:
        """Returns the answer to the transaction while the upstream fails like this, and heals it."""
        self.upstream.calls.clear()
        self.upstream.faults = faults
        try:
            return self.caller.post("", self.transaction())
        finally:
            self.upstream.faults = lambda at, call: None

    def written(self) -> Counter[int]:
        """Returns how often something stands of each entry."""
        marks = {self.mark(at): at for at in NEW}
        found: Counter[int] = Counter()
        for (kind, _), (_, body) in stored(self.data_dir).items():
            if kind not in ("Patient", "Contact") or b'"mark"' not in body:
                continue
            document = orjson.loads(body)
            services = document.get("services", [])
            codes = [c for s in services if not s.get("endOfLife") for c in s.get("codes", [])]
            said = [c["code"] for c in codes if c["type"] == "mark"]
            said += [i["value"] for i in document.get("identifier", []) if i.get("system") == "mark"]
            if not document.get("deletionDate"):
                found.update(marks[one] for one in said if one in marks)
        if self.caller.get(f"Observation/{self.changed['id']}").json["valueInteger"] != 1:
            found[UPDATE] += 1
        if self.caller.get(f"Observation/{self.deleted['id']}").status_code != 200:
            found[DELETION] += 1
        return found


NEW = range(DAYS + 2)
UPDATE, DELETION = DAYS + 2, DAYS + 3
NOTHING: Counter[int] = Counter()
EVERYTHING = Counter([*NEW, UPDATE, DELETION])
"""Each once."""


def marked(mark: str, **members: Any) -> Resource:
    code = {"coding": [{"system": "mark", "code": mark}]}
    return {"resourceType": "Observation", "status": "final", "code": code, **members}


def post(resource: Resource) -> Resource:
    return {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}


@pytest.fixture(scope="module")
def shared_world(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> World:
    """It counts calls, of which none may be to log in again."""
    data_dir = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("journal") / "data"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(auth, "REMEMBER_SECONDS", 3600)
        app = create_app(Config(data_dir=data_dir))
    app.testing = True
    caller = Caller(app, demo.accounts(data_dir)[0])
    assert caller.load_key().status_code == 200
    return World(app, caller, data_dir)


@pytest.fixture
def world(shared_world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(applying.BATCH, "contact", BATCH)
    shared_world.renew()
    return shared_world


def named(response: Any) -> set[int]:
    """Returns the indexes of the entries of which an outcome says that they could not be undone."""
    assert 400 <= response.status_code < 600
    assert "zanzibar" not in response.text
    assert response.json["resourceType"] == "OperationOutcome"
    paths = [path for i in response.json["issue"] if i["code"] == "incomplete" for path in i["expression"]]
    assert all(path.startswith("Bundle.entry[") for path in paths)
    return {int(path.removeprefix("Bundle.entry[").partition("]")[0]) for path in paths}


def test_without_a_fault_everything_is_written(world: World) -> None:
    assert world.written() == NOTHING
    response = world.posted(lambda at, call: None)
    assert response.status_code == 200, response.text
    assert world.written() == EVERYTHING
    writes = [call.split("/")[0] for call in world.upstream.calls if not READING.fullmatch(call)]
    assert writes.count("POST contact") == 3
    assert writes.count("POST patient") == 1
    assert writes.count("PUT contact") == 2


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_whatever_call_fails_all_or_nothing_is_written_and_the_answer_says_which(
    world: World, fault: Fault
) -> None:
    assert len(world.transaction()["entry"]) == 12
    here = 0
    while True:
        response = world.posted(lambda at, call, here=here: fault if at == here else None)  # type: ignore[misc]
        reached = len(world.upstream.calls) > here
        if response.status_code != 200:
            assert named(response) == set(), response.text
            assert world.written() == NOTHING, world.upstream.calls[here]
            assert world.journal.open_names() == []
            again = world.posted(lambda at, call: None)
            assert again.status_code == 200, again.text
        assert world.written() == EVERYTHING
        if not reached:
            break
        world.renew()
        here += 1
    assert here >= 5


def test_how_long_to_wait_is_passed_on(world: World) -> None:
    def throttled(send: Send, request: Any, options: Any) -> Any:
        response = answered(429)(send, request, options)
        response.headers["Retry-After"] = "7"
        return response

    response = world.posted(lambda at, call: throttled if call == "POST contact/batch" else None)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "7")
    assert (named(response), world.written()) == (set(), NOTHING)


@pytest.mark.parametrize("fault", [refused, lost, late, answered(500), answered(429)])
def test_what_cannot_be_undone_is_named(world: World, fault: Fault) -> None:
    """The upstream fails at one call and at all that follow."""
    here, left = 0, 0
    while True:
        response = world.posted(lambda at, call, here=here: fault if at >= here else None)  # type: ignore[misc]
        if response.status_code == 200:
            break
        calls = list(world.upstream.calls)
        written = world.written()
        assert set(written) <= named(response), response.text
        left += bool(written)
        assert len(calls) - here <= (1 + undoing.MOST_IN_VAIN) * (1 + REPEATS), "\n".join(calls)
        world.renew()
        here += 1
    assert left >= 2


def at_second(call: str, world: World, fault: Fault, then: Callable[[int], Fault | None]) -> Any:
    """Returns faults: this one at the second such call, and `then` for each call after it, counted from 0."""
    failed: list[int] = []

    def faults(at: int, made: str) -> Fault | None:
        if failed:
            return then(at - failed[0] - 1)
        if made == call and world.upstream.calls.count(call) == 2:
            failed.append(at)
            return fault
        return None

    return faults


def nothing_more(at: int) -> None:
    return None


@pytest.mark.parametrize(
    "fault",
    [answered(500), answered(409), answered(403), lost, garbled],
    ids=["500", "409", "403", "answer lost", "nonsense"],
)
def test_a_failure_while_undoing_is_named_when_it_left_something(world: World, fault: Fault) -> None:
    here = 0
    while True:
        met: list[int] = []

        def then(at: int, here: int = here, met: list[int] = met) -> Fault | None:
            if at == here:
                met.append(at)
            return fault if at == here else None

        response = world.posted(at_second("PUT contact", world, answered(500), then))
        assert set(world.written()) <= named(response), response.text
        world.renew()
        if not met:
            break
        here += 1
    assert here > 10


def test_where_purging_is_refused_what_was_written_is_deleted(world: World) -> None:
    second = at_second("PUT contact", world, answered(500), nothing_more)
    no_purge, before = answered(403), set(stored(world.data_dir))
    response = world.posted(lambda at, call: no_purge if "/purge/" in call else second(at, call))
    assert named(response) == set()
    assert world.written() == NOTHING
    hidden = 0
    for (kind, entity_id), (_, body) in stored(world.data_dir).items():
        document = orjson.loads(body)
        if document.get("deletionDate") and (kind, entity_id) not in before:
            gone = [f"Observation/{s['id']}" for s in document.get("services", [])]
            gone += [f"Patient/{entity_id}"] if kind == "Patient" else []
            assert {world.caller.get(path).status_code for path in gone} <= {404, 410}
            hidden += len(gone)
    assert hidden == len(NEW)
    for at in NEW[2:]:
        assert world.caller.found(f"Observation?code=mark|{world.mark(at)}") == []


@pytest.fixture
def late_entry(world: World, monkeypatch: pytest.MonkeyPatch) -> Entry:
    """The connection breaks, the transaction is undone, and only then iCure does what it was asked."""
    for module in (applying, recovery):
        monkeypatch.setattr(module, "late_seconds", lambda config: 600)
    held: list[Callable[[], Any]] = []

    def delayed(send: Send, request: Any, options: Any) -> Any:
        held.append(lambda: send(request, **options))
        raise requests.ConnectionError

    response = world.posted(lambda at, call: delayed if call == "POST contact/batch" and not held else None)
    assert response.status_code == 502
    assert (named(response), world.written()) == (set(), NOTHING)
    (entry,) = world.journal.open_entries()
    (arrive,) = held
    assert arrive().status_code == 200
    assert world.written() != NOTHING
    entry.due = 0
    world.journal.keep(entry)
    return entry


def test_what_arrives_after_it_was_undone_is_undone_too(world: World, late_entry: Entry) -> None:
    sweep(world.app.extensions["bridge"])
    assert (world.written(), world.journal.open_names()) == (NOTHING, [])


def test_a_step_that_makes_no_sense_is_left_and_holds_nothing_else_up(
    world: World, late_entry: Entry
) -> None:
    strange = [replace(step, id=7) for step in late_entry.steps[:1]]
    for steps in [strange] * 4 + [[*strange, *late_entry.steps, *strange]]:
        world.journal.keep(replace(late_entry, name=str(uuid.uuid4()), steps=steps))
    world.journal.drop(late_entry)
    sweep(world.app.extensions["bridge"])
    assert world.written() == NOTHING
    left = [entry.steps for entry in world.journal.open_entries()]
    assert sorted(left, key=len) == [*4 * [strange], 2 * strange]


def test_what_someone_else_wrote_meanwhile_is_left_and_named(world: World) -> None:
    written: list[tuple[str, str]] = []

    def overtaken(send: Send, request: Any, options: Any) -> Any:
        for at in range(len(first)):
            contact = orjson.loads(first[at].content)
            contact["modified"] += 1
            again = request.copy()
            again.prepare_body(orjson.dumps(contact), None)
            answer = send(again, **options)
            assert answer.status_code == 200
            written.append((contact["id"], orjson.loads(answer.content)["rev"]))
        return answered(500)(send, request, options)

    first: list[Any] = []

    def remembered(send: Send, request: Any, options: Any) -> Any:
        first.append(send(request, **options))
        return first[-1]

    second = at_second("PUT contact", world, overtaken, nothing_more)

    def faults(at: int, call: str) -> Fault | None:
        return second(at, call) or (remembered if call == "PUT contact" and not first else None)

    response = world.posted(faults)
    assert len(written) == 1
    assert stored(world.data_dir)["Contact", written[0][0]][0] == written[0][1]
    assert named(response) == set(world.written())
    assert len(named(response)) == 1


def test_a_lock_that_was_lost_in_the_last_call_is_no_success(world: World) -> None:
    """Somebody else may have undone it meanwhile, so it is undone."""

    def stolen(send: Send, request: Any, options: Any) -> Any:
        for lock in (world.data_dir / "locks").iterdir():
            lock.unlink()
        return send(request, **options)

    response = world.posted(at_second("PUT contact", world, stolen, nothing_more))
    assert (response.status_code, len(world.journal.open_names())) == (503, 1)
    assert world.caller.get("Patient?identifier=mark|none").status_code == 200
    assert (world.written(), world.journal.open_names()) == (NOTHING, [])


def test_a_key_that_a_healthcare_party_got_meanwhile_stays(world: World) -> None:
    """Nothing of it is encrypted, and who adds a key leaves the time of its change."""
    own, key = world.caller.account["dataOwnerId"], "ab" * 20
    members = "publicKeysForOaepWithSha256"
    practitioner = world.caller.get(f"Practitioner/{own}").json | {"active": True}
    change = {"resource": practitioner, "request": {"method": "PUT", "url": f"Practitioner/{own}"}}
    added: list[int] = []

    def key_added(send: Send, request: Any, options: Any) -> Any:
        party = orjson.loads(send(request, **options).content)
        again = request.copy()
        again.prepare_body(orjson.dumps({**party, members: [*party[members], key]}), None)
        added.append(send(again, **options).status_code)
        return answered(500)(send, request, options)

    world.upstream.faults = lambda at, call: key_added if call == "PUT hcparty" and not added else None
    response = world.caller.post("", {"resourceType": "Bundle", "type": "transaction", "entry": [change]})
    world.upstream.faults = lambda at, call: None
    assert (added, named(response)) == ([200], {0})
    party = orjson.loads(stored(world.data_dir)["HealthcareParty", own][1])
    assert key in party[members]


@pytest.mark.parametrize("how", ["update", "update of a version", "batch with a key"])
def test_what_is_left_of_an_update_is_named_and_not_tried_over(world: World, how: str) -> None:
    """An Observation moves to another patient; its old Contact was changed meanwhile, and undo fails."""
    other = world.caller.created({"resourceType": "Patient", "name": [{"family": "Other"}]})
    moved = {**world.changed, "subject": {"reference": f"Patient/{other['id']}"}}
    url, etag = f"Observation/{moved['id']}", f'W/"{moved["meta"]["versionId"]}"'
    met: list[int] = []

    def faults(at: int, call: str) -> Fault | None:
        if call == "PUT contact" and not met:
            met.append(at)
            return answered(409)
        return answered(500) if met and at <= met[0] + 2 else None

    world.upstream.calls.clear()
    world.upstream.faults = faults
    if how == "batch with a key":
        entry = {"resource": moved, "request": {"method": "PUT", "url": url}}
        sent = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
        told = world.caller.post("", sent, Idempotency_Key=f"moved-{world.run}").json
        issues = told["entry"][0]["response"]["outcome"]["issue"]
    else:
        asked = {"If_Match": etag} if how == "update of a version" else {}
        issues = world.caller.send("PUT", url, moved, **asked).json["issue"]
    world.upstream.faults = lambda at, call: None
    assert "incomplete" in {issue["code"] for issue in issues}
    (entry,) = world.journal.open_entries()
    assert [step.method for step in entry.steps] == ["create", "modify"]
    entry.due = 0
    world.journal.keep(entry)
    assert len(world.caller.get(f"{url}/_history").json["entry"]) == 1
    assert world.journal.open_names() == []


SINGLE = {
    "Patient": {"resourceType": "Patient", "identifier": [{"system": "single", "value": "1"}]},
    "Observation": {"resourceType": "Observation", "status": "final", "code": {"text": "Hb"}},
}


def alive(data_dir: Path) -> set[tuple[str, str]]:
    """Returns the Patients and Contacts that are not deleted."""
    return {
        key
        for key, (_, body) in stored(data_dir).items()
        if key[0] in ("Patient", "Contact") and not orjson.loads(body).get("deletionDate")
    }


@pytest.mark.parametrize("resource", SINGLE.values(), ids=SINGLE)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_single_create_is_there_when_it_says_so_and_only_then(
    world: World, resource: Resource, fault: Fault
) -> None:
    here = 0
    while True:
        before = alive(world.data_dir)
        world.upstream.calls.clear()
        world.upstream.faults = lambda at, call, here=here: fault if at == here else None  # type: ignore[misc]
        response = world.caller.post(resource["resourceType"], resource)
        world.upstream.faults = lambda at, call: None
        added = alive(world.data_dir) - before
        assert len(added) == (response.status_code == 201), response.text
        if response.status_code != 201:
            assert response.json["resourceType"] == "OperationOutcome"
            assert "zanzibar" not in response.text
        if len(world.upstream.calls) <= here:
            break
        here += 1
    assert here == 1
