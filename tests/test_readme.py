"""What the documentation says, held to what happens."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import settings
from tests.helpers import serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
BLOCK = re.compile(r"```sh\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
END_OF_BLOCK = "--- end of block ---"


def tutorial() -> list[tuple[str, str]]:
    """Returns the shell blocks of README in their order, each with the answer that README shows."""
    return BLOCK.findall(README)


def pattern(shown: str) -> re.Pattern[str]:
    """Returns what matches an answer as it is shown: `…` is anything, lines without content do not count."""
    return re.compile(".*?".join(map(re.escape, _lines(shown).split("…"))))


def _lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


@pytest.fixture
def here(data_dir: Path) -> Iterator[dict[str, str]]:
    """What stands in README for a server on port 8080 with ./data, and what it is in this test."""
    with serving(data_dir) as server:
        command = shlex.join([sys.executable, "-m", "bridge.cli", "demo", "--data-dir", str(data_dir)])
        yield {
            "http://127.0.0.1:8080": server.url,
            ".venv/bin/fhir-bridge demo": command,
            "data/icure.sqlite": f"{data_dir}/icure.sqlite",
        }


def run(script: str) -> list[str]:
    """Returns what each block printed, run one after the other in one shell."""
    done = subprocess.run(
        ["bash"], input=script, capture_output=True, text=True, cwd=ROOT, timeout=120, check=True
    )
    assert done.stderr == ""
    return [_lines(said) for said in done.stdout.split(END_OF_BLOCK)][:-1]


def test_the_tutorial_of_readme_says_what_readme_shows(here: dict[str, str]) -> None:
    blocks = tutorial()
    assert len(blocks) >= 9
    script = "\n".join(f"{code}echo '{END_OF_BLOCK}'" for code, _ in blocks)
    for written, real in here.items():
        assert written in script, f"README no longer says {written}"
        script = script.replace(written, real)
    for (code, shown), said in zip(blocks, run(script), strict=True):
        assert pattern(shown).fullmatch(said), f"{code}\nshows\n{shown}\nbut says\n{said}"


def test_every_file_that_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("target", ["run", "demo"])
def test_the_two_commands_of_readme_are_targets_of_make(target: str) -> None:
    assert f"make {target} " in README
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "fhir-bridge" in done.stdout


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: page.name)
def test_every_link_between_the_pages_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(("name", "default"), [(name, default) for name, default, _ in settings()])
def test_every_setting_has_its_line_with_its_default(name: str, default: object) -> None:
    row = next((line for line in CONFIGURATION.splitlines() if line.startswith(f"| `{name}` |")), "")
    assert row, f"docs/configuration.md has no line for {name}"
    if isinstance(default, int | str) and default:
        assert f"`{default}`" in row.split("|")[2]


def test_no_setting_is_documented_that_there_is_not() -> None:
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", CONFIGURATION, re.MULTILINE))
    assert documented == {name for name, _, _ in settings()}
