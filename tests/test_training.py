"""Training on a tiny corpus: the same bits however often it was stopped, and what is refused."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lhotse import CutSet
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tagspeech.config import Config, TrainConfig
from tagspeech.config_file import load_config
from tagspeech.data.batches import FeatureReader, read_frames, read_groups
from tagspeech.encoders.zipformer import Zipformer
from tagspeech.errors import InputError
from tagspeech.llm.load import load_llm
from tagspeech.training import loop
from tagspeech.training.checkpoint import load
from tagspeech.training.embed import embed, load_encoder, stored_bytes
from tagspeech.training.encoders import train_semantic, train_voice
from tagspeech.training.loop import learning_rate
from tagspeech.training.tagspeech import train_tagspeech
from tagspeech.training.text import new_llm

STEPS = 10  # an epoch has less batches
SETS = [
    f"{part}train.{item}"
    for part in ("semantic.", "voice.", "llm.new.", "")
    for item in (f"max_steps={STEPS}", "simple_steps=4", "max_duration=60", "valid_every=5")
]


@dataclass
class Stages:
    """The three trainings on one corpus, and where the first of each has written."""

    groups: Path
    folder: Path
    yaml: Path

    def config(self, *sets: str) -> Config:
        return load_config(self.yaml, [*SETS, f"llm.name={self.folder / 'llm/pretrained'}", *sets])

    def train(self, part: str, output: Path, *sets: str) -> dict[str, Tensor]:
        """Trains `part` into `output` and gives the weights that came out."""
        config = self.config(*sets)
        if part == "semantic":
            train_semantic(config, self.groups, output)
        elif part == "voice":
            train_voice(config, self.groups, output)
        elif part == "llm":
            new_llm(config, self.folder / "embeddings", output)
        else:
            finals = (self.folder / f"{one}/final.pt" for one in ("semantic", "voice"))
            train_tagspeech(config, self.folder / "embeddings", *finals, output)
        return self.weights(part, output)

    def weights(self, part: str, output: Path) -> dict[str, Tensor]:
        if part == "llm":
            return load_file(output / "pretrained/model.safetensors")
        if part != "tagspeech":
            weights: dict[str, Tensor] = load(output / "final.pt")["model"]
            return weights
        own = load_file(output / "pretrained/model.safetensors")
        llm = load_file(output / "pretrained/llm/model.safetensors")
        return {**own, **{f"llm.{name}": weight for name, weight in llm.items()}}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory, tiny_groups: Path, tiny_yaml: Path) -> Stages:
    """All three trained without a stop."""
    stages = Stages(tiny_groups, tmp_path_factory.mktemp("stages"), tiny_yaml)
    for part in ("semantic", "voice"):
        stages.train(part, stages.folder / part)
    finals = [stages.folder / f"{one}/final.pt" for one in ("semantic", "voice")]
    embeddings = stages.folder / "embeddings"
    embed(stages.config(), tiny_groups, *finals, embeddings, ("train", "dev"))
    for part in ("llm", "tagspeech"):
        stages.train(part, stages.folder / part)
    return stages


def differing(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    """Names of the weights whose bits differ."""
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not ours[name].equal(theirs[name])]


PARTS = ("semantic", "voice", "llm", "tagspeech")


@pytest.mark.parametrize("part", PARTS)
def test_same_bits_after_three_stops(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Before the first checkpoint, right after the simple groups, and in a later epoch."""
    output = tmp_path / part
    for stop in (1, 5, 9):

        def stopping(train: TrainConfig, step: int, stop: int = stop) -> float:
            if step == stop:
                raise KeyboardInterrupt
            return learning_rate(train, step)

        monkeypatch.setattr(loop, "learning_rate", stopping)
        with pytest.raises(KeyboardInterrupt):
            stages.train(part, output)
        torch.manual_seed(stop)  # whatever state a new process has
    monkeypatch.undo()
    ours = stages.train(part, output)
    assert not differing(ours, stages.weights(part, stages.folder / part))
    assert load(output / f"checkpoint-{STEPS - 2}.pt")["epoch"] >= 2
    assert not list(output.glob(".*"))


def test_same_bits_after_sigkill(stages: Stages, tmp_path: Path) -> None:
    """A process that gets no chance to say goodbye; hashes of strings differ in the next one."""
    output = tmp_path / "semantic"
    command = [sys.executable, "-m", "tagspeech", "train", "semantic", "--config", stages.yaml]
    for item in (*SETS, f"llm.name={stages.folder / 'llm/pretrained'}"):
        command += ["--set", item]
    command += ["--groups", stages.groups, "--output", output, "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while not (output / "checkpoints.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output / "final.pt").exists()
    ours = stages.train("semantic", output)
    assert not differing(ours, stages.weights("semantic", stages.folder / "semantic"))


def test_another_seed_gives_other_bits(stages: Stages, tmp_path: Path) -> None:
    ours = stages.train("voice", tmp_path / "voice", "voice.train.seed=2")
    assert differing(ours, stages.weights("voice", stages.folder / "voice"))


