"""Speakers by voice: the LLM's words and times with speakers from the voice encoder.

The voice frames hold more about who speaks than a small LLM uses. The voice encoder makes a vector
of each segment's frames, and segments with similar vectors become one speaker of the session.

Shape suffixes: T frames, D encoder channels, N segments, V channels of a voice vector.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from torch import Tensor
from torch.nn.functional import normalize

from tagspeech.data.pooling import frames_alone
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.segments import Segment

OVERLAP = 0.25  # share of the shorter segment; segments that overlap more have two speakers
FARTHEST = 2.0  # cosine distance of opposite vectors


def voice_vectors(segments: Sequence[Segment], voice_TD: Tensor, encoder: StreamEncoder) -> Tensor:
    """The vector of each segment's voice frames where no other segment overlaps it.

    The LLM's times may lie anywhere: those beyond the end of the audio are cut to it. A segment
    without a frame of its own takes the frame nearest to its start.

    Args:
        segments: Times in seconds from the first frame.
        voice_TD: Voice frames, T > 0.
        encoder: The voice encoder that gave them.

    Returns:
        One vector for each segment, (N, V).
    """
    frames_per_second = encoder.config.frames_per_second
    end = len(voice_TD) / frames_per_second
    turns = [(min(s.start, end), min(s.end, end), n) for n, s in enumerate(segments)]
    regions = [
        (0, n, frames or [int(segments[n].start * frames_per_second)])
        for n, frames in enumerate(frames_alone(turns, frames_per_second))
    ]
    return encoder.vectors(voice_TD[None], torch.tensor([len(voice_TD)]), regions)


def cluster_voices(
    segments: Sequence[Segment], voice_TD: Tensor, encoder: StreamEncoder, threshold: float
) -> list[str]:
    """The speaker of each segment by average-linkage clustering of voices.

    Nobody talks over themselves: segments that clearly overlap are as far apart as possible,
    although their vectors, of the same frames, are similar. Where there is nothing to compare, as
    for a single segment or audio too short for a frame, there is one speaker.

    Args:
        segments: Segments of one session.
        voice_TD: Voice frames of the session, without padding.
        encoder: The voice encoder that gave them.
        threshold: Clusters are merged while their mean cosine distance (0 to 2) is at most this.

    Returns:
        "1", "2", ... by first appearance.
    """
    if len(segments) < 2 or not len(voice_TD):
        return ["1"] * len(segments)
    unit_NV = normalize(voice_vectors(segments, voice_TD, encoder).float()).cpu().numpy()
    distance_NN = np.maximum(1 - unit_NV @ unit_NV.T, 0)  # rounding gives less than 0
    distance_NN[_overlapping(segments)] = FARTHEST
    pairs = np.triu_indices(len(segments), 1)
    clusters = fcluster(linkage(distance_NN[pairs], "average"), threshold, "distance")
    numbers: dict[int, str] = {}
    return [numbers.setdefault(cluster, str(len(numbers) + 1)) for cluster in clusters.tolist()]


def _overlapping(segments: Sequence[Segment]) -> NDArray[np.bool_]:
    """Whether two segments share more than `OVERLAP` of the shorter: (N, N)."""
    starts_N = np.array([segment.start for segment in segments])
    ends_N = np.array([segment.end for segment in segments])
    lasting_N = ends_N - starts_N
    shared_NN = np.minimum.outer(ends_N, ends_N) - np.maximum.outer(starts_N, starts_N)
    overlapping_NN: NDArray[np.bool_] = shared_NN > OVERLAP * np.minimum.outer(lasting_N, lasting_N)
    return overlapping_NN


def with_speakers(segments: Sequence[Segment], speakers: Sequence[str]) -> list[Segment]:
    """The segments with new speakers, one for each segment.

    A speaker's gender is the one that the LLM gave to most of their speech, "u" if it gave none.
    """
    seconds: dict[str, dict[str, float]] = defaultdict(lambda: dict.fromkeys("fm", 0.0))
    for segment, speaker in zip(segments, speakers, strict=True):
        if segment.gender != "u":
            seconds[speaker][segment.gender] += segment.duration
    genders = {speaker: max(own, key=own.__getitem__) for speaker, own in seconds.items()}
    return [
        replace(segment, speaker=speaker, gender=genders.get(speaker, "u"))
        for segment, speaker in zip(segments, speakers, strict=True)
    ]
