"""Jobs: told to who began them, however they end."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge import jobs
from bridge.errors import BusinessRule, Interrupted, NotFound, StateUnavailable, Throttled
from bridge.jobs import Job, Told
from bridge.state import State
from tests.helpers import eventually, redis_serving
from tests.test_state import opened, taken_away


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest) -> str:
    """Each test runs over both kinds of state."""
    return str(request.getfixturevalue({"sqlite": "tmp_path", "redis": "redis_url"}[request.param]))


@pytest.fixture
def state(place: str) -> State:
    return opened(place)


@pytest.fixture(autouse=True)
def over() -> Iterator[None]:
    """Has a test leave no job that takes room from the next."""
    yield
    eventually(nothing_runs)


def nothing_runs() -> bool:
    return not any(thread.name == jobs.KIND for thread in threading.enumerate())


def quiet(error: BaseException) -> None:
    raise AssertionError("nothing unforeseen happens here") from error


def ended(state: State, user: str, job_id: str) -> Job:
    """The job once it has ended."""
    eventually(lambda: jobs.look(state, user, job_id).status is not None)
    return jobs.look(state, user, job_id)


def test_a_job_tells_its_progress_and_then_its_answer(state: State) -> None:
    go_on, told = threading.Event(), threading.Event()

    def work(tell: Told) -> tuple[Any, str | None]:
        tell("half")
        told.set()
        assert go_on.wait(120)
        return {"resourceType": "Parameters"}, "7"

    job_id = jobs.begin(state, "ann", work, quiet)
    assert told.wait(120)
    assert jobs.look(state, "ann", job_id) == Job("half")
    go_on.set()
    job = ended(state, "ann", job_id)
    assert (job.status, job.resource, job.version) == (200, {"resourceType": "Parameters"}, "7")
    assert jobs.look(state, "ann", job_id) == job


def test_a_job_is_nobody_elses(state: State) -> None:
    job_id = jobs.begin(state, "ann", lambda tell: ({}, None), quiet)
    ended(state, "ann", job_id)
    for user, name in (("bob", job_id), ("ann", "another")):
        for act in (jobs.look, jobs.cancel):
            with pytest.raises(NotFound):
                act(state, user, name)


def failing(error: BaseException) -> Callable[[Told], tuple[Any, str | None]]:
    def work(tell: Told) -> tuple[Any, str | None]:
        raise error

    return work


def test_what_went_wrong_is_the_answer(state: State) -> None:
    job = ended(state, "ann", jobs.begin(state, "ann", failing(BusinessRule("not so")), quiet))
    assert job.status == 422
    assert job.resource["issue"][0]["diagnostics"] == "not so"


def test_what_nobody_foresaw_is_told_without_its_text(state: State) -> None:
    heard: list[BaseException] = []
    job = ended(state, "ann", jobs.begin(state, "ann", failing(ValueError("secret")), heard.append))
    assert job.status == 500
    assert "secret" not in str(job)
    assert [str(error) for error in heard] == ["secret"]


def test_a_cancelled_job_ends_with_its_next_step(state: State) -> None:
    begun, go_on, after = threading.Event(), threading.Event(), threading.Event()

    def work(tell: Told) -> tuple[Any, str | None]:
        begun.set()
        assert go_on.wait(120)
        try:
            tell("on")
        except jobs.Cancelled:
            after.set()
            raise
        return {}, None

    job_id = jobs.begin(state, "ann", work, quiet)
    assert begun.wait(120)
    jobs.cancel(state, "ann", job_id)
    go_on.set()
    assert after.wait(120)
    with pytest.raises(NotFound):
        jobs.look(state, "ann", job_id)


def test_a_worker_runs_so_many_jobs_at_once(state: State) -> None:
    go_on = threading.Event()
    begun = [
        jobs.begin(state, "ann", lambda tell: ({}, str(go_on.wait(120))), quiet) for _ in range(jobs.AT_ONCE)
    ]
    with pytest.raises(Throttled):
        jobs.begin(state, "ann", lambda tell: ({}, None), quiet)
    go_on.set()
    for job_id in begun:
        ended(state, "ann", job_id)
    deadline = time.monotonic() + 120
    while True:
        try:
            job_id = jobs.begin(state, "ann", lambda tell: ({}, None), quiet)
            break
        except Throttled:
            assert time.monotonic() < deadline
    ended(state, "ann", job_id)


def _forever(place: str, told: Any) -> None:
    def work(tell: Told) -> tuple[Any, str | None]:
        tell("50 of 200 documents are done.")
        told.put(job_id.get())
        threading.Event().wait()
        raise AssertionError

    job_id: queue.Queue[str] = queue.Queue()
    job_id.put(jobs.begin(opened(place, lease_seconds=10), "ann", work, quiet))
    threading.Event().wait()


def is_broken_off(state: State, job_id: str) -> bool:
    try:
        jobs.look(state, "ann", job_id)
    except Interrupted:
        return True
    return False


def test_a_job_whose_worker_was_killed_is_told_as_broken_off(state: State, place: str) -> None:
    fresh = multiprocessing.get_context("spawn")
    told = fresh.Queue()
    worker = fresh.Process(target=_forever, args=(place, told))
    worker.start()
    job_id = told.get(timeout=120)
    assert jobs.look(state, "ann", job_id) == Job("50 of 200 documents are done.")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    eventually(lambda: is_broken_off(state, job_id))
    with pytest.raises(Interrupted, match="50 of 200"):
        jobs.look(state, "ann", job_id)
    jobs.cancel(state, "ann", job_id)
    with pytest.raises(NotFound):
        jobs.look(state, "ann", job_id)


def test_a_job_that_lost_its_lock_ends(state: State, place: str) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(tell: Told) -> tuple[Any, str | None]:
        begun.set()
        assert go_on.wait(120)
        while True:
            tell("on")
            time.sleep(0.01)

    job_id = jobs.begin(state, "ann", work, quiet)
    assert begun.wait(120)
    taken_away(state, place, jobs.KIND, f"ann\0{job_id}")
    go_on.set()
    deadline = time.monotonic() + 120
    while True:
        try:
            job = jobs.look(state, "ann", job_id)
        except Interrupted:
            job = Job()
        if job.status is not None:
            break
        assert time.monotonic() < deadline
    assert job.status == StateUnavailable.status


def test_a_job_that_was_cancelled_and_then_failed_is_forgotten(state: State) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work(tell: Told) -> tuple[Any, str | None]:
        begun.set()
        assert go_on.wait(120)
        raise BusinessRule("not so")

    job_id = jobs.begin(state, "ann", work, quiet)
    assert begun.wait(120)
    jobs.cancel(state, "ann", job_id)
    go_on.set()
    eventually(nothing_runs)
    with pytest.raises(NotFound):
        jobs.look(state, "ann", job_id)


def test_a_job_whose_answer_cannot_be_kept_is_told_as_broken_off(tmp_path: Path) -> None:
    """A worker has room for others afterwards."""
    with redis_serving(tmp_path) as (_, url):
        state = opened(url)
        go_on = threading.Event()
        job_id = jobs.begin(state, "ann", lambda tell: ({}, str(go_on.wait(120))), quiet)
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", "1")
            for _ in range(2 * jobs.AT_ONCE):
                with pytest.raises(StateUnavailable):
                    jobs.begin(state, "ann", lambda tell: ({}, None), quiet)
            go_on.set()
            eventually(nothing_runs)
            client.config_set("maxmemory", "0")
        eventually(lambda: is_broken_off(state, job_id))
        ended(state, "ann", jobs.begin(state, "ann", lambda tell: ({}, None), quiet))
