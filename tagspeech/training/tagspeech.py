"""Stage 6: trains the projectors, and the LLM where `llm.trainable` says so."""

from __future__ import annotations

import logging
from pathlib import Path

from lhotse import CutSet
from torch import Tensor

from tagspeech.config import Config
from tagspeech.data.batches import (
    batches_by_duration,
    read_groups,
    stored_frames,
    training_groups,
)
from tagspeech.data.groups import group_segments
from tagspeech.decoding.greedy import generate_texts
from tagspeech.models.new_llm import make_llm
from tagspeech.models.pretrained import load_llm, save_pretrained
from tagspeech.models.tagspeech import Frames, TagSpeechModel
from tagspeech.scoring import score
from tagspeech.serialize import parse_target, to_target
from tagspeech.training.checkpoint import seed_everything
from tagspeech.training.embed import load_encoder
from tagspeech.training.loop import fit
from tagspeech.training.parallel import rank

log = logging.getLogger(__name__)


def targets_of(groups: CutSet, config: Config) -> list[str]:
    """The target text of each group."""
    return [to_target(group_segments(cut), config.target.time_grid) for cut in groups]


class TagSpeechTask:
    """Cross entropy of the target texts, given stored encoder frames."""

    sections = ("language", "features", "semantic", "voice", "llm", "target", "loss", "train")

    def __init__(self, config: Config, model: TagSpeechModel, groups: CutSet, dev: CutSet) -> None:
        self.config, self.train, self.model = config, config.train, model
        self.groups, self.dev = groups, dev

    def loss(self, batch: CutSet) -> tuple[Tensor, int, dict[str, float]]:
        output = self.model.loss_from_frames(
            Frames(*stored_frames(batch)), targets_of(batch, self.config)
        )
        figures = {name: term.item() for name, term in output.terms.items()}
        return output.loss, output.tokens, {"token_accuracy": output.correct.item(), **figures}

    def validate(self) -> dict[str, float]:
        loss = correct = 0.0
        tokens = 0
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            output = self.model.loss_from_frames(
                Frames(*stored_frames(batch)), targets_of(batch, self.config)
            )
            loss += output.terms["target"].item() * output.tokens
            correct += output.correct.item() * output.tokens
            tokens += output.tokens
        return {"loss": loss / tokens, "token_accuracy": correct / tokens, **self.scores()}

    def scores(self) -> dict[str, float]:
        """Error rates of greedy outputs for the first `train.valid_groups` dev groups."""
        if not self.train.valid_groups:
            return {}
        groups = self.dev.subset(first=min(self.train.valid_groups, len(self.dev)))
        decode = self.config.decode
        ref, hyp, malformed = [], [], set()
        for batch in batches_by_duration(groups, decode.max_duration):
            frames = Frames(*stored_frames(batch))
            texts = generate_texts(self.model, frames, decode.max_new_tokens)
            for cut, text in zip(batch, texts, strict=True):
                parsed = parse_target(text, cut.id)
                ref += group_segments(cut)
                hyp += parsed.segments
                if parsed.malformed:
                    malformed.add(cut.id)
        overall = score(ref, hyp, malformed=malformed, language=self.config.language)["overall"]
        return {
            "malformed_rate": overall["malformed_rate"],
            **{name: overall[name]["error_rate"] for name in ("wer", "cpwer", "der")},
            "speaker_count_accuracy": overall["speaker_count_accuracy"],
        }


def new_llm(config: Config, groups_dir: Path, output: Path) -> None:
    """Makes the small LLM of a recipe that has no pretrained one."""
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), config.train)
    longest = max(cut.duration for cut in groups) + 1.0
    targets = targets_of(groups, config)
    make_llm(config.llm.new, targets, config.target.time_grid, longest, output)


def train_tagspeech(
    config: Config, groups_dir: Path, semantic_path: Path, voice_path: Path, output: Path
) -> None:
    """Trains on the groups of stage 5 and writes `output/pretrained`."""
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), config.train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    seed_everything(config.train.seed)
    model = TagSpeechModel(config, *load_llm(config.llm))
    load_encoder(model.semantic_encoder, semantic_path)
    load_encoder(model.voice_encoder, voice_path)
    fit(TagSpeechTask(config, model, groups, dev), config, output)
    if rank() == 0:
        save_pretrained(model, output / "pretrained")
