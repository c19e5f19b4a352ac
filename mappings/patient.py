"""FHIR Patient and iCure Patient.

Facts: https://hl7.org/fhir/R4/patient.html; iCure's Patient keeps names, birth and death dates, gender, identifiers,
addresses and telecoms in clear, and encrypts languages, personal status, partnerships, care team and picture. iCure
searches `firstName` and `lastName` only, which are copies of one of `names`; telecoms stand inside addresses.
"""

from __future__ import annotations

from binascii import a2b_base64
from typing import Any

from mappings.codecs import Flag, Function, code, each, flag, fuzzy_date, record, table, text
from mappings.datatypes import IDENTIFIER, Codings, Flattened, reference, referenced
from mappings.engine import WITNESS, Context, Mapping, row, said_over
from mappings.residue import align
from mappings.search import NARROWER, computed, date, refers, string, token
from mappings.values import Entity, Json, Resource

MARITAL_STATUS = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
RELATIONSHIP = "http://terminology.hl7.org/CodeSystem/v2-0131"
ROLE = "http://terminology.hl7.org/CodeSystem/v3-RoleCode"
LANGUAGE = "urn:ietf:bcp:47"

GENDER = table(
    {"male": "male", "female": "female", "other": "indeterminate", "unknown": "unknown"},
    also={"changed": "other", "changedToMale": "male", "changedToFemale": "female"},
    default="unknown",
    required="Patient.gender",
)


# names

NAME = Flattened(
    record(
        use=table({u: u for u in ("usual", "official", "temp", "nickname", "anonymous", "maiden", "old")}),
        text=text,
        family__lastName=text,
        given__firstNames=each(text),
        prefix=each(text),
        suffix=each(text),
        start=fuzzy_date,
        end=fuzzy_date,
    ),
    "period",
    ("start", "end"),
)


NAMES = each(NAME)


class Names:
    """`name` as `names`, and the official (else usual, else first) one as `firstName` and `lastName` too.

    An iCure client may edit either copy. Which one it was shows by the witness: the one that is no longer as it was.
    """

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns names, firstName and lastName; a patient without name has an empty lastName: iCure wants one."""
        names = NAMES.to_icure(value, (onto or {}).get("names"), context)
        chosen = _chosen(value) if value else None
        first, last = _copies(chosen or {})
        return {"names": names, "firstName": first, "lastName": last or ("" if not first else None)}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the names, with whichever copy was edited."""
        names: list[Resource] = NAMES.to_fhir(value.get("names"), context) or []
        stored = _stored(value)
        if not names:
            first, last = stored
            given = {"given": first.split()} if first else {}
            return [{**({"family": last} if last else {}), **given}] if first or last else None
        chosen = _chosen(names)
        if stored == (None, None) or stored == _copies(chosen):
            return names
        if WITNESS in value and stored == _stored(value[WITNESS]):
            return names
        return [_edited(name, *stored) if name is chosen else name for name in names]


def _chosen(names: list[Resource]) -> Resource:
    for use in ("official", "usual"):
        for name in names:
            if name.get("use") == use:
                return name
    return names[0]


def _stored(entity: Entity) -> tuple[str | None, str | None]:
    return text.said(entity.get("firstName")), text.said(entity.get("lastName"))


def _copies(name: Resource) -> tuple[str | None, str | None]:
    """Returns firstName and lastName of a name."""
    given = " ".join(g for g in name.get("given") or () if isinstance(g, str))
    family = name.get("family") or (None if given else name.get("text"))
    return given or None, family or None


def _edited(name: Resource, first: str | None, last: str | None) -> Resource:
    was_first, was_last = _copies(name)
    edited = dict(name)
    if first != was_first:
        edited.pop("given", None)
        if first:
            edited["given"] = first.split()
    if last != was_last:
        edited.pop("family", None)
        if last:
            edited["family"] = last
    return edited


# death


