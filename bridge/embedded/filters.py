"""From a filter to the ids it matches.

Facts: the filter classes of iCure's REST API, told apart by `$type`. A filter that names a data owner finds
what was delegated to it; the caller may name itself (its access control keys then count too) and its
ancestors, nobody else.

Strategy: one line per filter says what it finds, whose, and which rows of the index hold for it. Combining
filters is done on lists of ids, because their order is part of the answer.

Rule: values of a request reach SQL as parameters only, and have been read by the readers of `model`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.embedded.access import Caller
from bridge.embedded.errors import AccessDenied, BadRequest
from bridge.embedded.index import LARGEST, NO_OWNER, SEPARATOR, key, normalise, scaled, word_characters
from bridge.embedded.model import (
    GENDER,
    IDENTIFIER,
    MAX_INTEGER,
    Entity,
    Malformed,
    Reader,
    Shape,
    boolean,
    by_key,
    each,
    integer,
    read,
    strings,
    text,
)
from bridge.embedded.store import View

SHORTEST_NAME_SUFFIX = 3
MAX_DEPTH = 32


@dataclass(frozen=True, slots=True)
class Rows:
    """A condition on the index rows of one owner: SQL text of our own and its parameters."""

    field: str
    condition: str = "TRUE"
    parameters: tuple[Any, ...] = ()
    descending: bool = False

    def ids(self, view: View, owner: str | None) -> list[str]:
        """Returns the items for which the condition holds, of one owner or (None) of all."""
        direction = "DESC" if self.descending else "ASC"
        owned, owners = ("TRUE", ()) if owner is None else ("e.owner = ?", (owner,))
        return view.ids(
            f"e.field = ? AND {owned} AND {self.condition}",
            (self.field, *owners, *self.parameters),
            f"number {direction}, item {direction}",
        )


Search = Callable[[Entity], list[Rows]]
"""The rows of a filter, read from its members; several sets of rows are united."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter class: what it finds, which members it has, and the rows that answer it."""

    finds: str
    members: Shape
    search: Search
    owner: str | None = None
    """The member that names a data owner."""
    unowned: bool = False
    """Whether the index of what is found has no owners (users, healthcare parties)."""
    for_caller: bool = False
    """Whether the filter names no data owner and is answered for all that the caller can read."""


def _members(**readers: Reader) -> Shape:
    return Shape().reads(readers)


def equal(field: str, value: str) -> Rows:
    """Returns the rows with exactly this key."""
    return Rows(field, "e.key = ?", (value,))


def prefixed(field: str, prefix: str) -> Rows:
    """Returns the rows whose key starts so."""
    return Rows(field, "e.key >= ? AND e.key < ?", (prefix, prefix + LARGEST))


def coded(field: str, code_type: str, code: str | None) -> Rows:
    """Returns the rows of one code, or of all codes of a system."""
    return prefixed(field, key(code_type, "")) if code is None else equal(field, key(code_type, code))


def dated(rows: Rows, start: int | None, end: int | None, descending: bool = False) -> Rows:
    """Returns those of the rows that lie between two numbers, both included."""
    low = -MAX_INTEGER if start is None else start
    high = MAX_INTEGER if end is None else end
    return Rows(
        rows.field,
        f"{rows.condition} AND e.number BETWEEN ? AND ?",
        (*rows.parameters, *(min(max(bound, -MAX_INTEGER), MAX_INTEGER) for bound in (low, high))),
        descending,
    )


def also(rows: Rows, other: Rows) -> Rows:
    """Returns those of the rows whose item has one of the other rows too, under the same owner and number."""
    condition = other.condition.replace("e.", "other.")
    return Rows(
        rows.field,
        f"{rows.condition} AND EXISTS (SELECT 1 FROM entries AS other"  # noqa: S608
        f" WHERE other.field = ? AND other.owner = e.owner AND {condition}"
        " AND other.number = e.number AND other.item = e.item)",
        (*rows.parameters, other.field, *other.parameters),
        rows.descending,
    )


