"""Training of the encoders: SOT for the semantic encoder, speaker and gender for the voice encoder.

Shape suffixes: B batch, T frames, F mel bins, N segments, D encoder channels.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from lhotse import CutSet, SupervisionSegment
from lhotse.cut import Cut
from lhotse.dataset import SpecAugment
from torch import Tensor

from tagspeech.config import Config, SemanticConfig
from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import FeatureReader, batches_by_duration, read_groups, training_groups
from tagspeech.data.overlay import Overlay
from tagspeech.data.pooling import clean_regions, frame_units
from tagspeech.data.single_speaker import segments_alone
from tagspeech.data.units import SPEAKER_CHANGE, Units, grow_units, train_units
from tagspeech.encoders.sot import AlignedEncoder, CtcEncoder, build_sot_model
from tagspeech.encoders.transducer import TransducerModel, check_loss
from tagspeech.encoders.voice import GENDER_CLASSES, VoiceModel
from tagspeech.encoders.zipformer import Zipformer, load_zipformer
from tagspeech.errors import InputError
from tagspeech.parallel import on_device, rank, wait_for_all
from tagspeech.scoring.verification import equal_error_rate
from tagspeech.training.checkpoint import save, seed_everything
from tagspeech.training.embed import MAX_EER_SEGMENTS
from tagspeech.training.loop import fit
from tagspeech.training.prefetch import Batch
from tagspeech.training.sot_scores import SotScores

log = logging.getLogger(__name__)

MAX_UNKNOWN = 0.05  # share of training text unknown to given units; above, the language differs


def sot_transcript(cut: Cut) -> str:
    """Returns the words in order of start time, with a token at each change of speaker (SOT)."""
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

    stage = 3

    def __init__(self, config: Config, groups: CutSet, dev: CutSet, units_path: Path) -> None:
        self.train = config.semantic.train
        self.frames_per_second = config.semantic.frames_per_second
        sot = config.semantic.sot
        self.alignment = sot.alignment
        self.groups, self.dev = groups, dev
        self.overlay = Overlay(groups, sot.overlay)
        self.language = config.language
        self.units = Units(units_path)
        encoder = config.semantic.encoder_config
        self.model: CtcEncoder | TransducerModel = (
            build_sot_model(encoder, len(self.units))
            if sot.loss == "ctc"
            else TransducerModel(config.semantic.encoder, sot.transducer, len(self.units))
        )
        self.model.train_only_adapters()
        self.features = FeatureReader.of_encoder(config.features, encoder)
        self.augment = SpecAugment(num_frame_masks=2, features_mask_size=20, num_feature_masks=2)

    def positions(self, group: Cut) -> int:
        """Encoder frames."""
        return round(self.frames_per_second * group.duration)

    def read(self, groups: CutSet, step: int, rng: random.Random) -> Batch:
        """Reads features, some of two overlaid groups (`semantic.sot.overlay`)."""
        if step >= self.train.simple_steps:
            groups = self.overlay(groups, rng)
        return Batch(groups, self.features(groups))

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, int, dict[str, Tensor]]:
        features_BTF, lens_B = batch.tensors
        (features_BTF,) = on_device([features_BTF])
        if self.train.spec_augment:
            features_BTF = self.augment(features_BTF)
        units = [self.units.encode(sot_transcript(cut)) for cut in batch.groups]
        encoded_BTD, encoded_lens_B = self.model(features_BTF, lens_B)
        loss, figures = self.model.losses(encoded_BTD, encoded_lens_B, units, step)
        if self.alignment:
            units_BTS = frame_units(
                *(batch.groups, encoded_BTD.shape[1], self.frames_per_second, self.units.encode)
            )
            alignment = self.model.alignment_loss(encoded_BTD, *on_device([units_BTS]))
            figures["alignment"] = alignment.detach()
            loss = loss + self.alignment * alignment
        return loss, sum(map(len, units)), figures

    def validate(self) -> dict[str, float]:
        scores = SotScores(self.language)
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            best = self.model.greedy(*on_device(self.features(batch)))
            for cut, units in zip(batch, best, strict=True):
                scores.add(sot_transcript(cut), self.units.decode(units))
        return scores.figures()


class VoiceTask:
    """Classifies speaker and gender of each segment, where nobody else speaks."""

    stage = 4

    def __init__(
        self, config: Config, groups: CutSet, dev: CutSet, speakers: Sequence[str]
    ) -> None:
        self.train = config.voice.train
        self.frames_per_second = config.voice.frames_per_second
        self.groups, self.dev = groups, dev
        self.speakers = {name: index for index, name in enumerate(speakers)}
        self.model = VoiceModel(config.voice, len(speakers))
        self.features = FeatureReader(config.features)
        self.augment = SpecAugment(
            time_warp_factor=None, num_frame_masks=1, frames_mask_size=20, features_mask_size=10
        )

    def positions(self, group: Cut) -> int:
        """Encoder frames."""
        return round(self.frames_per_second * group.duration)

    def read(self, groups: CutSet, step: int, rng: random.Random) -> Batch:
        """Reads features."""
        return Batch(groups, self.features(groups))

    def pooled(self, batch: Batch) -> tuple[Tensor, list[SupervisionSegment]]:
        """Returns vectors (N, D) of the segments that have a frame, and their supervisions."""
        features_BTF, lens_B = batch.tensors
        (features_BTF,) = on_device([features_BTF])
        if self.model.training and self.train.spec_augment:
            features_BTF = self.augment(features_BTF)
        encoded_BTD, encoded_lens_B = self.model(features_BTF, lens_B)
        regions = clean_regions(batch.groups, self.frames_per_second)
        supervisions = [batch.groups[item].supervisions[index] for item, index, _ in regions]
        return self.model.vectors(encoded_BTD, encoded_lens_B, regions), supervisions

    def loss(self, batch: Batch, step: int) -> tuple[Tensor, int, dict[str, Tensor]]:
        pooled_ND, supervisions = self.pooled(batch)
        speakers_N = torch.tensor([self.speakers[segment.speaker] for segment in supervisions])
        labels = on_device([speakers_N, gender_labels(supervisions)])
        speaker, gender = self.model.losses(pooled_ND, *labels)
        figures = {"speaker": speaker.detach(), "gender": gender.detach()}
        return speaker + gender, len(supervisions), figures

    def validate(self) -> dict[str, float]:
        vectors, speakers, correct, known = [], [], 0, 0
        for batch in batches_by_duration(self.dev, self.train.max_duration):
            pooled_ND, supervisions = self.pooled(Batch(batch, self.features(batch)))
            labels_N = gender_labels(supervisions)
            guesses_N = self.model.gender_output(pooled_ND).argmax(-1).cpu()
            correct += int((guesses_N == labels_N).sum())
            known += int((labels_N >= 0).sum())
            vectors.append(pooled_ND.cpu())
            speakers += [segment.speaker for segment in supervisions]
        stride = -(-len(speakers) // MAX_EER_SEGMENTS)
        eer = equal_error_rate(torch.cat(vectors)[::stride].numpy(), speakers[::stride])
        return {"equal_error_rate": eer, "gender_accuracy": correct / max(1, known)}


def gender_labels(supervisions: Sequence[SupervisionSegment]) -> Tensor:
    """Returns indices into `GENDER_CLASSES` (N,), -1 if unknown."""
    genders = [(segment.gender or "U")[0].upper() for segment in supervisions]
    return torch.tensor([GENDER_CLASSES.index(g) if g in GENDER_CLASSES else -1 for g in genders])


def train_semantic(
    config: Config,
    groups_dir: Path,
    output: Path,
    init: Path | None = None,
    init_units: Path | None = None,
) -> None:
    """Trains the semantic encoder and writes `output/final.pt` (a Zipformer: icefall's names),
    `units.model`.

    Args:
        init: Weights to start from; new if None. They stay as they are if
            `semantic.train.max_steps` is 0.
        init_units: Sentencepiece model of the CTC output of `init`. That output is kept, with a new
            row for the speaker change; a transducer keeps the units only. If None, units and output
            are new.

    Raises:
        InputError: If files do not match each other, the configuration or the text.
    """
    check_loss(config.semantic.sot)
    if config.semantic.encoder_section != "encoder" and config.semantic.sot.loss != "ctc":
        raise InputError(
            f"semantic.sot.loss: must be ctc for semantic.{config.semantic.encoder_section}"
        )
    train = config.semantic.train
    stored = read_groups(groups_dir / "train.jsonl.gz")
    serialized = config.semantic.sot.serialized
    groups = training_groups(stored if serialized else segments_alone(stored), train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    units = output / "units.model"
    if rank() == 0 and not units.exists():
        transcripts = [sot_transcript(cut) for cut in groups]
        if init_units:
            _grow_units(init_units, transcripts, units)
        else:
            train_units(transcripts, config.semantic.sot, units)
    wait_for_all()
    seed_everything(train.seed)
    task = SotTask(config, groups, dev, units)
    if init:
        if isinstance(task.model, Zipformer):
            load_zipformer(task.model, init, grow=config.semantic.grow)
        else:
            task.model.load_weights(init)
        if init_units and isinstance(task.model, CtcEncoder):
            task.model.load_ctc_output(init, len(Units(init_units)))
    elif not train.max_steps:
        raise InputError(
            "semantic.train.max_steps: must be above 0 without parts.semantic_init, got 0"
        )
    if train.max_steps:
        fit(task, config, output)
    _leave_out_untrained(task.model, config.semantic, init_units is not None)
    if rank() == 0:
        save(output / "final.pt", {"model": task.model.state_dict()})


def _leave_out_untrained(model: AlignedEncoder, config: SemanticConfig, given: bool) -> None:
    """Removes outputs whose weights are random; the others can place words in time.

    Args:
        model: The encoder.
        config: How it was trained.
        given: Whether the weights that it began with had a CTC output for its units.
    """
    if not (config.sot.alignment and config.train.max_steps):
        del model.alignment_output
    if isinstance(model, CtcEncoder) and not (given or config.train.max_steps):
        del model.ctc_output


def _grow_units(given: Path, transcripts: Sequence[str], output: Path) -> None:
    """Adds the speaker-change token to `given`; another language raises `InputError`."""
    grow_units(given, output)
    unknown = Units(output).unknown_share(transcripts)
    log.info("%s: %.2f %% of the training text is unknown to these units", given, 100 * unknown)
    if unknown > MAX_UNKNOWN:
        output.unlink()
        raise InputError(
            f"{given}: {100 * unknown:.0f} % of the training text is unknown to these units: "
            "their language differs; leave semantic_units empty to make new units"
        )


def train_voice(config: Config, groups_dir: Path, output: Path, init: Path | None = None) -> None:
    """Trains the voice encoder and writes `output/final.pt` (icefall's names).

    Args:
        init: Encoder weights to start from; new if None.
    """
    if config.voice.encoder_section != "encoder":
        raise InputError(
            f"voice.{config.voice.encoder_section}: is not trained here; name parts.voice_encoder"
        )
    train = config.voice.train
    groups = training_groups(read_groups(groups_dir / "train.jsonl.gz"), train)
    dev = read_groups(groups_dir / "dev.jsonl.gz")
    speakers = sorted({segment.speaker for cut in groups for segment in cut.supervisions})
    log.info("%d speakers", len(speakers))
    seed_everything(train.seed)
    task = VoiceTask(config, groups, dev, speakers)
    if init:
        load_zipformer(task.model, init)
    fit(task, config, output)
    if rank() == 0:
        save(output / "final.pt", {"model": task.model.state_dict()})
