from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .world import ALICE, BOB, LOINC, code, contact, ok, patient, refused, service, shared

LEGACY = {ALICE: [{"owner": ALICE, "delegatedTo": ALICE, "key": "aa"}]}


def codes_found(client, value: str) -> list[str]:
    return client.match(
        "/contact/service", "ServiceByHcPartyTagCodeDateFilter", codeType=LOINC, codeCode=value
    )


def test_a_service_alone_carries_what_opens_it(alice):
    one = service(codes=[code("1-1")])
    part = {
        "id": "part",
        "healthElementId": "he",
        "planOfActionId": "plan",
        "formId": "form",
        "services": [{"serviceId": one["id"]}],
    }
    other = {"id": "other", "healthElementId": "no", "services": [{"serviceId": "unknown"}]}
    members = {
        "secretForeignKeys": ["sk"],
        "delegations": LEGACY,
        "encryptionKeys": LEGACY,
        "cryptedForeignKeys": LEGACY,
    }
    home = alice.create(
        "/contact",
        contact(
            one,
            subContacts=[
                part,
                other,
                {"id": "same", "healthElementId": "he", "services": [{"serviceId": one["id"]}]},
            ],
            **members,
        ),
    )
    alone = ok(alice.get(f"/contact/service/{one['id']}"))
    assert alone == home["services"][0] | members | {
        "contactId": home["id"],
        "securityMetadata": home["securityMetadata"],
        "subContactIds": ["part", "same"],
        "healthElementsIds": ["he"],
        "plansOfActionIds": ["plan"],
        "formIds": ["form"],
    }
    assert ok(alice.post("/contact/service", {"ids": [one["id"]]})) == [alone]


def test_author_and_responsible_come_from_the_contact_where_the_service_has_none(alice):
    home = alice.create("/contact", contact())
    ok(alice.put("/contact", home | {"services": [service(id="late", author="a")]}))
    alone = ok(alice.get("/contact/service/late"))
    assert (alone["author"], alone["responsible"]) == ("a", ALICE)


def test_services_come_in_the_order_asked_for_and_unknown_ones_not_at_all(alice):
    ids = [
        one["id"] for one in alice.create("/contact", contact(service(), service(), service()))["services"]
    ]
    found = ok(alice.post("/contact/service", {"ids": [ids[2], "unknown", ids[0], ids[2]]}))
    assert [one["id"] for one in found] == [ids[2], ids[0]]
    refused(alice.get("/contact/service/unknown"), 404)


def test_the_newest_version_is_the_service(alice):
    old = alice.create("/contact", contact(service(id="s", modified=1, codes=[code("old")])))
    new = alice.create("/contact", contact(service(id="s", modified=2, codes=[code("new")])))
    assert ok(alice.get("/contact/service/s"))["contactId"] == new["id"]
    assert (codes_found(alice, "old"), codes_found(alice, "new")) == ([], ["s"])
    edited = old | {"services": [old["services"][0] | {"modified": 3}]}
    ok(alice.put("/contact", edited))
    assert ok(alice.get("/contact/service/s"))["contactId"] == old["id"]
    assert (codes_found(alice, "old"), codes_found(alice, "new")) == (["s"], [])


def test_of_two_equally_new_versions_the_greater_contact_id_wins(alice):
    for contact_id in ("b", "c", "a"):
        alice.create("/contact", contact(service(id="s", modified=1), id=contact_id))
    assert ok(alice.get("/contact/service/s"))["contactId"] == "c"


@pytest.mark.parametrize("end", ["delete", "purge", "remove", "rewrite"])
def test_when_the_newest_version_goes_the_one_before_is_the_service(alice, end):
    old = alice.create("/contact", contact(service(id="s", modified=1, codes=[code("old")])))
    new = alice.create("/contact", contact(service(id="s", modified=2, codes=[code("new")])))
    if end == "delete":
        ok(alice.delete(f"/contact/{new['id']}"))
    elif end == "purge":
        ok(alice.delete(f"/contact/purge/{new['id']}", rev=new["rev"]))
    elif end == "remove":
        ok(alice.put("/contact", new | {"services": []}))
    else:
        ok(alice.put("/contact", new | {"services": [service(id="t")]}))
    assert ok(alice.get("/contact/service/s"))["contactId"] == old["id"]
    assert (codes_found(alice, "old"), codes_found(alice, "new")) == (["s"], [])


def test_a_service_without_any_contact_left_is_unknown(alice):
    home = alice.create("/contact", contact(service(id="s")))
    ok(alice.delete(f"/contact/{home['id']}"))
    refused(alice.get("/contact/service/s"), 404)
    assert ok(alice.post("/contact/service", {"ids": ["s"]})) == []


