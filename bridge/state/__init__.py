"""What the workers share: every value sealed, every name an HMAC, both under the deployment secret.

Strategy: a `Backend` stores opaque bytes under opaque names and knows nothing of what they mean; `State` seals and
opens. SQLite serves all workers of one host, Redis those of several.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from bridge.crypto import primitives
from bridge.crypto.primitives import InvalidTag
from bridge.errors import StateUnavailable
from bridge.state.backend import Backend, Change, Hold
from bridge.state.sqlite import Sqlite

__all__ = ["Backend", "Change", "Hold", "Sqlite", "State", "deployment_secret", "known_members"]

LOCK_SECONDS = 30
SECRET_BYTES = 32
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.02


class State:
    """The workers' shared memory: kinds of names, sealed values."""

    def __init__(self, backend: Backend, secret: bytes) -> None:
        self._backend = backend
        self._name_key = primitives.hkdf(secret, b"state-names")
        self._value_key = primitives.hkdf(secret, b"state-values")

    def get(self, kind: str, name: str) -> bytes | None:
        """Returns the opened value, None when there is none, it ended, or it was sealed under another secret."""
        return self.at(self._hide(kind, name))

    def at(self, hidden: str) -> bytes | None:
        """Returns the opened value under a hidden name, as `listed` gives it."""
        return self._open(hidden, self._backend.get(hidden))

    def listed(self, kind: str) -> list[str]:
        """Returns the hidden names of the values of a kind that were put with `listed`, in any order."""
        return self._backend.names(self._shelf(kind, True))

    def put(
        self, kind: str, name: str, value: bytes | None, ends: float | None = None, *, listed: bool = False
    ) -> None:
        """Keeps the value until `ends` (epoch seconds); None deletes."""
        hidden = self._hide(kind, name)
        self._backend.put(hidden, self._seal(hidden, value), ends, self._shelf(kind, listed))

    def update(self, kind: str, name: str, change: Change, *, listed: bool = False) -> None:
        """Replaces the value by what `change` makes of the opened one, atomically among all workers."""
        hidden = self._hide(kind, name)

        def sealed(old: bytes | None) -> tuple[bytes | None, float | None]:
            value, ends = change(self._open(hidden, old))
            return self._seal(hidden, value), ends

        self._backend.update(hidden, sealed, self._shelf(kind, listed))

    def hold(self, kind: str, name: str, wait: float = 0) -> Hold | None:
        """Returns a hold that one worker at a time has, None while another has it; waits at most so many seconds."""
        hidden = self._hide(kind, name)
        deadline, pause = time.monotonic() + wait, SHORTEST_PAUSE
        while (held := self._backend.hold(hidden)) is None and time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)
        return held

    @contextmanager
    def lock(self, kind: str, name: str) -> Iterator[Hold]:
        """Yields a hold that one worker at a time has. Raises `StateUnavailable` after 30 seconds of waiting."""
        held = self.hold(kind, name, LOCK_SECONDS)
        if held is None:
            raise StateUnavailable("Another worker holds this lock for too long.")
        try:
            yield held
        finally:
            held.release()

    def doubts(self) -> list[str]:
        """Returns in words how what is kept here may be lost, for who runs the bridge."""
        return self._backend.doubts()

    def seal(self, purpose: str, value: bytes) -> str:
        """Returns URL-safe text that only this deployment opens, for what a caller is to bring back."""
        return (
            urlsafe_b64encode(primitives.seal(self._value_key, value, purpose.encode())).decode().rstrip("=")
        )

    def open(self, purpose: str, text: str) -> bytes | None:
        """Returns what was sealed for this purpose, None when the text is not of this deployment or was altered."""
        try:
            sealed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return primitives.open_sealed(self._value_key, sealed, purpose.encode())
        except (InvalidTag, ValueError):
            return None

    def _hide(self, kind: str, name: str) -> str:
        return hmac.new(self._name_key, f"{kind}\0{name}".encode(), hashlib.sha256).hexdigest()

    def _shelf(self, kind: str, listed: bool) -> str:
        return self._hide("shelf", kind) if listed else ""

    def _seal(self, hidden: str, value: bytes | None) -> bytes | None:
        return None if value is None else primitives.seal(self._value_key, value, hidden.encode())

    def _open(self, hidden: str, sealed: bytes | None) -> bytes | None:
        if sealed is None:
            return None
        try:
            return primitives.open_sealed(self._value_key, sealed, hidden.encode())
        except InvalidTag:
            return None


def known_members(kind: Any, members: Mapping[str, Any]) -> dict[str, Any]:
    """Returns of the members of a value those that its dataclass has: a newer version may have kept more."""
    known = {f.name for f in fields(kind)}
    return {name: value for name, value in members.items() if name in known}


def deployment_secret(folder: Path, file: Path | None) -> bytes:
    """Returns the secret of `file`, else that of the data dir, made on first use with mode 0600.

    Raises `StateUnavailable` for one that was cut off.
    """
    if file is not None:
        return file.read_bytes()
    path = folder / "secret"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = folder / f"secret.{os.getpid()}.{threading.get_ident()}"
    if not path.exists():
        draft.touch(mode=0o600)
        with draft.open("wb") as opened:
            opened.write(secrets.token_bytes(SECRET_BYTES))
            opened.flush()
            os.fsync(opened.fileno())
        try:
            os.link(draft, path)  # one of several workers wins, whole or not at all
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    secret = path.read_bytes()
    if len(secret) < SECRET_BYTES:
        raise StateUnavailable(
            f"{path} is cut off. Put it back from a copy: keys, Subscriptions and open transactions need it."
        )
    return secret
