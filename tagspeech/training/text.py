"""Trains a new LLM on target texts without audio.

The speaker block repeats the times of the text block. With audio in its input, a small LLM needs
thousands of batches to learn this copy; from text alone it needs a few hundred short batches.
"""

from __future__ import annotations

import logging
import random
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor, nn

from tagspeech.config import Config, LLMConfig
from tagspeech.config_file import to_tree
from tagspeech.corpus.groups import group_segments, group_targets
from tagspeech.data.batches import batches_by_duration, read_groups, training_groups
from tagspeech.data.transfer import int_tensors
from tagspeech.dependencies import of_stage
from tagspeech.files import atomic_path, read_json, sha256_inside, write_json
from tagspeech.llm.load import load_llm
from tagspeech.llm.new import make_llm
from tagspeech.llm.packing import run_layers
from tagspeech.llm.prompt import build_prompt, encode_text
from tagspeech.model.loss import target_cross_entropy
from tagspeech.parallel import rank, wait_for_all
from tagspeech.serialize import SPEAKER_BLOCK, to_target
from tagspeech.training.checkpoint import seed_everything
from tagspeech.training.loop import fit
from tagspeech.training.prefetch import Batch

log = logging.getLogger(__name__)

ORIGIN = "made_from.json"  # what a new LLM was made from


class TextTask:
    """Cross entropy of the speaker block, given the text block and a prompt with empty streams."""

    stage = 6  # of which it is the first half

    def __init__(
        self, config: Config, llm: Any, tokenizer: Any, groups: CutSet, dev: CutSet
    ) -> None:
        self.config, self.train = config, config.llm.new.train
        self.llm, self.tokenizer = llm, tokenizer
        self.prompt = build_prompt(tokenizer, config.prompt.voice)
        self.groups, self.dev = groups, dev

    @property
    def model(self) -> nn.Module:
        """The LLM."""
        model: nn.Module = self.llm
        return model

    def positions(self, group: Cut) -> int:
        """Tokens of the target text and of the prompt with empty streams."""
        prompt = self.prompt.before + self.prompt.between + self.prompt.after
        target = to_target(group_segments(group), self.config.target.time_grid)
        return len(prompt) + len(encode_text(self.tokenizer, target))

    def read(self, groups: CutSet, step: int, rng: random.Random) -> Batch:
        """Reads nothing: texts are in memory."""
        return Batch(groups)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, int, dict[str, Tensor]]:
        given, scored = [], []
        for target in group_targets(batch.groups, self.config.target.time_grid):
            before, start, after = target.partition(SPEAKER_BLOCK)
            prompt = self.prompt.before + self.prompt.between + self.prompt.after
            given.append(prompt + encode_text(self.tokenizer, before + start))
            scored.append(encode_text(self.tokenizer, after) + self.prompt.ending)
        embed, head = self.llm.get_input_embeddings(), self.llm.get_output_embeddings()
        device = embed.weight.device
        read = [[*first, *second[:-1]] for first, second in zip(given, scored, strict=True)]
        # Item by item, since the order of the sums of a gradient decides its last bits
        rows_NH = torch.cat([embed(ids) for ids in int_tensors(device, *read)])
        hidden_NH, _ = run_layers(
            self.llm.get_decoder(), rows_NH, list(map(len, read)), self.config.llm
        )
        starts = accumulate(map(len, read), initial=0)
        places_N, labels_N = int_tensors(
            device,
            chain.from_iterable(
                range(start + len(first) - 1, start + len(ids))
                for start, first, ids in zip(starts, given, read, strict=False)
            ),
            chain.from_iterable(scored),
        )
        total, correct = target_cross_entropy(head, hidden_NH.index_select(0, places_N), labels_N)
        accuracy = correct.double() / len(labels_N)
        return total / len(labels_N), len(labels_N), {"token_accuracy": accuracy}

    def validate(self) -> dict[str, float]:
        loss = correct = 0.0
        tokens = 0
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            mean, count, figures = self.loss(Batch(batch), self.train.max_steps)
            loss += mean.item() * count
            correct += figures["token_accuracy"].item() * count
            tokens += count
        return {"loss": loss / tokens, "token_accuracy": correct / tokens}


def new_llm(config: Config, groups_dir: Path, output: Path) -> None:
    """Makes a small LLM for a recipe without a pretrained LLM and writes `output/pretrained`.

    It is trained on target texts as long as `llm.new.train` says; without a length it stays
    random. A killed run resumes: what it has made from the same configuration and groups is kept.
    """
    train = config.llm.new.train
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), config.train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    untrained, trained, record = (output / name for name in ("random", "pretrained", ORIGIN))
    origin = {
        "config": of_stage(6, to_tree(config)),
        "groups": sha256_inside(groups_dir / "train.jsonl.gz"),
    }
    is_same = record.exists() and read_json(record) == origin
    if is_same and trained.exists():
        log.info("%s: is made already", trained)
        return
    wait_for_all()  # all have looked
    if rank() == 0 and not (is_same and untrained.exists()):
        longest = max(cut.duration for cut in groups) + 1.0
        grid = config.target.time_grid
        make_llm(config.llm.new, group_targets(groups, grid), grid, longest, untrained)
        write_json(record, origin)
    wait_for_all()
    llm, tokenizer = load_llm(LLMConfig(name=str(untrained), attention=config.llm.attention))
    seed_everything(train.seed)
    if train.max_steps or train.max_epochs or train.max_hours:
        fit(TextTask(config, llm, tokenizer, groups, dev), config, output)
    if rank() == 0:
        with atomic_path(trained) as temporary:
            llm.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
