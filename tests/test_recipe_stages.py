"""Recipes of published corpora on replicas: every stage; killed and gone on; nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tagspeech.corpus.rejections import OUTSIDE, PAST_END
from tagspeech.data.batches import read_groups
from tagspeech.formats.textgrid import parse

SPLITS = ("train", "dev", "test")
TRAININGS = ("semantic.train", "voice.train", "train")
STEPS = ("max_steps=2", "max_duration=20", "valid_every=2", "warmup_steps=1", "checkpoint_every=1")
SETS = (*(f"{part}.{one}" for part in TRAININGS for one in STEPS), "decode.max_new_tokens=30")


@dataclass(frozen=True)
class Recipe:
    """A recipe with its replica, and a folder of its own to run in."""

    root: Path
    recipe: str
    corpus: Path
    folder: Path

    def start(self, said: Path) -> subprocess.Popen[bytes]:
        """In a process group of its own; what it says on stderr goes to the file `said`."""
        given = {
            "install": "false",
            "corpus-dir": self.corpus,
            "config": f"egs/{self.recipe}/conf/tiny.yaml",
            "from-scratch": "true",
            "data": self.folder / "data",
            "exp": self.folder / "exp",
            "jobs": 1,
        }
        words = [word for name, value in given.items() for word in (f"--{name}", value)]
        words += [word for one in SETS for word in ("--set", one)]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with said.open("wb") as stderr:
            return subprocess.Popen(
                [self.root / "egs" / self.recipe / "run.sh", *map(str, words)],
                env={**os.environ, "PATH": path},
                start_new_session=True,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )

    def run(self) -> str:
        """Runs to the end, gives what was said."""
        said = self.folder / "said"
        code = self.start(said).wait(timeout=900)
        assert code == 0, said.read_text()
        return said.read_text()

    def run_and_kill(self, sign: str, *, stage_too: bool) -> str:
        """SIGKILL for the driver, or its stage too, as soon as the file `sign` is there."""
        path, lock, said = (self.folder / one for one in (sign, "exp/.stages/lock", "said"))
        assert not path.exists()
        process = self.start(said)
        deadline = time.monotonic() + 300
        while not (path.exists() and len(groups := lock.read_text().split()) == 2):
            assert process.poll() is None, said.read_text()
            assert time.monotonic() < deadline, said.read_text()
            time.sleep(0.005)
        for group in groups if stage_too else groups[:1]:
            os.killpg(int(group), signal.SIGKILL)
        process.wait()
        return said.read_text()

    def results(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "exp/results.json").read_text())
        return {key: value for key, value in content.items() if key.startswith("test")}

    def groups(self, split: str) -> Any:
        return read_groups(self.folder / "data/groups" / f"{split}.jsonl.gz")


@pytest.fixture(scope="module", params=["ami", "alimeeting"])
def finished(
    request: pytest.FixtureRequest,
    root: Path,
    tmp_path_factory: pytest.TempPathFactory,
    replicas: Path,
) -> Recipe:
    if request.param == "alimeeting":
        pytest.importorskip("textgrid", reason="Lhotse reads AliMeeting with the package textgrid")
    folder = tmp_path_factory.mktemp(request.param)
    recipe = Recipe(root, request.param, replicas / request.param, folder)
    assert recipe.run().count("(begin: not done yet)") == 11
    return recipe


def test_every_stage_runs_and_ends_in_scores(finished: Recipe) -> None:
    results = finished.results()
    groups = finished.groups("test")
    assert results["test"]["sessions"] == results["test_voice"]["sessions"] == len(groups) > 3
    assert all(0 <= results["test"][key] < 20 for key in ("wer", "cpwer", "der"))
    assert finished.run().count("done already") == 11


def test_what_the_corpus_loses_is_listed(finished: Recipe) -> None:
    """Each annotated word (in Mandarin: character) is in a group, or in a row with a reason."""
    lines = (finished.folder / "data/rejected.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    reasons = {(row["reason"], row["recording_id"]) for row in rows}
    kept = [
        one.text for split in SPLITS for cut in finished.groups(split) for one in cut.supervisions
    ]
    lost = [row["text"] for row in rows if row["reason"] != PAST_END]
    if finished.recipe == "ami":
        assert reasons == {
            (OUTSIDE, "ES2002b"),
            (PAST_END, "ES2002b"),
            (PAST_END, "ES2005a"),
            ("it has no words", "IS1001a"),
        }
        paths = (finished.corpus / "ami_public_manual_1.6.2/words").glob("*.xml")
        words = [one for path in paths for one in ElementTree.parse(path).getroot()]
        said = [one.text or "" for one in words if one.tag == "w" and not one.get("punc")]
        counts = [len(" ".join(texts).split()) for texts in (said, kept, lost)]
    else:
        assert reasons == {
            (OUTSIDE, "R0003_M0047"),
            (PAST_END, "R0003_M0047"),
            (PAST_END, "R0004_M0053"),
            ("its TextGrid is invalid to Lhotse", "R0010_M0085"),
        }
        paths = finished.corpus.rglob("*.TextGrid")
        said = [one.words for path in paths for one in parse(path.read_text(), path.name, "x")]
        counts = [len("".join("".join(texts).split())) for texts in (said, kept, lost)]
    assert counts[0] == counts[1] + counts[2]
    assert all(counts)
    log = (finished.folder / "exp/log/02-utterance-groups.log").read_text()
    assert (finished.folder / "data/rejected.txt").read_text() in log


def test_a_missing_output_redoes_its_stage_alone_although_killed(finished: Recipe) -> None:
    """All that follows is done, the scores too: the same manifests came out."""
    before = finished.results()
    (finished.folder / "data/manifests/left_out.jsonl").unlink()
    said = finished.run_and_kill(SIGNS[1].format(finished.recipe), stage_too=True)
    assert "left_out.jsonl is missing" in said
    said = finished.run()
    assert "stage 1: manifests (continue)" in said
    assert said.count("done already") == 10
    assert finished.results() == before


# What shows that a stage is at work; where a stage makes several files, one of them
SIGNS = (
    "data/.stages/00-download-or-simulate.begun",
    "data/corpus/prepared/{}-sdm_recordings_train.jsonl.gz",
    "data/groups/train.jsonl.gz",
    "exp/semantic/checkpoints.json",
    "exp/voice/checkpoints.json",
    "exp/embeddings/train.jsonl.gz",
    "exp/tagspeech/checkpoints.json",
    "exp/tagspeech/greedy/test.raw.jsonl",
    "exp/tagspeech/greedy/scores.json",
    "exp/.stages/09-report.begun",
    "exp/meetings/groups/test.jsonl.gz",
)


def test_killed_in_every_stage_gives_the_same(finished: Recipe, tmp_path: Path) -> None:
    """AMI: driver and stage. AliMeeting: the driver alone, so that its stage works on."""
    if finished.recipe != "ami" and os.environ.get("TAGSPEECH_ALL_KILLS") != "1":
        pytest.skip("takes two minutes: TAGSPEECH_ALL_KILLS=1 runs it")
    killed = replace(finished, folder=tmp_path)
    for stage, sign in enumerate(SIGNS):
        sign = sign.format(finished.recipe)
        said = killed.run_and_kill(sign, stage_too=finished.recipe == "ami")
        marks = tmp_path.glob(f"*/.stages/{stage:02}-*")
        assert [mark.suffix for mark in marks] == [".begun"], f"killed too late: {sign}"
        assert said.count("done already") == max(stage - 1, 0)
        assert said.count("(continue)") == min(stage, 1)
    said = killed.run()
    assert "stage 10: whole meetings (continue)" in said
    assert said.count("done already") == 10
    assert killed.results() == finished.results()
    for name in ("results.json", "hyp.seglst.json", "scores-linked.json"):
        ours, theirs = (one.folder / "exp/meetings" / name for one in (killed, finished))
        assert ours.read_bytes() == theirs.read_bytes(), name
    for name in (
        "pretrained/model.safetensors",
        "pretrained/llm/model.safetensors",
        "greedy/*.raw.jsonl",
    ):
        (ours,), (theirs,) = (
            (one.folder / "exp/tagspeech").glob(name) for one in (killed, finished)
        )
        assert ours.read_bytes() == theirs.read_bytes(), name
