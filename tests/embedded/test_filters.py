"""Each filter finds exactly what it should. The tables name entities by letters; the ids say who is meant."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.embedded import Store, create_app
from bridge.embedded.filters import BY_IDS, FILTERS

from .world import (
    ALICE,
    BOB,
    CAROL,
    CLINIC,
    LOINC,
    PAUL,
    ROOT,
    Client,
    access_header,
    access_log,
    code,
    contact,
    delegation,
    delegation_key,
    health_element,
    ok,
    patient,
    refused,
    service,
    shared,
)

ICD = "http://hl7.org/fhir/sid/icd-10"
HOME = {
    "addressType": "home",
    "street": "Rue de l'Église",
    "postalCode": "1000",
    "city": "Brüssel",
    "houseNumber": "7",
}
PATIENTS = {
    "a": patient(
        firstName="Gustave",
        lastName="Eiffel",
        gender="male",
        dateOfBirth=18321215,
        ssin="321215-001.23",
        identifier=[{"system": "urn:a", "value": "1"}, {"value": "bare"}],
        active=True,
        addresses=[HOME | {"telecoms": [{"telecomType": "phone", "telecomNumber": "+32 (0)2 123"}]}],
        tags=[code("vip", "tags")],
        externalId="ext-1",
        modified=1000,
        education="engineer",
        profession="builder",
    ),
    "b": patient(
        firstName="Zoé",
        lastName="Müller-Lüdenscheidt",
        gender="female",
        dateOfBirth=19740000,
        ssin="321215-999.99",
        identifier=[{"system": "urn:a", "value": "2"}],
        maidenName="Óscar",
        spouseName="Klöbner",
        active=False,
        addresses=[HOME | {"houseNumber": "77", "postalCode": "1001"}],
        created=2000,
        education="engineer",
    ),
    "c": patient(
        firstName="Li",
        lastName="X",
        tags=[code("other", "tags")],
        externalId="ext-2",
        names=[{"lastName": "Hidden"}],
    ),
}
BY_PATIENTS = {
    "PatientByHcPartyFilter": [({}, "abc")],
    "PatientByHcPartyNameContainsFuzzyFilter": [
        ({"searchString": "eif"}, "a"),
        ({"searchString": "EÏFFEL"}, "a"),
        ({"searchString": "elgus"}, "a"),
        ({"searchString": "gustave eiffel"}, ""),
        ({"searchString": "denscheidt"}, "b"),
        ({"searchString": "oscar"}, "b"),
        ({"searchString": "klobner"}, "b"),
        ({"searchString": "hidden"}, ""),
        ({"searchString": "xli"}, "c"),
        ({"searchString": "li"}, ""),
        ({"searchString": "xl"}, "c"),
        ({"searchString": "ve"}, ""),
        ({"searchString": ""}, "abc"),
    ],
    "PatientByHcPartyNameFilter": [({"name": "zoe"}, "b"), ({"name": "zzz"}, "")],
    "PatientByHcPartyGenderEducationProfession": [
        ({"gender": "male"}, "a"),
        ({"gender": "unknown"}, "c"),
        ({"gender": "male", "education": "engineer"}, "a"),
        ({"gender": "female", "education": "engineer", "profession": ""}, "b"),
        ({"gender": "male", "education": "engineer", "profession": "builder"}, "a"),
        ({"gender": "male", "education": "x"}, ""),
    ],
    "PatientByHcPartyDateOfBirthFilter": [({"dateOfBirth": 18321215}, "a"), ({"dateOfBirth": 19740101}, "")],
    "PatientByHcPartyDateOfBirthBetweenFilter": [
        ({"minDateOfBirth": 19740000, "maxDateOfBirth": 19741231}, "b"),
        ({"minDateOfBirth": 19740101, "maxDateOfBirth": 19741231}, ""),
        ({"maxDateOfBirth": 18321215}, "a"),
        ({"minDateOfBirth": 0}, "ab"),
    ],
    "PatientByHcPartyAndIdentifiersFilter": [
        ({"identifiers": [{"system": "urn:a", "value": "1"}]}, "a"),
        ({"identifiers": [{"system": "urn:a"}]}, "ab"),
        ({"identifiers": [{"system": "urn:a", "value": "2"}, {"system": "urn:a", "value": "1"}]}, "ba"),
        ({"identifiers": [{"value": "bare"}]}, "a"),
        ({"identifiers": [{"value": "1"}]}, ""),
        ({"identifiers": [{"system": "urn:", "value": "1"}]}, ""),
        ({"identifiers": []}, ""),
    ],
    "PatientByHcPartyAndSsinFilter": [
        ({"ssin": "32121500123"}, "a"),
        ({"ssin": "32.12-15"}, "ab"),
        ({"ssin": "9"}, ""),
    ],
    "PatientByHcPartyAndSsinsFilter": [
        ({"ssins": ["32121500123", "32121599999"]}, "ab"),
        ({"ssins": []}, ""),
    ],
    "PatientByHcPartyAndTelecomFilter": [({"searchString": "+32-02"}, "a"), ({"searchString": "2123"}, "")],
    "PatientByHcPartyAndAddressFilter": [
        ({"searchString": "eglise"}, "ab"),
        ({"searchString": "1001 bru"}, "b"),
        ({"searchString": "brussel", "postalCode": "1000"}, "a"),
        ({"searchString": "brussel", "postalCode": "1001", "houseNumber": "7"}, ""),
        ({"searchString": "brussel", "postalCode": "1001", "houseNumber": "77"}, "b"),
        ({"searchString": "77"}, ""),
        ({"searchString": "brussel", "postalCode": "100"}, ""),
    ],
    "PatientByHcPartyAndActiveFilter": [({"active": True}, "ac"), ({"active": False}, "b")],
    "PatientByHcPartyAndExternalIdFilter": [
        ({"externalId": "ext"}, "ac"),
        ({"externalId": "ext-2"}, "c"),
        ({"externalId": "t-2"}, ""),
    ],
    "PatientByDataOwnerTagFilter": [
        ({"tagType": "tags"}, "ac"),
        ({"tagType": "tags", "tagCode": "vip"}, "a"),
        ({"tagType": "tag"}, ""),
    ],
    "PatientByDataOwnerModifiedAfterFilter": [
        ({"startDate": 1500}, "b"),
        ({"endDate": 1500}, "ca"),
        ({"startDate": 0, "descending": True}, "bac"),
    ],
}


def services_of_patients() -> dict:
    return {
        "m": service(
            valueDate=20240101,
            codes=[code("1-1")],
            tags=[code("lab", "cat"), code("final", "status")],
            identifier=[{"system": "s", "value": "1"}],
        ),
        "n": service(
            valueDate=20240102120000,
            codes=[code("1-1"), code("1-10")],
            tags=[code("vital", "cat")],
            formId="form",
        ),
        "o": service(openingDate=20240103, valueDate=0, codes=[code("A", ICD)]),
        "p": service(valueDate=20240301, codes=[code("1-1")], tags=[code("lab", "cat")]),
    }


SERVICES = services_of_patients()
CONTACTS = {
    "x": contact(
        SERVICES["m"],
        SERVICES["n"],
        secretForeignKeys=["sk1"],
        openingDate=20240101,
        tags=[code("visit", "kind")],
        codes=[code("K", ICD)],
        identifier=[{"system": "c", "value": "x"}],
        externalId="ext-x",
        subContacts=[
            {"healthElementId": "he", "formId": "subform", "services": [{"serviceId": SERVICES["m"]["id"]}]}
        ],
    ),
    "y": contact(
        SERVICES["o"]
        | {"qualifiedLinks": {"hasMember": {"assoc": SERVICES["m"]["id"]}, "focus": {"other": "far"}}},
        secretForeignKeys=["sk2"],
        openingDate=20240103080000,
    ),
    "z": contact(
        SERVICES["p"], secretForeignKeys=["sk1", "sk3"], openingDate=20240301, tags=[code("visit", "kind")]
    ),
}
WINTER = {"startDate": 20240101, "endDate": 20240131000000}
BY_CONTACTS = {
    "ContactByHcPartyFilter": [({}, "xyz")],
    "ContactByHcPartyTagCodeDateFilter": [
        ({"tagType": "kind", "tagCode": "visit"}, "xz"),
        ({"codeType": ICD, "codeCode": "K"}, "x"),
        ({}, ""),
        ({"tagType": "kind"}, ""),
        ({"tagType": "kind", "tagCode": "visit", "codeType": ICD, "codeCode": "K"}, "x"),
        ({"tagType": "kind", "tagCode": "visit", "startOfContactOpeningDate": 20240102}, "z"),
        ({"startOfContactOpeningDate": 20240102, "endOfContactOpeningDate": 20240201}, "y"),
    ],
    "ContactByHcPartyPatientTagCodeDateFilter": [
        ({"patientSecretForeignKeys": ["sk1"]}, "xz"),
        ({"patientSecretForeignKeys": ["sk2", "sk3"]}, "yz"),
        ({"patientSecretForeignKeys": []}, ""),
        ({"patientSecretForeignKeys": ["sk1"], "codeType": ICD, "codeCode": "K"}, "x"),
        ({"patientSecretForeignKeys": ["sk2"], "tagType": "kind", "tagCode": "visit"}, ""),
    ],
    "ContactByHcPartyIdentifiersFilter": [
        ({"identifiers": [{"system": "c", "value": "x"}]}, "x"),
        ({"identifiers": [{"system": "c", "value": "y"}]}, ""),
    ],
    "ContactByDataOwnerPatientOpeningDateFilter": [
        ({"secretForeignKeys": ["sk1"]}, "xz"),
        ({"secretForeignKeys": ["sk1"], "descending": True}, "zx"),
        ({"secretForeignKeys": ["sk1", "sk2"]} | WINTER, "xy"),
        ({"secretForeignKeys": ["sk1"], "startDate": 20240131, "endDate": 20240101}, "x"),
        ({"secretForeignKeys": []}, ""),
    ],
    "ContactByDataOwnerOpeningDateFilter": [
        (WINTER, "xy"),
        ({"startDate": 20240103}, "yz"),
        ({"descending": True}, "zyx"),
    ],
    "ContactByDataOwnerServiceTagFilter": [
        ({"tagType": "cat", "tagCode": "lab"}, "xz"),
        ({"tagType": "status"}, "x"),
        ({"tagType": "kind"}, ""),
    ],
    "ContactByDataOwnerServiceCodeFilter": [
        ({"codeType": LOINC, "codeCode": "1-1"}, "xz"),
        ({"codeType": ICD}, "y"),
        ({"codeType": ICD, "codeCode": "K"}, ""),
    ],
    "ContactByDataOwnerFormIdsFilter": [
        ({"formIds": ["form"]}, "x"),
        ({"formIds": ["subform", "no"]}, "x"),
        ({"formIds": ["no"]}, ""),
    ],
    "ContactByHcPartyFormIdsFilter": [({"formIds": ["form"]}, "x")],
    "ContactByServiceIdsFilter": [
        ({"ids": [SERVICES["o"]["id"], SERVICES["n"]["id"]]}, "yx"),
        ({"ids": ["no"]}, ""),
    ],
    "ContactByExternalIdFilter": [],
}
JANUARY = {"startValueDate": 20240101, "endValueDate": 20240131}
BY_SERVICES = {
    "ServiceByHcPartyFilter": [({}, "mnop")],
    "ServiceByHcPartyTagCodeDateFilter": [
        ({"codeType": LOINC, "codeCode": "1-1"}, "mnp"),
        ({"codeType": LOINC, "codeCode": "1-1", "descending": True}, "pnm"),
        ({"codeType": LOINC, "codeCode": "1-1"} | JANUARY, "mn"),
        ({"codeType": LOINC, "codeCode": "1-1", "endValueDate": 20240102}, "m"),
        ({"codeType": LOINC, "codeCode": "1-1", "endValueDate": 20240102120000}, "mn"),
        ({"codeType": LOINC, "codeCode": "1-1", "startValueDate": 20240102120000}, "np"),
        ({"tagType": "cat", "tagCode": "lab"}, "mp"),
        ({"tagType": "cat", "tagCode": "lab", "codeType": LOINC, "codeCode": "1-1"}, "mp"),
        ({"tagType": "cat", "tagCode": "vital", "codeType": LOINC, "codeCode": "1-10"}, "n"),
        ({"codeType": LOINC}, ""),
        ({}, ""),
        (JANUARY, ""),
        ({"codeType": LOINC, "codeCode": "1-1", "patientSecretForeignKeys": ["sk3"]}, "p"),
        ({"codeType": LOINC, "codeCode": "1-1", "patientSecretForeignKey": "sk1"}, "mnp"),
        ({"codeType": LOINC, "codeCode": "1-1", "patientSecretForeignKeys": ["sk1"]} | JANUARY, "mn"),
        ({"codeType": ICD, "codeCode": "K"}, ""),
        ({"codeType": LOINC, "codeCode": "1-1", "patientSecretForeignKeys": []}, ""),
        ({"codeType": LOINC, "codeCode": "1-1", "startValueDate": 20240131, "endValueDate": 20240101}, ""),
    ],
    "ServiceBySecretForeignKeys": [
        ({"patientSecretForeignKeys": ["sk1"]}, "mnp"),
        ({"patientSecretForeignKeys": ["sk2", "sk3"]}, "op"),
        ({"patientSecretForeignKeys": []}, ""),
    ],
    "ServiceByDataOwnerPatientDateFilter": [
        ({"secretForeignKeys": ["sk1"]} | WINTER, "mn"),
        ({"secretForeignKeys": ["sk1"], "descending": True}, "pnm"),
        ({"secretForeignKeys": ["sk2"], "startDate": 20240103, "endDate": 20240103}, "o"),
    ],
    "ServiceByHcPartyIdentifiersFilter": [
        ({"identifiers": [{"system": "s", "value": "1"}]}, "m"),
        ({"identifiers": [{"system": "s", "value": "2"}]}, ""),
    ],
    "ServiceByHcPartyHealthElementIdsFilter": [
        ({"healthElementIds": ["he"]}, "m"),
        ({"healthElementIds": ["no"]}, ""),
    ],
    "ServiceByHcPartyCodePrefixFilter": [
        ({"codeType": LOINC, "codeCodePrefix": "1-1"}, "mnp"),
        ({"codeType": LOINC, "codeCodePrefix": "1-10"}, "n"),
        ({"codeType": LOINC, "codeCodePrefix": ""}, "mnp"),
    ],
    "ServiceByHcPartyTagPrefixFilter": [
        ({"tagType": "cat", "tagCodePrefix": "v"}, "n"),
        ({"tagType": "cat", "tagCodePrefix": ""} | JANUARY, "mn"),
    ],
    "ServiceByHcPartyMonthCodePrefixFilter": [
        ({"codeType": LOINC, "codeCodePrefix": "", "year": 2024, "month": 3}, "p"),
        ({"codeType": LOINC, "codeCodePrefix": "", "year": 2024}, "mnp"),
        ({"codeType": LOINC, "codeCodePrefix": "", "year": 2023}, ""),
        ({"codeType": LOINC, "codeCodePrefix": "", "year": 2**62}, ""),
        ({"codeType": LOINC, "codeCodePrefix": "", "year": -(2**62)}, ""),
    ],
    "ServiceByHcPartyMonthTagPrefixFilter": [
        ({"tagType": "cat", "tagCodePrefix": "l", "year": 2024, "month": 1}, "m")
    ],
    "ServiceByHcPartyPatientCodePrefixFilter": [
        ({"codeType": LOINC, "codeCodePrefix": "1", "patientSecretForeignKeys": ["sk3"]}, "p")
    ],
    "ServiceByHcPartyPatientTagPrefixFilter": [
        ({"tagType": "cat", "tagCodePrefix": "", "patientSecretForeignKeys": ["sk1"]}, "mpn")
    ],
    "ServiceByHcPartyCodesFilter": [
        ({"codeCodes": {LOINC: ["1-10"], ICD: ["A"]}}, "no"),
        ({"codeCodes": {LOINC: ["1-1"]}} | JANUARY, "mn"),
        ({"codeCodes": {}}, ""),
    ],
    "ServiceByHcPartyTagCodesFilter": [({"tagCodes": {"cat": ["lab", "vital"]}}, "mpn")],
    "ServiceByHcPartyPatientCodesFilter": [
        ({"codeCodes": {LOINC: ["1-1"]}, "patientSecretForeignKeys": ["sk3"]}, "p")
    ],
    "ServiceByHcPartyPatientTagCodesFilter": [
        ({"tagCodes": {"cat": ["lab"]}, "patientSecretForeignKeys": ["sk1"]}, "mp")
    ],
    "ServiceByQualifiedLinkFilter": [],
    "ServiceByAssociationIdFilter": [],
}
ELEMENTS = {
    "e": health_element(
        secretForeignKeys=["sk1"],
        openingDate=20240101,
        codes=[code("A", ICD)],
        tags=[code("t", "kind")],
        identifiers=[{"system": "h", "value": "1"}],
    ),
    "f": health_element(secretForeignKeys=["sk2"], openingDate=20240201, codes=[code("A", ICD)], status=1),
}
BY_ELEMENTS = {
    "HealthElementByHcPartyFilter": [({}, "ef")],
    "HealthElementByHcPartyTagCodeFilter": [
        ({"codeType": ICD, "codeCode": "A"}, "ef"),
        ({"codeType": ICD, "codeCode": "A", "status": 1}, "f"),
        ({"tagType": "kind", "tagCode": "t"}, "e"),
        ({}, ""),
    ],
    "HealthElementByHcPartySecretForeignKeysFilter": [
        ({"patientSecretForeignKeys": ["sk1", "sk2"]}, "ef"),
        ({"patientSecretForeignKeys": []}, ""),
    ],
    "HealthElementByHcPartyIdentifiersFilter": [({"identifiers": [{"system": "h", "value": "1"}]}, "e")],
    "HealthElementByDataOwnerPatientOpeningDate": [
        ({"patientSecretForeignKeys": ["sk1", "sk2"], "startDate": 20240115}, "f")
    ],
    "HealthElementByHcPartyStatusFilter": [({"status": 1}, "f")],
}
LOGS = {
    "K": access_log(secretForeignKeys=["sk1"], date=100, user="alice", accessType="USER_ACCESS"),
    "L": access_log(secretForeignKeys=["sk2"], date=200, user="alice", accessType="SYSTEM_ACCESS"),
    "M": access_log(secretForeignKeys=["sk1"], date=300, user="carol", accessType="USER_ACCESS"),
}
BY_LOGS = {
    "AccessLogByDateFilter": [
        ({}, "KLM"),
        ({"startDate": 200}, "LM"),
        ({"endDate": 200}, "KL"),
        ({"descending": True}, "MLK"),
    ],
    "AccessLogByUserIdUserTypeDateFilter": [
        ({"userId": "alice"}, "KL"),
        ({"userId": "alice", "accessType": "USER_ACCESS"}, "K"),
        ({"userId": "alice", "startDate": 101}, "L"),
        ({"userId": "ali"}, ""),
    ],
    "AccessLogByDataOwnerPatientDateFilter": [
        ({"secretPatientIds": ["sk1"]}, "KM"),
        ({"secretPatientIds": ["sk1"], "descending": True}, "MK"),
        ({"secretPatientIds": ["sk1", "sk2"], "startDate": 150, "endDate": 250}, "L"),
        ({"secretPatientIds": []}, ""),
    ],
}
KINDS = {
    "/patient": ("/patient", PATIENTS, BY_PATIENTS),
    "/contact": ("/contact", CONTACTS, BY_CONTACTS),
    "/contact/service": ("/contact", CONTACTS, BY_SERVICES),
    "/helement": ("/helement", ELEMENTS, BY_ELEMENTS),
    "/accesslog": ("/accesslog", LOGS, BY_LOGS),
}
IDS = {
    letter: entity["id"]
    for entities in (PATIENTS, SERVICES, CONTACTS, ELEMENTS, LOGS)
    for letter, entity in entities.items()
}
LETTERS = {entity_id: letter for letter, entity_id in IDS.items()}
CASES = [
    (path, name, members, found)
    for path, (_, _, table) in KINDS.items()
    for name, cases in table.items()
    for members, found in cases
]
UNORDERED = {"PatientByHcPartyFilter", "ContactByServiceIdsFilter"}


def with_owner(name: str, members: dict, owner: str | None) -> dict:
    member = FILTERS[name].owner
    return {"$type": name} | members | ({member: owner} if member and owner else {})


def letters(response) -> str:
    return "".join(LETTERS.get(found, "?") for found in ok(response))


@pytest.fixture(scope="module")
def library(tmp_path_factory, furnished):
    """A store with everything of the tables, which Alice owns, and as much again that is only Bob's."""
    directory = shutil.copytree(furnished[0], tmp_path_factory.mktemp("library") / "data")
    store = Store(directory)
    app = create_app(directory, store=store)
    clients = {name: Client(app, f"Bearer {token}") for name, token in furnished[1].items()}
    for path, entities, _ in KINDS.values():
        for entity in entities.values():
            if clients["alice"].post(path, entity).status_code == 409:
                continue
            copy = entity | {"id": f"bobs-{entity['id']}", "securityMetadata": shared(BOB)}
            if "services" in entity:
                copy["services"] = [one | {"id": f"bobs-{one['id']}"} for one in entity["services"]]
            clients["bob"].create(path, copy)
    yield clients
    store.close()


