"""What an entity may hold: known members, their JSON types, and the defaults of the data model.

Facts: the real server ignores unknown members, treats null as absent and refuses wrong types and unknown
enum values with 400; tags, codes, services and subContacts are sets (JSON order is kept, exact duplicates
collapse).

Strategy: one table, read from top to bottom. A reader is a function from JSON value to the value that is
stored; readers of objects, lists and maps are made of readers.

Rule: replies hold only members of these tables, no null and no empty collection: strict clients refuse
anything else.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from bridge.embedded.errors import BadRequest

Entity = dict[str, Any]
Reader = Callable[[Any], Any]

MAX_INTEGER = 2**63 - 1


class Malformed(Exception):
    """A value is not of the type that the data model gives its member."""

    def __init__(self, expected: str) -> None:
        super().__init__(expected)
        self.expected = expected
        self.path: list[str] = []

    def below(self, step: str) -> Malformed:
        """Returns the same complaint, told from one level further up."""
        self.path.insert(0, step)
        return self


def text(value: Any) -> str:
    """Returns a JSON string."""
    if type(value) is not str:
        raise Malformed("a string")
    return value


def boolean(value: Any) -> bool:
    """Returns a JSON boolean."""
    if type(value) is not bool:
        raise Malformed("a boolean")
    return value


AS_IT_IS: dict[Reader, type] = {text: str, boolean: bool}
"""Readers that only look at the type, and which."""


def integer(value: Any) -> int:
    """Returns a 64-bit integer; `3.0` is one too."""
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int or not -MAX_INTEGER <= value <= MAX_INTEGER:
        raise Malformed("a 64-bit integer")
    return value


def number(value: Any) -> int | float:
    """Returns a finite JSON number."""
    if type(value) is int and -MAX_INTEGER <= value <= MAX_INTEGER:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise Malformed("a number")


def one_of(names: str) -> Reader:
    """Returns a reader of an enum with these names."""
    allowed = frozenset(names.split())

    def read(value: Any) -> str:
        if type(value) is not str or value not in allowed:
            raise Malformed(f"one of {names}")
        return value

    return read


def each(item: Reader) -> Reader:
    """Returns a reader of lists; an empty list counts as absent."""

    def read(value: Any) -> list[Any] | None:
        if type(value) is not list:
            raise Malformed("an array")
        members = []
        for position, member in enumerate(value):
            try:
                members.append(item(member))
            except Malformed as error:
                raise error.below(f"[{position}]") from None
        return members or None

    return read


def distinct(item: Reader) -> Reader:
    """Returns a reader of sets: as a list, without exact duplicates."""
    read_list = each(item)

    def read(value: Any) -> Any:
        members = read_list(value)
        if members is None or len(members) == 1 or _have_ids_of_their_own(members):
            return members
        return list(
            {orjson.dumps(member, option=orjson.OPT_SORT_KEYS): member for member in members}.values()
        )

    return read


def _have_ids_of_their_own(members: list[Any]) -> bool:
    return len({member.get("id") for member in members if type(member) is dict}) == len(members)


def by_key(item: Reader) -> Reader:
    """Returns a reader of maps with free keys; an empty map counts as absent."""

    def read(value: Any) -> dict[str, Any] | None:
        if type(value) is not dict:
            raise Malformed("an object")
        members = {}
        for key, member in value.items():
            try:
                read_member = item(member)
            except Malformed as error:
                raise error.below(f".{key}") from None
            if read_member is not None:
                members[key] = read_member
        return members or None

    return read


class Shape:
    """The members of one type of object; called with an object, it returns what of it is stored."""

    def __init__(
        self, defaults: Mapping[str, Any] | None = None, finish: Callable[[Entity], None] | None = None
    ) -> None:
        self.members: dict[str, Reader] = {}
        self._as_they_are: dict[str, type] = {}
        self.defaults = dict(defaults or {})
        self.finish = finish

    def has(self, reader: Reader, names: str) -> Shape:
        """Adds members that `reader` reads."""
        return self.reads(dict.fromkeys(names.split(), reader))

    def holds(self, other: Shape) -> Shape:
        """Adds all members of another shape."""
        return self.reads(other.members)

    def reads(self, members: Mapping[str, Reader]) -> Shape:
        """Adds members with the reader of each."""
        self.members |= members
        for name, reader in members.items():
            if reader in AS_IT_IS:
                self._as_they_are[name] = AS_IT_IS[reader]
        return self

    def __call__(self, value: Any) -> Entity:
        """Returns what is stored of an object; raises `Malformed`."""
        if type(value) is not dict:
            raise Malformed("an object")
        stored: Entity = {}
        as_it_is, readers = self._as_they_are.get, self.members.get
        for name, member in value.items():
            if as_it_is(name) is type(member):
                stored[name] = member
                continue
            reader = readers(name)
            if reader is None or member is None:
                continue
            try:
                read = reader(member)
            except Malformed as error:
                raise error.below(f".{name}") from None
            if read is not None:
                stored[name] = read
        for name, default in self.defaults.items():
            stored.setdefault(name, default)
        if self.finish is not None:
            self.finish(stored)
        return stored


def read(shape: Shape, value: Any) -> Entity:
    """Returns what is stored of a client's JSON; raises `BadRequest` naming the member that is wrong."""
    try:
        return shape(value)
    except Malformed as error:
        where = "".join(error.path).lstrip(".") or "the body"
        raise BadRequest(f"{where} must be {error.expected}") from None


