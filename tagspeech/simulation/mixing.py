"""Simulated acoustics: the utterances of a session as one microphone records them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve, lfilter

from tagspeech.simulation.conversation import SAMPLING_RATE, SPEECH_LEVEL, Placed, Speaker

GAIN_DB = 4.0
SNR_DB = (15.0, 35.0)
REVERB_SHARE = 0.5
T60 = (0.15, 0.5)  # seconds
DIRECT_TO_REVERB_DB = (2.0, 12.0)
CEILING = 0.95  # maximum peak of a session


def mix(
    rng: np.random.Generator,
    pool: Sequence[Speaker],
    placed: Sequence[Placed],
    length: int,
) -> np.ndarray:
    """Mixes a session: a gain per speaker, reverberation in half of the sessions, coloured noise.

    Args:
        rng: Generator for the acoustics.
        pool: All speakers of the session.
        placed: Utterances; what extends past the end is cut.
        length: Number of samples.

    Returns:
        Samples (length,), int16.
    """
    levels = rng.uniform(-GAIN_DB, GAIN_DB, len(pool))
    gains = dict(zip(pool, 10 ** (levels / 20), strict=True))
    responses = {}
    if rng.random() < REVERB_SHARE:
        t60 = rng.uniform(*T60)
        responses = {voice: room_response(rng, t60) for voice in pool}
    # White noise through one pole: a flat to steeply falling spectrum.
    noise = lfilter([1.0], [1.0, -rng.uniform(0, 0.97)], rng.standard_normal(length, np.float32))
    snr = rng.uniform(*SNR_DB)
    mixture = noise * (SPEECH_LEVEL * 10 ** (-snr / 20) / np.sqrt(np.mean(noise**2)))
    for item in placed:
        voice = item.utterance.voice
        samples = item.utterance.samples * gains[voice]
        if responses:
            samples = fftconvolve(samples, responses[voice])
        stop = min(item.start + len(samples), length)
        mixture[item.start : stop] += samples[: stop - item.start]
    mixture *= min(1.0, CEILING / np.abs(mixture).max())
    return np.round(mixture * 32767).astype(np.int16)


def room_response(rng: np.random.Generator, t60: float) -> np.ndarray:
    """Draws an impulse response (N,), float32: the direct sound at sample 0, then noise, 2-12 dB
    weaker, that decays by 60 dB in `t60` seconds and is cut at 40 dB."""
    time = np.arange(1, int(t60 * 2 / 3 * SAMPLING_RATE)) / SAMPLING_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    tail *= 10 ** (-rng.uniform(*DIRECT_TO_REVERB_DB) / 20) / np.sqrt(np.sum(tail**2))
    return np.concatenate([[1.0], tail]).astype(np.float32)
