"""Word times by forced alignment, with outputs that the semantic encoder was trained with.

    frames  the output of `AlignedEncoder`: the units of up to two speakers at each frame
    ctc     the CTC output, which knows when a unit is said, but not for how long

Both are linear layers over units (`data.units`). The words of a segment are aligned in the frames
of its range by the best path through their units. `frames` is used where it was trained.

Shape suffixes: T frames, D encoder channels, V units, S states of a path, K speakers at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tagspeech.data.units import Units, given_units
from tagspeech.errors import InputError
from tagspeech.segments import Segment, clipped
from tagspeech.weights import read_model, read_safetensors

BLANK, UNKNOWN = 0, 1
LEAD = 0.04  # seconds from the start of a word to its first frame in CTC; chosen on mini
TAIL = 0.6  # the most seconds that a word lasts after its last frame in CTC
OUTPUTS = {"frames": "alignment_output", "ctc": "ctc_output.1"}  # in the weights of an encoder
WEIGHTS, UNITS = "aligner.safetensors", "units.model"  # files of a saved aligner
_GIVEN_UNITS = (UNITS, "bpe.model", "data/lang_bpe_500/bpe.model")  # beside an encoder's weights

Spans = list[tuple[float, float]]


class WordAligner:
    """Places words in time.

    Args:
        weights: `KIND.weight` (V or 2 V, D) and `KIND.bias` of the outputs that there are.
        units: Those of the outputs.
        frames_per_second: Of the semantic encoder.
        path: Where the weights come from, for error messages.

    Raises:
        InputError: Weights are missing or do not match the units.
    """

    def __init__(
        self, weights: dict[str, Tensor], units: Units, frames_per_second: float, path: Path
    ) -> None:
        self.units, self.weights = units, {name: w.float() for name, w in weights.items()}
        self.frames_per_second = frames_per_second
        self.kind = "frames" if "frames.weight" in weights else "ctc"
        rows = len(units) * (2 if self.kind == "frames" else 1)
        shapes = [tuple(weights[f"{self.kind}.{part}"].shape[:1]) for part in ("weight", "bias")]
        if shapes != [(rows,)] * 2:
            raise InputError(
                f"{path}: its output {OUTPUTS[self.kind]} has {shapes[0][0]} rows, but by the "
                f"units beside it must have {rows}"
            )

    @classmethod
    def of_encoder(cls, path: Path, frames_per_second: float) -> WordAligner | None:
        """What the file of a trained semantic encoder and the units beside it have of an aligner.

        None if the file has no such output, or no sentencepiece model of its units is beside it.

        Raises:
            InputError: Outputs and units do not match.
        """
        state = read_model(path)
        weights = {
            f"{kind}.{part}": state[f"{name}.{part}"]
            for kind, name in OUTPUTS.items()
            for part in ("weight", "bias")
            if f"{name}.{part}" in state
        }
        beside = [file for name in _GIVEN_UNITS if (file := path.parent / name).exists()]
        if not (weights and beside):
            return None
        return cls(weights, given_units(beside[0]), frames_per_second, path)

    @classmethod
    def load(cls, folder: Path, frames_per_second: float) -> WordAligner | None:
        """The aligner in the folder of a model, if it has one."""
        path = folder / WEIGHTS
        if not path.exists():
            return None
        return cls(read_safetensors(path), given_units(folder / UNITS), frames_per_second, path)

    def save(self, folder: Path) -> None:
        """Writes what `load` reads, weights in half precision."""
        half = {name: weight.half().contiguous() for name, weight in self.weights.items()}
        save_file(half, folder / WEIGHTS)
        (folder / UNITS).write_bytes(self.units.model.serialized_model_proto())

    def align(self, frames_TD: Tensor, segments: Sequence[Segment]) -> list[Segment]:
        """The segments with the spans of their words; without, if there are too few frames.

        Args:
            frames_TD: Encoder frames from second 0 of the segments' times on.
            segments: All that were recognized in these frames.
        """
        if not len(frames_TD):
            return list(segments)
        weight_VD, bias_V = (self.weights[f"{self.kind}.{part}"] for part in ("weight", "bias"))
        with torch.inference_mode():
            logits_TV = frames_TD.detach().float().cpu() @ weight_VD.T + bias_V
            logs_TKV = logits_TV.unflatten(-1, (-1, len(self.units))).log_softmax(-1).numpy()
        return [self._aligned(logs_TKV, item, segments) for item in segments]

    def _aligned(
        self, logs_TKV: NDArray[np.float32], item: Segment, segments: Sequence[Segment]
    ) -> Segment:
        words = item.words.split()
        if not words:
            return item
        first = self._frame(item.start)
        last = min(len(logs_TKV), max(first + 1, self._frame(item.end)))
        if last <= first:
            return item
        spoken = [self.units.encode(word.lower()) or [UNKNOWN] for word in words]
        logs_TV = self._heard(logs_TKV, first, last, item, segments)
        states, word_of = self._states(spoken)
        path_T = best_path(_scores(logs_TV, states), states)
        if path_T is None:
            return item
        spans = self._spans(word_of[path_T], len(words), first)
        return replace(item, word_spans=clipped(spans, item.start, item.end))

    def _frame(self, seconds: float) -> int:
        return round(seconds * self.frames_per_second)

    def _heard(
        self,
        logs_TKV: NDArray[np.float32],
        first: int,
        last: int,
        item: Segment,
        segments: Sequence[Segment],
    ) -> NDArray[np.float32]:
        """Log-probabilities (T, V) of the units of `item`'s speaker in its range.

        Of two speakers at a time, the one who began first comes first. The ranges are not exact, so
        that where others talk, a unit may be either speaker's.
        """
        place_T = np.zeros(last - first, dtype=int)
        if logs_TKV.shape[1] == 1:
            return logs_TKV[first:last, 0]
        beside_T = np.zeros(last - first, dtype=bool)
        for other in segments:
            if other is not item:
                start, end = (max(0, self._frame(t) - first) for t in (other.start, other.end))
                beside_T[start:end] = True
                if (other.start, other.end) < (item.start, item.end):
                    place_T[start:end] = 1
        heard_TV = logs_TKV[np.arange(first, last), place_T]
        heard_TV[beside_T, 1:] = logs_TKV[first:last][beside_T].max(1)[:, 1:]
        return heard_TV

    def _states(self, spoken: list[list[int]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The units of a path and the word of each, -1 between words.

        CTC may have a blank between any two units, `frames` only between words.
        """
        states, word_of = [BLANK], [-1]
        for word, units in enumerate(spoken):
            for number, unit in enumerate(units):
                if number and self.kind == "ctc":
                    states.append(BLANK)
                    word_of.append(word)
                states.append(unit)
                word_of.append(word)
            states.append(BLANK)
            word_of.append(-1)
        return np.array(states), np.array(word_of)

    def _spans(self, words_T: NDArray[np.int64], count: int, first: int) -> Spans:
        """Seconds of each word on a path that starts at frame `first`.

        A unit of CTC has a single frame, soon after the unit begins; its word lasts until the next.
        """
        rate = self.frames_per_second
        places = [np.flatnonzero(words_T == word) for word in range(count)]
        starts = [(first + int(place[0])) / rate for place in places]
        ends = [(first + int(place[-1]) + 1) / rate for place in places]
        if self.kind == "ctc":
            starts = [start - LEAD for start in starts]
            ends = [
                min(end + TAIL, after) for end, after in zip(ends, [*starts[1:], inf], strict=True)
            ]
        return [(round(start, 3), round(end, 3)) for start, end in zip(starts, ends, strict=True)]


