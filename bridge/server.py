"""The service under gunicorn: several processes, each with threads, forked from one warmed-up application."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from bridge import logs, wire
from bridge.app import create_app
from bridge.config import Config

DEFAULT_THREADS = 4
KEEP_ALIVE_SECONDS = 30
GRACE_SECONDS = 30


def default_workers() -> int:
    """Returns one process per core, and at least two where there are two cores."""
    return max(1, len(os.sched_getaffinity(0)))


def port_is_free(host: str, port: int) -> bool:
    """Whether an address can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


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


def _numbers(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a if isinstance(a, int) else "…" for a in args)


class Server(BaseApplication):  # type: ignore[misc]
    """gunicorn with the bridge's settings. Blocks in `run()` until it is told to stop."""

    def __init__(
        self, config: Config, *, host: str, port: int, workers: int, threads: int, ready: Callable[[], None]
    ) -> None:
        self._config = config
        self._options = {
            "bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
            "workers": workers,
            "threads": threads,
            "worker_class": "gthread",
            "preload_app": True,
            "keepalive": KEEP_ALIVE_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "logger_class": Quiet,
            "loglevel": "warning",
            "when_ready": lambda server: ready(),
            "control_socket_disable": True,
        }
        super().__init__()

    def load_config(self) -> None:
        """Hands the settings to gunicorn."""
        for name, value in self._options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> Any:
        """Returns the application, warmed up; called once, before the workers are forked."""
        wire.warm_up()
        logs.configure()
        return create_app(self._config)
