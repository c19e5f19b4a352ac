"""The JavaScript packages of some tests, installed beside them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

INSTALL = ["npm", "install", "--no-audit", "--no-fund"]
INSTALL_SECONDS = 600


def install(folder: Path, what: str, *options: str) -> None:
    """Installs what `package.json` in a folder asks for, in one process at a time, unless it is there.

    Skips the test where that is not possible, which in CI is a failure.
    Fact: npm writes `.package-lock.json` last; the packages are folders before they are whole.
    """
    give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        give_up(f"the tests with {what} need {' and '.join(missing)}")
    with (folder / "package.json").open() as asked:
        fcntl.flock(asked, fcntl.LOCK_EX)
        if (folder / "node_modules" / ".package-lock.json").is_file():
            return
        try:
            command = [*INSTALL, *options]
            subprocess.run(
                command, cwd=folder, check=True, timeout=INSTALL_SECONDS, stdout=subprocess.DEVNULL
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
            give_up(f"npm could not install {what}")
