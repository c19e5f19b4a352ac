"""How much memory a worker takes for one Bundle: resident, at its highest, less what it had before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.examples import sent, transaction
from benchmarks.load import Client
from bridge import demo
from bridge.config import Config
from tests.helpers import serving

SIZES = (1_000, 5_000, 20_000)
RESET_PEAK = "5"
MB = 1_000_000


def memory(folder: Path) -> Iterator[str]:
    """Yields the table; each Bundle is sent to a worker that has served nothing but a small one before."""
    yield "| transaction of | MB sent | MB at the highest | MB more than before | times its own size |"
    yield "|---:|---:|---:|---:|---:|"
    demo.ensure(Config(data_dir=folder))
    account = demo.accounts(folder)[0]
    for size in SIZES:
        body = sent(transaction(size - 1))
        with serving(folder, workers=1) as server:
            (worker,) = server.workers()
            client = Client(server.url, account)
            client.load_key(account)
            client.send("POST", "", sent(transaction(9)))
            Path(f"/proc/{worker}/clear_refs").write_text(RESET_PEAK)
            before = peak_mb(worker)
            client.send("POST", "", body)
            highest = peak_mb(worker)
        more, own = highest - before, len(body) / MB
        yield f"| {size:,} | {own:.1f} | {highest:.0f} | {more:.0f} | {more / own:.1f} |"


def peak_mb(pid: int) -> float:
    """Returns the most memory that a process had resident since the last reset."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 / MB for line in status.splitlines() if line.startswith("VmHWM"))
