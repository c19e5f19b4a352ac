"""State of several hosts: one Redis for values and holds.

Strategy: beside each value lies a mark, a fresh number and the shelf of the value. Both are written together, so the
mark tells whether someone else wrote, or whether a write arrived whose answer was lost. The set of a shelf is only
where to look; the marks are the truth, and the set heals when it is read. A hold is a key that ends unless a thread of
its process renews it.

Rule: whoever holds a lease counts its time from before it was asked for, so it gives up before Redis does.
"""

from __future__ import annotations

import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, cast
from weakref import WeakMethod

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry

from bridge.errors import StateUnavailable
from bridge.state.backend import Change

VALUE, MARK, SHELF, HOLD = (f"fhir-bridge:{what}:" for what in ("value", "mark", "shelf", "hold"))
CONNECT_SECONDS, ANSWER_SECONDS = 2, 10
LEASE_SECONDS = 20
RENEWALS = 5
"""How often a lease is renewed in its time."""
MOST_TRIES = 1000
"""How often a change is tried again because another came first."""
NUMBER = 16
"""Hex digits in front of a mark."""

NAMES = """
local names = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local mark = redis.call('GET', ARGV[1] .. name)
  if mark and string.sub(mark, ARGV[2] + 1) == ARGV[3] then
    names[#names + 1] = name
  else
    redis.call('SREM', KEYS[1], name)
  end
end
return names
"""
TAKE = """
if redis.call('GET', KEYS[1]) == ARGV[1] or redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
RENEW = """
local kept = {}
for i, key in ipairs(KEYS) do
  kept[i] = redis.call('GET', key) == ARGV[i + 1] and redis.call('PEXPIRE', key, ARGV[1]) or 0
end
return kept
"""
RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

WHY: tuple[tuple[type[redis.RedisError], str], ...] = (
    (redis.AuthenticationError, "Redis refuses the login"),
    (redis.exceptions.NoPermissionError, "Redis refuses the login"),
    (redis.TimeoutError, "Redis does not answer in time"),
    (redis.ConnectionError, "there is no connection to Redis"),
    (redis.exceptions.OutOfMemoryError, "Redis is full"),
    (redis.ReadOnlyError, "this Redis is a read-only replica"),
    (redis.RedisError, "Redis refuses the command"),
)


class Redis:
    """What the workers of all hosts share."""

    def __init__(self, url: str, lease_seconds: float = LEASE_SECONDS) -> None:
        client = redis.Redis.from_url(
            url,
            protocol=2,
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=ANSWER_SECONDS,
            # A connection may have died since it was last used, or lead to what became a replica meanwhile.
            retry=Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError, redis.ReadOnlyError)),
        )
        self._client = client
        self._names = _script(client, NAMES)
        self._leases = Leases(client, lease_seconds)

    def get(self, name: str) -> bytes | None:
        """Returns the value, None when there is none or it has ended."""
        with _translated():
            return cast("bytes | None", self._client.get(VALUE + name))

    def put(self, name: str, value: bytes | None, ends: float | None, shelf: str = "") -> None:
        """Replaces the value whatever it is; None deletes."""
        with _translated(), self._client.pipeline() as commands:
            _replace(commands, name, value, ends, shelf)
            commands.execute()

    def update(self, name: str, change: Change, shelf: str = "") -> None:
        """Replaces the value by what `change` makes of it, atomically among all workers."""
        written = None
        with _translated():
            for _ in range(MOST_TRIES):
                with suppress(redis.WatchError), self._client.pipeline() as commands:
                    commands.watch(MARK + name)  # type: ignore[no-untyped-call]
                    old, mark = cast("list[bytes | None]", commands.mget(VALUE + name, MARK + name))
                    if written and written == mark:
                        return
                    value, ends = change(old)
                    commands.multi()
                    written = _replace(commands, name, value, ends, shelf)
                    commands.execute()
                    return
                time.sleep(random.uniform(0, 0.005))  # noqa: S311
        raise StateUnavailable("Too many workers change the same value.")

    def names(self, shelf: str) -> list[str]:
        """Returns the names of the values on a shelf, in any order."""
        with _translated():
            return [name.decode() for name in self._names([SHELF + shelf], [MARK, NUMBER, shelf])]

    def doubts(self) -> list[str]:
        """Returns in words how what is kept here may be lost."""
        with _translated():
            try:
                told = self._client.info()
            except redis.ResponseError:
                return ["this Redis does not tell whether it keeps its data"]
        doubts = []
        if not told.get("aof_enabled"):
            doubts.append("this Redis has no append-only file: when it restarts, open transactions are lost")
        if (policy := told.get("maxmemory_policy")) != "noeviction":
            doubts.append(f"this Redis removes values when it is full ({policy}): set noeviction")
        return doubts

    def hold(self, name: str) -> Lease | None:
        """Returns a hold that nobody else has; it ends some seconds after its process dies."""
        with _translated():
            return self._leases.take(HOLD + name)


@dataclass(slots=True, eq=False)
class Lease:
    """A key of Redis that ends unless it is renewed."""

    key: str
    ends: float
    """On this machine's clock; no later than in Redis."""
    leases: Leases = field(repr=False)
    token: str = field(repr=False)

    def check(self) -> None:
        """Raises `StateUnavailable` when it was lost or less than half of its time is left: renewing it fails."""
        if _clock() > self.ends - self.leases.seconds / 2:
            raise StateUnavailable("A lock that the workers share was lost.")

    def release(self) -> None:
        """Lets others have it. What cannot be released now ends by itself."""
        self.leases.release(self)


