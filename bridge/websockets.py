"""Websockets beside a WSGI application: it decides who may listen, here the connection is kept.

Strategy: a handshake goes through the application like any request. `ROOM` in its environment says whether there is
room for one more; where the application leaves a `TALK` there, the handshake is accepted and the talk has the
connection, and with it the thread, until it returns.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from simple_websocket import ConnectionClosed, Server
from simple_websocket.errors import SimpleWebsocketError

ROOM, TALK = "websocket.room", "websocket.talk"
GUNICORN_SOCKET = "gunicorn.socket"
UPGRADE = "HTTP_UPGRADE"
"""Left out of what the application is asked: werkzeug has routes of their own for handshakes, ours answer both."""
EXTENSIONS = "HTTP_SEC_WEBSOCKET_EXTENSIONS"
"""Left out of the handshake: none is offered, what is encrypted hardly packs. Bad parameters raise `ValueError`."""
GOING_AWAY = 1001
LONGEST_MESSAGE = 1024 * 1024
PING_SECONDS = 25.0
"""How often a client is asked whether it is still there; one that does not answer until the next time is given up."""
SEND_SECONDS = 60
"""After which a client that takes nothing is given up."""


class Socket:
    """One accepted connection, for the talk that has it."""

    def __init__(self, connection: Server, websockets: Websockets) -> None:
        self._connection = connection
        self._websockets = websockets

    def send(self, text: str) -> None:
        """Sends a text. Raises `ConnectionError` when the client is gone."""
        try:
            self._connection.send(text)
        except (ConnectionClosed, OSError) as e:
            raise ConnectionError from e

    def receive(self, seconds: float) -> str | None:
        """Returns the next text, None when none came in so many seconds.

        Raises `ConnectionError` when the client is gone or this process is about to end.
        """
        if self._websockets.stopping:
            self.close(GOING_AWAY, "This server stops.")
            raise ConnectionError
        try:
            message = self._connection.receive(timeout=seconds)
        except (ConnectionClosed, OSError) as e:
            raise ConnectionError from e
        return message if isinstance(message, str) else None

    def close(self, code: int, reason: str) -> None:
        """Ends the connection with a code of RFC 6455 and a reason."""
        with suppress(ConnectionClosed, OSError):
            self._connection.close(code, reason)


Talk = Callable[[Socket], None]


class Websockets:
    """A WSGI application with websockets, at most so many at once in this process."""

    def __init__(self, application: Any, most: int) -> None:
        self._application = application
        self._room = threading.Semaphore(most)
        self.stopping = False
        """Whether no talk goes on: set when the process is about to end."""

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: D102
        if environ.get(UPGRADE, "").lower() != "websocket" or GUNICORN_SOCKET not in environ:
            return self._plain(environ, start_response)
        if not _is_handshake(environ):
            return self._plain(_without(environ, UPGRADE), start_response)
        room = self._room.acquire(blocking=False)
        try:
            return self._answer(environ, room, start_response)
        finally:
            if room:
                self._room.release()

    def _plain(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        body: Iterable[bytes] = self._application(environ, start_response)
        return body

    def _answer(self, environ: dict[str, Any], room: bool, start_response: Any) -> Iterable[bytes]:
        asked = _without(environ, UPGRADE) | {ROOM: room}
        began: list[tuple[Any, ...]] = []
        written: list[bytes] = []

        def begin(*arguments: Any) -> Callable[[bytes], None]:
            began[:] = [arguments]
            return written.append

        body = self._application(asked, begin)
        try:
            written.extend(body)
        finally:
            if hasattr(body, "close"):
                body.close()
        talk: Talk | None = asked.get(TALK)
        if talk is None:
            start_response(*began[-1])
            return written
        self._talk(environ, talk)
        # Fact: to gunicorn this says that the connection is done with, and that nothing more is to be sent on it.
        raise StopIteration

    def _talk(self, environ: dict[str, Any], talk: Talk) -> None:
        # Fact: gunicorn's sockets block; without an end to that, a client that reads nothing keeps the thread.
        line, seconds = environ[GUNICORN_SOCKET], struct.pack("ll", SEND_SECONDS, 0)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, seconds)
        try:
            connection = Server.accept(
                _without(environ, EXTENSIONS),
                ping_interval=PING_SECONDS,
                max_message_size=LONGEST_MESSAGE,
                thread_class=partial(threading.Thread, daemon=True),
            )
        except (SimpleWebsocketError, OSError):
            return
        one = Socket(connection, self)
        try:
            talk(one)
        except ConnectionError:
            return
        finally:
            one.close(1000, "")
            # Fact: the thread that reads waits for the client, also when nobody listens to that any more.
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            connection.thread.join()


def _is_handshake(environ: dict[str, Any]) -> bool:
    """Whether a request can be accepted as a websocket. https://www.rfc-editor.org/rfc/rfc6455#section-4.2.1"""
    tokens = [token.strip() for token in environ.get("HTTP_CONNECTION", "").lower().split(",")]
    return (
        environ["REQUEST_METHOD"] == "GET"
        and "upgrade" in tokens
        and environ.get("HTTP_SEC_WEBSOCKET_VERSION") == "13"
        and {"HTTP_HOST", "HTTP_SEC_WEBSOCKET_KEY"} <= environ.keys()
    )


def _without(environ: dict[str, Any], header: str) -> dict[str, Any]:
    return {name: value for name, value in environ.items() if name != header}