class Deceased:
    """`deceased[x]` as a flag and a date."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns deceased and dateOfDeath."""
        if "deceasedDateTime" in value:
            return {
                "deceased": True,
                "dateOfDeath": fuzzy_date.to_icure(value["deceasedDateTime"], None, context),
            }
        return {"deceased": flag.to_icure(value.get("deceasedBoolean"), None, context)}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the date when there is one, unless iCure says that the patient lives."""
        died = fuzzy_date.to_fhir(value.get("dateOfDeath"), context)
        deceased = value.get("deceased")
        if died and deceased is not False:
            return {"deceasedDateTime": died}
        return {"deceasedBoolean": deceased} if isinstance(deceased, bool) else None


# addresses and telecoms

ADDRESS_USE = {"home": "home", "work": "work", "temp": "temporary", "old": "other", "billing": "other"}
_KIND = {"home": "home", "work": "work", "temp": "temporary"}
"""The address that a telecom of a use stands in."""
USE_OF_ADDRESS = {"home": "home", "work": "work", "temporary": "temp"}
TELECOM_SYSTEM = {
    "phone": "phone",
    "sms": "mobile",
    "fax": "fax",
    "email": "email",
    "pager": "pager",
    "url": "web",
    "other": "other",
}
SYSTEM_OF_TELECOM = {
    "phone": "phone",
    "mobile": "phone",
    "fax": "fax",
    "email": "email",
    "pager": "pager",
    "web": "url",
}
_PLACE = record(city=text, state=text, postalCode=text, country=text)
_STREET = ("street", "houseNumber", "postboxNumber")


class Address:
    """An address without its telecoms. Its lines are one street in iCure."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the address, None when nothing of it can be said but its use."""
        old: Entity = onto or {}
        said: Entity = _PLACE.to_icure(value, old, context) or {
            n: v for n, v in old.items() if n not in ("city", "state", "postalCode", "country")
        }
        lines = [line for line in value.get("line") or () if isinstance(line, str)]
        if lines != _lines(old):
            said = {n: v for n, v in said.items() if n not in _STREET}
            if lines:
                said["street"] = ", ".join(lines)
        if not any(said.get(n) for n in (*_STREET, "city", "state", "postalCode", "country")):
            return None
        if _use(old) == {n: value[n] for n in ("use", "type") if n in value}:
            return said
        said.pop("addressType", None)
        use = value.get("use")
        kind = ADDRESS_USE.get(use) if use else "postal" if value.get("type") == "postal" else None
        return {"addressType": kind, **said} if kind else said

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the address, None when there is nothing but telecoms."""
        said: Resource = _PLACE.to_fhir(value, context) or {}
        if lines := _lines(value):
            said["line"] = lines
        return {**_use(value), **said} if said else None


def _use(address: Entity) -> Resource:
    kind = address.get("addressType")
    if kind == "postal":
        return {"type": "postal"}
    return {"use": USE_OF_ADDRESS[kind]} if kind in USE_OF_ADDRESS else {}


def _lines(address: Entity) -> list[str]:
    street = " ".join(p for n in ("street", "houseNumber") if (p := text.said(address.get(n))))
    postbox = text.said(address.get("postboxNumber"))
    line = f"{street} / {postbox}" if street and postbox else street or postbox
    return [line] if line else []


class Telecom:
    """A telecom; its use is that of the address that it stands in."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns type and number."""
        system, use, number = value.get("system"), value.get("use"), value.get("value")
        kind = "mobile" if system == "phone" and use == "mobile" else TELECOM_SYSTEM.get(system)
        said = {n: v for n, v in (("telecomType", kind), ("telecomNumber", number)) if isinstance(v, str)}
        old: Entity = onto or {}
        return {**{n: v for n, v in old.items() if not n.startswith("telecomT")}, **said} if said else None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns system and value, and `mobile` as use."""
        kind, number = value.get("telecomType"), text.said(value.get("telecomNumber"))
        said: Resource = {}
        if kind or number:
            said["system"] = SYSTEM_OF_TELECOM.get(kind, "other")
        if number:
            said["value"] = number
        if kind == "mobile":
            said["use"] = "mobile"
        return said or None


ADDRESS, TELECOM = Address(), Telecom()
ADDRESSES = each(ADDRESS)


class Addresses:
    """`address` and `telecom` as addresses with telecoms in them."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the addresses; a new telecom goes to the first of its use, else to one made for it."""
        old = list(onto or ())
        places, homes = _places(value.get("address") or [], old, context)
        had = [
            (j, t, _said_telecom(t, a, context)) for j, a in enumerate(old) for t in a.get("telecoms") or ()
        ]
        wanted = value.get("telecom") or []
        pairs = align(wanted, [natural for _, _, natural in had], partial=True)
        for i, telecom in enumerate(wanted):
            j, under, natural = had[pairs[i]] if i in pairs else (-1, None, None)
            one = under if natural == telecom else said_over(TELECOM, telecom, under, context)
            if one is None:
                continue
            home = homes.get(j) if natural and natural.get("use") == telecom.get("use") else None
            (home or _of_type(places, _KIND.get(telecom.get("use")))).setdefault("telecoms", []).append(one)
        for j, telecom, natural in had:
            if natural is None and j in homes:
                homes[j].setdefault("telecoms", []).append(telecom)
        return [a for a in places if a.keys() - {"addressType"}] or None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns addresses and telecoms."""
        addresses = ADDRESSES.to_fhir(value, context)
        telecoms = [_said_telecom(t, a, context) for a in value or () for t in a.get("telecoms") or ()]
        telecoms = [t for t in telecoms if t]
        return {
            **({"address": addresses} if addresses else {}),
            **({"telecom": telecoms} if telecoms else {}),
        } or None


def _said_telecom(telecom: Entity, address: Entity, context: Context) -> Resource | None:
    said = TELECOM.to_fhir(telecom, context)
    use = USE_OF_ADDRESS.get(address.get("addressType") or "")
    return {**({"use": use} if use else {}), **said} if said else None


def _places(
    wanted: list[Resource], old: list[Entity], context: Context
) -> tuple[list[Entity], dict[int, Entity]]:
    """Returns the addresses without their telecoms, and where each old one is among them.

    An old one that says nothing in FHIR stays: there may be telecoms in it.
    """
    bare = [{n: v for n, v in address.items() if n != "telecoms"} for address in old]
    naturals = [ADDRESS.to_fhir(address, context) for address in bare]
    pairs = align(wanted, naturals, partial=True)
    places: list[Entity] = []
    homes: dict[int, Entity] = {}
    for i, address in enumerate(wanted):
        said = said_over(ADDRESS, address, bare[pairs[i]] if i in pairs else None, context)
        if said is not None:
            places.append(dict(said))
            if i in pairs:
                homes[pairs[i]] = places[-1]
    for j, natural in enumerate(naturals):
        if natural is None:
            homes[j] = bare[j]
            places.append(bare[j])
    return places, homes


def _of_type(places: list[Entity], kind: str | None) -> Entity:
    """Returns the first address of a type; it is made where there is none."""
    for address in places:
        if address.get("addressType") == kind:
            return address
    places.append({"addressType": kind} if kind else {})
    return places[-1]


# status and language

_MARITAL = {
    "A": "annulled",
    "D": "divorced",
    "I": "divorcing",
    "L": "separated",
    "M": "married",
    "P": "polygamous",
    "S": "single",
    "T": "contract",
    "W": "widowed",
}
_MARITAL_BACK = {**{icure: fhir for fhir, icure in _MARITAL.items()}, "widower": "W"}


def _marital_to_icure(concept: Resource) -> str | None:
    for said in concept.get("coding") or ():
        if said.get("system") == MARITAL_STATUS and said.get("code") in _MARITAL:
            return _MARITAL[said["code"]]
    return None


def _marital_to_fhir(status: str) -> Resource | None:
    said = _MARITAL_BACK.get(status)
    if said:
        return {"coding": [{"system": MARITAL_STATUS, "code": said}]}
    return {"text": status.replace("_", " ")} if status in ("in_couple", "complicated", "other") else None


def _languages_to_icure(communications: list[Resource]) -> list[str] | None:
    found: list[str] = []
    for one in sorted(communications, key=lambda c: not c.get("preferred")):
        for said in (one.get("language") or {}).get("coding") or ():
            tag = said.get("code")
            if said.get("system") in (LANGUAGE, None) and isinstance(tag, str):
                found.append(tag.split("-")[0].lower())
                break
    return list(dict.fromkeys(found)) or None


def _languages_to_fhir(languages: list[str]) -> list[Resource] | None:
    return [
        {"language": {"coding": [{"system": LANGUAGE, "code": said}]}}
        for language in languages
        if (said := code.said(language))
    ] or None


# others: partnerships and care team

PARTNERSHIP = {
    (RELATIONSHIP, "E"): "employer",
    (RELATIONSHIP, "C"): "primary_contact",
    (RELATIONSHIP, "F"): "federal_agency",
    (RELATIONSHIP, "I"): "insurance_company",
    (RELATIONSHIP, "N"): "next_of_kin",
    (RELATIONSHIP, "S"): "state_agency",
    (RELATIONSHIP, "U"): "unknown",
    (RELATIONSHIP, "O"): "contact",
    (ROLE, "BRO"): "brother",
    (ROLE, "SIS"): "sister",
    (ROLE, "CHILD"): "child",
    (ROLE, "DAU"): "daughter",
    (ROLE, "SON"): "son",
    (ROLE, "FTH"): "father",
    (ROLE, "MTH"): "mother",
    (ROLE, "GRPRN"): "grandparent",
    (ROLE, "GRNDCHILD"): "grandchild",
    (ROLE, "HUSB"): "husband",
    (ROLE, "SPS"): "spouse",
    (ROLE, "NBOR"): "neighbour",
    (ROLE, "FRND"): "friend",
    (ROLE, "FAMMEMB"): "family",
}
_PARTNERSHIP_BACK = {icure: fhir for fhir, icure in PARTNERSHIP.items()}
_LINKS = ("seealso", "refer")


def is_link(partnership: Json) -> bool:
    """Whether a partnership is a link to another record of the same patient."""
    return partnership.get("type") in _LINKS and partnership.get("partnerType") in ("patient", None)


class Contact:
    """A contact person or organization: its relationship and, where iCure says that it is one, the organization.

    Facts: `partnerType`, which tells an organization from a patient, is unknown to iCure's SDKs before 1.1: they
    refuse a patient that has it. So it is read, and written only where it was.
    """

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the partnership, None when nothing of the contact can be said."""
        old: Entity = onto or {}
        codings = [c for r in value.get("relationship") or () for c in r.get("coding") or ()]
        kinds = [PARTNERSHIP.get((c.get("system"), c.get("code"))) for c in codings]
        kind = next((k for k in kinds if k), None)
        partner = referenced(value.get("organization"), ("Organization",), context)
        said: Entity = {"type": kind} if kind else {}
        replaced = {"type"}
        if old.get("partnerType") == "healthcareParty":
            replaced |= {"partnerId", "partnerType"}
            said |= {"partnerId": partner, "partnerType": "healthcareParty"} if partner else {}
        return {**{n: v for n, v in old.items() if n not in replaced}, **said} if said else None

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the contact; a partner that is no organization cannot be named in it."""
        said: Resource = {}
        kind = value.get("type")
        if kind in _PARTNERSHIP_BACK:
            system, code = _PARTNERSHIP_BACK[kind]
            said["relationship"] = [{"coding": [{"system": system, "code": code}]}]
        elif kind:
            said["relationship"] = [{"text": kind.replace("_", " ")}]
        partner = reference("Organization", value.get("partnerId"))
        if partner and value.get("partnerType") == "healthcareParty":
            said["organization"] = partner
        return said or None


class Link:
    """A link to another Patient as a partnership."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the partnership of a `seealso` or `refer` link to a patient that iCure holds."""
        partner = referenced(value.get("other"), ("Patient",), context)
        if partner is None or value.get("type") not in _LINKS:
            return None
        return {**(onto or {}), "type": value["type"], "partnerId": partner}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the link."""
        return _link(value.get("partnerId"), value["type"])


def _link(patient_id: Json, kind: str) -> Resource | None:
    other = reference("Patient", patient_id)
    return {"other": other, "type": kind} if other else None


class Links:
    """`link` as partnerships; what iCure merged is read, and never written: that is iCure's own act."""

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns partnerships with the links among them."""
        old = (onto or {}).get("partnerships") or ()
        links = each(Link()).to_icure(value, [p for p in old if is_link(p)], context) or []
        return {**(onto or {}), "partnerships": [p for p in old if not is_link(p)] + links or None}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the links, those of merges too."""
        said = [Link().to_fhir(p, context) for p in value.get("partnerships") or () if is_link(p)]
        said.append(_link(value.get("mergeToPatientId"), "replaced-by"))
        said += [_link(i, "replaces") for i in value.get("mergedIds") or ()]
        return [link for link in said if link] or None