def new_id(entity: Entity) -> None:
    """Gives an entity without id a random one, as the data model does for parts of entities."""
    if "id" not in entity:
        entity["id"] = str(uuid.uuid4())


CODE_PARTS = ("type", "code", "version")


def split_code_id(stub: Entity) -> None:
    """Fills type, code and version of a code stub from its id `type|code|version` where they are missing."""
    if "id" in stub and not all(map(stub.__contains__, CODE_PARTS)):
        for name, part in zip(CODE_PARTS, stub["id"].split("|"), strict=False):
            stub.setdefault(name, part)


GENDER = one_of("male female indeterminate changed changedToMale changedToFemale unknown")
TELECOM_TYPE = "mobile phone email fax skype im medibridge ehealthbox apicrypt web print disk other pager"

strings: Reader = each(text)
numbers = each(number)
strings_by_key = by_key(text)

CODE_STUB = (
    Shape(finish=split_code_id)
    .has(text, "id type code version context contextLabel")
    .has(strings_by_key, "label")
)
codes = distinct(CODE_STUB)

IDENTIFIER = Shape().has(text, "id assigner start end system use value").has(CODE_STUB, "type")
identifiers = each(IDENTIFIER)

ANNOTATION = (
    Shape(finish=new_id)
    .has(text, "id author text location encryptedSelf")
    .has(integer, "created modified")
    .has(strings_by_key, "markdown")
    .has(boolean, "confidential")
    .has(codes, "tags")
)
annotation_list = each(ANNOTATION)

VALUE_TYPE = one_of("BOOLEAN INTEGER DOUBLE STRING DATE CLOB JSON")
TYPED_VALUE = (
    Shape()
    .has(VALUE_TYPE, "type")
    .has(boolean, "booleanValue")
    .has(integer, "integerValue dateValue")
    .has(number, "doubleValue")
    .has(text, "stringValue encryptedSelf")
)
PROPERTY = (
    Shape()
    .has(text, "id encryptedSelf")
    .has(Shape().has(text, "identifier").has(VALUE_TYPE, "type"), "type")
    .has(TYPED_VALUE, "typedValue")
    .has(integer, "deletionDate")
)
property_stubs = each(PROPERTY)

PERSON_NAME = (
    Shape()
    .has(text, "lastName text")
    .has(strings, "firstNames prefix suffix")
    .has(integer, "start end")
    .has(one_of("usual official temp nickname anonymous maiden old other"), "use")
)
person_names = each(PERSON_NAME)

TELECOM = (
    Shape()
    .has(one_of(TELECOM_TYPE), "telecomType")
    .has(text, "telecomNumber telecomDescription encryptedSelf")
)
ADDRESS = (
    Shape()
    .has(
        one_of(
            "home work vacation hospital clinic hq other temporary postal diplomatic reference careaddress"
        ),
        "addressType",
    )
    .has(text, "descr street houseNumber postboxNumber postalCode city state country note encryptedSelf")
    .has(annotation_list, "notes")
    .has(each(TELECOM), "telecoms")
    .has(codes, "tags codes")
    .has(identifiers, "identifier")
)
addresses = each(ADDRESS)

