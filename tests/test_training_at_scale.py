"""Several processes, changed audio, and what goes wrong in a long training."""

from __future__ import annotations

import json
import logging
import random
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import soundfile
import torch
from lhotse import RecordingSet
from safetensors.torch import load_file
from torch import Tensor

from tagspeech.config import AugmentConfig, TrainConfig
from tagspeech.config_file import load_config
from tagspeech.data.augment import Augment
from tagspeech.data.batches import read_groups
from tagspeech.errors import InputError
from tagspeech.training import loop
from tagspeech.training.checkpoint import load
from tagspeech.training.loop import learning_rate
from tagspeech.training.prefetch import Batch
from tagspeech.training.tagspeech import TagSpeechTask, train_tagspeech
from tagspeech.training.text import new_llm

STEPS = 6
SETS = [f"train.max_steps={STEPS}", "train.valid_every=2", "train.max_duration=15"]
SETS += ["train.checkpoint_every=2", "llm.trainable=none", "train.precision=float32"]
SETS += ["train.average=3"]

Train = Callable[..., dict[str, Tensor]]


@pytest.fixture
def train(tiny_base: Path, tiny_yaml: Path) -> Train:
    """Trains in this process and gives the projectors that came out."""

    def run(output: Path, *sets: str, groups: Path = tiny_base / "embeddings") -> dict[str, Tensor]:
        config = load_config(tiny_yaml, [*SETS, *sets])
        train_tagspeech(config, groups, None, None, output, tiny_base / "model")
        return projectors(output)

    return run


def projectors(output: Path) -> dict[str, Tensor]:
    weights = load_file(output / "pretrained/model.safetensors")
    return {name: one for name, one in weights.items() if "_projector." in name}


def losses(output: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (output / "curve.jsonl").read_text().splitlines()]


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


@pytest.mark.parametrize("length", ["train.max_epochs=2", "train.max_hours=0.0625"])
def test_a_length_in_audio_is_the_same_whatever_the_batch(
    train: Train,
    tiny_base: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    length: str,
) -> None:
    """Twice as many batches in a step, half as many steps; the log says what a step holds."""
    caplog.set_level(logging.INFO, "tagspeech")
    groups = read_groups(tiny_base / "embeddings/train.jsonl.gz")
    hours = sum(cut.duration for cut in groups) / 3600
    last = {}
    for count in (1, 2):
        output = tmp_path / str(count)
        options = ("train.max_steps=5000", f"train.accumulate={count}", "train.valid_every=1000")
        train(output, *options, length)
        last[count] = json.loads((output / "curve.jsonl").read_text().splitlines()[-1])["step"]
        said = next(line for line in caplog.messages if line.startswith("a step: "))
        assert f"of at most 15 s x 1 processes x accumulate {count}; " in said
        assert f" h; {last[count]} steps: " in said
        caplog.clear()
    expected = 2.0 if "epochs" in length else 0.0625 / hours
    assert f"{expected:.1f} epochs" in said
    assert last[1] == pytest.approx(2 * last[2], abs=2)


def test_two_lengths_are_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_hours: only one"):
        train(tmp_path, "train.max_epochs=1", "train.max_hours=1")
    with pytest.raises(InputError, match="0 trains nothing"):
        train(tmp_path, "train.max_epochs=1", "train.max_steps=0")


def test_a_new_llm_does_not_ignore_its_length(
    tiny_groups: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    config = load_config(tiny_yaml, ["llm.new.train.max_epochs=1", "llm.new.train.max_steps=0"])
    with pytest.raises(InputError, match="0 trains nothing"):
        new_llm(config, tiny_groups, tmp_path)


def test_two_processes_of_torchrun_are_one_with_twice_the_batches(
    train: Train, tiny_base: Path, tiny_yaml: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "tagspeech", "train", "tagspeech"]
    command += ["--config", str(tiny_yaml), "--groups", str(tiny_base / "embeddings")]
    command += ["--init-from", str(tiny_base / "model"), "--output", str(tmp_path / "two")]
    command += [word for item in SETS for word in ("--set", item)]
    told = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    train(tmp_path / "one", "train.accumulate=2")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert len(set(losses(tmp_path / "one"))) == 3
    alone = train(tmp_path / "half")
    assert losses(tmp_path / "half") != pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    two, one = projectors(tmp_path / "two"), projectors(tmp_path / "one")
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-5)
    assert not same(alone, one)