@pytest.mark.parametrize(
    ("path", "name", "members", "found"), CASES, ids=[f"{name} {members}" for _, name, members, _ in CASES]
)
def test_finds_exactly(library, path, name, members, found):
    answer = letters(library["alice"].post(f"{path}/match", with_owner(name, members, ALICE)))
    assert answer == found or (sorted(answer) == sorted(found) and not members.get("descending"))
    assert len(set(answer)) == len(answer)


@pytest.mark.parametrize(
    ("path", "name", "members", "found"), CASES, ids=[f"{name} {members}" for _, name, members, _ in CASES]
)
def test_the_caller_is_meant_when_nobody_is_named(library, path, name, members, found):
    assert sorted(letters(library["alice"].post(f"{path}/match", with_owner(name, members, None)))) == sorted(
        found
    )
    assert not set(letters(library["carol"].post(f"{path}/match", with_owner(name, members, None)))) - {"?"}


OWNED = [(path, name) for path, (_, _, table) in KINDS.items() for name in table if FILTERS[name].owner]


@pytest.mark.parametrize(("path", "name"), OWNED, ids=[name for _, name in OWNED])
def test_naming_somebody_else_is_forbidden(library, path, name):
    given = next((members for members, found in KINDS[path][2][name] if found), {})
    refused(library["carol"].post(f"{path}/match", with_owner(name, given, ALICE)), 403)
    refused(library["root"].post(f"{path}/match", with_owner(name, given, ALICE)), 403)
    assert letters(library["carol"].post(f"{path}/match", with_owner(name, given, CLINIC))) == ""
    refused(
        library["alice"].post(f"{path}/match", with_owner(name, given, None) | {FILTERS[name].owner: 7}), 400
    )


