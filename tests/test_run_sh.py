"""`./run.sh` from nothing to results on a tiny recipe: run again, redone, killed and gone on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tagspeech.api import TagSpeech
from tagspeech.checkpoints.published import save_released
from tagspeech.config import Config, ZipformerConfig
from tagspeech.llm.load import load_llm

RATES = ("malformed_rate", "speaker_count_accuracy", "gender_accuracy")
ERROR_RATES = (
    *("wer", "cpwer", "tcpwer", "orcwer", "tcorcwer"),
    *("der", "der_overlap", "der_nonoverlap", "der_collar_025"),
)


class Recipe:
    """./run.sh with folders of its own."""

    def __init__(self, root: Path, folder: Path, config: Path) -> None:
        self.root, self.data, self.exp = root, folder / "data", folder / "exp"
        self.config = config

    def command(self, *args: str) -> list[str]:
        sizes = {"train_groups": 40, "dev_groups": 10, "test_groups": 10, "meetings": 0}
        options = {"install": "false", "config": self.config, "data": self.data, "exp": self.exp}
        options.update({"jobs": 1, "threads": 1, "whole": "test", **sizes})
        pairs = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        # Twelve steps, so that there is time to kill a training between its checkpoints.
        steps = [f"{part}train.max_steps=12" for part in ("semantic.", "voice.", "")]
        sets = [word for step in steps for word in ("--set", step)]
        return [str(self.root / "run.sh"), *pairs, *sets, *args]

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*args),
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *args: str, code: int = 0) -> str:
        """Runs to the end, checks the exit code, gives what was said on stderr."""
        process = self.start(*args)
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == code, f"{process.returncode}\n{stdout}\n{stderr}"
        return stderr

    def run_and_kill(self, ready: Callable[[], bool], stage_too: bool) -> None:
        """SIGKILL as soon as `ready`, for the driver alone or for the stage at work too."""
        process = self.start()
        deadline = time.monotonic() + 200
        while not ready():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the stage made no progress"
            time.sleep(0.005)
        driver, stage = (self.exp / ".stages/lock").read_text().split()
        assert int(driver) == process.pid
        os.killpg(process.pid, signal.SIGKILL)
        if stage_too:
            os.killpg(int(stage), signal.SIGKILL)
        process.wait()

    def results(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.exp / "results.json").read_text())
        return content

    def rows(self) -> dict[str, dict[str, Any]]:
        lines = (self.exp / "tagspeech/greedy/test.raw.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        assert len({row["session"] for row in rows}) == len(rows)
        return {row["session"]: row for row in rows}

    def done(self, stage: str) -> bool:
        return (self.exp / f".stages/{stage}.done").exists()


@pytest.fixture(scope="module")
def finished(root: Path, tmp_path_factory: pytest.TempPathFactory, tiny_yaml: Path) -> Recipe:
    """All stages have run, without an interruption."""
    recipe = Recipe(root, tmp_path_factory.mktemp("finished"), tiny_yaml)
    messages = recipe.run()
    for stage in range(11):
        assert f"stage {stage}: " in messages
    assert "done already" not in messages
    return recipe


def test_results_of_all_stages(finished: Recipe) -> None:
    results = finished.results()
    assert set(results) == {"recipe", "commit", "seconds", "test", "test_voice", "computed_on"}
    assert results["computed_on"] == ["cpu in float32"]
    assert results["recipe"] == "mini"
    assert {int(stage) for stage in results["seconds"]} >= set(range(9))
    for test in (results["test"], results["test_voice"]):
        assert set(test) == {"sessions", *RATES, *ERROR_RATES}
        assert test["sessions"] == 10
        for name in ERROR_RATES:
            assert 0 <= test[name] < 20, name  # a fraction; insertions can exceed 1
        for name in RATES:  # no speaker was matched: there is no gender to be right or wrong about
            assert test[name] is None or 0 <= test[name] <= 1, name
        assert test["malformed_rate"] is not None
    assert results["test"]["wer"] == results["test_voice"]["wer"]
    assert len(finished.rows()) == 10


def test_terminal_shows_table_and_examples(finished: Recipe) -> None:
    log = (finished.exp / "log/09-report.log").read_text()
    for words in ("WER", "cpWER", "tcpWER", "DER", "speaker count", "gender", "malformed"):
        assert words in log
    for words in ("speakers by LLM", "speakers by voice"):
        assert log.count(words) == 1
    assert log.count("ref") >= 3


def test_second_run_does_nothing(finished: Recipe, spent: Callable[[], float]) -> None:
    before = (finished.exp / "results.json").read_bytes()
    messages = finished.run()
    assert spent() < 10
    assert messages.count("done already") == 11
    assert (finished.exp / "results.json").read_bytes() == before


def test_stage_7_decodes_again(finished: Recipe) -> None:
    before = finished.rows()
    raw = finished.exp / "tagspeech/greedy/test.raw.jsonl"
    stamp = raw.stat().st_mtime_ns
    messages = finished.run("--stage", "7")
    assert raw.stat().st_mtime_ns != stamp
    assert "stage 7: decode (" in messages
    assert "stage 6" not in messages
    assert finished.rows() == before


def test_killed_three_times_gives_the_same(
    finished: Recipe, root: Path, tmp_path: Path, tiny_yaml: Path
) -> None:
    """In training of an encoder, in training of TagSpeech (the driver alone), in decoding."""
    killed = Recipe(root, tmp_path, tiny_yaml)
    semantic, tagspeech = killed.exp / "semantic", killed.exp / "tagspeech"
    raw = tagspeech / "greedy/test.raw.jsonl"
    killed.run_and_kill((semantic / "checkpoints.json").exists, stage_too=True)
    assert not killed.done("03-semantic-encoder")
    killed.run_and_kill((tagspeech / "checkpoints.json").exists, stage_too=False)
    assert killed.done("03-semantic-encoder")
    assert not killed.done("06-tagspeech")
    killed.run_and_kill(lambda: raw.exists() and b"\n" in raw.read_bytes(), stage_too=True)
    assert killed.done("06-tagspeech")
    assert not killed.done("07-decode")
    messages = killed.run()
    assert "stage 7: decode (continue)" in messages

    for test in ("test", "test_voice"):
        assert killed.results()[test] == finished.results()[test]
    assert killed.rows() == finished.rows()
    pretrained = "tagspeech/pretrained"
    for name in (f"{pretrained}/model.safetensors", f"{pretrained}/llm/model.safetensors"):
        ours, theirs = load_file(killed.exp / name), load_file(finished.exp / name)
        assert ours.keys() == theirs.keys()
        assert all(ours[key].equal(theirs[key]) for key in ours), name


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--recipe", "nobody"], "no recipe 'nobody'"),
        (["--learning-rate", "1"], "unknown option '--learning-rate'"),
        (["--set", "train.learning_rate=1"], "unknown key 'learning_rate'"),
        (["--set", "train.lr=much"], "lr: must be float, got 'much'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["--stage", "7"], "stage 7 (decode): its input"),
    ],
)
def test_bad_input_is_one_line(
    root: Path, tmp_path: Path, tiny_yaml: Path, args: list[str], words: str
) -> None:
    process = Recipe(root, tmp_path, tiny_yaml).start(*args)
    _, messages = process.communicate(timeout=60)
    assert process.returncode != 0
    assert words in messages
    assert messages.count("\n") == 1


def test_a_released_model_is_decoded_and_scored(
    finished: Recipe, root: Path, tmp_path: Path, tiny_config: Config
) -> None:
    """Nothing is trained; the groups are there; the results lie beside."""
    channels = ZipformerConfig.embed_channels
    streams = {
        name: replace(
            getattr(tiny_config, name),
            encoder=replace(getattr(tiny_config, name).encoder, embed_channels=channels),
        )
        for name in ("semantic", "voice")
    }
    config = replace(tiny_config, **streams)
    torch.manual_seed(1)
    save_released(TagSpeech(config, *load_llm(config.llm)).eval(), tmp_path / "Tiny-AMI")
    recipe = Recipe(root, tmp_path, finished.config)
    recipe.data = finished.data
    model = str(tmp_path / "Tiny-AMI")
    limit = ("--set", "decode.max_new_tokens=40")
    messages = recipe.run("--model", model, "--stage", "7", *limit)
    assert f"--model {model}: stages 3 to 6 are skipped: it is trained" in messages
    for stage in (7, 8, 9, 10):
        assert f"stage {stage}: " in messages
    assert recipe.results()["test"]["sessions"] == 10
    assert not (recipe.exp / "semantic").exists()
    record = json.loads((recipe.exp / "parts.json").read_text())
    assert record["model"] == {"name": model, "revision": None, "commit": None}
    messages = recipe.run("--model", model, *limit)
    assert messages.count(f"{model}, trained before") == 4
    assert messages.count("done already") == 7
    assert "leave out one" in recipe.run("--model", model, "--init-from", model, code=2)
