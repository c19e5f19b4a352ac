"""Taking back what was written, last write first.

Rule: what somebody else changed since is left as it stands, and said so. What was created is purged, or soft-deleted
where purging is refused; what was changed or deleted gets its previous content back under its present revision, and
whoever was given access meanwhile keeps it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bridge.errors import BridgeError, Conflict, Throttled, UpstreamFailed, UpstreamTimeout
from bridge.journal.entry import Step
from bridge.plan import mark
from bridge.upstream import Client
from mappings.values import Entity

MOST_IN_VAIN = 3
"""How many steps in a row are tried to be undone while the upstream does not answer."""
ACCESS = ("securityMetadata", "delegations", "encryptionKeys", "cryptedForeignKeys")
"""The members of a document that say who may open it."""


@dataclass(frozen=True, slots=True)
class Left:
    """What could not be undone."""

    step: Step
    overtaken: bool
    """Whether somebody else changed it since; else the upstream failed."""


def undo(
    client: Client,
    steps: Sequence[Step],
    refused: Collection[str] = (),
    acknowledged: Mapping[str, str] = MappingProxyType({}),
) -> list[Left]:
    """Takes steps back and returns those for which that failed; an upstream that is down is not asked for each.

    `refused` names (by id) documents of which iCure said that they were not written, `acknowledged` gives the revs of
    those of which it said that they were.
    """
    left: list[Left] = []
    in_vain = 0
    for step in reversed(steps):
        if in_vain == MOST_IN_VAIN:
            left.append(Left(step, overtaken=False))
            continue
        try:
            now = client.read(step.kind, step.id)
            if now is not None and (
                acknowledged.get(step.id) == now["rev"] or _stands(step, now, refused=step.id in refused)
            ):
                _take_back(client, step, now)
            in_vain = 0
        except Conflict:
            left.append(Left(step, overtaken=True))
        except (BridgeError, LookupError, TypeError, ValueError) as e:  # a document may be of an odd shape
            left.append(Left(step, overtaken=False))
            in_vain = in_vain + 1 if isinstance(e, UpstreamFailed | UpstreamTimeout | Throttled) else 0
    return left


def _stands(step: Step, now: Entity, *, refused: bool) -> bool:
    """Whether what stands upstream is what this step made. Raises `Conflict` when someone wrote over it."""
    if step.previous is not None and now["rev"] == step.previous["rev"]:
        return False
    deleted = bool(now.get("deletionDate"))
    if step.method == "delete":
        return deleted and not refused
    if step.method == "create" and deleted:
        return False
    if mark(now) == step.mark and _wrote_last(step, now):
        return True
    if refused:
        return False
    raise Conflict()


def _wrote_last(step: Step, now: Entity) -> bool:
    """Whether nobody wrote since. Of what is all in clear no IV tells, but how often it was written.

    https://docs.couchdb.org/en/stable/replication/conflicts.html
    """
    if any(now.get(member) for member in ACCESS):
        return True
    before = 0 if step.previous is None else _generation(step.previous)
    return _generation(now) == before + 1


def _generation(entity: Entity) -> int:
    return int(str(entity["rev"]).partition("-")[0])


def _take_back(client: Client, step: Step, now: Entity) -> None:
    """Undoes one step. The upstream has the last word: a removal that seemed to fail may have been done."""
    if step.previous is not None:
        access = {member: now[member] for member in ACCESS if member in now}
        client.modify(step.kind, {**step.previous, **access, "rev": now["rev"]})
        return
    for remove in (client.purge, client.delete):
        try:
            remove(step.kind, now["id"], now["rev"])
        except BridgeError:
            continue
        return
    there = client.read(step.kind, now["id"])
    if there is not None and not there.get("deletionDate"):
        raise UpstreamFailed()