UNOWNED = {
    "ContactByExternalIdFilter": ("/contact", {"externalId": "ext-x"}),
    "ServiceByQualifiedLinkFilter": ("/contact/service", {"linkValues": [IDS["m"]]}),
    "ServiceByAssociationIdFilter": ("/contact/service", {"associationId": "assoc"}),
}


@pytest.mark.parametrize(("name", "asked"), UNOWNED.items(), ids=UNOWNED)
def test_what_names_no_data_owner_and_could_leak_is_forbidden(library, name, asked):
    path, members = asked
    refused(library["alice"].post(f"{path}/match", {"$type": name} | members), 403)


def test_filters_that_name_nobody_work_without_access_rules(data_dir, furnished):
    app = create_app(data_dir, enforce_access=False)
    alice = Client(app, f"Bearer {furnished[1]['alice']}")
    for entity in CONTACTS.values():
        alice.create("/contact", entity)
    for name, (path, members) in UNOWNED.items():
        found = letters(alice.post(f"{path}/match", {"$type": name} | members))
        assert found == ("x" if name.startswith("Contact") else "o"), name
    linked = alice.post("/contact/service/linkedTo", {"ids": [IDS["m"]]}, linkType="hasMember")
    assert [one["id"] for one in ok(linked)] == [IDS["o"]]
    assert ok(alice.post("/contact/service/linkedTo", {"ids": [IDS["m"]]}, linkType="focus")) == []
    assert [one["id"] for one in ok(alice.get("/contact/service/associationId", associationId="assoc"))] == [
        IDS["o"]
    ]
    app.extensions["store"].close()


