from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge import state as state_module
from bridge.errors import StateUnavailable
from bridge.state import Hold, Sqlite, State, deployment_secret
from bridge.state.redis import LEASE_SECONDS, Redis
from tests.helpers import eventually

SECRET = b"s" * 32
forked = multiprocessing.get_context("fork")
spawned = multiprocessing.get_context("spawn")


def opened(place: str, secret: bytes = SECRET, lease_seconds: float = LEASE_SECONDS) -> State:
    """Returns the state of a place: a folder, or the URL of a Redis."""
    is_redis = place.startswith("redis://")
    return State(Redis(place, lease_seconds) if is_redis else Sqlite(Path(place)), secret)


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue({"sqlite": "tmp_path", "redis": "redis_url"}[request.param]))


@pytest.fixture
def state(place: str) -> State:
    return opened(place)


@pytest.fixture
def on_sqlite(tmp_path: Path) -> State:
    return opened(str(tmp_path))


def rows(folder: Path) -> list[tuple[str, bytes, float | None]]:
    with closing(sqlite3.connect(folder / "state.db")) as db:
        return db.execute("SELECT name, value, ends FROM state").fetchall()


def everything(url: str) -> bytes:
    """Returns all keys and values of a Redis."""
    seen: list[bytes] = []
    with redis.Redis.from_url(url) as client:
        for key in {*client.scan_iter()}:
            is_set = client.type(key) == b"set"
            seen += [key, *(client.smembers(key) if is_set else [client.get(key) or b"ended meanwhile"])]
    return b"\n".join(seen)


