from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from werkzeug.serving import WSGIRequestHandler, make_server

from bridge.embedded import Store, admin, create_app

from .client import Sdk, install, public_key_hex

PASSWORD = "correct horse battery"


@dataclass(frozen=True)
class Person:
    """A data owner with its account and its private key."""

    login: str
    data_owner_id: str
    private_key: str = field(repr=False)

    def announced(self) -> dict[str, list[str]]:
        return {"publicKeysForOaepWithSha256": [public_key_hex(self.private_key)]}


@dataclass(frozen=True)
class Server:
    """An embedded store that listens on a port, with Alice and Bob, who are HCPs, Paul, a patient, and Root, an HCP
    who administrates."""

    url: str
    store: Store
    alice: Person
    bob: Person
    paul: Person
    root: Person


class Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Writes nothing."""


def person(login: str) -> Person:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return Person(login, str(uuid.uuid4()), der.hex())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    install()
    directory: Path = tmp_path_factory.mktemp("sdk")
    store = Store(directory)
    alice, bob, paul, root = map(person, ("alice", "bob", "paul", "root"))
    for hcp in (alice, bob, root):
        party = {"id": hcp.data_owner_id, "firstName": hcp.login, "lastName": "Tester"} | hcp.announced()
        admin.create_healthcare_party(store, party)
        admin.create_user(store, hcp.login, PASSWORD, data_owner_id=hcp.data_owner_id, admin=hcp is root)
    admin.create_user(store, paul.login, PASSWORD, patient_id=paul.data_owner_id)
    listening = make_server(
        "127.0.0.1", 0, create_app(directory, store=store), threaded=True, request_handler=Quiet
    )
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield Server(f"http://127.0.0.1:{listening.port}", store, alice, bob, paul, root)
    listening.shutdown()
    thread.join()
    listening.server_close()
    store.close()


@pytest.fixture(scope="session")
def log_in(server: Server) -> Iterator[Callable[[Person], Sdk]]:
    """Gives the SDK as somebody, in a new instance that knows nothing of earlier ones."""
    opened: list[Sdk] = []

    def start(somebody: Person) -> Sdk:
        opened.append(
            Sdk.start(server.url, somebody.login, PASSWORD, somebody.data_owner_id, somebody.private_key)
        )
        return opened[-1]

    yield start
    for sdk in opened:
        sdk.close()


@pytest.fixture(scope="session")
def alice(server: Server, log_in: Callable[[Person], Sdk]) -> Sdk:
    return log_in(server.alice)


@pytest.fixture(scope="session")
def root(server: Server, log_in: Callable[[Person], Sdk]) -> Sdk:
    return log_in(server.root)


@pytest.fixture(scope="session")
def bob(server: Server, log_in: Callable[[Person], Sdk]) -> Sdk:
    return log_in(server.bob)
