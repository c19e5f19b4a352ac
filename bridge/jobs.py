"""Work that goes on after its request was answered, as FHIR's asynchronous pattern has it.

Facts: https://hl7.org/fhir/R4/async.html
Strategy: a job runs in a thread of the worker that took it; how far it is, and in the end its answer, lies in the state
where every worker finds it. Its worker holds a lock that dies with it: a running job that nobody holds was broken off.

Rule: a job belongs to the user who began it; for everybody else there is none.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge.errors import BridgeError, Interrupted, NotFound, StateUnavailable, Throttled, explain, outcome
from bridge.state import Hold, State

KIND = "job"
KEPT_SECONDS = 24 * 3600
AT_ONCE = 2
"""How many jobs a worker runs at the same time."""
_FREE = threading.BoundedSemaphore(AT_ONCE)

Told = Callable[[str], None]
"""Tells how far a job is. Raises `Cancelled`."""


class Cancelled(BridgeError):
    """The caller cancelled it."""

    status, code = 410, "deleted"


@dataclass(slots=True)
class Job:
    """What is known of a job; `status` is that of its answer, None while it runs."""

    progress: str = "It has begun."
    status: int | None = None
    resource: Any = field(default=None, repr=False)
    version: str | None = None


def begin(
    state: State,
    user: str,
    work: Callable[[Told], tuple[Any, str | None]],
    unexpected: Callable[[BaseException], None],
) -> str:
    """Returns the id of a job that was begun; `work` returns its resource and the version that it is about.

    `unexpected` hears of an error that nobody foresaw. Raises `Throttled` when this worker has enough to do.
    """
    if not _FREE.acquire(blocking=False):
        raise Throttled("There are enough jobs running; try again later.", headers={"Retry-After": "30"})
    job_id = str(uuid.uuid4())
    name = _name(user, job_id)
    with ExitStack() as undoing:
        undoing.callback(_FREE.release)
        hold = state.hold(KIND, name)
        assert hold is not None  # noqa: S101  nobody else knows this name
        undoing.callback(hold.release)
        _keep(state, name, Job())
        running = _Running(state, name, hold, unexpected)
        threading.Thread(target=running.run, args=(work,), name=KIND, daemon=True).start()
        undoing.pop_all()
    return job_id


def look(state: State, user: str, job_id: str) -> Job:
    """Returns how far a job is. Raises `NotFound`, and `Interrupted` when its worker ended before it was done."""
    name = _name(user, job_id)
    job = _read(state.get(KIND, name))
    if job.status is not None or (hold := state.hold(KIND, name)) is None:
        return job
    try:
        job = _read(state.get(KIND, name))  # it may have ended just now
    finally:
        hold.release()
    if job.status is None:
        raise Interrupted(f"This was broken off: send the request again. {job.progress}")
    return job


def cancel(state: State, user: str, job_id: str) -> None:
    """Forgets a job; one that runs ends with its next step. Raises `NotFound`."""
    name = _name(user, job_id)
    _read(state.get(KIND, name))
    state.put(KIND, name, None)


@dataclass(frozen=True, slots=True)
class _Running:
    """One job, in its thread."""

    state: State
    name: str
    hold: Hold
    unexpected: Callable[[BaseException], None]

    def run(self, work: Callable[[Told], tuple[Any, str | None]]) -> None:
        try:
            with suppress(Cancelled, StateUnavailable):  # nobody waits for it, or it is told as broken off
                self._put(self._ended(work))
        finally:
            self.hold.release()
            _FREE.release()

    def _ended(self, work: Callable[[Told], tuple[Any, str | None]]) -> Job:
        """Returns the job with what its work came to. Raises `Cancelled`."""
        try:
            resource, version = work(self.told)
        except Cancelled:
            raise
        except Exception as e:  # noqa: BLE001  whatever it is, whoever waits is told
            status, issues, _ = explain(e)
            if status == 500:
                self.unexpected(e)
            return Job(status=status, resource=outcome(issues))
        return Job(status=200, resource=resource, version=version)

    def told(self, progress: str) -> None:
        """Keeps how far the job is. Raises `Cancelled` when nobody waits for it any more, and when its lock is lost."""
        self.hold.check()
        self._put(Job(progress))

    def _put(self, job: Job) -> None:
        """Puts the job in place of what was known of it. Raises `Cancelled`."""
        there: list[bool] = []

        def change(old: bytes | None) -> tuple[bytes | None, float | None]:
            there[:] = [old is not None]
            return (orjson.dumps(job), time.time() + KEPT_SECONDS) if old else (None, None)

        self.state.update(KIND, self.name, change)
        if not there[0]:
            raise Cancelled


def _name(user: str, job_id: str) -> str:
    return f"{user}\0{job_id}"


def _keep(state: State, name: str, job: Job) -> None:
    state.put(KIND, name, orjson.dumps(job), time.time() + KEPT_SECONDS)


def _read(kept: bytes | None) -> Job:
    if kept is None:
        raise NotFound("There is no such job of yours.")
    return Job(**orjson.loads(kept))
