"""What all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# One thread: the same bits on every machine, and no fight with the processes beside us.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# The same examples in every run: a red test must be red for everybody.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with reference vectors and recordings that are too large for the repository.

    It lies beside the repository, or where TAGSPEECH_SHARED says; tests that need it are skipped,
    visibly, where it is absent.
    """
    folder = Path(os.environ.get("TAGSPEECH_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent: no reference vectors to compare with")
    return folder
