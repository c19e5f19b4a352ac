"""The websocket channel: who binds to a Subscription is sent a ping for each event.

Facts: `bind <id>` is answered with `bound <id>`, each event is told by `ping <id>`.
https://hl7.org/fhir/R4/subscription.html#websockets

Strategy: events are counted in the state, so it does not matter which worker follows and which one has the connection;
what nobody was told yet is told to who binds next.
"""

from __future__ import annotations

import time
from typing import Protocol

from bridge.events.following import Following
from bridge.events.kept import Kept

POLL_SECONDS = 0.2
LOOK_SECONDS = 5.0
"""How often is looked whether a bound Subscription is still on."""
MOST_BOUND = 50
ENDED, REFUSED = 1000, 1008


class Socket(Protocol):
    """A connection; what it does raises `ConnectionError` when the client is gone."""

    def send(self, text: str) -> None:
        """Sends a text."""

    def receive(self, seconds: float) -> str | None:
        """Returns the next text, None when none came in so many seconds."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""


def talk(following: Following, user: str, socket: Socket) -> None:
    """Talks with a listener until it goes, asks for what is not its own, or nothing is left to tell it."""
    told: dict[str, int] = {}
    looked = time.monotonic()
    while True:
        said = socket.receive(POLL_SECONDS)
        if said is not None:
            verb, _, wanted = said.strip().partition(" ")
            if verb != "bind" or _bound(following, user, wanted) is None or len(told) >= MOST_BOUND:
                socket.close(REFUSED, "bind <id> of an active Subscription of yours with a websocket.")
                return
            told.setdefault(wanted, following.subscriptions.pings(wanted)[1])
            socket.send(f"bound {wanted}")
        for subscription_id in told:
            _ping(following, socket, told, subscription_id)
        if time.monotonic() - looked > LOOK_SECONDS:
            looked = time.monotonic()
            told = {one: number for one, number in told.items() if _bound(following, user, one)}
            if not told:
                socket.close(ENDED, "No Subscription is left that is on.")
                return


def _bound(following: Following, user: str, subscription_id: str) -> Kept | None:
    """Returns the Subscription when this user can listen to it."""
    kept = following.subscriptions.get(subscription_id)
    if kept is None or kept.user != user or kept.token is None or kept.channel["type"] != "websocket":
        return None
    return kept


def _ping(following: Following, socket: Socket, told: dict[str, int], subscription_id: str) -> None:
    happened, _ = following.subscriptions.pings(subscription_id)
    if happened <= told[subscription_id]:
        return
    for _ in range(happened - told[subscription_id]):
        socket.send(f"ping {subscription_id}")
    told[subscription_id] = happened
    following.subscriptions.pinged(subscription_id, happened)
