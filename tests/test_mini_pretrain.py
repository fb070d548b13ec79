"""pretrain.sh makes parts, the same ones after a kill; a run on them trains only its projectors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tagspeech.files import verify_checksums

PARTS = ("semantic.safetensors", "voice.safetensors", "llm/model.safetensors")


def options(folder: Path, config: Path) -> list[str]:
    given = {"install": "false", "config": config, "data": folder / "data", "exp": folder / "exp"}
    sizes = {"jobs": 1, "threads": 1, "processes": 1, "train-groups": 40, "dev-groups": 10}
    return [
        word for name, value in {**given, **sizes}.items() for word in (f"--{name}", str(value))
    ]


def pretrain(root: Path, folder: Path, config: Path) -> list[str]:
    steps = ("semantic.train.max_steps", "voice.train.max_steps", "llm.new.train.max_steps")
    sets = [f"{key}=8" for key in (*steps, "train.max_steps")]
    sets += ["llm.new.num_hidden_layers=2", "loss.semantic_ctc_steps=2"]
    words = [word for item in sets for word in ("--set", item)]
    script = str(root / "egs/mini/local/pretrain.sh")
    return [script, "--output", str(folder / "parts"), *options(folder, config), *words]


@pytest.fixture(scope="module")
def pretrained(root: Path, tmp_path_factory: pytest.TempPathFactory, tiny_yaml: Path) -> Path:
    """A folder with `parts` in it, made without a stop."""
    folder = tmp_path_factory.mktemp("pretrain")
    subprocess.run(pretrain(root, folder, tiny_yaml), check=True, capture_output=True)
    return folder


def test_killed_and_called_again_gives_the_same_parts(
    root: Path, pretrained: Path, tmp_path: Path, tiny_yaml: Path
) -> None:
    command = pretrain(root, tmp_path, tiny_yaml)
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "exp/tagspeech/checkpoints.json"
    deadline = time.monotonic() + 200
    while not checkpoints.exists():
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    stage = int((tmp_path / "exp/.stages/lock").read_text().split()[1])
    for group in (process.pid, stage):
        os.killpg(group, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "parts").exists()
    subprocess.run(command, check=True, capture_output=True)
    for part in PARTS:
        assert (tmp_path / "parts" / part).read_bytes() == (
            pretrained / "parts" / part
        ).read_bytes()


def test_on_pretrained_parts_only_projectors_learn(
    root: Path, pretrained: Path, tmp_path: Path, tiny_yaml: Path
) -> None:
    parts = pretrained / "parts"
    given = {
        "pretrained": parts,
        "semantic-init": parts / "semantic.safetensors",
        "voice-encoder": parts / "voice.safetensors",
        "llm": parts / "llm",
    }
    words = [word for name, path in given.items() for word in (f"--{name}", str(path))]
    command = [root / "run.sh", *options(tmp_path, tiny_yaml), "--test-groups", "10", "--meetings"]
    command += ["0", "--whole", "", *words, "--set", "llm.trainable=none"]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "stage 4: voice encoder" in process.stderr
    verify_checksums(parts)
    record = json.loads((tmp_path / "exp/parts.json").read_text())
    assert record.keys() == {"semantic_init", "voice_encoder", "llm"}
    sums = (parts / "SHA256SUMS").read_text()
    for part in record.values():
        assert part["files"]
        for name, row in part["files"].items():
            assert row["sha256"] in sums, name

    model = tmp_path / "exp/tagspeech/pretrained"
    ours = load_file(model / "model.safetensors")
    voice = load_file(parts / "voice.safetensors")
    for name, weight in voice.items():
        assert ours[f"voice_encoder.{name}"].equal(weight.float()), name
    frozen = load_file(parts / "llm/model.safetensors")
    for name, weight in load_file(model / "llm/model.safetensors").items():
        assert weight.equal(frozen[name].float()), name
    semantic = load_file(parts / "semantic.safetensors")
    changed = [
        n for n, one in semantic.items() if not ours[f"semantic_encoder.{n}"].equal(one.float())
    ]
    assert changed  # fine-tuned in stage 3
    assert json.loads((tmp_path / "exp/results.json").read_text())["test"]["sessions"] == 10
