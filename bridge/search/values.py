r"""The values of a query: escapes, alternatives, and what each FHIR type reads in them.

Facts: https://hl7.org/fhir/R4/search.html#escaping, #token, #date, #number, #quantity. A value stands for a range as
wide as the precision it was written with.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation, localcontext

from bridge.errors import Invalid
from mappings.values import Json

MOST_VALUES = 1000
"""Alternatives between commas in one parameter."""
PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_ALTERNATIVE = re.compile(r"(?:\\.|[^\\,]|\\\Z)+", re.DOTALL)
_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+\- ]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_NUMBER = re.compile(r"[+-]?(\d{1,64})(\.\d{1,64})?([eE][+-]?\d{1,3})?", re.ASCII)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
_SMALL_EXPONENT = 400
Bound = int | float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, its end excluded, in microseconds since 1970; unbounded ones are infinite."""

    low: Bound
    high: Bound

    def contains(self, other: Span) -> bool:
        """Whether all of the other lies within."""
        return self.low <= other.low and other.high <= self.high

    def overlaps(self, other: Span) -> bool:
        """Whether the two have a moment in common."""
        return self.low < other.high and other.low < self.high


@dataclass(frozen=True, slots=True)
class Measured:
    """The number of a query with its prefix, and the range that its precision gives it, the end excluded."""

    prefix: str
    number: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Token:
    """A system and a code: system None for any, "" for none; code "" for any."""

    system: str | None
    code: str


def alternatives(text: str, name: str) -> tuple[str, ...]:
    r"""Returns the values between commas; `\,` `\|` `\$` `\\` stay escaped. Raises `Invalid` for more than 1,000."""
    found = tuple(_ALTERNATIVE.findall(text))
    if len(found) > MOST_VALUES:
        raise Invalid(f"{name} has more than {MOST_VALUES} values between commas.")
    return found


def unescape(text: str) -> str:
    """Returns the text that an escaped one stands for."""
    return re.sub(r"\\([,|$\\])", r"\1", text)


def split(text: str, separator: str) -> list[str]:
    """Returns the still escaped parts of a value between separators that are not escaped."""
    parts = [""]
    for piece in re.findall(r"\\.|.|\\\Z", text, re.DOTALL):
        if piece == separator:
            parts.append("")
        else:
            parts[-1] += piece
    return parts


def token(text: str) -> Token:
    """Returns the token that a value says."""
    system, *rest = split(text, "|")
    if not rest:
        return Token(None, unescape(system))
    return Token(unescape(system), unescape("|".join(rest)))


def fold(text: str) -> str:
    """Returns text without case and diacritics, as FHIR compares strings."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text.casefold()).casefold())
    return " ".join("".join(c for c in decomposed if not unicodedata.combining(c)).split())


def prefixed(text: str) -> tuple[str, str]:
    """Returns the prefix of a date or number, eq where there is none, and what follows it."""
    return (text[:2], text[2:]) if text[:2] in PREFIXES else ("eq", text)


def date(text: str, zone: tzinfo, name: str) -> tuple[str, Span]:
    """Returns prefix and span of a date value. Raises `Invalid` naming the parameter."""
    prefix, rest = prefixed(unescape(text))
    span = moment(rest, zone)
    if span is None:
        raise Invalid(f"{name} wants a date such as 2024, 2024-05, 2024-05-17 or 2024-05-17T08:30:00Z.")
    return prefix, span


def moment(text: Json, zone: tzinfo) -> Span | None:
    """Returns the span of a FHIR date, dateTime or instant, None for what is not one.

    A time without an offset is one of `zone`; a blank before an offset is the plus sign that a URL lost.
    """
    found = _DATE.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    try:
        low = datetime(int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0))
        start = _since(low, offset, zone)
    except (ValueError, OverflowError):
        return None
    if second is not None:
        if int(second) > 60:
            return None
        start += int(second) * 1_000_000 + int((fraction or "").ljust(6, "0")[:6])
        return Span(start, start + (10 ** max(0, 6 - len(fraction)) if fraction else 1_000_000))
    if minute is not None:
        return Span(start, start + 60_000_000)
    try:
        return Span(start, _since(_next(low, month, day), offset, zone))
    except OverflowError:
        return Span(start, math.inf)


def _next(low: datetime, month: str | None, day: str | None) -> datetime:
    """Returns the beginning of the next day, month or year. Raises `OverflowError` after the last year."""
    if day is not None:
        return low + timedelta(days=1)
    whole = low.year * 12 + low.month - 1 + (1 if month is not None else 12)
    if whole // 12 > datetime.max.year:
        raise OverflowError
    return low.replace(year=whole // 12, month=whole % 12 + 1)


def _since(moment_: datetime, offset: str | None, zone: tzinfo) -> int:
    """Returns microseconds since 1970 of a wall-clock time."""
    if offset is None:
        away = moment_.replace(tzinfo=zone).utcoffset() or timedelta()
    elif offset == "Z":
        away = timedelta()
    else:
        hours, minutes = int(offset[1:3]), int(offset[4:])
        if hours > 14 or minutes > 59:
            raise ValueError
        away = timedelta(hours=hours, minutes=minutes) * (-1 if offset[0] == "-" else 1)
    return (moment_ - _EPOCH - away) // _MICROSECOND


def span_of(value: Json, zone: tzinfo) -> Span | None:
    """Returns the span of a date, Period or Timing in a resource, None when it says no time."""
    if isinstance(value, str):
        return moment(value, zone)
    if not isinstance(value, dict):
        return None
    if "event" in value or "repeat" in value:
        spans = [s for event in value.get("event") or () if (s := moment(event, zone))]
        bounds = span_of((value.get("repeat") or {}).get("boundsPeriod"), zone)
        spans += [bounds] if bounds else []
        return Span(min(s.low for s in spans), max(s.high for s in spans)) if spans else None
    start, end = moment(value.get("start"), zone), moment(value.get("end"), zone)
    if start is None and end is None:
        return None
    return Span(start.low if start else -math.inf, end.high if end else math.inf)


def measured(text: str, name: str) -> Measured:
    """Returns the number that a value says. Raises `Invalid` naming the parameter."""
    prefix, rest = prefixed(text.strip())
    found = _NUMBER.fullmatch(rest)
    if found is None or abs(int((found[3] or "e0")[1:])) > _SMALL_EXPONENT:
        raise Invalid(f"{name} wants a number such as 5.4, 100 or 1e-3.")
    with localcontext(prec=1200):
        number = Decimal(rest)
        exponent = number.as_tuple().exponent
        assert isinstance(exponent, int)  # noqa: S101  the pattern lets no infinity through
        finer = 1 if found[3] and not found[2] else 0
        half = Decimal(5).scaleb(exponent - 1 - finer)
        if prefix == "ap":
            half = max(half, abs(number) / 10)
        return Measured(prefix, number, number - half, number + half)


def decimal(value: Json) -> Decimal | None:
    """Returns a FHIR number, None for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


def plain(text: str) -> Decimal | None:
    """Returns the number that a text is, None for what is none."""
    found = _NUMBER.fullmatch(text)
    return (
        Decimal(text) if found is not None and abs(int((found[3] or "e0")[1:])) <= _SMALL_EXPONENT else None
    )


def joined(texts: Sequence[str]) -> str:
    """Returns texts as one, for words that run over several elements."""
    return " ".join(t for t in texts if t)