def _required(given: Entity, member: str) -> Any:
    if member not in given:
        raise BadRequest(f"the filter must have {member}")
    return given[member]


def _all(field: str) -> Search:
    return lambda given: [Rows(field)]


def _each_of(field: str, member: str, start: str = "", end: str = "") -> Search:
    """Rows with one of several keys, between two dates where the filter can name them."""

    def search(given: Entity) -> list[Rows]:
        low, high = _dates(given, start, end)
        if low is not None and high is not None and low > high:
            low, high = high, low  # SDK 1.2.0 sends them so
        descending = given.get("descending", False)
        values = given.get(member, [])
        return [dated(equal(field, value), low, high, descending) for value in dict.fromkeys(values)]

    return search


def _dates(given: Entity, start: str, end: str) -> tuple[int | None, int | None]:
    """Returns the bounds of a filter as 14 digits."""
    low = scaled(given[start]) if start in given else None
    high = scaled(given[end]) if end in given else None
    return low, high


def _identifiers(field: str) -> Search:
    def search(given: Entity) -> list[Rows]:
        return [
            equal(field, key(identifier.get("system"), identifier["value"]))
            if "value" in identifier
            else prefixed(field, key(identifier.get("system"), ""))
            for identifier in given.get("identifiers", [])
        ]

    return search


def _name(field: str, member: str) -> Search:
    """Names that contain the text: any of their suffixes of three letters and more starts with it."""

    def search(given: Entity) -> list[Rows]:
        wanted = normalise(_required(given, member))
        searched = f"substr(e.key, 1, length(e.key) - {SHORTEST_NAME_SUFFIX} + ?)"
        long_enough = f"length(e.key) >= {SHORTEST_NAME_SUFFIX}"
        return [Rows(field, f"{long_enough} AND instr({searched}, ?) > 0", (len(wanted), wanted))]

    return search


def _starts_with(field: str, member: str, normal: Callable[[str], str] = str) -> Search:
    return lambda given: [prefixed(field, normal(_required(given, member)))]


def _number_equal(field: str, member: str) -> Search:
    return lambda given: [dated(Rows(field), _required(given, member), _required(given, member))]


def _number_between(field: str, low: str, high: str) -> Search:
    return lambda given: [dated(Rows(field), given.get(low), given.get(high), given.get("descending", False))]


def _gender(given: Entity) -> list[Rows]:
    parts = [_required(given, "gender")]
    for member in ("education", "profession"):
        if member not in given:
            return [prefixed("patient.gender", key(*parts, ""))]
        parts.append(given[member])
    return [equal("patient.gender", key(*parts))]


def _address(given: Entity) -> list[Rows]:
    wanted = normalise(given.get("searchString", ""))
    place, rest = "substr(e.key, 1, instr(e.key, char(31)))", "substr(e.key, instr(e.key, char(31)))"
    condition, parameters = f"instr({place}, ?) > 0", [wanted]
    if "postalCode" in given:
        exact = "houseNumber" in given
        condition += f" AND {rest} = ?" if exact else f" AND instr({rest}, ?) = 1"
        parameters.append(SEPARATOR + key(given["postalCode"], given.get("houseNumber", "")))
    return [Rows("patient.address", condition, tuple(parameters))]


def _tag_and_code(kind: str, start: str, end: str, status: bool = False) -> Search:
    """Rows with a tag, a code, or both, between two dates, of some patients if the filter names them."""

    def search(given: Entity) -> list[Rows]:
        wanted = []
        for field in ("code", "tag"):
            if f"{field}Code" in given and f"{field}Type" not in given:
                raise BadRequest(f"{field}Code needs {field}Type")
            if f"{field}Type" in given and f"{field}Code" in given:
                wanted.append(equal(f"{kind}.{field}", key(given[f"{field}Type"], given[f"{field}Code"])))
        if status and "status" in given:
            wanted.append(equal(f"{kind}.status", str(given["status"])))
        low, high = _dates(given, start, end)
        return _of_patients(kind, given, wanted, low, high)

    return search


