"""The wheel holds every file of the package and works without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

# Runs the command line of the package in a folder. The environment holds an editable install of a
# checkout, which is put out of reach.
WITHOUT_CHECKOUT = """
import sys
from pathlib import Path

target, *sys.argv[1:] = sys.argv[1:]
sys.meta_path = [one for one in sys.meta_path if "editable" not in getattr(one, "__module__", "")]
sys.path = [target, *(one for one in sys.path if not (Path(one) / "tagspeech").is_dir())]
from tagspeech.cli import main

code = main()
own = [one.__file__ for name, one in sys.modules.items() if name.partition(".")[0] == "tagspeech"]
assert own and all(Path(one).is_relative_to(target) for one in own), own
sys.exit(code)
"""


def tracked(root: Path) -> list[str]:
    """The files of the repository, relative to its root."""
    if shutil.which("git") is None or not (root / ".git").exists():
        pytest.skip("not a git checkout: cannot tell which files belong to the package")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, check=True, capture_output=True, text=True
    )
    return [name for name in listed.stdout.split("\0") if name and (root / name).is_file()]


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tracked files, built offline from what is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in tracked(root):
        if name.startswith("tagspeech/") or "/" not in name:
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / "source" / name)
    # Bytecode lies in every folder of the package that was imported.
    (folder / "source/tagspeech/__pycache__").mkdir()
    (folder / "source/tagspeech/__pycache__/cli.cpython-311.pyc").write_bytes(b"")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    built = subprocess.run([*command, str(folder / "source")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_every_tracked_file_of_the_package(root: Path, wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    missing = [n for n in tracked(root) if n.startswith("tagspeech/") and n not in held]
    assert missing == []
    assert [name for name in held if name.endswith(".pyc")] == []


def test_installed_wheel_writes_a_page(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-index", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "one.rttm").write_text("SPEAKER one 1 0.50 1.00 <NA> <NA> anna <NA> <NA>\n")
    page = ["page", "--hyp", "one.rttm", "--output", "page.html"]
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_CHECKOUT, str(target), *page],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "anna" in (tmp_path / "page.html").read_text(encoding="utf-8")