class CareTeam:
    """References to healthcare parties as members of the patient's care team with one type."""

    def __init__(self, kind: str, resource_type: str) -> None:
        self._kind, self._resource_type = kind, resource_type

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the member for a party that iCure holds."""
        party = referenced(value, ("Practitioner", "Organization"), context)
        if party is None:
            return None
        return {**(onto or {}), "type": self._kind, "healthcarePartyId": party}

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the reference."""
        return reference(self._resource_type, value.get("healthcarePartyId"))


class First:
    """A single element as a list of at most one."""

    def __init__(self, codec: Any) -> None:
        self._codec = each(codec)

    def to_icure(self, value: Json, onto: Json, context: Context) -> Json:
        """Returns the list."""
        return self._codec.to_icure([value] if value is not None else None, onto, context)

    def to_fhir(self, value: Json, context: Context) -> Json:
        """Returns the first member."""
        return (self._codec.to_fhir(value, context) or [None])[0]


def _typed(kind: str) -> Any:
    return lambda member: member.get("type") == kind


# picture

_MAGIC = {"/9j/": "image/jpeg", "iVBOR": "image/png", "R0lGOD": "image/gif", "UklGR": "image/webp"}


def _picture_to_icure(photos: list[Resource]) -> str | None:
    for photo in photos:
        if isinstance(photo.get("data"), str):
            return "".join(photo["data"].split())
    return None


