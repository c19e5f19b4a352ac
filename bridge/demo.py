"""The demo environment: two accounts, and what the tutorial's requests refer to.

Facts: the tutorial's data owner id, its Organization `1`, Practitioner `f005` and Patient are given names.
Passwords and keys are made on the machine on first start, never shipped.
"""

from __future__ import annotations

import json
import os
import secrets
import uuid
from base64 import b64encode
from pathlib import Path
from typing import Any, cast

from bridge import interactions
from bridge.app import create_app
from bridge.config import Config
from bridge.crypto.keys import PrivateKey
from bridge.embedded import Store, admin
from bridge.plan import Incoming
from bridge.scope import Bridge

FILE = "demo-accounts.json"
ESMITH = "2d205ac4-c8c9-428b-b68e-d9381da235d2"
PATIENT = "9a106b7f-2fa1-4b54-b3cb-c29cbfebe2ee"

PARTIES: list[dict[str, Any]] = [
    {"id": "1", "name": "ACME Healthcare, Inc", "type": "organization"},
    {"id": "f005", "firstName": "A.", "lastName": "Langeveld"},
]
HEUVEL = {
    "resourceType": "Patient",
    "active": True,
    "name": [{"use": "official", "family": "van de Heuvel", "given": ["P."]}],
    "gender": "male",
}

Account = dict[str, str]


def accounts(data_dir: Path) -> list[Account]:
    """Returns the demo accounts of a data dir; none when it has no demo environment.

    Raises `OSError` when the file does not hold them.
    """
    file = data_dir / FILE
    if not file.exists():
        return []
    try:
        return cast("list[Account]", json.loads(file.read_text())["accounts"])
    except (ValueError, LookupError, TypeError) as e:
        raise OSError(None, "Not as it was written", str(file)) from e


def new_account(name: str, password: str, data_owner_id: str) -> Account:
    """Returns an account with a fresh key pair; nothing is stored."""
    key = PrivateKey.generate()
    return {
        "name": name,
        "login": name,
        "password": password,
        "dataOwnerId": data_owner_id,
        "privateKey": key.pkcs8_der.hex(),
    }


def store_account(data_dir: Path, account: Account, *, is_admin: bool = False) -> None:
    """Adds an account's data owner and user to the embedded store. Raises `ValueError` for a taken login."""
    store = Store(data_dir)
    if admin.find_user(store, account["login"]):
        raise ValueError("This login is taken.")
    name = account["name"]
    admin.create_healthcare_party(
        store,
        {
            "id": account["dataOwnerId"],
            "firstName": name,
            "lastName": name,
            "publicKeysForOaepWithSha256": [PrivateKey.parse(account["privateKey"]).spki_hex],
        },
    )
    admin.create_user(
        store,
        account["login"],
        account["password"],
        data_owner_id=account["dataOwnerId"],
        admin=is_admin,
    )


def ensure(config: Config) -> None:
    """Makes what of the demo environment is not there yet; called before the workers fork.

    The file comes first, so that a start that broke off is finished by the next one.
    """
    data_dir = config.data_dir
    if not accounts(data_dir):
        made = [
            new_account("esmith", secrets.token_urlsafe(12), ESMITH),
            new_account("jdoe", secrets.token_urlsafe(12), str(uuid.uuid4())),
        ]
        write_secret_file(data_dir / FILE, {"accounts": made})
    store = Store(data_dir)
    for account in accounts(data_dir):
        if not admin.find_user(store, account["login"]):
            store_account(data_dir, account, is_admin=account["dataOwnerId"] == ESMITH)
    for party in PARTIES:
        admin.create_healthcare_party(store, party)
    _create_patient(config, accounts(data_dir)[0])


def _create_patient(config: Config, account: Account) -> None:
    """Posts the tutorial's patient as esmith, encrypted like any other, under the id that the tutorial uses."""
    bridge: Bridge = create_app(config).extensions["bridge"]
    pair = f"{account['login']}:{account['password']}".encode()
    credential = bridge.authenticator.credential("Basic " + b64encode(pair).decode())
    caller = bridge.authenticator.identify(credential)
    if caller.client.read("patient", PATIENT) is not None:
        return
    bridge.keychain.load(caller, credential, account["dataOwnerId"], account["privateKey"])
    scope = bridge.scope("Basic " + b64encode(pair).decode(), "")
    interactions.create(scope, Incoming(dict(HEUVEL), "Patient", id=PATIENT))
    bridge.keychain.unload(caller, account["dataOwnerId"])


def write_secret_file(path: Path, content: Any) -> None:
    """Writes JSON that only its owner may read, whole or not at all. Raises `FileExistsError` when it is there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    try:
        draft.write_text(json.dumps(content, indent=2) + "\n")
        os.link(draft, path)
    finally:
        draft.unlink()
