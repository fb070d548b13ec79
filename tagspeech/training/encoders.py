"""The two encoders' training: SOT by CTC for the semantic one, speaker and gender for the voice.

Shape suffixes: B batch, T frames, F mel bins, N segments, D encoder channels.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import kaldialign
import sentencepiece
import torch
from lhotse import CutSet, SupervisionSegment
from lhotse.cut import Cut
from lhotse.dataset import SpecAugment
from torch import Tensor

from tagspeech.config import Config
from tagspeech.data.batches import (
    FeatureReader,
    batches_by_duration,
    clean_regions,
    frame_units,
    pool_regions,
    read_groups,
    training_groups,
)
from tagspeech.data.groups import group_segments
from tagspeech.data.units import SPEAKER_CHANGE, train_units
from tagspeech.models.sot import SotModel
from tagspeech.models.voice import GENDER_CLASSES, VoiceModel
from tagspeech.models.zipformer import load_zipformer
from tagspeech.scoring.verification import equal_error_rate
from tagspeech.training.checkpoint import save, seed_everything
from tagspeech.training.loop import fit
from tagspeech.training.parallel import rank, wait_for_all

log = logging.getLogger(__name__)


def sot_transcript(cut: Cut) -> str:
    """Words in order of start time, the change token where the speaker changes (PAPER, SOT)."""
    words: list[str] = []
    speaker = None
    for segment in group_segments(cut):
        if speaker not in (None, segment.speaker):
            words.append(SPEAKER_CHANGE)
        words += segment.words.split()
        speaker = segment.speaker
    return " ".join(words)


class SotTask:
    """Serialized Output Training of the semantic encoder."""

    sections = ("language", "features", "semantic")

    def __init__(self, config: Config, groups: CutSet, dev: CutSet, units_path: Path) -> None:
        self.train = config.semantic.train
        self.alignment = config.semantic.sot.alignment
        self.groups, self.dev = groups, dev
        self.units = sentencepiece.SentencePieceProcessor(model_file=str(units_path))
        self.model = SotModel(config.semantic.encoder, self.units.vocab_size())
        self.features = FeatureReader(config.features)
        self.augment = SpecAugment(num_frame_masks=2, features_mask_size=20, num_feature_masks=2)

    def loss(self, batch: CutSet, step: int) -> tuple[Tensor, int, dict[str, float]]:
        features_BTF, lens_B = self.features(batch)
        if self.train.spec_augment:
            features_BTF = self.augment(features_BTF)
        units = self.units.encode([sot_transcript(cut) for cut in batch])
        encoded_BTD, encoded_lens_B = self.model(features_BTF, lens_B)
        loss = ctc = self.model.ctc_loss(encoded_BTD, encoded_lens_B, units)
        figures = {"ctc": ctc.item()}
        if self.alignment:
            units_BT = frame_units(batch, encoded_BTD.shape[1], self.units.encode)
            alignment = self.model.alignment_loss(encoded_BTD, units_BT)
            figures["alignment"] = alignment.item()
            loss = ctc + self.alignment * alignment
        return loss, sum(map(len, units)), figures

    def validate(self) -> dict[str, float]:
        errors = words = right_changes = 0
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            best = self.units.decode(self.model.greedy(*self.features(batch)))
            for cut, text in zip(batch, best, strict=True):
                ref, hyp = sot_transcript(cut).split(), text.split()
                right_changes += ref.count(SPEAKER_CHANGE) == hyp.count(SPEAKER_CHANGE)
                ref, hyp = ([w for w in one if w != SPEAKER_CHANGE] for one in (ref, hyp))
                errors += kaldialign.edit_distance(ref, hyp)["total"]
                words += len(ref)
        return {"wer": errors / max(1, words), "changes_right": right_changes / len(self.dev)}


class VoiceTask:
    """Speaker and gender of each segment, where it is heard alone in its group."""

    sections = ("features", "voice")

    def __init__(
        self, config: Config, groups: CutSet, dev: CutSet, speakers: Sequence[str]
    ) -> None:
        self.train = config.voice.train
        self.groups, self.dev = groups, dev
        self.speakers = {name: index for index, name in enumerate(speakers)}
        self.model = VoiceModel(config.voice, len(speakers))
        self.features = FeatureReader(config.features)
        self.augment = SpecAugment(
            time_warp_factor=None, num_frame_masks=1, frames_mask_size=20, features_mask_size=10
        )

    def pooled(self, batch: CutSet) -> tuple[Tensor, list[SupervisionSegment]]:
        """A vector for each segment long enough to have a frame, (N, D), and its supervision."""
        features_BTF, lens_B = self.features(batch)
        if self.model.training and self.train.spec_augment:
            features_BTF = self.augment(features_BTF)
        encoded_BTD, encoded_lens_B = self.model(features_BTF, lens_B)
        regions = clean_regions(batch)
        cuts = list(batch)
        supervisions = [cuts[item].supervisions[index] for item, index, _ in regions]
        return pool_regions(encoded_BTD, encoded_lens_B, regions), supervisions

    def loss(self, batch: CutSet, step: int) -> tuple[Tensor, int, dict[str, float]]:
        pooled_ND, supervisions = self.pooled(batch)
        speaker, gender = self.model.losses(
            pooled_ND,
            torch.tensor([self.speakers[one.speaker] for one in supervisions]),
            gender_labels(supervisions),
        )
        figures = {"speaker": speaker.item(), "gender": gender.item()}
        return speaker + gender, len(supervisions), figures

    def validate(self) -> dict[str, float]:
        vectors, speakers, right, known = [], [], 0, 0
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            pooled_ND, supervisions = self.pooled(batch)
            labels_N = gender_labels(supervisions)
            guesses_N = self.model.gender_output(pooled_ND).argmax(-1)
            right += int((guesses_N == labels_N).sum())
            known += int((labels_N >= 0).sum())
            vectors.append(pooled_ND)
            speakers += [one.speaker for one in supervisions]
        eer = equal_error_rate(torch.cat(vectors).numpy(), speakers)
        return {"equal_error_rate": eer, "gender_accuracy": right / max(1, known)}


def gender_labels(supervisions: Sequence[SupervisionSegment]) -> Tensor:
    """Classes of `GENDER_CLASSES`, -1 where unknown."""
    genders = [(one.gender or "U")[0].upper() for one in supervisions]
    return torch.tensor([GENDER_CLASSES.index(g) if g in GENDER_CLASSES else -1 for g in genders])


def train_semantic(
    config: Config, groups_dir: Path, output: Path, init: Path | None = None
) -> None:
    """Trains the semantic encoder: writes `output/final.pt` (icefall's names), `units.model`.

    init  encoder weights to start from (PAPER: SOT fine-tunes an encoder that exists); none: new
    """
    train = config.semantic.train
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    units = output / "units.model"
    if rank() == 0 and not units.exists():
        train_units([sot_transcript(cut) for cut in groups], config.semantic.sot, units)
    wait_for_all()
    seed_everything(train.seed)
    task = SotTask(config, groups, dev, units)
    if init:
        load_zipformer(task.model, init)
    fit(task, config, output)
    del task.model.alignment_output  # only of use in training
    if rank() == 0:
        save(output / "final.pt", {"model": task.model.state_dict()})


def train_voice(config: Config, groups_dir: Path, output: Path, init: Path | None = None) -> None:
    """Trains the voice encoder and writes `output/final.pt` (icefall's names).

    init  encoder weights to start from; none: new
    """
    train = config.voice.train
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    speakers = sorted({one.speaker for cut in groups for one in cut.supervisions})
    log.info("%d speakers", len(speakers))
    seed_everything(train.seed)
    task = VoiceTask(config, groups, dev, speakers)
    if init:
        load_zipformer(task.model, init)
    fit(task, config, output)
    if rank() == 0:
        save(output / "final.pt", {"model": task.model.state_dict()})
