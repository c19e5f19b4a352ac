"""Codecs to build others from: leaves, tables, records, lists; dates and exact decimals.

Facts: FHIR date and dateTime, https://hl7.org/fhir/R4/datatypes.html#dateTime; iCure's fuzzy dates are integers in
decimal positions, YYYYMMDD or YYYYMMDDhhmmss, wall-clock time without a zone, 00 for an unknown month or day.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from mappings.engine import Codec, Context, MappingError, said_over
from mappings.residue import align
from mappings.values import Entity, Json, Number

_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d+)?)?(?:Z|[+-]\d\d:\d\d)?)?)?)?"
)
_FIRST_YEAR = 1000
_LAST_DATE = 99991231
_EXACT_INTEGER = 10**15


class Text:
    """A text as it stands; iCure's texts are free, so what FHIR would refuse is not said."""

    def __init__(self, form: str = "") -> None:
        self._form = re.compile(form, re.ASCII).fullmatch if form else None

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the text."""
        return value if isinstance(value, str) else None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the text when it has the form."""
        return self.said(value)

    def said(self, value: Json) -> str | None:
        """Returns the text when it has the form."""
        if not isinstance(value, str):
            return None
        return value if (value.strip() if self._form is None else self._form(value)) else None


class Flag:
    """A boolean as it stands; `default` is what the server says where there is none."""

    def __init__(self, default: bool | None = None) -> None:
        self._default = default

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the boolean."""
        return value if isinstance(value, bool) else None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the boolean."""
        return value if isinstance(value, bool) else self._default


text, code, uri, flag = Text(), Text(r"\S+(?:\s\S+)*"), Text(r"\S+"), Flag()
logical_id = Text(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class Function:
    """A codec of two functions of the value alone."""

    forward: Callable[[Any], Json]
    backward: Callable[[Any], Json]

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns what iCure says for the value."""
        return None if value is None else self.forward(value)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns what FHIR says for the value."""
        return None if value is None else self.backward(value)


class Table:
    """Codes of both sides."""

    def __init__(
        self, codes: Mapping[str, str], also: Mapping[str, str], default: str | None, required: str | None
    ) -> None:
        self._codes = dict(codes)
        self._back = {**also, **{icure: fhir for fhir, icure in reversed(list(codes.items()))}}
        self._default = default
        self._required = required

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns iCure's code. Raises `MappingError` for an unknown one of a required binding."""
        if value is None:
            return None
        if isinstance(onto, str) and self._back.get(onto) == value:
            return onto
        code = self._codes.get(value)
        if code is None and self._required:
            raise MappingError("This code has no counterpart in iCure.", self._required)
        return code

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns FHIR's code."""
        return self._back.get(value if isinstance(value, str) else self._default or "")


def table(
    codes: Mapping[str, str],
    *,
    also: Mapping[str, str] | None = None,
    default: str | None = None,
    required: str | None = None,
) -> Table:
    """Returns a codec for FHIR codes and iCure codes.

    `also`: iCure codes that are only read. `default`: the iCure code that the server writes where there is none.
    `required`: the FHIR path of a required binding, of which an unknown code is refused.
    """
    return Table(codes, also or {}, default, required)


class Record:
    """An object with a codec for each member; members that it does not own stay with the object."""

    def __init__(self, members: Mapping[tuple[str, str], Codec]) -> None:
        self._members = [(fhir, icure, codec) for (fhir, icure), codec in members.items()]
        self._owned = frozenset(icure for _, icure, _ in self._members)

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the object, None when nothing can be said."""
        old: Entity = onto if isinstance(onto, dict) else {}
        said: Entity = {}
        for fhir, icure, codec in self._members:
            member = value.get(fhir)
            if member is not None:
                under = old.get(icure)
                inner = (
                    said_over(codec, member, under, context)
                    if under
                    else codec.to_icure(member, under, context)
                )
                if inner is not None:
                    said[icure] = inner
        if not said:
            return None
        return {**self._rest(old, context), **said} if old else said

    def _rest(self, old: Entity, context: Context) -> Entity:
        """Returns what the record does not own, or cannot say in FHIR."""
        mute = {n for _, n, codec in self._members if n in old and codec.to_fhir(old[n], context) is None}
        return {n: v for n, v in old.items() if n not in self._owned or n in mute}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the object, None when it says nothing."""
        said = {}
        for fhir, icure, codec in self._members:
            member = value.get(icure)
            if member is not None:
                inner = codec.to_fhir(member, context)
                if inner is not None:
                    said[fhir] = inner
        return said or None


def record(**members: Codec) -> Record:
    """Returns a codec for objects; a member `fhir__icure` has different names on the two sides."""
    split = {}
    for name, codec in members.items():
        fhir, _, icure = name.partition("__")
        split[fhir, icure or fhir] = codec
    return Record(split)


class Each:
    """A list with one codec for its members.

    Over an existing list, members are aligned by content, and what says nothing in FHIR stays.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the list, None when it would be empty."""
        values = [v for v in value or () if v is not None]
        old = list(onto or ())
        if not old:
            said = [self._codec.to_icure(v, None, context) for v in values]
            return [s for s in said if s is not None] or None
        naturals = [self._codec.to_fhir(o, context) for o in old]
        pairs = align(values, naturals, partial=True)
        under = (old[pairs[i]] if i in pairs else None for i in range(len(values)))
        said = [said_over(self._codec, v, o, context) for v, o in zip(values, under, strict=True)]
        mute = [o for o, natural in zip(old, naturals, strict=True) if natural is None]
        return [s for s in (*said, *mute) if s is not None] or None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the list, None when it says nothing."""
        said = [self._codec.to_fhir(v, context) for v in value or () if v is not None]
        return [s for s in said if s is not None] or None


def each(codec: Codec) -> Each:
    """Returns a codec for lists."""
    return Each(codec)


def distinct(members: list[Json] | None) -> list[Json] | None:
    """Returns a list without repeated members: iCure keeps sets of code stubs."""
    if members is None:
        return None
    found: list[Json] = []
    for member in members:
        if member not in found:
            found.append(member)
    return found


# numbers


def to_double(value: Json) -> float | int | None:
    """Returns a FHIR number as iCure keeps it, None when a double cannot hold it."""
    if isinstance(value, bool) or not isinstance(value, (int, Number)):
        return None
    if isinstance(value, int):
        return value if abs(value) < _EXACT_INTEGER else float(value)
    double = float(value)
    return double if math.isfinite(double) else None


def from_double(value: Json) -> int | Number | None:
    """Returns an iCure number as FHIR writes it: whole ones without a point."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, int):
        return value if abs(value) < _EXACT_INTEGER else Number(repr(float(value)))
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < _EXACT_INTEGER else Number(repr(value))


decimal = Function(to_double, from_double)


# dates


def to_fuzzy(value: Json) -> int | None:
    """Returns the wall-clock digits of a FHIR date or dateTime as written, without zone or fraction of a second."""
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) < _FIRST_YEAR:
        return None
    year, month, day, hour, minute, second = match.groups("00")
    date = int(year + month + day)
    if match[4] is None:
        return date
    return date * 1_000_000 + int(hour + minute) * 100 + min(int(second), 59)


