"""Writing several documents as one: the plan is kept first, then each document is written and each reply checked.

Facts: ids are chosen before anything is written, so whatever arrived can be found and taken back. A batch reply of
iCure leaves failed items out silently.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from bridge.errors import BridgeError, Conflict, Forbidden, Issue, UpstreamFailed, UpstreamTimeout
from bridge.journal.entry import Entry, Journal, Step
from bridge.journal.recovery import late_seconds, settle
from bridge.plan import Write
from bridge.scope import Scope
from bridge.state import Hold
from mappings.values import Entity

BATCH = {"patient": 500, "helement": 200, "hcparty": 100, "contact": 50}


def apply(scope: Scope, writes: Sequence[Write]) -> list[Entity]:
    """Returns the documents as stored, in the order given.

    Raises what the upstream said after everything was undone; what could not be undone is named in it, and stays in
    the journal. A request that has a name keeps its entry, to be closed with its answer.
    """
    if not writes:
        return []
    with _entry(scope, writes) as (entry, hold):
        return _Applying(scope, entry, hold).documents(writes)


@contextmanager
def _entry(scope: Scope, writes: Sequence[Write]) -> Iterator[tuple[Entry, Hold | None]]:
    """Yields the entry of these writes, kept before the first of them.

    One write by itself is done or not done, so without a name it needs none.
    """
    journal, running = Journal(scope.state), scope.running
    name = running.name if running else str(uuid.uuid4())
    entry = Entry.begun_by(scope, name, running.digest if running else "")
    entry.steps = [Step.of(write) for write in writes]
    if running:
        running.wrote = True
        journal.keep(entry)
        yield entry, running.hold
    elif len(writes) == 1:
        yield entry, None
    else:
        hold = journal.hold(name)
        assert hold is not None  # noqa: S101  nobody else knows this name
        try:
            journal.keep(entry)
            yield entry, hold
            hold.check()
            journal.drop(entry)
        finally:
            hold.release()


@dataclass(slots=True)
class _Applying:
    """The writes of one request on their way."""

    scope: Scope
    entry: Entry
    hold: Hold | None
    stored: dict[str, Entity] = field(default_factory=dict)
    tried: int = 0
    refused: set[str] = field(default_factory=set)
    """Documents of which iCure said that they were not written."""

    def documents(self, writes: Sequence[Write]) -> list[Entity]:
        """Returns the documents as stored."""
        for batch in _batches(writes):
            if self.hold is not None:
                self.hold.check()
            self.tried += len(batch)
            try:
                self._send(batch)
                for write in batch:
                    _check_whole(write, self.stored[write.entity["id"]])
            except BridgeError as e:
                self._undo(e)
                raise
        return [self.stored[write.entity["id"]] for write in writes]

    def _undo(self, error: BridgeError) -> None:
        """Takes everything back, and names in the error what could not be."""
        scope, entry = self.scope, self.entry
        entry.steps = entry.steps[: self.tried]
        in_flight = isinstance(error, UpstreamFailed | UpstreamTimeout)
        if len(entry.steps) == 1 and not in_flight:
            if self.hold is None:
                return
            entry.steps = []
        late = late_seconds(scope.config) if in_flight else 0
        revs = {document_id: stored["rev"] for document_id, stored in self.stored.items()}
        for left in settle(Journal(scope.state), scope.client, entry, late, self.refused, revs):
            error.issues += [Issue("incomplete", "This could not be undone.", p) for p in left.step.paths]

    def _send(self, batch: list[Write]) -> None:
        """Writes one batch. Raises `Forbidden` that says who might have written it."""
        try:
            self._written(batch)
        except (UpstreamFailed, UpstreamTimeout):
            raise
        except Forbidden as e:
            self._refuse(batch)
            raise Forbidden(issues=[Issue(e.code, w.refusal, path) for w in batch for path in w.paths]) from e
        except BridgeError:
            self._refuse(batch)
            raise

    def _refuse(self, batch: list[Write]) -> None:
        self.refused |= {w.entity["id"] for w in batch} - self.stored.keys()

    def _written(self, batch: list[Write]) -> None:
        """Writes one batch. Raises `Conflict` that names what iCure left out."""
        write, client = batch[0], self.scope.client
        document_id = write.entity["id"]
        if write.method == "delete":
            rev = client.delete(write.kind, document_id, write.entity["rev"])
            self.stored[document_id] = {"id": document_id, "rev": rev}
        elif write.method == "modify":
            self.stored[document_id] = client.modify(write.kind, write.entity)
        elif len(batch) == 1:
            self.stored[document_id] = client.create(write.kind, write.entity)
        else:
            self.stored |= client.create_batch(write.kind, [w.entity for w in batch])
            missing = [path for w in batch if w.entity["id"] not in self.stored for path in w.paths]
            if missing:
                raise Conflict(issues=[Issue("conflict", "iCure did not store this.", p) for p in missing])


def _check_whole(write: Write, stored: Entity) -> None:
    """Raises `UpstreamFailed` when iCure kept fewer Services of a Contact than were sent."""
    kept = {service["id"] for service in stored.get("services", ())}
    if not kept >= {service["id"] for service in write.entity.get("services", ())}:
        raise UpstreamFailed(
            issues=[Issue("transient", "iCure did not keep all of this.", p) for p in write.paths]
        )


def _batches(writes: Sequence[Write]) -> list[list[Write]]:
    """Returns what goes upstream in one call each: creations together, everything else by itself."""
    batches: list[list[Write]] = []
    for (method, kind), group in groupby(writes, key=lambda w: (w.method, w.kind)):
        same = list(group)
        size = BATCH.get(kind, 1) if method == "create" else 1
        batches += [same[at : at + size] for at in range(0, len(same), size)]
    return batches
