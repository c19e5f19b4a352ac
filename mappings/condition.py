"""FHIR Condition and iCure HealthElement.

Facts: https://hl7.org/fhir/R4/condition.html. A HealthElement keeps codes, tags, dates, identifiers and who is
responsible in clear; its description and notes are encrypted. Of its dates iCure uses either `valueDate` alone, or
`openingDate` and `closingDate`.

The bridge adds `patientId` to a HealthElement it reads, and takes it off what it writes: the patient is a matter of the
delegations. It is no property of iCure's.
"""

from __future__ import annotations

from mappings.codecs import each, from_fuzzy, text, to_fuzzy
from mappings.datatypes import IDENTIFIER, Codings, reference, referenced
from mappings.engine import Context, Mapping, row
from mappings.observation import ABSENT, PARTIES, Note
from mappings.patient import NotesSlot
from mappings.search import date, quantity, refers, string, token
from mappings.tags import Concept, Grouped, TypeTag, about, is_type
from mappings.values import Entity, Json

CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
VERIFICATION = "http://terminology.hl7.org/CodeSystem/condition-ver-status"

_is_category = about("category")


def _is_clinical(tag: Entity) -> bool:
    return _is_of(tag, "clinicalStatus", CLINICAL)


def _is_verification(tag: Entity) -> bool:
    return _is_of(tag, "verificationStatus", VERIFICATION)


def _is_of(tag: Entity, element: str, system: str) -> bool:
    """Whether a tag is about an element: it says so, or says nothing of that and is of the element's system."""
    return tag.get("context") == element or (not tag.get("context") and tag.get("type") == system)


def _is_other(tag: Entity) -> bool:
    return not (_is_clinical(tag) or _is_verification(tag) or _is_category(tag) or is_type(tag))


def _is_code(stub: Entity) -> bool:
    return stub.get("context") in (None, "code")


class Code:
    """`code` as codes and description. The description is encrypted: it is the text, else the first display."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns codes and description."""
        old, concept = onto or {}, value or {}
        codes = old.get("codes") or ()
        codings = [c for c in concept.get("coding") or () if isinstance(c, dict)]
        mine = Codings("code").to_icure(codings, [c for c in codes if _is_code(c)], context) or []
        words = [concept.get("text"), *(c.get("display") for c in codings)]
        mute = old.get("descr") if text.said(old.get("descr")) is None else None
        return {
            "codes": [c for c in codes if not _is_code(c)] + mine or None,
            "descr": next((w for w in words if isinstance(w, str)), mute),
        }

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns codings and text."""
        codings = Codings().to_fhir([c for c in value.get("codes") or () if _is_code(c)], context)
        descr = text.said(value.get("descr"))
        return {**({"coding": codings} if codings else {}), **({"text": descr} if descr else {})} or None


class Subject:
    """`subject` as the patient that a HealthElement belongs to."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the patient's id when iCure holds the patient."""
        return referenced(value, ("Patient",), context)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the reference; FHIR wants a subject, so one that is not known says that."""
        return reference("Patient", value) or {"extension": [{"url": ABSENT, "valueCode": "unknown"}]}


class Onset:
    """`onset[x]` as the date when it opened, or as the only date where iCure has no other."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the dates; what says nothing in FHIR stays."""
        said = {name: at for name, at in (onto or {}).items() if from_fuzzy(at, context)}
        period = value.get("onsetPeriod") or {}
        start = to_fuzzy(value.get("onsetDateTime") or period.get("start"))
        if start is None:
            return {name: at for name, at in (onto or {}).items() if name not in said}
        name = "valueDate" if said.keys() == {"valueDate"} else "openingDate"
        return {**(onto or {}), name: start}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a dateTime."""
        dates = (from_fuzzy(value.get(name), context) for name in ("openingDate", "valueDate"))
        said = next((d for d in dates if d), None)
        return {"onsetDateTime": said} if said else None


class Abatement:
    """`abatement[x]` as the date when it closed."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the date; one that says nothing in FHIR stays."""
        period = value.get("abatementPeriod") or {}
        end = to_fuzzy(value.get("abatementDateTime") or period.get("end") or period.get("start"))
        if end is None and from_fuzzy(onto, context) is None:
            return onto
        return end

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns a dateTime."""
        said = from_fuzzy(value, context)
        return {"abatementDateTime": said} if said else None


class Recorder:
    """The one who is responsible: the recorder when iCure holds it, else the caller."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the data owner's id."""
        return referenced(value, tuple(PARTIES), context) or context.caller

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the one who is responsible as a Practitioner."""
        return reference("Practitioner", value)


_ONSET = "onsetDateTime onsetPeriod onsetAge onsetRange onsetString"
_ABATEMENT = "abatementDateTime abatementPeriod abatementAge abatementRange abatementString"
_PERSONS = "Practitioner PractitionerRole Patient RelatedPerson"

SEARCH = (
    token("identifier", "identifier", "identifier"),
    token("clinical-status", "clinicalStatus", "tags"),
    token("verification-status", "verificationStatus", "tags"),
    token("category", "category", "tags"),
    token("code", "code", "codes", documentation="Without a system: among one patient's, or few."),
    token("severity", "severity"),
    token("body-site", "bodySite"),
    refers("subject", "subject", "Patient Group", "patient"),
    refers("patient", "subject", "Patient", "patient"),
    refers("encounter", "encounter", "Encounter"),
    date("onset-date", "onsetDateTime onsetPeriod"),
    quantity("onset-age", "onsetAge"),
    string("onset-info", "onsetString"),
    date("abatement-date", "abatementDateTime abatementPeriod"),
    quantity("abatement-age", "abatementAge"),
    string("abatement-string", "abatementString"),
    date("recorded-date", "recordedDate"),
    refers("asserter", "asserter", _PERSONS),
    token("evidence", "evidence.code"),
    refers("evidence-detail", "evidence.detail"),
    token("stage", "stage.summary"),
)

CONDITION = Mapping(
    "Condition",
    "HealthElement",
    (
        row("identifier", "identifiers", each(IDENTIFIER)),
        row("clinicalStatus", "tags", Concept("clinicalStatus"), where=_is_clinical),
        row("verificationStatus", "tags", Concept("verificationStatus"), where=_is_verification),
        row("category", "tags", Grouped("category"), where=_is_category),
        row("meta.tag", "tags", Codings(writes=_is_other), where=_is_other),
        row("", "tags", TypeTag("CONDITION"), where=is_type),
        row("code", "codes descr", Code()),
        row("subject", "patientId", Subject()),
        row(_ONSET, "openingDate valueDate", Onset()),
        row(_ABATEMENT, "closingDate", Abatement()),
        row("recorder", "responsible", Recorder()),
        row("note", "notes", each(Note())),
    ),
    NotesSlot(),
    SEARCH,
)
