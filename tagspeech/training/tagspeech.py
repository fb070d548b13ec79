"""Stage 6: trains the projectors and the other trainable parts of TagSpeech."""

from __future__ import annotations

import functools
import logging
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset import SpecAugment
from torch import Tensor

from tagspeech.checkpoints.native import names_llm, save_pretrained, start_from
from tagspeech.config import AugmentConfig, Config
from tagspeech.corpus.groups import group_segments, group_targets
from tagspeech.data.batches import (
    FeatureReader,
    batches_by_duration,
    read_frames,
    read_groups,
    training_groups,
)
from tagspeech.data.pooling import frame_units
from tagspeech.encoders.aligner import WordAligner
from tagspeech.errors import InputError
from tagspeech.inference.generate import generate_texts
from tagspeech.llm.load import load_llm
from tagspeech.llm.lora import add_lora
from tagspeech.llm.sharding import check_sharding, shard_llm, whole_state
from tagspeech.llm.size import default_positions
from tagspeech.model.frames import Frames
from tagspeech.model.loss import IGNORED, warn_of_no_effect
from tagspeech.model.speaker_heads import SpeakerHeads, token_at
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.parallel import device, on_device, rank, world_size
from tagspeech.scoring import score
from tagspeech.serialize import parse_target, to_target
from tagspeech.text import UNSPACED
from tagspeech.training.checkpoint import seed_everything
from tagspeech.training.dropped_streams import StreamDrops
from tagspeech.training.embed import NO_ENCODERS
from tagspeech.training.loop import fit
from tagspeech.training.perturbed_targets import perturbed_target, scored_text, unpredictable_spans
from tagspeech.training.precision import llm_type
from tagspeech.training.prefetch import Batch
from tagspeech.training.sot_scores import SotScores

log = logging.getLogger(__name__)


