"""Websockets whose client does not do its part."""

from __future__ import annotations

import base64
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge import websockets
from bridge.websockets import ROOM, TALK, Socket, Websockets
from tests.helpers import eventually

SECONDS = 60


class Listening:
    """An application with room for so many listeners."""

    def __init__(self, talk: Callable[[Socket], None], most: int) -> None:
        self.talk = talk
        self.rooms: list[bool] = []
        self.served = Websockets(self.application, most)
        self.before = set(threading.enumerate())

    def application(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.rooms.append(environ[ROOM])
        if environ[ROOM]:
            environ[TALK] = self.talk
        start_response("503 Service Unavailable", [])
        return []

    def comes(self, **headers: str) -> socket.socket:
        """Returns the client's end of a connection that asks for a websocket."""
        client, server = socket.socketpair()
        client.settimeout(SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        environ = {
            "REQUEST_METHOD": "GET",
            "HTTP_HOST": "localhost",
            "HTTP_UPGRADE": "websocket",
            "HTTP_CONNECTION": "Upgrade",
            "HTTP_SEC_WEBSOCKET_KEY": key,
            "HTTP_SEC_WEBSOCKET_VERSION": "13",
            "gunicorn.socket": server,
            **headers,
        }

        def serve() -> None:
            with server, pytest.raises(StopIteration):
                self.served(environ, lambda *_: None)

        threading.Thread(target=serve, daemon=True).start()
        assert client.recv(4096, socket.MSG_PEEK).startswith(b"HTTP/1.1 101 ")
        return client

    def nothing_is_left(self) -> bool:
        """Whether no thread of a connection is left."""
        return self.before.issuperset(threading.enumerate())


@pytest.fixture
def kept() -> Iterator[list[socket.socket]]:
    """Connections that stay open until the test is over."""
    connections: list[socket.socket] = []
    yield connections
    for one in connections:
        one.close()


def test_who_is_sent_away_and_stays_on_the_line_holds_no_thread(kept: list[socket.socket]) -> None:
    listening = Listening(lambda listener: listener.close(1008, "This is not for you."), 3)
    for _ in range(3):
        kept.append(listening.comes())
    eventually(listening.nothing_is_left)
    for client in kept:
        assert b"This is not for you." in b"".join(iter(lambda one=client: one.recv(4096), b""))


def test_who_vanished_makes_room(kept: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets, "PING_SECONDS", 0.1)

    def listens(listener: Socket) -> None:
        while True:
            listener.receive(SECONDS)

    listening = Listening(listens, 1)
    kept.append(listening.comes())
    eventually(listening.nothing_is_left)
    kept.append(listening.comes())
    assert listening.rooms == [True, True]


@pytest.mark.parametrize(
    "extensions", ["permessage-deflate", "permessage-deflate; server_max_window_bits=abc", ";;,=", "no such"]
)
def test_extensions_are_neither_taken_up_nor_stumbled_over(
    kept: list[socket.socket], extensions: str
) -> None:
    listening = Listening(lambda listener: listener.send("hello"), 1)
    kept.append(listening.comes(HTTP_SEC_WEBSOCKET_EXTENSIONS=extensions))
    said = b"".join(iter(lambda: kept[0].recv(4096), b""))
    assert b"Sec-WebSocket-Extensions" not in said
    assert b"hello" in said
