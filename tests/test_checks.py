"""utils/test.sh installs a browser only where it is asked to; its tools are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

STAND_INS = ("ruff", "mypy", "shellcheck", "hadolint", "python3", "apt-get")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can install packages")


@pytest.fixture
def checks(root: Path, tmp_path: Path) -> Path:
    """A folder with the scripts, and programs that write down how they were called."""
    (tmp_path / ".ci").mkdir()
    shutil.copy2(root / ".ci/run", tmp_path / ".ci/run")
    shutil.copytree(root / "utils", tmp_path / "utils")
    shutil.copy2(root / "path.sh", tmp_path)
    (tmp_path / "utils/install.sh").write_text("#!/bin/sh\n")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in STAND_INS:
        (programs / name).write_text('#!/bin/sh\necho "${0##*/} $*" >>"$CALLS"\n')
        (programs / name).chmod(0o755)
    for name in ("bash", "sh", "env", "dirname", "date", "timeout", "awk"):
        (programs / name).symlink_to(str(shutil.which(name)))
    return tmp_path


def run(checks: Path, *command: str, **more: str) -> tuple[str, str]:
    """What the stand-ins were called with, and what was said on stderr."""
    calls = checks / "calls"
    calls.write_text("")
    environment = {"PATH": str(checks / ".venv/bin"), "CALLS": str(calls), **more}
    told = subprocess.run(
        [str(checks / command[0]), *command[1:]], env=environment, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    return calls.read_text(), told.stderr


def test_no_browser_is_installed_unasked(checks: Path) -> None:
    calls, messages = run(checks, "utils/test.sh", "-k", "lock")
    assert "apt-get" not in calls
    assert calls.splitlines()[-1].endswith("-k lock")
    (line,) = (line for line in messages.splitlines() if "chromium" in line)
    assert "skipped" in line
    assert "--browser true" in line


@AS_ROOT
@pytest.mark.parametrize(
    ("command", "environment"),
    [
        (("utils/test.sh", "--browser", "true", "-k", "lock"), {}),
        (("utils/test.sh", "-k", "lock"), {"CI": "true"}),
        ((".ci/run",), {}),
    ],
)
def test_browser_is_installed_where_asked(
    checks: Path, command: tuple[str, ...], environment: dict[str, str]
) -> None:
    calls, messages = run(checks, *command, **environment)
    assert "install -y --no-install-recommends chromium" in calls
    assert calls.splitlines()[-1].endswith("-k lock") == ("lock" in command)
    assert "--browser" not in calls
    assert "chromium: installing" in messages


@AS_ROOT
def test_no_browser_where_it_is_refused(checks: Path) -> None:
    calls, messages = run(checks, "utils/test.sh", "--browser", "false", CI="true")
    assert "apt-get" not in calls
    assert "skipped" in messages


def test_browser_that_is_here_is_used(checks: Path) -> None:
    calls, messages = run(checks, ".ci/run", CHROMIUM="/opt/chromium")
    assert "apt-get" not in calls
    assert "chromium" not in messages


def test_failed_installation_says_that_tests_are_skipped(checks: Path) -> None:
    (checks / ".venv/bin/apt-get").write_text("#!/bin/sh\necho 'E: no network' >&2\nexit 100\n")
    _, messages = run(checks, ".ci/run")
    (line,) = (line for line in messages.splitlines() if "skipped" in line)
    assert "cannot be installed" in line
    assert os.geteuid() != 0 or "E: no network" in line


def test_bad_value_is_one_line(checks: Path) -> None:
    told = subprocess.run(
        [checks / "utils/test.sh", "--browser", "yes"],
        env={"PATH": str(checks / ".venv/bin"), "CALLS": str(checks / "calls")},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2
    assert told.stderr == "test.sh: error: option '--browser' must be true or false, not 'yes'\n"
