"""What changed in iCure: told by the embedded store's table, or by iCure over websockets while one is connected.

Strategy: changes are numbered in the order they are heard of. A count that is no longer known to be whole (a new
process, a connection that broke) is another *run*; whoever stands in an earlier one asks iCure for everything that was
modified since the time it stands at, and goes on from there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from bridge.homes import home_of, union
from bridge.upstream import PAGE, Client
from mappings import REGISTRY
from mappings.values import Entity


@dataclass(frozen=True, slots=True)
class Change:
    """Something happened to an entity that may be a resource."""

    number: int
    kind: str
    """Patient, Service or HealthElement."""
    id: str


class Changes(Protocol):
    """The changes of one run."""

    @property
    def run(self) -> str:
        """Tells one run from another."""

    def last(self) -> int:
        """Returns the number of the last change, 0 for none."""

    def after(self, number: int, most: int) -> tuple[list[Change], int] | None:
        """Returns the first changes after a number, of at most so many numbers, and the last number looked at.

        None when not all of them are known any more.
        """


class Source(Protocol):
    """Where the changes come from."""

    def of(self, user: str, authorization: str, kind: str) -> Changes:
        """Returns the changes that a user may hear of, of this kind among others."""

    def keep(self, users: Collection[str]) -> None:
        """Hears no more on behalf of others than these."""


def modified_since(client: Client, resource_type: str, owners: Iterable[str], since: int) -> Iterable[str]:
    """Yields the ids of what was modified since then (epoch milliseconds), without opening it.

    What does not say when it was modified counts as modified.
    """
    home = home_of(resource_type)
    ids = sorted(set(client.match(home.kind, union(home.all_filter(owner) for owner in owners))))
    for at in range(0, len(ids), PAGE):
        for document in client.by_ids(home.kind, ids[at : at + PAGE]):
            if _modified(document) >= since:
                yield document["id"]


def _modified(document: Entity) -> float:
    times = [document[name] for name in ("modified", "created") if isinstance(document.get(name), int)]
    return max(times, default=float("inf"))


def kind_of(resource_type: str) -> str:
    """Returns which changes a resource type is about."""
    return REGISTRY[resource_type].entity_type
