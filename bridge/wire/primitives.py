"""What each primitive type of FHIR may hold in JSON.

Facts: https://hl7.org/fhir/R4/datatypes.html#primitive.

Strategy: a rule is given a JSON value and returns nothing, or the flaw. A flaw never holds the value.
"""

from __future__ import annotations

import re
from binascii import Error, a2b_base64
from calendar import monthrange
from collections.abc import Callable
from typing import Literal, NamedTuple

from bridge.wire.narrative import narrative_flaw
from mappings.values import Json, Number


class Flaw(NamedTuple):
    """What is wrong with a value: an issue type, the rule in words, and how grave it is.

    A `deviation` from R4 is an error under strict validation, else a warning that also says what was done about
    it. A `remark` is such a warning about what R4 allows; strict validation passes over it.
    """

    code: str
    text: str
    weight: Literal["error", "deviation", "remark"] = "error"
    done: str = ""


Rule = Callable[[Json], Flaw | None]

MAX_STRING = 1024 * 1024

NULL = Flaw("structure", "Null is not a value; leave the element out.")
NOT_A_STRING = Flaw("structure", "Must be a JSON string.")
BLANK = Flaw("value", "Must not be empty or only white space.")
TOO_LONG = Flaw("too-long", f"A string has at most {MAX_STRING} characters.")
UNKNOWN_CODE = Flaw("code-invalid", "Not one of the codes that FHIR allows here.")
NOT_A_DATE = Flaw("value", "The calendar has no such day.")
ODD_ELEMENT_ID = Flaw("value", "An element id had better look like an id.", "remark", "Accepted as sent.")

ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_YEAR = r"(?!0000)[0-9]{4}"
_DAY = r"(?:0[1-9]|[12][0-9]|3[01])"
_MONTH = r"(?:0[1-9]|1[0-2])"
_CLOCK = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?"
_ZONE = r"(?:Z|[+-](?:(?:0[0-9]|1[0-3]):[0-5][0-9]|14:00))"


def _string(value: Json) -> Flaw | None:
    if type(value) is not str:
        return NULL if value is None else NOT_A_STRING
    if not value or value.isspace():
        return BLANK
    return TOO_LONG if len(value) > MAX_STRING else None


def _form(pattern: str, text: str, flags: int = 0) -> Rule:
    match = re.compile(pattern, flags).fullmatch
    wrong = Flaw("value", text)

    def rule(value: Json) -> Flaw | None:
        if type(value) is not str:
            return NULL if value is None else NOT_A_STRING
        if len(value) > MAX_STRING:
            return TOO_LONG
        if match(value) is not None:
            return None
        return wrong if value and not value.isspace() else BLANK

    return rule


def _calendar(pattern: str, text: str) -> Rule:
    form = _form(pattern, text)

    def rule(value: Json) -> Flaw | None:
        flaw = form(value)
        if flaw is None and len(value) >= 10 and int(value[8:10]) > 28:
            days = monthrange(int(value[:4]), int(value[5:7]))[1]
            return NOT_A_DATE if int(value[8:10]) > days else None
        return flaw

    return rule


def _whole(lowest: int) -> Rule:
    not_whole = Flaw("structure", "Must be a JSON number without fraction or exponent.")
    outside = Flaw("value", f"Must be between {lowest} and 2147483647.")

    def rule(value: Json) -> Flaw | None:
        if type(value) is int:
            return None if lowest <= value <= 2147483647 else outside
        return NULL if value is None else not_whole

    return rule


def _boolean(value: Json) -> Flaw | None:
    if value is True or value is False:
        return None
    return NULL if value is None else Flaw("structure", "Must be true or false, without quotes.")


def _decimal(value: Json) -> Flaw | None:
    if type(value) is Number or type(value) is int:
        return None
    return NULL if value is None else Flaw("structure", "Must be a JSON number, without quotes.")


def _base64(value: Json) -> Flaw | None:
    if type(value) is not str:
        return NULL if value is None else NOT_A_STRING
    if not value or value.isspace():
        return BLANK
    try:
        a2b_base64("".join(value.split()), strict_mode=True)
    except (Error, ValueError):
        return Flaw("value", "Not well-formed base64.")
    return None


def _xhtml(value: Json) -> Flaw | None:
    if type(value) is not str:
        return NULL if value is None else NOT_A_STRING
    text = narrative_flaw(value)
    return None if text is None else Flaw("value", text)


def element_id(value: Json) -> Flaw | None:
    """Returns the flaw of `Element.id`: any string without white space; a form unlike `id` is warned about.

    https://hl7.org/fhir/R4/element.html#id
    """
    if type(value) is not str:
        return NULL if value is None else NOT_A_STRING
    if ID.fullmatch(value):
        return None
    if not value or len(value.split()) != 1 or value != value.strip():
        return Flaw("value", "An element id is a string without white space.")
    return ODD_ELEMENT_ID


def one_of(codes: frozenset[str]) -> Rule:
    """Returns the rule of a code bound to `codes` with strength required."""

    def rule(value: Json) -> Flaw | None:
        if type(value) is not str:
            return NULL if value is None else NOT_A_STRING
        return None if value in codes else UNKNOWN_CODE

    return rule


_uri = _form(r"\S+", "A URI has no white space.", re.ASCII)

RULES: dict[str, Rule] = {
    "base64Binary": _base64,
    "boolean": _boolean,
    "canonical": _uri,
    "code": _form(r"\S+(?:\s\S+)*", "A code has no white space but single blanks inside."),
    "date": _calendar(f"{_YEAR}(?:-{_MONTH}(?:-{_DAY})?)?", "A date is YYYY, YYYY-MM or YYYY-MM-DD."),
    "dateTime": _calendar(
        f"{_YEAR}(?:-{_MONTH}(?:-{_DAY}(?:T{_CLOCK}{_ZONE})?)?)?",
        "A dateTime is YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm:ss with a zone.",
    ),
    "decimal": _decimal,
    "id": _form(r"[A-Za-z0-9\-.]{1,64}", "An id is 1 to 64 of A-Z, a-z, 0-9, - and the full stop."),
    "instant": _calendar(
        f"{_YEAR}-{_MONTH}-{_DAY}T{_CLOCK}{_ZONE}", "An instant is YYYY-MM-DDThh:mm:ss with a zone."
    ),
    "integer": _whole(-2147483648),
    "markdown": _string,
    "oid": _form(
        r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+",
        "An oid starts with urn:oid: and has only numbers and full stops.",
    ),
    "positiveInt": _whole(1),
    "string": _string,
    "time": _form(_CLOCK, "A time is hh:mm:ss, without a zone."),
    "unsignedInt": _whole(0),
    "uri": _uri,
    "url": _uri,
    "uuid": _form(
        r"urn:uuid:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "A uuid starts with urn:uuid:."
    ),
    "xhtml": _xhtml,
}