def test_the_access_to_the_newest_version_counts(alice, bob):
    alice.create(
        "/contact", contact(service(id="s", modified=1), securityMetadata=shared(ALICE, readers=(BOB,)))
    )
    assert bob.match("/contact/service", "ServiceByHcPartyFilter") == ["s"]
    alice.create("/contact", contact(service(id="s", modified=2)))
    refused(bob.get("/contact/service/s"), 403)
    assert bob.match("/contact/service", "ServiceByHcPartyFilter") == []


def test_an_ended_service_is_matched_and_left_out_of_pages(alice):
    alice.create("/contact", contact(service(id="ended", endOfLife=5), service(id="alive")))
    chain = {"filter": {"$type": "ServiceByHcPartyFilter", "hcpId": ALICE}}
    assert sorted(ok(alice.post("/contact/service/match", chain["filter"]))) == ["alive", "ended"]
    assert [row["id"] for row in ok(alice.post("/contact/service/filter", chain))["rows"]] == ["alive"]
    assert ok(alice.get("/contact/service/ended"))["endOfLife"] == 5


def test_services_of_a_health_element(alice):
    part = {"healthElementId": "he", "services": [{"serviceId": "s"}]}
    alice.create("/contact", contact(service(id="s"), service(id="t"), subContacts=[part]))
    found = ok(alice.get("/contact/service/healthElementId/he", hcPartyId=ALICE))
    assert [one["id"] for one in found] == ["s"]
    refused(alice.get("/contact/service/healthElementId/he"), 400)


def test_contacts_by_opening_date_in_epoch_milliseconds(alice):
    for day in (1, 2, 3):
        alice.create(
            "/contact",
            contact(id=f"day-{day}", openingDate=20240100000000 + day * 1_000_000, secretForeignKeys=["sk"]),
        )
    asked = {"dataOwnerId": ALICE, "startDate": 1704153600000, "endDate": 1704240000000}
    assert ok(alice.post("/contact/byDataOwnerPatientOpeningDate", {"ids": ["sk"]}, **asked)) == [
        "day-2",
        "day-3",
    ]
    backwards = ok(
        alice.post("/contact/byDataOwnerPatientOpeningDate", {"ids": ["sk"]}, descending="true", **asked)
    )
    assert backwards == ["day-3", "day-2"]
    refused(alice.post("/contact/byDataOwnerPatientOpeningDate", {"ids": []}, **asked), 400)
    refused(
        alice.post(
            "/contact/byDataOwnerPatientOpeningDate", {"ids": ["sk"]}, **asked | {"startDate": 10**18}
        ),
        400,
    )


writes = st.lists(
    st.tuples(
        st.sampled_from(["c1", "c2", "c3"]),
        st.sampled_from(["write", "delete", "purge"]),
        st.dictionaries(st.sampled_from(["s1", "s2"]), st.integers(1, 3)),
    ),
    max_size=12,
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(writes=writes)
def test_index_and_reading_agree_after_any_writes(alice, writes):
    """The model: per contact the modified times of its services; a code tells contact and time."""
    contacts: dict[str, dict[str, int]] = {}
    for contact_id in ("c1", "c2", "c3"):
        known = alice.get(f"/contact/{contact_id}")
        if known.status_code == 200:
            ok(alice.delete(f"/contact/purge/{contact_id}", rev=known.json()["rev"]))
    for contact_id, action, services in writes:
        known = alice.get(f"/contact/{contact_id}")
        rev = known.json().get("rev")
        if action == "write":
            parts = [
                service(id=name, modified=time, codes=[code(f"{contact_id}-{time}")])
                for name, time in services.items()
            ]
            entity = contact(*parts, id=contact_id) | ({"rev": rev} if known.status_code == 200 else {})
            ok(alice.put("/contact", entity) if "rev" in entity else alice.post("/contact", entity))
            contacts[contact_id] = services
        elif known.status_code == 200:
            ok(
                alice.delete(
                    f"/contact/{contact_id}" if action == "delete" else f"/contact/purge/{contact_id}",
                    rev=rev,
                )
            )
            contacts.pop(contact_id, None)
    versions = {
        name: max(
            ((services[name], contact_id) for contact_id, services in contacts.items() if name in services),
            default=None,
        )
        for name in ("s1", "s2")
    }
    for name, newest in versions.items():
        read = alice.get(f"/contact/service/{name}")
        assert read.status_code == (200 if newest else 404)
        if newest:
            assert (read.json()["modified"], read.json()["contactId"]) == newest
    for contact_id in ("c1", "c2", "c3"):
        for time in (1, 2, 3):
            expected = sorted(name for name, newest in versions.items() if newest == (time, contact_id))
            assert sorted(codes_found(alice, f"{contact_id}-{time}")) == expected


def test_patients_are_no_services(alice):
    refused(alice.get(f"/contact/service/{alice.create('/patient', patient())['id']}"), 404)
    assert ok(alice.get("/contact/service/content/empty")) == {}