PEOPLE = {
    "HealthcarePartyByNameFilter": [
        ({"name": "testera"}, [ALICE]),
        ({"name": "Tester"}, [ALICE, BOB, CAROL, ROOT]),
        ({"name": "alice"}, []),
        ({"name": "clin"}, [CLINIC]),
    ],
    "HealthcarePartyByParentIdFilter": [({"parentId": CLINIC}, [ALICE, CAROL]), ({"parentId": ALICE}, [])],
    "HealthcarePartyByIdentifiersFilter": [
        ({"identifiers": [{"system": "n", "value": "1"}]}, ["lab"]),
        ({"identifiers": [{"system": "n", "value": "2"}]}, []),
    ],
    "HealthcarePartyByTagCodeFilter": [
        ({"codeType": "spec", "codeCode": "bio"}, ["lab"]),
        ({"tagType": "spec", "tagCode": "bio"}, []),
    ],
    "HealthcarePartyByNationalIdentifierFilter": [
        ({"searchValue": "12-34"}, ["lab"]),
        ({"searchValue": "99"}, []),
    ],
    "AllHealthcarePartiesFilter": [({}, [ALICE, BOB, CAROL, CLINIC, "lab", ROOT])],
}


@pytest.mark.parametrize(("name", "cases"), PEOPLE.items(), ids=PEOPLE)
def test_finds_healthcare_parties(root, bob, name, cases):
    root.create(
        "/hcparty",
        {
            "id": "lab",
            "name": "Lab",
            "nihii": "1234-5",
            "codes": [code("bio", "spec")],
            "identifier": [{"system": "n", "value": "1"}],
        },
    )
    for members, found in cases:
        assert sorted(bob.match("/hcparty", name, **members)) == sorted(found)