def _of_patients(
    kind: str, given: Entity, wanted: list[Rows], low: int | None, high: int | None
) -> list[Rows]:
    """Returns rows for which all that is wanted holds, of the patients named in the filter, if any are."""
    secret_ids = given.get("patientSecretForeignKeys")
    if secret_ids is None and "patientSecretForeignKey" in given:
        secret_ids = [given["patientSecretForeignKey"]]
    starts = [[]] if secret_ids is None else [[equal(f"{kind}.patient", value)] for value in secret_ids]
    found = []
    for start in starts:
        conditions = start + wanted
        if conditions:
            rows = conditions[0]
            for other in conditions[1:]:
                rows = also(rows, other)
            found.append(dated(rows, low, high, given.get("descending", False)))
    return found


def _contacts_of_patients(given: Entity) -> list[Rows]:
    """Contacts of some patients: with a tag or code where one is named, else all of them."""
    return _tag_and_code("contact", "startOfContactOpeningDate", "endOfContactOpeningDate")(given)


def _contacts_by_tag_and_code(given: Entity) -> list[Rows]:
    """Contacts with a tag, a code or both; if neither is given, those between the two dates."""
    rows = _contacts_of_patients(given)
    low, high = _dates(given, "startOfContactOpeningDate", "endOfContactOpeningDate")
    return rows if rows or low is high is None else [dated(Rows("contact"), low, high)]


def _several_codes(kind: str, field: str, member: str) -> Search:
    """Services with one of several codes, `{type: [code, …]}`, of some patients if the filter names them."""

    def search(given: Entity) -> list[Rows]:
        low, high = _dates(given, "startValueDate", "endValueDate")
        found = []
        for code_type, wanted in given.get(member, {}).items():
            for code in wanted:
                rows = equal(f"{kind}.{field}", key(code_type, code))
                found += _of_patients(kind, given, [rows], low, high)
        return found

    return search


def _code_prefix(kind: str, field: str) -> Search:
    """Services with a code that starts so, in a month if one is named."""

    def search(given: Entity) -> list[Rows]:
        wanted = prefixed(
            f"{kind}.{field}", key(_required(given, f"{field}Type"), given.get(f"{field}CodePrefix", ""))
        )
        low, high = _dates(given, "startValueDate", "endValueDate")
        if "year" in given:
            month = given["year"] * 10_000 + given.get("month", 0) * 100
            low, high = month * 1_000_000, (month + (100 if "month" in given else 10_000)) * 1_000_000 - 1
        return _of_patients(kind, given, [wanted], low, high)

    return search


def _holding(given: Entity) -> list[Rows]:
    """Contacts with one of several Services."""
    holds = (
        "e.key = '' AND e.number = 0 AND e.item IN (SELECT contact FROM service_versions WHERE service = ?)"
    )
    return [Rows("contact.id", holds, (service_id,)) for service_id in dict.fromkeys(given.get("ids", []))]


def _by_link(given: Entity) -> list[Rows]:
    qualification = given.get("linkQualification")
    return [
        prefixed("service.link", key(linked, ""))
        if qualification is None
        else equal("service.link", key(linked, qualification))
        for linked in given.get("linkValues", [])
    ]


def _one_code(field: str, member: str) -> Search:
    return lambda given: [coded(field, _required(given, f"{member}Type"), given.get(f"{member}Code"))]


def _national_numbers(given: Entity) -> list[Rows]:
    return [prefixed("patient.ssin", word_characters(ssin)) for ssin in given.get("ssins", [])]


def _words(given: Entity) -> list[Rows]:
    return [prefixed("user.word", _required(given, "searchString").lower())]


def string_list(value: Any) -> list[str]:
    """Returns an array of strings: an empty one matches nothing, which is not the same as none."""
    return strings(value) or []


