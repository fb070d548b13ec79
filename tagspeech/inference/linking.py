"""Links the speakers of all windows of a recording by their voices.

Shape suffixes: U speakers of windows, D channels of a voice vector, K speakers of the recording, E
enrolled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist, pdist

from tagspeech.inference.clustering import FARTHEST
from tagspeech.inference.recognizer import WindowResult
from tagspeech.ranges import Limits
from tagspeech.segments import Segment, by_time

FOUNDING = 1.5  # seconds of speech in a window that make a voice reliable enough to cluster
FEW = 0.04  # share of the speech; a cluster with less is not a speaker


@dataclass(frozen=True)
class Voices:
    """The speakers that a recording may have.

    Attributes:
        threshold: Mean cosine distance (0 to 2) up to which speakers of windows are one speaker.
        limits: The number of speakers.
        enrolled: Voices (D,) of unit length by name. The speaker nearest to an enrolled voice gets
            its name if the distance is at most `threshold`.
    """

    threshold: float
    limits: Limits = field(default_factory=Limits)
    enrolled: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A speaker of one window: the sum of the speaker's vectors and the seconds of speech."""

    window: int
    name: str
    sum_D: NDArray[np.float32]
    seconds: float


def link(results: Sequence[WindowResult], voices: Voices) -> list[Segment]:
    """The segments of all windows, by time, with the speakers of the recording.

    Speakers are "1", "2", ... by first appearance, or the name of an enrolled voice.

    Speakers with at least `FOUNDING` seconds in a window are clustered by average linkage. Two
    speakers of one window are as far apart as voices can be; the other windows may outweigh that,
    since a single window sometimes splits a voice in two. A cluster with little speech joins the
    nearest other cluster. Then the speakers of each window, also those of a few words, are assigned
    to clusters with the least total distance, at most one per cluster while there are enough
    clusters. The speakers of a single window stay as they are, unless there are more than
    `voices.limits` allows.
    """
    everybody = [unit for number, window in enumerate(results) for unit in units(number, window)]
    if not everybody:
        return []
    founders = [unit for unit in everybody if unit.seconds >= FOUNDING] or everybody
    if len({unit.window for unit in everybody}) == 1:
        founders = everybody
    clusters = _cluster(founders, voices)
    sums_KD = np.zeros((max(clusters) + 1, len(founders[0].sum_D)), dtype=np.float32)
    for unit, cluster in zip(founders, clusters, strict=True):
        sums_KD[cluster] += unit.sum_D
    windows: dict[int, list[Unit]] = defaultdict(list)
    for unit in everybody:
        windows[unit.window].append(unit)
    labels: dict[tuple[int, str], int] = {}
    for window, own in windows.items():
        for unit, cluster in zip(own, _assign(own, sums_KD), strict=True):
            labels[window, unit.name] = cluster
    linked = by_time(
        [
            replace(segment, speaker=str(labels[number, segment.speaker]))
            for number, window in enumerate(results)
            for segment in window.segments
        ]
    )
    names = _enrolled(sums_KD, voices)
    free = (str(n + 1) for n in range(len(linked) + len(names)))
    for segment in linked:
        if segment.speaker not in names:
            names[segment.speaker] = next(name for name in free if name not in voices.enrolled)
    return [replace(segment, speaker=names[segment.speaker]) for segment in linked]


def units(number: int, window: WindowResult) -> list[Unit]:
    """The speakers of a window, by first appearance."""
    sums: dict[str, NDArray[np.float32]] = {}
    seconds: dict[str, float] = defaultdict(float)
    for segment, vector_D in zip(window.segments, window.vectors, strict=True):
        who = segment.speaker
        sums[who] = sums.get(who, 0) + vector_D * np.float32(segment.duration)
        seconds[who] += segment.duration
    return [Unit(number, name, sum_D, seconds[name]) for name, sum_D in sums.items()]


def _cluster(units: Sequence[Unit], voices: Voices) -> list[int]:
    """The cluster of each unit, counted from 0."""
    if len(units) == 1:
        return [0]
    distances = _known(pdist(np.stack([unit.sum_D for unit in units]), "cosine"))
    distances[pdist([[unit.window] for unit in units]) == 0] = FARTHEST
    tree = linkage(distances, "average")
    clusters_U = fcluster(tree, voices.threshold, "distance") - 1
    is_single = len({unit.window for unit in units}) == 1
    found = clusters_U.tolist() if is_single else _without_few(clusters_U, units)
    least, most = voices.limits.least, voices.limits.most or len(units)
    count = min(max(len(set(found)), least), most, len(units))
    if count != len(set(found)):
        found = cut_tree(tree, count)[:, 0].tolist()
    numbers = {cluster: number for number, cluster in enumerate(sorted(set(found)))}
    return [numbers[cluster] for cluster in found]


def _without_few(clusters_U: NDArray[np.int32], units: Sequence[Unit]) -> list[int]:
    """The clusters, with the units of small clusters moved to the nearest other cluster."""
    seconds_U = np.array([unit.seconds for unit in units])
    seconds_K = np.bincount(clusters_U, seconds_U)
    large = np.flatnonzero(seconds_K >= FEW * seconds_U.sum())
    if not len(large):
        return clusters_U.tolist()
    sums_UD = np.stack([unit.sum_D for unit in units])
    sums_KD = np.stack([sums_UD[clusters_U == cluster].sum(axis=0) for cluster in large])
    nearest_U = large[distances(sums_UD, sums_KD).argmin(axis=1)]
    kept: list[int] = np.where(np.isin(clusters_U, large), clusters_U, nearest_U).tolist()
    return kept


def _assign(units: Sequence[Unit], sums_KD: NDArray[np.float32]) -> list[int]:
    """The cluster of each speaker of one window; different clusters while there are enough."""
    distance_UK = distances(np.stack([unit.sum_D for unit in units]), sums_KD)
    nearest: list[int] = distance_UK.argmin(axis=1).tolist()
    if len(units) <= len(sums_KD):
        seconds_U1 = np.array([[unit.seconds] for unit in units])
        nearest = linear_sum_assignment(distance_UK * seconds_U1)[1].tolist()
    return nearest


def _enrolled(sums_KD: NDArray[np.float32], voices: Voices) -> dict[str, str]:
    """The names of clusters whose voice is enrolled."""
    if not voices.enrolled:
        return {}
    distance_KE = distances(sums_KD, np.stack(list(voices.enrolled.values())))
    names = list(voices.enrolled)
    return {
        str(k): names[e]
        for k, e in zip(*linear_sum_assignment(distance_KE), strict=True)
        if distance_KE[k, e] <= voices.threshold
    }


def distances(a_UD: NDArray[np.float32], b_KD: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine distances (U, K), from 0 to 2."""
    return _known(cdist(a_UD, b_KD, "cosine"))


def _known(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distances, with 1 for a vector of zeros: a segment without a voice frame is equally far
    from all voices."""
    return np.nan_to_num(distances, nan=1.0)
