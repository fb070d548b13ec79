"""What a training step asks of a GPU: operations do not grow with the groups, and nothing waits."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lhotse import CutSet
from operations import Operations
from torch import Tensor

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config_file import load_config
from tagspeech.corpus.groups import group_targets
from tagspeech.data.batches import read_groups
from tagspeech.model.frames import Frames
from tagspeech.model.speaker_heads import SpeakerHeads
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training import loop
from tagspeech.training.prefetch import Batch
from tagspeech.training.tagspeech import TagSpeechTask, train_tagspeech

SETS = ["llm.trainable=none", "loss.speaker_activity=0.1", "loss.line_speaker=0.1"]


@pytest.fixture
def groups(tiny_base: Path) -> CutSet:
    return read_groups(tiny_base / "embeddings/train.jsonl.gz")


def task_of(tiny_base: Path, tiny_yaml: Path, groups: CutSet, *sets: str) -> TagSpeechTask:
    config = load_config(tiny_yaml, [*SETS, *sets])
    model = load_pretrained(TagSpeechModel, tiny_base / "model")
    config = replace(config, llm=replace(config.llm, name=model.config.llm.name))
    model.config = config
    model.freeze()
    model.train()
    width, rate = model.llm.config.hidden_size, config.voice.projected_frames_per_second
    return TagSpeechTask(config, model, groups, groups, SpeakerHeads(width, rate))


@pytest.mark.parametrize("layout", ["packed", "padded", "runs"])
@pytest.mark.parametrize("anchors", ["numeric", "text"])
def test_a_step_of_many_groups_has_the_operations_of_few(
    tiny_base: Path, tiny_yaml: Path, groups: CutSet, layout: str, anchors: str
) -> None:
    """40 groups are 4 groups ten times, so that they have the same runs of lengths."""
    few = list(groups)[:4]
    many = [cut.with_id(f"{cut.id}-{n}") for n in range(10) for cut in few]
    sets = [f"llm.layout={layout}", f"prompt.anchors={anchors}", "loss.semantic_ctc=0.3"]
    if layout != "runs":
        sets.append("drop.voice=0.3")  # which changes lengths
    task = task_of(tiny_base, tiny_yaml, groups, *sets)
    counts = []
    for cuts in (few, many):
        batch = task.read(CutSet.from_cuts(cuts), 0, random.Random(0))
        with Operations() as ran:
            loss, _, _ = task.loss(batch, 0)
            loss.backward()
        counts.append(ran)
    totals = [sum(ran.names.values()) for ran in counts]
    # A product of one row is a view less.
    assert abs(totals[1] - totals[0]) <= (20 if layout == "runs" else 0), counts[1].names
    assert totals[0] < 2000
    assert counts[0].reads == counts[1].reads


def test_nothing_is_read_from_the_device(tiny_base: Path, tiny_yaml: Path, groups: CutSet) -> None:
    """On the device `meta` every value is unknown: whatever reads one raises an error."""
    task = task_of(tiny_base, tiny_yaml, groups, "llm.layout=padded", "loss.semantic_ctc=0")
    batch = task.read(groups.subset(first=5), 0, random.Random(0))
    frames = [part if part.dim() == 1 else part.to("meta") for part in batch.tensors]
    task.model.to("meta")
    task.heads.to("meta")
    targets = group_targets(batch.groups, 0.1)
    output = task.model.loss_from_frames(
        Frames(*frames), targets, labels=batch.ids, heads=task.heads
    )
    output.loss.backward()
    with pytest.raises(RuntimeError, match="meta"):
        output.loss.item()


def test_a_training_reads_one_value_a_step_and_its_log(
    tiny_base: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is the loss of the step before, which is there already."""
    reads = []
    loss = TagSpeechTask.loss

    def counted(self: TagSpeechTask, batch: Batch, step: int) -> tuple[Tensor, int, dict]:
        reads.append(ran.reads)
        return loss(self, batch, step)

    monkeypatch.setattr(TagSpeechTask, "loss", counted)
    monkeypatch.setattr(loop, "_validate", lambda task: {"loss": 1.0})
    sets = ["train.max_steps=9", "train.log_every=6", "train.checkpoint_every=9"]
    config = load_config(
        tiny_yaml, ["llm.trainable=none", *sets, "train.valid_every=9", "loss.semantic_ctc=0"]
    )
    with Operations() as ran:
        train_tagspeech(config, tiny_base / "embeddings", None, None, tmp_path, tiny_base / "model")
    steps = [after - before for before, after in pairwise(reads)]
    assert max(steps) <= 2, steps  # a new epoch also draws the seed of its reader, on the CPU
    assert steps.count(2) <= 3
