from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bridge import demo
from bridge.app import create_app
from bridge.config import Config
from tests.helpers import DEMO_PATIENT, Caller
from tests.search.library import OBSERVATIONS, PATIENTS


@dataclass
class Library:
    """Two callers with the same resources each; nothing is shared between them."""

    callers: dict[str, Caller] = field(repr=False)
    ids: dict[str, str] = field(repr=False)
    """esmith's server ids by client id."""
    resources: dict[str, dict[str, Any]] = field(repr=False)
    """esmith's resources as read, by client id."""

    @property
    def esmith(self) -> Caller:
        return self.callers["esmith"]

    def asked(self, query: str) -> str:
        """Returns a query with server ids for client ids in braces, percent-encoded."""
        for client_id, server_id in self.ids.items():
            query = query.replace(f"{{{client_id}}}", server_id)
        return quote(query, safe="/?&=,|$\\:")

    def found(self, query: str) -> list[str]:
        """Returns the client ids of all pages of matches, without the demo patient, in their order."""
        back = {server_id: client_id for client_id, server_id in self.ids.items()}
        found = [r["id"] for r in self.esmith.found(self.asked(query))]
        assert len(set(found)) == len(found)
        return [back[i] for i in found if i != DEMO_PATIENT]


@pytest.fixture(scope="package")
def library(demo_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = Path(shutil.copytree(demo_template, tmp_path_factory.mktemp("library") / "data"))
    app = create_app(Config(data_dir=folder))
    app.testing = True
    callers = {account["name"]: Caller(app, account) for account in demo.accounts(folder)}
    ids: dict[str, str] = {}
    resources: dict[str, dict[str, Any]] = {}
    for name in ("jdoe", "esmith"):
        callers[name].load_key()
        for resource in (*PATIENTS, *OBSERVATIONS):
            ids[resource["id"]] = callers[name].created(resource)["id"]
    for resource in (*PATIENTS, *OBSERVATIONS):
        client_id, kind = resource["id"], resource["resourceType"]
        resources[client_id] = callers["esmith"].get(f"{kind}/{ids[client_id]}").json
    yield Library(callers, ids, resources)