identifiers = each(IDENTIFIER)
code_members = _members(tagType=text, tagCode=text, codeType=text, codeCode=text)
value_dates = _members(startValueDate=integer, endValueDate=integer, descending=boolean)
opening_dates = _members(
    startOfContactOpeningDate=integer, endOfContactOpeningDate=integer, descending=boolean
)
range_dates = _members(startDate=integer, endDate=integer, descending=boolean)
of_patients = _members(patientSecretForeignKeys=string_list, patientSecretForeignKey=text)
prefix_members = _members(
    codeType=text, codeCodePrefix=text, tagType=text, tagCodePrefix=text, year=integer, month=integer
)
several_codes = _members(codeCodes=by_key(string_list), tagCodes=by_key(string_list))


def _shape(*parts: Shape, **readers: Reader) -> Shape:
    shape = _members(**readers)
    for part in parts:
        shape.holds(part)
    return shape


HCP = "healthcarePartyId"
OWNER = "dataOwnerId"


def _patient(search: Search, owner: str = HCP, **readers: Reader) -> Filter:
    return Filter("Patient", _members(**readers), search, owner)


def _contact(
    search: Search, owner: str | None, *parts: Shape, for_caller: bool = False, **readers: Reader
) -> Filter:
    return Filter("Contact", _shape(*parts, **readers), search, owner, for_caller=for_caller)


def _service(search: Search, owner: str | None, *parts: Shape, **readers: Reader) -> Filter:
    return Filter("Service", _shape(*parts, **readers), search, owner)


def _element(search: Search, owner: str, *parts: Shape, **readers: Reader) -> Filter:
    return Filter("HealthElement", _shape(*parts, **readers), search, owner)


def _log(search: Search, owner: str | None, *parts: Shape, **readers: Reader) -> Filter:
    return Filter("AccessLog", _shape(*parts, **readers), search, owner, for_caller=owner is None)


def _logs_of_user(given: Entity) -> list[Rows]:
    rows = coded("accesslog.user", _required(given, "userId"), given.get("accessType"))
    return [dated(rows, given.get("startDate"), None, given.get("descending", False))]


def _logs_of_patients(given: Entity) -> list[Rows]:
    low, high, descending = given.get("startDate"), given.get("endDate"), given.get("descending", False)
    wanted = dict.fromkeys(given.get("secretPatientIds", []))
    return [dated(equal("accesslog.patient", secret_id), low, high, descending) for secret_id in wanted]


def _party(search: Search, **readers: Reader) -> Filter:
    return Filter("HealthcareParty", _members(**readers), search, unowned=True)


def _user(search: Search, **readers: Reader) -> Filter:
    return Filter("User", _members(**readers), search, unowned=True)