def _scores(logs_TV: NDArray[np.float32], states: NDArray[np.int64]) -> NDArray[np.float32]:
    """The score of each state at each frame; an unknown unit is anything but the blank."""
    scores_TS = logs_TV[:, states]
    unknown_S = states == UNKNOWN
    if unknown_S.any():
        anything_T = np.log1p(-np.exp(np.minimum(logs_TV[:, BLANK], -1e-6)))
        scores_TS[:, unknown_S] = anything_T[:, None]
    return scores_TS


def best_path(
    scores_TS: NDArray[np.float32], states: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """The state at each frame of the best path (T,), from the first states to the last.

    A path stays in a state, goes on to the next, or skips a blank between two different units.

    Args:
        scores_TS: Log-probabilities.
        states: The unit of each state; the first and the last are blanks.

    Returns:
        None if there are too few frames for a path.
    """
    frames, count = scores_TS.shape
    skips_S = np.zeros(count, dtype=bool)
    skips_S[2:] = (states[1:-1] == BLANK) & (states[2:] != BLANK) & (states[2:] != states[:-2])
    total_S = np.full(count, -np.inf)
    total_S[:2] = scores_TS[0, :2]
    steps_TS = np.zeros((frames, count), dtype=np.int64)
    for frame in range(1, frames):
        ways_3S = np.full((3, count), -np.inf)
        ways_3S[0] = total_S
        ways_3S[1, 1:] = total_S[:-1]
        ways_3S[2, 2:] = np.where(skips_S[2:], total_S[:-2], -np.inf)
        steps_TS[frame] = ways_3S.argmax(0)
        total_S = ways_3S.max(0) + scores_TS[frame]
    state = count - 1 - int(total_S[-1] < total_S[-2])
    if not np.isfinite(total_S[state]):
        return None
    path_T = np.empty(frames, dtype=np.int64)
    for frame in reversed(range(frames)):
        path_T[frame] = state
        state -= int(steps_TS[frame, state])
    return path_T
