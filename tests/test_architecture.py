"""Who may know whom: imports point down, foreign libraries stay where they belong, importing does nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

ORDER: tuple[tuple[str, ...], ...] = (
    ("errors", "config", "websockets"),
    ("upstream", "crypto", "wire", "mail"),
    ("state", "importing"),
    ("throttle",),
    ("auth",),
    ("keychain", "jobs", "accesslog"),
    ("scope",),
    ("homes", "patch"),
    ("references",),
    ("search",),
    ("conditions",),
    ("plan",),
    ("journal",),
    ("interactions",),
    ("once",),
    ("operations", "users"),
    ("sharing", "events"),
    ("definitions",),
    ("bundle", "capability", "logs", "invitation"),
    ("openapi",),
    ("routes",),
)
"""From the lowest: a part imports lower ones, and nothing beside it."""
NARROW: dict[str, set[str]] = {
    "errors": set(),
    "config": set(),
    "websockets": set(),
    "upstream": {"errors"},
    "crypto": {"errors"},
    "mail": {"config", "errors"},
    "wire": {"errors"},
    "state": {"crypto", "errors"},
    "throttle": {"state"},
    "auth": {"throttle", "upstream", "errors"},
    "importing": {"crypto", "wire", "errors"},
    "jobs": {"state", "errors"},
    "patch": {"wire", "errors"},
    "journal": {"plan", "scope", "state", "upstream", "config", "errors"},
    "accesslog": {"auth", "crypto", "upstream", "errors"},
    "logs": {"search", "errors"},
    "definitions": {"sharing"},
    "users": {"homes", "upstream", "errors"},
}
"""Parts that may import no more than this, although more is lower."""
TOP = {"app", "server", "demo", "cli"}
"""Where parts meet; nobody imports these but they each other."""
ONLY_IN: dict[str, set[str]] = {
    "flask": {"bridge.routes", "bridge.app", "bridge.embedded", "bridge.logs", "bridge.openapi"},
    "flask_cors": {"bridge.app"},
    "werkzeug": {"bridge.app", "bridge.embedded", "bridge.openapi"},
    "requests": {"bridge.upstream", "bridge.app", "bridge.embedded", "bridge.importing"},
    "urllib3": {"bridge.events"},
    "cryptography": {"bridge.crypto", "bridge.keychain"},
    "jwt": {"bridge.auth", "bridge.embedded"},
    "fhir": {"bridge.wire"},
    "fhir_core": {"bridge.wire"},
    "pydantic": {"bridge.wire"},
    "gunicorn": {"bridge.server"},
    "click": {"bridge.cli"},
    "rich": {"bridge.importing"},
    "redis": {"bridge.state"},
    "smtplib": {"bridge.mail"},
    "sqlite3": {"bridge.state", "bridge.embedded", "bridge.cli", "bridge.importing"},
    "socket": {"bridge.server", "bridge.websockets", "bridge.events", "bridge.routes"},
    "subprocess": set(),
    "pickle": set(),
}
MAPPINGS = ({"values"}, {"repeats"}, {"residue", "search"}, {"engine"}, {"codecs"}, {"datatypes"}, {"tags"})
"""From the lowest; a module imports lower ones only. Those of a resource type stand above, `mappings` itself on top."""


def files(package: str) -> list[Path]:
    return [f for f in sorted((ROOT / package).rglob("*.py")) if "node_modules" not in f.parts]


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(file: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; `from a import b` gives `a.b` too when that is a module."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            submodules = [f"{module}.{a.name}" for a in node.names if is_module(f"{module}.{a.name}")]
            yield from submodules or [module]
            if submodules and len(submodules) < len(node.names):
                yield module


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def part(module: str) -> str:
    """`bridge.crypto.keys` is of the part `crypto`."""
    return (module.split(".") + [""])[1]


BRIDGE = {name_of(file): set(imports(file)) for file in files("bridge")}
ALL = BRIDGE | {name_of(file): set(imports(file)) for file in files("mappings")}


def test_every_module_has_its_place() -> None:
    parts = {part(module) for module in BRIDGE} - {""}
    assert parts == {name for names in ORDER for name in names} | TOP | {"embedded"}


@pytest.mark.parametrize("module", [m for m in BRIDGE if part(m) not in TOP | {"embedded", ""}])
def test_imports_point_down(module: str) -> None:
    own = part(module)
    level = next(at for at, names in enumerate(ORDER) if own in names)
    lower = {name for names in ORDER[:level] for name in names}
    used = {part(one) for one in BRIDGE[module] if one.startswith("bridge.")}
    assert used - {own, ""} <= NARROW.get(own, lower)
    assert NARROW.get(own, set()) <= lower


def test_nobody_imports_the_top_but_the_top() -> None:
    using = {
        m for m, used in BRIDGE.items() if {part(one) for one in used if one.startswith("bridge.")} & TOP
    }
    assert {part(m) for m in using} <= TOP


def test_the_parts_meet_in_the_app_alone() -> None:
    routes = {m for m, used in BRIDGE.items() if any(one.startswith("bridge.routes") for one in used)}
    assert {part(m) for m in routes} <= {"app", "routes"}


@pytest.mark.parametrize("module", [m for m in BRIDGE if part(m) == "embedded"])
def test_the_embedded_store_knows_nothing_of_the_bridge(module: str) -> None:
    ours = {one for one in BRIDGE[module] if one.split(".")[0] in ("bridge", "mappings", "tests")}
    assert {one for one in ours if not one.startswith("bridge.embedded")} == set()


def test_who_uses_the_embedded_store() -> None:
    using = {m for m, used in BRIDGE.items() if any(one.startswith("bridge.embedded") for one in used)}
    assert {part(m) for m in using} <= TOP | {"embedded"}


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_foreign_library_is_known_where_it_belongs(library: str) -> None:
    using = {m for m, used in ALL.items() if library in {one.split(".")[0] for one in used}}
    assert {m for m in using if not any(m == o or m.startswith(f"{o}.") for o in ONLY_IN[library])} == set()


def test_every_foreign_library_is_a_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {one.partition(">")[0].partition("=")[0].lower() for one in project["dependencies"]}
    distributions = {
        "fhir": "fhir.resources",
        "flask_cors": "flask-cors",
        "jwt": "pyjwt",
        "simple_websocket": "simple-websocket",
    }
    through_another = {
        "werkzeug": "flask",
        "urllib3": "requests",
        "jsonpointer": "jsonpatch",
        "wsproto": "simple-websocket",
        "pydantic": "fhir.resources",
        "fhir_core": "fhir.resources",
    }
    foreign = {
        one.split(".")[0]
        for used in ALL.values()
        for one in used
        if one.split(".")[0] not in sys.stdlib_module_names | {"bridge", "mappings"}
    }
    optional = {
        dependency.partition(">")[0]
        for many in project["optional-dependencies"].values()
        for dependency in many
    }
    wanted = {through_another.get(one, distributions.get(one, one)) for one in foreign}
    assert wanted - named - optional == set()


@pytest.mark.parametrize("file", files("mappings"), ids=name_of)
def test_mappings_use_the_standard_library_alone(file: Path) -> None:
    foreign = {one.split(".")[0] for one in imports(file)} - sys.stdlib_module_names - {"mappings"}
    assert foreign == set()


@pytest.mark.parametrize("file", files("mappings"), ids=name_of)
def test_mappings_point_down(file: Path) -> None:
    level = {name: at for at, names in enumerate(MAPPINGS) for name in names}
    own = part(name_of(file))
    used = {part(one) for one in imports(file) if one.startswith("mappings.")}
    if own in level:
        assert all(level.get(one, len(MAPPINGS)) < level[own] for one in used)


@pytest.mark.parametrize("file", [*files("bridge"), *files("mappings")], ids=name_of)
def test_imports_are_absolute(file: Path) -> None:
    assert not any(isinstance(n, ast.ImportFrom) and n.level for n in ast.walk(ast.parse(file.read_text())))


def test_only_the_r4b_models_are_imported() -> None:
    everywhere = [*files("bridge"), *files("mappings"), *files("tests")]
    models = {one for file in everywhere for one in imports(file) if one.split(".")[0] == "fhir"}
    assert models
    assert {one for one in models if not one.startswith("fhir.resources.R4B")} == set()
    texts = {f.name: f.read_text() for f in files("bridge") if '"fhir.resources' in f.read_text()}
    assert all(text.count('"fhir.resources') == text.count('"fhir.resources.R4B') for text in texts.values())


QUIET = """
import json, os, sys
import threading
ours = os.getcwd() + os.sep
venv = sys.prefix + os.sep
seen = []
FORBIDDEN = ("socket.", "subprocess.", "os.fork", "os.posix_spawn", "sqlite3.connect", "os.mkdir", "os.chmod")
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path, mode = os.path.realpath(arguments[0]), arguments[1]
        python = path.endswith(".py") or "__pycache__" in path
        writes = isinstance(mode, str) and set(mode) & set("wax+")
        of_project = path.startswith(ours) and not path.startswith(venv)
        if not python and (writes or of_project):
            seen.append(f"open {path}")
    elif event.startswith(FORBIDDEN) and event != "socket.__new__":
        seen.append(event)
import fhir.resources.R4B, requests, flask, flask_cors, gunicorn.app.base, click, jwt, cryptography.x509
before = dict(os.environ)
sys.addaudithook(watch)
MODULES
if threading.active_count() > 1:
    seen.append("a thread")
if dict(os.environ) != before:
    seen.append("the environment")
print(json.dumps(seen))
"""


def test_importing_everything_opens_no_file_and_no_connection(tmp_path: Path) -> None:
    modules = "\n".join(f"import {name}" for name in ALL)
    command = [sys.executable, "-c", QUIET.replace("MODULES", modules)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