FILTERS: dict[str, Filter] = {
    "PatientByHcPartyFilter": _patient(_all("patient")),
    "PatientByHcPartyNameContainsFuzzyFilter": _patient(
        _name("patient.name", "searchString"), searchString=text
    ),
    "PatientByHcPartyNameFilter": _patient(_name("patient.name", "name"), name=text),
    "PatientByHcPartyGenderEducationProfession": _patient(
        _gender, gender=GENDER, education=text, profession=text
    ),
    "PatientByHcPartyDateOfBirthFilter": _patient(
        _number_equal("patient.birth", "dateOfBirth"), dateOfBirth=integer
    ),
    "PatientByHcPartyDateOfBirthBetweenFilter": _patient(
        _number_between("patient.birth", "minDateOfBirth", "maxDateOfBirth"),
        minDateOfBirth=integer,
        maxDateOfBirth=integer,
    ),
    "PatientByHcPartyAndIdentifiersFilter": _patient(
        _identifiers("patient.identifier"), identifiers=identifiers
    ),
    "PatientByHcPartyAndSsinFilter": _patient(
        _starts_with("patient.ssin", "ssin", word_characters), ssin=text
    ),
    "PatientByHcPartyAndSsinsFilter": _patient(_national_numbers, ssins=string_list),
    "PatientByHcPartyAndTelecomFilter": _patient(
        _starts_with("patient.telecom", "searchString", word_characters), searchString=text
    ),
    "PatientByHcPartyAndAddressFilter": _patient(
        _address, searchString=text, postalCode=text, houseNumber=text
    ),
    "PatientByHcPartyAndActiveFilter": _patient(
        lambda given: [equal("patient.active", str(_required(given, "active")))], active=boolean
    ),
    "PatientByHcPartyAndExternalIdFilter": _patient(
        _starts_with("patient.external", "externalId"), externalId=text
    ),
    "PatientByDataOwnerTagFilter": _patient(
        _one_code("patient.tag", "tag"), OWNER, tagType=text, tagCode=text
    ),
    "PatientByDataOwnerModifiedAfterFilter": _patient(
        _number_between("patient.modified", "startDate", "endDate"), OWNER, **range_dates.members
    ),
    "ContactByHcPartyFilter": _contact(_all("contact"), "hcpId"),
    "ContactByHcPartyTagCodeDateFilter": _contact(
        _contacts_by_tag_and_code, HCP, code_members, opening_dates
    ),
    "ContactByHcPartyPatientTagCodeDateFilter": _contact(
        _contacts_of_patients, HCP, code_members, opening_dates, of_patients
    ),
    "ContactByHcPartyIdentifiersFilter": _contact(
        _identifiers("contact.identifier"), HCP, identifiers=identifiers
    ),
    "ContactByDataOwnerPatientOpeningDateFilter": _contact(
        _each_of("contact.patient", "secretForeignKeys", "startDate", "endDate"),
        OWNER,
        range_dates,
        secretForeignKeys=string_list,
    ),
    "ContactByDataOwnerOpeningDateFilter": _contact(
        lambda given: [
            dated(Rows("contact"), *_dates(given, "startDate", "endDate"), given.get("descending", False))
        ],
        OWNER,
        range_dates,
    ),
    "ContactByDataOwnerServiceTagFilter": _contact(
        _one_code("contact.servicetag", "tag"), OWNER, code_members
    ),
    "ContactByDataOwnerServiceCodeFilter": _contact(
        _one_code("contact.servicecode", "code"), OWNER, code_members
    ),
    "ContactByDataOwnerFormIdsFilter": _contact(
        _each_of("contact.form", "formIds"), OWNER, formIds=string_list
    ),
    "ContactByHcPartyFormIdsFilter": _contact(_each_of("contact.form", "formIds"), HCP, formIds=string_list),
    "ContactByServiceIdsFilter": _contact(_holding, None, for_caller=True, ids=string_list),
    "ContactByExternalIdFilter": _contact(
        lambda given: [equal("contact.external", _required(given, "externalId"))], None, externalId=text
    ),
    "ServiceByHcPartyFilter": _service(_all("service"), "hcpId"),
    "ServiceByHcPartyTagCodeDateFilter": _service(
        _tag_and_code("service", "startValueDate", "endValueDate"),
        HCP,
        code_members,
        value_dates,
        of_patients,
    ),
    "ServiceBySecretForeignKeys": _service(
        _each_of("service.patient", "patientSecretForeignKeys"), HCP, of_patients
    ),
    "ServiceByDataOwnerPatientDateFilter": _service(
        _each_of("service.patient", "secretForeignKeys", "startDate", "endDate"),
        OWNER,
        range_dates,
        secretForeignKeys=string_list,
    ),
    "ServiceByHcPartyIdentifiersFilter": _service(
        _identifiers("service.identifier"), HCP, identifiers=identifiers
    ),
    "ServiceByHcPartyHealthElementIdsFilter": _service(
        _each_of("service.helement", "healthElementIds"), HCP, healthElementIds=string_list
    ),
    "ServiceByHcPartyCodePrefixFilter": _service(
        _code_prefix("service", "code"), HCP, prefix_members, value_dates
    ),
    "ServiceByHcPartyTagPrefixFilter": _service(
        _code_prefix("service", "tag"), HCP, prefix_members, value_dates
    ),
    "ServiceByHcPartyMonthCodePrefixFilter": _service(_code_prefix("service", "code"), HCP, prefix_members),
    "ServiceByHcPartyMonthTagPrefixFilter": _service(_code_prefix("service", "tag"), HCP, prefix_members),
    "ServiceByHcPartyPatientCodePrefixFilter": _service(
        _code_prefix("service", "code"), HCP, prefix_members, value_dates, of_patients
    ),
    "ServiceByHcPartyPatientTagPrefixFilter": _service(
        _code_prefix("service", "tag"), HCP, prefix_members, value_dates, of_patients
    ),
    "ServiceByHcPartyCodesFilter": _service(
        _several_codes("service", "code", "codeCodes"), HCP, several_codes, value_dates
    ),
    "ServiceByHcPartyTagCodesFilter": _service(
        _several_codes("service", "tag", "tagCodes"), HCP, several_codes, value_dates
    ),
    "ServiceByHcPartyPatientCodesFilter": _service(
        _several_codes("service", "code", "codeCodes"), HCP, several_codes, value_dates, of_patients
    ),
    "ServiceByHcPartyPatientTagCodesFilter": _service(
        _several_codes("service", "tag", "tagCodes"), HCP, several_codes, value_dates, of_patients
    ),
    "ServiceByQualifiedLinkFilter": _service(_by_link, None, linkValues=string_list, linkQualification=text),
    "ServiceByAssociationIdFilter": _service(
        lambda given: [equal("service.association", _required(given, "associationId"))],
        None,
        associationId=text,
    ),
    "HealthElementByHcPartyFilter": _element(_all("helement"), "hcpId"),
    "HealthElementByHcPartyTagCodeFilter": _element(
        _tag_and_code("helement", "", "", status=True), HCP, code_members, status=integer
    ),
    "HealthElementByHcPartySecretForeignKeysFilter": _element(
        _each_of("helement.patient", "patientSecretForeignKeys"), HCP, of_patients
    ),
    "HealthElementByHcPartyIdentifiersFilter": _element(
        _identifiers("helement.identifier"), "hcPartyId", identifiers=identifiers
    ),
    "HealthElementByDataOwnerPatientOpeningDate": _element(
        _each_of("helement.patient", "patientSecretForeignKeys", "startDate", "endDate"),
        HCP,
        range_dates,
        of_patients,
    ),
    "HealthElementByHcPartyStatusFilter": _element(
        lambda given: [equal("helement.status", str(_required(given, "status")))], "hcPartyId", status=integer
    ),
    "AccessLogByDateFilter": _log(_number_between("accesslog", "startDate", "endDate"), None, range_dates),
    "AccessLogByUserIdUserTypeDateFilter": _log(
        _logs_of_user, None, range_dates, userId=text, accessType=text
    ),
    "AccessLogByDataOwnerPatientDateFilter": _log(
        _logs_of_patients, OWNER, range_dates, secretPatientIds=string_list
    ),
    "AllHealthcarePartiesFilter": _party(_all("hcparty")),
    "HealthcarePartyByNameFilter": _party(
        _starts_with("hcparty.name", "name", normalise), name=text, descending=boolean
    ),
    "HealthcarePartyByIdentifiersFilter": _party(_identifiers("hcparty.identifier"), identifiers=identifiers),
    "HealthcarePartyByParentIdFilter": _party(
        lambda given: [equal("hcparty.parent", _required(given, "parentId"))], parentId=text
    ),
    "HealthcarePartyByTagCodeFilter": _party(_tag_and_code("hcparty", "", ""), **code_members.members),
    "HealthcarePartyByNationalIdentifierFilter": _party(
        _starts_with("hcparty.number", "searchValue", word_characters), searchValue=text
    ),
    "AllUsersFilter": _user(_all("user")),
    "UsersByPatientIdFilter": _user(
        lambda given: [equal("user.patientId", _required(given, "patientId"))], patientId=text
    ),
    "UserByHealthcarePartyIdFilter": _user(
        lambda given: [equal("user.healthcarePartyId", _required(given, "healthcarePartyId"))],
        healthcarePartyId=text,
    ),
    "UserByNameEmailPhoneFilter": _user(_words, searchString=text),
}
BY_IDS = {
    "PatientByIdsFilter": "Patient",
    "ContactByIdsFilter": "Contact",
    "ServiceByIdsFilter": "Service",
    "HealthElementByIdsFilter": "HealthElement",
    "AccessLogByIdsFilter": "AccessLog",
    "HealthcarePartyByIdsFilter": "HealthcareParty",
    "UserByIdsFilter": "User",
}
IDS = _members(ids=string_list)


