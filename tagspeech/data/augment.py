"""Augmentation of training audio with Lhotse: speed, reverberation, noise."""

from __future__ import annotations

import random
from pathlib import Path

from lhotse import CutSet, RecordingSet
from lhotse.dataset.cut_transforms import CutMix, PerturbSpeed, ReverbWithImpulseResponse

from tagspeech.config import AugmentConfig
from tagspeech.corpus.manifests import read_manifest
from tagspeech.errors import InputError


class Augment:
    """Augments the groups of a batch; times follow the speed.

    Raises:
        InputError: A manifest is missing or contains no recordings.
    """

    def __init__(self, config: AugmentConfig, sampling_rate: int) -> None:
        self.config, self.sampling_rate = config, sampling_rate
        self.is_on = config != AugmentConfig()
        self.noise = _recordings(config.noise, "noise", sampling_rate)
        self.rooms = _recordings(config.rooms, "rooms", sampling_rate)

    def __call__(self, groups: CutSet, rng: random.Random) -> CutSet:
        if not self.is_on:
            return groups
        config = self.config
        groups = groups.resample(self.sampling_rate).to_eager()
        speeds = [speed for speed in config.speeds if speed != 1]
        if speeds:
            share = len(speeds) / len(config.speeds)
            groups = PerturbSpeed(speeds, share, rng, preserve_id=True)(groups)
        if self.rooms:
            share = config.rooms_share
            groups = ReverbWithImpulseResponse(
                self.rooms, share, randgen=rng, preserve_id=True, normalize_output=False
            )(groups)
        if self.noise:
            noise = CutSet.from_manifests(recordings=self.noise)
            groups = CutMix(
                *(noise, config.noise_snr, config.noise_share),
                **{"pad_to_longest": False, "preserve_id": True, "seed": rng},
            )(groups)
        return groups.to_eager()


def _recordings(path: str, key: str, sampling_rate: int) -> RecordingSet | None:
    """The recordings of a manifest, resampled; None without a path."""
    if not path:
        return None
    recordings = read_manifest(Path(path))
    if not isinstance(recordings, RecordingSet) or not len(recordings):
        raise InputError(
            f"train.augment.{key}: {path}: must hold recordings, as `lhotse prepare` writes them"
        )
    return recordings.resample(sampling_rate).to_eager()
