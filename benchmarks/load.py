"""Clients that send as fast as they are answered, each on a connection of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.helpers import FHIR, basic

Request = tuple[str, str, bytes | None]
"""Method, path below the FHIR base, body."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What the clients saw; times in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p95: float

    def per_second(self, resources: int = 1) -> float:
        return self.requests * resources / self.seconds


class Client:
    """One connection, logged in."""

    def __init__(self, url: str, account: dict[str, str]) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
        self._headers = {"Authorization": basic(account), "Content-Type": "application/fhir+json"}

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Returns the body of the answer, which must be 2xx."""
        url = path if path.startswith("/") else f"{FHIR}/{path}".rstrip("/")
        self._connection.request(method, url, body, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status < 300, answer[:500]
        return answer

    def close(self) -> None:
        self._connection.close()

    def load_key(self, account: dict[str, str]) -> None:
        key = json.dumps({"key": account["privateKey"]}).encode()
        self.send("POST", f"/rest/icdx/v1/keychain/{account['dataOwnerId']}", key)


def measure(
    new_client: Callable[[], Client], clients: int, seconds: float, request: Callable[[int], Request]
) -> Measured:
    """Returns what this many clients saw in this time; `request` gives each client's n-th request."""
    starting = threading.Barrier(clients + 1)
    end = 0.0

    def run(first: int) -> list[float]:
        client = new_client()
        starting.wait()
        times, nth = [], first
        while (start := time.perf_counter()) < end:
            client.send(*request(nth))
            times.append(time.perf_counter() - start)
            nth += clients
        return times

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(run, first) for first in range(clients)]
        start = time.perf_counter()
        end = start + seconds
        starting.wait()
        times = [spent for one in running for spent in one.result()]
    lasted = time.perf_counter() - start
    ordered = sorted(t * 1000 for t in times)
    return Measured(len(ordered), lasted, ordered[len(ordered) // 2], ordered[len(ordered) * 95 // 100])
