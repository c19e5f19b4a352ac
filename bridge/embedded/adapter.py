"""Reaches a WSGI application inside this process through a `requests` session."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Mapping
from http.client import responses
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

IN_PROCESS = "embedded.in_process"
"""Set in the WSGI environment of calls that come through the adapter."""

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]


class InProcess(BaseAdapter):
    """Answers requests by calling the application; what it raises flies to the caller of the session."""

    def __init__(self, app: WsgiApp) -> None:
        super().__init__()
        self._app = app

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Returns the application's answer, read to its end."""
        started: dict[str, Any] = {}
        written: list[bytes] = []

        def start_response(
            status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
        ) -> Callable[[bytes], None]:
            started["status"], started["headers"] = status, headers
            return written.append

        result = self._app(_environ(request), start_response)
        try:
            written.extend(result)
        finally:
            if hasattr(result, "close"):
                result.close()
        return _response(request, started["status"], started["headers"], b"".join(written))

    def close(self) -> None:
        """Does nothing: there is no connection."""


def _environ(request: requests.PreparedRequest) -> dict[str, Any]:
    url = urlsplit(str(request.url))
    body = request.body or b""
    content = body.encode() if isinstance(body, str) else body if isinstance(body, bytes) else body.read()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(url.path).decode("latin-1"),
        "QUERY_STRING": url.query,
        "SERVER_NAME": url.hostname or "",
        "SERVER_PORT": str(url.port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": url.scheme,
        "wsgi.input": io.BytesIO(content),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        IN_PROCESS: True,
    }
    for name, value in request.headers.items():
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        wsgi_name = name.upper().replace("-", "_")
        if wsgi_name == "CONTENT_TYPE":
            environ[wsgi_name] = text
        elif wsgi_name != "CONTENT_LENGTH":
            environ[f"HTTP_{wsgi_name}"] = text
    return environ


def _response(
    request: requests.PreparedRequest, status: str, headers: list[tuple[str, str]], body: bytes
) -> requests.Response:
    response = requests.Response()
    response.status_code = int(status.split(" ", 1)[0])
    response.reason = status.partition(" ")[2] or responses.get(response.status_code, "")
    response.headers = CaseInsensitiveDict(headers)
    response.url = str(request.url)
    response.request = request
    response.encoding = "utf-8"
    response.raw = io.BytesIO(body)
    response._content = body
    response._content_consumed = True  # type: ignore[attr-defined]
    return response
