"""The service under gunicorn: several processes, each with threads, forked from one warmed-up application."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.client import responses
from multiprocessing.sharedctypes import RawArray
from typing import Any

from gunicorn import util
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from bridge import errors, journal, logs, wire
from bridge.app import create_app
from bridge.config import Config
from bridge.scope import Bridge

DEFAULT_THREADS = 8
KEEP_ALIVE_SECONDS = 30
GRACE_SECONDS = 30
SWEEP_SECONDS = 5.0
ACCESS_LOG_SECONDS = 10.0
"""How long a worker that ends writes what is left of its access log."""
LEAVE_SECONDS, LOOK_SECONDS = 0.03, 0.002
"""How long a worker leaves a new connection to one that holds fewer, and how often it looks whether that has come."""
LONGEST_REQUEST_LINE = 8190
OBJECTS_BETWEEN_COLLECTIONS = 10_000


def default_workers() -> int:
    """Returns one process per core, and at least two where there are two cores."""
    return max(1, len(os.sched_getaffinity(0)))


def listening_problem(host: str, port: int) -> str | None:
    """Returns in words why this address cannot be listened on, None when it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                return f"{host}:{port} is taken. Stop what runs there, or choose another --port."
            if e.errno == errno.EACCES:
                return f"Listening on port {port} takes rights that this user has not; choose another --port."
            return f"{host} is no address of this machine; choose another --host."
    return None


class Quiet(Logger):  # type: ignore[misc]
    """gunicorn's log without any text that came from a request: only numbers are filled into its warnings."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Writes nothing; the bridge has its own line for each request."""

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Writes a warning without texts."""
        super().warning(msg, *_numbers(args))

    def error(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Writes an error without texts."""
        super().error(msg, *_numbers(args))

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Writes an error without texts and without the exception."""
        super().error(msg, *_numbers(args))


class Connections:
    """How many connections each worker holds, in memory that all of them share.

    Fact: who waits for connections takes what comes, so that a client's four kept open may all be one worker's.
    """

    def __init__(self, workers: int) -> None:
        self._held = RawArray("i", workers)
        self._places: dict[int, int] = {}

    def place(self, worker: int, running: Iterable[int]) -> int:
        """Returns where a new worker, told by its age, counts its own; said before it is forked."""
        self._places = {age: place for age, place in self._places.items() if age in running}
        free = set(range(len(self._held))) - set(self._places.values())
        self._places[worker] = place = min(free, default=worker % len(self._held))
        self._held[place] = 0
        return place

    def tell(self, place: int, held: int) -> None:
        """Says how many connections a worker holds."""
        self._held[place] = held

    def has_most(self, place: int) -> bool:
        """Whether another worker holds fewer."""
        held: list[int] = list(self._held)
        return held[place] > min(held)


class Worker(ThreadWorker):  # type: ignore[misc]
    """A gunicorn worker that takes its share of the connections.

    It repeats nothing of a request that it cannot read, neither in its log nor in its answer.
    """

    connections: Connections
    place: int

    def accept(self, listener: Any) -> None:
        """Takes a connection, after a moment in which a worker that holds fewer may take it."""
        until = time.monotonic() + LEAVE_SECONDS
        while self.connections.has_most(self.place) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
        super().accept(listener)
        self.connections.tell(self.place, self.nr_conns)

    def notify(self) -> None:
        """Says that the worker lives, after each round of what happened, and what it holds."""
        self.connections.tell(self.place, self.nr_conns)
        super().notify()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begins to stop; who listens is sent away."""
        if (application := getattr(self, "wsgi", None)) is not None:  # else it begins only now
            application.extensions["websockets"].stopping = True
        super().handle_exit(sig, frame)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Logs the error by its type, and answers with an OperationOutcome."""
        unread = isinstance(exc, http.ParseException) and not isinstance(exc, _OURS)
        if unread:
            status, text = _UNREAD.get(type(exc), (400, "This is no HTTP request that can be read."))
            issue = errors.Issue("invalid", text)
            logs.line("unread", type=type(exc).__name__, status=status)
        else:
            status, (issue, *_), _ = errors.explain(exc)
            logs.unexpected(exc)
        body = wire.dump(errors.outcome([issue]))
        head = (
            f"HTTP/1.1 {status} {responses[status]}\r\nConnection: close\r\n"
            f"Content-Type: {wire.FHIR_JSON}; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with suppress(OSError):
            util.write_nonblock(client, head.encode() + body)


_OURS = (http.InvalidResponseHeader, http.InvalidResponseHeaderName)
_UNREAD: dict[type[BaseException], tuple[int, str]] = {
    http.LimitRequestLine: (414, "The request line is too long."),
    http.LimitRequestHeaders: (431, "The headers are too many or too long."),
    http.UnsupportedTransferCoding: (501, "Of transfer codings only chunked is understood."),
    http.ExpectationFailed: (417, "Of expectations only 100-continue is understood."),
}


def _numbers(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a if isinstance(a, int) else "…" for a in args)


def _begin(extensions: dict[str, Any]) -> None:
    """Begins what a worker does beside answering."""
    _sweep_now_and_then(extensions["bridge"])
    _write_access_log(extensions["bridge"])
    extensions["following"].start()


def _sweep_now_and_then(bridge: Bridge) -> None:
    """Starts a thread that undoes what workers that died left half-written; it ends with the process."""

    def run() -> None:
        while True:
            time.sleep(SWEEP_SECONDS)
            try:
                journal.sweep(bridge)
            except Exception as e:  # noqa: BLE001  the thread goes on
                logs.unexpected(e)

    threading.Thread(target=run, name="journal", daemon=True).start()


def _write_access_log(bridge: Bridge) -> None:
    """Starts a thread that writes who was shown what; it ends with the process."""
    log = bridge.access_log
    if log is None:
        return

    def run() -> None:
        while not log.stopped:
            try:
                for problem in log.run():
                    logs.line("access log", problem=problem, waiting=log.waiting, lost=log.lost())
            except Exception as e:  # noqa: BLE001  the thread goes on
                logs.unexpected(e)

    threading.Thread(target=run, name="access log", daemon=True).start()


def _finish_access_log(application: Any) -> None:
    """Writes what is left when a worker ends, and tells what was lost; one that never began has none."""
    log = application.extensions["bridge"].access_log if application is not None else None
    if log is not None:
        log.stop(ACCESS_LOG_SECONDS)
        if lost := log.lost():
            logs.line("access log", problem=None, waiting=0, lost=lost)


def _allow_many_files() -> None:
    """Raises how many files a worker may have open to what the system allows: each lock of a transaction is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _spare_the_collector() -> None:
    """Has the garbage collector pass over what the workers will share, and come more seldom.

    Facts: it comes after so many new objects, whether or not there is garbage; a Bundle makes a million that go by
    themselves. What it passes over is not written to, so it stays shared between the processes.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)


def _share_one_heap() -> None:
    """Has the threads of a worker take memory from one heap, where the C library can be told so.

    Facts: glibc gives threads heaps of their own, and what one has freed serves no other. Python's threads seldom ask
    at the same time. https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


