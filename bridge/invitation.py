"""Invites a patient: a user for it in iCure, with a temporary password that is sent by e-mail.

Facts: inviter and patient need an e-mail address or a mobile phone number, and nobody else may use the patient's. A
temporary password is a token of the new user.

Strategy: all conditions are looked at before anything is written. When the message cannot be sent, or nobody knows
whether it was, the user is removed again, so that the patient can be invited anew; a password that arrives all the same
opens nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from bridge import users
from bridge.errors import BridgeError, Forbidden, Issue, NotConfigured, Unprocessable
from bridge.homes import instant
from bridge.interactions import locate
from bridge.mail import Mail
from bridge.scope import Scope
from bridge.upstream import Client
from mappings.values import Entity, Resource

PASSWORD_SECONDS = 30 * 24 * 3600
"""How long a temporary password works, as with iCure's own invitations."""
TOKEN_NAME = "invitation"
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
    issues: list[Issue] = []
    if not _contacts(inviter, ("email", "mobile")):
        issues.append(_unmet("You have neither an e-mail address nor a mobile number in iCure.", None))
    emails = _contacts(patient.entity, ("email",))
    if not emails and _contacts(patient.entity, ("mobile",)):
        issues.append(
            _unmet("The patient has a mobile number only; this server sends e-mail.", "Patient.telecom")
        )
    elif not emails:
        issues.append(_unmet("The patient has no e-mail address.", "Patient.telecom"))
    issues += _taken(scope.client, patient.id, emails)
    if issues:
        raise Unprocessable(issues=issues)
    email = emails[0]
    user = users.create(
        scope.client, {"email": email, "login": email, "name": email, "patientId": patient.id}
    )
    ends = time.time() + PASSWORD_SECONDS
    with _removed_on_failure(scope.client, user["id"]):
        password = scope.client.create_token(user["id"], TOKEN_NAME, PASSWORD_SECONDS)
        text = TEXT.format(
            inviter=_name(inviter),
            where=f"Where: {link}\n" if link else "",
            login=email,
            password=password,
            until=datetime.fromtimestamp(ends, UTC),
        )
        mail.send(email, SUBJECT, text)
    return {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "user", "valueString": user["id"]},
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


def _taken(client: Client, patient_id: str, emails: Sequence[str]) -> Iterator[Issue]:
    """Yields who is in the way of a new user. Raises `Forbidden` for who may know of no users."""
    found, _ = users.find(client, {"patientId": patient_id, "limit": "1"})
    if found:
        yield _unmet(f"The patient has a user already: {found[0]['id']}.", "Patient")
    elif emails and not users.is_email(emails[0]):
        yield _unmet("This is no e-mail address.", "Patient.telecom")
    elif emails and users.taken(client, {"login": emails[0], "email": emails[0]}):
        yield _unmet("Another user has this e-mail address already.", "Patient.telecom")


@contextmanager
def _removed_on_failure(client: Client, user_id: str) -> Iterator[None]:
    """Removes a user when what follows fails, and says so, or that it could not."""
    try:
        yield
    except BridgeError as e:
        text = "The user that was made for it was removed again: the patient can be invited anew."
        code = "informational"
        try:
            users.delete(client, user_id, None)
        except BridgeError:
            code, text = "incomplete", f"The user that was made for it could not be removed: {user_id}."
        e.issues.append(Issue(code, text, severity="information" if code == "informational" else "error"))
        raise


def _name(party: Entity) -> str:
    """Returns the name of a healthcare party on one line."""
    parts = [party.get("firstName"), party.get("lastName")] if party.get("lastName") else [party.get("name")]
    return " ".join(" ".join(part.split()) for part in parts if part) or "Your healthcare provider"


__all__ = ["PASSWORD_SECONDS", "invite"]
