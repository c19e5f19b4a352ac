"""iCure's client against a server that fails in every way a server can."""

from __future__ import annotations

import inspect
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from bridge import errors
from bridge.errors import BridgeError, UpstreamFailed, UpstreamTimeout
from bridge.upstream import REPEATS, Client, Tokens, Upstream, translate_exception, translate_status
from tests.helpers import eventually, saying

PATIENT = {"id": "p", "rev": "1-a"}


@dataclass
class Reply:
    """What the server does with one request."""

    status: int = 200
    body: bytes = b'{"id": "p", "rev": "1-a"}'
    headers: dict[str, str] = field(default_factory=dict)
    fault: str = ""
    """half: less than promised; reset: the connection breaks; silence: no answer."""


@dataclass
class Received:
    """One request, as it came to the server."""

    method: str
    path: str
    headers: dict[str, str]


class Icure:
    """A server that answers what it is told to, in this order, the last again and again."""

    def __init__(self) -> None:
        self.replies = [Reply()]
        self.received: list[Received] = []
        self.over = threading.Event()
        self.answers: Callable[[Received], Reply] = self.next
        icure = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version, wbufsize = "HTTP/1.1", 65536

            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                received = Received(self.command, self.path, dict(self.headers))
                reply = icure.answers(received)
                icure.received.append(received)
                if reply.fault == "silence":
                    icure.over.wait()
                if reply.fault in ("reset", "silence"):
                    linger = struct.pack("ii", 1, 0)
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    self.close_connection = True
                    self.connection.close()
                    return
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body) + 100 * (reply.fault == "half")))
                self.end_headers()
                self.wfile.write(reply.body)
                self.wfile.flush()
                self.close_connection = self.close_connection or reply.fault == "half"

            do_GET = do_POST = do_PUT = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                pass

            def finish(self) -> None:
                if not self.connection._closed:  # type: ignore[attr-defined]
                    super().finish()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def next(self, received: Received) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]

    def told(self) -> list[str]:
        return [f"{r.method} {r.path.removeprefix('/rest/v2/')}" for r in self.received]


