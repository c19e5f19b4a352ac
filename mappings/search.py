"""Search parameters as data: what each looks at in FHIR, and what in iCure narrows it.

Facts: https://hl7.org/fhir/R4/search.html and https://hl7.org/fhir/R4/searchparameter-registry.html.

Strategy: a resource type lists its parameters in its own mapping module; `bridge.search` interprets them. A path is
made of element names with dots between, runs through lists, and may pick members: `telecom[system=phone]`. Several
paths are separated by blanks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mappings.values import Json, Resource

EXACT, SUPERSET, NARROWER, SCAN = "exact", "superset", "narrower", "scan"
"""How what iCure finds stands to what FHIR asks for; where it is no exact answer, each candidate is tested."""

Reader = Callable[[Resource], Iterable[Json]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter: its FHIR type, the elements it looks at, and the iCure property that narrows it."""

    name: str
    type: str
    """FHIR's type of parameter: token, string, date, reference, quantity, number, uri, composite."""
    paths: tuple[str, ...] = ()
    icure: str = ""
    """What iCure finds by; empty when it has nothing, or only in encrypted form."""
    fit: str = SCAN
    system: str = ""
    """The code system of a plain code."""
    targets: tuple[str, ...] = ()
    """The resource types that a reference may name; none: any."""
    parts: tuple[Parameter, ...] = ()
    """The parameters that a composite joins, with paths relative to its own."""
    read: Reader | None = None
    """Reads the values where a path cannot say it."""
    documentation: str = ""


def token(name: str, paths: str, icure: str = "", *, system: str = "", documentation: str = "") -> Parameter:
    """Returns a parameter for codes, identifiers and flags."""
    return Parameter(
        name, "token", _split(paths), icure, _fit(icure), system=system, documentation=documentation
    )


def computed(name: str, read: Reader, *, documentation: str = "") -> Parameter:
    """Returns a token parameter whose values are computed from the resource."""
    return Parameter(name, "token", read=read, documentation=documentation)


def string(name: str, paths: str, icure: str = "", *, fit: str = "", documentation: str = "") -> Parameter:
    """Returns a parameter for text."""
    return Parameter(name, "string", _split(paths), icure, fit or _fit(icure), documentation=documentation)


def date(name: str, paths: str, icure: str = "", *, documentation: str = "") -> Parameter:
    """Returns a parameter for dates and periods."""
    return Parameter(name, "date", _split(paths), icure, _fit(icure), documentation=documentation)


def refers(
    name: str, paths: str, targets: str = "", icure: str = "", *, fit: str = "", documentation: str = ""
) -> Parameter:
    """Returns a parameter for references to some resource types."""
    return Parameter(
        name,
        "reference",
        _split(paths),
        icure,
        fit or _fit(icure),
        targets=_split(targets),
        documentation=documentation,
    )


def quantity(name: str, paths: str, *, documentation: str = "") -> Parameter:
    """Returns a parameter for numbers with a unit."""
    return Parameter(name, "quantity", _split(paths), documentation=documentation)


def uri(name: str, paths: str, *, documentation: str = "") -> Parameter:
    """Returns a parameter for URIs."""
    return Parameter(name, "uri", _split(paths), documentation=documentation)


def composite(name: str, bases: tuple[str, ...], *parts: Parameter, icure: str = "") -> Parameter:
    """Returns a parameter whose parts have to hold for one and the same element among `bases` ("": the resource)."""
    return Parameter(name, "composite", bases, icure, _fit(icure), parts=parts)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _fit(icure: str) -> str:
    return SUPERSET if icure else SCAN


COMMON = (
    Parameter(
        "_id", "token", icure="id", fit=EXACT, documentation="The server's id, or the id a client sent."
    ),
    date("_lastUpdated", "meta.lastUpdated", documentation="iCure has it encrypted, or not in its index."),
    token("_tag", "meta.tag", "tags"),
    token("_security", "meta.security"),
    uri("_profile", "meta.profile"),
    uri("_source", "meta.source"),
)
"""What every resource type has; a type's own parameter of the same name takes its place."""
