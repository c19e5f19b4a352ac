"""`fhir-bridge journal`: what an operator sees and does about requests that were neither finished nor undone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from bridge.cli import main
from bridge.config import Config
from bridge.journal import applying
from tests.helpers import basic, stored
from tests.test_crash import NOTHING, World


def run(*arguments: str, data_dir: Path) -> Result:
    return CliRunner().invoke(main, ["journal", *arguments, "--data-dir", str(data_dir)])


@pytest.fixture
def world(config: Config, accounts: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setitem(applying.BATCH, "contact", 3)
    world = World(config, accounts["esmith"])
    assert world.dies(3, "after")
    return world


def entry_id(data_dir: Path) -> str:
    (entry,) = json.loads(run("list", "--json", data_dir=data_dir).stdout)["entries"]
    return str(entry["id"])


def test_nothing_open_is_said(data_dir: Path) -> None:
    assert run("list", data_dir=data_dir).output == "Nothing is open.\n"


def test_an_open_entry_is_listed_and_shown_without_its_content(world: World, data_dir: Path) -> None:
    listed = run("list", data_dir=data_dir)
    assert listed.exit_code == 0
    assert "to be undone, 12 documents" in listed.output
    shown = run("show", entry_id(data_dir)[:8], data_dir=data_dir)
    assert shown.exit_code == 0
    for text in ("create patient/", "create contact/", "modify contact/", "for Bundle.entry[0].resource"):
        assert text in shown.output
    for secret in (f"m{world.run}", "mark", "encryptedSelf", world.account["password"]):
        assert secret not in listed.output + shown.output


def test_an_open_entry_is_undone_at_the_operators_word(world: World, data_dir: Path) -> None:
    done = run("resolve", entry_id(data_dir), data_dir=data_dir)
    assert (done.exit_code, done.output) == (0, "Undone.\n")
    assert run("list", data_dir=data_dir).output == "Nothing is open.\n"
    assert world.standing() == NOTHING


def test_what_somebody_changed_since_stays_until_the_operator_closes_it(world: World, data_dir: Path) -> None:
    client = world.app.extensions["bridge"].scope(basic(world.account), "").client
    contact = next(
        orjson.loads(body)
        for (kind, _), (_, body) in stored(data_dir).items()
        if kind == "Contact" and f'"m{world.run}"'.encode() in body
    )
    client.modify("contact", {**contact, "modified": contact["modified"] + 1})
    name = entry_id(data_dir)
    tried = run("resolve", name, data_dir=data_dir)
    assert tried.exit_code == 1
    assert f"contact/{contact['id']}" in tried.output
    assert "somebody changed it since" in tried.output
    assert "changed by somebody since, 1 documents" in run("list", data_dir=data_dir).output
    closed = run("resolve", name, "--keep", data_dir=data_dir)
    assert closed.exit_code == 0
    assert run("list", data_dir=data_dir).output == "Nothing is open.\n"
    assert world.standing()[0] == 1


def test_an_entry_whose_worker_lives_is_not_resolved(world: World, data_dir: Path) -> None:
    (entry,) = world.journal.open_entries()
    hold = world.journal.hold(entry.name)
    assert hold is not None
    try:
        assert "running" in run("list", data_dir=data_dir).output
        for arguments in (["resolve", entry.run], ["resolve", entry.run, "--keep"]):
            refused = run(*arguments, data_dir=data_dir)
            assert refused.exit_code == 1
            assert "running" in refused.output
    finally:
        hold.release()
    assert len(world.journal.open_names()) == 1


def test_an_unknown_id_is_said(data_dir: Path) -> None:
    for command in ("show", "resolve"):
        refused = run(command, "zanzibar", data_dir=data_dir)
        assert refused.exit_code == 1
        assert "No open entry has this id." in refused.output