DELEGATION = Shape().has(text, "owner delegatedTo key").has(strings, "tags")
delegations = by_key(distinct(DELEGATION))
SECURE_DELEGATION = (
    Shape()
    .has(text, "delegator delegate exchangeDataId")
    .has(distinct(text), "secretIds encryptionKeys owningEntityIds parentDelegations")
    .has(one_of("READ WRITE"), "permissions")
)
SECURITY_METADATA = (
    Shape().has(by_key(SECURE_DELEGATION), "secureDelegations").has(strings_by_key, "keysEquivalences")
)

STORED = Shape().has(text, "id rev").has(integer, "created modified deletionDate").has(codes, "tags codes")
DOCUMENT = Shape().holds(STORED).has(text, "author responsible medicalLocationId").has(integer, "endOfLife")
ENCRYPTABLE = (
    Shape()
    .has(text, "encryptedSelf")
    .has(SECURITY_METADATA, "securityMetadata")
    .has(distinct(text), "secretForeignKeys")
    .has(delegations, "cryptedForeignKeys delegations encryptionKeys")
)
CRYPTO_ACTOR = (
    Shape()
    .has(text, "publicKey")
    .has(distinct(text), "publicKeysForOaepWithSha256")
    .has(by_key(strings), "hcPartyKeys")
    .has(by_key(by_key(strings_by_key)), "aesExchangeKeys")
    .has(by_key(strings_by_key), "transferKeys")
    .has(strings_by_key, "privateKeyShamirPartitions")
    .has(property_stubs, "cryptoActorProperties")
)
KEY_MEMBERS = tuple(CRYPTO_ACTOR.members)

FINANCIAL_INSTITUTION = (
    Shape()
    .has(text, "name key bankAccount bic proxyBankAccount proxyBic encryptedSelf")
    .has(strings, "preferredFiiForPartners")
)
INSURABILITY = (
    Shape()
    .has(strings_by_key, "parameters")
    .has(boolean, "hospitalisation ambulatory dental")
    .has(text, "identificationNumber insuranceId titularyId encryptedSelf")
    .has(integer, "startDate endDate")
)
PARTNERSHIP_TYPES = (
    "primary_contact primary_contact_for family friend counselor contact brother brotherinlaw child daughter "
    "employer father grandchild grandparent husband lawyer mother neighbour notary partner sister sisterinlaw "
    "son spouse stepdaughter stepfather stepmother stepson tutor cohabiting registered_partner next_of_kin "
    "federal_agency insurance_company state_agency unknown seealso refer"
)
PARTNERSHIP = (
    Shape()
    .has(one_of(PARTNERSHIP_TYPES), "type")
    .has(one_of("active complicated past"), "status")
    .has(one_of("patient healthcareParty relatedPerson"), "partnerType")
    .has(text, "partnerId meToOtherRelationshipDescription otherToMeRelationshipDescription encryptedSelf")
)
CARE_PARTY_TYPES = (
    "doctor referral medicalhouse retirementhome hospital other referringphysician managingorganization"
)
PATIENT_CARE_PARTY = (
    Shape(defaults={"referral": False})
    .has(one_of(CARE_PARTY_TYPES), "type")
    .has(text, "healthcarePartyId encryptedSelf")
    .has(boolean, "referral")
    .has(each(Shape().has(integer, "startDate endDate").has(text, "comment")), "referralPeriods")
    .has(strings_by_key, "sendFormats")
    .has(property_stubs, "properties")
)
MEDICAL_HOUSE_CONTRACT = (
    Shape()
    .has(
        text,
        "contractId mmNihii hcpId changeType parentContractId changedBy suspensionReason suspensionSource "
        "signatureType encryptedSelf",
    )
    .has(
        integer,
        "validFrom validTo startOfContract startOfCoverage endOfContract endOfCoverage unsubscriptionReasonId "
        "ptdStart ptdEnd ptdLastInvoiced startOfSuspension endOfSuspension status",
    )
    .has(boolean, "kine gp ptd nurse noKine noGp noNurse forcedSuspension")
    .has(strings_by_key, "options receipts")
)
SCHOOLING = Shape().has(integer, "startDate endDate").has(text, "school").has(CODE_STUB, "typeOfEducation")
EMPLOYMENT = (
    Shape()
    .has(integer, "startDate endDate")
    .has(CODE_STUB, "professionType")
    .has(Shape().has(text, "name").has(ADDRESS, "addresse"), "employer")
)
PERSONAL_STATUS = one_of(
    "single in_couple married separated divorced divorcing widowed widower complicated unknown contract other "
    "annulled polygamous"
)

