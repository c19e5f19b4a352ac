"""Who was shown which patient: an iCure AccessLog for each, written behind the reads.

Facts: an AccessLog belongs to its patient as a Contact does: by a secret id of the patient in clear, and by the
patient's id in its delegations. When and by whom stands in clear, the patient's id is encrypted.

Strategy: a read only notes what it showed. A thread of each worker makes the entities and sends them in batches. It
takes a twelfth of one processor, so that reads lose less than a tenth, and as much as it needs while more than half of
the room is taken. What arrived although its answer was lost is known by its id when it is sent again. What cannot be
sent goes to the end of the line, so that it holds up nothing else for long.

Rule: nothing here fails a read. What cannot be written is counted, and told in the log of the process.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bridge.auth import ADMINISTRATIVE, Caller
from bridge.crypto import envelope
from bridge.crypto.keyring import Keyring
from bridge.crypto.manifest import Manifests
from bridge.errors import (
    BridgeError,
    BusinessRule,
    StateUnavailable,
    Throttled,
    UpstreamFailed,
    UpstreamTimeout,
)
from bridge.upstream import Client
from mappings.values import Entity

KIND, TYPE = "accesslog", "AccessLog"
USER_ACCESS = "USER_ACCESS"
DETAIL = "shown through FHIR"
ROOM = 20_000
BATCH = 50
MOST_UNSENT = 20
"""As many times something is made into entities that cannot be sent; the rest waits as it is."""
PAUSE_SECONDS, PAUSE_AFTER_FAILURE_SECONDS = 0.5, 5.0
SHARE = 0.08
"""Of one processor."""
PASSING = (UpstreamFailed, UpstreamTimeout, StateUnavailable, Throttled)
"""Failures after which the same is tried again."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One patient, shown to one caller."""

    caller: Caller = field(repr=False)
    keyring: Keyring = field(repr=False)
    patient_id: str
    secret_ids: tuple[str, ...] = field(repr=False)
    at: int
    """Epoch milliseconds."""


class AccessLog:
    """What one worker showed and has not written yet."""

    def __init__(self, manifests: Manifests, *, room: int = ROOM) -> None:
        self._manifests = manifests
        self._room = room
        self._waiting: deque[Shown] = deque()
        self._unsent: deque[tuple[Client, list[Entity]]] = deque()
        self._writing = threading.Lock()
        self._stopping = threading.Event()
        self._lost = 0

    def note(self, caller: Caller, keyring: Keyring, patient_id: str, secret_ids: tuple[str, ...]) -> None:
        """Notes that a patient was shown; what finds no room is lost."""
        if len(self._waiting) >= self._room:
            self._lost += 1
        else:
            now = time.time_ns() // 1_000_000
            self._waiting.append(Shown(caller, keyring, patient_id, secret_ids, now))

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    @property
    def waiting(self) -> int:
        """How much is not written yet."""
        return len(self._waiting) + sum(len(entities) for _, entities in tuple(self._unsent))

    def lost(self) -> int:
        """Returns how much was lost since this was asked last."""
        lost, self._lost = self._lost, 0
        return lost

    def write(self) -> None:
        """Writes what was shown first, then what could not be sent before.

        Raises what passes by itself, when nothing could be sent.
        """
        with self._writing:
            if len(self._unsent) < MOST_UNSENT:
                self._make()
            sent = False
            for _ in range(len(self._unsent)):
                try:
                    self._send(*self._unsent[0])
                except PASSING:
                    self._unsent.rotate(-1)
                    if not sent:
                        raise
                else:
                    self._unsent.popleft()
                    sent = True

    def pause(self, took_seconds: float) -> float:
        """Returns how long to do nothing after a batch that took so much of the processor."""
        if len(self._waiting) > self._room / 2:
            return 0
        return max(PAUSE_SECONDS if len(self._waiting) < BATCH else 0, took_seconds * (1 / SHARE - 1))

    def run(self) -> Iterator[str | None]:
        """Writes until it is told to stop; yields what is in the way, None when something was lost without that."""
        pause = PAUSE_SECONDS
        while not self._stopping.wait(pause):
            begun, problem = time.thread_time(), None
            try:
                self.write()
                pause = self.pause(time.thread_time() - begun)
            except PASSING as e:
                pause, problem = PAUSE_AFTER_FAILURE_SECONDS, type(e).__name__
            if problem or self._lost:
                yield problem

    def stop(self, seconds: float) -> None:
        """Writes what is left, for so long at most; what is left then is lost."""
        self._stopping.set()
        finishing = threading.Thread(target=self._finish, name="access log", daemon=True)
        finishing.start()
        finishing.join(seconds)
        self._lost += self.waiting

    def _finish(self) -> None:
        """Writes until nothing is left or all that is left fails."""
        failed = 0
        while self.waiting and failed <= len(self._unsent):
            try:
                self.write()
                failed = 0
            except PASSING:
                failed += 1

    def _make(self) -> None:
        """Makes entities to be sent, by the client of who was shown them; what cannot be made now goes on waiting."""
        by_client: dict[int, list[Entity]] = {}
        for _ in range(min(BATCH, len(self._waiting))):
            shown = self._waiting[0]
            client = shown.caller.client
            try:
                entity = self._entity(shown)
            except PASSING:
                self._waiting.rotate(-1)
                raise
            except BridgeError:  # its key was taken away meanwhile
                self._lost += 1
            else:
                if id(client) not in by_client:
                    by_client[id(client)] = []
                    self._unsent.appendleft((client, by_client[id(client)]))
                by_client[id(client)].append(entity)
            self._waiting.popleft()
            time.sleep(0)  # whoever reads goes first

    def _entity(self, shown: Shown) -> Entity:
        try:
            metadata = _metadata(shown, shown.caller.delegates(ADMINISTRATIVE))
        except BusinessRule:  # one of them has no key: better a log that fewer read than none
            metadata = _metadata(shown, ())
        entity: Entity = {
            "id": str(uuid.uuid4()),
            "created": shown.at,
            "modified": shown.at,
            "date": shown.at,
            "accessType": USER_ACCESS,
            "user": shown.caller.user_id,
            "objectId": shown.patient_id,
            "patientId": shown.patient_id,
            "detail": DETAIL,
            "securityMetadata": metadata.security_metadata,
        }
        if shown.secret_ids:
            entity["secretForeignKeys"] = [shown.secret_ids[0]]
        return envelope.encrypt(entity, metadata.entity_key, self._manifests[TYPE])

    def _send(self, client: Client, entities: list[Entity]) -> None:
        """Sends entities of one caller; those that are there already were sent before. Raises what passes by itself."""
        try:
            client.create_access_logs(entities)
        except PASSING:
            raise
        except BridgeError:
            self._lost += len(entities)


def _metadata(shown: Shown, delegates: Sequence[str]) -> envelope.NewMetadata:
    return envelope.new_metadata(shown.keyring, TYPE, owning_id=shown.patient_id, delegates=delegates)
