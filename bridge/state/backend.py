"""What a store of the shared state offers: opaque bytes under opaque names, shelves of names, and holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Change = Callable[[bytes | None], tuple[bytes | None, float | None]]
"""From the value now (or None) to the value to keep (None: delete) and when it ends (epoch seconds, None: never)."""


class Hold(Protocol):
    """A lock that is held until it is released or its process dies."""

    def check(self) -> None:
        """Raises `StateUnavailable` when it was lost, or may have been."""

    def release(self) -> None:
        """Lets others have it. What cannot be released now ends by itself."""


class Backend(Protocol):
    """Stores opaque bytes under opaque names. All methods raise `StateUnavailable`.

    A value stands on one shelf or on none (""); it leaves the shelf when it is deleted or ends.
    """

    def get(self, name: str) -> bytes | None:
        """Returns the value, None when there is none or it has ended."""

    def put(self, name: str, value: bytes | None, ends: float | None, shelf: str = "") -> None:
        """Replaces the value whatever it is; None deletes."""

    def update(self, name: str, change: Change, shelf: str = "") -> None:
        """Replaces the value by what `change` makes of it, atomically among all workers.

        `change` is called again when another came first.
        """

    def names(self, shelf: str) -> list[str]:
        """Returns the names of the values on a shelf, in any order."""

    def hold(self, name: str) -> Hold | None:
        """Returns a hold that nobody else has, in no process and no thread, None while another has it."""

    def doubts(self) -> list[str]:
        """Returns in words how what is kept here may be lost, for who runs it."""
