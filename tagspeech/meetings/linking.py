"""Who is who over all windows of a recording, by voice.

Shape suffixes: N speakers of windows, D encoder channels, K speakers of the recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from tagspeech.errors import InputError
from tagspeech.meetings.heard import Heard
from tagspeech.segments import Segment

SHORT = 1.0  # seconds; the voice of who talks less in a window tells little: he founds no speaker
NEVER = np.inf  # distance of two who differ in any case


@dataclass(frozen=True)
class Limits:
    """How many speakers a recording has: `number` where it is known, otherwise from `minimum` to
    `maximum`; None: any."""

    number: int | None = None
    minimum: int = 1
    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise InputError(
                f"number of speakers: wants 1 or more, found {self.least} to {self.most}"
            )

    @property
    def least(self) -> int:
        return self.number or self.minimum

    @property
    def most(self) -> int | None:
        return self.number or self.maximum


@dataclass(frozen=True)
class Voices:
    """Whom a recording may have.

    threshold  mean cosine distance (0 to 2) up to which speakers of windows are one
    limits     of their number
    enrolled   voices by name, (D,), unit length: who is near one has his name
    """

    threshold: float
    limits: Limits = field(default_factory=Limits)
    enrolled: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def link(heard: Sequence[Heard], voices: Voices) -> list[Segment]:
    """The segments of all windows with speakers of the recording: "1", "2", ... by first
    appearance, or the name of an enrolled voice.

    Two speakers of one window are two speakers of the recording, and so are two enrolled voices;
    there may be more than `voices` says where a window has more. Who talks for a second or more is
    clustered by average linkage (distances of N speakers of windows: N^2 numbers, 0.1 GB for
    5,000); the others then go to the nearest of those speakers.
    """
    vectors: dict[tuple[int, str], NDArray[np.float32]] = {}
    seconds: dict[tuple[int, str], float] = defaultdict(float)
    for number, window in enumerate(heard):
        for segment, vector_D in zip(window.segments, window.vectors, strict=True):
            who = number, segment.speaker
            vectors[who] = vectors.get(who, 0) + vector_D * np.float32(segment.duration)
            seconds[who] += segment.duration
    if not vectors:
        return []
    sure = [who for who in vectors if seconds[who] >= SHORT] or list(vectors)
    unit = {who: _unit(vector_D) for who, vector_D in vectors.items()}
    enrolled = list(voices.enrolled)
    labels = _cluster(
        np.stack([*voices.enrolled.values(), *(unit[who] for who in sure)]),
        [-1] * len(enrolled) + [window for window, _ in sure],
        voices,
    )
    of = dict(zip(sure, labels[len(enrolled) :], strict=True))
    _place_others(of, unit, seconds)
    names: dict[int, str] = dict(zip(labels, enrolled, strict=False))
    taken = set(enrolled)
    segments = []
    for number, window in enumerate(heard):
        for one in window.segments:
            label = of[number, one.speaker]
            if label not in names:
                free = (str(n) for n in range(1, len(names) + len(taken) + 2))
                names[label] = next(name for name in free if name not in taken)
                taken.add(names[label])
            segments.append(replace(one, speaker=names[label]))
    return segments


def _unit(vector_D: NDArray[np.float32]) -> NDArray[np.float32]:
    norm = np.linalg.norm(vector_D)
    return vector_D / norm if norm else vector_D


def _cluster(unit_ND: NDArray[np.float32], windows: Sequence[int], voices: Voices) -> list[int]:
    """A label for each vector. Average linkage in which two of one window never meet: scipy's knows
    no such constraint. A mean with `NEVER` is `NEVER`, so it passes on to what is merged."""
    distance_NN = (1 - unit_ND @ unit_ND.T).astype(np.float32)
    same = np.equal.outer(windows, windows)
    distance_NN[same] = NEVER
    labels = list(range(len(unit_ND)))
    sizes = np.ones(len(unit_ND), dtype=np.float32)
    nearest_N = distance_NN.min(1, initial=NEVER)
    limits = voices.limits
    count = len(labels)
    while count > limits.least:
        first = int(nearest_N.argmin())
        shortest = nearest_N[first]
        enough = limits.most is None or count <= limits.most
        told_apart = limits.number is None and shortest > voices.threshold
        if shortest == NEVER or (told_apart and enough):
            break
        second = int(distance_NN[first].argmin())
        first, second = min(first, second), max(first, second)
        total = sizes[first] + sizes[second]
        merged_N = (sizes[first] * distance_NN[first] + sizes[second] * distance_NN[second]) / total
        merged_N[[first, second]] = NEVER
        stale = nearest_N >= np.minimum(distance_NN[:, first], distance_NN[:, second])
        distance_NN[first], distance_NN[:, first] = merged_N, merged_N
        distance_NN[second], distance_NN[:, second] = NEVER, NEVER
        sizes[first] = total
        stale[[first, second]] = True
        nearest_N[stale] = distance_NN[stale].min(1, initial=NEVER)
        nearest_N = np.minimum(nearest_N, merged_N)
        nearest_N[first] = merged_N.min()
        nearest_N[second] = NEVER
        labels = [first if label == second else label for label in labels]
        count -= 1
    return labels


def _place_others(
    of: dict[tuple[int, str], int],
    unit: Mapping[tuple[int, str], NDArray[np.float32]],
    seconds: Mapping[tuple[int, str], float],
) -> None:
    """Gives who talks little to the nearest speaker that his window does not have yet; to a new
    one where it has all."""
    sums: dict[int, NDArray[np.float32]] = {}
    for who, label in of.items():
        sums[label] = sums.get(label, 0) + unit[who] * np.float32(seconds[who])
    centres = {label: _unit(vector_D) for label, vector_D in sums.items()}
    fresh = max(of.values(), default=-1) + len(unit) + 1
    there: dict[int, set[int]] = defaultdict(set)
    for (window, _), label in of.items():
        there[window].add(label)
    others = [who for who in unit if who not in of]
    for who in sorted(others, key=lambda who: -seconds[who]):
        free = [label for label in centres if label not in there[who[0]]]
        if free:
            of[who] = max(free, key=lambda label: float(centres[label] @ unit[who]))
        else:
            of[who], fresh = fresh, fresh + 1
            centres[of[who]] = unit[who]
        there[who[0]].add(of[who])
