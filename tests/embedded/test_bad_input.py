"""Whatever is sent, the answer is a refusal in words, never a failure of the server, and nothing changes."""

from __future__ import annotations

from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .world import ALICE, contact, ok, patient, refused, service

NOT_JSON = {
    "nothing": b"",
    "half": b"{",
    "not UTF-8": b'{"id": "\xff"}',
    "lone surrogate": b'{"id": "\\ud800"}',
    "NaN": b'{"created": NaN}',
    "control character": b'{"id": "a\x01"}',
    "two values": b"{}{}",
    "very deep": b"[" * 100_000 + b"]" * 100_000,
}
BODIES = (
    "/patient",
    "/contact",
    "/helement",
    "/patient/byIds",
    "/contact/service/match",
    "/patient/filter",
    "/patient/batch",
    "/exchangedata",
    "/auth/login",
)


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("path", BODIES)
def test_what_is_not_json_is_refused(root, path, content):
    refused(root.send(path, content), 400)


class BrokenChunks(BytesIO):
    """A body in chunks of which the next is none: what a server of WSGI makes of it."""

    def read(self, size=-1):
        raise EOFError("neither OSError nor ValueError, of which werkzeug thinks")

    readinto = readinto1 = read1 = read


def test_a_body_in_chunks_that_are_none_is_refused(app):
    answer = app.test_client().post(
        "/rest/v2/auth/login",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input": BrokenChunks(), "wsgi.input_terminated": True},
    )
    assert (answer.status_code, answer.json) == (400, {"message": "the body cannot be read"})


@pytest.mark.parametrize(
    "body",
    [
        None,
        7,
        "x",
        [],
        [7],
        {"ids": 7},
        {"ids": [7]},
        {"ids": {}},
        {"requestsByEntityId": []},
        {"batch": {"a": 7}},
    ],
    ids=repr,
)
def test_bodies_of_a_wrong_shape_are_refused_or_answered(app, root, body):
    for rule in app.url_map.iter_rules():
        path = rule.rule.removeprefix("/rest/v2").replace("<", "").replace(">", "")
        for method in rule.methods & {"POST", "PUT"}:
            response = root.call(method, path, body)
            assert response.status_code < 500, f"{method} {path}"
            if response.status_code >= 400 and rule.rule.count("<") == 0:
                assert list(response.json()) == ["message"]


HUGE = {
    "number beyond every float": b'{"id": "p", "lastName": "x", "created": 1E999999}',
    "5,000-digit integer": b'{"id": "p", "lastName": "x", "created": ' + b"9" * 5000 + b"}",
    "65-bit integer": b'{"id": "p", "lastName": "x", "created": 18446744073709551616}',
    "negative 65-bit integer": b'{"id": "p", "lastName": "x", "created": -18446744073709551616}',
}


@pytest.mark.parametrize("content", HUGE.values(), ids=HUGE)
def test_huge_numbers_are_refused(alice, content):
    refused(alice.send("/patient", content), 400)
    refused(alice.get("/patient/p"), 404)


QUERIES = {
    "limit no number": ("GET", f"/exchangedata/byParticipant/{ALICE}", {"limit": "many"}),
    "limit negative": ("GET", f"/exchangedata/byParticipant/{ALICE}", {"limit": "-1"}),
    "limit beyond 64 bits": ("GET", f"/exchangedata/byParticipant/{ALICE}", {"limit": "9" * 30}),
    "limit of 10,000 digits": ("GET", f"/exchangedata/byParticipant/{ALICE}", {"limit": "9" * 10_000}),
    "validity no number": ("POST", "/user/token/alice/key", {"tokenValidity": "x"}),
    "validity beyond 64 bits": ("POST", "/user/token/alice/key", {"tokenValidity": "9" * 30}),
    "parameter missing": ("GET", "/exchangedata/byDelegatorDelegate", {}),
    "association missing": ("GET", "/contact/service/associationId", {}),
}


@pytest.mark.parametrize(("method", "path", "query"), QUERIES.values(), ids=QUERIES)
def test_bad_query_parameters_are_refused(alice, method, path, query):
    refused(alice.call(method, path, **query), 400)


def test_the_largest_validity_is_for_ever_enough(alice):
    assert alice.post("/user/token/alice/key", tokenValidity=2**63 - 1).status_code == 200


def test_odd_ids_in_paths_are_unknown(alice):
    for odd in ("%00", "%FF", "a%20b", "%F0%9F%98%80", "'%20OR%20'1'='1", "x" * 5000):
        refused(alice.get(f"/patient/{odd}"), 404)


def test_unknown_routes_and_methods(alice):
    refused(alice.get("/nothing/here"), 404)
    refused(alice.call("PATCH", "/patient"), 405)


def test_too_large_a_body_is_refused(app, alice):
    app.config["MAX_CONTENT_LENGTH"] = 1000
    refused(alice.post("/patient", patient(alias="x" * 1000)), 413)


def test_a_refusal_shows_no_values(alice):
    secret = "Highly-Confidential"
    for body in (
        {"id": "p", "gender": secret},
        {"id": "p", "dateOfBirth": secret},
        {"id": "p", "tags": [{"label": secret}]},
    ):
        assert secret not in alice.post("/patient", body).text


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    member=st.sampled_from(
        [
            "services",
            "subContacts",
            "securityMetadata",
            "delegations",
            "codes",
            "openingDate",
            "secretForeignKeys",
            "identifier",
            "participants",
            "deletionDate",
        ]
    ),
    value=json_values,
    within=json_values,
)
def test_any_contact_is_stored_or_refused(alice, member, value, within):
    made = contact(service(content={"en": within}, valueDate=value, qualifiedLinks=within)) | {member: value}
    assert alice.post("/contact", made).status_code in (200, 400)
    ok(alice.post("/contact/match", {"$type": "ContactByHcPartyFilter"}))