def in_processes(context: Any, count: int, target: Callable[..., None], *args: object) -> None:
    """Runs a function in so many processes at once; all must end well."""
    processes = [context.Process(target=target, args=args) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


def test_a_value_is_kept_until_it_is_replaced_or_deleted(state: State) -> None:
    assert state.get("kind", "name") is None
    state.put("kind", "name", b"one")
    assert state.get("kind", "name") == b"one"
    state.put("kind", "name", b"two")
    assert state.get("kind", "name") == b"two"
    assert state.get("other", "name") is None
    assert state.get("kind", "other") is None
    state.put("kind", "name", None)
    assert state.get("kind", "name") is None


def test_a_kind_and_a_name_do_not_run_together(state: State) -> None:
    state.put("ab", "c", b"one")
    assert state.get("a", "bc") is None


def test_another_state_of_the_same_place_and_secret_sees_the_same(state: State, place: str) -> None:
    state.put("kind", "name", b"value")
    assert opened(place).get("kind", "name") == b"value"


def test_under_another_secret_there_is_nothing(state: State, place: str) -> None:
    state.put("kind", "name", b"value", listed=True)
    other = opened(place, b"o" * 32)
    assert other.listed("kind") == []
    assert other.get("kind", "name") is None
    other.put("kind", "name", b"other")
    assert state.get("kind", "name") == b"value"


def test_neither_name_nor_value_lie_in_clear_in_redis(redis_url: str) -> None:
    state = opened(redis_url)
    state.put("canary-kind", "canary-name", b"canary-value", listed=True)
    with state.lock("canary-kind", "canary-lock"):
        held = everything(redis_url)
    assert held.count(b"fhir-bridge:") == 4
    assert b"canary" not in held


def test_neither_name_nor_value_lie_in_clear_in_files(on_sqlite: State, tmp_path: Path) -> None:
    on_sqlite.put("canary-kind", "canary-name", b"canary-value", listed=True)
    with on_sqlite.lock("canary-kind", "canary-lock"):
        names = "\n".join(str(path) for path in tmp_path.rglob("*"))
    held = b"".join(f.read_bytes() for f in tmp_path.rglob("*") if f.is_file())
    assert rows(tmp_path)
    assert b"canary" not in held
    assert "canary" not in names.removeprefix(str(tmp_path))


def test_files_are_for_their_owner_only(on_sqlite: State, tmp_path: Path) -> None:
    on_sqlite.put("kind", "name", b"value")
    with on_sqlite.lock("kind", "name"):
        modes = {p.relative_to(tmp_path): p.stat().st_mode & 0o077 for p in tmp_path.rglob("*")}
    assert {"state.db", "state.db-wal", "locks"} <= {str(p) for p in modes}
    assert set(modes.values()) == {0}


@pytest.mark.parametrize("spoil", [lambda v: v[:-1] + bytes([v[-1] ^ 1]), lambda v: b"", lambda v: v[:10]])
def test_a_spoiled_value_is_none(state: State, spoil: Callable[[bytes], bytes]) -> None:
    state.put("kind", "name", b"value")
    state._backend.update(state._hide("kind", "name"), lambda sealed: (spoil(sealed or b""), None))
    assert state.get("kind", "name") is None


def test_a_value_moved_to_another_name_is_none(state: State) -> None:
    state.put("kind", "rich", b"1000")
    sealed = state._backend.get(state._hide("kind", "rich"))
    state._backend.put(state._hide("kind", "poor"), sealed, None)
    assert state.get("kind", "poor") is None


def test_a_large_value_is_kept(state: State) -> None:
    large = os.urandom(1_000_000) * 30
    state.put("kind", "large", large, listed=True)
    assert [state.at(hidden) == large for hidden in state.listed("kind")] == [True]
    seen: set[bool] = set()
    state.update("kind", "large", lambda old: (seen.add(old == large), (None, None))[1])
    assert seen == {True}
    assert state.get("kind", "large") is None


def test_a_value_ends_when_it_was_said_to(state: State) -> None:
    soon = time.time() + 2
    state.put("kind", "soon", b"value", soon)
    state.put("kind", "later", b"value", soon + 600)
    found = state.get("kind", "soon")
    assert found == b"value" or time.time() >= soon
    time.sleep(max(0, soon + 0.05 - time.time()))
    eventually(lambda: state.get("kind", "soon") is None)  # Redis counts from when it is told
    assert state.get("kind", "later") == b"value"
    seen: set[bytes | None] = set()
    state.update("kind", "soon", lambda old: (seen.add(old), (None, None))[1])
    assert seen == {None}


def test_what_has_ended_is_removed_from_the_file_by_a_write(
    on_sqlite: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.state.sqlite.SWEEP_SECONDS", 0)
    on_sqlite.put("kind", "early", b"value")
    on_sqlite.put("kind", "soon", b"value", time.time() + 0.1)
    time.sleep(0.15)
    on_sqlite.put("kind", "other", b"value")
    assert len(rows(tmp_path)) == 2


def test_what_is_listed_is_found_without_its_name(state: State) -> None:
    assert state.listed("kind") == []
    state.put("kind", "one", b"1", listed=True)
    state.put("kind", "two", b"2", time.time() + 60, listed=True)
    state.put("kind", "unlisted", b"3")
    state.put("other", "one", b"4", listed=True)
    assert sorted(state.at(hidden) or b"" for hidden in state.listed("kind")) == [b"1", b"2"]
    assert [state.at(hidden) for hidden in state.listed("other")] == [b"4"]
    assert not {"one", "two"} & set(state.listed("kind"))


LEAVING: dict[str, Callable[[State], object]] = {
    "deleted": lambda state: state.put("kind", "name", None),
    "deleted by a change": lambda state: state.update("kind", "name", lambda _: (None, None), listed=True),
    "put unlisted": lambda state: state.put("kind", "name", b"2"),
    "changed unlisted": lambda state: state.update("kind", "name", lambda old: (old, None)),
    "ended": lambda state: state.put("kind", "name", b"2", time.time() - 1, listed=True),
}


@pytest.mark.parametrize("leave", LEAVING.values(), ids=LEAVING)
def test_what_is_listed_leaves_the_list(state: State, leave: Callable[[State], object]) -> None:
    state.put("kind", "name", b"1", listed=True)
    state.put("kind", "other", b"other", listed=True)
    leave(state)
    assert [state.at(hidden) for hidden in state.listed("kind")] == [b"other"]
    state.update("kind", "name", lambda _: (b"3", None), listed=True)
    assert len(state.listed("kind")) == 2


def test_a_change_keeps_what_is_listed_on_the_list(state: State) -> None:
    state.put("kind", "name", b"1", listed=True)
    state.update("kind", "name", lambda old: ((old or b"") + b"2", None), listed=True)
    assert [state.at(hidden) for hidden in state.listed("kind")] == [b"12"]


def test_a_file_of_a_version_without_lists_opens(on_sqlite: State, tmp_path: Path) -> None:
    on_sqlite.put("kind", "name", b"value")
    with closing(sqlite3.connect(tmp_path / "state.db")) as db, db:
        db.execute("DROP INDEX state_shelf")
        db.execute("DROP INDEX state_ends")
        db.execute("ALTER TABLE state DROP COLUMN shelf")
    state = opened(str(tmp_path))
    assert (state.get("kind", "name"), state.listed("kind")) == (b"value", [])
    state.put("kind", "name", b"value", listed=True)
    assert len(opened(str(tmp_path)).listed("kind")) == 1


def test_one_at_a_time_has_a_hold(state: State, place: str) -> None:
    held = state.hold("kind", "name")
    assert held
    held.check()
    assert state.hold("kind", "name") is None
    assert opened(place).hold("kind", "name", wait=0.05) is None
    assert state.hold("kind", "other")
    held.release()
    again = opened(place).hold("kind", "name")
    assert again
    held.release()
    assert state.hold("kind", "name") is None
    again.check()
    with pytest.raises(StateUnavailable):
        held.check()


def test_a_hold_is_waited_for(state: State) -> None:
    held = state.hold("kind", "name")
    assert held
    threading.Timer(0.1, held.release).start()
    assert state.hold("kind", "name", wait=30)


def taken_away(state: State, place: str, kind: str = "kind", name: str = "name") -> None:
    """Removes the hold behind its owner's back."""
    hidden = state._hide(kind, name)
    if place.startswith("redis://"):
        with redis.Redis.from_url(place) as client:
            assert client.delete(f"fhir-bridge:hold:{hidden}")
    else:
        (Path(place) / "locks" / hidden).unlink()


def is_lost(held: Hold) -> bool:
    try:
        held.check()
    except StateUnavailable:
        return True
    return False


BRIEF = 7.0
"""Seconds of a lease that ends in the time of a test, but not while its process stands still for some seconds."""


def test_a_hold_whose_file_cannot_be_removed_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that can only be read for a while."""

    def refused(path: Path, **options: Any) -> None:
        raise PermissionError

    state = opened(str(tmp_path))
    held = state.hold("kind", "name")
    assert held
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        held.release()
    again = state.hold("kind", "name")
    assert again
    again.release()


def test_a_hold_that_was_taken_away_is_lost(place: str) -> None:
    state = opened(place, lease_seconds=BRIEF)
    lost = state.hold("kind", "name")
    assert lost
    taken_away(state, place)
    eventually(lambda: is_lost(lost))
    held = opened(place).hold("kind", "name")
    assert held
    lost.release()
    held.check()


def test_a_change_that_fails_changes_nothing(state: State) -> None:
    state.put("kind", "name", b"value")

    def fail(old: bytes | None) -> tuple[bytes | None, float | None]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        state.update("kind", "name", fail)
    assert state.get("kind", "name") == b"value"
    state.put("kind", "name", b"next")
    assert state.get("kind", "name") == b"next"


def counted(place: str, times: int) -> None:
    counted_with(opened(place), times)


def counted_with(state: State, times: int) -> None:
    for _ in range(times):
        state.update("count", "all", lambda old: (str(int(old or b"0") + 1).encode(), None))


@pytest.mark.parametrize("context", [forked, spawned], ids=["fork", "spawn"])
def test_updates_of_many_processes_lose_nothing(context: Any, state: State, place: str) -> None:
    in_processes(context, 4, counted, place, 40)
    assert state.get("count", "all") == b"160"


def test_updates_of_many_threads_lose_nothing(state: State, place: str) -> None:
    threads = [threading.Thread(target=counted, args=(place, 25)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.get("count", "all") == b"150"


def forks(state: State) -> None:
    """Uses a state before, beside and after a fork."""
    counted_with(state, 5)
    processes = [forked.Process(target=counted_with, args=(state, 30)) for _ in range(3)]
    for process in processes:
        process.start()
    counted_with(state, 30)
    for process in processes:
        process.join(120)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    assert state.get("count", "all") == b"125"


def test_a_state_that_was_in_use_before_a_fork_serves_parent_and_children(state: State) -> None:
    forks(state)


def test_a_file_that_was_in_use_before_a_fork_is_sound(on_sqlite: State, tmp_path: Path) -> None:
    forks(on_sqlite)
    with closing(sqlite3.connect(tmp_path / "state.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def written_alone(place: str, count: Path, times: int) -> None:
    """Counts in a file, without any care but the lock."""
    state = opened(place)
    for _ in range(times):
        with state.lock("kind", "name"):
            before = int(count.read_text() or 0)
            time.sleep(0.0005)
            count.write_text(str(before + 1))


@pytest.mark.parametrize("context", [forked, spawned], ids=["fork", "spawn"])
def test_one_process_at_a_time_has_a_lock(context: Any, place: str, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    in_processes(context, 4, written_alone, place, count, 40)
    assert count.read_text() == "160"


def test_one_thread_at_a_time_has_a_lock(place: str, tmp_path: Path) -> None:
    count = tmp_path / "count"
    count.write_text("0")
    threads = [threading.Thread(target=written_alone, args=(place, count, 30)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read_text() == "150"


def hold(place: str, held: Any) -> None:
    with opened(place, lease_seconds=BRIEF).lock("kind", "name"):
        held.set()
        time.sleep(120)


def test_a_lock_is_free_again_when_its_process_is_killed(state: State, place: str) -> None:
    held = spawned.Event()
    process = spawned.Process(target=hold, args=(place, held))
    process.start()
    assert held.wait(60)
    assert state.hold("kind", "name") is None
    process.kill()
    process.join(60)
    with state.lock("kind", "name"):
        pass


def test_a_lock_is_free_after_an_error(state: State) -> None:
    with pytest.raises(ZeroDivisionError), state.lock("kind", "name"):
        raise ZeroDivisionError
    with state.lock("kind", "name"):
        pass


def test_a_lock_leaves_no_file(on_sqlite: State, tmp_path: Path) -> None:
    with on_sqlite.lock("kind", "name"):
        pass
    assert list((tmp_path / "locks").iterdir()) == []


def test_locks_of_other_names_do_not_wait(state: State) -> None:
    with state.lock("kind", "one"), state.lock("kind", "two"), state.lock("other", "one"):
        pass


def test_waiting_for_a_lock_has_an_end(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "LOCK_SECONDS", 0.1)
    with state.lock("kind", "name"), pytest.raises(StateUnavailable), state.lock("kind", "name"):
        raise AssertionError("two had it")


def test_a_state_that_is_no_database_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StateUnavailable):
        opened(str(tmp_path))


def test_locks_that_are_gone_cannot_be_reached(on_sqlite: State, tmp_path: Path) -> None:
    (tmp_path / "locks").rmdir()
    with pytest.raises(StateUnavailable), on_sqlite.lock("kind", "name"):
        raise AssertionError("nobody can have it")


def test_what_a_caller_is_to_bring_back_opens_for_its_purpose_only(state: State, place: str) -> None:
    text = state.seal("cursor", b"value")
    assert opened(place).open("cursor", text) == b"value"
    assert state.open("other", text) is None
    assert opened(place, b"o" * 32).open("cursor", text) is None
    for spoiled in (
        "",
        "x",
        text[:-4],
        text[:-1] + ("A" if text[-1] != "A" else "B"),
        "é",
        text + "=",
        "\ud800",
    ):
        assert state.open("cursor", spoiled) in (None, b"value" if spoiled == text + "=" else None)
    assert b"value" not in text.encode()


def test_the_deployment_secret_is_made_once_and_private(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    made = deployment_secret(folder, None)
    assert len(made) == 32
    assert deployment_secret(folder, None) == made
    assert (folder / "secret").stat().st_mode & 0o777 == 0o600
    assert [f.name for f in folder.iterdir()] == ["secret"]
    assert deployment_secret(tmp_path / "other", None) != made


def test_threads_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    made: set[bytes] = set()
    threads = [
        threading.Thread(target=lambda: made.add(deployment_secret(tmp_path, None))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_secret_that_was_cut_off_is_none(tmp_path: Path) -> None:
    made = deployment_secret(tmp_path, None)
    for cut in (b"", made[:-1]):
        (tmp_path / "secret").write_bytes(cut)
        with pytest.raises(StateUnavailable, match="cut off"):
            deployment_secret(tmp_path, None)


def test_a_given_secret_is_taken_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "given"
    file.write_bytes(b"any bytes\n")
    assert deployment_secret(tmp_path, file) == b"any bytes\n"
    assert not (tmp_path / "secret").exists()
