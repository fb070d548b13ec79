"""From utterance groups to batches: buckets of similar length, features, stored frames.

Shape suffixes: B batch, T frames, F mel bins, D encoder channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet, Fbank, FbankConfig
from lhotse.audio import AudioLoadingError, DurationMismatchError
from lhotse.dataset.collation import collate_custom_field
from lhotse.dataset.input_strategies import OnTheFlyFeatures
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tagspeech.config import FeatureConfig, TrainConfig
from tagspeech.corpus.manifests import read_manifest
from tagspeech.data.features import EXTRA
from tagspeech.errors import InputError

LOG_FLOOR = -23.02585  # log(1e-10), what padding holds (REFERENCE, arithmetic)


def read_groups(path: Path) -> CutSet:
    """The utterance groups of one split, all in memory. Raises `InputError` when there are none."""
    cuts = read_manifest(path)
    if not isinstance(cuts, CutSet):
        raise InputError(f"{path}: holds no Lhotse cuts; run stage 2 again")
    groups = cuts.to_eager()
    if not len(groups):
        raise InputError(f"{path}: holds no utterance group")
    return groups


def training_groups(groups: CutSet, train: TrainConfig) -> CutSet:
    """The groups between `train.shortest` and `train.longest` seconds."""
    kept = groups.filter(lambda cut: train.shortest <= cut.duration <= train.longest).to_eager()
    if not len(kept):
        raise InputError(
            f"no utterance group lasts {train.shortest}-{train.longest} s; "
            "change train.shortest or train.longest"
        )
    return kept


def batches_by_duration(groups: CutSet, max_duration: float) -> Iterator[CutSet]:
    """All groups, longest first, in batches of at most `max_duration` seconds of padded audio."""
    batch: list[Any] = []
    for cut in sorted(groups, key=lambda cut: (-cut.duration, cut.id)):
        if batch and batch[0].duration * (len(batch) + 1) > max_duration:
            yield CutSet.from_cuts(batch)
            batch = []
        batch.append(cut)
    if batch:
        yield CutSet.from_cuts(batch)


def _mean_of_channels(audio: Tensor) -> Tensor:
    """(samples,) of one channel or (channels, samples) to (samples,)."""
    return audio.mean(dim=0) if audio.dim() > 1 else audio


class FeatureReader:
    """Reads the audio of groups and gives their log-mel features, (B, T, F), and lengths (B,).

    Lhotse's Kaldi-compatible filter bank (REFERENCE, arithmetic); of a group with several channels
    their mean is heard.

    extra    kind (a row of `data.features.EXTRA`) and bins of further features, which follow those
             of the filter bank, 100 frames a second too (`Config.extra_features`)
    workers  threads that read audio; 0: this one alone
    """

    def __init__(
        self, config: FeatureConfig, extra: Sequence[tuple[str, int]] = (), workers: int = 0
    ) -> None:
        self.sampling_rate = config.sampling_rate
        self.fbank = Fbank(
            FbankConfig(sampling_rate=config.sampling_rate, num_mel_bins=config.num_mel_bins)
        )
        # One recording at a time: in a padded batch the last frame would hear the padding.
        self.read = OnTheFlyFeatures(
            self.fbank,
            wave_transforms=[_mean_of_channels],
            num_workers=workers,
            use_batch_extract=False,
        )
        self.extra = [EXTRA[kind](bins, config.sampling_rate) for kind, bins in extra]

    def __call__(self, groups: CutSet) -> tuple[Tensor, Tensor]:
        groups = groups.resample(self.sampling_rate)
        with torch.autocast("cpu", enabled=False):  # features stay in float32
            try:
                features_BTF, lens_B = self.read(groups)
            except (AudioLoadingError, DurationMismatchError, OSError) as error:
                told = " ".join(str(error).split())  # Lhotse names the file
                raise InputError(f"audio of a group cannot be read: {told}") from error
        if not self.extra:
            return features_BTF, lens_B
        return self._with_extra(
            features_BTF, lens_B, [np.atleast_2d(cut.load_audio()).mean(axis=0) for cut in groups]
        )

    def of_samples(self, samples: list[NDArray[np.float32]]) -> tuple[Tensor, Tensor]:
        """The same for audio in memory: arrays (T,) at the model's sampling rate."""
        tensors = [
            torch.as_tensor(self.fbank.extract(one, sampling_rate=self.sampling_rate))
            for one in samples
        ]
        lens_B = torch.tensor([len(one) for one in tensors])
        features_BTF = pad_sequence(tensors, batch_first=True, padding_value=LOG_FLOOR)
        if not self.extra:
            return features_BTF, lens_B
        return self._with_extra(features_BTF, lens_B, samples)

    def _with_extra(
        self, features_BTF: Tensor, lens_B: Tensor, samples: list[NDArray[np.float32]]
    ) -> tuple[Tensor, Tensor]:
        """The extra features after those of the filter bank."""
        blocks = [features_BTF]
        for extractor in self.extra:
            block_BTF = features_BTF.new_zeros(*features_BTF.shape[:2], extractor.bins)
            for item, (samples_T, length) in enumerate(zip(samples, lens_B.tolist(), strict=True)):
                block_BTF[item, :length] = torch.as_tensor(extractor(samples_T))[:length]
            blocks.append(block_BTF)
        return torch.cat(blocks, dim=-1), lens_B


def read_frames(groups: CutSet) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Encoder frames that stage 5 stored: semantic (B, T, D), its lengths, voice, its lengths."""
    semantic, semantic_lens = collate_custom_field(groups, "semantic_frames", pad_value=0)
    voice, voice_lens = collate_custom_field(groups, "voice_frames", pad_value=0)
    return semantic.float(), semantic_lens, voice.float(), voice_lens
