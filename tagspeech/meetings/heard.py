"""What one window of a recording gave: segments and the voice of each.

Shape suffixes: N segments, D encoder channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tagspeech.segments import Segment


@dataclass(frozen=True)
class Heard:
    """start, end  of the window, seconds of the recording
    segments    in the recording's times; speakers as the window names them
    vectors     voice of each segment, (N, D), unit length
    """

    start: float
    end: float
    segments: tuple[Segment, ...]
    vectors: NDArray[np.float32]

    def to_row(self) -> dict[str, Any]:
        """As a row of a journal."""
        return {
            "start": self.start,
            "end": self.end,
            "segments": [asdict(one) for one in self.segments],
            "vectors": [[round(float(x), 4) for x in vector_D] for vector_D in self.vectors],
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Heard:
        """What `to_row` gave, but for the last digits of vectors."""
        segments = []
        for one in row["segments"]:
            sure = one["word_confidences"]
            known = None if sure is None else tuple(sure)
            segments.append(Segment(**{**one, "word_confidences": known}))
        vectors_ND = np.array(row["vectors"], dtype=np.float32).reshape(len(segments), -1)
        return cls(row["start"], row["end"], tuple(segments), vectors_ND)
