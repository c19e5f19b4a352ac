"""An endpoint that takes notifications."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.helpers import eventually


class Receiver:
    """An endpoint: keeps what it was told, and answers as a test wants."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str], bytes]] = []
        self.times: list[float] = []
        """When, for each."""
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    status = receiver.answers.pop(0)
                except IndexError:
                    status = 200
                if status < 300:
                    receiver.times.append(time.time())
                    receiver.told.append((self.command, self.path, dict(self.headers), body))
                self.send_response(status)
                if status in (301, 307):
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            do_POST = do_PUT = answer

            def log_message(self, *_: Any) -> None:
                """Writes nothing."""

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/on-result"

    def paths(self) -> list[str]:
        return [f"{method} {path}" for method, path, _, _ in self.told]

    def wait_for(self, paths: set[str]) -> None:
        """Returns when all of this was told."""
        eventually(lambda: paths <= set(self.paths()), 180)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Says nothing of a client that was killed."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs an endpoint."""
    one = Receiver()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    try:
        yield one
    finally:
        one.server.shutdown()
        thread.join()
        one.server.server_close()
