"""Who was shown which patient stands in iCure afterwards, and no read waits or fails for it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge import accesslog
from bridge.app import EMBEDDED_URL, create_app
from bridge.config import Config
from bridge.crypto import envelope
from tests.helpers import (
    DEMO_PATIENT,
    Account,
    Caller,
    Counting,
    Remote,
    basic,
    count_calls,
    eventually,
    serving,
    stored,
)
from tests.sdk.client import Sdk, install

READ = f"Patient/{DEMO_PATIENT}"


@pytest.fixture
def jdoe(logging_app: Any, accounts: dict[str, Account]) -> Caller:
    caller = Caller(logging_app, accounts["jdoe"])
    assert caller.load_key().status_code == 200
    return caller


@pytest.fixture
def logging_app(config: Config) -> Any:
    app = create_app(replace(config, access_log=True))
    app.testing = True
    return app


@pytest.fixture
def esmith(logging_app: Any, accounts: dict[str, Account]) -> Caller:
    caller = Caller(logging_app, accounts["esmith"])
    assert caller.load_key().status_code == 200
    return caller


def access_log_of(caller: Caller) -> accesslog.AccessLog:
    log: accesslog.AccessLog = caller.app.extensions["bridge"].access_log
    return log


def kept(data_dir: Path) -> list[dict[str, Any]]:
    """Returns the access logs in the store as they lie there, the oldest first."""
    logs = [json.loads(body) for (kind, _), (_, body) in stored(data_dir).items() if kind == "AccessLog"]
    return sorted(logs, key=lambda log: log["date"])


def opened(caller: Caller, log: dict[str, Any]) -> dict[str, Any]:
    """Returns an access log as its owner reads it, with the id of the patient that it belongs to."""
    scope = caller.app.extensions["bridge"].scope(basic(caller.account), "")
    entity, found = envelope.open_entity(scope.keyring, log, "AccessLog")
    return {**entity, "owner": found.owning_ids}


def test_a_read_leaves_a_log_that_only_who_may_reads_whole(esmith: Caller, data_dir: Path) -> None:
    before = time.time_ns() // 1_000_000
    assert esmith.get(READ).status_code == 200
    access_log_of(esmith).write()
    (log,) = kept(data_dir)
    assert before <= log["date"] <= time.time_ns() // 1_000_000
    user = esmith.get("/rest/v2/user/current").json
    assert (log["user"], log["accessType"]) == (user["id"], "USER_ACCESS")
    assert log["responsible"] == esmith.account["dataOwnerId"]
    assert DEMO_PATIENT not in json.dumps(log)
    assert not {"objectId", "patientId", "detail"} & log.keys()
    whole = opened(esmith, log)
    assert whole["objectId"] == whole["patientId"] == DEMO_PATIENT
    assert whole["owner"] == (DEMO_PATIENT,)


SHOWING: dict[str, tuple[Callable[[Caller], Any], int]] = {
    "read": (lambda c: c.get(READ), 1),
    "part of it": (lambda c: c.get(f"{READ}?_elements=name"), 1),
    "search": (lambda c: c.get("Patient?name=van"), 1),
    "search by POST": (lambda c: search_by_post(c), 1),
    "search that finds nobody": (lambda c: c.get("Patient?name=nobody"), 0),
    "history": (lambda c: c.get(f"{READ}/_history"), 1),
    "version": (lambda c: c.get(f"{READ}/_history/{version(c)}"), 1),
    "version that is not kept": (lambda c: c.get(f"{READ}/_history/none"), 0),
    "patch that changes nothing": (lambda c: patched(c, READ), 1),
    "conditional patch": (lambda c: patched(c, f"Patient?_id={DEMO_PATIENT}"), 1),
    "conditional create": (lambda c: c.post("Patient", OTHER, If_None_Exist=f"_id={DEMO_PATIENT}"), 1),
    "create": (lambda c: c.post("Patient", OTHER), 0),
    "conditional create in a transaction": (lambda c: c.post("", unless(f"_id={DEMO_PATIENT}")), 1),
    "$everything": (lambda c: c.get(f"{READ}/$everything"), 1),
    "entry of a batch": (lambda c: c.post("", batch(READ)), 1),
    "search in a batch": (lambda c: c.post("", batch("Patient?name=van")), 1),
    "who is not there": (lambda c: c.get("Patient/nobody"), 0),
    "observations": (lambda c: c.get(f"Observation?subject={READ}"), 0),
    "parties": (lambda c: c.get("Practitioner/f005"), 0),
    "capabilities": (lambda c: c.get("metadata"), 0),
}


def search_by_post(caller: Caller) -> Any:
    form = "application/x-www-form-urlencoded"
    return caller.post("Patient/_search", b"name=van", Content_Type=form)


OTHER = {"resourceType": "Patient", "name": [{"family": "Other"}]}


def version(caller: Caller) -> str:
    """Returns the version of the demo patient, as iCure says."""
    return str(caller.get(f"/rest/v2/patient/{DEMO_PATIENT}").json["rev"])


def patched(caller: Caller, url: str) -> Any:
    return caller.send("PATCH", url, b"[]", Content_Type="application/json-patch+json")


def unless(condition: str) -> dict[str, Any]:
    entry = {"resource": OTHER, "request": {"method": "POST", "url": "Patient", "ifNoneExist": condition}}
    return {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}


def batch(url: str) -> dict[str, Any]:
    entry = {"request": {"method": "GET", "url": url}}
    return {"resourceType": "Bundle", "type": "batch", "entry": [entry]}


@pytest.mark.parametrize(("show", "times"), SHOWING.values(), ids=SHOWING)
def test_whatever_shows_a_patient_leaves_a_log(
    esmith: Caller, data_dir: Path, show: Callable[[Caller], Any], times: int
) -> None:
    assert show(esmith).status_code in (200, 201, 404)
    access_log_of(esmith).write()
    assert [opened(esmith, log)["objectId"] for log in kept(data_dir)] == [DEMO_PATIENT] * times


def test_a_patient_that_comes_along_was_shown_too(esmith: Caller, data_dir: Path) -> None:
    subject = {"reference": READ}
    esmith.created(
        {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": subject}
    )
    assert len(esmith.found("Observation?_include=Observation:subject")) == 1
    access_log_of(esmith).write()
    assert len(kept(data_dir)) == 1


def test_nothing_is_logged_unless_it_is_asked_for(
    app: Any, accounts: dict[str, Account], data_dir: Path
) -> None:
    caller = Caller(app, accounts["esmith"])
    caller.load_key()
    assert caller.get(READ).status_code == 200
    assert app.extensions["bridge"].access_log is None
    assert kept(data_dir) == []


def test_a_read_asks_icure_no_more_than_without(esmith: Caller) -> None:
    esmith.get(READ)
    calls = count_calls(esmith.app)
    esmith.get(READ)
    assert calls.told() == [f"GET patient/{DEMO_PATIENT}"]


def test_many_logs_go_in_few_calls(esmith: Caller, data_dir: Path) -> None:
    for _ in range(2 * accesslog.BATCH):
        esmith.get(READ)
    calls = count_calls(esmith.app)
    log = access_log_of(esmith)
    while log.waiting:
        log.write()
    assert calls.told() == [
        f"GET exchangedata/byDelegatorDelegate/{esmith.account['dataOwnerId']}/{esmith.account['dataOwnerId']}",
        "POST accesslog/batch",
        "POST accesslog/batch",
    ]
    assert len(kept(data_dir)) == 2 * accesslog.BATCH


class Faulty(Counting):
    """Lets calls about access logs fail, before they arrive or after."""

    fault = ""

    def send(self, request: Any, **options: Any) -> Any:
        if "accesslog" in request.path_url and self.fault:
            if self.fault == "lost answer":
                super().send(request, **options)
            if self.fault != "refused":
                raise requests.ConnectionError("broken")
            request.url = request.url.replace("accesslog", "accesslog/none")
        return super().send(request, **options)


@pytest.fixture
def faulty(esmith: Caller) -> Iterator[Faulty]:
    session = esmith.app.extensions["bridge"].upstream.session
    adapter = Faulty(session.get_adapter(EMBEDDED_URL))
    session.mount(EMBEDDED_URL, adapter)
    yield adapter


@pytest.mark.parametrize("fault", ["unreachable", "lost answer"])
def test_what_cannot_be_written_now_is_written_later_and_once(
    esmith: Caller, data_dir: Path, faulty: Faulty, fault: str
) -> None:
    log = access_log_of(esmith)
    faulty.fault = fault
    for _ in range(3):
        assert esmith.get(READ).status_code == 200
    for _ in range(2):
        with pytest.raises(accesslog.PASSING):
            log.write()
    assert log.waiting == 3
    faulty.fault = ""
    log.write()
    assert (log.waiting, log.lost()) == (0, 0)
    assert len(kept(data_dir)) == 3


def test_an_icure_without_batches_gets_them_one_by_one(esmith: Caller, data_dir: Path) -> None:
    class Single(Counting):
        def send(self, request: Any, **options: Any) -> Any:
            if request.path_url.endswith("accesslog/batch"):
                request.url = request.url.replace("accesslog/batch", "no/such/route")
            return super().send(request, **options)

    session = esmith.app.extensions["bridge"].upstream.session
    session.mount(EMBEDDED_URL, Single(session.get_adapter(EMBEDDED_URL)))
    for _ in range(2):
        esmith.get(READ)
    access_log_of(esmith).write()
    assert len(kept(data_dir)) == 2


def test_what_finds_no_room_is_lost_and_told(esmith: Caller, data_dir: Path) -> None:
    log = access_log_of(esmith)
    log._room = 2
    for _ in range(5):
        assert esmith.get(READ).status_code == 200
    log.write()
    assert len(kept(data_dir)) == 2
    assert (log.lost(), log.lost()) == (3, 0)


def test_what_icure_refuses_is_lost_and_told(
    esmith: Caller, accounts: dict[str, Account], data_dir: Path, faulty: Faulty
) -> None:
    faulty.fault = "refused"
    assert esmith.get(READ).status_code == 200
    log = access_log_of(esmith)
    log.write()
    assert (log.waiting, log.lost()) == (0, 1)
    assert kept(data_dir) == []


def test_one_caller_whose_logs_cannot_be_written_holds_up_no_other(
    esmith: Caller, jdoe: Caller, data_dir: Path
) -> None:
    whose = jdoe.get("/rest/v2/user/current").json["id"]

    class Against(Counting):
        faulty = True

        def send(self, request: Any, **options: Any) -> Any:
            if self.faulty and "accesslog" in request.path_url and whose.encode() in request.body:
                raise requests.ConnectionError("broken")
            return super().send(request, **options)

    session = esmith.app.extensions["bridge"].upstream.session
    against = Against(session.get_adapter(EMBEDDED_URL))
    session.mount(EMBEDDED_URL, against)
    other = jdoe.created(OTHER)["id"]
    assert jdoe.get(f"Patient/{other}").status_code == 200
    log = access_log_of(esmith)
    for shown in range(3):
        assert esmith.get(READ).status_code == 200
        for _ in range(2):
            with suppress(*accesslog.PASSING):
                log.write()
        assert len(kept(data_dir)) == shown + 1
    assert (log.waiting, log.lost()) == (1, 0)
    against.faulty = False
    log.write()
    assert [log["user"] == whose for log in kept(data_dir)].count(True) == 1


def test_while_icure_is_away_little_more_is_made_than_can_be_sent(
    esmith: Caller, data_dir: Path, faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accesslog, "BATCH", 1)
    monkeypatch.setattr(accesslog, "MOST_UNSENT", 2)
    for _ in range(5):
        assert esmith.get(READ).status_code == 200
    log = access_log_of(esmith)
    faulty.fault = "unreachable"
    for _ in range(5):
        with pytest.raises(accesslog.PASSING):
            log.write()
    assert (len(log._unsent), len(log._waiting)) == (2, 3)
    faulty.fault = ""
    log.stop(60)
    assert (log.waiting, log.lost(), len(kept(data_dir))) == (0, 0, 5)


def test_somebody_without_a_key_with_whom_everything_is_shared_costs_no_log(
    logging_app: Any, esmith: Caller, data_dir: Path
) -> None:
    users = "/rest/icdx/v1/users"
    owner = esmith.account["dataOwnerId"]
    (me,) = esmith.get(f"{users}?healthcarePartyId={owner}").json["users"]
    delegations = {"administrativeData": ["1"]}
    changed = {"login": "esmith", "healthcarePartyId": owner, "autoDelegations": delegations}
    assert esmith.send("PUT", f"{users}/{me['id']}", changed).status_code == 200
    token = esmith.post("/rest/icdx/v1/tokens", {}).json["token"]
    anew = Caller(logging_app, {**esmith.account, "password": token})
    assert anew.load_key().status_code == 200
    assert anew.get(READ).status_code == 200
    log = access_log_of(anew)
    log.write()
    assert (len(kept(data_dir)), log.lost()) == (1, 0)


def test_who_stops_does_not_wait_for_an_icure_that_does_not_answer(esmith: Caller) -> None:
    answers = threading.Event()

    class Hanging(Counting):
        def send(self, request: Any, **options: Any) -> Any:
            answers.wait()
            return super().send(request, **options)

    assert esmith.get(READ).status_code == 200
    session = esmith.app.extensions["bridge"].upstream.session
    session.mount(EMBEDDED_URL, Hanging(session.get_adapter(EMBEDDED_URL)))
    log = access_log_of(esmith)
    log.stop(0.1)
    assert log.lost() == 1
    answers.set()


def test_the_thread_takes_its_share_unless_the_room_runs_out() -> None:
    log = accesslog.AccessLog({}, room=4)
    assert log.pause(0) == accesslog.PAUSE_SECONDS
    assert log.pause(1) == pytest.approx(1 / accesslog.SHARE - 1)
    log._waiting.extend([None] * 3)  # type: ignore[list-item]
    assert log.pause(1) == 0


def test_a_server_writes_by_itself(data_dir: Path, accounts: dict[str, Account]) -> None:
    with serving(data_dir, BRIDGE_ACCESS_LOG="on") as server:
        caller = Remote(server, accounts["esmith"])
        caller.load_key()
        for _ in range(4):
            caller.get(READ)
        eventually(lambda: len(kept(data_dir)) >= 4)
    assert len(kept(data_dir)) == 4


def test_a_server_that_is_stopped_writes_what_is_left(data_dir: Path, accounts: dict[str, Account]) -> None:
    with serving(data_dir, BRIDGE_ACCESS_LOG="on") as server:
        caller = Remote(server, accounts["esmith"])
        caller.load_key()
        for _ in range(20):
            caller.get(READ)
    assert len(kept(data_dir)) == 20


def test_the_sdk_reads_who_was_shown_its_patient(data_dir: Path, accounts: dict[str, Account]) -> None:
    install()
    account = accounts["esmith"]
    with serving(data_dir, BRIDGE_ACCESS_LOG="on") as server:
        caller = Remote(server, account)
        caller.load_key()
        caller.get(READ)
        caller.created({"resourceType": "Patient", "name": [{"family": "Other"}]})
        eventually(lambda: kept(data_dir))
        with Sdk.start(
            server.url, account["login"], account["password"], account["dataOwnerId"], account["privateKey"]
        ) as sdk:
            (log,) = sdk.find_access_logs(DEMO_PATIENT)
            assert log["objectId"] == log["patientId"] == DEMO_PATIENT
            assert log["accessType"] == "USER_ACCESS"
            assert log["user"] == sdk.current_user()["id"]
            assert sdk.patient_of_access_log(log["id"]) == [DEMO_PATIENT]
