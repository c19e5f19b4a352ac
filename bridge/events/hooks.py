"""The rest-hook channel: one request to an endpoint that somebody named.

Facts: https://hl7.org/fhir/R4/valueset-subscription-channel-type.html: a POST; with a payload the endpoint is a FHIR
base and the resource is put there.

Rule: an endpoint is foreign. Only https, only public addresses, except on hosts that the operator allows; the name is
resolved first, all its addresses are looked at, and the connection goes to one of these, whatever the name says later.
No redirect is followed; what is answered counts by its status, and of the rest only a little is read. However slowly
it takes and answers, the connection is cut after a while: a thread waits for it.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urlsplit

import urllib3
import urllib3.connection
from cachetools import TTLCache

from bridge.config import Config
from bridge.errors import BusinessRule, UpstreamFailed

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 10.0
MOST_ADDRESSES = 3
"""Of a host, that are tried until one can be reached."""
WHOLE_SECONDS = 30.0
"""For a request and its answer, however many bytes come in time."""
MOST_ANSWER_BYTES = 64 * 1024
MARK_HEADER = "Fhir-Bridge-Notification"
"""By which a bridge knows what it sent itself."""
_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\x20-\x7e\t]*)")
_OURS = frozenset(
    (
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
    )
)
_METADATA = (ip_network("168.63.129.16/32"), ip_network("192.0.0.0/24"))
"""Where clouds tell their machines their secrets, though no private range."""
_UNICAST, _TRANSLATED = ip_network("2000::/3"), ip_network("64:ff9b::/96")
"""All that is public of IPv6, and what leads to IPv4. https://www.iana.org/assignments/ipv6-address-space"""
Address = IPv4Address | IPv6Address


class Undelivered(UpstreamFailed):
    """The endpoint did not take a notification."""


