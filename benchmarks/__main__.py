"""Prints how fast it is, beside the floor. `python -m benchmarks [load|shares]`, about two minutes in all."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.examples import observation, patient, sent, transaction
from benchmarks.floor import floor
from benchmarks.load import Client, Request, measure
from benchmarks.shares import own_times, profiled, shares
from bridge import demo
from bridge.config import Config
from bridge.server import default_workers
from tests.helpers import Server, serving

SECONDS = 8.0
FLOOR_SECONDS = 3.0
SINGLE_CLIENTS = 8


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    asked.add_argument("what", nargs="?", choices=["load", "shares"])
    asked.add_argument("--seconds", type=float, default=SECONDS, help="for each line of the table")
    options = asked.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, Python {sys.version.split()[0]}\n", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        if options.what != "shares":
            for line in load(Path(folder), options.seconds):
                print(line, flush=True)
            print()
        if options.what != "load":
            for line in parts(Path(folder) / "shares"):
                print(line, flush=True)


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
        peaks = [_peak_mb(pid) for pid in server.workers()]
        yield f"\n{len(peaks)} workers, at most {max(peaks)} MB resident each."


def _table(server: Server, account: dict[str, str], folder: Path, seconds: float) -> Iterator[str]:
    def client() -> Client:
        return Client(server.url, account)

    client().load_key(account)
    for _ in range(4 * default_workers()):
        client().send("POST", "", sent(transaction(1)))
    yield "| request | clients | resources/s | p50 ms | p95 ms | CPU ms/resource | floor |"
    yield "|---|---:|---:|---:|---:|---:|---:|"

    def line(name: str, clients: int, request: Callable[[int], Request], lowest: float, size: int = 1) -> str:
        before = _cpu_ms(server)
        seen = measure(client, clients, seconds, request)
        spent = (_cpu_ms(server) - before) / (seen.requests * size)
        return (
            f"| {name} | {clients} | {seen.per_second(size):,.0f} | {seen.p50:.1f} | {seen.p95:.1f} "
            f"| {spent:.2f} | {f'{lowest / size:.2f}' if lowest else '–'} |"
        )

    for observations in (99, 499):
        body = sent(transaction(observations))
        lowest = floor(body, folder, FLOOR_SECONDS)
        name = f"transaction, 1 Patient + {observations} Observations"
        for clients in (1, 4):
            yield line(name, clients, lambda _, body=body: ("POST", "", body), lowest, observations + 1)
    subject = json.loads(client().send("POST", "Patient", sent(patient())))["id"]
    single = sent(observation(f"Patient/{subject}"))
    made = [json.loads(client().send("POST", "Observation", single))["id"] for _ in range(50)]

    def create(_: int) -> Request:
        return "POST", "Observation", single

    def read(nth: int) -> Request:
        return "GET", f"Observation/{made[nth % len(made)]}", None

    lowest = floor(single, folder, FLOOR_SECONDS)
    for clients in (1, SINGLE_CLIENTS):
        yield line("create an Observation", clients, create, lowest)
    for clients in (1, SINGLE_CLIENTS):
        yield line("read an Observation", clients, read, 0.0)


def _cpu_ms(server: Server) -> float:
    """Returns what the workers have used of the processors so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in server.workers()]
    return sum(int(ticks) for stat in stats for ticks in stat[11:13]) * 1000 / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmHWM"))


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
