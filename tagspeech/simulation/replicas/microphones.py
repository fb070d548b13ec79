"""What the microphones of a meeting room hear: a circular array on the table, and headsets."""

from __future__ import annotations

import numpy as np
from scipy.signal import fftconvolve

from tagspeech.simulation.conversation import SAMPLING_RATE, SPEECH_LEVEL, Speaker
from tagspeech.simulation.mixing import CEILING, GAIN_DB, T60, mix, room_response
from tagspeech.simulation.replicas.meeting import SimulatedMeeting

CHANNELS = 8
RADIUS = 0.1  # metres
SPEED_OF_SOUND = 343.0  # metres per second
SNR_DB = (15.0, 25.0)


def headset_mix(meeting: SimulatedMeeting) -> np.ndarray:
    """All headsets as one channel, (samples,) int16."""
    heard = [item for item in meeting.placed if item.start < meeting.length]
    return mix(meeting.rng, meeting.people, heard, meeting.length)


def array(meeting: SimulatedMeeting) -> np.ndarray:
    """The channels of the array, (CHANNELS, samples) int16: from each person's direction the
    direct sound with its delays, then reverberation; noise of each microphone's own."""
    rng, length = meeting.rng, meeting.length
    t60 = rng.uniform(*T60)
    angles = 2 * np.pi * np.arange(CHANNELS) / CHANNELS
    responses: dict[Speaker, np.ndarray] = {}
    for person in meeting.people:
        away = 1 - np.cos(rng.uniform(0, 2 * np.pi) - angles)
        delays = np.round(away * RADIUS / SPEED_OF_SOUND * SAMPLING_RATE).astype(int)
        gain = 10 ** (rng.uniform(-GAIN_DB, GAIN_DB) / 20)
        channels = [gain * np.pad(room_response(rng, t60), (d, 20 - d)) for d in delays]
        responses[person] = np.stack(channels).astype(np.float32)
    level = SPEECH_LEVEL * 10 ** (-rng.uniform(*SNR_DB) / 20)
    heard = level * rng.standard_normal((CHANNELS, length), np.float32)
    for item in meeting.placed:
        if item.start >= length:
            continue
        wet = fftconvolve(item.utterance.samples[None], responses[item.utterance.voice], axes=1)
        stop = min(item.start + wet.shape[1], length)
        heard[:, item.start : stop] += wet[:, : stop - item.start]
    heard *= min(1.0, CEILING / np.abs(heard).max())
    return np.round(heard * 32767).astype(np.int16)