class TagSpeechTask:
    """Cross entropy of the target texts, given encoder frames.

    Frames are those stored by stage 5. If an encoder is trained too, or with `train.from_audio`,
    the encoders compute them from audio.
    """

    stage = 6

    def __init__(
        self,
        config: Config,
        model: TagSpeechModel,
        groups: CutSet,
        dev: CutSet,
        heads: SpeakerHeads | None = None,
    ) -> None:
        self.config, self.train, self.model = config, config.train, model
        if self.train.max_positions < 0:
            llm = model.llm.config
            most = default_positions(llm.num_hidden_layers, llm.hidden_size)
            self.train = replace(config.train, max_positions=most)
        self.groups, self.dev = groups, dev
        self.word_tokens = functools.cache(self._word_tokens)
        self.lengths: dict[str, int] = {}  # targets in tokens, by group; each epoch asks for them
        self.drops, self.heads = StreamDrops(config.drop), heads
        has_ctc = bool(config.loss.semantic_ctc or config.loss.semantic_ctc_steps)
        # Products of frames that are not normalised have no bound: with few tokens it is another
        # loss. A sharded embedding has no rows to take.
        self.scores_ctc = has_ctc and config.semantic.normalise
        warn_of_no_effect(config.loss)
        if self.scores_ctc and not config.llm.shard:
            model.ctc.limit(group_targets([*groups, *dev], config.target.time_grid))
        self.features: FeatureReader | None = None
        if config.train.from_audio or config.semantic.tune_lr or config.voice.tune_lr:
            self.features = FeatureReader(config.features, config.extra_features)
        elif config.train.augment != AugmentConfig():
            raise InputError(
                "train.augment: needs train.from_audio: true; stored frames are no audio"
            )
        self.widths = [config.features.num_mel_bins, *(bins for _, bins in config.extra_features)]
        masks = config.masks
        self.augment = SpecAugment(
            time_warp_factor=masks.time_warp or None,
            num_frame_masks=masks.time_masks,
            num_feature_masks=masks.feature_masks,
            features_mask_size=masks.feature_width,
        )

    def positions(self, group: Cut) -> int:
        """LLM positions of both streams and the target; approximate, as an anchor counts as one."""
        streams = sum(  # positions a second
            stream.projected_frames_per_second * (1 + 1 / stream.anchor_interval)
            for stream in (self.config.semantic, self.config.voice)
        )
        if group.id not in self.lengths:
            target = to_target(group_segments(group), self.config.target.time_grid)
            self.lengths[group.id] = len(self.model.target_ids(target))
        return round(streams * group.duration) + self.lengths[group.id]

    def read(self, groups: CutSet, step: int, rng: random.Random) -> Batch:
        """Reads stored frames or features, and in the first phase the tokens at frames."""
        batch = self.batch(groups)
        loss = self.config.loss
        if loss.semantic_frames and step < loss.semantic_ctc_steps:
            rate = self.config.semantic.projected_frames_per_second
            frames = math.ceil(max(cut.duration for cut in groups) * rate) + 1
            spoken_BPS = frame_units(groups, frames, rate, self.word_tokens)
            return batch._replace(spoken=spoken_BPS)
        return batch

    def batch(self, groups: CutSet) -> Batch:
        """Reads a batch of any split, and the tokens of its target texts."""
        targets = group_targets(groups, self.config.target.time_grid)
        return Batch(
            groups,
            self.features(groups) if self.features else read_frames(groups),
            [self.model.target_ids(target) for target in targets],
        )

    def frames(self, batch: Batch, *, voice: bool = True) -> Frames:
        """Returns the stored frames of a batch, or encodes its features, with those of `voice`."""
        if not self.features:
            semantic_BTD, semantic_lens_B, voice_BTD, voice_lens_B = batch.tensors
            semantic_BTD, voice_BTD = on_device([semantic_BTD, voice_BTD])
            return Frames(semantic_BTD, semantic_lens_B, voice_BTD, voice_lens_B)
        (features_BTF,), lens_B = on_device(batch.tensors[:1]), batch.tensors[1]
        if self.model.training and self.train.spec_augment:
            # Masks have the mean of what they mask, so each kind of features is masked alone.
            kinds = features_BTF.split(self.widths, dim=-1)
            features_BTF = torch.cat([self.augment(kind_BTF) for kind_BTF in kinds], dim=-1)
        return self.model.encode(features_BTF, lens_B, voice=voice)

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, int, dict[str, Tensor]]:
        only_ctc = step < self.config.loss.semantic_ctc_steps
        frames = self.frames(batch, voice=not only_ctc)
        targets = group_targets(batch.groups, self.config.target.time_grid)
        if only_ctc:
            return self.first_phase(frames, targets, batch.spoken)
        given, labels = None, batch.ids
        if self.config.target.moved or self.config.target.swapped:
            pairs = [self.perturbed_ids(*pair) for pair in zip(batch.groups, targets, strict=True)]
            given, labels = map(list, zip(*pairs, strict=True))
        output = self.model.loss_from_frames(
            *(frames, targets), given=given, labels=labels, drops=self.drops, heads=self.heads
        )
        figures = {name: term.detach() for name, term in output.terms.items()}
        return output.loss, output.tokens, {"token_accuracy": output.correct, **figures}

    def first_phase(
        self, frames: Frames, targets: Sequence[str], spoken_BPS: Tensor | None
    ) -> tuple[Tensor, int, dict[str, Tensor]]:
        """Returns what `loss` does, without the LLM's layers (`loss.semantic_ctc_steps`)."""
        projected = self.model.project(frames)
        logits_BPV = self.model.semantic_logits(projected)
        loss, words = self.model.ctc.loss(logits_BPV, projected.semantic_lens, targets)
        figures = {"semantic_ctc": loss.detach()}
        if spoken_BPS is not None:
            of_frames = self.model.ctc.frame_loss(logits_BPV, spoken_BPS)
            figures["semantic_frames"] = of_frames.detach()
            loss = loss + self.config.loss.semantic_frames * of_frames
        return loss, words, figures

    def _word_tokens(self, word: str) -> list[int]:
        """Returns the token ids of a word within a text."""
        space = "" if self.config.language in UNSPACED else " "
        return self.model.ctc.encode(space + word)

    def perturbed_ids(self, group: Cut, target: str) -> tuple[list[int], list[int]]:
        """Returns the input tokens and labels of a group; some have moved times or swapped speakers
        (configuration section `target`)."""
        options = self.config.target
        moved, swapped = (random.random() < share for share in (options.moved, options.swapped))
        if not (moved or swapped):
            ids = self.model.target_ids(target)
            return ids, ids
        segments = group_segments(group)
        given = perturbed_target(segments, options.time_grid, moved=moved, swapped=swapped)
        ids = self.model.target_ids(given)
        scored = scored_text(target, given)
        labels = self.model.target_ids(scored)
        if len(ids) != len(labels):  # an LLM may split a time into several tokens
            ids = labels = self.model.target_ids(target)
        elif swapped:
            characters = [at for span in unpredictable_spans(scored) for at in range(*span)]
            for token in token_at(self.model.tokenizer, scored, characters):
                labels[token] = IGNORED
        return ids, labels

    def validate(self) -> dict[str, float]:
        loss = correct = 0.0
        tokens = 0
        words = SotScores(self.config.language)
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            read, targets = self.batch(batch), group_targets(batch, self.config.target.time_grid)
            frames = self.frames(read)
            output = self.model.loss_from_frames(frames, targets, labels=read.ids)
            if self.scores_ctc:
                projected = self.model.project(frames)
                texts = self.model.ctc.texts(projected.semantic_BPH, projected.semantic_lens)
                for cut, text in zip(batch, texts, strict=True):
                    words.add(" ".join(s.words for s in group_segments(cut)), text)
            loss += output.terms["target"].item() * output.tokens
            correct += output.correct.item() * output.tokens
            tokens += output.tokens
        figures = {"loss": loss / tokens, "token_accuracy": correct / tokens}
        if self.scores_ctc:
            figures["ctc_wer"] = words.figures()["wer"]
        return {**figures, **self.scores()}

    def scores(self) -> dict[str, float]:
        """Returns error rates of greedy outputs for the first `train.valid_groups` dev groups."""
        if not self.train.valid_groups:
            return {}
        groups = self.dev.subset(first=min(self.train.valid_groups, len(self.dev)))
        decode = self.config.decode
        ref, hyp, malformed = [], [], set()
        for batch in batches_by_duration(groups, decode.max_duration):
            frames = self.frames(self.batch(batch))
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