PATIENT = (
    Shape(
        defaults={
            "gender": "unknown",
            "birthSex": "unknown",
            "personalStatus": "unknown",
            "active": True,
            "deactivationReason": "none",
        }
    )
    .holds(DOCUMENT)
    .holds(ENCRYPTABLE)
    .holds(CRYPTO_ACTOR)
    .has(identifiers, "identifier")
    .has(
        text,
        "firstName lastName companyName civility mergeToPatientId alias ssin maidenName spouseName partnerName "
        "placeOfBirth placeOfDeath education profession note administrativeNote nationality race ethnicity "
        "preferredUserId picture externalId comment warning",
    )
    .has(person_names, "names")
    .has(distinct(text), "mergedIds nonDuplicateIds encryptedAdministrativesDocuments")
    .has(strings, "languages")
    .has(addresses, "addresses")
    .has(GENDER, "gender birthSex")
    .has(boolean, "active deceased")
    .has(one_of("deceased moved other_doctor retired no_contact unknown none"), "deactivationReason")
    .has(integer, "deactivationDate dateOfBirth dateOfDeath timestampOfLatestEidReading")
    .has(PERSONAL_STATUS, "personalStatus")
    .has(annotation_list, "notes")
    .has(each(INSURABILITY), "insurabilities")
    .has(each(PARTNERSHIP), "partnerships")
    .has(each(PATIENT_CARE_PARTY), "patientHealthCareParties")
    .has(each(FINANCIAL_INSTITUTION), "financialInstitutionInformation")
    .has(each(MEDICAL_HOUSE_CONTRACT), "medicalHouseContracts")
    .has(each(CODE_STUB), "patientProfessions")
    .has(by_key(strings), "parameters")
    .has(property_stubs, "properties")
    .has(CODE_STUB, "fatherBirthCountry birthCountry nativeCountry socialStatus mainSourceOfIncome")
    .has(each(SCHOOLING), "schoolingInfos")
    .has(each(EMPLOYMENT), "employementInfos")
)

REFERENCE_RANGE = (
    Shape()
    .has(number, "low high")
    .has(text, "stringValue")
    .has(codes, "tags codes")
    .has(annotation_list, "notes")
    .has(Shape().has(number, "low high"), "age")
)
MEASURE = (
    Shape()
    .has(number, "value ref min max")
    .has(integer, "severity evolution")
    .has(text, "severityCode unit sign comment comparator")
    .has(codes, "unitCodes")
    .has(each(REFERENCE_RANGE), "referenceRanges")
    .has(Shape().has(integer, "value precision"), "valueWithPrecision")
)
TIME_SERIES = (
    Shape().has(strings, "fields").has(each(numbers), "samples").has(numbers, "min max mean median variance")
)
DURATION = Shape().has(number, "value").has(CODE_STUB, "unit")
PRODUCT = (
    Shape().has(each(CODE_STUB), "intendedcds deliveredcds").has(text, "intendedname deliveredname productId")
)
REGIMEN_ITEM = (
    Shape()
    .has(integer, "date dayNumber timeOfDay")
    .has(Shape().has(CODE_STUB, "weekday").has(integer, "weekNumber"), "weekday")
    .has(CODE_STUB, "dayPeriod")
    .has(
        Shape().has(number, "quantity").has(CODE_STUB, "administrationUnit").has(text, "unit"),
        "administratedQuantity",
    )
)
PARAGRAPH_AGREEMENT = (
    Shape()
    .has(integer, "timestamp start end cancelationDate")
    .has(
        text,
        "paragraph careProviderReference decisionReference quantityUnit ioRequestReference responseType "
        "coverageType strengthUnit documentId",
    )
    .has(boolean, "accepted inTreatment canceled")
    .has(number, "quantityValue unitNumber strength")
    .has(strings_by_key, "refusalJustification")
    .has(each(integer), "verses")
    .has(each(Shape().has(integer, "docSeq verseSeq").has(text, "documentId path")), "agreementAppendices")
)
SUSPENSION = Shape().has(integer, "beginMoment endMoment").has(text, "suspensionReason lifecycle")
MEDICATION = (
    Shape()
    .has(
        text,
        "compoundPrescription batch instructionForPatient instructionForReimbursement commentForDelivery "
        "drugRoute temporality posology medicationSchemeIdOnSafe medicationSchemeDocumentId safeIdName "
        "idOnSafes medicationUse beginCondition endCondition origin prescriptionRID",
    )
    .has(PRODUCT, "substanceProduct medicinalProduct")
    .has(
        integer,
        "numberOfPackages expirationDate beginMoment endMoment deliveryMoment endExecutionMoment "
        "medicationSchemeSafeVersion medicationSchemeTimeStampOnSafe timestampOnSafe status",
    )
    .has(CODE_STUB, "frequency reimbursementReason")
    .has(
        boolean,
        "substitutionAllowed knownUsage changeValidated newSafeMedication medicationChanged posologyChanged",
    )
    .has(DURATION, "duration")
    .has(Shape().has(integer, "decimal").has(DURATION, "duration"), "renewal")
    .has(each(REGIMEN_ITEM), "regimen")
    .has(by_key(PARAGRAPH_AGREEMENT), "agreements")
    .has(each(SUSPENSION), "suspension")
)

