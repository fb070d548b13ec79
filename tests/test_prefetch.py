"""Which batches a training has, and that they are read ahead of its steps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from lhotse import CutSet
from lhotse.cut import Cut

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.config import TrainConfig
from tagspeech.config_file import load_config
from tagspeech.data.batches import read_groups
from tagspeech.data.buckets import training_batches
from tagspeech.errors import InputError
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training import prefetch
from tagspeech.training.prefetch import Prefetcher, batch_rng, spare_processors, steps_ahead
from tagspeech.training.tagspeech import TagSpeechTask
from tagspeech.training.text import TextTask


def jobs_of(items: Sequence[Any]) -> Callable[[], Iterator[Callable[[], Any]]]:
    """Jobs whose items are `items`, or which raise them."""

    def read(item: Any) -> Any:
        if isinstance(item, Exception):
            raise item
        return item() if callable(item) else item

    return lambda: (partial(read, item) for item in items)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_items_and_errors_come_in_their_place(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "spare_processors", lambda: 2)
    error = InputError("a.wav: cannot be read")
    found = Prefetcher(steps)(jobs_of([0, 1, 2, 3, error, 5]))
    assert [next(found) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InputError, match=r"^a\.wav: cannot be read$"):
        next(found)


@pytest.mark.parametrize(("steps", "processes"), [(0, 0), (1, 1), (2, 2), (5, 2)])
def test_items_are_read_ahead_by_other_processes(
    steps: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "spare_processors", lambda: 2)

    def read(number: int) -> int:
        (tmp_path / str(number)).touch()
        return os.getpid()

    found = Prefetcher(steps)(jobs_of([partial(read, number) for number in range(20)]))
    readers = {next(found)}
    wanted = 1 + processes * -(-steps // processes) if steps else 1
    deadline = time.monotonic() + 20
    while len(list(tmp_path.iterdir())) < wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert len(list(tmp_path.iterdir())) == wanted
    readers |= set(found)
    assert (os.getpid() in readers) == (not steps)
    assert len(readers) == max(1, processes)


def test_reading_ahead_draws_nothing_from_the_generators_of_training() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert list(Prefetcher(0)(jobs_of([1, 2]))) == [1, 2]
    assert torch.equal(before, torch.get_rng_state())


def test_waiting_is_what_reading_takes_longer_than_a_step() -> None:
    def share(steps: int) -> float:
        reader = Prefetcher(steps)
        slow = [partial(time.sleep, 0.1)] * 3
        for _ in reader(jobs_of([lambda wait=wait: wait() or 0.3 for wait in slow])):
            time.sleep(0.3)
        return reader.waiting_share()

    assert share(1) < share(0)


def test_generator_follows_from_the_place() -> None:
    """In every process and under every Python."""
    train = TrainConfig(seed=3)
    first = batch_rng(train, epoch=0, number=1, rank=0).random()
    assert first == 0.870089384957428
    others = [batch_rng(train, *place).random() for place in ((1, 0, 0), (0, 0, 1), (0, 1, 1))]
    others.append(batch_rng(replace(train, seed=4), 0, 1, 0).random())
    assert len({first, *others}) == 5


def test_reading_takes_no_processor_from_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(prefetch.os, "cpu_count", lambda: 2 * threads)
    assert spare_processors() == min(16, threads)
    assert steps_ahead(TrainConfig()) == prefetch.STEPS_AHEAD * min(16, threads)
    monkeypatch.setattr(prefetch.os, "cpu_count", lambda: threads)
    assert spare_processors() == 0
    assert steps_ahead(TrainConfig()) == 0
    assert steps_ahead(TrainConfig(read_ahead=1)) == 1
    monkeypatch.setattr(prefetch.os, "cpu_count", lambda: 64)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")  # of torchrun, on one of several machines
    assert spare_processors() == 8 - threads
    with pytest.raises(InputError, match=r"train\.read_ahead: must be"):
        steps_ahead(TrainConfig(read_ahead=-2))


# Batches


def letters(cut: Cut) -> int:
    return sum(len(one.text) for one in cut.supervisions)


@pytest.mark.parametrize("max_positions", [0, 150])
def test_every_group_comes_once_an_epoch_and_processes_share_them(
    tiny_groups: Path, max_positions: int
) -> None:
    groups = read_groups(tiny_groups / "train.jsonl.gz")
    train = TrainConfig(max_duration=20.0, num_buckets=3, max_positions=max_positions)

    def batches(epoch: int, skip: int, **where: Any) -> list[list[str]]:
        found = training_batches(groups, train, epoch, skip, positions=letters, **where)
        return [[cut.id.partition("_dup")[0] for cut in batch] for batch in found]

    whole = batches(0, 0)
    assert sorted(id for batch in whole for id in batch) == sorted(cut.id for cut in groups)
    assert batches(0, 2) == whole[2:]
    assert batches(1, 0) != whole
    shares = [batches(0, 0, rank=rank, world_size=2) for rank in (0, 1)]
    assert {id for share in shares for batch in share for id in batch} == {c.id for c in groups}


def test_batches_hold_both_limits(tiny_groups: Path) -> None:
    groups = read_groups(tiny_groups / "train.jsonl.gz")
    limit = 2 * max(map(letters, groups))

    def most(max_positions: int) -> int:
        train = TrainConfig(max_duration=60.0, num_buckets=3, max_positions=max_positions)
        batches = list(training_batches(groups, train, 0, 0, positions=letters))
        for batch in batches:
            assert len(batch) * max(cut.duration for cut in batch) <= 60.0
        return max(len(batch) * max(map(letters, batch)) for batch in batches)

    assert most(limit) <= limit < most(0)


def test_positions_are_those_of_the_llm(tiny_base: Path, tiny_yaml: Path) -> None:
    """But for the prompt, and the second digits of anchors."""
    groups = read_groups(tiny_base / "embeddings/train.jsonl.gz").subset(first=12)
    config = load_config(tiny_yaml, [f"llm.name={tiny_base / 'llm'}"])
    model = load_pretrained(TagSpeechModel, tiny_base / "model")
    task = TagSpeechTask(config, model, groups, groups)
    pairs = model.project(task.frames(task.batch(groups)))
    for group, prompt in zip(groups, model.prompts(model.add_anchors(pairs)), strict=True):
        text = TextTask(config, model.llm, model.tokenizer, CutSet(), CutSet()).positions(group)
        around = len(model.prompts([(prompt[:0], prompt[:0])])[0])
        length = len(prompt) - around + text - around
        assert task.positions(group) == pytest.approx(length, abs=12)
