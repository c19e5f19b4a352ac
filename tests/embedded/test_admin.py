from __future__ import annotations

import pytest

from bridge.embedded import Store, admin, create_app
from bridge.embedded.errors import BadRequest

from .world import PASSWORD, Client, ok, refused


@pytest.fixture
def fresh(tmp_path):
    store = Store(tmp_path / "new" / "data")
    yield store
    store.close()


def test_a_store_is_furnished_without_http(fresh, tmp_path):
    assert admin.find_user(fresh, "esmith") is None
    assert not admin.has_healthcare_party(fresh, "hcp")
    party = admin.create_healthcare_party(
        fresh, {"id": "hcp", "lastName": "Smith", "publicKeysForOaepWithSha256": ["aa"]}
    )
    user = admin.create_user(fresh, "esmith", PASSWORD, data_owner_id="hcp", admin=True, name="E. Smith")
    assert admin.has_healthcare_party(fresh, "hcp")
    assert admin.find_user(fresh, "esmith") == user
    fresh.close()

    nobody = Client(create_app(tmp_path / "new" / "data", store=fresh))
    token = ok(nobody.post("/auth/login", {"username": "esmith", "password": PASSWORD}))["token"]
    esmith = Client(nobody.app, f"Bearer {token}")
    assert ok(esmith.get("/user/current")) == user
    assert ok(esmith.get("/dataowner/current"))["dataOwner"] == party
    ok(esmith.post("/hcparty", {"id": "other", "name": "Other"}))


def test_a_healthcare_party_that_is_there_is_left_as_it_is(fresh):
    first = admin.create_healthcare_party(fresh, {"id": "hcp", "lastName": "Smith"})
    assert admin.create_healthcare_party(fresh, {"id": "hcp", "lastName": "Changed"}) == first
    assert len(admin.create_healthcare_party(fresh, {"name": "no id"})["id"]) == 36


def test_accounts_follow_the_rules(fresh):
    admin.create_user(fresh, "jdoe", PASSWORD, data_owner_id="x")
    with pytest.raises(BadRequest, match="already exists"):
        admin.create_user(fresh, "jdoe", PASSWORD, data_owner_id="y")
    with pytest.raises(BadRequest, match="too short"):
        admin.create_user(fresh, "other", "short", data_owner_id="y")
    with pytest.raises(BadRequest):
        admin.create_healthcare_party(fresh, {"id": "nameless"})
    assert admin.find_user(fresh, "other") is None


def test_only_administrators_administrate(fresh, tmp_path):
    admin.create_user(fresh, "jdoe", PASSWORD, data_owner_id="x")
    nobody = Client(create_app(tmp_path / "new" / "data", store=fresh))
    token = ok(nobody.post("/auth/login", {"username": "jdoe", "password": PASSWORD}))["token"]
    refused(Client(nobody.app, f"Bearer {token}").post("/hcparty", {"id": "other", "name": "Other"}), 403)
