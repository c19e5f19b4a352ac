"""Which keys are open: private keys that callers uploaded, sealed in the state, opened per worker.

Strategy: a key is sealed under a key derived (scrypt) from the credential that uploaded it and the deployment secret,
so a copy of the state opens nothing. All workers read the same entries, and each keyed request looks at them first:
expiry and DELETE hold everywhere at once. What a worker opened stays usable only while the entries are the same.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import orjson
from cachetools import TTLCache, cached

from bridge.auth import Caller, Credential
from bridge.config import Config
from bridge.crypto import primitives
from bridge.crypto.keyring import Keyring
from bridge.crypto.keys import OwnKey, PrivateKey, announced_keys
from bridge.crypto.primitives import InvalidTag
from bridge.errors import BusinessRule, Forbidden, KeyMissing, NotFound
from bridge.state import State

SCRYPT_N = 2**14
HOW = 'POST {{"key": "<PKCS#8, hex>"}} to /rest/icdx/v1/keychain/{id} with this login.'


@dataclass(frozen=True, slots=True)
class Entry:
    """One uploaded key, as it lies in the state; times are epoch seconds."""

    uploader: str
    credential: str
    fingerprint: str
    box: str = field(repr=False)
    idle_ends: float
    ends: float

    def live(self, now: float) -> bool:
        """Whether it may still be used."""
        return now < self.expires

    @property
    def expires(self) -> float:
        """When it ends if nobody uses it."""
        return min(self.idle_ends, self.ends)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the keychain tells of the keys of one data owner."""

    data_owner_id: str
    fingerprints: list[str]
    expires_at: float


class Keychain:
    """The keys that callers uploaded, shared by all workers through the state."""

    def __init__(self, state: State, secret: bytes, config: Config) -> None:
        self._state = state
        self._secret = secret
        self._ttl = config.key_ttl_seconds
        self._max_age = config.key_max_age_seconds
        self._scrypt = threading.Lock()
        self._rings: TTLCache[str, tuple[object, Keyring]] = TTLCache(maxsize=1024, ttl=self._ttl)
        self._lock = threading.Lock()
        self._seal_key = cached(
            TTLCache[object, bytes](maxsize=1024, ttl=self._ttl),
            key=lambda caller, credential: (caller.data_owner_id, credential.id),
            condition=threading.Condition(),
        )(self._derive)

    def load(self, caller: Caller, credential: Credential, data_owner_id: str, text: str) -> Loaded:
        """Returns what was loaded: the key is added to those that the data owner has here.

        Raises `Forbidden` unless the data owner is the caller or an ancestor of it, and `BusinessRule` when the text is
        no key or no key that this data owner announces.
        """
        _refuse_others(caller, data_owner_id)
        key = PrivateKey.parse(text)
        owner = caller.client.data_owner(data_owner_id)
        if owner is None or key.spki_hex not in announced_keys(owner):
            raise BusinessRule("This is no key that this data owner announces in iCure.")
        now = time.time()
        seal_key = self._seal_key(caller, credential)
        entry = Entry(
            uploader=caller.data_owner_id,
            credential=_credential_name(seal_key),
            fingerprint=key.fingerprint,
            box=_box(seal_key, key.pkcs8_der, data_owner_id),
            idle_ends=now + self._ttl,
            ends=min(now + self._max_age, credential.ends or now + self._max_age),
        )

        def add(entries: list[Entry]) -> list[Entry]:
            same = (entry.uploader, entry.credential, entry.fingerprint)
            return [e for e in entries if (e.uploader, e.credential, e.fingerprint) != same] + [entry]

        self._change(data_owner_id, add)
        return Loaded(data_owner_id, [key.fingerprint], entry.expires)

    def loaded(self, caller: Caller, data_owner_id: str) -> Loaded:
        """Returns which keys of a data owner the caller has here. Raises `NotFound` when there are none."""
        _refuse_others(caller, data_owner_id)
        entries = [e for e in self._entries(data_owner_id) if _sees(caller, data_owner_id, e)]
        if not entries:
            raise NotFound("No key of this data owner is loaded.")
        fingerprints = list(dict.fromkeys(e.fingerprint for e in entries))
        return Loaded(data_owner_id, fingerprints, max(e.expires for e in entries))

    def unload(self, caller: Caller, data_owner_id: str) -> None:
        """Forgets the keys of a data owner, in every worker at once: those that the caller may see."""
        _refuse_others(caller, data_owner_id)
        self._change(
            data_owner_id, lambda entries: [e for e in entries if not _sees(caller, data_owner_id, e)]
        )

    def lend(self, caller: Caller, credential: Credential, other: Credential) -> None:
        """Seals the keys that this credential opens for another one of the same caller too.

        What is lent does not end for being idle, but no later than the keys themselves, and with `unload`. What was
        lent before stays, of one key what ends last.
        """
        seal_key, other_key = self._seal_key(caller, credential), self._seal_key(caller, other)
        mine, name = _credential_name(seal_key), _credential_name(other_key)
        for owner in caller.hierarchy:

            def lent(entries: list[Entry], owner: str = owner) -> list[Entry]:
                own = [e for e in entries if (e.uploader, e.credential) == (caller.data_owner_id, mine)]
                known = {e.fingerprint: e for e in entries if e.credential == name}
                for e, key in zip(own, _open(seal_key, owner, own), strict=True):
                    if e.fingerprint not in known or known[e.fingerprint].ends < e.ends:
                        box = _box(other_key, key.pkcs8_der, owner)
                        known[e.fingerprint] = replace(e, credential=name, box=box, idle_ends=e.ends)
                return [e for e in entries if e.credential != name] + list(known.values())

            if self._entries(owner):
                self._change(owner, lent)

    def take_back(self, caller: Caller, other: Credential) -> None:
        """Forgets what was lent to a credential."""
        name = _credential_name(self._seal_key(caller, other))
        for owner in caller.hierarchy:
            if self._entries(owner):
                self._change(owner, lambda entries: [e for e in entries if e.credential != name])

    def open(self, caller: Caller, credential: Credential) -> Keyring:
        """Returns the opened keys of the caller and of its ancestors. Raises `KeyMissing`, which says what to do."""
        owners = caller.hierarchy
        found = {owner: self._entries(owner) for owner in owners}
        if not any(found.values()):
            raise KeyMissing("No key of this data owner is loaded. " + HOW.format(id=caller.data_owner_id))
        seal_key = self._seal_key(caller, credential)
        name = _credential_name(seal_key)
        mine = {
            owner: usable
            for owner, entries in found.items()
            if (usable := [e for e in entries if e.uploader == caller.data_owner_id and e.credential == name])
        }
        if not mine:
            raise KeyMissing(
                "The loaded key was uploaded with another login. " + HOW.format(id=caller.data_owner_id)
            )
        self._touch(mine)
        ring = self._ring(caller, credential, seal_key, mine)
        ring.directory = caller.client
        if caller.anonymous:
            caller.client.access_keys = ring.access_control_header
        return ring

    def _ring(
        self, caller: Caller, credential: Credential, seal_key: bytes, mine: dict[str, list[Entry]]
    ) -> Keyring:
        signature = [(owner, e.fingerprint, e.box) for owner, entries in mine.items() for e in entries]
        with self._lock:
            known = self._rings.get(credential.id)
        if known and known[0] == signature:
            return known[1]
        keys = {owner: _open(seal_key, owner, entries) for owner, entries in mine.items()}
        ring = Keyring(
            caller.data_owner_id,
            anonymous=caller.anonymous,
            keys={owner: _own_keys(caller, owner, opened) for owner, opened in keys.items()},
            directory=caller.client,
            lock=self._creation_lock,
        )
        with self._lock:
            made_meanwhile = self._rings.get(credential.id)
            if made_meanwhile and made_meanwhile[0] == signature:
                return made_meanwhile[1]
            self._rings[credential.id] = (signature, ring)
        return ring

    def _creation_lock(self, name: str) -> AbstractContextManager[object]:
        return self._state.lock("exchange data", name)

    def _touch(self, mine: dict[str, list[Entry]]) -> None:
        """Puts off the idle end, at most every tenth of its span."""
        now = time.time()
        used = {e.box for entries in mine.values() for e in entries}
        for owner, entries in mine.items():
            if min(e.idle_ends for e in entries) - now < 0.9 * self._ttl:
                self._change(
                    owner,
                    lambda all_: [
                        replace(e, idle_ends=now + self._ttl) if e.box in used else e for e in all_
                    ],
                )

    def _entries(self, data_owner_id: str) -> list[Entry]:
        return _live(self._state.get("keychain", data_owner_id))

    def _change(self, data_owner_id: str, change: Callable[[list[Entry]], list[Entry]]) -> None:
        def changed(old: bytes | None) -> tuple[bytes | None, float | None]:
            entries = change(_live(old))
            return (orjson.dumps(entries), max(e.ends for e in entries)) if entries else (None, None)

        self._state.update("keychain", data_owner_id, changed)

    def _derive(self, caller: Caller, credential: Credential) -> bytes:
        """Returns the key that seals this credential's uploads; slow on purpose, one at a time."""
        salt = hmac.new(self._secret, f"keychain\0{caller.data_owner_id}".encode(), hashlib.sha256).digest()
        with self._scrypt:
            slow = hashlib.scrypt(credential.secret, salt=salt, n=SCRYPT_N, r=8, p=1, dklen=32)
        return primitives.hkdf(slow + self._secret, b"keychain-seal")