USERS = {
    "UsersByPatientIdFilter": [({"patientId": PAUL}, ["paul"]), ({"patientId": "x"}, [])],
    "UserByHealthcarePartyIdFilter": [
        ({"healthcarePartyId": BOB}, ["bob"]),
        ({"healthcarePartyId": PAUL}, []),
    ],
    "UserByNameEmailPhoneFilter": [({"searchString": "PAU"}, ["paul"]), ({"searchString": "aul"}, [])],
    "AllUsersFilter": [({}, ["alice", "bob", "carol", "paul", "root"])],
}


@pytest.mark.parametrize(("name", "cases"), USERS.items(), ids=USERS)
def test_finds_users_for_administrators(root, bob, name, cases):
    for members, found in cases:
        users = ok(root.post("/user/byIds", {"ids": root.match("/user", name, **members)}))
        assert sorted(user["login"] for user in users) == found
        refused(bob.post("/user/match", {"$type": name} | members), 403)


def test_every_filter_is_in_a_table():
    tested = {
        name
        for table in (BY_PATIENTS, BY_CONTACTS, BY_SERVICES, BY_ELEMENTS, BY_LOGS, PEOPLE, USERS)
        for name in table
    }
    assert tested == FILTERS.keys()


PATHS = {
    "Patient": "/patient",
    "Contact": "/contact",
    "Service": "/contact/service",
    "HealthElement": "/helement",
    "AccessLog": "/accesslog",
    "HealthcareParty": "/hcparty",
    "User": "/user",
}


