"""The iCure REST client: one pooled session, and one place that translates whatever comes back.

Facts: iCure REST API v2. A batch reply leaves failed items out silently, so each reply is checked item by item.
Rule: only calls that change nothing are repeated.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import quote

import orjson
import requests
from requests.structures import CaseInsensitiveDict

from bridge import errors
from mappings.values import Entity, Json

CONNECT_SECONDS, READ_SECONDS = 3.05, 60.0
REPEATS, PAUSE_SECONDS = 2, 0.2
PAGE = 1000

_STATUS: dict[int, type[errors.BridgeError]] = {
    400: errors.Unprocessable,
    401: errors.NotLoggedIn,
    402: errors.Throttled,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.BusinessRule,
    429: errors.Throttled,
}


def translate_status(response: requests.Response) -> errors.BridgeError:
    """Returns what a reply other than 2xx means for the caller; its text is not passed on."""
    kind = _STATUS.get(response.status_code)
    if kind is None and 400 <= response.status_code < 500:
        kind = errors.Unprocessable
    if kind is None:
        return errors.UpstreamFailed(f"iCure answered {response.status_code}.")
    wait = response.headers.get("Retry-After", "")
    passed_on = kind is errors.Throttled and re.fullmatch("[ -~]+", wait)
    headers = {"Retry-After": wait} if passed_on else {}
    return kind(f"iCure answered {response.status_code}.", headers=headers)


def translate_exception(error: Exception) -> errors.BridgeError:
    """Returns what a call that got no whole reply means for the caller."""
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return errors.UpstreamTimeout("iCure could not be reached in time.")
    if isinstance(error, requests.exceptions.Timeout):
        return errors.UpstreamTimeout("iCure did not answer in time; whether it acted is not known.")
    if isinstance(error, requests.exceptions.ConnectionError):
        return errors.UpstreamFailed("iCure cannot be reached, or broke the connection.")
    return errors.UpstreamFailed("iCure's answer cannot be understood.")


@dataclass(slots=True)
class Tokens:
    """JWT and refresh token of one login."""

    token: str = field(repr=False)
    refresh: str | None = field(repr=False, default=None)


class Upstream:
    """An iCure server, as seen by one process: connection pool, timeouts, repeats.

    Rule: the session serves all callers, so it keeps no cookies. Requests go straight to its adapter: merging them with
    the session costs more than sending them.
    """

    def __init__(
        self,
        base_url: str,
        session: requests.Session | None = None,
        *,
        pool: int = 32,
        read_seconds: float = READ_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._base = str(requests.Request("GET", f"{base_url}/rest/v2").prepare().url)
        self._timeout = (CONNECT_SECONDS, read_seconds)
        self._pause_seconds = pause_seconds
        self.session = session or requests.Session()
        if session is None:
            adapter = requests.adapters.HTTPAdapter(pool_maxsize=pool)
            self.session.mount("http://", adapter)
            self.session.mount("https://", adapter)
        self.session.trust_env = False
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def call(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        safe: bool,
        headers: dict[str, str],
        query: str = "",
    ) -> requests.Response:
        """Returns the reply, whatever its status. Raises `UpstreamFailed` or `UpstreamTimeout`.

        `safe` calls change nothing upstream; only they are repeated after a failure.
        """
        url = f"{self._base}/{path}{'?' + query if query else ''}"
        request = _request(method, url, None if body is None else orjson.dumps(body), headers)
        for attempt in range(REPEATS + 1 if safe else 1):
            if attempt:
                time.sleep(self._pause_seconds * 2 ** (attempt - 1))
            try:
                response = self.session.get_adapter(url).send(request, timeout=self._timeout)
                if response.status_code < 200:  # what comes after it would be taken for the next answer
                    response.close()
                    return response
                _ = response.content
            except (requests.RequestException, ValueError) as e:  # the latter of chunks of odd sizes
                failure = translate_exception(e)
                failure.__cause__ = e
                continue
            if response.status_code not in (502, 503, 504):
                return response
            failure = translate_status(response)
        raise failure

    def login(self, login: str, password: str) -> Tokens:
        """Returns the tokens of a user. Raises `NotLoggedIn`."""
        credentials = {"username": login, "password": password}
        response = self.call("POST", "auth/login", credentials, safe=True, headers={})
        if response.status_code in (401, 404, 406, 412, 417):
            raise errors.NotLoggedIn()
        reply = _object(response)
        return Tokens(
            _token(reply.get("token")), _token(reply["refreshToken"]) if "refreshToken" in reply else None
        )

    def renewed(self, refresh: str) -> Tokens:
        """Returns new tokens for a refresh token. Raises `NotLoggedIn` when it has ended."""
        response = self.call("POST", "auth/refresh", safe=True, headers={"Refresh-Token": refresh})
        if not _succeeded(response):
            raise errors.NotLoggedIn("The login has ended.")
        return Tokens(_token(_object(response).get("token")), refresh)

    def reachable(self) -> bool:
        """Whether an iCure server answers."""
        try:
            return _succeeded(self.call("GET", "icure/v", safe=True, headers={}))
        except errors.BridgeError:
            return False


def _request(method: str, url: str, data: bytes | None, headers: dict[str, str]) -> requests.PreparedRequest:
    """Returns a request as it goes out; the URL is one that needs no more quoting."""
    request = requests.PreparedRequest()
    request.method, request.url, request.body = method, url, data
    request.headers = CaseInsensitiveDict(
        {"Accept": "application/json", "Accept-Encoding": "gzip, deflate", **headers}
    )
    if data is not None:
        request.headers["Content-Type"] = "application/json"
    if method != "GET":
        request.headers["Content-Length"] = str(len(data or b""))
    return request


class AccessKeys(Protocol):
    """Looks up the values of `Icure-Access-Control-Keys` for a type, anew when that was so many seconds ago."""

    def __call__(self, type_name: str, seconds: float | None = None, /) -> Sequence[str]:
        """Returns the values; none for a caller whom delegations name."""


class Client:
    """iCure as one caller sees it. Every method raises the `BridgeError` that the reply stands for.

    `access_keys` is for callers who are anonymous data owners.
    """

    def __init__(self, upstream: Upstream, tokens: Tokens) -> None:
        self._upstream = upstream
        self._tokens = tokens
        self._refreshing = threading.Lock()
        self.access_keys: AccessKeys | None = None

    @property
    def refresh_token(self) -> str | None:
        """The token by which new ones are had; None for a caller who showed a JWT."""
        return self._tokens.refresh

    @property
    def token(self) -> str:
        """The JWT that is sent now."""
        return self._tokens.token

    # users and data owners

    def current_user(self) -> Entity:
        """Returns the caller's User."""
        return _known(self._entity("GET", "user/current", safe=True))

    def data_owner(self, data_owner_id: str) -> Entity | None:
        """Returns the key members of a data owner (its stub), None when there is none."""
        found = self._found("GET", f"dataowner/stub/{_segment(data_owner_id)}")
        return None if found is None else _known(found.get("stub"))

    def anonymous(self, data_owner_id: str) -> bool:
        """Whether a data owner is not named in delegations: every one that is no healthcare party."""
        found = self._found("GET", f"dataowner/stub/{_segment(data_owner_id)}")
        return found is not None and found.get("type") != "hcp"

    def data_owners(self, ids: Sequence[str]) -> dict[str, Entity]:
        """Returns by id those data owners that there are: `type` (hcp, patient, device) and `stub`, its key members."""
        reply = self._list("POST", "dataowner/stub/byIds", {"ids": list(ids)}, safe=True) if ids else []
        return {_known(one.get("stub"))["id"]: one for one in map(_an_object, reply)}

    def healthcare_parties(self, ids: Iterable[str]) -> list[Entity]:
        """Returns those HealthcareParty entities that there are."""
        return self.by_ids("hcparty", list(ids))

    def user_by(self, member: str, value: str) -> Entity | None:
        """Returns the user with this `Email` or `PhoneNumber`, None when there is none."""
        found = self._found("GET", f"user/by{member}/{_segment(value)}")
        return None if found is None else _known(found)

    def users(self, filter_: Entity, start: str, limit: int) -> tuple[list[Entity], str]:
        """Returns users that a filter finds, from id `start` on, and the id with which the next page begins."""
        query = f"limit={limit}" + (f"&startDocumentId={quote(start, safe='')}" if start else "")
        return _page(self._entity("POST", "user/filter", {"filter": filter_}, safe=True, query=query))

    def users_by_login(self, start: str, limit: int) -> list[Entity]:
        """Returns users by login, from this one on."""
        key = quote(orjson.dumps(start), safe="")
        query = f"startKey={key}&limit={limit}&skipPatients=false"
        return _page(self._entity("GET", "user", safe=True, query=query))[0]

    def create_token(self, user_id: str, name: str, seconds: int) -> str:
        """Returns a new token of a user in clear; it replaces the one with the same name."""
        path = f"user/token/{_segment(user_id)}/{_segment(name)}"
        response = self._checked("POST", path, query=f"tokenValidity={seconds}")
        secret = response.content.decode("ascii", "replace").strip().strip('"')
        if not re.fullmatch(r"[\w.~+/=\-]{6,}", secret, re.ASCII):
            raise _not_understood()
        return secret

    # exchange data (bridge.crypto.exchange.Directory)

    def exchange_data(self, ids: Sequence[str]) -> list[Entity]:
        """Returns those exchange data that there are."""
        return self.by_ids("exchangedata", ids)

    def exchange_data_between(self, delegator: str, delegate: str) -> list[Entity]:
        """Returns the exchange data of one direction."""
        path = f"exchangedata/byDelegatorDelegate/{_segment(delegator)}/{_segment(delegate)}"
        return [_known(e) for e in self._list("GET", path, safe=True)]

    def exchange_data_of(self, participant: str) -> Iterator[Entity]:
        """Yields all exchange data in which a data owner takes part."""
        start = ""
        while True:
            path = f"exchangedata/byParticipant/{_segment(participant)}"
            query = f"limit={PAGE}" + (f"&startDocumentId={quote(start, safe='')}" if start else "")
            rows, following = _page(self._entity("GET", path, safe=True, query=query))
            yield from rows
            before, start = start, following
            if not start:
                return
            if start == before:
                raise _not_understood()

    def create_exchange_data(self, document: Entity) -> Entity:
        """Returns the stored exchange data."""
        return _written(document, self._entity("POST", "exchangedata", document))

    def exchange_data_maps(self, delegation_keys: Sequence[str]) -> list[Entity]:
        """Returns those exchange data maps that there are."""
        reply = self._list("POST", "exchangedatamap/batch", {"ids": list(delegation_keys)}, safe=True)
        return [_known(e) for e in reply]

    def create_exchange_data_maps(self, batch: dict[str, dict[str, str]]) -> None:
        """Stores exchange data ids, encrypted, under access control keys (hex)."""
        self._checked("PUT", "exchangedatamap/batch", {"batch": batch})

    # entities: `kind` is the path of the type, e.g. patient, contact

    def read(self, kind: str, entity_id: str) -> Entity | None:
        """Returns the entity, soft-deleted ones too; None when there is none."""
        if entity_id in NO_IDS.get(kind, ()):
            return None
        found = self._found("GET", f"{kind}/{_segment(entity_id)}", kind=kind)
        return None if found is None else _known(found)

    def by_ids(self, kind: str, ids: Sequence[str]) -> list[Entity]:
        """Returns those of the entities that there are and that the caller may see, in the order asked."""
        found: list[Entity] = []
        path = kind if kind == "contact/service" else f"{kind}/byIds"
        for at in range(0, len(ids), PAGE):
            reply = self._list("POST", path, {"ids": list(ids[at : at + PAGE])}, safe=True, kind=kind)
            found += map(_known, reply)
        return found

    def match(self, kind: str, filter_: Entity) -> list[str]:
        """Returns the ids that a filter finds."""
        ids = self._list("POST", f"{kind}/match", filter_, safe=True, kind=kind)
        if not all(isinstance(one, str) for one in ids):
            raise _not_understood()
        return ids

    def create(self, kind: str, entity: Entity) -> Entity:
        """Returns the entity as stored and completed by the server."""
        return _written(entity, self._entity("POST", kind, entity, kind=kind))

    def modify(self, kind: str, entity: Entity) -> Entity:
        """Returns the entity as stored. Raises `Conflict` when its rev is not current."""
        return _written(entity, self._entity("PUT", kind, entity, kind=kind))

    def create_batch(self, kind: str, entities: Sequence[Entity]) -> dict[str, Entity]:
        """Returns what was stored, by id. An entity that is missing in it was not stored."""
        return self._batch("POST", kind, entities)

    def share(self, kind: str, requests: dict[str, Entity]) -> dict[str, Entity]:
        """Returns the outcome of share requests, by entity id: the entity as it is now, and what was rejected."""
        path, body = f"{kind}/bulkSharedMetadataUpdate", {"requestsByEntityId": requests}
        outcomes = {}
        for outcome in map(_an_object, self._list("PUT", path, body, kind=kind)):
            entity_id, rejected = outcome.get("entityId"), _an_object(outcome.get("rejectedRequests") or {})
            codes = [_an_object(one).get("code") for one in rejected.values()]
            if not isinstance(entity_id, str) or not all(isinstance(code, int) for code in codes):
                raise _not_understood()
            if updated := outcome.get("updatedEntity"):
                _written({"id": entity_id}, updated)
            outcomes[entity_id] = outcome
        return outcomes

    def create_access_logs(self, logs: Sequence[Entity]) -> None:
        """Stores AccessLog entities, those that are there already excepted; one by one where iCure takes no batch."""
        response = self._send("POST", "accesslog/batch", list(logs), kind="accesslog")
        if response.status_code not in (404, 405):
            if not _succeeded(response):
                raise translate_status(response)
            return
        for log in logs:
            response = self._send("POST", "accesslog", log, kind="accesslog")
            if not _succeeded(response) and response.status_code != 409:
                raise translate_status(response)

    def delete(self, kind: str, entity_id: str, rev: str) -> str:
        """Soft-deletes and returns the new rev."""
        path = f"{kind}/{_segment(entity_id)}"
        return str(self._entity("DELETE", path, query=f"rev={quote(rev, safe='')}", kind=kind).get("rev"))

    def purge(self, kind: str, entity_id: str, rev: str) -> None:
        """Removes an entity for good. Raises `Forbidden` where the server keeps that to administrators."""
        path = f"{kind}/purge/{_segment(entity_id)}"
        self._checked("DELETE", path, query=f"rev={quote(rev, safe='')}", kind=kind)

    # below: one way out

    def _batch(self, method: str, kind: str, entities: Sequence[Entity]) -> dict[str, Entity]:
        path = "patient/batch/full" if kind == "patient" else f"{kind}/batch"
        sent = {e["id"]: e for e in entities}
        reply = map(_known, self._list(method, path, list(entities), kind=kind))
        return {e["id"]: _written(sent[e["id"]], e) for e in reply if e["id"] in sent}

    def _found(self, method: str, path: str, *, kind: str | None = None) -> Entity | None:
        response = self._send(method, path, safe=True, kind=kind)
        return None if response.status_code == 404 else _object(response)

    def _entity(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        safe: bool = False,
        query: str = "",
        kind: str | None = None,
    ) -> Entity:
        return _object(self._checked(method, path, body, safe=safe, query=query, kind=kind))

    def _list(
        self, method: str, path: str, body: Json = None, *, safe: bool = False, kind: str | None = None
    ) -> list[Any]:
        reply = _json(self._checked(method, path, body, safe=safe, kind=kind))
        if not isinstance(reply, list):
            raise _not_understood()
        return reply

    def _checked(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        safe: bool = False,
        query: str = "",
        kind: str | None = None,
    ) -> requests.Response:
        response = self._send(method, path, body, safe=safe, query=query, kind=kind)
        if not _succeeded(response):
            raise translate_status(response)
        return response

    def _send(
        self,
        method: str,
        path: str,
        body: Json = None,
        *,
        safe: bool = False,
        query: str = "",
        kind: str | None = None,
    ) -> requests.Response:
        """Sends with the caller's token, refreshed once when it has ended, and with its access control keys.

        A 401 and a 403 say that nothing was done. A 403 may mean that somebody shared something since the keys were
        looked up, so they are looked up again.
        """

        def sent(keys: Sequence[str]) -> requests.Response:
            headers = {"Authorization": f"Bearer {self._tokens.token}"}
            if keys:
                headers["Icure-Access-Control-Keys"] = ", ".join(keys)
            return self._upstream.call(method, path, body, safe=safe, headers=headers, query=query)

        lookup = self.access_keys if kind is not None else None
        type_name = ACCESS_TYPES.get(kind or "", kind or "")
        keys = lookup(type_name) if lookup else ()
        token = self._tokens.token
        response = sent(keys)
        if response.status_code == 401:
            self._refresh(token)
            response = sent(keys)
        if response.status_code == 403 and lookup and (newer := lookup(type_name, 0)) != keys:
            response = sent(newer)
        return response

    def _refresh(self, ended: str) -> None:
        with self._refreshing:
            if self._tokens.token != ended or not self._tokens.refresh:
                return
            self._tokens = self._upstream.renewed(self._tokens.refresh)


