"""The values that travel: FHIR JSON as received, iCure JSON, and numbers that keep their source text."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

Json = Any
"""Any JSON value: `dict`, `list`, `str`, `int`, `bool`, `Number`, `None` (and `float` on the iCure side)."""

Resource = dict[str, Any]
"""FHIR JSON of a resource or of an element, as received: its non-integer numbers are `Number`."""

Entity = dict[str, Any]
"""iCure JSON of an entity or of a part of one: its non-integer numbers are `float`."""


class Number(Decimal):
    """A JSON number that remembers its source text: `7.50`, `1.0e2`, `-0`.

    Two are equal when their texts are: to a laboratory 1.50 and 1.5 differ (FHIR decimal,
    https://hl7.org/fhir/R4/datatypes.html#decimal). Use `Decimal` arithmetic for anything else.
    """

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> Number:
        """Returns the number that `text` (a JSON number literal) says; raises `decimal.InvalidOperation`."""
        self = super().__new__(cls, text)
        self.text = text
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number) and self.text == other.text

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Number({self.text!r})"

    def __deepcopy__(self, memo: Any) -> Number:
        return self

    def __copy__(self) -> Number:
        return self

    def __reduce__(self) -> Any:
        return Number, (self.text,)