@pytest.mark.parametrize(("name", "kind"), BY_IDS.items(), ids=BY_IDS)
def test_filters_by_ids_answer_the_ids_as_they_are(root, name, kind):
    path = PATHS[kind]
    assert root.match(path, name, ids=["b", "a", "b"]) == ["b", "a"]
    assert root.match(path, "IdsFilter", ids=["x"]) == ["x"]


def code_filter(value: str) -> dict:
    return {
        "$type": "ServiceByHcPartyTagCodeDateFilter",
        "healthcarePartyId": ALICE,
        "codeType": LOINC,
        "codeCode": value,
    }


def patient_filter(*secret_ids: str) -> dict:
    return {
        "$type": "ServiceBySecretForeignKeys",
        "healthcarePartyId": ALICE,
        "patientSecretForeignKeys": list(secret_ids),
    }


COMBINED = {
    "union, first seen first": (
        {"$type": "UnionFilter", "filters": [patient_filter("sk2"), code_filter("1-1")]},
        "omnp",
    ),
    "union of none": ({"$type": "UnionFilter", "filters": []}, ""),
    "intersection, order of the first": (
        {
            "$type": "IntersectionFilter",
            "filters": [code_filter("1-1") | {"descending": True}, patient_filter("sk1")],
        },
        "pnm",
    ),
    "intersection of three": (
        {
            "$type": "IntersectionFilter",
            "filters": [patient_filter("sk1"), code_filter("1-1"), code_filter("1-10")],
        },
        "n",
    ),
    "intersection of none": ({"$type": "IntersectionFilter", "filters": []}, ""),
    "complement": (
        {
            "$type": "ComplementFilter",
            "superSet": patient_filter("sk1", "sk2"),
            "subSet": code_filter("1-10"),
        },
        "mpo",
    ),
    "nested": (
        {
            "$type": "IntersectionFilter",
            "filters": [
                {"$type": "UnionFilter", "filters": [code_filter("1-10"), patient_filter("sk3")]},
                patient_filter("sk1"),
            ],
        },
        "np",
    ),
    "ids": (
        {
            "$type": "IntersectionFilter",
            "filters": [{"$type": "ServiceByIdsFilter", "ids": [IDS["p"], IDS["m"]]}, code_filter("1-1")],
        },
        "pm",
    ),
    "old discriminator": (
        {
            "type": "ServiceBySecretForeignKeys",
            "filterType": "x",
            "healthcarePartyId": ALICE,
            "patientSecretForeignKeys": ["sk2"],
        },
        "o",
    ),
}


@pytest.mark.parametrize(("given_filter", "found"), COMBINED.values(), ids=COMBINED)
def test_combined_filters(library, given_filter, found):
    assert letters(library["alice"].post("/contact/service/match", given_filter)) == found


