"""Several workers that decide on the same thing at once: one of them does it.

Strategy: real processes, each stopped between its look-up and its first write until all of them stand there or before
a lock, and then for as long as it takes to be clear that those before a lock do not get it.
"""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from threading import BrokenBarrierError
from typing import Any

import pytest

from bridge.app import create_app
from bridge.config import Config
from bridge.state import Hold, State
from tests.helpers import Caller, eventually
from tests.test_crash import Watched
from tests.test_interactions import delegate_to

forked = multiprocessing.get_context("fork")
WORKERS = 4
PATIENT = {"resourceType": "Patient", "identifier": [{"system": "mark", "value": "one"}]}
POST = {"method": "POST", "url": "Patient"}
IF_NONE = {"ifNoneExist": "identifier=mark|one"}


def bundle(kind: str, **request: str) -> dict[str, Any]:
    return {
        "resourceType": "Bundle",
        "type": kind,
        "entry": [{"resource": PATIENT, "request": POST | request}],
    }


CONDITIONAL: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "conditional create": ("POST", "Patient", PATIENT, {"If_None_Exist": "identifier=mark|one"}),
    "conditional create, otherwise written": (
        "POST",
        "Patient",
        PATIENT,
        {"If_None_Exist": "Patient?identifier=mark%7Cone"},
    ),
    "conditional update": ("PUT", "Patient?identifier=mark|one", PATIENT, {}),
    "entry of a transaction": ("POST", "", bundle("transaction", **IF_NONE), {"Idempotency_Key": "k{}"}),
    "entry of a batch": ("POST", "", bundle("batch", **IF_NONE), {}),
    "one key": ("POST", "Patient", PATIENT, {"Idempotency_Key": "k"}),
    "one key of a transaction": ("POST", "", bundle("transaction"), {"Idempotency_Key": "k"}),
    "one key of a batch": ("POST", "", bundle("batch"), {"Idempotency_Key": "k"}),
    "one body": ("POST", "", bundle("transaction"), {}),
}


def answers_at_once(
    config: Config, callers: list[Caller], method: str, path: str, body: Any, headers: dict[str, str]
) -> list[tuple[int, Any]]:
    """Returns what several workers answer who stand together before their first write: status and body.

    `{}` in a header is another for each.
    """
    gate, told = forked.Barrier(WORKERS), forked.Queue()
    come = [forked.Event() for _ in range(WORKERS)]

    def work(at: int) -> None:
        hold = State.hold

        def stop(call: int, when: str) -> None:
            come[at].set()
            if (call, when) == (1, "before"):
                eventually(lambda: all(one.is_set() for one in come))
                with suppress(BrokenBarrierError):
                    gate.wait(1)

        def waiting(self: State, kind: str, name: str, wait: float = 0) -> Hold | None:
            if wait:
                come[at].set()
            return hold(self, kind, name, wait)

        State.hold = waiting  # type: ignore[method-assign]  of this process
        app = create_app(config)
        Watched(app, stop)
        answer = Caller(app, callers[at % len(callers)].account).send(
            method, path, body, **{name: value.format(at) for name, value in headers.items()}
        )
        told.put((answer.status_code, answer.json))

    processes = [forked.Process(target=work, args=[at]) for at in range(WORKERS)]
    for process in processes:
        process.start()
    answers = [told.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
    return answers


@pytest.mark.parametrize(("method", "path", "body", "headers"), CONDITIONAL.values(), ids=CONDITIONAL)
def test_of_several_workers_stopped_before_their_write_one_writes(
    esmith: Caller, config: Config, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    answers = answers_at_once(config, [esmith], method, path, body, headers)
    assert {status for status, _ in answers} <= {200, 201}, answers
    assert len(esmith.found("Patient?identifier=mark|one")) == 1


def test_of_workers_for_two_who_see_each_others_data_one_creates(
    esmith: Caller, jdoe: Caller, config: Config
) -> None:
    both = [esmith, jdoe]
    for caller, other in (both, reversed(both)):
        delegate_to(caller.app, caller.account, {"all": [other.account["dataOwnerId"]]})
    headers = {"If_None_Exist": "identifier=mark|one"}
    answers = answers_at_once(config, both, "POST", "Patient", PATIENT, headers)
    assert {status for status, _ in answers} <= {200, 201}, answers
    assert len(esmith.found("Patient?identifier=mark|one")) == 1


OBSERVATION = {
    "resourceType": "Observation",
    "id": "one",
    "status": "final",
    "code": {"coding": [{"system": "mark", "code": "one"}]},
}
UNLESS_THERE = {
    "resource": OBSERVATION,
    "request": {"method": "PUT", "url": "Observation/one", "ifNoneMatch": "*"},
}
BATCH = {"resourceType": "Bundle", "type": "batch", "entry": [UNLESS_THERE]}
ABSENT: dict[str, tuple[str, str, Any, dict[str, str]]] = {
    "update": ("PUT", "Observation/one", OBSERVATION, {"If_None_Match": "*"}),
    "entry of a transaction": ("POST", "", {**BATCH, "type": "transaction"}, {"Idempotency_Key": "k{}"}),
    "entry of a batch": ("POST", "", BATCH, {}),
}


@pytest.mark.parametrize(("method", "path", "body", "headers"), ABSENT.values(), ids=ABSENT)
def test_of_several_workers_who_must_find_nothing_under_an_id_one_creates(
    esmith: Caller, config: Config, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    answers = answers_at_once(config, [esmith], method, path, body, headers)
    assert {status for status, _ in answers} <= {200, 201, 412}, answers
    assert len(esmith.get("Observation/one/_history").json["entry"]) == 1


def test_of_several_workers_who_put_what_is_not_there_yet_one_says_that_it_created_it(
    esmith: Caller, config: Config
) -> None:
    answers = answers_at_once(config, [esmith], "PUT", "Observation/one", OBSERVATION, {})
    assert sorted(status for status, _ in answers) == [200] * (WORKERS - 1) + [201], answers
    assert len(esmith.found("Observation?code=mark|one")) == 1
