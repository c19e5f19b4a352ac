"""A large Bundle takes a worker a small multiple of its own size."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.examples import sent, transaction

SIZE = 5_000
MOST_TIMES = 20
"""Its own size. It was 30 while all of it was there parsed, and in full length."""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="the most memory a process had is read from /proc, which only Linux has",
)
def test_a_bundle_of_thousands_takes_a_worker_little_more_than_its_text(data_dir: Path) -> None:
    body = sent(transaction(SIZE - 1))
    _, more = memory.taken(data_dir, [body])
    assert more < MOST_TIMES * len(body) / memory.MB
