"""Access logs: who looked at which patient, and when."""

from __future__ import annotations

import time

import pytest

from .world import ALICE, BOB, access_log, ok, refused


@pytest.fixture
def logs(alice):
    made = [
        alice.create("/accesslog", access_log(date=date, user="alice", secretForeignKeys=["sk"]))
        for date in (300, 100, 200)
    ]
    return {log["date"]: log for log in made}


def test_what_a_client_says_comes_back(alice):
    said = access_log(
        date=5, user="u", accessType="USER_ACCESS", encryptedSelf="c2VhbGVk", secretForeignKeys=["sk"]
    )
    stored = alice.create("/accesslog", said)
    assert said.items() <= stored.items()
    assert stored["responsible"] == ALICE
    assert ok(alice.get(f"/accesslog/{stored['id']}")) == stored
    refused(alice.post("/accesslog", said), 409)


def test_the_date_is_now_unless_it_is_said(alice):
    before = time.time_ns() // 1_000_000
    assert before <= alice.create("/accesslog", access_log())["date"] <= time.time_ns() // 1_000_000


def test_several_are_written_at_once(alice):
    known = alice.create("/accesslog", access_log())
    fresh = [access_log(), access_log()]
    made = ok(alice.post("/accesslog/batch", [fresh[0], {**known, "rev": None}, fresh[1]]))
    assert [log["id"] for log in made] == [log["id"] for log in fresh]


def test_they_are_for_who_holds_a_delegation(alice, bob, logs):
    log = logs[100]
    refused(bob.get(f"/accesslog/{log['id']}"), 403)
    assert ok(bob.get("/accesslog"))["rows"] == []
    assert ok(bob.get("/accesslog/byUser", userId="alice"))["rows"] == []
    bobs = bob.create("/accesslog", access_log(BOB, user="alice"))
    assert [row["id"] for row in ok(bob.get("/accesslog/byUser", userId="alice"))["rows"]] == [bobs["id"]]


def test_they_come_by_date_in_pages(alice, logs):
    first = ok(alice.get("/accesslog", limit=2))
    assert [row["date"] for row in first["rows"]] == [100, 200]
    assert first["nextKeyPair"] == {"startKey": 300, "startKeyDocId": logs[300]["id"]}
    rest = ok(alice.get("/accesslog", limit=2, startDocumentId=logs[300]["id"]))
    assert [row["date"] for row in rest["rows"]] == [300]
    assert "nextKeyPair" not in rest
    assert [row["date"] for row in ok(alice.get("/accesslog", descending="true"))["rows"]] == [300, 200, 100]
    within = ok(alice.get("/accesslog", fromEpoch=150, toEpoch=250))
    assert [row["date"] for row in within["rows"]] == [200]


def test_they_come_by_patient(alice, logs):
    path = "/accesslog/byDataOwnerPatientDate"
    query = {"dataOwnerId": ALICE, "startDate": 150}
    assert ok(alice.post(path, {"ids": ["sk"]}, **query)) == [logs[200]["id"], logs[300]["id"]]
    assert ok(alice.post(path, {"ids": ["other"]}, **query)) == []
    refused(alice.post(path, {"ids": []}, **query), 400)
    refused(alice.post(path, {"ids": ["sk"]}), 400)


@pytest.mark.parametrize("bad", [{"date": "today"}, {"user": 7}, {"objectId": []}])
def test_what_is_no_access_log_is_refused(alice, bad):
    refused(alice.post("/accesslog", access_log(**bad)), 400)