def _picture_to_fhir(picture: str) -> list[Resource] | None:
    kinds = (kind for magic, kind in _MAGIC.items() if picture.startswith(magic))
    try:
        a2b_base64(picture, strict_mode=True)
    except ValueError:
        return None
    return [{"contentType": next(kinds, "image/jpeg"), "data": picture}] if picture else None


PHOTO = Function(_picture_to_icure, _picture_to_fhir)
RESIDUE_ID = "f3c1a3b2-6f0e-5a52-9d1c-6b1c3a0d9e01"


class NotesSlot:
    """The residue as one Annotation in `notes`, whose text iCure's clients encrypt."""

    def put(self, entity: Entity, sealed: str | None) -> Entity:
        """Returns the entity with this sealed text as its only residue; without any when it is `None`."""
        bare, _ = self.take(entity)
        if sealed is None:
            return bare
        tag = {"id": "FHIR|residue|1", "type": "FHIR", "code": "residue", "version": "1"}
        note = {"id": RESIDUE_ID, "tags": [tag], "markdown": {"xx": sealed}}
        return {**bare, "notes": [*(bare.get("notes") or ()), note]}

    def take(self, entity: Entity) -> tuple[Entity, str | None]:
        """Returns the entity without its residue, and the sealed text if it carried one."""
        notes = entity.get("notes") or ()
        ours = [n for n in notes if any(_is_residue(t) for t in n.get("tags") or ())]
        if not ours:
            return entity, None
        rest = [n for n in notes if n not in ours]
        bare = {n: v for n, v in entity.items() if n != "notes"}
        return {**bare, "notes": rest} if rest else bare, next(
            iter((ours[0].get("markdown") or {}).values()), None
        )