def _refuse_others(caller: Caller, data_owner_id: str) -> None:
    if data_owner_id not in caller.hierarchy:
        raise Forbidden("This keychain is neither of your data owner nor of an ancestor of it.")


def _sees(caller: Caller, data_owner_id: str, entry: Entry) -> bool:
    return caller.data_owner_id in (data_owner_id, entry.uploader)


def _live(stored: bytes | None) -> list[Entry]:
    now = time.time()
    entries = [Entry(**e) for e in orjson.loads(stored or b"[]")]
    return [e for e in entries if e.live(now)]


def _credential_name(seal_key: bytes) -> str:
    return hmac.new(seal_key, b"credential", hashlib.sha256).hexdigest()


def _box(seal_key: bytes, der: bytes, data_owner_id: str) -> str:
    return b64encode(primitives.seal(seal_key, der, data_owner_id.encode())).decode()


def _open(seal_key: bytes, data_owner_id: str, entries: Iterable[Entry]) -> list[PrivateKey]:
    try:
        boxes = [primitives.open_sealed(seal_key, b64decode(e.box), data_owner_id.encode()) for e in entries]
    except InvalidTag as e:
        raise KeyMissing("The loaded key cannot be opened. " + HOW.format(id=data_owner_id)) from e
    return [PrivateKey.parse(box.hex()) for box in boxes]


def _own_keys(caller: Caller, data_owner_id: str, keys: list[PrivateKey]) -> list[OwnKey]:
    """Returns the keys with the OAEP hash under which the data owner announces each."""
    announced = announced_keys(caller.client.data_owner(data_owner_id) or {})
    return [OwnKey(key, announced[key.spki_hex]) for key in keys if key.spki_hex in announced]
