"""Names the speakers of a live recording; a name is given once and never taken back.

Shape suffixes: S speakers of a window, D channels of a voice vector, K identities.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from tagspeech.inference.clustering import FARTHEST
from tagspeech.inference.linking import FOUNDING, Voices, distances, units
from tagspeech.inference.recognizer import WindowResult
from tagspeech.segments import Segment


class Identities:
    """The voices so far: one sum of vectors for each name.

    Args:
        voices: Who may speak.
    """

    def __init__(self, voices: Voices) -> None:
        self.voices = voices
        self.names: list[str] = list(voices.enrolled)
        self.sums_KD: list[NDArray[np.float32]] = list(voices.enrolled.values())

    def name(self, result: WindowResult) -> list[Segment]:
        """The segments of a window with the names of their speakers.

        Names are "1", "2", ... by first appearance in the recording, or those of enrolled voices.
        Two speakers of one window have two names. Speakers are assigned to known names with the
        least total distance. A speaker farther than `threshold` from every name is new, unless they
        speak for less than `FOUNDING` seconds, or there are as many names as `limits` allows and
        enough for the window.
        """
        own = units(0, result)
        if not own:
            return []
        places = self._places(
            np.stack([unit.sum_D for unit in own]), [unit.seconds for unit in own]
        )
        names = {unit.name: self.names[place] for unit, place in zip(own, places, strict=True)}
        return [replace(segment, speaker=names[segment.speaker]) for segment in result.segments]

    def _places(self, vectors_SD: NDArray[np.float32], seconds_S: list[float]) -> list[int]:
        """The index of the name of each speaker of a window; new speakers get new names."""
        known, count = len(self.names), len(vectors_SD)
        most = self.voices.limits.most
        fresh = count if most is None else max(0, min(count, max(most, count) - known))
        # A new name costs the threshold, so that a speaker farther than that from all is new.
        costs_SK = np.full((count, known + fresh), self.voices.threshold)
        costs_SK[np.array(seconds_S) < FOUNDING] = FARTHEST
        if known:
            costs_SK[:, :known] = distances(vectors_SD, np.stack(self.sums_KD))
        places = []
        _, columns = linear_sum_assignment(costs_SK)
        for column, vector_D in zip(columns.tolist(), vectors_SD, strict=True):
            place = column if column < known else self._new()
            self.sums_KD[place] = self.sums_KD[place] + vector_D
            places.append(place)
        return places

    def _new(self) -> int:
        free = (str(number) for number in range(1, len(self.names) + 2))
        self.names.append(next(name for name in free if name not in self.names))
        self.sums_KD.append(np.float32(0))
        return len(self.names) - 1
