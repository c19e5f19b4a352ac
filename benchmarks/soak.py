"""Kills workers, servers and importers at random moments of an import, and counts what stands afterwards.

`python -m benchmarks.soak [--rounds 200] [--redis]`. Each round imports Bundles with four jobs into three workers,
kills with SIGKILL, brings back what died and imports again until the importer says that all is done. Then each
resource must be there exactly once, nothing else, and the journal must be empty.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bridge import demo
from bridge.app import create_app
from bridge.config import Config, read_config
from bridge.journal import Journal
from tests.helpers import Server, free_port, redis_serving, serving, stored

BUNDLES, DAYS = 8, 10
"""Each Bundle has a Patient and so many Observations, each in a Contact of its own."""
WORKERS, JOBS = 3, 4
LONGEST_DELAY_SECONDS = 3.0
PATIENCE_SECONDS = 120.0


class Broken(Exception):
    """A promise was not kept."""


@dataclass
class Soak:
    """Rounds of killing over one data dir."""

    data_dir: Path
    state_url: str = ""
    random: random.Random = field(default_factory=random.Random)
    killed: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    """How many rounds took more than one import."""

    def rounds(self, count: int) -> None:
        """Runs so many rounds. Raises `Broken` at the first promise that is not kept."""
        with ExitStack() as running:
            server = running.enter_context(self._server())
            for number in range(count):
                before = self._standing()
                self._write_bundles(number)
                victim = self.random.choice(("worker", "workers", "server", "importer"))
                importing = self._import(server, number)
                time.sleep(self.random.uniform(0.3, LONGEST_DELAY_SECONDS))
                self._kill(victim, server, importing)
                if victim == "server":
                    running.close()
                    server = running.enter_context(self._server())
                status = importing.wait(PATIENCE_SECONDS)
                tries = 0
                while status != 0:
                    tries += 1
                    if tries > 5:
                        raise Broken(f"round {number}: the import does not end:\n{self._log.read_text()}")
                    status = self._import(server, number).wait(PATIENCE_SECONDS)
                self.interrupted += bool(tries)
                self._check(number, before)

    def _check(self, number: int, before: Counter[str]) -> None:
        expected = before + Counter({"Patient": BUNDLES, "Contact": BUNDLES * DAYS})
        for n in range(BUNDLES):
            expected |= {f"Patient r{number}-{n}": 1, f"Service r{number}-{n}": DAYS}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._journal.open_names():
            if time.monotonic() > deadline:
                raise Broken(f"round {number}: the journal stays open")
            time.sleep(0.2)
        found = self._standing()
        if found != expected:
            raise Broken(f"round {number}: too much {found - expected}, too little {expected - found}")

    def _standing(self) -> Counter[str]:
        """Returns how many documents of each type are not deleted, and how many things of each mark."""
        counted: Counter[str] = Counter()
        for (kind, _), (_, body) in stored(self.data_dir).items():
            document = json.loads(body)
            if kind not in ("Patient", "Contact") or document.get("deletionDate"):
                continue
            counted[kind] += 1
            if kind == "Patient":
                marks = [i["value"] for i in document.get("identifier", ()) if i.get("system") == "mark"]
            else:
                live = [s for s in document["services"] if not s.get("endOfLife")]
                marks = [c["code"] for s in live for c in s.get("codes", ()) if c.get("type") == "mark"]
            counted.update(f"{'Patient' if kind == 'Patient' else 'Service'} {mark}" for mark in marks)
        return counted

    def _kill(self, victim: str, server: Server, importing: subprocess.Popen[bytes]) -> None:
        self.killed[victim] += 1
        workers = server.workers()
        if victim == "importer":
            importing.kill()
        elif victim == "server":
            os.killpg(server.process.pid, signal.SIGKILL)
        else:
            for pid in workers if victim == "workers" else self.random.sample(workers, 1):
                os.kill(pid, signal.SIGKILL)

    def _server(self) -> AbstractContextManager[Server]:
        return serving(self.data_dir, workers=WORKERS, port=self._port, **self._environment())

    def _environment(self) -> dict[str, str]:
        secret = {"BRIDGE_SECRET_FILE": str(self.data_dir / "secret")}
        return {"BRIDGE_STATE_URL": self.state_url, **secret} if self.state_url else {}

    @cached_property
    def _port(self) -> int:
        return free_port()

    @cached_property
    def _journal(self) -> Journal:
        config, _ = read_config({"BRIDGE_DATA_DIR": str(self.data_dir), **self._environment()})
        return Journal(create_app(config).extensions["bridge"].state)

    @property
    def _log(self) -> Path:
        return self.data_dir / "import.log"

    @property
    def _input(self) -> Path:
        return self.data_dir / "input"

    def _write_bundles(self, number: int) -> None:
        """Writes the files of a round."""
        self._input.mkdir(exist_ok=True)
        for n in range(BUNDLES):
            (self._input / f"{n}.json").write_text(json.dumps(bundle(f"r{number}-{n}")))

    def _import(self, server: Server, number: int) -> subprocess.Popen[bytes]:
        """Starts the importer; every other round it has a file of what was acknowledged."""
        keeps = ["--state", str(self.data_dir / f"acknowledged-{number}")] if number % 2 else []
        command = [sys.executable, "-m", "bridge.cli", "import", str(self._input), "--url", server.url]
        options = ["--key", str(self._key_file), "--password-file", str(self._password_file)]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                [*command, *options, "--jobs", str(JOBS), *keeps], stdout=log, stderr=subprocess.STDOUT
            )

    @cached_property
    def _password_file(self) -> Path:
        file = self.data_dir / "password"
        file.write_text(demo.accounts(self.data_dir)[0]["password"])
        return file

    @cached_property
    def _key_file(self) -> Path:
        file = self.data_dir / "key.json"
        account = demo.accounts(self.data_dir)[0]
        file.write_text(json.dumps({name: account[name] for name in ("login", "dataOwnerId", "privateKey")}))
        return file


def bundle(mark: str) -> dict[str, object]:
    """A transaction with a Patient and Observations on different days, all of this mark."""
    patient = {"resourceType": "Patient", "identifier": [{"system": "mark", "value": mark}]}
    url = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, mark)}"
    entries: list[dict[str, object]] = [
        {"fullUrl": url, "resource": patient, "request": {"method": "POST", "url": "Patient"}}
    ]
    for day in range(DAYS):
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": "mark", "code": mark}]},
            "subject": {"reference": url},
            "effectiveDateTime": f"2026-01-{day + 1:02}",
        }
        entries.append({"resource": observation, "request": {"method": "POST", "url": "Observation"}})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    asked.add_argument("--rounds", type=int, default=200)
    asked.add_argument("--redis", action="store_true", help="keep the state in a Redis, not in SQLite")
    asked.add_argument("--seed", type=int, default=None)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        data_dir = Path(folder, "data")
        demo.ensure(Config(data_dir=data_dir))
        url = running.enter_context(redis_serving(Path(folder)))[1] if options.redis else ""
        soak = Soak(data_dir, url, random.Random(options.seed))
        began = time.monotonic()
        soak.rounds(options.rounds)
        took = time.monotonic() - began
        killed = ", ".join(f"{victim} {count}" for victim, count in sorted(soak.killed.items()))
        print(f"{options.rounds} rounds in {took:.0f} s, killed: {killed}")
        print(f"{soak.interrupted} rounds took more than one import; nothing lost, doubled or left open")


if __name__ == "__main__":
    main()
