"""A real SMTP server for the tests, and what it took."""

from __future__ import annotations

import email
import email.policy
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

from tests.helpers import free_port, running


class Server:
    """A running SMTP server and what it took."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port, self._folder = port, folder

    def messages(self) -> list[EmailMessage]:
        files = sorted(self._folder.glob("*.eml"))
        policy = email.policy.default
        return [email.message_from_bytes(f.read_bytes(), policy=policy) for f in files]  # type: ignore[misc]


@contextmanager
def smtp_serving(folder: Path, *options: str) -> Iterator[Server]:
    """Runs an SMTP server in a process of its own."""
    folder.mkdir()
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent / "smtp_server.py"), str(port), str(folder), *options]
    )
    with running(process, lambda: _listens(port)):
        yield Server(port, folder)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
