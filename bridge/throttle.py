"""Who guesses passwords waits: wrong ones are counted in the shared state, so that the count holds in every worker.

Strategy: wrong passwords fill a vessel that drains by itself. There is one for each login at each address, one for each
login, and one for each address, each larger than the one before. Up to its brim nobody waits; above it, each further
wrong password doubles the time until the next may be tried. Meanwhile the right one is refused too, or the wait would
tell which it is. A login that came from an address before is held up there only by wrong passwords for itself from
there: neither who tries it elsewhere nor who tries others there keeps it out.

Rule: names and addresses lie in the state as HMACs, as everything there. What is tried at the same moment is let
through together: as many tries as there are threads.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network

import orjson

from bridge.state import State

DRAINED_SECONDS = 900
"""In this time a vessel drains from its brim."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1, 300
KNOWN_SECONDS = 30 * 24 * 3600
KNOWN_AGAIN_SECONDS = 24 * 3600
"""So seldom it is written that a login still comes from an address."""
WITH_PORT = re.compile(r"\[(.*)\](?::[0-9]+)?|([0-9.]+):[0-9]+")
"""How some proxies write an address."""
IPV6_PREFIX = 64
"""Addresses that differ only beyond it belong to one subscriber."""


@dataclass(frozen=True, slots=True)
class Vessel:
    """A count of wrong passwords that nobody notices up to `free`."""

    kind: str
    free: int

    @property
    def drain(self) -> float:
        """How much it loses in a second."""
        return self.free / DRAINED_SECONDS

    @property
    def brim(self) -> float:
        """It holds no more: the longest wait begins well before."""
        return self.free + math.log2(LONGEST_WAIT_SECONDS) + 1


PAIR, LOGIN, ADDRESS = (
    Vessel("wrong passwords at an address", 5),
    Vessel("wrong passwords", 20),
    Vessel("address", 50),
)
KNOWN = "known address"


class Throttle:
    """Counts wrong passwords, and tells how long to wait for the next try."""

    def __init__(self, state: State, trusts: Callable[[str | None], bool]) -> None:
        self._state = state
        self._trusts = trusts

    def origin(self, peer: str | None, forwarded: str) -> str:
        """Returns the address that a request came from: the last of `X-Forwarded-For` that no trusted proxy has."""
        said = forwarded.split(",")
        address = peer or ""
        while said and self._trusts(address):
            last = said.pop().strip()
            match = WITH_PORT.fullmatch(last)
            try:
                address = str(ip_address(match[match.lastindex or 0] if match else last))
            except ValueError:
                break
        return address

    def wait(self, login: str, address: str) -> int:
        """Returns how many seconds from now the next try is allowed; 0 for at once."""
        known = self._state.get(KNOWN, _pair(login, address)) is not None
        due = [self._due(v, name) for v, name in _all(login, address) if v is PAIR or not known]
        return max(0, math.ceil(max(due) - time.time()))

    def failed(self, login: str, address: str) -> None:
        """Counts a wrong password."""
        for vessel, name in _all(login, address):
            self._state.update(vessel.kind, name, _fuller(vessel))

    def succeeded(self, login: str, address: str) -> None:
        """Forgets the wrong passwords of this login at this address, and remembers that it came from there."""
        pair = _pair(login, address)
        if self._state.get(PAIR.kind, pair) is not None:
            self._state.put(PAIR.kind, pair, None)
        now = time.time()
        if now - float(self._state.get(KNOWN, pair) or 0) > KNOWN_AGAIN_SECONDS:
            self._state.put(KNOWN, pair, str(now).encode(), now + KNOWN_SECONDS)

    def _due(self, vessel: Vessel, name: str) -> float:
        """Returns when the next try is allowed, in epoch seconds."""
        level, last = _read(self._state.get(vessel.kind, name))
        above = round(level) - vessel.free
        return last + min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**above) if above >= 0 else 0


def _all(login: str, address: str) -> Iterator[tuple[Vessel, str]]:
    yield PAIR, _pair(login, address)
    yield LOGIN, login
    yield ADDRESS, _subscriber(address)


def _fuller(vessel: Vessel) -> Callable[[bytes | None], tuple[bytes, float]]:
    def change(old: bytes | None) -> tuple[bytes, float]:
        now = time.time()
        level, last = _read(old)
        level = min(vessel.brim, max(0.0, level - (now - last) * vessel.drain) + 1)
        return orjson.dumps([level, now]), now + level / vessel.drain

    return change


def _read(value: bytes | None) -> tuple[float, float]:
    level, last = orjson.loads(value) if value else (0.0, 0.0)
    return level, last


def _pair(login: str, address: str) -> str:
    return f"{_subscriber(address)}\0{login}"


def _subscriber(address: str) -> str:
    """Returns the network of one subscriber: of IPv6 the first half, of IPv4 the address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ip_network((parsed, IPV6_PREFIX), strict=False))
