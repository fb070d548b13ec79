"""Speaker verification: the equal error rate of speaker vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def equal_error_rate(vectors_ND: NDArray[np.floating], speakers: Sequence[str]) -> float:
    """The rate at which false acceptances equal false rejections, over all pairs by cosine.

    Args:
        vectors_ND: N vectors.
        speakers: The speaker of each vector.

    Returns:
        The rate, from 0 to 1; 0.5 if all or none of the pairs have the same speaker.
    """
    unit_ND = vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)
    upper = np.triu_indices(len(speakers), 1)
    names = np.asarray(speakers)
    cosines = (unit_ND @ unit_ND.T)[upper]
    same = (names[:, None] == names[None, :])[upper]
    if same.all() or not same.any():
        return 0.5
    same = same[np.argsort(cosines, kind="stable")]
    rejected = np.cumsum(same) / same.sum()  # same-speaker pairs below each threshold
    accepted = 1 - np.cumsum(~same) / (~same).sum()
    crossing = int(np.argmax(rejected >= accepted))
    return float((rejected[crossing] + accepted[crossing]) / 2)