def train_tagspeech(
    config: Config,
    groups_dir: Path,
    semantic_path: Path | None,
    voice_path: Path | None,
    output: Path,
    init_from: Path | None = None,
) -> None:
    """Trains TagSpeech and writes `output/pretrained`.

    Args:
        groups_dir: Folder of stage 5, or of groups with audio.
        semantic_path: Weights that the semantic encoder's `load_weights` reads.
        voice_path: Weights of the voice encoder.
        init_from: Folder of a trained model to start from; its encoders replace both paths.
    """
    check_sharding(config.llm, world_size())
    dtype = llm_type(config.llm, config.train.precision, device())
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), config.train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    seed_everything(config.train.seed)
    if init_from:
        model = start_from(config, init_from, dtype)
        config = model.config
    elif semantic_path is None or voice_path is None:
        raise InputError(NO_ENCODERS)
    else:
        llm, tokenizer = load_llm(config.llm, dtype)
        if config.llm.lora.r:
            llm = add_lora(llm, config.llm)
        model = TagSpeechModel(config, llm, tokenizer)
        model.semantic_encoder.load_weights(semantic_path)
        model.voice_encoder.load_weights(voice_path)
        model.aligner = WordAligner.of_encoder(semantic_path, config.semantic.frames_per_second)
    if config.semantic.tune_lr and model.aligner:
        log.warning(
            "semantic.tune_lr: the encoder moves away from the output that places words in time; "
            "the model is saved without it, and its word times are estimated"
        )
        model.aligner = None
    heads = None
    if config.loss.speaker_activity or config.loss.line_speaker:
        heads = SpeakerHeads(model.llm.config.hidden_size, config.voice.projected_frames_per_second)
        model.add_module("speaker_heads", heads)  # trained and checkpointed with the model
    if config.llm.shard:
        shard_llm(model.llm, device(), world_size())
    rates = {"semantic_encoder": config.semantic.tune_lr, "voice_encoder": config.voice.tune_lr}
    if config.llm.lora_lr:
        rates["llm."] = config.llm.lora_lr
    fit(TagSpeechTask(config, model, groups, dev, heads), config, output, rates)
    if heads:
        del model.speaker_heads  # used in training only
    llm_state = None
    if config.llm.shard and not names_llm(config.llm):
        llm_state = whole_state(model.llm)
    if rank() == 0:
        save_pretrained(model, output / "pretrained", llm_state)
