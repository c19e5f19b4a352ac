"""FHIR Subscriptions: who asked for it is told of what changes in iCure.

Facts: https://hl7.org/fhir/R4/subscription.html. A Subscription outlives the request that made it, so it has an iCure
token of its own, and where content is looked at, its owner's key, sealed for that token.

Strategy: `resource` is what an owner may do with a Subscription, `kept` what is kept of it. `changes` says what
changed, `following` holds that against the criteria and tells it: by `hooks`, or to who listens by `sockets`.
"""

from bridge.events.changes import Change, Changes, Source
from bridge.events.following import Following
from bridge.events.hooks import MARK_HEADER
from bridge.events.icure import Icure
from bridge.events.kept import Kept, Position
from bridge.events.resource import PARAMETERS, TYPES, create, delete, found, read, renew, shown, update
from bridge.events.sockets import talk

__all__ = [
    "MARK_HEADER",
    "PARAMETERS",
    "TYPES",
    "Change",
    "Changes",
    "Following",
    "Icure",
    "Kept",
    "Position",
    "Source",
    "create",
    "delete",
    "found",
    "read",
    "renew",
    "shown",
    "talk",
    "update",
]
