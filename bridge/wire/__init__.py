"""FHIR JSON in and out: what is refused, what is let through with a warning, and how an answer is written.

Facts: https://hl7.org/fhir/R4/json.html, https://hl7.org/fhir/R4/datatypes.html.

Strategy: the document as received is the carrier and never leaves our hands; the R4B model of fhir.resources
is the gate that it has to pass. `shapes` reads tables off the models once, `walk` goes over a document along
them and sees what the models let through. Only this package knows fhir.resources.
"""

from bridge.wire.entries import Entry, check_bundle_envelope
from bridge.wire.gate import ADDITIONAL_VALUE, check, warm_up
from bridge.wire.media import FHIR_JSON, JSON, check_accept, check_content_type, check_form_type
from bridge.wire.packed import Packed, compact, parse_bundle, unpacked
from bridge.wire.shapes import summary_elements
from bridge.wire.text import MAX_DEPTH, deeper_than, dump, dump_bundle, dump_pretty, loads, number, parse

__all__ = [
    "ADDITIONAL_VALUE",
    "FHIR_JSON",
    "JSON",
    "MAX_DEPTH",
    "Entry",
    "Packed",
    "check",
    "check_accept",
    "check_bundle_envelope",
    "check_content_type",
    "check_form_type",
    "compact",
    "deeper_than",
    "dump",
    "dump_bundle",
    "dump_pretty",
    "loads",
    "number",
    "parse",
    "parse_bundle",
    "summary_elements",
    "unpacked",
    "warm_up",
]
