"""The Subscription resource: what its owner may ask for, and what becomes of it.

Facts: https://hl7.org/fhir/R4/subscription.html.

Rule: a Subscription is its owner's; for everybody else there is none.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import UTC
from typing import Any
from urllib.parse import parse_qsl

from bridge import search, wire
from bridge.auth import Caller, Credential
from bridge.errors import (
    BusinessRule,
    Invalid,
    KeyMissing,
    KeyReused,
    NotFound,
    PreconditionFailed,
    TooCostly,
    TooLarge,
)
from bridge.events.following import CHANGING, Following, credential_of, revoke
from bridge.events.hooks import read_headers
from bridge.events.kept import Kept, Position, instant_ms
from bridge.homes import with_meta
from bridge.search import predicates
from mappings.search import Parameter
from mappings.values import Resource

TYPES = ("Patient", "Observation", "Condition")
CHANNELS = ("rest-hook", "websocket")
PAYLOAD = re.compile(r"application/(fhir\+)?json(; ?charset=utf-8)?", re.IGNORECASE)
CREATING = "subscriptions made by"
MOST = 50
"""Subscriptions that a user may have."""
MOST_BYTES = 64 * 1024
"""All workers read all Subscriptions again and again."""
TOKEN_SECONDS = 365 * 24 * 3600
ZONED = re.compile(r".*(Z|[+-]\d\d:\d\d)")
PARAMETERS = {
    p.name: p
    for p in (
        Parameter("_id", "token", ("id",)),
        Parameter("status", "token", ("status",)),
        Parameter("type", "token", ("channel.type",)),
        Parameter("url", "uri", ("channel.endpoint",)),
        Parameter("criteria", "string", ("criteria",)),
    )
}


def shown(kept: Kept) -> Resource:
    """Returns the resource as its owner reads it."""
    return with_meta(kept.resource, "Subscription", kept.id, str(kept.version), kept.modified)


def create(
    following: Following, caller: Caller, credential: Credential, resource: Resource, base: str, new_id: str
) -> Kept:
    """Returns the new Subscription of a caller, or the one that is there under this id already.

    Raises whatever the caller has to set right, with its path.
    """
    with following.bridge.state.lock(CREATING, caller.user_id):
        before = following.subscriptions.get(new_id)
        if before is None:
            return _created(following, caller, credential, resource, base, new_id)
    if any(before.resource.get(name) != resource.get(name) for name in ("criteria", "channel")):
        raise KeyReused()
    return before


def _created(
    following: Following, caller: Caller, credential: Credential, resource: Resource, base: str, new_id: str
) -> Kept:
    if len(following.subscriptions.of(caller.user_id)) >= MOST:
        raise BusinessRule(f"A user may have {MOST} Subscriptions; delete one.")
    now = time.time_ns() // 1_000_000
    kept = Kept(
        id=new_id,
        user=caller.user_id,
        base=base,
        resource={k: v for k, v in resource.items() if k not in ("id", "error")},
        position=Position("", 0, now),
        created=now,
        modified=now,
        anonymous=caller.anonymous,
    )
    _check(following, credential, kept)
    try:
        if kept.resource["status"] != "off":
            _activate(following, caller, credential, kept)
        following.subscriptions.add(kept)
    except BaseException:
        revoke(following.bridge, kept)
        raise
    return kept


def read(following: Following, caller: Caller, subscription_id: str) -> Kept:
    """Returns a Subscription of the caller. Raises `NotFound`."""
    kept = following.subscriptions.get(subscription_id)
    if kept is None or kept.user != caller.user_id:
        raise NotFound()
    return kept


def update(
    following: Following,
    caller: Caller,
    credential: Credential,
    subscription_id: str,
    resource: Resource,
    base: str,
    if_match: str | None,
) -> Kept:
    """Returns the changed Subscription, which goes on where it was, or begins anew when it was off."""
    with following.bridge.state.lock(CHANGING, subscription_id):
        before = read(following, caller, subscription_id)
        check_match(before, if_match)
        said = {k: v for k, v in resource.items() if k not in ("id", "error")}
        wanted = Kept(**{**_members(before), "resource": said, "base": base, "failures": 0, "due": 0.0})
        _check(following, credential, wanted)
        begins = before.token is None and wanted.resource["status"] != "off"

        def change(kept: Kept) -> None:
            check_match(kept, if_match)
            kept.resource, kept.base, kept.token = wanted.resource, base, wanted.token
            kept.failures, kept.due = 0, 0.0
            if begins:
                kept.position, kept.created, kept.token_name = (
                    wanted.position,
                    wanted.created,
                    wanted.token_name,
                )
            kept.touch()

        try:
            if wanted.resource["status"] == "off":
                revoke(following.bridge, before)
                wanted.token = None
            elif begins:
                wanted.created = time.time_ns() // 1_000_000
                _activate(following, caller, credential, wanted)
            elif wanted.needs_key:
                _lend(following, caller, credential, wanted)
            elif wanted.token is not None:
                following.bridge.keychain.take_back(caller, credential_of(following.bridge, wanted))
            changed = following.subscriptions.change(subscription_id, change)
        except BaseException:
            if begins:
                revoke(following.bridge, wanted)
            raise
        if changed is None:
            raise NotFound()
        return changed


def delete(following: Following, caller: Caller, subscription_id: str, if_match: str | None) -> None:
    """Ends a Subscription for good; one that is not there is not there afterwards either."""
    with following.bridge.state.lock(CHANGING, subscription_id):
        kept = following.subscriptions.get(subscription_id)
        if kept is None or kept.user != caller.user_id:
            return
        check_match(kept, if_match)
        revoke(following.bridge, kept)
        following.subscriptions.remove(subscription_id)


def found(following: Following, caller: Caller, arguments: Sequence[tuple[str, str]]) -> list[Kept]:
    """Returns the caller's Subscriptions that meet a search. Raises `Invalid` for a value that cannot be read."""
    tests = []
    for name, value in arguments:
        plain, _, modifier = name.partition(":")
        wanted = search.alternatives(value, name)
        if not wanted:
            raise Invalid(f"{plain} has no value.")
        tests.append(predicates.test(PARAMETERS[plain], modifier, wanted, UTC))
    return [k for k in following.subscriptions.of(caller.user_id) if all(t(shown(k)) for t in tests)]