BAD = {
    "no object": [],
    "no type": {},
    "unknown type": {"$type": "Nonsense"},
    "type no string": {"$type": 7},
    "type a list": {"$type": []},
    "of another entity": {"$type": "PatientByHcPartyFilter"},
    "of another entity, by ids": {"$type": "PatientByIdsFilter", "ids": []},
    "of another entity, inside": {"$type": "UnionFilter", "filters": [{"$type": "PatientByHcPartyFilter"}]},
    "no filters": {"$type": "UnionFilter"},
    "filters no array": {"$type": "IntersectionFilter", "filters": {}},
    "no super set": {"$type": "ComplementFilter", "subSet": code_filter("1-1")},
    "member of a wrong type": code_filter("1-1") | {"codeCode": 7},
    "number of a wrong type": code_filter("1-1") | {"startValueDate": "x"},
    "number too large": code_filter("1-1") | {"startValueDate": 2**64 - 1},
    "year no number": {"$type": "ServiceByHcPartyMonthCodePrefixFilter", "codeType": LOINC, "year": "x"},
    "list of a wrong type": {"$type": "ServiceBySecretForeignKeys", "patientSecretForeignKeys": "sk1"},
    "code without type": {"$type": "ServiceByHcPartyTagCodeDateFilter", "codeCode": "1-1"},
    "old discriminator alone": {"type": "ServiceByHcPartyFilter"},
    "member missing": {"$type": "ServiceByHcPartyCodePrefixFilter"},
}


@pytest.mark.parametrize("given_filter", BAD.values(), ids=BAD)
def test_bad_filters_are_refused(library, given_filter):
    refused(library["alice"].post("/contact/service/match", given_filter), 400)
    refused(library["alice"].post("/contact/service/filter", {"filter": given_filter}), 400)


def test_a_very_deep_filter_is_refused(library):
    deep: dict = patient_filter("sk1")
    for _ in range(100):
        deep = {"$type": "UnionFilter", "filters": [deep]}
    refused(library["alice"].post("/contact/service/match", deep), 400)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**65), 2**65) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
member_names = sorted(
    {member for known in FILTERS.values() for member in known.members.members}
    | {"ids", "filters", "superSet", "subSet", "healthcarePartyId", "dataOwnerId", "hcpId"}
)


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from([*FILTERS, *BY_IDS, "UnionFilter", "IntersectionFilter", "ComplementFilter"]),
    members=st.dictionaries(st.sampled_from(member_names), json_values, max_size=4),
)
def test_any_filter_is_answered_or_refused_in_words(library, name, members):
    for path in PATHS.values():
        assert library["root"].post(f"{path}/match", {"$type": name} | members).status_code in (200, 400, 403)


def test_a_user_without_data_owner_must_name_one(root, app):
    root.create("/user", {"id": "u", "login": "dora", "passwordHash": "a long password"})
    token = ok(Client(app).post("/auth/login", {"username": "dora", "password": "a long password"}))["token"]
    refused(Client(app, f"Bearer {token}").post("/patient/match", {"$type": "PatientByHcPartyFilter"}), 400)


def test_deleted_entities_are_in_no_filter_but_by_ids(alice):
    stored, home = (
        alice.create("/patient", patient()),
        alice.create("/contact", contact(service(codes=[code("1-1")]))),
    )
    ok(alice.delete(f"/patient/{stored['id']}"))
    ok(alice.delete(f"/contact/{home['id']}"))
    assert alice.match("/patient", "PatientByHcPartyFilter") == []
    assert alice.match("/contact", "ContactByHcPartyFilter") == []
    assert alice.match("/contact/service", "ServiceByHcPartyFilter") == []
    assert alice.match("/patient", "PatientByIdsFilter", ids=[stored["id"]]) == [stored["id"]]
    ok(alice.post(f"/contact/undelete/{home['id']}", rev=ok(alice.get(f"/contact/{home['id']}"))["rev"]))
    assert alice.match("/contact/service", "ServiceByHcPartyFilter") == [home["services"][0]["id"]]


def test_children_search_for_their_parents(alice, carol, bob):
    for owner in (ALICE, CLINIC):
        alice.create("/patient", patient(owner=owner, id=f"of-{owner}"))
    assert alice.match("/patient", "PatientByHcPartyFilter", healthcarePartyId=ALICE) == [f"of-{ALICE}"]
    assert carol.match("/patient", "PatientByHcPartyFilter", healthcarePartyId=CLINIC) == [f"of-{CLINIC}"]
    refused(bob.post("/patient/match", {"$type": "PatientByHcPartyFilter", "healthcarePartyId": CLINIC}), 403)


def test_anonymous_data_owners_search_with_their_keys(alice, paul):
    secret = delegation_key("secret")
    own = {
        "secureDelegations": {
            delegation_key("self"): delegation(ALICE, ALICE),
            secret: delegation(ALICE, None, "READ", delegation_key("self")),
        }
    }
    stored = alice.create("/contact", contact(service(), securityMetadata=own, secretForeignKeys=["sk"]))
    holder = paul.with_headers(Icure_Access_Control_Keys=access_header("secret"))
    for somebody, found in ((holder, [stored["services"][0]["id"]]), (paul, [])):
        assert (
            somebody.match(
                "/contact/service",
                "ServiceBySecretForeignKeys",
                healthcarePartyId=PAUL,
                patientSecretForeignKeys=["sk"],
            )
            == found
        )
    refused(holder.post("/contact/match", {"$type": "ContactByHcPartyFilter", "hcpId": ALICE}), 403)