def _is_residue(tag: Entity) -> bool:
    return tag.get("type") == "FHIR" and tag.get("code") == "residue"


_NAMES = "iCure finds by official (else usual, else first) given and family name; other parts only narrow."
_ADDRESSES = "iCure finds by line, city and postal code; other parts only narrow."


def _is_deceased(patient: Resource) -> list[Json]:
    return ["deceasedDateTime" in patient or patient.get("deceasedBoolean") is True]


SEARCH = (
    token("identifier", "identifier", "identifier"),
    string("name", "name", "name", fit=NARROWER, documentation=_NAMES),
    string("family", "name.family", "name", fit=NARROWER, documentation=_NAMES),
    string("given", "name.given", "name", fit=NARROWER, documentation=_NAMES),
    token("gender", "gender", "gender", system="http://hl7.org/fhir/administrative-gender"),
    date(
        "birthdate",
        "birthDate",
        "birth",
        documentation="Dates before the year 1000 are not in iCure's index.",
    ),
    date("death-date", "deceasedDateTime"),
    computed("deceased", _is_deceased),
    token("active", "active", "active"),
    string("address", "address", "address", fit=NARROWER, documentation=_ADDRESSES),
    string("address-city", "address.city", "address"),
    string("address-country", "address.country"),
    string("address-postalcode", "address.postalCode", "address"),
    string("address-state", "address.state"),
    token("address-use", "address.use", system="http://hl7.org/fhir/address-use"),
    token(
        "telecom",
        "telecom",
        "telecom",
        documentation="The system is that of the ContactPoint, e.g. phone|555.",
    ),
    token("phone", "telecom[system=phone]", "telecom"),
    token("email", "telecom[system=email]", "telecom"),
    token("language", "communication.language"),
    refers("general-practitioner", "generalPractitioner", "Practitioner Organization PractitionerRole"),
    refers("organization", "managingOrganization", "Organization"),
    refers("link", "link.other", "Patient RelatedPerson"),
)

