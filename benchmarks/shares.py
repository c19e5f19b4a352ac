"""Where the time of a transaction goes: shares by part, and the functions with most time of their own.

Strategy: cProfile in one process. The time of functions that are not ours (json, pydantic, SQLite …) counts for those
of ours that called them, in proportion. A profiler makes Python calls dearer than C: the shares are a guide, not a sum.
"""

from __future__ import annotations

import cProfile
import pstats
from collections import Counter
from pathlib import Path
from typing import Any

from bridge import demo
from bridge.app import create_app
from bridge.config import Config
from tests.helpers import Caller

ROOT = Path(__file__).parents[1]
ROUNDS = 40
"""More than the longest chain of foreign callers."""
DUMPING = ("dump", "dump_pretty", "number", "_ordered")
PARTS = (
    ("bridge/wire/text.py", "parse"),
    ("bridge/wire/", "gate"),
    ("mappings/values.py", ""),
    ("mappings/", "map"),
    ("bridge/crypto/", "encrypt"),
    ("bridge/embedded/", "embedded store"),
    ("bridge/upstream.py", "upstream client"),
    ("bridge/", "plan, references, answer"),
)
"""By the beginning of a file's path; the first that fits. Without a name: counts for the caller."""

Function = tuple[str, int, str]


def profiled(body: bytes, folder: Path, repeats: int = 5) -> pstats.Stats:
    """Returns the profile of this transaction, sent several times to an application in this process."""
    config = Config(data_dir=folder)
    demo.ensure(config)
    caller = Caller(create_app(config), demo.accounts(folder)[0])
    assert caller.load_key().status_code == 200
    assert caller.post("", body).status_code == 200
    profile = cProfile.Profile()
    for _ in range(repeats):
        profile.enable()
        answer = caller.post("", body)
        profile.disable()
        assert answer.status_code == 200
    return pstats.Stats(profile)


def shares(stats: pstats.Stats) -> list[tuple[str, float]]:
    """Returns the parts with their share of the whole, largest first."""
    functions: dict[Function, Any] = stats.stats  # type: ignore[attr-defined]
    parts = {f: Counter({part: 1.0} if (part := _part(f)) else {}) for f in functions}
    foreign = {f: _callers(f, value[4]) for f, value in functions.items() if not parts[f]}
    for _ in range(ROUNDS):
        for function, callers in foreign.items():
            parts[function] = _mixed([(parts[caller], weight) for caller, weight in callers])
    total = _mixed([(parts[f], value[2]) for f, value in functions.items()])
    whole = sum(value[2] for value in functions.values())
    known = [(part, spent / whole) for part, spent in total.most_common()]
    return [*known, ("Flask, and the client that asks", 1 - sum(share for _, share in known))]


def _callers(function: Function, callers: dict[Function, Any]) -> list[tuple[Function, float]]:
    """Returns who calls a function, each with its share of the time spent there."""
    spent = {caller: value[3] for caller, value in callers.items() if caller != function}
    whole = sum(spent.values())
    return [(caller, time / whole) for caller, time in spent.items()] if whole else []


def _mixed(weighted: list[tuple[Counter[str], float]]) -> Counter[str]:
    mixed: Counter[str] = Counter()
    for parts, weight in weighted:
        for part, share in parts.items():
            mixed[part] += share * weight
    return mixed


def _part(function: Function) -> str:
    file, _, name = function
    if not file.startswith(str(ROOT)) or "/.venv/" in file:
        return ""
    path = str(Path(file).relative_to(ROOT))
    if path == "bridge/wire/text.py" and name in DUMPING:
        return "write JSON"
    return next((part for beginning, part in PARTS if path.startswith(beginning)), "")


def own_times(stats: pstats.Stats, most: int = 10) -> list[tuple[str, float, int]]:
    """Returns the functions with most time of their own: name, share, calls."""
    functions: dict[Function, Any] = stats.stats  # type: ignore[attr-defined]
    whole = sum(value[2] for value in functions.values())
    ordered = sorted(functions.items(), key=lambda item: -item[1][2])[:most]
    return [(_name(function), value[2] / whole, value[1]) for function, value in ordered]


def _name(function: Function) -> str:
    file, line, name = function
    if file == "~":
        return name
    short = file.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
    return f"{short}:{line} {name}"