def matches(view: View, caller: Caller, finds: str, given: Any, depth: int = 0) -> list[str]:
    """Returns the ids of entities of type `finds` that a filter matches, in the filter's order.

    Raises `BadRequest` for what is no filter of this type, `AccessDenied` for a data owner that the caller may
    not act for.
    """
    if type(given) is not dict or depth > MAX_DEPTH:
        raise BadRequest("Invalid JSON filter format")
    name = given.get("$type") or (given.get("type") if "filterType" in given else None)
    if name in ("UnionFilter", "IntersectionFilter", "ComplementFilter"):
        return _combined(view, caller, finds, str(name), given, depth)
    if name == "IdsFilter" or (isinstance(name, str) and BY_IDS.get(name) == finds):
        return list(dict.fromkeys(read(IDS, given).get("ids", [])))
    known = FILTERS.get(name) if isinstance(name, str) else None
    if known is None or known.finds != finds:
        raise BadRequest(f"Invalid JSON filter format: no such filter of {finds}")
    return _simple(view, caller, known, given)


def _combined(view: View, caller: Caller, finds: str, name: str, given: Entity, depth: int) -> list[str]:
    def part(inner: Any) -> list[str]:
        return matches(view, caller, finds, inner, depth + 1)

    if name == "ComplementFilter":
        without = frozenset(part(given.get("subSet")))
        return [found for found in part(given.get("superSet")) if found not in without]
    inner = given.get("filters")
    if type(inner) is not list:
        raise BadRequest(f"{name} must have filters")
    parts = [part(each_filter) for each_filter in inner]
    if name == "UnionFilter":
        return _united(parts)
    if not parts:
        return []
    rest = [frozenset(ids) for ids in parts[1:]]
    return [found for found in parts[0] if all(found in ids for ids in rest)]


def _united(parts: Iterable[list[str]]) -> list[str]:
    return list(dict.fromkeys(found for ids in parts for found in ids))


def _simple(view: View, caller: Caller, known: Filter, given: Entity) -> list[str]:
    members = read(known.members, given)
    return _united(
        rows.ids(view, owner)
        for rows in known.search(members)
        for owner in _search_keys(caller, known, given)
    )


def _search_keys(caller: Caller, known: Filter, given: Entity) -> Sequence[str | None]:
    if known.unowned:
        return [NO_OWNER]
    if known.owner is None and caller.unrestricted:
        return [None]
    if known.for_caller:
        return sorted(caller.keys)
    if known.owner is None:
        raise AccessDenied("a filter that names no data owner needs a permission that nobody has here")
    try:
        owner = text(given[known.owner]) if given.get(known.owner) is not None else caller.data_owner_id
    except Malformed:
        raise BadRequest(f"{known.owner} must be a string") from None
    if owner is None:
        raise BadRequest(f"the filter must name a data owner in {known.owner}")
    return caller.search_keys(owner)
