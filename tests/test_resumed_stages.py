"""Stage 5 and the new LLM of stage 6 resume where they were killed; leftovers are removed."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from tagspeech.config import Config
from tagspeech.config_file import load_config
from tagspeech.files import write_text
from tagspeech.training import embed as embed_module
from tagspeech.training.embed import embed
from tagspeech.training.text import new_llm


class Killed(Exception):
    """Stands for a kill."""


def stored(folder: Path) -> dict[str, Any]:
    """Manifests without the folder's name, and arrays."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".npy":
            found[name] = np.load(path).tobytes()
        elif path.suffix == ".gz":
            found[name] = gzip.decompress(path.read_bytes()).replace(str(folder).encode(), b"")
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def test_killed_embedding_resumes_to_the_same(
    tiny_base: Path, tiny_groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_module, "BATCH_SECONDS", 20.0)  # several batches
    original, batches = embed_module._embed_batch, []
    limit = 10**6

    def counted(*args: Any) -> Any:
        if len(batches) == limit:
            raise Killed
        batches.append(args)
        return original(*args)

    monkeypatch.setattr(embed_module, "_embed_batch", counted)

    def run(folder: Path) -> None:
        model = tiny_base / "model"
        embed(Config(), tiny_groups, None, None, folder, ("train", "dev"), init_from=model)

    run(tmp_path / "whole")
    whole = len(batches)
    assert whole > 5
    done = 0
    for kill in (2, whole - 3):  # in the first split, in the second
        batches.clear()
        limit = kill
        with pytest.raises(Killed):
            run(tmp_path / "killed")
        done += kill
        if done >= whole:
            break
    batches.clear()
    limit = 10**6
    run(tmp_path / "killed")
    assert len(batches) <= whole - done
    assert stored(tmp_path / "killed") == stored(tmp_path / "whole")
    assert not list(tmp_path.rglob("*.part.jsonl"))


def test_frames_of_another_model_are_not_kept(
    tiny_base: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    path = tmp_path / "dev.1-of-1.part.jsonl"
    path.write_text('{"config": {}, "groups": "", "encoders": ["another"]}\n{"id": "x"}\n')
    model = tiny_base / "model"
    embed(Config(), tiny_groups, None, None, tmp_path, ("dev",), init_from=model)
    assert not path.exists()
    assert b'"x"' not in gzip.decompress((tmp_path / "dev.jsonl.gz").read_bytes())


def test_new_llm_is_made_once(
    tiny_groups: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its parts, it goes on; with other options, it is made again."""
    from tagspeech.training import text

    made: list[Path] = []
    original = text.make_llm

    def make(*args: Any) -> None:
        made.append(args[-1])
        original(*args)

    monkeypatch.setattr(text, "make_llm", make)
    config = load_config(tiny_yaml, ["llm.new.train.max_steps=0"])
    new_llm(config, tiny_groups, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(text, "load_llm", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            new_llm(config, tiny_groups, tmp_path / "killed")
    new_llm(config, tiny_groups, tmp_path / "killed")
    before = (tmp_path / "killed/pretrained/model.safetensors").stat().st_mtime_ns
    new_llm(config, tiny_groups, tmp_path / "killed")
    assert len(made) == 2
    for name in ("model.safetensors", "tokenizer.json"):
        ours, theirs = (tmp_path / one / "pretrained" / name for one in ("killed", "whole"))
        assert ours.read_bytes() == theirs.read_bytes()
    assert (tmp_path / "killed/pretrained/model.safetensors").stat().st_mtime_ns == before
    other = load_config(tiny_yaml, ["llm.new.train.max_steps=0", "llm.new.seed=2"])
    new_llm(other, tiny_groups, tmp_path / "killed")
    assert len(made) == 3
    assert (tmp_path / "killed/pretrained/model.safetensors").stat().st_mtime_ns != before


@pytest.mark.parametrize("suffix", ["", ".jsonl.gz", ".wav"])
def test_leftovers_of_killed_processes_are_removed(tmp_path: Path, suffix: str) -> None:
    """Of a folder too; those of a process at work stay."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    folder = tmp_path / "data"
    folder.mkdir()
    from tagspeech.files import _MACHINE

    (folder / f".a.partial-{ended.pid}-{_MACHINE}{suffix}").mkdir()
    (folder / f".b.partial-{ended.pid}-{_MACHINE}{suffix}").write_text("x")
    living = folder / f".c.partial-{os.getppid()}-{_MACHINE}{suffix}"
    living.write_text("x")
    write_text(folder / "new", "x")
    assert sorted(folder.iterdir()) == [living, folder / "new"]
