"""What the documentation says, held to what happens."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import settings
from tests.helpers import serving
from tests.smtp import smtp_serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
BLOCK = re.compile(r"```sh\n(.*?)```\n(?:```text\n(.*?)```)?", re.DOTALL)
END_OF_BLOCK = "--- end of block ---"


PAGES = [page for page in sorted(ROOT.glob("docs/*.md")) if BLOCK.search(page.read_text())]
"""Those with shell blocks to be pasted."""


def pattern(shown: str) -> re.Pattern[str]:
    """Returns what matches an answer as it is shown: `…` is anything, lines without content do not count."""
    return re.compile(".*?".join(map(re.escape, _lines(shown).split("…"))))


def _lines(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.strip())


@pytest.fixture
def here(data_dir: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What stands in the pages for a server on port 8080 with ./data, and what it is in this test."""
    with (
        smtp_serving(tmp_path / "mail") as mail,
        serving(
            data_dir,
            BRIDGE_HOOK_HOSTS="127.0.0.1",
            BRIDGE_SMTP_URL=f"smtp://127.0.0.1:{mail.port}?starttls=no",
            BRIDGE_SMTP_SENDER="no-reply@example.org",
        ) as server,
    ):
        command = shlex.join([sys.executable, "-m", "bridge.cli", "demo", "--data-dir", str(data_dir)])
        yield {
            "http://127.0.0.1:8080": server.url,
            ".venv/bin/fhir-bridge demo": command,
            "data/icure.sqlite": f"{data_dir}/icure.sqlite",
        }


def run(script: str, folder: Path) -> list[str]:
    """Returns what each block printed, run one after the other in one shell in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash"],
        input=script,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=600,
        check=True,
        env=environment,
    )
    assert done.stderr == ""
    return [_lines(said) for said in done.stdout.split(END_OF_BLOCK)][:-1]


def assert_says_what_it_shows(text: str, here: dict[str, str], folder: Path) -> None:
    """Runs the shell blocks of a page in their order, and holds each to the answer that the page shows."""
    blocks = BLOCK.findall(text)
    script = "\n".join(f"{code}echo '{END_OF_BLOCK}'" for code, _ in blocks)
    for written, real in here.items():
        script = script.replace(written, real)
    for (code, shown), said in zip(blocks, run(script, folder), strict=True):
        assert pattern(shown).fullmatch(said), f"{code}\nshows\n{shown}\nbut says\n{said}"


def test_the_tutorial_of_readme_says_what_readme_shows(here: dict[str, str], tmp_path: Path) -> None:
    assert len(BLOCK.findall(README)) >= 9
    assert [written for written in here if written not in README] == []
    assert_says_what_it_shows(README, here, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_what_is_said(page: Path, here: dict[str, str], tmp_path: Path) -> None:
    assert_says_what_it_shows(page.read_text(), here, tmp_path)


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