def from_fuzzy(value: Json, context: Context) -> str | None:
    """Returns a FHIR date as precise as the fuzzy one, or a dateTime in the context's zone."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < _FIRST_YEAR * 10000:
        return None
    fuzzy = int(value)
    if fuzzy <= _LAST_DATE:
        return _date(fuzzy)
    if fuzzy > _LAST_DATE * 1_000_000 + 999_999:
        return None
    date, time = divmod(fuzzy, 1_000_000)
    month, day = date // 100 % 100, date % 100
    if month == 0 or day == 0:
        return _date(date)
    hour, minute, second = time // 10000, time // 100 % 100, time % 100
    if hour > 24 or minute > 60 or second > 60 or (hour == 24 and (minute or second)):
        return None
    try:
        moment = datetime(date // 10000, month, day, hour % 24, minute % 60, second % 60, tzinfo=UTC)
        if hour == 24:
            return f"{moment + timedelta(days=1):%Y-%m-%d}".rjust(10, "0")
        if minute == 60 or second == 60:
            moment += timedelta(hours=minute // 60, minutes=second // 60)
    except (ValueError, OverflowError):
        return None
    return moment.isoformat()[:19] + _offset(moment, context)


def _date(fuzzy: int) -> str | None:
    year, month, day = fuzzy // 10000, fuzzy // 100 % 100, fuzzy % 100
    if month == 0:
        return f"{year:04}"
    if not 1 <= month <= 12:
        return None
    if day == 0:
        return f"{year:04}-{month:02}"
    try:
        datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        return None
    return f"{year:04}-{month:02}-{day:02}"


def _offset(moment: datetime, context: Context) -> str:
    if context.zone is UTC:
        return "Z"
    offset = moment.replace(tzinfo=context.zone).strftime("%z")
    return "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}"


class FuzzyDate:
    """A date without time; what has a time loses it."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns YYYYMMDD."""
        fuzzy = to_fuzzy(value)
        return fuzzy // 1_000_000 if fuzzy is not None and fuzzy > _LAST_DATE else fuzzy

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a FHIR date as precise as the fuzzy one."""
        said = from_fuzzy(value, context)
        return said[:10] if said else None


class FuzzyTime:
    """A date, or a date with time to the second."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns YYYYMMDD or YYYYMMDDhhmmss."""
        return to_fuzzy(value)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a FHIR date or dateTime as precise as the fuzzy one."""
        return from_fuzzy(value, context)


class DateTime(Text):
    """A FHIR dateTime as text."""

    def said(self, value: Json) -> str | None:
        """Returns the text when it is a dateTime of the calendar."""
        said = super().said(value)
        return said if said and _date(int(said[:10].replace("-", "").ljust(8, "0"))) else None


fuzzy_date = FuzzyDate()
fuzzy_time = FuzzyTime()
date_time = DateTime(
    r"[1-9]\d{3}(?:-\d\d(?:-\d\d(?:T(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
    r"(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d|[+-]14:00))?)?)?"
)
