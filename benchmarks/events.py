"""How soon a subscriber is told, and that it is told of everything although the bridge is restarted meanwhile.

`python -m benchmarks.events [--count 1000] [--subscribers 2]`. Posts Observations one by one with several clients to a
real server, with an endpoint in a process of its own. First nothing is disturbed, and each Observation's time from the
answer of its create to its notification is measured; then the server is restarted twice while they are posted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from bridge import demo, wire
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, Remote, Server, free_port, serving
from tests.receiver import receiving

CLIENTS = 4
PATIENCE_SECONDS = 120.0
WEIGHT = {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]}
SUBJECT = {"reference": f"Patient/{DEMO_PATIENT}"}


def receive() -> None:
    """Is the endpoint: prints its address, then time and path of each notification."""
    with receiving() as one:
        print(one.url, flush=True)
        shown = 0
        while True:
            for _, path, _, _ in one.told[shown:]:
                print(json.dumps([one.times[shown], path]), flush=True)
                shown += 1
            time.sleep(0.01)


@contextmanager
def endpoint() -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Runs the endpoint; gives its address and what it was told so far."""
    command = [sys.executable, "-m", "benchmarks.events", "--receive"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told: list[tuple[float, str]] = []
    url = process.stdout.readline().strip()
    lines = process.stdout
    thread = threading.Thread(
        target=lambda: told.extend(tuple(json.loads(line)) for line in lines), daemon=True
    )
    thread.start()
    try:
        yield url, told
    finally:
        process.kill()
        process.wait()


def subscribe(caller: Remote, url: str, number: int) -> None:
    channel = {"type": "rest-hook", "endpoint": f"{url}/{number}", "payload": "application/fhir+json"}
    said = {"resourceType": "Subscription", "status": "requested", "reason": "benchmark", "channel": channel}
    caller.created({**said, "criteria": "Observation?code=29463-7"})


def post(
    server: Server, headers: dict[str, str], session: requests.Session, number: int
) -> tuple[str, float]:
    """Returns the id of a new Observation and when it was answered; goes on until it is, whatever is restarted."""
    said = {"resourceType": "Observation", "status": "final", "code": WEIGHT, "subject": SUBJECT}
    body = wire.dump({**said, "valueInteger": number})
    sent = {**headers, "Idempotency-Key": f"event-{number}-{id(session)}"}
    while True:
        try:
            answer = session.post(f"{server.fhir}/Observation", data=body, headers=sent, timeout=30)
            if answer.status_code in (200, 201):
                return str(answer.json()["id"]), time.time()
        except requests.RequestException:
            pass
        time.sleep(0.05)


def posted(server: Server, account: dict[str, str], count: int) -> dict[str, float]:
    """Returns when each of so many Observations was answered."""
    headers = Remote(server, account).headers
    local = threading.local()

    def one(number: int) -> tuple[str, float]:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        return post(server, headers, local.session, number)

    with ThreadPoolExecutor(CLIENTS) as pool:
        return dict(pool.map(one, range(count)))


def wait(told: list[tuple[float, str]], expected: set[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing := expected - {path for _, path in told}:
        if time.monotonic() > deadline:
            raise SystemExit(f"{len(missing)} of {len(expected)} notifications did not come")
        time.sleep(0.1)


def expected(made: dict[str, float], subscribers: int) -> set[str]:
    return {f"/on-result/{n}/Observation/{one}" for n in range(subscribers) for one in made}


def restarts(
    data_dir: Path, port: int, environment: dict[str, Any], stop: threading.Event
) -> Iterator[Server]:
    """Yields a server that is killed with all its workers and started again twice."""
    for turn in range(3):
        with serving(data_dir, port=port, **environment) as server:
            yield server
            if turn < 2:
                time.sleep(2)
                os.killpg(server.process.pid, signal.SIGKILL)
            else:
                stop.wait()


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    asked.add_argument("--count", type=int, default=1000)
    asked.add_argument("--subscribers", type=int, default=2)
    asked.add_argument("--receive", action="store_true", help=argparse.SUPPRESS)
    options = asked.parse_args()
    if options.receive:
        receive()
    hooks = {"BRIDGE_HOOK_HOSTS": "127.0.0.1"}
    with tempfile.TemporaryDirectory() as folder, endpoint() as (url, told):
        data_dir, port = Path(folder) / "data", free_port()
        demo.ensure(Config(data_dir=data_dir))
        account = demo.accounts(data_dir)[0]
        with serving(data_dir, port=port, **hooks) as server:
            caller = Remote(server, account)
            caller.load_key()
            for number in range(options.subscribers):
                subscribe(caller, url, number)
            began = time.monotonic()
            made = posted(server, account, options.count)
            seconds = time.monotonic() - began
            wait(told, expected(made, options.subscribers))
        late = sorted(at - made[path.rpartition("/")[2]] for at, path in told)
        print(
            f"{options.count} Observations, {options.count / seconds:.0f}/s, {options.subscribers} subscribers"
        )
        for share in (50, 95, 99):
            print(
                f"  p{share} from answer to notification: {late[len(late) * share // 100 - 1] * 1000:.0f} ms"
            )
        print(f"  sent twice: {len(told) - len({p for _, p in told})}")
        told.clear()
        disturbed(data_dir, port, hooks, account, options, told)


def disturbed(
    data_dir: Path,
    port: int,
    hooks: dict[str, str],
    account: dict[str, str],
    options: argparse.Namespace,
    told: list[tuple[float, str]],
) -> None:
    """Prints how the notifications came while the server was restarted twice."""
    stop = threading.Event()
    running = restarts(data_dir, port, hooks, stop)
    with ThreadPoolExecutor(1) as other:
        work = other.submit(posted, next(running), account, options.count)
        ups = other_thread(running)
        made = work.result()
        wait(told, expected(made, options.subscribers))
        stop.set()
        ups.join()
    several = Counter(path for _, path in told)
    print(f"{options.count} Observations while the bridge was killed and started again twice")
    print(
        f"  all {len(expected(made, options.subscribers))} notifications came; "
        f"{sum(n - 1 for n in several.values())} came again"
    )


def other_thread(running: Iterator[Server]) -> threading.Thread:
    thread = threading.Thread(target=lambda: [None for _ in running])
    thread.start()
    return thread


if __name__ == "__main__":
    main()