_M_ARENA_MAX = -8


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with the bridge's settings. Blocks in `run()` until it is told to stop."""

    def __init__(
        self, config: Config, *, host: str, port: int, workers: int, threads: int, ready: Callable[[], None]
    ) -> None:
        self._config = config
        self._connections = Connections(workers)
        self._options = {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": workers,
            "threads": threads,
            "worker_class": Worker,
            "preload_app": True,
            "keepalive": KEEP_ALIVE_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "logger_class": Quiet,
            "loglevel": "warning",
            "when_ready": lambda server: ready(),
            "pre_fork": self._place,
            "post_worker_init": lambda worker: _begin(worker.wsgi.extensions),
            "worker_exit": lambda server, worker: _finish_access_log(getattr(worker, "wsgi", None)),
            "limit_request_line": LONGEST_REQUEST_LINE,
            "forwarded_allow_ips": "",  # what a proxy says is read in one place: routes.answers.base_url
            "control_socket_disable": True,
        }
        super().__init__()

    def _place(self, arbiter: Any, worker: Worker) -> None:
        worker.connections = self._connections
        worker.place = self._connections.place(worker.age, {other.age for other in arbiter.WORKERS.values()})

    def load_config(self) -> None:
        """Hands the settings to gunicorn."""
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """Returns the application, warmed up; called once, before the workers are forked."""
        _allow_many_files()
        _share_one_heap()
        wire.warm_up()
        logs.configure()
        application = create_app(self._config, websockets=self.cfg.threads // 2)
        _spare_the_collector()
        return application
