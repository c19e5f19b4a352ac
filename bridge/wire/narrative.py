"""The `div` of a narrative: XHTML that a browser may show without running anything.

Facts: https://hl7.org/fhir/R4/narrative.html#xhtml (invariants txt-1 and txt-2).
"""

from __future__ import annotations

import re
from xml.parsers import expat

_NAMES = """
    a abbr acronym address area b bdo big blockquote br caption cite code col colgroup dd dfn div dl dt em
    h1 h2 h3 h4 h5 h6 hr i img kbd li map ol p pre q samp small span strong sub sup table tbody td tfoot th
    thead tr tt ul var
"""
ELEMENTS = frozenset(_NAMES.split())
"""Chapters 7 to 11 and 15 of HTML 4.0 without what is deprecated, links and images."""

_NAMESPACE = "http://www.w3.org/1999/xhtml"
_NOT_A_DIV = f'A narrative is one <div xmlns="{_NAMESPACE}">.'
_RUNS = re.compile(r"\s*(?:javascript|vbscript|data:text)", re.IGNORECASE)
_FETCHES = re.compile(r"expression\s*\(|javascript:|@import|behavior\s*:|-moz-binding", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x20]")


class _Forbidden(Exception):
    pass


class _Reader:
    """Told of each start tag by the parser; raises at the first that a narrative cannot have."""

    __slots__ = ("content", "depth")

    def __init__(self) -> None:
        self.content = False
        self.depth = 0

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if self.depth == 0:
            self.depth = 1
            if name != "div" or attributes.get("xmlns") != _NAMESPACE:
                raise _Forbidden(_NOT_A_DIV)
        if name not in ELEMENTS:
            raise _Forbidden("A narrative cannot hold this element (script, form, head, …).")
        if name == "img":
            self.content = True
        if attributes:
            self.attributes(attributes)

    def attributes(self, attributes: dict[str, str]) -> None:
        for name, value in attributes.items():
            lowered = name.lower()
            if lowered.startswith("on"):
                raise _Forbidden("A narrative cannot hold an event handler.")
            if lowered in ("href", "src") and _RUNS.match(_CONTROL.sub("", value)):
                raise _Forbidden("A narrative cannot hold a link that runs something.")
            if lowered == "style" and _FETCHES.search(value):
                raise _Forbidden("A narrative cannot hold a style that runs something.")
            if lowered.startswith("xmlns") and value != _NAMESPACE:
                raise _Forbidden("A narrative cannot hold another namespace than XHTML.")

    def text(self, text: str) -> None:
        if not text.isspace():
            self.content = True


def narrative_flaw(div: str) -> str | None:
    """Returns what is wrong with the `div` of a narrative, or nothing."""
    if not div.lstrip().startswith("<div"):
        return _NOT_A_DIV
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.CharacterDataHandler = reader.text
    try:
        parser.Parse(div, True)
    except expat.ExpatError as e:
        return f"Not well-formed XHTML: {expat.ErrorString(e.code)}, line {e.lineno} column {e.offset + 1}."
    except _Forbidden as e:
        return str(e)
    return None if reader.content else "A narrative must have some content."