def test_finished_training_stays_as_it_is(stages: Stages) -> None:
    before = stages.weights("tagspeech", stages.folder / "tagspeech")
    assert not differing(stages.train("tagspeech", stages.folder / "tagspeech"), before)


def test_training_lowers_the_loss(stages: Stages) -> None:
    lines = (stages.folder / "tagspeech/curve.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[1] < losses[0]
    assert (stages.folder / "tagspeech/tensorboard").is_dir()


def test_stored_frames_are_those_of_the_encoders(stages: Stages) -> None:
    """Also of groups that begin late in their recording."""
    groups = read_groups(stages.folder / "embeddings/train.jsonl.gz")
    config = stages.config()
    encoder = load_encoder(Zipformer(config.semantic.encoder), stages.folder / "semantic/final.pt")
    features = FeatureReader(config.features)
    for cut in groups:
        one = CutSet.from_cuts([cut])
        with torch.no_grad():
            frames_BTD, lens_B = encoder(*features(one))
        semantic_BTD, semantic_lens_B, voice_BTD, voice_lens_B = read_frames(one)
        assert semantic_lens_B.tolist() == voice_lens_B.tolist() == lens_B.tolist()
        torch.testing.assert_close(semantic_BTD, frames_BTD, rtol=2e-3, atol=2e-3)
        vectors = [supervision.load_speaker_vector() for supervision in cut.supervisions]
        assert {vector.shape for vector in vectors} == {(voice_BTD.shape[2],)}
    assert max(cut.start for cut in groups) > 10


def test_room_for_frames_is_known_before(
    stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = read_groups(stages.groups / "train.jsonl.gz")
    taken = sum(
        path.stat().st_blocks * 512 for path in (stages.folder / "embeddings/train").rglob("*.npy")
    )
    assert taken <= stored_bytes(stages.config(), groups) <= 1.5 * taken
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**4))
    finals = [stages.folder / f"{one}/final.pt" for one in ("semantic", "voice")]
    with pytest.raises(InputError, match=r"out: takes about .* GB are free; make room"):
        embed(stages.config(), stages.groups, *finals, tmp_path / "out", ("train",))
    assert not list((tmp_path / "out").iterdir())


def test_share_of_waiting_is_logged(stages: Stages) -> None:
    for part in ("semantic", "voice", "tagspeech"):
        board = EventAccumulator(str(stages.folder / part / "tensorboard"))
        board.Reload()
        shares = [event.value for event in board.Scalars("train/waiting_share")]
        assert shares
        assert all(0 < share < 1 for share in shares)


def test_final_weights_are_the_mean_of_the_last_checkpoints(stages: Stages) -> None:
    folder = stages.folder / "semantic"
    names = [f"checkpoint-{step}.pt" for step in (STEPS - 2, STEPS)]
    assert json.loads((folder / "checkpoints.json").read_text()) == names
    assert sorted(path.name for path in folder.glob("checkpoint-*")) == sorted(names)
    states = [load(folder / name)["model"] for name in names]
    final = stages.weights("semantic", folder)
    learnt = states[0].keys() & final.keys()
    assert len(learnt) == len(states[0]) - 2  # but for the output that only training uses
    for name in learnt:
        torch.testing.assert_close(final[name], (states[0][name] + states[1][name]) / 2)
    assert any(not final[name].equal(states[1][name]) for name in learnt)


def test_only_the_projectors_learn_with_a_frozen_llm(stages: Stages, tmp_path: Path) -> None:
    output = tmp_path / "tagspeech"
    final = stages.train("tagspeech", output, "llm.trainable=none")
    learnt = load(output / f"checkpoint-{STEPS}.pt")["model"]
    projectors = [name for name in final if "_projector." in name]
    assert set(learnt) == set(projectors)
    earlier = load(output / f"checkpoint-{STEPS - 2}.pt")["model"]
    assert differing(learnt, earlier) == list(learnt)
    llm, _ = load_llm(stages.config().llm)
    stored = [name for name in llm.state_dict() if f"llm.{name}" in final]  # tied ones once
    assert len(stored) > 20
    for name in stored:
        assert llm.state_dict()[name].equal(final[f"llm.{name}"]), name
    for part in ("semantic", "voice"):
        theirs = stages.weights(part, stages.folder / part)
        prefix = f"{part}_encoder."
        own = [name for name in final if name.startswith(prefix)]
        assert len(own) > 50
        for name in own:
            assert final[name].equal(theirs[name.removeprefix(prefix)]), name


def test_all_of_the_llm_learns_where_it_is_asked_to(stages: Stages) -> None:
    final = stages.weights("tagspeech", stages.folder / "tagspeech")
    llm, _ = load_llm(stages.config().llm)
    stored = [name for name in llm.state_dict() if f"llm.{name}" in final]
    assert len(stored) > 20
    for name in stored:
        assert not llm.state_dict()[name].equal(final[f"llm.{name}"]), name


# What is refused


