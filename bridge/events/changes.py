"""What changed in iCure: told by the embedded store's table, or by iCure over websockets.

Strategy: changes are numbered in the order they are heard of, in one *run* of counting. Whoever stands in another run
(another process counted, or none) goes on from the time it stands at. Where the changes since then are not known, iCure
is asked for everything that was modified since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from bridge.events.kept import Kept, Position
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
    sure: bool = True
    """False where it is there, and may have changed long ago."""


class Changes(Protocol):
    """The changes of one run."""

    @property
    def run(self) -> str:
        """Tells one run from another."""

    @property
    def ready(self) -> bool:
        """Whether it is known what changed until now."""

    @property
    def trouble(self) -> str | None:
        """In words, why nothing is heard at present; None when all is well."""

    def last(self) -> int:
        """Returns the number of the last change, 0 for none."""

    def number_at(self, time: int) -> int | None:
        """Returns a number after which all changes since then (epoch ms) come; None when not all are known."""

    def after(self, number: int, most: int) -> tuple[list[Change], int] | None:
        """Returns the first changes after a number, of at most so many numbers, and the last number looked at.

        None when not all of them are known any more.
        """


class Source(Protocol):
    """Where the changes come from."""

    def begin(self, now: int) -> Position:
        """Returns where a Subscription stands that begins now (epoch milliseconds)."""

    def follow(self, followed: Iterable[Kept]) -> None:
        """Hears on behalf of these Subscriptions, and of no others."""

    def of(self, kept: Kept) -> Changes:
        """Returns the changes that one of them may hear of, of its kind among others."""


Modified = tuple[float, str]
"""When (epoch milliseconds; 0 when that is not known), and the id of what."""


def modified_since(
    client: Client, resource_type: str, owners: Iterable[str], since: int
) -> Iterator[list[Modified]]:
    """Yields page by page what was modified since then (epoch milliseconds), without opening it.

    What does not say when it was modified, as patients that do so encrypted, counts as modified.
    """
    home = home_of(resource_type)
    ids = sorted(set(client.match(home.kind, union(home.all_filter(owner) for owner in owners))))
    for at in range(0, len(ids), PAGE):
        documents = client.by_ids(home.kind, ids[at : at + PAGE])
        times = ((modified_at(document), document["id"]) for document in documents)
        yield [(time, entity_id) for time, entity_id in times if not time or time >= since]


def modified_at(document: Entity) -> float:
    """Returns when an entity was modified (epoch milliseconds), 0 where it does not say."""
    times = [document[name] for name in ("modified", "created") if isinstance(document.get(name), int)]
    return max(times, default=0)


def kind_of(resource_type: str) -> str:
    """Returns which changes a resource type is about."""
    return REGISTRY[resource_type].entity_type
