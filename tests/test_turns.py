"""Threads of a worker that have much to compute take turns, for a while."""

from __future__ import annotations

import threading

import pytest

from bridge import scope
from bridge.scope import MANY, Turns


def entered(turns: Turns, resources: int) -> threading.Event:
    """Returns what tells that another thread got its turn."""
    inside = threading.Event()

    def run() -> None:
        with turns.of(resources):
            inside.set()

    threading.Thread(target=run, daemon=True).start()
    return inside


def test_who_has_much_waits_for_who_has_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "TURN_SECONDS", 60)
    turns = Turns()
    with turns.of(MANY):
        waiting = entered(turns, MANY)
        assert not waiting.wait(0.2)
    assert waiting.wait(60)


def test_who_has_little_neither_waits_nor_lets_wait() -> None:
    turns = Turns()
    with turns.of(MANY - 1), turns.of(MANY):
        assert entered(turns, MANY - 1).wait(60)


def test_nobody_waits_for_all_of_a_very_large_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scope, "TURN_SECONDS", 0.05)
    turns = Turns()
    with turns.of(MANY):
        assert entered(turns, MANY).wait(60)
    assert entered(turns, MANY).wait(60)


def test_a_turn_ends_with_an_error() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="wrong"), turns.of(MANY):
        raise ValueError("wrong")
    assert entered(turns, MANY).wait(60)
