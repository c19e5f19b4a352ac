"""Writing several documents as one: the plan is kept first, then each document is written and each reply checked.

Facts: ids are chosen before anything is written, so whatever arrived can be found and taken back. A batch reply of
iCure leaves failed items out silently.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bridge.errors import BridgeError, Conflict, Forbidden, Issue, UpstreamFailed, UpstreamTimeout
from bridge.journal.entry import Entry, Journal, Step
from bridge.journal.recovery import late_seconds, settle
from bridge.plan import Write
from bridge.scope import Scope
from bridge.state import Hold
from mappings.values import Entity

BATCH = {"patient": 500, "helement": 200, "hcparty": 100, "contact": 50}
BATCH_BYTES = 6 << 20
"""Of a batch of several documents: about 2,600 Observations of 1 kB; sender and server hold it in many forms."""


def apply(scope: Scope, writes: list[Write], tell: Callable[[Write, Entity], None]) -> None:
    """Writes all of this, taking it off the list, and tells of each write what was stored as soon as it is.

    Raises what the upstream said after everything was undone; what could not be undone is named in it, and stays in
    the journal. A request that has a name keeps its entry, to be closed with its answer.
    """
    if writes:
        with _entry(scope, writes) as (entry, hold):
            _Applying(scope, entry, hold, tell).all(writes)


@contextmanager
def _entry(scope: Scope, writes: list[Write]) -> Iterator[tuple[Entry, Hold | None]]:
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
    tell: Callable[[Write, Entity], None]
    revs: dict[str, str] = field(default_factory=dict)
    """Of the documents of which iCure said that they were written."""
    tried: int = 0
    refused: set[str] = field(default_factory=set)
    """Documents of which iCure said that they were not written."""

    def all(self, writes: list[Write]) -> None:
        """Writes in batches; what is written is not needed any longer."""
        while writes:
            if self.hold is not None:
                self.hold.check()
            batch = _take_batch(writes)
            self.tried += len(batch)
            try:
                stored = self._send(batch)
                self.revs |= {document_id: entity["rev"] for document_id, entity in stored.items()}
                missing = [path for w in batch if w.entity["id"] not in stored for path in w.paths]
                if missing:
                    raise Conflict(
                        issues=[Issue("conflict", "iCure did not store this.", p) for p in missing]
                    )
                for write in batch:
                    _check_whole(write, stored[write.entity["id"]])
            except BridgeError as e:
                if not isinstance(e, UpstreamFailed | UpstreamTimeout):
                    self.refused |= {w.entity["id"] for w in batch} - self.revs.keys()
                self._undo(e)
                raise
            for write in batch:
                self.tell(write, stored[write.entity["id"]])

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
        for left in settle(Journal(scope.state), scope.client, entry, late, self.refused, self.revs):
            error.issues += [Issue("incomplete", "This could not be undone.", p) for p in left.step.paths]

    def _send(self, batch: list[Write]) -> dict[str, Entity]:
        """Writes one batch, returns what was stored, by id. Raises `Forbidden` that says who might have written it."""
        write, client = batch[0], self.scope.client
        document_id = write.entity["id"]
        try:
            if write.method == "delete":
                rev = client.delete(write.kind, document_id, write.entity["rev"])
                return {document_id: {"id": document_id, "rev": rev}}
            if write.method == "modify":
                return {document_id: client.modify(write.kind, write.entity)}
            if len(batch) == 1:
                return {document_id: client.create(write.kind, write.entity)}
            return client.create_batch(write.kind, [w.entity for w in batch])
        except Forbidden as e:
            raise Forbidden(issues=[Issue(e.code, w.refusal, path) for w in batch for path in w.paths]) from e


def _check_whole(write: Write, stored: Entity) -> None:
    """Raises `UpstreamFailed` when iCure kept fewer Services of a Contact than were sent."""
    kept = {service["id"] for service in stored.get("services", ())}
    if not kept >= set(write.service_ids):
        raise UpstreamFailed(
            issues=[Issue("transient", "iCure did not keep all of this.", p) for p in write.paths]
        )


def _take_batch(writes: list[Write]) -> list[Write]:
    """Takes off what goes upstream in the next call: creations together, everything else by itself."""
    method, kind = writes[0].method, writes[0].kind
    most = BATCH.get(kind, 1) if method == "create" else 1
    first = writes[:most]
    batch: list[Write] = []
    size = 0
    for write in first:
        size += write.size if len(first) > 1 else 0
        if batch and ((write.method, write.kind) != (method, kind) or size > BATCH_BYTES):
            break
        batch.append(write)
    del writes[: len(batch)]
    return batch
