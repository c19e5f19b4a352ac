"""Prints how fast it is, beside the floor, and how much memory it takes. `python -m benchmarks [load|memory|shares]`"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from benchmarks.examples import EXAMPLE_NUMBER, observation, patient, sent, transaction
from benchmarks.floor import floor
from benchmarks.load import Client, Request, measure
from benchmarks.memory import memory, peak_mb
from benchmarks.shares import own_times, profiled, shares
from bridge import demo
from bridge.config import Config
from bridge.server import default_workers
from tests.helpers import Server, serving

SECONDS = 4.0
FLOOR_SECONDS = 2.0
TRANSACTIONS = {1: (1, 4), 10: (1, 4), 100: (1, 4), 500: (1, 4), 5_000: (1,)}
"""Numbers of clients by number of entries."""
CLIENTS = (1, 8, 32)
"""Of single requests."""
HISTORY = 50
"""Observations of the patient who is read and searched."""


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    asked.add_argument("what", nargs="?", choices=["load", "memory", "shares"])
    asked.add_argument("--seconds", type=float, default=SECONDS, help="for each line of the table")
    options = asked.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, Python {sys.version.split()[0]}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        tables = {
            "load": lambda: load(Path(folder), options.seconds),
            "memory": lambda: memory(Path(folder) / "memory"),
            "shares": lambda: parts(Path(folder) / "shares"),
        }
        for table in [options.what] if options.what else tables:
            for line in tables[table]():
                print(line, flush=True)
            print()


def load(folder: Path, seconds: float) -> Iterator[str]:
    """Yields the table of what clients of a real server see."""
    data_dir = folder / "data"
    demo.ensure(Config(data_dir=data_dir))
    account = demo.accounts(data_dir)[0]
    with serving(data_dir, workers=default_workers()) as server:
        try:
            yield from _table(server, account, folder, seconds)
        except AssertionError:
            print(*(line for line in server.log.read_text().splitlines() if '"error"' in line), sep="\n")
            raise
        peaks = [peak_mb(pid) for pid in server.workers()]
        yield f"\n{len(peaks)} workers, at most {max(peaks):.0f} MB resident each."


def _table(server: Server, account: dict[str, str], folder: Path, seconds: float) -> Iterator[str]:
    def client() -> Client:
        return Client(server.url, account)

    one = client()
    one.load_key(account)
    for _ in range(4 * default_workers()):
        one.send("POST", "", sent(transaction(1)))
    yield "| request | clients | resources/s | p50 ms | p95 ms | CPU ms/resource | floor | times the floor |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"

    def line(name: str, clients: int, request: Callable[[int], Request], floor_ms: float, size: int) -> str:
        before = _cpu_ms(server)
        seen = measure(client, clients, seconds, request)
        spent = (_cpu_ms(server) - before) / (seen.requests * size)
        lowest = f"{floor_ms:.2f} | {spent / floor_ms:.1f}" if floor_ms else "– | –"
        return (
            f"| {name} | {clients} | {seen.per_second(size):,.0f} | {seen.p50:.1f} | {seen.p95:.1f} "
            f"| {spent:.2f} | {lowest} |"
        )

    for size, counts in TRANSACTIONS.items():
        body = sent(transaction(size - 1))
        lowest = floor(body, folder, FLOOR_SECONDS) / size
        for clients in counts:
            yield line(f"transaction of {size:,}", clients, _posting("", body), lowest, size)
    one = client()
    subject = json.loads(one.send("POST", "Patient", sent(patient())))["id"]
    made = [
        json.loads(one.send("POST", "Observation", sent(observation(f"Patient/{subject}", nth))))["id"]
        for nth in range(HISTORY)
    ]
    other = json.loads(one.send("POST", "Patient", sent(patient())))["id"]
    single = sent(observation(f"Patient/{other}"))
    singles: dict[str, tuple[Callable[[int], Request], float]] = {
        "create an Observation": (
            _posting("Observation", single),
            floor(single, folder, FLOOR_SECONDS),
        ),
        "read an Observation": (lambda nth: ("GET", f"Observation/{made[nth % HISTORY]}", None), 0.0),
        "search the ten newest of 50": (
            lambda _: ("GET", f"Observation?patient={subject}&_sort=-date&_count=10", None),
            0.0,
        ),
    }
    for name, (request, lowest) in singles.items():
        for clients in CLIENTS:
            yield line(name, clients, request, lowest, 1)


def _posting(path: str, body: bytes) -> Callable[[int], Request]:
    """Returns what sends the body, each time another one: what is sent twice at once is done once."""
    return lambda nth: ("POST", path, body.replace(EXAMPLE_NUMBER, b"%d-%d" % (next(_SENT), nth)))


_SENT = count()


def _cpu_ms(server: Server) -> float:
    """Returns what the workers have used of the processors so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.workers()]
    return sum(int(ticks) for stat in stats for ticks in stat[11:13]) * 1000 / os.sysconf("SC_CLK_TCK")


def parts(folder: Path) -> Iterator[str]:
    """Yields the tables of where a transaction's time goes."""
    stats = profiled(sent(transaction(499)), folder)
    yield "| part of a transaction of 500 | share |"
    yield "|---|---:|"
    for part, share in shares(stats):
        yield f"| {part} | {share:.0%} |"
    yield "\n| function | own time | calls |"
    yield "|---|---:|---:|"
    for name, share, calls in own_times(stats):
        yield f"| `{name}` | {share:.1%} | {calls:,} |"


if __name__ == "__main__":
    main()