ACCESS_TYPES = {
    "patient": "Patient",
    "contact": "Contact",
    "contact/service": "Contact",
    "helement": "HealthElement",
    "accesslog": "AccessLog",
}
"""Which entity type's access control keys open a path."""


NO_IDS = {"user": ("current", "matches"), "hcparty": ("current",)}
"""What stands in a path in the place of an id."""


def _segment(text: str) -> str:
    """Returns an id as one path segment. Raises `NotFound` for those that would name another path."""
    if text in ("", ".", ".."):
        raise errors.NotFound()
    return quote(text, safe="")


def _succeeded(response: requests.Response) -> bool:
    """Whether the reply says that it was done; a redirect says that it was not."""
    return 200 <= response.status_code < 300


def _json(response: requests.Response) -> Json:
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError as e:
        raise _not_understood() from e


def _object(response: requests.Response) -> Entity:
    if not _succeeded(response):
        raise translate_status(response)
    return _an_object(_json(response))


def _an_object(value: Json) -> Entity:
    if not isinstance(value, dict):
        raise _not_understood()
    return value


def _known(entity: Json) -> Entity:
    """Returns what came in place of an entity, when it is one: an object with an id."""
    if not isinstance(entity, dict) or not isinstance(entity.get("id"), str):
        raise _not_understood()
    return entity


def _page(page: Entity) -> tuple[list[Entity], str]:
    """Returns the entities of a page, and the id with which the next begins, empty for none."""
    rows, next_key = page.get("rows", []), page.get("nextKeyPair") or {}
    if not isinstance(rows, list) or not isinstance(next_key, dict):
        raise _not_understood()
    return list(map(_known, rows)), str(next_key.get("startKeyDocId") or "")


def _written(sent: Entity, stored: Json) -> Entity:
    """Returns what came in reply to a write, when it is what was sent, with its rev."""
    entity = _known(stored)
    if entity["id"] != sent["id"] or not isinstance(entity.get("rev"), str):
        raise _not_understood()
    return entity


def _token(text: Json) -> str:
    """Returns a token, when it can stand in a header."""
    if not isinstance(text, str) or not re.fullmatch("[!-~]+", text):
        raise _not_understood()
    return text


def _not_understood() -> errors.UpstreamFailed:
    return errors.UpstreamFailed("iCure's answer cannot be understood.")
