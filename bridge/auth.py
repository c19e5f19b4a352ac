"""Who is calling: iCure says so, at the latest every 60 seconds anew.

Strategy: wrong passwords are counted (see `throttle`); who is remembered is not counted and does not wait.

Rule: neither a password nor an Authorization header is kept; a verified caller is remembered under an HMAC of it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass, field

import jwt
from cachetools import TTLCache, cached
from cachetools.keys import hashkey

from bridge.errors import Forbidden, NotLoggedIn, Throttled
from bridge.throttle import Throttle
from bridge.upstream import Client, Tokens, Upstream
from mappings.values import Entity

REMEMBER_SECONDS = 60
MEDICAL, ADMINISTRATIVE = "medicalInformation", "administrativeData"
_OWNERS = (("healthcarePartyId", "hcp"), ("patientId", "patient"), ("deviceId", "device"))


@dataclass(frozen=True, slots=True)
class Credential:
    """What the caller showed: login and password or token, or an iCure JWT."""

    id: str
    secret: bytes = field(repr=False)
    ends: float | None = None
    login: str | None = field(default=None, repr=False)
    address: str = field(default="", repr=False)
    """Where it came from."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified iCure user, the data owner it acts for, and iCure as it sees it."""

    user_id: str
    data_owner_id: str
    anonymous: bool
    ancestors: tuple[str, ...]
    auto_delegations: dict[str, list[str]] = field(repr=False)
    client: Client = field(repr=False)

    @property
    def hierarchy(self) -> tuple[str, ...]:
        """The caller's data owner, and those above it."""
        return self.data_owner_id, *self.ancestors

    def delegates(self, purpose: str) -> tuple[str, ...]:
        """Returns the data owners with whom the user shares every new entity of this purpose (iCure's tags)."""
        wanted = [*self.auto_delegations.get("all", ()), *self.auto_delegations.get(purpose, ())]
        return tuple(dict.fromkeys(d for d in wanted if d != self.data_owner_id))


@dataclass(frozen=True, slots=True)
class Login:
    """A verified iCure user, data owner or not."""

    user_id: str
    client: Client = field(repr=False)
    caller: Caller | None = None
    """None for a user who owns no data."""


class Authenticator:
    """Turns an Authorization header into a caller."""

    def __init__(self, upstream: Upstream, throttle: Throttle) -> None:
        self._upstream = upstream
        self._throttle = throttle
        self._hmac_key = secrets.token_bytes(32)
        self._remembered: TTLCache[object, Login] = TTLCache(maxsize=4096, ttl=REMEMBER_SECONDS)
        self._login = cached(
            self._remembered, key=lambda credential: hashkey(credential.id), condition=threading.Condition()
        )(self._verify)

    def credential(self, header: str | None, address: str = "") -> Credential:
        """Returns what the header shows, sent from this address. Raises `NotLoggedIn` when it shows nothing."""
        scheme, _, value = (header or "").partition(" ")
        value = value.strip()
        hidden = hmac.new(self._hmac_key, (header or "").encode(), hashlib.sha256).hexdigest()
        if scheme.lower() == "bearer" and value:
            return Credential(hidden, value.encode(), _expiry(value))
        if scheme.lower() == "basic":
            try:
                pair = base64.b64decode(value, validate=True).decode()
            except ValueError as e:
                raise NotLoggedIn("The Authorization header is not Basic base64(login:password).") from e
            login, colon, password = pair.partition(":")
            if colon and login and password:
                return Credential(hidden, pair.encode(), login=login, address=address)
        raise NotLoggedIn(
            "Send your iCure login: Authorization: Basic base64(login:password), or Bearer <JWT>."
        )

    def identify(self, credential: Credential) -> Caller:
        """Returns the caller. Raises `NotLoggedIn`, `Throttled`, or `Forbidden` for a user who is no data owner."""
        caller = self._login(credential).caller
        if caller is None:
            raise Forbidden(
                "This user is neither a healthcare party, a patient nor a device: it owns no data."
            )
        return caller

    def login(self, credential: Credential) -> Login:
        """Returns the user, who need not be a data owner. Raises `NotLoggedIn`, `Throttled`."""
        return self._login(credential)

    def _verify(self, credential: Credential) -> Login:
        if credential.login is None:
            tokens = Tokens(credential.secret.decode())
        else:
            tokens = self._tried(credential.login, credential)
        client = Client(self._upstream, tokens)
        user = client.current_user()
        for member, kind in _OWNERS:
            if data_owner_id := user.get(member):
                caller = Caller(
                    user_id=user["id"],
                    data_owner_id=data_owner_id,
                    anonymous=kind != "hcp",
                    ancestors=_ancestors(client, data_owner_id) if kind == "hcp" else (),
                    auto_delegations={k: list(v) for k, v in (user.get("autoDelegations") or {}).items()},
                    client=client,
                )
                return Login(user["id"], client, caller)
        return Login(user["id"], client)

    def _tried(self, login: str, credential: Credential) -> Tokens:
        """Returns the tokens of a login. Raises `NotLoggedIn`, and `Throttled` after too many wrong passwords."""
        wait = self._throttle.wait(login, credential.address)
        if wait:
            raise Throttled(
                f"There were too many wrong passwords. Try again in {wait} seconds.",
                headers={"Retry-After": str(wait)},
            )
        try:
            tokens = self._upstream.login(login, credential.secret.decode().partition(":")[2])
        except NotLoggedIn:
            self._throttle.failed(login, credential.address)
            raise
        self._throttle.succeeded(login, credential.address)
        return tokens


def _ancestors(client: Client, data_owner_id: str) -> tuple[str, ...]:
    """Returns the parents of a healthcare party, nearest first."""
    found: list[str] = []
    owner: Entity | None = client.data_owner(data_owner_id)
    while owner and (parent := owner.get("parentId")) and parent not in found and parent != data_owner_id:
        found.append(parent)
        owner = client.data_owner(parent)
    return tuple(found)


def _expiry(token: str) -> float | None:
    """Returns when a JWT ends (epoch seconds); iCure alone verifies it."""
    try:
        claims = jwt.decode(token, options={"verify_signature": False, "verify_exp": False})
        return float(claims["exp"])
    except (jwt.PyJWTError, KeyError, TypeError, ValueError):
        return None
