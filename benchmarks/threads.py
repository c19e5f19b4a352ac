"""How many threads a worker process should have: single creates and reads of 8 clients against 2 processes.

Run: python -m benchmarks.threads
"""

from __future__ import annotations

import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import requests

from bridge import demo
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, FHIR, Remote, Server, serving

WORKERS, CLIENTS, EACH = 2, 8, 60
BODY = b'{"resourceType": "Patient", "name": [{"family": "Bench", "given": ["M."]}], "gender": "other"}'


def milliseconds(remote: Remote, method: str, path: str, body: bytes | None) -> tuple[list[float], float]:
    """Returns how long each request took, and how many there were in a second."""

    def client(_: int) -> list[float]:
        took = []
        with requests.Session() as session:
            for _ in range(EACH):
                start = time.perf_counter()
                answer = session.request(method, remote.server.url + path, data=body, headers=remote.headers)
                took.append((time.perf_counter() - start) * 1000)
                assert answer.ok, answer.text
        return took

    start = time.perf_counter()
    with ThreadPoolExecutor(CLIENTS) as pool:
        took = list(chain.from_iterable(pool.map(client, range(CLIENTS))))
    return took, len(took) / (time.perf_counter() - start)


def line(server: Server, folder: Path, threads: int) -> str:
    """Returns a row of the table."""
    remote = Remote(server, demo.accounts(folder)[0])
    remote.load_key()
    cells = [str(threads)]
    for method, path, body in (
        ("POST", f"{FHIR}/Patient", BODY),
        ("GET", f"{FHIR}/Patient/{DEMO_PATIENT}", None),
    ):
        milliseconds(remote, method, path, body)
        took, rate = milliseconds(remote, method, path, body)
        tenths = statistics.quantiles(took, n=20)
        cells += [f"{statistics.median(took):.1f}", f"{tenths[-1]:.1f}", f"{rate:.0f}"]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Prints the table."""
    print("| threads | create p50 ms | p95 | per second | read p50 ms | p95 | per second |")
    print("|---|---|---|---|---|---|---|")
    for threads in (1, 2, 4, 8):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            demo.ensure(Config(data_dir=folder))
            with serving(folder, "--threads", str(threads), workers=WORKERS) as server:
                print(line(server, folder, threads), flush=True)


if __name__ == "__main__":
    main()
