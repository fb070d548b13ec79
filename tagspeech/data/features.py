"""Features of encoders that do not compute from the log-mel filter bank, 100 frames a second.

Shape suffixes: T samples or frames, F bins.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tagspeech.errors import InputError


class FeatureExtractor(Protocol):
    """Computes features of one recording, (T, `bins`), at 100 frames a second."""

    bins: int

    def __init__(self, bins: int, sampling_rate: int) -> None: ...
    def __call__(self, samples_T: NDArray[np.float32]) -> NDArray[np.float32]: ...


class WhisperFeatures:
    """Whisper's log-mel features, (T, F); each window of 30 s is scaled alone, as Whisper does."""

    def __init__(self, bins: int, sampling_rate: int) -> None:
        if sampling_rate != 16000:
            raise InputError("features.sampling_rate: must be 16000 for a Whisper")
        from transformers import WhisperFeatureExtractor  # takes seconds

        self.bins, self.sampling_rate = bins, sampling_rate
        self.extractor = WhisperFeatureExtractor(feature_size=bins)

    def __call__(self, samples_T: NDArray[np.float32]) -> NDArray[np.float32]:
        window = self.extractor.n_samples
        pieces = [
            self._of_window(samples_T[start : start + window])
            for start in range(0, len(samples_T), window)
        ]
        return np.concatenate(pieces, axis=1).T

    def _of_window(self, samples_T: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (F, T) of up to 30 s: those that Whisper has for a window padded to 30 s."""
        hop, length = self.extractor.hop_length, len(samples_T)
        count = -(-length // hop)  # frames; the last one sees this much silence
        padded = min(self.extractor.n_samples, count * hop + self.extractor.n_fft)
        found = self.extractor(
            np.pad(samples_T, (0, padded - length)),
            sampling_rate=self.sampling_rate,
            padding="do_not_pad",
            return_tensors="np",
        )
        features_FT: NDArray[np.float32] = found.input_features[0][:, :count]
        return features_FT


# By `EncoderConfig.feature_kind`
EXTRA: dict[str, type[FeatureExtractor]] = {"whisper": WhisperFeatures}
