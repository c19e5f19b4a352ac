"""Several documents written as one, all of them or none, however the upstream or the bridge fails.

Facts: iCure sits on CouchDB and has no transaction across documents.
Strategy: `entry` is what is kept of a request while it writes: its plan, later its answer. `applying` writes the plan
down, then upstream. `undoing` takes back what was written. `recovery` does so for an entry whose owner died.
"""

from __future__ import annotations

from bridge.journal.applying import apply
from bridge.journal.entry import ANSWERED, APPLIED, OPEN, Entry, Journal, Step
from bridge.journal.recovery import close, late_seconds, recovered, resolve, settle, sweep

__all__ = [
    "ANSWERED",
    "APPLIED",
    "OPEN",
    "Entry",
    "Journal",
    "Step",
    "apply",
    "close",
    "late_seconds",
    "recovered",
    "resolve",
    "settle",
    "sweep",
]