@pytest.fixture(scope="module")
def running() -> Iterator[Icure]:
    icure = Icure()
    thread = threading.Thread(target=icure.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield icure
    icure.over.set()
    icure.server.shutdown()
    icure.server.server_close()
    thread.join()


@pytest.fixture
def icure(running: Icure) -> Icure:
    running.received, running.replies, running.answers = [], [Reply()], running.next
    return running


class Foreseeing(HTTPAdapter):
    """Waits long for an answer, but only a moment for none, and then until the request has come to the server."""

    def __init__(self, icure: Icure) -> None:
        super().__init__()
        self.icure = icure

    def send(self, request: Any, **options: Any) -> requests.Response:
        if self.icure.replies[0].fault != "silence":
            return super().send(request, **options)
        before = len(self.icure.received)
        try:
            return super().send(request, timeout=(60, 0.05))
        finally:
            eventually(lambda: len(self.icure.received) > before)


@pytest.fixture
def upstream(icure: Icure) -> Iterator[Upstream]:
    session = requests.Session()
    session.mount("http://", Foreseeing(icure))
    yield Upstream(icure.url, session, pause_seconds=0.001)
    session.close()


@pytest.fixture
def client(upstream: Upstream) -> Client:
    return Client(upstream, Tokens("ended", "refresh"))


Call = Callable[[Client], Any]
READS: dict[str, Call] = {
    "read": lambda c: c.read("patient", "p"),
    "by_ids": lambda c: c.by_ids("patient", ["p"]),
    "match": lambda c: c.match("patient", {}),
    "current_user": lambda c: c.current_user(),
    "data_owner": lambda c: c.data_owner("o"),
    "anonymous": lambda c: c.anonymous("o"),
    "data_owners": lambda c: c.data_owners(["o"]),
    "healthcare_parties": lambda c: c.healthcare_parties(["h"]),
    "exchange_data": lambda c: c.exchange_data(["e"]),
    "exchange_data_between": lambda c: c.exchange_data_between("a", "b"),
    "exchange_data_of": lambda c: list(c.exchange_data_of("a")),
    "exchange_data_maps": lambda c: c.exchange_data_maps(["k"]),
    "user_by": lambda c: c.user_by("Email", "a@b"),
    "users": lambda c: c.users({}, "", 10),
    "users_by_login": lambda c: c.users_by_login("a", 10),
}
WRITES: dict[str, Call] = {
    "create": lambda c: c.create("patient", {"id": "p"}),
    "modify": lambda c: c.modify("patient", PATIENT),
    "create_batch": lambda c: c.create_batch("patient", [{"id": "p"}]),
    "share": lambda c: c.share("patient", {}),
    "delete": lambda c: c.delete("patient", "p", "1-a"),
    "purge": lambda c: c.purge("patient", "p", "1-a"),
    "create_exchange_data": lambda c: c.create_exchange_data({"id": "p"}),
    "create_exchange_data_maps": lambda c: c.create_exchange_data_maps({}),
    "create_access_logs": lambda c: c.create_access_logs([{"id": "p"}]),
    "create_token": lambda c: c.create_token("u", "phone", 60),
}
CALLS = READS | WRITES


def test_every_call_of_the_client_is_tested_here() -> None:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert public == set(CALLS)


STATUSES: dict[int, type[BridgeError]] = {
    301: UpstreamFailed,
    302: UpstreamFailed,
    304: UpstreamFailed,
    307: UpstreamFailed,
    400: errors.Unprocessable,
    402: errors.Throttled,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.Unprocessable,
    406: errors.Unprocessable,
    409: errors.Conflict,
    410: errors.Unprocessable,
    412: errors.Unprocessable,
    413: errors.TooLarge,
    415: errors.Unprocessable,
    417: errors.Unprocessable,
    418: errors.Unprocessable,
    422: errors.BusinessRule,
    429: errors.Throttled,
    500: UpstreamFailed,
    501: UpstreamFailed,
    502: UpstreamFailed,
    503: UpstreamFailed,
    504: UpstreamFailed,
    505: UpstreamFailed,
    599: UpstreamFailed,
}


@pytest.mark.parametrize(("status", "kind"), STATUSES.items())
def test_every_status_becomes_an_error_that_tells_nothing_of_the_text(
    icure: Icure, client: Client, status: int, kind: type[BridgeError]
) -> None:
    icure.replies = [Reply(status, b'{"message": "zanzibar"}')]
    with pytest.raises(kind) as raised:
        client.create("patient", {"id": "p"})
    assert type(raised.value) is kind
    assert "zanzibar" not in str(raised.value)
    assert icure.told() == ["POST patient"]


@pytest.mark.parametrize("status", range(300, 600))
def test_no_status_but_2xx_passes(status: int) -> None:
    response = requests.Response()
    response.status_code = status
    translated = translate_status(response)
    assert 400 <= translated.status < 600
    assert (translated.status < 500) == (400 <= status < 500)


def test_retry_after_is_passed_on_when_iCure_asks_to_slow_down(icure: Icure, client: Client) -> None:
    for status, expected in ((429, {"Retry-After": "7"}), (402, {"Retry-After": "7"}), (503, {})):
        icure.replies = [Reply(status, headers={"Retry-After": "7"})]
        with pytest.raises(BridgeError) as raised:
            client.create("patient", {"id": "p"})
        assert raised.value.headers == expected


def _exceptions() -> list[type[requests.RequestException]]:
    """Every exception that requests may raise, its subclasses in other modules too."""
    found: list[type[requests.RequestException]] = []
    ahead: list[type[requests.RequestException]] = [requests.RequestException]
    while ahead:
        kind = ahead.pop()
        found.append(kind)
        ahead += kind.__subclasses__()
    return sorted(set(found), key=lambda kind: kind.__name__)


EXCEPTIONS: dict[str, type[BridgeError]] = {
    "ChunkedEncodingError": UpstreamFailed,
    "ConnectTimeout": UpstreamTimeout,
    "ConnectionError": UpstreamFailed,
    "ContentDecodingError": UpstreamFailed,
    "HTTPError": UpstreamFailed,
    "InvalidHeader": UpstreamFailed,
    "InvalidJSONError": UpstreamFailed,
    "InvalidProxyURL": UpstreamFailed,
    "InvalidSchema": UpstreamFailed,
    "InvalidURL": UpstreamFailed,
    "JSONDecodeError": UpstreamFailed,
    "MissingSchema": UpstreamFailed,
    "ProxyError": UpstreamFailed,
    "ReadTimeout": UpstreamTimeout,
    "RequestException": UpstreamFailed,
    "RetryError": UpstreamFailed,
    "SSLError": UpstreamFailed,
    "StreamConsumedError": UpstreamFailed,
    "Timeout": UpstreamTimeout,
    "TooManyRedirects": UpstreamFailed,
    "URLRequired": UpstreamFailed,
    "UnrewindableBodyError": UpstreamFailed,
}


def test_every_exception_of_requests_has_a_translation_here() -> None:
    ours = {kind.__name__ for kind in _exceptions() if kind.__module__.startswith("requests")}
    assert ours == set(EXCEPTIONS)


@pytest.mark.parametrize("kind", _exceptions(), ids=lambda kind: kind.__name__)
def test_an_exception_of_requests_is_translated_and_its_text_is_not_told(
    kind: type[requests.RequestException],
) -> None:
    error = kind("zanzibar", "zanzibar", 0) if kind.__name__ == "JSONDecodeError" else kind("zanzibar")
    translated = translate_exception(error)
    assert type(translated) is EXCEPTIONS.get(kind.__name__, type(translated))
    assert "zanzibar" not in str(translated)
    assert translated.status in (502, 504)


FAULTS: dict[str, tuple[Reply, type[BridgeError]]] = {
    "connection reset": (Reply(fault="reset"), UpstreamFailed),
    "half a reply": (Reply(fault="half"), UpstreamFailed),
    "silence": (Reply(fault="silence"), UpstreamTimeout),
    "broken gzip": (Reply(headers={"Content-Encoding": "gzip"}), UpstreamFailed),
    "502": (Reply(502), UpstreamFailed),
    "503": (Reply(503), UpstreamFailed),
    "504": (Reply(504), UpstreamFailed),
}


@pytest.mark.parametrize(("reply", "kind"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_call_that_changes_nothing_is_repeated_and_no_more_than_a_bounded_number_of_times(
    icure: Icure, client: Client, call: Call, reply: Reply, kind: type[BridgeError]
) -> None:
    icure.replies = [reply]
    with pytest.raises(kind):
        call(client)
    assert len(icure.received) == 1 + REPEATS
    assert len(set(icure.told())) == 1


@pytest.mark.parametrize(("reply", "kind"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_a_call_that_changes_something_is_never_repeated(
    icure: Icure, client: Client, call: Call, reply: Reply, kind: type[BridgeError]
) -> None:
    icure.replies = [reply, Reply()]
    with pytest.raises(kind):
        call(client)
    assert len(icure.received) == 1


@pytest.mark.parametrize("reply", [reply for reply, _ in FAULTS.values()], ids=FAULTS)
def test_a_read_that_is_answered_when_repeated_succeeds(icure: Icure, client: Client, reply: Reply) -> None:
    icure.replies = [reply, Reply()]
    assert client.read("patient", "p") == PATIENT
    assert len(icure.received) == 2


@pytest.mark.parametrize("status", [400, 403, 409, 422, 429, 500])
def test_an_answer_that_will_not_change_is_not_asked_for_again(
    icure: Icure, client: Client, status: int
) -> None:
    icure.replies = [Reply(status)]
    with pytest.raises(BridgeError):
        client.read("patient", "p")
    assert len(icure.received) == 1


ODD = {
    "a chunk of a negative size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "a charset that is none of texts": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=idna\r\nContent-Length: 6\r\n\r\na \xff de"
    ),
    "a charset that nobody can name": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=a\0b\r\nContent-Length: 6\r\n\r\na \xff de"
    ),
}


@pytest.mark.parametrize("call", ["read", "create_token"])
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_what_is_hardly_http_is_refused_in_words(odd: bytes, call: str) -> None:
    with saying(odd) as url, pytest.raises(UpstreamFailed, match="cannot be understood"):
        CALLS[call](Client(Upstream(url, pause_seconds=0.001), Tokens("t")))


@pytest.mark.parametrize("status", [101, 102, 103])
def test_what_comes_after_an_informational_answer_is_not_the_answer_to_another_request(status: int) -> None:
    late = b"HTTP/1.1 200 OK\r\nContent-Length: 29\r\n\r\n" + b'{"id": "of another", "rev":1}'
    with saying(b"HTTP/1.1 %d Early\r\n\r\n" % status, late) as url:
        client = Client(Upstream(url), Tokens("t"))
        for _ in range(2):
            with pytest.raises(UpstreamFailed, match=str(status)):
                client.read("patient", "p")


def test_a_retry_after_that_cannot_be_passed_on_is_left_out(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(429, headers={"Retry-After": "1\x01"})]
    with pytest.raises(errors.Throttled) as refused:
        client.read("patient", "p")
    assert refused.value.headers == {}


def test_a_server_that_is_not_there_is_said_so() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        upstream = Upstream(f"http://127.0.0.1:{held.getsockname()[1]}", pause_seconds=0.001)
        with pytest.raises(UpstreamFailed, match="cannot be reached"):
            Client(upstream, Tokens("t")).read("patient", "p")
        assert not upstream.reachable()


SHAPES: dict[str, bytes] = {
    "nothing": b"",
    "HTML": b"<html>zanzibar</html>",
    "half of JSON": b'{"id": "p", "rev": "zanz',
    "not UTF-8": b'{"id": "\xff"}',
    "null": b"null",
    "a number": b"5",
    "a string": b'"zanzibar"',
    "a list of numbers": b"[1, 2]",
    "a list of nulls": b"[null]",
    "a list of lists": b"[[]]",
    "a list of objects without id": b'[{"rev": "1-a"}]',
    "ids that are no strings": b'[{"id": 5, "rev": "1-a"}]',
    "an object": b'{"zanzibar": 1}',
    "an id that is no string": b'{"id": ["p"], "rev": "1-a"}',
    "a stub that is none": b'{"stub": "zanzibar", "type": "hcp"}',
    "rows that are none": b'{"rows": 5}',
    "rows of nothing": b'{"rows": [null]}',
    "a next page that is none": b'{"rows": [], "nextKeyPair": [1]}',
}
INDIFFERENT = (
    "create_access_logs",
    "create_token",
    "purge",
    "create_exchange_data_maps",
    "anonymous",
    "delete",
)
"""Calls whose reply is not looked into, or of which one member at most is wanted."""


@pytest.mark.parametrize("body", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("name", CALLS)
def test_a_reply_of_another_shape_is_understood_or_refused_in_words(
    icure: Icure, client: Client, name: str, body: bytes
) -> None:
    icure.replies = [Reply(body=body)]
    try:
        answered = CALLS[name](client)
    except UpstreamFailed as e:
        assert "zanzibar" not in str(e)
    else:
        empty = answered in ([], {}, ([], ""))
        assert name in INDIFFERENT or empty, answered


NOT_WRITTEN = {
    "another id": b'{"id": "q", "rev": "1-a"}',
    "no rev": b'{"id": "p"}',
    "a rev that is no string": b'{"id": "p", "rev": 1}',
    "a list": b'[{"id": "p", "rev": "1-a"}]',
}


@pytest.mark.parametrize("body", NOT_WRITTEN.values(), ids=NOT_WRITTEN)
@pytest.mark.parametrize("name", ["create", "modify", "create_exchange_data"])
def test_a_write_that_is_not_answered_with_what_was_written_failed(
    icure: Icure, client: Client, name: str, body: bytes
) -> None:
    icure.replies = [Reply(body=body)]
    with pytest.raises(UpstreamFailed):
        CALLS[name](client)


def test_a_batch_gives_what_was_stored_by_id_and_nothing_else(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(body=b'[{"id": "b", "rev": "1-b"}, {"id": "other", "rev": "1-c"}]')]
    stored = client.create_batch("contact", [{"id": "a"}, {"id": "b"}])
    assert stored == {"b": {"id": "b", "rev": "1-b"}}
    assert icure.told() == ["POST contact/batch"]


def test_a_batch_with_an_item_without_rev_failed(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(body=b'[{"id": "a", "rev": "1-a"}, {"id": "b"}]')]
    with pytest.raises(UpstreamFailed):
        client.create_batch("patient", [{"id": "a"}, {"id": "b"}])


def test_ids_are_asked_for_in_bounded_batches(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(body=b"[]")]
    assert client.by_ids("patient", [str(n) for n in range(2001)]) == []
    assert icure.told() == ["POST patient/byIds"] * 3


def test_exchange_data_are_read_page_by_page(icure: Icure, client: Client) -> None:
    icure.replies = [
        Reply(body=b'{"rows": [{"id": "a"}], "nextKeyPair": {"startKeyDocId": "b&c"}}'),
        Reply(body=b'{"rows": [{"id": "b&c"}]}'),
    ]
    assert [e["id"] for e in client.exchange_data_of("o")] == ["a", "b&c"]
    assert icure.told() == [
        "GET exchangedata/byParticipant/o?limit=1000",
        "GET exchangedata/byParticipant/o?limit=1000&startDocumentId=b%26c",
    ]


def test_pages_that_never_end_are_refused(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(body=b'{"rows": [], "nextKeyPair": {"startKeyDocId": "a"}}')]
    with pytest.raises(UpstreamFailed):
        list(client.exchange_data_of("o"))
    assert len(icure.received) == 2


# who calls

TOKEN = Reply(body=b'{"token": "fresh", "refreshToken": "refresh"}')


@pytest.mark.parametrize("name", ["read", "create"])
def test_an_ended_token_is_refreshed_once_and_the_call_made_again(
    icure: Icure, client: Client, name: str
) -> None:
    icure.replies = [Reply(401), TOKEN, Reply()]
    assert CALLS[name](client) == PATIENT
    assert [r.headers.get("Authorization") for r in icure.received] == ["Bearer ended", None, "Bearer fresh"]
    assert icure.received[1].path == "/rest/v2/auth/refresh"
    assert icure.received[1].headers["Refresh-Token"] == "refresh"
    assert CALLS[name](client) == PATIENT
    assert icure.received[3].headers["Authorization"] == "Bearer fresh"


def test_a_token_that_is_refused_again_is_not_refreshed_again(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(401), TOKEN, Reply(401)]
    with pytest.raises(errors.NotLoggedIn):
        client.read("patient", "p")
    assert len(icure.received) == 3


@pytest.mark.parametrize("status", [401, 403, 302])
def test_a_login_that_cannot_be_refreshed_has_ended(icure: Icure, client: Client, status: int) -> None:
    icure.replies = [Reply(401), Reply(status)]
    with pytest.raises(errors.NotLoggedIn):
        client.read("patient", "p")
    assert len(icure.received) == 2


def test_a_token_that_came_without_refresh_token_is_not_refreshed(icure: Icure, upstream: Upstream) -> None:
    icure.replies = [Reply(401)]
    with pytest.raises(errors.NotLoggedIn):
        Client(upstream, Tokens("ended")).read("patient", "p")
    assert {r.path for r in icure.received} == {"/rest/v2/patient/p"}


def test_threads_refresh_a_token_once(icure: Icure, client: Client) -> None:
    all_are_here = threading.Barrier(4)

    def answers(received: Received) -> Reply:
        if received.path.endswith("/auth/refresh"):
            return TOKEN
        if received.headers["Authorization"] == "Bearer ended":
            all_are_here.wait(60)
            return Reply(401)
        return Reply()

    icure.answers = answers
    threads = [threading.Thread(target=client.read, args=("patient", "p")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(icure.told()) == ["GET patient/p"] * 8 + ["POST auth/refresh"]


TOKENS = {
    "none": b"{}",
    "null": b'{"token": null}',
    "a number": b'{"token": 5}',
    "empty": b'{"token": ""}',
    "with a line feed": b'{"token": "a\\nX-Evil: 1"}',
    "beyond ASCII": '{"token": "☃"}'.encode(),
    "no object": b'["a"]',
    "a refresh token that is none": b'{"token": "a", "refreshToken": 5}',
}


@pytest.mark.parametrize("body", TOKENS.values(), ids=TOKENS)
def test_a_login_that_gives_no_token_is_refused_in_words(
    icure: Icure, upstream: Upstream, body: bytes
) -> None:
    icure.replies = [Reply(body=body)]
    with pytest.raises(UpstreamFailed):
        upstream.login("zanzibar", "zanzibar")


@pytest.mark.parametrize("status", [401, 404, 406, 412, 417])
def test_a_login_that_is_refused_says_so(icure: Icure, upstream: Upstream, status: int) -> None:
    icure.replies = [Reply(status)]
    with pytest.raises(errors.NotLoggedIn):
        upstream.login("zanzibar", "zanzibar")


def test_a_login_gives_tokens_that_are_not_printed(icure: Icure, upstream: Upstream) -> None:
    icure.replies = [TOKEN]
    tokens = upstream.login("a", "b")
    assert (tokens.token, tokens.refresh) == ("fresh", "refresh")
    assert "fresh" not in repr(tokens)


def test_a_redirect_is_not_followed(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(307, headers={"Location": f"{icure.url}/elsewhere"})]
    for call in CALLS.values():
        with pytest.raises(UpstreamFailed):
            call(client)
    assert all(r.path.startswith("/rest/v2/") for r in icure.received)


def test_a_cookie_of_one_caller_is_not_sent_for_another(icure: Icure, upstream: Upstream) -> None:
    icure.replies = [Reply(headers={"Set-Cookie": "session=zanzibar"})]
    Client(upstream, Tokens("one")).read("patient", "p")
    Client(upstream, Tokens("two")).read("patient", "p")
    assert "Cookie" not in icure.received[1].headers


# ids

IDS = {
    "a/b": "patient/a%2Fb",
    "a?b=c": "patient/a%3Fb%3Dc",
    "a#b": "patient/a%23b",
    "%2e%2e": "patient/%252e%252e",
    "../contact": "patient/..%2Fcontact",
    "a b": "patient/a%20b",
    "ü": "patient/%C3%BC",
    "...": "patient/...",
}


@pytest.mark.parametrize(("entity_id", "path"), IDS.items(), ids=IDS)
def test_an_id_is_one_segment_of_the_path(icure: Icure, client: Client, entity_id: str, path: str) -> None:
    client.read("patient", entity_id)
    assert icure.told() == [f"GET {path}"]


@pytest.mark.parametrize("entity_id", ["", ".", ".."])
def test_an_id_that_would_name_another_path_is_not_sent(icure: Icure, client: Client, entity_id: str) -> None:
    for call in (
        lambda: client.read("patient", entity_id),
        lambda: client.delete("patient", entity_id, "1-a"),
        lambda: client.purge("patient", entity_id, "1-a"),
        lambda: client.data_owner(entity_id),
        lambda: client.exchange_data_between("a", entity_id),
        lambda: list(client.exchange_data_of(entity_id)),
    ):
        with pytest.raises(errors.NotFound):
            call()
    assert icure.received == []


def test_what_is_not_there_is_none_and_what_is_forbidden_is_an_error(icure: Icure, client: Client) -> None:
    icure.replies = [Reply(404)]
    assert client.read("patient", "p") is None
    assert client.data_owner("o") is None
    assert client.anonymous("o") is False
    icure.replies = [Reply(403)]
    with pytest.raises(errors.Forbidden):
        client.read("patient", "p")


def test_access_keys_go_where_they_open_something(icure: Icure, client: Client) -> None:
    client.access_keys = lambda kind, seconds=None: {"Patient": ["aa", "bb"], "Contact": ["cc"]}.get(kind, [])
    client.read("patient", "p")
    client.read("contact/service", "p")
    client.read("helement", "p")
    client.current_user()
    sent = [r.headers.get("Icure-Access-Control-Keys") for r in icure.received]
    assert sent == ["aa, bb", "cc", None, None]


def test_access_keys_are_looked_up_again_when_iCure_refuses(icure: Icure, client: Client) -> None:
    client.access_keys = lambda kind, seconds=None: ["old"] if seconds is None else ["new"]
    icure.replies = [Reply(403), Reply(body=b'{"id": "p", "rev": "2-b"}')]
    client.modify("patient", PATIENT)
    client.access_keys = lambda kind, seconds=None: ["same"]
    icure.replies = [Reply(403)]
    with pytest.raises(errors.Forbidden):
        client.modify("patient", PATIENT)
    sent = [r.headers.get("Icure-Access-Control-Keys") for r in icure.received]
    assert sent == ["old", "new", "same"]
