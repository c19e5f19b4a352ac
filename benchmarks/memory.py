"""How much memory a worker takes for one Bundle: resident, at its highest, less what it had before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from benchmarks.examples import EXAMPLE_NUMBER, observation, patient, sent, transaction
from benchmarks.load import Client
from bridge import demo
from bridge.config import Config
from tests.helpers import serving

RESET_PEAK = "5"
MB = 1_000_000


def bundles() -> Iterator[tuple[str, list[bytes]]]:
    """Yields what is sent at once, with its name."""
    for size in (1_000, 5_000, 20_000):
        yield f"transaction of {size:,} Observations of a patient", [sent(transaction(size - 1))]
    body = sent(transaction(4_999))
    yield "8 transactions of 5,000 at once", [body.replace(EXAMPLE_NUMBER, b"%05d" % nth) for nth in range(8)]
    patients = [patient() for _ in range(5_000)]
    yield "transaction of 5,000 Patients", [sent(bundle("transaction", patients))]
    observations = [observation("Patient/nobody", nth) for nth in range(1_000)]
    yield "batch of 1,000 Observations, all refused", [sent(bundle("batch", observations))]


def bundle(kind: str, resources: list[dict[str, object]]) -> dict[str, object]:
    entries = [{"resource": r, "request": {"method": "POST", "url": r["resourceType"]}} for r in resources]
    return {"resourceType": "Bundle", "type": kind, "entry": entries}


def memory(folder: Path) -> Iterator[str]:
    """Yields the table."""
    yield "| Bundle | MB sent | MB at the highest | MB more than before | times its own size |"
    yield "|---|---:|---:|---:|---:|"
    for number, (name, bodies) in enumerate(bundles()):
        highest, more = taken(folder / str(number), bodies)
        own = sum(map(len, bodies)) / MB
        yield f"| {name} | {own:.1f} | {highest:.0f} | {more:.0f} | {more / own:.1f} |"


def taken(folder: Path, bodies: Sequence[bytes]) -> tuple[float, float]:
    """Returns the most MB that a worker has while it answers Bundles sent at once, and how many more than before.

    The worker has served nothing but a small one, and its store holds little.
    """
    demo.ensure(Config(data_dir=folder))
    account = demo.accounts(folder)[0]
    with serving(folder, workers=1) as server, closing(Client(server.url, account)) as client:
        (worker,) = server.workers()
        client.load_key(account)
        client.send("POST", "", sent(transaction(9)))
        Path(f"/proc/{worker}/clear_refs").write_text(RESET_PEAK)
        before = peak_mb(worker)
        with ThreadPoolExecutor(len(bodies)) as pool:
            for one in [pool.submit(_send, server.url, account, body) for body in bodies]:
                one.result()
        highest = peak_mb(worker)
    return highest, highest - before


def _send(url: str, account: dict[str, str], body: bytes) -> None:
    with closing(Client(url, account)) as client:
        client.send("POST", "", body)


def peak_mb(pid: int) -> float:
    """Returns the most memory that a process had resident since the last reset."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 / MB for line in status.splitlines() if line.startswith("VmHWM"))