LINK_QUALIFICATION = one_of(
    "exact narrower broader approximate sequence parent child relatedCode linkedPackage relatedService "
    "inResponseTo replaces transforms transformsAndReplaces appendsTo basedOn derivedFrom device focus "
    "hasMember performer specimen resultInterpreter request"
)


def qualified_links(value: Any) -> Any:
    """Returns links to other Services by what they mean: `{qualification: {key: service id}}`."""
    links = by_key(strings_by_key)(value)
    for qualification in links or ():
        LINK_QUALIFICATION(qualification)
    return links


SERVICE = Shape(finish=new_id)
CONTENT = (
    Shape()
    .has(text, "stringValue binaryValue documentId")
    .has(number, "numberValue")
    .has(boolean, "booleanValue")
    .has(integer, "instantValue fuzzyDateValue")
    .has(MEASURE, "measureValue")
    .has(MEDICATION, "medicationValue")
    .has(TIME_SERIES, "timeSeries")
    .has(distinct(SERVICE), "compoundValue")
    .has(each(MEASURE), "ratio range")
)
SERVICE = (
    SERVICE.has(
        text,
        "id transactionId label encryptedContent formId author responsible comment medicalLocationId "
        "encryptedSelf",
    )
    .has(identifiers, "identifier")
    .has(integer, "index valueDate openingDate closingDate created modified endOfLife status")
    .has(by_key(CONTENT), "content")
    .has(strings_by_key, "textIndexes")
    .has(distinct(text), "invoicingCodes")
    .has(annotation_list, "notes")
    .has(qualified_links, "qualifiedLinks")
    .has(codes, "tags codes")
)
SUB_CONTACT = (
    Shape()
    .has(
        text,
        "id author responsible descr protocol formId planOfActionId healthElementId classificationId "
        "medicalLocationId encryptedSelf",
    )
    .has(integer, "created modified status endOfLife")
    .has(codes, "tags codes")
    .has(each(Shape().has(text, "serviceId")), "services")
)
PARTICIPANT_TYPE = one_of(
    "Admitter Attender CallbackContact Consultant Discharger Escort Referrer SecondaryPerformer "
    "PrimaryPerformer Participation Translator Emergency Location Recorder"
)
CONTACT = (
    Shape()
    .holds(DOCUMENT)
    .holds(ENCRYPTABLE)
    .has(identifiers, "identifier")
    .has(text, "groupId descr location externalId healthcarePartyId modifiedContactId")
    .has(integer, "openingDate closingDate")
    .has(CODE_STUB, "encounterType")
    .has(ADDRESS, "encounterLocation")
    .has(distinct(SUB_CONTACT), "subContacts")
    .has(distinct(SERVICE), "services")
    .has(strings_by_key, "participants")
    .has(each(Shape().has(PARTICIPANT_TYPE, "type").has(text, "hcpId")), "participantList")
    .has(annotation_list, "notes")
)