class Leases:
    """The leases of one process, renewed by one thread while there are any."""

    def __init__(self, client: redis.Redis, seconds: float) -> None:
        self.seconds = seconds
        self._take, self._renew, self._release = (_script(client, s) for s in (TAKE, RENEW, RELEASE))
        self._lock = threading.Lock()
        self._held: set[Lease] = set()
        self._renewer: threading.Thread | None = None
        forget = WeakMethod(self._forget)
        os.register_at_fork(after_in_child=lambda: (alive := forget()) and alive())

    def take(self, key: str) -> Lease | None:
        """Returns the lease, None while another has it."""
        token, begin = secrets.token_hex(16), _clock()
        if not self._take([key], [token, self._milliseconds]):
            return None
        lease = Lease(key, begin + self.seconds, self, token)
        with self._lock:
            self._held.add(lease)
            if self._renewer is None or not self._renewer.is_alive():
                self._renewer = threading.Thread(target=self._run, name="leases", daemon=True)
                self._renewer.start()
        return lease

    def release(self, lease: Lease) -> None:
        """Ends a lease, unless it is another's by now."""
        lease.ends = 0
        with self._lock:
            self._held.discard(lease)
        with suppress(redis.RedisError):
            self._release([lease.key], [lease.token])

    @property
    def _milliseconds(self) -> int:
        return int(self.seconds * 1000)

    def _run(self) -> None:
        while True:
            time.sleep(self.seconds / RENEWALS)
            with self._lock:
                held = list(self._held)
                if not held:
                    self._renewer = None
                    return
            begin = _clock()
            with suppress(redis.RedisError):
                arguments = [self._milliseconds, *(lease.token for lease in held)]
                kept = self._renew([lease.key for lease in held], arguments)
                self._note(held, kept, begin)

    def _note(self, leases: list[Lease], kept: list[int], begin: float) -> None:
        """Keeps what was renewed; the rest is lost for good."""
        with self._lock:
            for lease, is_kept in zip(leases, kept, strict=True):
                if not is_kept:
                    lease.ends = 0
                    self._held.discard(lease)
                elif lease in self._held:
                    lease.ends = begin + self.seconds

    def _forget(self) -> None:
        """Begins anew in a child: the leases of its parent are not its own."""
        self._lock, self._held, self._renewer = threading.Lock(), set(), None


def _replace(
    commands: Pipeline, name: str, value: bytes | None, ends: float | None, shelf: str
) -> bytes | None:
    """Adds the commands that replace a value, and returns the mark that lies beside it afterwards."""
    left = None if ends is None else int((ends - time.time()) * 1000)
    if value is None or (left is not None and left <= 0):
        commands.delete(VALUE + name, MARK + name)
        return None
    mark = secrets.token_hex(NUMBER // 2) + shelf
    commands.set(VALUE + name, value, px=left)
    commands.set(MARK + name, mark, px=left)
    if shelf:
        commands.sadd(SHELF + shelf, name)
    return mark.encode()


def _script(client: redis.Redis, text: str) -> Callable[[list[str], list[Any]], Any]:
    return client.register_script(text)


def _clock() -> float:
    """Returns seconds that pass while the process is stopped, and, where the system can tell, while it sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except redis.RedisError as e:
        why = next(text for kind, text in WHY if isinstance(e, kind))
        raise StateUnavailable(f"The state that the workers share cannot be reached: {why}.") from e
