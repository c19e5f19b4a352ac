"""Codes that FHIR binds with strength `required`, for every type that a Patient, an Observation or a Bundle reaches.

Facts: https://hl7.org/fhir/R4/terminologies.html#required. The R4B models do not check any of these.

Rule: open-ended sets (languages, MIME types, currencies, names of types) are not listed.
"""

from __future__ import annotations


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GENDER = _codes("male female other unknown")
_COMPARATOR = _codes("< <= >= >")
_UNITS_OF_TIME = _codes("s min h d wk mo a")

REQUIRED: dict[tuple[str, str], frozenset[str]] = {
    ("Address", "use"): _codes("home work temp old billing"),
    ("Address", "type"): _codes("postal physical both"),
    ("Age", "comparator"): _COMPARATOR,
    ("Bundle", "type"): _codes(
        "document message transaction transaction-response batch batch-response history searchset collection"
    ),
    ("BundleEntryRequest", "method"): _codes("GET HEAD POST PUT DELETE PATCH"),
    ("BundleEntrySearch", "mode"): _codes("match include outcome"),
    ("ContactPoint", "system"): _codes("phone fax email pager url sms other"),
    ("ContactPoint", "use"): _codes("home work temp old mobile"),
    ("Contributor", "type"): _codes("author editor reviewer endorser"),
    ("Count", "comparator"): _COMPARATOR,
    ("DataRequirementSort", "direction"): _codes("ascending descending"),
    ("Distance", "comparator"): _COMPARATOR,
    ("Duration", "comparator"): _COMPARATOR,
    ("HumanName", "use"): _codes("usual official temp nickname anonymous old maiden"),
    ("Identifier", "use"): _codes("usual official temp secondary old"),
    ("Narrative", "status"): _codes("generated extensions additional empty"),
    ("Observation", "status"): _codes(
        "registered preliminary final amended corrected cancelled entered-in-error unknown"
    ),
    ("ParameterDefinition", "use"): _codes("in out"),
    ("Patient", "gender"): _GENDER,
    ("PatientContact", "gender"): _GENDER,
    ("PatientLink", "type"): _codes("replaced-by replaces refer seealso"),
    ("Person", "gender"): _GENDER,
    ("Practitioner", "gender"): _GENDER,
    ("Quantity", "comparator"): _COMPARATOR,
    ("RelatedArtifact", "type"): _codes(
        "documentation justification citation predecessor successor derived-from depends-on composed-of"
    ),
    ("RelatedPerson", "gender"): _GENDER,
    ("TimingRepeat", "dayOfWeek"): _codes("mon tue wed thu fri sat sun"),
    ("TimingRepeat", "durationUnit"): _UNITS_OF_TIME,
    ("TimingRepeat", "periodUnit"): _UNITS_OF_TIME,
    ("TimingRepeat", "when"): _codes(
        "MORN MORN.early MORN.late NOON AFT AFT.early AFT.late EVE EVE.early EVE.late NIGHT PHS HS WAKE "
        "C CM CD CV AC ACM ACD ACV PC PCM PCD PCV"
    ),
    ("TriggerDefinition", "type"): _codes(
        "named-event periodic data-changed data-added data-modified data-removed data-accessed "
        "data-access-ended"
    ),
}