def test_changes_move_in_the_index(alice):
    stored = alice.create("/patient", patient(lastName="Before", tags=[code("old", "t")]))
    ok(alice.put("/patient", stored | {"lastName": "After", "tags": []}))
    assert alice.match("/patient", "PatientByHcPartyNameFilter", name="before") == []
    assert alice.match("/patient", "PatientByHcPartyNameFilter", name="after") == [stored["id"]]
    assert alice.match("/patient", "PatientByDataOwnerTagFilter", tagType="t") == []


def pages(client: Client, path: str, chain: dict, limit: int) -> list[list[str]]:
    found, start = [], None
    while True:
        answer = ok(
            client.post(f"{path}/filter", chain, limit=limit, **({"startDocumentId": start} if start else {}))
        )
        assert answer.keys() <= {"rows", "nextKeyPair"}
        found.append([row["id"] for row in answer["rows"]])
        if "nextKeyPair" not in answer:
            return found
        start = answer["nextKeyPair"]["startKeyDocId"]


def test_filters_give_pages(alice):
    ids = sorted(alice.create("/patient", patient(id=f"page-{number}"))["id"] for number in range(5))
    chain = {"filter": {"$type": "PatientByHcPartyFilter", "healthcarePartyId": ALICE}}
    assert pages(alice, "/patient", chain, 2) == [ids[:2], ids[2:4], ids[4:]]
    assert pages(alice, "/patient", chain, 5) == [ids]
    assert ok(alice.post("/patient/filter", chain, limit=0)) == {
        "rows": [],
        "nextKeyPair": {"startKeyDocId": ids[0]},
    }
    refused(alice.post("/patient/filter", chain, limit=-1), 400)
    refused(alice.post("/patient/filter", chain, limit="x"), 400)
    assert ok(alice.post("/patient/filter", chain, startDocumentId="unknown")) == {"rows": []}


def test_pages_are_filled_up_past_what_the_caller_may_not_see(alice, bob):
    ids = [
        (alice if number % 2 else bob).create(
            "/patient", patient(owner=ALICE if number % 2 else BOB, id=f"page-{number}")
        )["id"]
        for number in range(8)
    ]
    chain = {"filter": {"$type": "PatientByIdsFilter", "ids": ids}}
    assert pages(alice, "/patient", chain, 3) == [["page-1", "page-3", "page-5"], ["page-7"]]


PREDICATES = {
    "equal": ({"key": "lastName", "operator": "EQUAL", "value": "Eiffel"}, "a"),
    "symbol": ({"key": "lastName", "operator": "==", "value": "Eiffel"}, "a"),
    "not equal": ({"key": "lastName", "operator": "NOTEQUAL", "value": "Eiffel"}, "bc"),
    "greater": ({"key": "dateOfBirth", "operator": "GREATERTHAN", "value": 18321215}, "b"),
    "at least": ({"key": "dateOfBirth", "operator": "GREATERTHANOREQUAL", "value": 18321215}, "ab"),
    "smaller": ({"key": "dateOfBirth", "operator": "SMALLERTHAN", "value": 19000000}, "a"),
    "at most, null on the left": (
        {"key": "dateOfBirth", "operator": "SMALLERTHANOREQUAL", "value": 99999999},
        "ab",
    ),
    "other type": ({"key": "dateOfBirth", "operator": "GREATERTHAN", "value": "x"}, ""),
    "like": ({"key": "lastName", "operator": "LIKE", "value": "E.*l"}, "a"),
    "like the whole": ({"key": "lastName", "operator": "LIKE", "value": "Eif"}, ""),
    "like in any case": ({"key": "lastName", "operator": "ILIKE", "value": "e.*L"}, "a"),
    "unknown property": ({"key": "a.b.c", "operator": "EQUAL", "value": None}, ""),
}


@pytest.mark.parametrize(("predicate", "found"), PREDICATES.values(), ids=PREDICATES)
def test_predicates(library, predicate, found):
    everybody = {"$type": "PatientByHcPartyFilter", "healthcarePartyId": ALICE}
    leaf = {"$type": "KeyValuePredicate"} | predicate
    always = {"$type": "AlwaysPredicate"}
    for whole in (
        leaf,
        {"$type": "AndPredicate", "predicates": [leaf, always]},
        {"$type": "NotPredicate", "predicate": {"$type": "NotPredicate", "predicate": leaf}},
    ):
        rows = ok(library["alice"].post("/patient/filter", {"filter": everybody, "predicate": whole}))["rows"]
        assert sorted(LETTERS[row["id"]] for row in rows) == sorted(found)
    either = {"$type": "OrPredicate", "predicates": [leaf, always]}
    assert (
        len(ok(library["alice"].post("/patient/filter", {"filter": everybody, "predicate": either}))["rows"])
        == 3
    )


@pytest.mark.parametrize(
    "predicate",
    [
        [],
        {},
        {"$type": "X"},
        {"$type": "AndPredicate"},
        {"$type": "KeyValuePredicate", "key": 1},
        {"$type": "KeyValuePredicate", "key": "a", "operator": "~"},
        {"$type": "KeyValuePredicate", "key": "a", "operator": "LIKE", "value": "x" * 1000},
    ],
)
def test_bad_predicates_are_refused(library, predicate):
    chain = {"filter": {"$type": "PatientByHcPartyFilter"}, "predicate": predicate}
    refused(library["alice"].post("/patient/filter", chain), 400)
