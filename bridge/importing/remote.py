"""The bridge that is imported into.

Strategy: what may have happened or not is asked for again, under the same `Idempotency-Key`, with growing pauses:
https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

from __future__ import annotations

import random
import threading
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

import orjson
import requests

from bridge.errors import Issue, outcome

FHIR_JSON = "application/fhir+json"
FHIR = "/rest/fhir/r4"
KEYCHAIN = "/rest/icdx/v1/keychain"
TIMEOUT_SECONDS = (10, 900)
LONGEST_PAUSE_SECONDS = 30.0
AGAIN = frozenset({408, 429, 502, 503, 504})
"""Answers after which the same request is sent again; 409 too, when it says when."""
UNREACHED = 0
"""The status of an answer that never came."""


class CannotImport(Exception):
    """The import cannot begin, or cannot go on; the text says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """Who imports."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Key:
    """A private key to be loaded first."""

    data_owner_id: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to a request."""

    status: int
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    again_after: float | None = None
    """In seconds."""

    @property
    def issues(self) -> list[dict[str, Any]]:
        """The issues of its OperationOutcome."""
        issues = self.body.get("issue")
        return [i for i in issues if isinstance(i, dict)] if isinstance(issues, list) else []

    @property
    def words(self) -> str:
        """What it says is wrong, for people."""
        said = [
            str(i.get("diagnostics") or i.get("code")) for i in self.issues if i.get("severity") != "warning"
        ]
        return " ".join(said[:3]) or f"The server answered HTTP {self.status} without saying why."


class Remote:
    """A running bridge, with one connection for each thread."""

    def __init__(self, url: str, login: Login, tries: int) -> None:
        self.url = url.rstrip("/").removesuffix(FHIR)
        self._login = login
        self._authorization = "Basic " + b64encode(f"{login.name}:{login.password}".encode()).decode()
        self._key: Key | None = None
        self._tries = tries
        self._own = threading.local()
        self._stopping = threading.Event()

    @property
    def login(self) -> str:
        """The name of who imports."""
        return self._login.name

    def stop(self) -> None:
        """Makes those who wait before they try again give up, and sends nothing more."""
        self._stopping.set()

    def supported(self) -> frozenset[str]:
        """Returns the resource types that the server takes. Raises `CannotImport` when it cannot be asked."""
        answer = self._reached(self._send("GET", f"{FHIR}/metadata"))
        try:
            types = [one["type"] for one in answer.body["rest"][0]["resource"]]
        except (KeyError, IndexError, TypeError) as e:
            raise CannotImport(f"{self.url} is no FHIR server: it answered HTTP {answer.status}.") from e
        return frozenset(types)

    def log_in(self, key: Key | None) -> None:
        """Loads the key, or sees that one is loaded. Raises `CannotImport` when the server refuses."""
        self._key = key
        answer = self._reached(self._load(key) if key else self._send("GET", f"{FHIR}/Patient?_id=import"))
        if answer.status == 401:
            raise CannotImport("The server does not accept this login and password.")
        if answer.status == 403 and not key:
            raise CannotImport(f"{answer.words} Or give it with --key.")
        if answer.status != 200:
            raise CannotImport(f"The server refuses {'the key' if key else 'to be asked'}: {answer.words}")

    def _load(self, key: Key) -> Answer:
        return self._send("POST", f"{KEYCHAIN}/{key.data_owner_id}", orjson.dumps({"key": key.text}))

    def _reached(self, answer: Answer) -> Answer:
        if answer.status == UNREACHED:
            raise CannotImport(f"{self.url} cannot be reached. Is the bridge running there? See --url.")
        return answer

    def post(self, bundle: bytes, key: str) -> Answer | None:
        """Returns the final answer to a Bundle; one that tells to come again only when patience ended.

        None when it was not sent: others were stopped before its turn.
        """
        if self._stopping.is_set():
            return None
        pause, loaded = 0.5, False
        for left in reversed(range(self._tries)):
            answer = self._send("POST", FHIR, bundle, **{"Idempotency-Key": key})
            if self._key and not loaded and _lacks_key(answer):
                loaded = self._load(self._key).status == 200
                continue
            if not left or not _passing(answer):
                break
            wait = answer.again_after if answer.again_after is not None else pause * random.uniform(0.5, 1)  # noqa: S311
            if self._stopping.wait(min(wait, LONGEST_PAUSE_SECONDS)):
                break
            pause *= 2
        return answer

    def _send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        try:
            response = self._session().request(
                method,
                self.url + path,
                data=body,
                headers={"Content-Type": FHIR_JSON, "Accept": FHIR_JSON, **headers},
                auth=self._authorized,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
        except requests.RequestException as e:
            text = f"No answer came: {type(e).__name__}."
            return Answer(UNREACHED, outcome([Issue("transient", text)]))
        return Answer(
            response.status_code, _read(response.content), _seconds(response.headers.get("Retry-After"))
        )

    def _authorized(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._authorization
        return request

    def _session(self) -> requests.Session:
        if not hasattr(self._own, "session"):
            self._own.session = requests.Session()
        session: requests.Session = self._own.session
        return session


def _passing(answer: Answer) -> bool:
    known = answer.status in AGAIN or answer.status == UNREACHED
    return known or (answer.status == 409 and answer.again_after is not None)


def _lacks_key(answer: Answer) -> bool:
    return answer.status == 403 and any(issue.get("code") == "security" for issue in answer.issues)


def _read(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() else None


def read_keys(text: str) -> list[dict[str, str]]:
    """Returns what a key file holds: hex, PEM or base64 alone, what `account add` writes, or the demo accounts."""
    try:
        held = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [{"privateKey": text.strip()}]
    accounts = held.get("accounts", [held]) if isinstance(held, dict) else []
    return [
        {name: value for name, value in account.items() if isinstance(value, str)}
        for account in accounts
        if isinstance(account, dict) and isinstance(account.get("privateKey"), str)
    ]