EPISODE = Shape(finish=new_id).has(text, "id name comment encryptedSelf").has(integer, "startDate endDate")
CARE_TEAM_MEMBER = (
    Shape(finish=new_id)
    .has(text, "id careTeamMemberType healthcarePartyId encryptedSelf")
    .has(CODE_STUB, "quality")
)
CARE_TEAM_MEMBERSHIP = (
    Shape().has(integer, "startDate endDate").has(text, "careTeamMemberId membershipType encryptedSelf")
)
PLAN_OF_ACTION = (
    Shape(defaults={"relevant": True, "status": 0}, finish=new_id)
    .has(
        text,
        "id author responsible medicalLocationId name prescriberId descr note idOpeningContact "
        "idClosingContact encryptedSelf",
    )
    .has(
        integer,
        "created modified endOfLife valueDate openingDate closingDate deadlineDate status numberOfCares",
    )
    .has(codes, "tags codes")
    .has(distinct(text), "documentIds")
    .has(each(CARE_TEAM_MEMBERSHIP), "careTeamMemberships")
    .has(boolean, "relevant")
)
HEALTH_ELEMENT = (
    Shape(defaults={"relevant": True, "status": 0})
    .holds(DOCUMENT)
    .holds(ENCRYPTABLE)
    .has(identifiers, "identifiers")
    .has(text, "healthElementId descr note idOpeningContact idClosingContact idService")
    .has(integer, "valueDate openingDate closingDate status")
    .has(annotation_list, "notes")
    .has(boolean, "relevant")
    .has(one_of("left right"), "laterality")
    .has(each(PLAN_OF_ACTION), "plansOfAction")
    .has(each(EPISODE), "episodes")
    .has(each(CARE_TEAM_MEMBER), "careTeam")
    .has(qualified_links, "qualifiedLinks")
    .has(
        each(Shape().has(text, "type asserterId").has(strings_by_key, "descr")),
        "asserters",
    )
)

ACCESS_LOG = (
    Shape()
    .holds(DOCUMENT)
    .holds(ENCRYPTABLE)
    .has(text, "objectId accessType user detail patientId")
    .has(integer, "date")
)

CARE_PARTY_STATUS = one_of("trainee withconvention accreditated")
FLAT_RATE_TARIFICATION = (
    Shape()
    .has(text, "code flatRateType encryptedSelf")
    .has(strings_by_key, "label")
    .has(
        each(
            Shape()
            .has(integer, "startOfValidity endOfValidity")
            .has(text, "predicate encryptedSelf")
            .has(each(integer), "reference")
            .has(number, "totalAmount reimbursement patientIntervention doctorSupplement vat")
            .has(strings_by_key, "label")
        ),
        "valorisations",
    )
)
HEALTHCARE_PARTY = (
    Shape()
    .holds(STORED)
    .holds(CRYPTO_ACTOR)
    .has(identifiers, "identifier")
    .has(
        text,
        "name lastName firstName civility companyName speciality bankAccount bic proxyBankAccount proxyBic "
        "invoiceHeader cbe ehp userId parentId nihii nihiiSpecCode ssin picture notes billingType type "
        "contactPerson contactPersonHcpId supervisorId",
    )
    .has(person_names, "names")
    .has(GENDER, "gender")
    .has(integer, "convention")
    .has(addresses, "addresses")
    .has(strings, "languages")
    .has(distinct(CARE_PARTY_STATUS), "statuses")
    .has(
        each(
            Shape()
            .has(CARE_PARTY_STATUS, "status")
            .has(text, "specialisationCode")
            .has(integer, "startDate")
            .has(boolean, "active")
        ),
        "statusHistory",
    )
    .has(each(CODE_STUB), "specialityCodes")
    .has(strings_by_key, "sendFormats descr importedData options")
    .has(each(FINANCIAL_INSTITUTION), "financialInstitutionInformation")
    .has(each(FLAT_RATE_TARIFICATION), "flatRateTarifications")
    .has(property_stubs, "properties publicProperties")
    .has(boolean, "public")
)
DEVICE = (
    Shape()
    .holds(DOCUMENT)
    .holds(CRYPTO_ACTOR)
    .has(identifiers, "identifiers")
    .has(text, "name type brand model serialNumber parentId picture externalId")
    .has(property_stubs, "properties")
)

USER = (
    Shape()
    .has(
        text,
        "id rev name login passwordHash healthcarePartyId patientId deviceId email mobilePhone",
    )
    .has(integer, "created deletionDate termsOfUseDate")
    .has(identifiers, "identifier")
    .has(property_stubs, "properties")
    .has(distinct(text), "roles")
    .has(one_of("database ldap token"), "type")
    .has(one_of("ACTIVE DISABLED REGISTERING"), "status")
    .has(by_key(distinct(text)), "autoDelegations")
)

EXCHANGE_DATA = (
    Shape()
    .has(text, "id rev delegator delegate sharedSignature")
    .has(integer, "deletionDate")
    .has(strings_by_key, "exchangeKey accessControlSecret sharedSignatureKey delegatorSignature")
)
EXCHANGE_DATA_MAP = Shape().has(text, "id rev").has(strings_by_key, "encryptedExchangeDataIds")