class Evil:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_pickle_that_runs_code_is_refused(stages: Stages, tmp_path: Path) -> None:
    evil, marker = tmp_path / "evil.pt", tmp_path / "marker"
    torch.save({"model": Evil(marker)}, evil)
    with pytest.raises(InputError, match=r"evil\.pt: cannot be read as weights"):
        load(evil)
    with pytest.raises(InputError, match=r"evil\.pt"):
        train_tagspeech(
            *(stages.config(), stages.folder / "embeddings", evil),
            *(stages.folder / "voice/final.pt", tmp_path / "tagspeech"),
        )
    run = tmp_path / "voice"
    run.mkdir()
    torch.save({"model": Evil(marker)}, run / "checkpoint-2.pt")
    (run / "checkpoints.json").write_text('["checkpoint-2.pt"]')
    with pytest.raises(InputError, match=r"checkpoint-2\.pt"):
        stages.train("voice", run)
    assert not marker.exists()


def test_cut_off_checkpoint_is_named(stages: Stages, tmp_path: Path) -> None:
    whole = (stages.folder / "voice/final.pt").read_bytes()
    (tmp_path / "final.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"final\.pt: cannot be read as weights"):
        load(tmp_path / "final.pt")


def test_loss_that_is_not_finite_names_its_groups(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        stages.train("tagspeech", tmp_path / "run", "train.lr=1e30")
    message = str(error.value)
    assert str(tmp_path / "run") in message
    assert re.search(r"loss (nan|inf) at step \d+: sim-train-", message)
    assert "\n" not in message


def test_folder_of_another_run_is_refused(stages: Stages) -> None:
    folder = stages.folder / "voice"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="another section voice") as error:
        stages.train("voice", folder, "voice.train.lr=0.5")
    assert str(folder) in str(error.value)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_sections_of_other_stages_do_not_matter(stages: Stages) -> None:
    stages.train("voice", stages.folder / "voice", "decode.max_new_tokens=9", "train.lr=0.5")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("voice.train.schedule=linear", "schedule: wants eden or cosine, found 'linear'"),
        ("voice.train.precision=float16", "precision: float16 wants a GPU"),
        ("voice.train.accumulate=0", "accumulate: must be 1 or more, got 0"),
        ("voice.train.final=last", "final: wants average or best, found 'last'"),
        ("voice.train.shortest=100", "no utterance group lasts"),
    ],
)
def test_value_that_means_nothing_is_named(
    stages: Stages, tmp_path: Path, override: str, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        stages.train("voice", tmp_path / "voice", override)


@pytest.mark.parametrize("change", ["units", "trainable"])
def test_other_values_that_mean_nothing(stages: Stages, tmp_path: Path, change: str) -> None:
    part, key = {"units": ("semantic", "semantic.sot.units")}.get(
        change, ("tagspeech", "llm.trainable")
    )
    with pytest.raises(InputError, match=key.replace(".", r"\.")):
        stages.train(part, tmp_path / part, f"{key}=nonsense")


def test_missing_groups_are_named(stages: Stages, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.jsonl\.gz: does not exist"):
        train_voice(stages.config(), tmp_path / "nowhere", tmp_path / "voice")


# Learning rate


def schedule(**values: Any) -> Callable[[int], float]:
    train = TrainConfig(**{"lr": 0.1, "warmup_steps": 100, "max_steps": 1000, **values})
    return lambda step: learning_rate(train, step)


def test_eden() -> None:
    rate = schedule(schedule="eden", eden_steps=500)
    assert rate(0) == pytest.approx(0.1 * 0.505)  # a warm-up from one half
    assert rate(99) == pytest.approx(0.1 * ((99**2 + 500**2) / 500**2) ** -0.25)
    assert rate(500) == pytest.approx(0.1 * 2**-0.25)
    assert rate(50_000) == pytest.approx(0.1 * (1 + 100**2) ** -0.25)
    assert all(rate(step) > rate(step + 1) for step in range(100, 2000, 100))


def test_cosine() -> None:
    rate = schedule(schedule="cosine")
    assert rate(0) == pytest.approx(0.001)
    assert rate(500) == pytest.approx(0.05)
    assert rate(999) < 1e-6
    assert max(map(rate, range(1000))) == pytest.approx(rate(99))
    assert rate(250) == pytest.approx(0.05 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize("name", ["eden", "cosine"])
def test_no_warmup(name: str) -> None:
    assert schedule(schedule=name, warmup_steps=0)(0) == pytest.approx(0.1)


def test_a_new_llm_learns_to_copy_times_from_text(stages: Stages, tmp_path: Path) -> None:
    """What the speaker block says again of the text block, on groups it never saw."""
    sets = ["max_steps=60", "lr=1e-2", "valid_every=20", "checkpoint_every=20", "average=1"]
    steps = [f"llm.new.train.{one}" for one in (*sets, "schedule=cosine")]
    config = stages.config(*steps)
    new_llm(config, stages.folder / "embeddings", tmp_path)
    curve = [json.loads(line) for line in (tmp_path / "curve.jsonl").read_text().splitlines()]
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert curve[-1]["token_accuracy"] > 0.4
    untrained = load_file(tmp_path / "random/model.safetensors")
    trained = load_file(tmp_path / "pretrained/model.safetensors")
    assert len(differing(untrained, trained)) == len(trained)
