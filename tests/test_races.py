"""Several workers that decide on the same thing at once: one of them does it.

Strategy: real processes, each stopped between its look-up and its first write until all of them stand there, or until
it is clear that they do not.
"""

from __future__ import annotations

import multiprocessing
from threading import BrokenBarrierError
from typing import Any

import pytest

from bridge.app import create_app
from bridge.config import Config
from tests.helpers import Caller
from tests.test_crash import Watched

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
    "entry of a transaction": ("POST", "", bundle("transaction", **IF_NONE), {}),
    "entry of a batch": ("POST", "", bundle("batch", **IF_NONE), {}),
    "one key": ("POST", "Patient", PATIENT, {"Idempotency_Key": "k"}),
    "one key of a transaction": ("POST", "", bundle("transaction"), {"Idempotency_Key": "k"}),
    "one key of a batch": ("POST", "", bundle("batch"), {"Idempotency_Key": "k"}),
    "one body": ("POST", "", bundle("transaction"), {}),
}


@pytest.mark.parametrize(("method", "path", "body", "headers"), CONDITIONAL.values(), ids=CONDITIONAL)
def test_of_several_workers_stopped_before_their_write_one_writes(
    esmith: Caller, config: Config, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    gate, told = forked.Barrier(WORKERS), forked.Queue()

    def stop(at: int, when: str) -> None:
        if (at, when) == (1, "before"):
            try:
                gate.wait(1)
            except BrokenBarrierError:
                return

    def work() -> None:
        app = create_app(config)
        Watched(app, stop)
        answer = Caller(app, esmith.account).send(method, path, body, **headers)
        told.put((answer.status_code, answer.text))

    processes = [forked.Process(target=work) for _ in range(WORKERS)]
    for process in processes:
        process.start()
    answers = [told.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert {status for status, _ in answers} <= {200, 201}, answers
    assert len(esmith.found("Patient?identifier=mark|one")) == 1
