from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.embedded import Store, create_app
from bridge.embedded.app import EmbeddedApp

from . import world
from .world import Client, ok


@pytest.fixture(scope="session")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """A data directory with everybody in it, and their tokens: hashing passwords is slow on purpose."""
    directory = tmp_path_factory.mktemp("furnished")
    store = Store(directory)
    world.people(store)
    login = Client(create_app(directory, store=store))
    tokens = {
        name: ok(login.post("/auth/login", {"username": name, "password": world.PASSWORD}))["token"]
        for name in ("alice", "bob", "carol", "root", "paul")
    }
    store.close()
    return directory, tokens


@pytest.fixture
def data_dir(furnished: tuple[Path, dict[str, str]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(furnished[0], tmp_path / "data"))


@pytest.fixture
def store(data_dir: Path) -> Iterator[Store]:
    opened = Store(data_dir)
    yield opened
    opened.close()


@pytest.fixture
def app(store: Store, data_dir: Path) -> EmbeddedApp:
    return create_app(data_dir, store=store)


@pytest.fixture
def client(app: EmbeddedApp, furnished: tuple[Path, dict[str, str]]) -> Callable[[str], Client]:
    """Gives a logged-in client of somebody by name."""
    return lambda name: Client(app, f"Bearer {furnished[1][name]}")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets seconds pass, on every clock of Python."""

    def move(seconds: int) -> None:
        for name, unit in (("time", 1), ("monotonic", 1), ("time_ns", 1_000_000_000)):
            clock, moved = getattr(time, name), seconds * unit
            monkeypatch.setattr(time, name, lambda clock=clock, moved=moved: clock() + moved)

    return move


@pytest.fixture
def nobody(app: EmbeddedApp) -> Client:
    return Client(app)


@pytest.fixture
def alice(client: Callable[[str], Client]) -> Client:
    return client("alice")


@pytest.fixture
def bob(client: Callable[[str], Client]) -> Client:
    return client("bob")


@pytest.fixture
def carol(client: Callable[[str], Client]) -> Client:
    return client("carol")


@pytest.fixture
def root(client: Callable[[str], Client]) -> Client:
    return client("root")


@pytest.fixture
def paul(client: Callable[[str], Client]) -> Client:
    return client("paul")