def renew(following: Following, caller: Caller, credential: Credential) -> None:
    """Lends the keys that a caller has just loaded to those of its Subscriptions that look at content."""
    for kept in following.subscriptions.of(caller.user_id):
        if kept.token is not None and kept.needs_key:
            _lend(following, caller, credential, kept)


def check_match(kept: Kept, if_match: str | None) -> None:
    """Raises `PreconditionFailed` unless this is the version that the caller names."""
    if if_match not in (None, "*", f'W/"{kept.version}"'):
        raise PreconditionFailed("This is no longer the current version.")


def _members(kept: Kept) -> dict[str, Any]:
    return {name: getattr(kept, name) for name in kept.__dataclass_fields__}


def _activate(following: Following, caller: Caller, credential: Credential, kept: Kept) -> None:
    """Has a Subscription begin now, with a token of its own."""
    seconds = TOKEN_SECONDS
    if "end" in kept.resource:
        seconds = min(seconds, max(1, int(instant_ms(kept.resource["end"]) / 1000 - time.time())))
    kept.token_name = f"fhir-subscription-{kept.id}"
    kept.token = caller.client.create_token(caller.user_id, kept.token_name, seconds)
    _lend(following, caller, credential, kept)
    kept.position = following.source.begin(kept.created)


def _lend(following: Following, caller: Caller, credential: Credential, kept: Kept) -> None:
    if kept.needs_key:
        following.bridge.keychain.lend(caller, credential, credential_of(following.bridge, kept))


def _check(following: Following, credential: Credential, kept: Kept) -> None:
    """Raises for what cannot be followed; tells of the Subscription that it is active."""
    resource = kept.resource
    if len(wire.dump(resource)) > MOST_BYTES:
        raise TooLarge("A Subscription has at most 64 KiB.", "Subscription")
    for name in ("implicitRules", "modifierExtension"):
        if name in resource:
            raise BusinessRule("This server does not know what this changes.", f"Subscription.{name}")
    for name in ("status", "criteria", "channel"):
        if name not in resource:
            raise Invalid("This element needs a value here.", f"Subscription.{name}")
    if resource["status"] != "off":
        resource["status"] = "active"
    if "end" in resource:
        if not ZONED.fullmatch(resource["end"]):
            raise Invalid("An instant has a time zone.", "Subscription.end")
        try:
            ended = kept.ended
        except ValueError as e:
            raise Invalid("This is no instant.", "Subscription.end") from e
        if ended and resource["status"] != "off":
            raise BusinessRule("The end has passed.", "Subscription.end")
    _check_channel(following, kept)
    _check_criteria(following, credential, kept)


def _check_channel(following: Following, kept: Kept) -> None:
    channel = kept.channel
    if "modifierExtension" in channel:
        raise BusinessRule(
            "This server does not know what this changes.", "Subscription.channel.modifierExtension"
        )
    kind, payload = channel.get("type"), channel.get("payload")
    if kind not in CHANNELS:
        raise BusinessRule(f"Of channels {' and '.join(CHANNELS)} are served.", "Subscription.channel.type")
    if payload is not None and not PAYLOAD.fullmatch(payload):
        raise BusinessRule("Of payloads application/fhir+json is served.", "Subscription.channel.payload")
    if kind == "websocket":
        for name in ("payload", "header", "endpoint"):
            if name in channel:
                raise BusinessRule("A websocket has none.", f"Subscription.channel.{name}")
        return
    if "endpoint" not in channel:
        raise BusinessRule("A rest-hook needs an endpoint.", "Subscription.channel.endpoint")
    read_headers(channel.get("header", ()))
    if kept.resource["status"] != "off":
        following.hooks.check(channel["endpoint"], kept.base)


def _check_criteria(following: Following, credential: Credential, kept: Kept) -> None:
    """Raises, with the path, for criteria that are no search which can be held against one resource."""
    kind, asked = kept.criteria
    if kind not in TYPES:
        raise BusinessRule(f"Criteria are about {', '.join(TYPES)}: Observation?code=…", CRITERIA)
    arguments = parse_qsl(asked, keep_blank_values=True)
    if any(name.partition(":")[0] in search.CONTROLS for name, _ in arguments):
        raise BusinessRule("Criteria only select: no sort, no include, no paging.", CRITERIA)
    if any(not value for _, value in arguments):
        raise Invalid("Each parameter of the criteria needs a value.", CRITERIA)
    if kept.resource["status"] == "off":
        return
    try:
        query, _ = search.parse(kind, arguments, strict=True)
        if kept.needs_key:
            scope = following.bridge.keyed(credential, kept.base)
            search.check(scope, query)
    except (Invalid, TooCostly) as e:
        raise type(e)(str(e), CRITERIA) from e
    except KeyMissing as e:
        raise KeyMissing(f"What is looked at takes your key. {e}", CRITERIA) from e


CRITERIA = "Subscription.criteria"