def test_best_epochs_and_a_final_model_of_the_best(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sets = ("train.final=best", "train.keep_epochs=true", "train.max_duration=100", "train.lr=0.3")
    with caplog.at_level("INFO"):
        train(tmp_path, *sets, "train.valid_every=1")
    assert "M trainable weights" in caplog.text
    assert re.search(r"activations \d+\.\d\d GB, \d+\.\d\d GB in all; .* such steps", caplog.text)
    figures = losses(tmp_path)
    assert figures != sorted(figures, reverse=True), "the last is the best: nothing is tested"
    best = load(tmp_path / "best.pt")
    assert best["step"] == figures.index(min(figures)) + 1
    assert same(projectors(tmp_path), best["model"])
    epochs = sorted(tmp_path.glob("epoch-*.pt"))
    assert [path.name for path in epochs] == [f"epoch-{n + 1}.pt" for n in range(len(epochs))]
    assert len(epochs) >= 1


def test_what_does_not_fit_is_told_before_training(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that wants more memory than there is, for the largest batch only."""
    loss, largest = TagSpeechTask.loss, []

    def hungry(self: TagSpeechTask, batch: Batch, step: int) -> tuple:
        largest.append(len(batch.groups) * max(cut.duration for cut in batch.groups))
        torch.empty(1 << 50)
        return loss(self, batch, step)

    monkeypatch.setattr(TagSpeechTask, "loss", hungry)
    with pytest.raises(InputError, match=r"out of memory at a batch of .*lower max_duration"):
        train(tmp_path / "run")
    assert len(largest) == 1
    assert largest[0] > 10
    assert not (tmp_path / "run/checkpoints.json").exists()


# What goes wrong: an error that says so, and the same bits after it is mended


def goes_on(train: Train, output: Path, plain: Path, *sets: str) -> None:
    """The last good checkpoint is whole, and the training goes on from it."""
    names = json.loads((output / "checkpoints.json").read_text())
    assert names == ["checkpoint-2.pt"]
    assert sorted(path.name for path in output.glob("*checkpoint-*")) == names
    assert same(train(output, *sets), train(plain, *sets))


def test_loss_that_is_no_number(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = TagSpeechTask.loss

    def broken(self: TagSpeechTask, batch: Batch, step: int) -> tuple:
        value, tokens, figures = loss(self, batch, step)
        return value * (float("nan") if step == 3 else 1.0), tokens, figures

    monkeypatch.setattr(TagSpeechTask, "loss", broken)
    with pytest.raises(InputError, match=r"loss nan at step 3: sim-train-"):
        train(tmp_path / "run")
    monkeypatch.undo()
    goes_on(train, tmp_path / "run", tmp_path / "plain")


def test_disk_full_at_a_checkpoint(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files may not grow beyond 4 kB from step 3 on."""
    validation = "train.valid_every=6"  # else best.pt comes first
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def filling(train: TrainConfig, step: int) -> float:
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        return learning_rate(train, step)

    monkeypatch.setattr(loop, "learning_rate", filling)
    try:
        with pytest.raises(InputError, match=r"checkpoint-4\.pt: cannot be written"):
            train(tmp_path / "run", validation)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    monkeypatch.undo()
    goes_on(train, tmp_path / "run", tmp_path / "plain", validation)


def test_audio_that_is_gone_in_an_epoch(
    train: Train, tiny_groups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = Path(read_groups(tiny_groups / "train.jsonl.gz")[0].recording.sources[0].source)
    moved = audio.with_suffix(".moved")

    def losing(train: TrainConfig, step: int) -> float:
        if step == 2 and audio.exists():
            shutil.move(audio, moved)
        return learning_rate(train, step)

    sets = ("voice.tune_lr=1e-3", "train.max_duration=60", "train.read_ahead=0")
    monkeypatch.setattr(loop, "learning_rate", losing)
    try:
        with pytest.raises(InputError, match=rf"cannot be read.*{audio.name}"):
            train(tmp_path / "run", *sets, groups=tiny_groups)
    finally:
        shutil.move(moved, audio)
    monkeypatch.undo()
    names = json.loads((tmp_path / "run/checkpoints.json").read_text())
    assert names[-1] in ("checkpoint-2.pt", "checkpoint-4.pt")
    train(tmp_path / "run", *sets, groups=tiny_groups)


# Changed audio


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A manifest with one recording: of noise, or of a room with one echo."""
    samples = np.zeros(16000, dtype=np.float32)
    samples[[0, 4000]] = 1.0, 0.5
    soundfile.write(tmp_path / "echo.wav", samples, 16000)
    RecordingSet.from_dir(tmp_path, "*.wav").to_file(tmp_path / "recordings.jsonl.gz")
    return tmp_path / "recordings.jsonl.gz"


@pytest.mark.parametrize("key", ["noise", "rooms"])
def test_noise_and_rooms_change_the_audio_only(tiny_groups: Path, noise: Path, key: str) -> None:
    groups = read_groups(tiny_groups / "dev.jsonl.gz")
    augment = Augment(AugmentConfig(**{key: str(noise), f"{key}_share": 1.0}), 16000)
    for before, after in zip(groups, augment(groups, random.Random(1)), strict=True):
        assert after.id == before.id
        assert after.duration == pytest.approx(before.duration, abs=0.01)
        spans = [[(s.start, s.end, s.text) for s in cut.supervisions] for cut in (before, after)]
        assert spans[0] == spans[1]
        ours, theirs = after.load_audio(), before.load_audio()
        samples = min(ours.shape[1], theirs.shape[1])
        assert not np.allclose(ours[:, :samples], theirs[:, :samples])


def test_times_follow_the_speed(tiny_groups: Path) -> None:
    groups = read_groups(tiny_groups / "dev.jsonl.gz")
    after = Augment(AugmentConfig(speeds=(0.8, 1.0)), 16000)(groups, random.Random(1))
    factors = set()
    for one, two in zip(groups, after, strict=True):
        factor = one.duration / two.duration
        factors.add(round(factor, 2))
        assert two.id == one.id
        assert two.load_audio().shape[1] == pytest.approx(two.duration * 16000, abs=1)
        for own, other in zip(one.supervisions, two.supervisions, strict=True):
            assert other.start == pytest.approx(own.start / factor, abs=0.01)
            assert other.end == pytest.approx(own.end / factor, abs=0.01)
    assert factors == {0.8, 1.0}


def test_augmented_training_resumes_exactly(
    train: Train, tiny_groups: Path, noise: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether batches are read ahead or not."""
    sets = (f"train.augment.noise={noise}", "train.augment.speeds=[0.9,1.0,1.1]")
    sets += ("voice.tune_lr=1e-3",)
    plain = train(tmp_path / "plain", *sets, "train.read_ahead=0", groups=tiny_groups)
    sets += ("train.read_ahead=3",)

    def stopping(train: TrainConfig, step: int) -> float:
        if step == 3:
            raise KeyboardInterrupt
        return learning_rate(train, step)

    monkeypatch.setattr(loop, "learning_rate", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", *sets, groups=tiny_groups)
    monkeypatch.undo()
    assert same(train(tmp_path / "run", *sets, groups=tiny_groups), plain)
    with pytest.raises(InputError, match="stored frames are no audio"):
        train(tmp_path / "frames", *sets[:1])


def test_frozen_encoders_hear_the_audio_where_asked_to(
    train: Train, tiny_groups: Path, tmp_path: Path
) -> None:
    """Without SpecAugment what is learnt is what stored frames teach, but for their precision."""
    sets = ("train.from_audio=true", "train.max_steps=2")
    stored = train(tmp_path / "stored", sets[1])
    heard, masked = (
        train(tmp_path / on, *sets, f"train.spec_augment={on}", groups=tiny_groups)
        for on in ("false", "true")
    )
    for name in stored:
        torch.testing.assert_close(heard[name], stored[name], rtol=1e-2, atol=1e-3)
    assert not same(heard, masked)


def test_manifest_of_another_kind_is_refused(tiny_groups: Path) -> None:
    path = str(tiny_groups / "dev.jsonl.gz")
    with pytest.raises(InputError, match=r"train\.augment\.noise: .* must hold recordings"):
        Augment(AugmentConfig(noise=path), 16000)
