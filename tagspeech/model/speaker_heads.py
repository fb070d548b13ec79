"""Auxiliary outputs that make the LLM bind times to voices; they exist in training only.

From the LLM's states they predict who talks at each voice frame, with speakers in order of first
appearance, and who speaks a line, at the `>` after its range. The target text has both already, but
there the LLM needs them for tokens that come a hundred positions later.

Shape suffixes: L positions of the LLM's input, N predictions, P projected voice frames, K speakers,
H hidden size of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tagspeech.data.transfer import int_tensors, on_its_way
from tagspeech.serialize import parse_target


class SpeakerHeads(nn.Module):
    """Linear outputs for the first `speakers` speakers; later ones are not predicted.

    Args:
        hidden_size: H.
        frames_per_second: Rate of the projected voice frames.
        speakers: K.
    """

    def __init__(self, hidden_size: int, frames_per_second: float, speakers: int = 4) -> None:
        super().__init__()
        self.frames_per_second = frames_per_second
        self.speakers = speakers
        self.activity = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, speakers))
        self.line = nn.Linear(hidden_size, speakers)

    def forward(
        self,
        states_NH: Tensor,
        hidden_NH: Tensor,
        voice_places: Sequence[Sequence[int]],
        target_starts: Sequence[int],
        targets: Sequence[str],
        tokenizer: Any,
    ) -> dict[str, Tensor]:
        """The losses "speaker_activity" and "line_speaker".

        Args:
            states_NH: States of all items, for the binary cross entropy per frame and speaker.
            hidden_NH: States of all items, for the cross entropy per line.
            voice_places: Rows of each item's voice frames in the states.
            target_starts: Row of the first token of each item's target.
            targets: Target texts.
            tokenizer: The LLM's.
        """
        lines, speakers = [], []
        for start, target in zip(target_starts, targets, strict=True):
            numbers = speakers_of_lines(target)
            tokens = token_at(tokenizer, target, ends_of_ranges(target))
            for number, token in zip(numbers, tokens, strict=True):
                if number < self.speakers:
                    lines.append(start + token)
                    speakers.append(number)
        frames_N, lines_N, speakers_N = int_tensors(
            hidden_NH.device, chain.from_iterable(voice_places), lines, speakers
        )
        logits_NK = self.activity(states_NH.index_select(0, frames_N).float()).float()
        losses = {"speaker_activity": logits_NK.sum() * 0.0, "line_speaker": logits_NK.sum() * 0.0}
        if len(logits_NK):
            counts = map(len, voice_places)
            activity = [self._activity(*pair) for pair in zip(targets, counts, strict=True)]
            losses["speaker_activity"] = nn.functional.binary_cross_entropy_with_logits(
                logits_NK,
                on_its_way(torch.from_numpy(np.concatenate(activity)), logits_NK.device),
            )
        if lines:
            losses["line_speaker"] = nn.functional.cross_entropy(
                self.line(hidden_NH.index_select(0, lines_N).float()).float(), speakers_N
            )
        return losses

    def activity_of(self, target: str, frames: int) -> Tensor:
        """(P, K) for `frames` projected frames: 1 where a speaker of `target` talks."""
        return torch.from_numpy(self._activity(target, frames))

    def _activity(self, target: str, frames: int) -> NDArray[np.float32]:
        activity_PK = np.zeros((frames, self.speakers), np.float32)
        for segment in parse_target(target, "").segments:
            number = int(segment.speaker) - 1
            if number < self.speakers:
                start, end = (
                    round(time * self.frames_per_second) for time in (segment.start, segment.end)
                )
                activity_PK[start : max(end, start + 1), number] = 1
        return activity_PK


def speakers_of_lines(target: str) -> list[int]:
    """The speaker of each line of the text block, from 0 in order of first appearance."""
    return [int(segment.speaker) - 1 for segment in parse_target(target, "").segments]


def ends_of_ranges(target: str) -> list[int]:
    """The characters of the target text at which the `>` after the range of each line is."""
    ends, place = [], 0
    for line in target.split("\n"):
        if line == "</text>":
            break
        if line != "<text>":
            ends.append(place + line.index(">"))
        place += len(line) + 1
    return ends


def token_at(tokenizer: Any, text: str, places: Sequence[int]) -> list[int]:
    """The index of the token that has the character at each of `places` of `text`."""
    spans = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )["offset_mapping"]
    return [
        next(number for number, (start, end) in enumerate(spans) if start <= place < end)
        for place in places
    ]
