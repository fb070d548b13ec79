"""A frozen LLM in shares over two processes: the same losses, whole weights in every file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from safetensors.torch import load_file

from tagspeech.config_file import load_config
from tagspeech.errors import InputError
from tagspeech.training.checkpoint import load
from tagspeech.training.tagspeech import train_tagspeech

SETS = ("train.max_steps=4", "train.valid_every=2", "train.max_duration=15")
SETS += ("train.checkpoint_every=2", "llm.trainable=none", "train.precision=float32")
SETS += ("llm.layout=padded",)  # what sharding needs, for the same bits


def train(base: Path, yaml: Path, output: Path, *sets: str) -> str:
    """Two processes of torchrun; gives what they log."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tagspeech", "train", "tagspeech"]
    command += ["--config", str(yaml), "--groups", str(base / "embeddings"), "--threads", "1"]
    command += ["--init-from", str(base / "model"), "--output", str(output)]
    command += [word for item in (*SETS, *sets) for word in ("--set", item)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    return told.stderr


def test_sharded_training_is_that_of_whole_copies(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    """Losses and scores, and every weight that is written: bit for bit."""
    shared, whole = tmp_path / "shared", tmp_path / "whole"
    told = train(tiny_base, tiny_yaml, shared, "llm.shard=true", "train.valid_groups=3")
    assert re.search(r"sharded LLM: .* M weights in this process", told)
    assert "sharded LLM" not in train(tiny_base, tiny_yaml, whole, "train.valid_groups=3")
    rows = [
        [json.loads(line) for line in (folder / "curve.jsonl").read_text().splitlines()]
        for folder in (shared, whole)
    ]
    for ours, theirs in zip(*rows, strict=True):
        assert ours | {"seconds": 0} == theirs | {"seconds": 0}
    ours, theirs = (load(folder / "checkpoint-4.pt") for folder in (shared, whole))
    assert ours["model"].keys() == theirs["model"].keys()
    assert all(ours["model"][name].equal(theirs["model"][name]) for name in ours["model"])
    before = load_file(tiny_base / "model/model.safetensors")
    for name in ("model.safetensors", "llm/model.safetensors"):
        ours, theirs = (load_file(folder / "pretrained" / name) for folder in (shared, whole))
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours), name
        if name == "model.safetensors":
            assert not all(ours[key].equal(before[key]) for key in ours), "nothing was learnt"


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["llm.trainable=none"], "needs several processes"),
        (["llm.trainable=none", "llm.lora.r=2"], "needs a frozen LLM"),
        (["llm.trainable=full"], "needs a frozen LLM"),
    ],
)
def test_what_cannot_be_sharded_is_refused(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path, sets: list[str], told: str
) -> None:
    config = load_config(tiny_yaml, ["llm.shard=true", *sets])
    with pytest.raises(InputError, match=rf"llm\.shard: {told}"):
        train_tagspeech(config, tiny_base / "embeddings", None, None, tmp_path, tiny_base / "model")
    assert not list(tmp_path.iterdir())
