"""What values of a query say: dates, numbers, tokens, escapes."""

from __future__ import annotations

from datetime import UTC
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Invalid
from bridge.search import values
from bridge.search.predicates import relates
from bridge.search.values import Span, Token

SECOND = 1_000_000
DAY = 86_400 * SECOND


def span(text: str, zone: str = "UTC") -> Span:
    found = values.moment(text, ZoneInfo(zone))
    assert found is not None
    return found


WIDTHS = {
    "2023": 365 * DAY,
    "2024": 366 * DAY,
    "2024-02": 29 * DAY,
    "2024-12": 31 * DAY,
    "2024-12-31": DAY,
    "2024-05-17T08:30": 60 * SECOND,
    "2024-05-17T08:30Z": 60 * SECOND,
    "2024-05-17T08:30:59Z": SECOND,
    "2024-05-17T08:30:00.5Z": 100_000,
    "2024-05-17T08:30:00.123+02:00": 1000,
    "2024-05-17T08:30:00.123456789Z": 1,
}


@pytest.mark.parametrize(("text", "width"), WIDTHS.items())
def test_a_date_is_as_wide_as_it_was_written(text: str, width: int) -> None:
    assert span(text).high - span(text).low == width


def test_an_offset_moves_and_its_plus_may_have_been_lost_in_the_url() -> None:
    assert span("2024-05-17T08:30:00+02:00") == span("2024-05-17T06:30:00Z")
    assert span("2024-05-17T08:30:00 02:00") == span("2024-05-17T06:30:00Z")
    assert span("2024-05-17T08:30:00-03:30") == span("2024-05-17T12:00:00Z")


def test_a_time_without_offset_is_of_the_configured_zone_summer_and_winter() -> None:
    assert span("2024-07-01T12:00:00", "Europe/Brussels") == span("2024-07-01T10:00:00Z")
    assert span("2024-01-01T12:00:00", "Europe/Brussels") == span("2024-01-01T11:00:00Z")
    assert (
        span("2024-03-31", "Europe/Brussels").high - span("2024-03-31", "Europe/Brussels").low
        == DAY * 23 // 24
    )


def test_the_first_and_the_last_year_have_spans() -> None:
    assert span("0001").low < span("9999").low
    assert span("9999").high == float("inf")
    assert span("9999-12-31").high == float("inf")
    assert span("0001-01-01T00:00:00+14:00").low < span("0001-01-01").low


WRONG_DATES = (
    "", "x", "24", "2024-13", "2024-00", "2024-02-30", "2024-5", "2024-05-17T", "2024-05-17T25:00", "20240517",
    "2024-05-17T08:30:61Z", "2024-05-17T08:30:00+99:00", "2024-05-17T08Z", "0000", "２０２４", "2024-05-17 08:30",
    "gt", "neq2024", "2024..", "2024-05-17T08:30:00.Z",
)  # fmt: skip


@pytest.mark.parametrize("text", WRONG_DATES)
def test_what_is_no_date_is_refused_by_the_name_of_the_parameter(text: str) -> None:
    with pytest.raises(Invalid, match="birthdate"):
        values.date(text, UTC, "birthdate")


ASKED = Span(10, 20)
RELATIONS = {
    "within": (Span(12, 15), {"eq", "ge", "le", "ap"}),
    "the same": (Span(10, 20), {"eq", "ge", "le", "ap"}),
    "around": (Span(5, 25), {"ne", "gt", "lt", "ge", "le", "ap"}),
    "over the beginning": (Span(5, 15), {"ne", "lt", "le", "ap"}),
    "over the end": (Span(15, 25), {"ne", "gt", "ge", "ap"}),
    "long before": (Span(-(10**18), -(10**18) + 1), {"ne", "lt", "le", "eb"}),
    "just before": (Span(5, 10), {"ne", "lt", "le", "eb", "ap"}),
    "just after": (Span(20, 25), {"ne", "gt", "ge", "sa", "ap"}),
    "since ever": (Span(float("-inf"), 15), {"ne", "lt", "le", "ap"}),
    "for ever": (Span(15, float("inf")), {"ne", "gt", "ge", "ap"}),
}


