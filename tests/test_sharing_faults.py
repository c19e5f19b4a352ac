"""$share while iCure fails: refused in words, nothing lost, nobody else sees anything, and finished when sent again."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from bridge.app import EMBEDDED_URL
from bridge.crypto.keys import PrivateKey
from bridge.demo import ESMITH
from bridge.embedded import Store, admin
from mappings.values import Resource
from tests.helpers import Caller, stored
from tests.test_sharing import (
    PATIENT,
    accesses,
    asking,
    condition,
    content,
    location,
    observation,
    older,
    references,
    share,
    together,
)


class Interfering:
    """Does something else than one of the calls to iCure, the first that it is armed for."""

    def __init__(self, app: Any) -> None:
        self.adapter = app.extensions["bridge"].upstream.session.get_adapter(EMBEDDED_URL)
        app.extensions["bridge"].upstream._pause_seconds = 0.001
        self.inner, self.calls = self.adapter.send, 0
        self.at, self.instead = -1, Interfering.nothing
        self.adapter.send = self.send

    def arm(self, at: int, instead: Callable[..., Any]) -> None:
        """Lets the call of this number fail."""
        self.calls, self.at, self.instead = 0, at, instead

    def send(self, request: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls - 1 == self.at:
            return self.instead(self.inner, request, **options)
        return self.inner(request, **options)

    @staticmethod
    def nothing(inner: Any, request: Any, **options: Any) -> Any:
        return inner(request, **options)


def lost_before(inner: Any, request: Any, **options: Any) -> Any:
    raise requests.ConnectionError


def lost_after(inner: Any, request: Any, **options: Any) -> Any:
    inner(request, **options)
    raise requests.ConnectionError


def answering(status: int, body: bytes) -> Callable[..., Any]:
    def instead(inner: Any, request: Any, **options: Any) -> Any:
        answer = requests.Response()
        answer.status_code, answer._content = status, body
        answer.headers["Content-Type"] = "application/json"
        return answer

    return instead


FAULTS: dict[str, Callable[..., Any]] = {
    "lost before": lost_before,
    "lost after": lost_after,
    "500": answering(500, b"zanzibar"),
    "409": answering(409, b"{}"),
    "a list of objects": answering(200, b'[{"zanzibar": 1}]'),
}
SHARES = ("with its data", "out of a Contact", "of an older client")


def made(kind: str, esmith: Caller) -> tuple[str, list[str], list[str], list[str]]:
    """What is to be shared, what comes along by its type, all that is shared then, and what is not."""
    if kind == "of an older client":
        path = f"Patient/{older(esmith)['id']}"
        return path, [], [path], []
    patient = esmith.created(PATIENT)
    day = {"effectiveDateTime": "2020-01-01"}
    one, beside = together(esmith, *(observation(patient["id"], code, **day) for code in ("1-1", "2-2")))
    if kind == "out of a Contact":
        return one, [], [one], [beside, location(patient)]
    assert esmith.delete(beside).status_code == 204
    along = [location(esmith.created(make(patient["id"]))) for make in (observation, condition)]
    return location(patient), ["Observation", "Condition"], [location(patient), one, *along], []


def newcomer(jdoe: Caller, data_dir: Path) -> str:
    """Somebody with whom nobody shared anything yet, with a key of jdoe."""
    party = {"id": str(uuid.uuid4()), "firstName": "New", "lastName": "Comer"}
    key = PrivateKey.parse(jdoe.account["privateKey"])
    admin.create_healthcare_party(Store(data_dir), {**party, "publicKeysForOaepWithSha256": [key.spki_hex]})
    return f"Practitioner/{party['id']}"


def with_access(esmith: Caller, paths: list[str], who: str) -> list[str]:
    """Which of these somebody may write."""
    return [path for path in paths if (who, "write", f"Practitioner/{ESMITH}") in accesses(esmith, path)]


def contents(caller: Caller, paths: list[str]) -> dict[str, Resource]:
    return {path: content(caller.get(path).json) for path in paths}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("kind", SHARES)
def test_whichever_call_fails_a_share_says_so_and_is_finished_by_sending_it_again(
    esmith: Caller, jdoe: Caller, data_dir: Path, kind: str, fault: Callable[..., Any]
) -> None:
    interfering = Interfering(esmith.app)
    at, over = 0, False
    while not over:
        path, include, shared, unshared = made(kind, esmith)
        who = newcomer(jdoe, data_dir)
        before, documents = contents(esmith, shared), len(stored(data_dir))
        interfering.arm(at, fault)
        response = esmith.post(f"{path}/$share", asking(who, "write", *include))
        over = interfering.calls <= at
        interfering.arm(-1, Interfering.nothing)
        assert response.status_code in (200, 403, 404, 409, 422, 502, 504), response.text
        assert response.json["resourceType"] in ("OperationOutcome", "Parameters")
        assert b"zanzibar" not in response.data
        assert contents(esmith, shared) == before, at
        assert with_access(esmith, unshared, who) == []
        share(esmith, path, who, "write", *include)
        assert contents(esmith, shared) == before, at
        assert with_access(esmith, [*shared, *unshared], who) == shared, at
        again = share(esmith, path, who, "write", *include)
        assert sorted(references(again, "unchanged")) == sorted(shared)
        assert len(stored(data_dir)) <= documents + 3, "exchange data, its copy, a Contact"
        at += 1
    assert at > 4
