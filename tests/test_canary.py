"""Nothing but the list of the design leaves the bridge in clear: every element of R4 carries a canary."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from bridge import wire
from bridge.app import create_app
from bridge.config import Config
from mappings.values import Resource
from tests.canaries import Canaries
from tests.helpers import DEMO_PATIENT, Caller, Remote, count_calls, serving
from tests.promises import CLEAR, assert_same, bare, coming_back, in_clear

TYPES = ("Patient", "Observation", "Condition")
LEAST = {"status": "final", "code": {"text": "none"}}
NEEDED = {"Observation": ("status", "code"), "Condition": ("subject",)}
"""What a resource must have."""
NOT_TELLING = ("active", "gender", "status", ".use", ".type", "].system", "deceasedBoolean", "id")
"""Clear elements whose values are codes or flags, or that no create may have."""


@pytest.fixture(scope="module", autouse=True)
def _models() -> None:
    wire.warm_up()


def resources(canaries: Canaries, subject: str) -> list[Resource]:
    """Returns resources that together fill every element; the Observations are about `subject`."""
    made = [r for resource_type in TYPES for r in canaries.variants(resource_type)]
    for resource in made:
        resource.pop("id")
        if "subject" in resource:
            resource["subject"]["reference"] = subject
    return made


def leaked(canaries: Canaries, resource_type: str, chunks: Iterable[bytes], *, asked: bool) -> dict[str, str]:
    """Returns the canaries in these bytes that the list does not allow; `asked`: ids of references are allowed."""
    return {
        canary.decode(): canaries.elements[canary]
        for canary in canaries.found_in(chunks)
        if not in_clear(resource_type, canaries.elements[canary])
        and not (asked and canary in canaries.references)
    }


def posted_singly(caller: Caller, made: list[Resource]) -> None:
    for resource in made:
        caller.created(resource)


def posted_together(caller: Caller, made: list[Resource]) -> None:
    answer = caller.post("", bundle(made))
    assert answer.status_code == 200, answer.text


def put_over_another(caller: Caller, made: list[Resource]) -> None:
    for resource in made:
        kind = resource["resourceType"]
        needed = {name: LEAST.get(name, resource[name]) for name in NEEDED.get(kind, ())}
        path = f"{kind}/{caller.created({'resourceType': kind, **needed})['id']}"
        answer = caller.send("PUT", path, resource | {"id": path.partition("/")[2]})
        assert answer.status_code == 200, answer.text


def bundle(made: list[Resource]) -> Resource:
    entries = [{"resource": r, "request": {"method": "POST", "url": r["resourceType"]}} for r in made]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@pytest.mark.parametrize("resource_type", TYPES)
@pytest.mark.parametrize("posted", [posted_singly, posted_together, put_over_another])
def test_only_the_list_leaves_in_clear(
    esmith: Caller,
    data_dir: Path,
    posted: Callable[[Caller, list[Resource]], None],
    resource_type: str,
) -> None:
    subject = f"Patient/{esmith.created({'resourceType': 'Patient'})['id']}"
    canaries = Canaries()
    made = [r for r in resources(canaries, subject) if r["resourceType"] == resource_type]
    upstream = count_calls(esmith.app)
    posted(esmith, made)

    assert leaked(canaries, resource_type, upstream.sent, asked=True) == {}
    assert leaked(canaries, resource_type, contents(data_dir), asked=False) == {}
    seen = {canaries.elements[canary] for canary in canaries.found_in(upstream.sent)}
    silent = {p for p in CLEAR[resource_type] if not p.endswith(NOT_TELLING) and not any_of(seen, p)}
    assert silent == set(), "the list allows what is not in clear, or the search is blind"


def test_no_hidden_date_stands_in_for_an_absent_one(esmith: Caller, data_dir: Path) -> None:
    canaries = Canaries()
    made = [r for r in resources(canaries, f"Patient/{DEMO_PATIENT}") if r["resourceType"] == "Observation"][
        :1
    ]
    for name in [n for n in made[0] if n.lstrip("_").startswith("effective")]:
        del made[0][name]
    upstream = count_calls(esmith.app)
    posted_singly(esmith, made)
    assert leaked(canaries, "Observation", upstream.sent, asked=True) == {}
    assert leaked(canaries, "Observation", contents(data_dir), asked=False) == {}


def test_the_search_sees_what_a_deployment_leaves_in_clear(
    data_dir: Path, tmp_path: Path, accounts: dict[str, dict[str, str]]
) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text('{"patient": ["note"], "service": ["comment"]}')
    caller = Caller(create_app(Config(data_dir=data_dir, encrypted_fields_file=manifest)), accounts["esmith"])
    caller.load_key()
    subject = f"Patient/{caller.created({'resourceType': 'Patient'})['id']}"
    canaries = Canaries()
    upstream = count_calls(caller.app)
    posted_singly(caller, resources(canaries, subject))
    assert "photo[0].data" in leaked(canaries, "Patient", upstream.sent, asked=True).values()
    assert "note[0].text" in leaked(canaries, "Observation", upstream.sent, asked=True).values()


def any_of(paths: Iterable[str], listed: str) -> bool:
    return any(
        path.replace("[0]", "[]").replace("[1]", "[]") == listed.replace("[0]", "[]") for path in paths
    )


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]


@pytest.mark.parametrize("resource_type", TYPES)
def test_every_element_of_r4_comes_back(esmith: Caller, resource_type: str) -> None:
    subject = f"Patient/{esmith.created({'resourceType': 'Patient'})['id']}"
    for resource in resources(Canaries(), subject):
        if resource["resourceType"] == resource_type:
            sent = wire.parse(wire.dump(resource))
            read = wire.parse(esmith.get(f"{resource_type}/{esmith.created(resource)['id']}").data)
            assert_same(bare(read), coming_back(sent, {}))


def test_a_running_server_writes_no_canary_to_its_files_and_none_at_all_to_its_log(
    data_dir: Path, accounts: dict[str, dict[str, str]]
) -> None:
    canaries = Canaries()
    with serving(data_dir, workers=2) as server:
        client = Remote(server, accounts["esmith"])
        client.load_key()
        subject = client.post("Patient", {"resourceType": "Patient"}, 201).json()["id"]
        made = resources(canaries, f"Patient/{subject}")
        per_type = {t: [r for r in made if r["resourceType"] == t] for t in TYPES}
        client.post("", bundle([per_type["Patient"][0], *per_type["Observation"][:2]]), 200)
        for resource_type in TYPES:
            for resource in per_type[resource_type][-2:]:
                client.post(resource_type, resource, 201)
                client.post(resource_type, {**resource, "zq99999q": "zq99998q"}, 400)
            client.get(f"{resource_type}?name=zq99997q&_id=zq99996q&zq99995q=1", 200)
            client.get(f"{resource_type}/zq99994q", 404)
        client.get("zq99993q", 404)
        running = files_of(data_dir)
    stopped = files_of(data_dir)

    for files in (running, stopped):
        log = files.pop(data_dir / "serve.log")
        assert b'"event"' in log
        assert b"zq" not in log.lower()
        assert canaries.found_in([log]) == set()
        allowed = {c for c, path in canaries.elements.items() if any(in_clear(t, path) for t in TYPES)}
        assert canaries.found_in(files.values()) - allowed == set()
        assert canaries.found_in(files.values()) & allowed, "the search is blind"
        assert not any(b"zq9999" in content for content in files.values())


def files_of(folder: Path) -> dict[Path, bytes]:
    """Returns what the files hold, without those that a running server removes meanwhile."""
    found = {}
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError, IsADirectoryError):
            found[file] = file.read_bytes()
    return found