@pytest.mark.parametrize(("own", "holding"), RELATIONS.values(), ids=RELATIONS)
def test_prefixes_compare_ranges_of_time(own: Span, holding: set[str]) -> None:
    assert {p for p in values.PREFIXES if relates(p, ASKED, own)} == holding


NUMBERS = {
    "100": ("99.5", "100.5"),
    "100.00": ("99.995", "100.005"),
    "1e2": ("95", "105"),
    "5.40e-3": ("0.005395", "0.005405"),
    "-5.4": ("-5.45", "-5.35"),
    "0": ("-0.5", "0.5"),
    "ap10": ("9", "11"),
    "ap10000": ("9000", "11000"),
}


@pytest.mark.parametrize(("text", "ends"), NUMBERS.items())
def test_a_number_stands_for_the_range_of_its_precision(text: str, ends: tuple[str, str]) -> None:
    found = values.measured(text, "value-quantity")
    assert (found.low, found.high) == tuple(map(Decimal, ends))


@pytest.mark.parametrize(
    "text",
    ["", "x", "1,5", "0x10", "1e999999", "1e-9999", "NaN", "Infinity", "٣", "1_000", "9" * 65, "gt", "--1"],
)
def test_what_is_no_number_is_refused_by_the_name_of_the_parameter(text: str) -> None:
    with pytest.raises(Invalid, match="value-quantity"):
        values.measured(text, "value-quantity")


TOKENS = {
    "final": Token(None, "final"),
    "http://loinc.org|718-7": Token("http://loinc.org", "718-7"),
    "|718-7": Token("", "718-7"),
    "http://loinc.org|": Token("http://loinc.org", ""),
    r"a\|b": Token(None, "a|b"),
    r"a\|b|c\,d": Token("a|b", "c,d"),
    r"a|b\\": Token("a", "b\\"),
    "a|b|c": Token("a", "b|c"),
}


@pytest.mark.parametrize(("text", "token"), TOKENS.items())
def test_a_token_has_a_system_and_a_code(text: str, token: Token) -> None:
    assert values.token(text) == token


def escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\,|$" else c for c in text)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=5))
def test_escaped_values_come_back_from_between_commas(texts: list[str]) -> None:
    joined = ",".join(map(escaped, texts))
    assert [values.unescape(v) for v in values.alternatives(joined, "name")] == texts


@given(st.text(), st.text(min_size=1))
def test_escaped_tokens_come_back(system: str, code: str) -> None:
    assert values.token(f"{escaped(system)}|{escaped(code)}") == Token(system, code)


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_escaped_parts_come_back_from_between_dollars(texts: list[str]) -> None:
    parts = values.split("$".join(map(escaped, texts)), "$")
    assert [values.unescape(p) for p in parts] == texts


@given(st.text())
def test_any_text_is_read_as_something(text: str) -> None:
    values.token(text)
    values.split(text, "|")
    assert all(values.alternatives(text, "name"))


def test_a_thousand_values_are_taken_and_no_more() -> None:
    assert len(values.alternatives(",".join("a" * 1000), "code")) == 1000
    with pytest.raises(Invalid, match="code"):
        values.alternatives(",".join("a" * 1001), "code")


FOLDED = {
    "Müller": "muller",
    "MÜLLER": "mu\u0308ller",
    "Straße": "STRASSE",
    "Åse": "ase",
    "Ὀδυσσεύς": "οδυσσευσ",
    "ﬁ": "FI",
}


@pytest.mark.parametrize(("one", "other"), FOLDED.items())
def test_text_is_compared_without_case_and_accents(one: str, other: str) -> None:
    assert values.fold(one) == values.fold(other)


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert values.fold(values.fold(text)) == values.fold(text)