def inner(address: Address) -> bool:
    """Whether an address is no public one, or leads to one that is not."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return inner(address.ipv4_mapped)
        if address in _TRANSLATED:
            return inner(IPv4Address(int(address) & 0xFFFFFFFF))
        within = [address.sixtofour, *(address.teredo or ())]
        if address not in _UNICAST or any(inner(one) for one in within if one is not None):
            return True
    return not address.is_global or address.is_multicast or any(address in one for one in _METADATA)


def read_headers(lines: Sequence[str | None]) -> dict[str, str]:
    """Returns the headers of a channel by name; what has the same name goes into one.

    Raises `BusinessRule` for one that cannot be sent.
    """
    headers: dict[str, str] = {}
    names: dict[str, str] = {}
    for at, line in enumerate(lines):
        said = _HEADER.fullmatch(line or "")
        if said is None or said[1].lower() in _OURS or said[1].lower() == MARK_HEADER.lower():
            raise BusinessRule(
                "A header is `Name: value`, and not one that the connection is about.",
                f"Subscription.channel.header[{at}]",
            )
        name = names.setdefault(said[1].lower(), said[1])
        value = said[2].strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


class _Cut(urllib3.connection.HTTPConnection):
    """A connection that ends in the middle of a request that takes too long."""

    _line: socket.socket | None = None
    _clock: threading.Timer | None = None
    _late = False

    def connect(self) -> None:
        super().connect()
        self._line = self.sock
        if self._late:
            self._cut()

    def request(self, *arguments: Any, **options: Any) -> None:
        self._late = False
        self._clock = threading.Timer(WHOLE_SECONDS, self._cut)
        self._clock.daemon = True
        self._clock.start()
        super().request(*arguments, **options)

    def answered(self) -> None:
        """Stops the clock."""
        if self._clock is not None:
            self._clock.cancel()

    def _cut(self) -> None:
        self._late = True
        if self._line is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._line, socket.SHUT_RDWR)


class _CutHTTPS(_Cut, urllib3.connection.HTTPSConnection):
    """The same over TLS."""


class _HTTPPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Cut


class _HTTPSPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CutHTTPS


class Hooks:
    """Sends notifications; keeps connections for a while."""

    def __init__(self, config: Config, mark: str) -> None:
        self._hosts = frozenset(config.hook_hosts)
        self._public = config.public_url
        self._mark = mark
        self._pools: TTLCache[tuple[str, str, int, str], urllib3.HTTPConnectionPool] = TTLCache(100, 300)
        self._lock = threading.Lock()

    def check(self, endpoint: str, base: str) -> None:
        """Raises `BusinessRule` unless notifications may go to this endpoint."""
        url = self._parts(endpoint)
        for own in (base, self._public):
            if own and _place(url) == _place(urlsplit(own)):
                raise BusinessRule(
                    "The endpoint is this bridge itself: every notification would cause another.", ENDPOINT
                )
        try:
            self._addresses(url)
        except Undelivered as e:
            raise BusinessRule("The endpoint's host has no address.", ENDPOINT) from e

    def send(self, endpoint: str, headers: dict[str, str], put: tuple[str, bytes, str] | None = None) -> None:
        """Sends a POST without content, or puts a body of a media type at a path below the endpoint.

        Raises `Undelivered` unless the endpoint answers that it took it, `BusinessRule` when it may not be asked.
        """
        url = self._parts(endpoint)
        pools = [self._pool(url, str(address)) for address in self._addresses(url)[:MOST_ADDRESSES]]
        path = url.path + (f"{'' if url.path.endswith('/') else '/'}{put[0]}" if put else "")
        target = (path or "/") + (f"?{url.query}" if url.query else "")
        sent = {**headers, "Host": url.netloc, MARK_HEADER: self._mark}
        if put:
            sent["Content-Type"] = put[2]
        with _translated():
            deadline = time.monotonic() + ANSWER_SECONDS
            response = _first_answer(
                pools,
                method="PUT" if put else "POST",
                url=target,
                body=put[1] if put else b"",
                headers=sent,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            connection = response.connection
            try:
                _let_go(response, deadline)
            finally:
                if isinstance(connection, _Cut):
                    connection.answered()
        if not 200 <= response.status < 300:
            text = "redirects, which is not followed" if 300 <= response.status < 400 else "refuses"
            raise Undelivered(f"The endpoint answered {response.status}: it {text}.")

    def _parts(self, endpoint: str) -> SplitResult:
        try:
            url = urlsplit(endpoint)
            good = url.scheme in ("https", "http") and url.hostname and (url.port or 1)
        except ValueError:
            good = False
        if (
            not good
            or not re.fullmatch("[!-~]+", endpoint)
            or "@" in url.netloc
            or url.fragment
            or "\\" in endpoint
        ):
            raise BusinessRule(
                "The endpoint must be an https URL, without credentials and fragment.", ENDPOINT
            )
        if url.scheme == "http" and url.hostname not in self._hosts:
            raise BusinessRule(
                "The endpoint must be an https URL: this host is not in BRIDGE_HOOK_HOSTS.", ENDPOINT
            )
        return url

    def _addresses(self, url: SplitResult) -> list[Address]:
        host, port = str(url.hostname), _port(url)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            addresses = [ip_address(str(sockaddr[0]).partition("%")[0]) for *_, sockaddr in found]
        except (OSError, UnicodeError, ValueError):
            addresses = []
        if not addresses:
            raise Undelivered("The endpoint's host has no address.")
        if host not in self._hosts and any(map(inner, addresses)):
            raise BusinessRule(
                "The endpoint is at an inner address, and its host is not in BRIDGE_HOOK_HOSTS.", ENDPOINT
            )
        return addresses

    def _pool(self, url: SplitResult, address: str) -> urllib3.HTTPConnectionPool:
        """Returns connections to exactly this address, in the name of the host."""
        host, port = str(url.hostname), _port(url)
        key = (url.scheme, host, port, address)
        with self._lock:
            pool = self._pools.get(key)
            if pool is None:
                timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=ANSWER_SECONDS)
                pool = (
                    _HTTPSPool(
                        address, port, timeout=timeout, maxsize=8, assert_hostname=host, server_hostname=host
                    )
                    if url.scheme == "https"
                    else _HTTPPool(address, port, timeout=timeout, maxsize=8)
                )
                self._pools[key] = pool
        return pool


ENDPOINT = "Subscription.channel.endpoint"
UNREACHED = "The endpoint cannot be reached, or broke the connection."


def _port(url: SplitResult) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _place(url: SplitResult) -> tuple[str | None, int]:
    host = (url.hostname or "").rstrip(".")
    return ("localhost" if host in ("127.0.0.1", "::1") else host), _port(url)


def _first_answer(pools: Sequence[urllib3.HTTPConnectionPool], **request: Any) -> urllib3.BaseHTTPResponse:
    """Returns what the first answers to which a connection can be made."""
    for pool in pools[:-1]:
        with suppress(urllib3.exceptions.ConnectTimeoutError):  # a refusal is one too
            return pool.urlopen(**request)
    return pools[-1].urlopen(**request)


def _let_go(response: urllib3.BaseHTTPResponse, deadline: float) -> None:
    """Reads a short answer to its end, so that the connection can be used again; closes any other.

    An informational one is not the end: what comes after it would be taken for the next answer.
    """
    left = MOST_ANSWER_BYTES if response.status >= 200 else 0
    while left > 0 and time.monotonic() < deadline:
        part = response.read1(left)
        if not part:
            response.release_conn()
            return
        left -= len(part)
    response.close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except urllib3.exceptions.NewConnectionError as e:
        raise Undelivered(UNREACHED) from e
    except urllib3.exceptions.TimeoutError as e:
        raise Undelivered("The endpoint did not answer in time.") from e
    except urllib3.exceptions.SSLError as e:
        raise Undelivered("The endpoint's certificate is not one that is trusted here.") from e
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as e:
        raise Undelivered(UNREACHED) from e
