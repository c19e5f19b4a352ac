"""Invites a patient: a user for it in iCure, with a temporary password that is sent by e-mail.

Facts: inviter and patient need an e-mail address or a mobile phone number, and nobody else may use the patient's. A
temporary password is a token of the new user.

Strategy: all conditions are looked at before anything is written, by one at a time for each patient. When iCure or the
mail server fails afterwards, or nobody knows what it did, the user is removed again, so that the patient can be invited
anew; a password that arrives all the same opens nothing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from bridge import users
from bridge.errors import (
    BridgeError,
    BusinessRule,
    Duplicate,
    Forbidden,
    Issue,
    NotConfigured,
    NotFound,
    Unprocessable,
)
from bridge.homes import Record, instant
from bridge.interactions import locate
from bridge.mail import Mail
from bridge.scope import Scope
from bridge.upstream import Client
from mappings.values import Entity, Resource

PASSWORD_SECONDS = 30 * 24 * 3600
"""How long a temporary password works, as with iCure's own invitations."""
TOKEN_NAME = "invitation"
TELECOM = "Patient.telecom"
IN_USE = "Another user has this e-mail address already."
MOBILE_ONLY = (
    "The patient has a mobile number only, and this server sends e-mail: add an e-mail address to the patient, or make "
    "its user with a password (POST /rest/icdx/v1/users) and tell it to the patient yourself."
)
SUBJECT = "Your access"
TEXT = """\
{inviter} gives you access to your data.

{where}User name: {login}
Temporary password: {password}

The password works until {until:%d %B %Y}. Choose one of your own before then, and tell nobody either of them.
"""


def invite(scope: Scope, mail: Mail | None, link: str, logical_id: str) -> Resource:
    """Returns Parameters that tell the new user of a patient and when its temporary password ends.

    Raises `NotConfigured` without a mail server, `Unprocessable` when a condition fails, `Forbidden` for who may make
    no users, `MailFailed` and `MailTimeout`.
    """
    if mail is None:
        raise NotConfigured("This server sends no invitations: BRIDGE_SMTP_URL is not set.")
    patient = locate(scope, "Patient", logical_id)
    inviter = _inviter(scope)
    with scope.state.lock("invitation", patient.id):
        email = _checked_address(scope.client, patient, inviter)
        user_id = _user_made(scope.client, patient.id, email)
    with _removed_on_failure(scope.client, user_id):
        ends = time.time() + PASSWORD_SECONDS
        password = scope.client.create_token(user_id, TOKEN_NAME, PASSWORD_SECONDS)
        text = TEXT.format(
            inviter=_name(inviter),
            where=f"Where: {link}\n" if link else "",
            login=email,
            password=password,
            until=datetime.fromtimestamp(ends, UTC),
        )
        try:
            mail.send(email, SUBJECT, text)
        except BusinessRule as e:
            raise Unprocessable(issues=[issue.at(TELECOM) for issue in e.issues]) from e
    return {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "user", "valueString": user_id},
            {"name": "login", "valueString": email},
            {"name": "expires", "valueInstant": instant(int(ends * 1000))},
        ],
    }


def _inviter(scope: Scope) -> Entity:
    """Returns the caller's healthcare party. Raises `Forbidden` for who is none."""
    found = scope.client.healthcare_parties([scope.caller.data_owner_id])
    if not found:
        raise Forbidden("Only a healthcare party invites patients.")
    return found[0]


def _checked_address(client: Client, patient: Record, inviter: Entity) -> str:
    """Returns the address to which the message goes. Raises `Unprocessable` with every condition that fails."""
    issues: list[Issue] = []
    if not _contacts(inviter, ("email", "mobile")):
        issues.append(_unmet("You have neither an e-mail address nor a mobile number in iCure.", None))
    emails = list(filter(users.is_email, _contacts(patient.entity, ("email",))))
    if not emails and _contacts(patient.entity, ("mobile",)):
        issues.append(_unmet(MOBILE_ONLY, TELECOM))
    elif not emails:
        issues.append(_unmet("The patient has no e-mail address.", TELECOM))
    if found := users.find(client, {"patientId": patient.id, "limit": "1"}.items())[0]:
        issues.append(_unmet(f"The patient has a user already: {found[0]['id']}.", "Patient"))
    elif emails and users.taken(client, {"login": emails[0], "email": emails[0]}):
        issues.append(_unmet(IN_USE, TELECOM))
    if issues:
        raise Unprocessable(issues=issues)
    return emails[0]


def _user_made(client: Client, patient_id: str, email: str) -> str:
    """Returns the id of a new user of the patient. Raises `Unprocessable` when another took the address meanwhile."""
    user_id = str(uuid.uuid4())
    try:
        with _removed_on_failure(client, user_id):
            users.create(
                client, {"email": email, "login": email, "name": email, "patientId": patient_id}, user_id
            )
    except Duplicate as e:
        raise Unprocessable(issues=[_unmet(IN_USE, TELECOM)]) from e
    return user_id


def _contacts(entity: Entity, kinds: Sequence[str]) -> list[str]:
    """Returns telecoms of these kinds: those at home, then those at work, then the others."""
    places = ("home", "work")
    found = [
        (places.index(place) if place in places else len(places), kinds.index(telecom["telecomType"]), number)
        for address in entity.get("addresses") or ()
        for place in [address.get("addressType")]
        for telecom in address.get("telecoms") or ()
        if telecom.get("telecomType") in kinds and (number := (telecom.get("telecomNumber") or "").strip())
    ]
    return [number for _, _, number in sorted(found, key=lambda one: one[:2])]


def _unmet(text: str, path: str | None) -> Issue:
    return Issue("business-rule", text, path)


@contextmanager
def _removed_on_failure(client: Client, user_id: str) -> Iterator[None]:
    """Removes the user with this id when what is done here fails, and says so, or that it may be left over."""
    try:
        yield
    except BridgeError as e:
        try:
            users.delete(client, user_id, None)
            text = "The user that was made for it was removed again: the patient can be invited anew."
            e.issues.append(Issue("informational", text, severity="information"))
        except NotFound:
            pass
        except BridgeError:
            text = f"A user may be left over: delete {user_id} before you invite the patient again."
            e.issues.append(Issue("incomplete", text))
        raise


def _name(party: Entity) -> str:
    """Returns the name of a healthcare party on one line."""
    parts = [party.get("firstName"), party.get("lastName")] if party.get("lastName") else [party.get("name")]
    return " ".join(" ".join(part.split()) for part in parts if part) or "Your healthcare provider"


__all__ = ["PASSWORD_SECONDS", "invite"]
