from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import requests
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server

from bridge.embedded import InProcess, create_app

from .world import PASSWORD, URL, Client, ok, patient


def session(app) -> requests.Session:
    made = requests.Session()
    made.mount(URL, InProcess(app))
    return made


def echo(environ, start_response) -> list[bytes]:
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    told = [environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING")]
    told += [environ.get("CONTENT_TYPE", "-"), environ.get("HTTP_X_ONE", "-"), body.decode()]
    start_response(
        "299 Odd", [("Content-Type", "text/plain; charset=utf-8"), ("X-Answer", "a"), ("X-Answer", "b")]
    )
    return ["|".join(told).encode("latin-1")]


def test_the_request_arrives_as_it_was_sent_and_the_answer_too():
    response = session(echo).put(
        f"{URL}/a%20b/é", params={"q": "1 2"}, data="body", headers={"X-One": "1", "Content-Type": "text/x"}
    )
    assert (response.status_code, response.reason) == (299, "Odd")
    assert response.content.decode() == "PUT|/a b/é|q=1+2|text/x|1|body"
    assert response.headers["x-answer"] == "b"
    assert response.encoding == "utf-8"
    assert response.elapsed.total_seconds() >= 0


@pytest.mark.parametrize(
    "data", [b"bytes", "text", iter([b"by", b"tes"]), None], ids=["bytes", "text", "iterator", "nothing"]
)
def test_bodies_of_any_kind(data):
    sent = b"".join(data) if isinstance(data, Iterator) else data
    response = session(echo).post(URL, data=sent)
    assert response.text.endswith({"text": "text", b"bytes": "bytes", None: "|"}[sent])


def test_exceptions_fly_to_the_caller():
    def broken(environ, start_response):
        raise LookupError("on purpose")

    with pytest.raises(LookupError, match="on purpose"):
        session(broken).get(URL)


def test_an_error_in_the_store_flies_in_process_and_is_a_500_over_http(app, alice, monkeypatch):
    def broken(*given):
        raise LookupError("on purpose")

    monkeypatch.setattr(app.extensions["store"], "reading", broken)
    with pytest.raises(LookupError, match="on purpose"):
        alice.get("/patient/x")
    status: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/rest/v2/patient/x",
        "SERVER_NAME": "x",
        "SERVER_PORT": "80",
        "wsgi.url_scheme": "http",
    }
    environ["HTTP_AUTHORIZATION"] = alice._session.headers["Authorization"]
    body = b"".join(app(environ, lambda line, headers, exc_info=None: status.append(line)))
    assert status == ["500 INTERNAL SERVER ERROR"]
    assert body == b'{"message":"Internal server error"}'


def test_a_response_is_closed():
    closed = []

    class Body(list):
        def close(self) -> None:
            closed.append(True)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body([b"x"])

    assert session(app).get(URL).content == b"x"
    assert closed == [True]


def test_the_store_works_mounted_below_another_application(app, furnished):
    def outside(environ, start_response):
        start_response("418 Teapot", [])
        return [b""]

    both = DispatcherMiddleware(outside, {"/rest/v2": app})
    client = Client(both, f"Bearer {furnished[1]['alice']}")
    stored = client.create("/patient", patient())
    assert ok(client.get(f"/patient/{stored['id']}")) == stored
    assert session(both).get(f"{URL}/rest/fhir").status_code == 418


def test_the_store_works_over_http(data_dir):
    app = create_app(data_dir)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        base = f"http://127.0.0.1:{server.port}/rest/v2"
        assert requests.get(f"{base}/icure/ok", timeout=10).text == "true"
        assert requests.get(f"{base}/icure/v", timeout=10).text
        answer = requests.post(
            f"{base}/auth/login", json={"username": "alice", "password": PASSWORD}, timeout=10
        )
        headers = {"Authorization": f"Bearer {ok(answer)['token']}"}
        made = patient(alias="é😀")
        stored = ok(requests.post(f"{base}/patient", json=made, headers=headers, timeout=10))
        response = requests.get(f"{base}/patient/{made['id']}?ts=1", headers=headers, timeout=10)
        assert ok(response) == stored
        assert response.headers["Content-Type"].startswith("application/json")
        user = requests.get(f"{base}/user/current", auth=("alice", PASSWORD), timeout=10)
        assert ok(user)["login"] == "alice"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        app.extensions["store"].close()