PATIENT = Mapping(
    "Patient",
    "Patient",
    (
        row("identifier", "identifier", each(IDENTIFIER)),
        row("active", "active", Flag(default=True)),
        row("name", f"names firstName lastName {WITNESS}", Names(), witness="firstName lastName"),
        row("telecom address", "addresses", Addresses()),
        row("gender", "gender", GENDER),
        row("birthDate", "dateOfBirth", fuzzy_date),
        row("deceasedBoolean deceasedDateTime", "deceased dateOfDeath", Deceased()),
        row("maritalStatus", "personalStatus", Function(_marital_to_icure, _marital_to_fhir)),
        row("photo", "picture", PHOTO),
        row("contact", "partnerships", each(Contact()), where=lambda p: not is_link(p)),
        row("communication", "languages", Function(_languages_to_icure, _languages_to_fhir)),
        row(
            "generalPractitioner",
            "patientHealthCareParties",
            each(CareTeam("doctor", "Practitioner")),
            where=_typed("doctor"),
        ),
        row(
            "managingOrganization",
            "patientHealthCareParties",
            First(CareTeam("managingorganization", "Organization")),
            where=_typed("managingorganization"),
        ),
        row("link", "partnerships mergeToPatientId mergedIds", Links()),
        row("meta.tag", "tags", Codings()),
    ),
    NotesSlot(),
    SEARCH,
)
