"""A few rounds of `benchmarks/soak.py`: killed at random moments, imports end with each resource there once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import soak

SEED = 20261121


@pytest.mark.parametrize("rounds", [4])
def test_an_import_into_workers_that_are_killed_ends_with_one_copy(data_dir: Path, rounds: int) -> None:
    soaked = soak.Soak(data_dir, random=random.Random(SEED))
    soaked.rounds(rounds)
    assert soaked.killed.total() == rounds


def test_so_it_is_with_a_state_in_redis(data_dir: Path, redis_url: str) -> None:
    soak.Soak(data_dir, redis_url, random.Random(SEED)).rounds(2)


def test_a_doubled_resource_would_be_seen(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rounds can fail: without its key, a Bundle that is sent again is written again."""
    soaked = soak.Soak(data_dir, random=random.Random(SEED))
    written = soak.bundle
    monkeypatch.setattr(soak, "bundle", lambda mark: written(mark.replace("-1", "-0")))
    with pytest.raises(soak.Broken, match=r"too much .*Patient r0-0"):
        soaked.rounds(1)
