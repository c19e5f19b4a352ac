"""Media types: JSON is taken and given, everything else is refused in words.

Facts: https://hl7.org/fhir/R4/http.html#mime-type, https://hl7.org/fhir/R4/http.html#parameters (`_format`).
"""

from __future__ import annotations

from bridge.errors import NotAcceptable, UnsupportedMediaType

FHIR_JSON = "application/fhir+json"
JSON = "application/json"

_TYPES = {FHIR_JSON: FHIR_JSON, JSON: JSON, "text/json": JSON}
_ANY = {"*/*": FHIR_JSON, "application/*": FHIR_JSON}
_FORMATS = {"json": FHIR_JSON, **_TYPES}
_WORDS = f"This server speaks JSON only ({FHIR_JSON}, FHIR version 4.0), no XML."


def check_content_type(header: str | None) -> None:
    """Raises `UnsupportedMediaType` unless the body is FHIR JSON in UTF-8, or of a type that is not told."""
    if header is None or not header.strip():
        return
    name, parameters = _parsed(header)
    if name not in _TYPES:
        raise UnsupportedMediaType(_WORDS)
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("JSON is sent in UTF-8.")
    if not _is_r4(parameters):
        raise UnsupportedMediaType("This server speaks FHIR version 4.0 only.")


def check_form_type(header: str | None) -> None:
    """Raises `UnsupportedMediaType` unless a search by POST is a form. https://hl7.org/fhir/R4/http.html#search"""
    name, parameters = _parsed(header or "")
    if name != "application/x-www-form-urlencoded":
        raise UnsupportedMediaType("A search by POST is sent as application/x-www-form-urlencoded.")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("A form is sent in UTF-8.")


def check_accept(header: str | None, format_parameter: str | None = None) -> str:
    """Returns the media type to answer with; `_format` goes before the header.

    A blank in `_format` is read as the `+` that it was in the URL. Raises `NotAcceptable`.
    """
    if format_parameter is not None:
        name, parameters = _parsed(format_parameter)
        wanted = _FORMATS.get(name.replace(" ", "+")) if _is_r4(parameters) else None
        if wanted is None:
            raise NotAcceptable(_WORDS)
        return wanted
    if header is None or not header.strip():
        return FHIR_JSON
    best, best_weight = None, 0.0
    for part in header.split(","):
        name, parameters = _parsed(part)
        wanted = _TYPES.get(name) or _ANY.get(name)
        weight = _weight(parameters.get("q", "1"))
        if wanted is not None and _is_r4(parameters) and weight > best_weight:
            best, best_weight = wanted, weight
    if best is None:
        raise NotAcceptable(_WORDS)
    return best


def _parsed(text: str) -> tuple[str, dict[str, str]]:
    name, *rest = text.split(";")
    parameters = (part.partition("=") for part in rest)
    return name.strip().lower(), {key.strip().lower(): value.strip(' "') for key, _, value in parameters}


def _is_r4(parameters: dict[str, str]) -> bool:
    return parameters.get("fhirversion", "4.0") in ("4.0", "4.0.1")


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
