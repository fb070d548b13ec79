"""Microphones of a meeting room: a circular array on the table, and headsets."""

from __future__ import annotations

import numpy as np
from meeting import SimulatedMeeting
from scipy.signal import fftconvolve

from tagspeech.simulation.conversation import SAMPLING_RATE, SPEECH_LEVEL, Speaker
from tagspeech.simulation.mixing import CEILING, GAIN_DB, T60, mix, room_response

CHANNELS = 8
RADIUS = 0.1  # metres
SPEED_OF_SOUND = 343.0  # metres per second
SNR_DB = (15.0, 25.0)


def mix_headsets(meeting: SimulatedMeeting) -> np.ndarray:
    """All headsets as one channel, (samples,) int16."""
    audible = [item for item in meeting.placed if item.start < meeting.length]
    return mix(meeting.rng, meeting.people, audible, meeting.length)


def record_array(meeting: SimulatedMeeting) -> np.ndarray:
    """The channels of the array, (CHANNELS, samples) int16.

    Direct sound is delayed according to the direction of each person and followed by
    reverberation; noise is independent between microphones.
    """
    rng, length = meeting.rng, meeting.length
    t60 = rng.uniform(*T60)
    angles = 2 * np.pi * np.arange(CHANNELS) / CHANNELS
    responses: dict[Speaker, np.ndarray] = {}
    for person in meeting.people:
        path = 1 - np.cos(rng.uniform(0, 2 * np.pi) - angles)
        delays = np.round(path * RADIUS / SPEED_OF_SOUND * SAMPLING_RATE).astype(int)
        gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
        channels = [gain * np.pad(room_response(rng, t60), (d, 20 - d)) for d in delays]
        responses[person] = np.stack(channels).astype(np.float32)
    level = SPEECH_LEVEL * 10 ** (-rng.uniform(*SNR_DB) / 20)
    mixture = level * rng.standard_normal((CHANNELS, length), np.float32)
    for item in meeting.placed:
        if item.start >= length:
            continue
        wet = fftconvolve(item.utterance.samples[None], responses[item.utterance.voice], axes=1)
        stop = min(item.start + wet.shape[1], length)
        mixture[:, item.start : stop] += wet[:, : stop - item.start]
    mixture *= min(1.0, CEILING / np.abs(mixture).max())
    return np.round(mixture * 32767).astype(np.int16)
