"""Another process beside a running server, on the same data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from bridge import demo
from bridge.embedded.store import DATABASE
from tests.helpers import Server, basic, serving, stored

STATE = "state.db"
ADD = ("account", "add", "newcomer", "--password", "long enough")


def beside(data_dir: Path, *arguments: str) -> None:
    """Runs the command on the data directory of a running server, to its end."""
    command = [sys.executable, "-m", "bridge.cli", *arguments, "--data-dir", str(data_dir)]
    if arguments == ADD:
        command += ["--key-file", str(data_dir / "newcomer.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr


def created(server: Server, account: dict[str, str], times: int) -> set[str]:
    """Returns the ids of this many new patients, each created on a fresh connection."""
    patient = {"resourceType": "Patient", "name": [{"family": "Donald"}]}
    headers = {"Authorization": basic(account), "Content-Type": "application/fhir+json"}
    answers = [requests.post(f"{server.fhir}/Patient", json=patient, headers=headers) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {201}
    return {answer.json()["id"] for answer in answers}


def logs_in_use(data_dir: Path) -> dict[str, int]:
    """Returns the write-ahead logs by name: the same number is the same file."""
    return {name: (data_dir / f"{name}-wal").stat().st_ino for name in (DATABASE, STATE)}


@pytest.mark.parametrize("arguments", [ADD, ("check",)], ids=["account add", "check"])
def test_a_command_beside_the_server_costs_nothing_that_was_acknowledged(
    data_dir: Path, arguments: tuple[str, ...]
) -> None:
    account = demo.accounts(data_dir)[0]
    with serving(data_dir) as server:
        key = {"key": account["privateKey"]}
        keychain = f"{server.url}/rest/icdx/v1/keychain/{account['dataOwnerId']}"
        loaded = requests.post(keychain, json=key, headers={"Authorization": basic(account)})
        assert loaded.status_code == 200
        ids = created(server, account, 4)
        before = logs_in_use(data_dir)
        beside(data_dir, *arguments)
        assert logs_in_use(data_dir) == before
        ids |= created(server, account, 4)
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()
    assert ids <= {entity_id for entity_type, entity_id in stored(data_dir) if entity_type == "Patient"}


def test_no_worker_holds_a_database_that_its_parent_opened(data_dir: Path) -> None:
    with serving(data_dir) as server:
        assert requests.get(f"{server.url}/health/ready").ok
        opened = [
            str(fd.readlink()) for fd in Path(f"/proc/{server.process.pid}/fd").iterdir() if fd.is_symlink()
        ]
    assert not [path for path in opened if path.startswith(str(data_dir)) and ".log" not in path]
