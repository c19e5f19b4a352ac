"""The Bundle in which units are sent."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.errors import Issue
from bridge.importing.contents import with_references
from bridge.importing.spool import OPEN, Stored, Target, address_hash

FAILED_TARGET = Issue("not-found", "Not sent: it refers to something in the input that was not imported.")
CIRCLE = Issue(
    "too-long",
    "Not sent: it is in a circle of references that is too large for one transaction; raise --batch.",
)
Targets = Mapping[int, Mapping[bytes, Target]]
"""By unit, what its references mean."""


@dataclass(frozen=True, slots=True)
class Request:
    """A Bundle on its way."""

    key: str
    body: bytes = field(repr=False)
    units: Sequence[Stored]

    @classmethod
    def of(cls, units: Sequence[Stored], targets: Targets) -> Request:
        """Returns the request of these units; the same units always have the same key."""
        key = hashlib.sha256(b"".join(unit.name for unit in units)).hexdigest()
        return cls(key, _body(units, targets), units)

    @property
    def loose(self) -> bool:
        """Whether it is a transaction of our making."""
        return not self.units[0].bundle


def why_not(targets: Mapping[bytes, Target], beside: Container[int | None]) -> Issue | None:
    """Returns why a unit cannot be sent beside these, if it cannot."""
    for target in targets.values():
        if target.n not in beside and target.location is None:
            return CIRCLE if target.state == OPEN else FAILED_TARGET
    return None


def _body(units: Sequence[Stored], targets: Targets) -> bytes:
    """Returns the Bundle as it is sent: one as it came, or a transaction of loose resources."""
    urls = {unit.n: f"urn:uuid:{uuid.UUID(bytes=unit.name, version=5)}" for unit in units}

    def rewritten(unit: Stored) -> bytes:
        own = targets[unit.n]

        def become(said: str) -> str | None:
            target = own.get(address_hash(said))
            return None if target is None else target.location or urls[target.n or 0]

        return with_references(unit.text, become) if own else unit.text

    if units[0].bundle:
        return rewritten(units[0])
    entries = (
        b'{"fullUrl":"%b","resource":%b,"request":{"method":"POST","url":"%b"}}'
        % (urls[unit.n].encode(), rewritten(unit), unit.parts[0].resource_type.encode())
        for unit in units
    )
    return b'{"resourceType":"Bundle","type":"transaction","entry":[' + b",".join(entries) + b"]}"
