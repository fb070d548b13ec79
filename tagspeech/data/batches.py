"""Utterance groups to features and stored frames.

Shape suffixes: B batch, T frames, F mel bins, D encoder channels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Fbank, FbankConfig
from lhotse.audio import AudioLoadingError, DurationMismatchError
from lhotse.dataset.collation import collate_custom_field
from lhotse.utils import LOG_EPSILON
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import EncoderConfig, FeatureConfig, TrainConfig
from tagspeech.corpus.manifests import read_manifest
from tagspeech.data.features import EXTRA
from tagspeech.errors import InputError
from tagspeech.files import check_id

log = logging.getLogger(__name__)

LOG_FLOOR = LOG_EPSILON  # log(1e-10), the value of padding (docs/released-format.md)


def read_groups(path: Path) -> CutSet:
    """Reads the utterance groups of one split. Raises `InputError` if there are none."""
    cuts = read_manifest(path)
    if not isinstance(cuts, CutSet):
        raise InputError(f"{path}: contains no Lhotse cuts; run stage 2 again")
    groups = cuts.to_eager()
    if not len(groups):
        raise InputError(f"{path}: contains no utterance group")
    for cut in groups:
        check_id(cut.id, str(path), longest=220)
    return groups


def training_groups(groups: CutSet, train: TrainConfig) -> CutSet:
    """The groups between `train.shortest` and `train.longest` seconds that are not left out by
    `train.max_segments` and `train.empty_text`; a line of the log counts these."""
    lasting = groups.filter(lambda cut: train.shortest <= cut.duration <= train.longest).to_eager()
    if not len(lasting):
        raise InputError(
            f"no utterance group lasts {train.shortest}-{train.longest} s; "
            "change train.shortest or train.longest"
        )
    many = [cut for cut in lasting if 0 < train.max_segments < len(cut.supervisions)]
    empty = [cut for cut in lasting if not train.empty_text and _has_empty_text(cut)]
    if not (many or empty):
        return lasting
    left_out = {cut.id for cut in (*many, *empty)}
    log.info(
        "training leaves out %d of %d groups: %d have more than %d segments (max_segments), %d "
        "have a segment without words (empty_text)",
        *(len(left_out), len(lasting), len(many), train.max_segments, len(empty)),
    )
    if len(left_out) == len(lasting):
        raise InputError(
            "train.max_segments and train.empty_text leave out every utterance group; change them"
        )
    return lasting.filter(lambda cut: cut.id not in left_out).to_eager()


def _has_empty_text(group: Any) -> bool:
    return any(not (segment.text or "").strip() for segment in group.supervisions)


def batches_by_duration(groups: CutSet, max_duration: float) -> Iterator[CutSet]:
    """Yields all groups, longest first, in batches of at most `max_duration` s of padded audio."""
    batch: list[Any] = []
    for cut in sorted(groups, key=lambda cut: (-cut.duration, cut.id)):
        if batch and batch[0].duration * (len(batch) + 1) > max_duration:
            yield CutSet.from_cuts(batch)
            batch = []
        batch.append(cut)
    if batch:
        yield CutSet.from_cuts(batch)


class FeatureReader:
    """Computes log-mel features of groups with Lhotse's Kaldi-compatible filter bank.

    The channels of a group are averaged (docs/released-format.md). One recording is computed at a
    time: in a padded batch the last frame would include padding.

    Args:
        config: Sampling rate and number of mel bins.
        extra: Kind (a row of `data.features.EXTRA`) and bins of further features, which follow
            those of the filter bank, also at 100 frames per second (`Config.extra_features`).
        fbank: Whether the filter bank is computed; without it the first of `extra` comes first.
    """

    def __init__(
        self,
        config: FeatureConfig,
        extra: Sequence[tuple[str, int]] = (),
        *,
        fbank: bool = True,
    ) -> None:
        self.sampling_rate = config.sampling_rate
        self.extractors: list[Callable[[NDArray[np.float32]], Any]] = []
        if fbank:
            kaldi = Fbank(
                FbankConfig(sampling_rate=config.sampling_rate, num_mel_bins=config.num_mel_bins)
            )
            self.extractors.append(partial(kaldi.extract, sampling_rate=config.sampling_rate))
        self.extractors += [EXTRA[kind](bins, config.sampling_rate) for kind, bins in extra]

    @classmethod
    def of_encoder(cls, config: FeatureConfig, encoder: EncoderConfig) -> FeatureReader:
        """A reader of what one encoder needs."""
        kind = encoder.feature_kind
        if kind == "fbank":
            return cls(config)
        return cls(config, [(kind, encoder.feature_dim)], fbank=False)

    def __call__(self, groups: CutSet) -> tuple[Tensor, Tensor]:
        """Features (B, T, F) of groups, and lengths (B,)."""
        try:
            samples = [
                np.atleast_2d(cut.load_audio()).mean(axis=0)
                for cut in groups.resample(self.sampling_rate)
            ]
        except (AudioLoadingError, DurationMismatchError, OSError, ValueError) as error:
            reason = " ".join(str(error).split())  # includes the name of the file
            raise InputError(f"audio of a group cannot be read: {reason}") from error
        return self.of_samples(samples)

    def of_samples(self, samples: list[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """Features of arrays (samples,) at the sampling rate of the model, and lengths (B,)."""
        blocks: list[Tensor] = []
        with torch.autocast("cpu", enabled=False):  # features stay in float32
            for extract in self.extractors:
                block = [torch.as_tensor(extract(samples_T)) for samples_T in samples]
                if not blocks:
                    lens_B = torch.tensor([len(features_TF) for features_TF in block])
                # The filter bank rounds the number of frames, others round it up.
                block = [item[:n] for item, n in zip(block, lens_B.tolist(), strict=True)]
                fill = 0.0 if blocks else LOG_FLOOR
                blocks.append(pad_sequence(block, batch_first=True, padding_value=fill))
        return torch.cat(blocks, dim=-1) if len(blocks) > 1 else blocks[0], lens_B


def read_frames(groups: CutSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder frames stored by stage 5: semantic (B, T, D) and lengths, voice and lengths."""
    semantic, semantic_lens = collate_custom_field(groups, "semantic_frames", pad_value=0)
    voice, voice_lens = collate_custom_field(groups, "voice_frames", pad_value=0)
    return semantic.float(), semantic_lens, voice.float(), voice_lens
