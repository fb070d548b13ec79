"""Curves in Weights & Biases, whose package is a stand-in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tagspeech.errors import InputError
from tagspeech.training.boards import mirror_to_wandb


def test_curves_go_to_the_project_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    wandb = ModuleType("wandb")
    wandb.init = lambda **options: calls.append(options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.delenv("RANK", raising=False)
    mirror_to_wandb("meetings", tmp_path / "exp/tagspeech")
    (options,) = calls
    assert options["sync_tensorboard"] is True
    assert (options["project"], options["name"]) == ("meetings", "tagspeech")
    assert Path(options["dir"]).is_dir()
    json.dumps(options)
    monkeypatch.setenv("RANK", "1")
    mirror_to_wandb("meetings", tmp_path / "exp/tagspeech")
    assert len(calls) == 1


def test_without_the_package_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match=r"--wandb meetings: needs the package wandb: .*pip inst"):
        mirror_to_wandb("meetings", tmp_path)
