"""Auxiliary outputs that make the LLM bind times to voices; they exist in training only.

Asked of the LLM's states: who talks at each voice frame, speakers in order of first appearance, and
who speaks a line, at the `>` behind its range. Both are in the target text already, but there the
LLM has to have them ready for tokens that come a hundred positions later.

Shape suffixes: L positions of the LLM's input, N positions asked, P projected voice
frames, K speakers, H hidden size of the LLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tagspeech.config import FRAMES_PER_SECOND
from tagspeech.serialize import parse_target


class SpeakerHeads(nn.Module):
    """Linear outputs for the first `speakers` speakers; those beyond are not asked for.

    stack  encoder frames in a projected voice frame
    """

    def __init__(self, hidden_size: int, stack: int, speakers: int = 4) -> None:
        super().__init__()
        self.frames_per_second = FRAMES_PER_SECOND / stack
        self.speakers = speakers
        self.activity = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, speakers))
        self.line = nn.Linear(hidden_size, speakers)

    def forward(
        self,
        states: Sequence[Tensor],
        hidden: Sequence[Tensor],
        voice_places: Sequence[Sequence[int]],
        target_starts: Sequence[int],
        targets: Sequence[str],
        tokenizer: Any,
    ) -> dict[str, Tensor]:
        """The losses "speaker_activity" (binary cross entropy a frame and speaker, of
        `states`) and "line_speaker" (cross entropy a line, of `hidden`).

        states, hidden  of each item, (L, H)
        voice_places   where in the input the voice frames of each item stand
        target_starts  where its target begins
        """
        frames, activity, lines, speakers = [], [], [], []
        for item, target in enumerate(targets):
            places = torch.tensor(voice_places[item], dtype=torch.long)
            frames.append(states[item][places])
            activity.append(self.activity_of(target, len(places)))
            numbers = speakers_of_lines(target)
            tokens = token_at(tokenizer, target, ends_of_ranges(target))
            for number, token in zip(numbers, tokens, strict=True):
                if number < self.speakers:
                    lines.append(hidden[item][target_starts[item] + token])
                    speakers.append(number)
        asked_NK = self.activity(torch.cat(frames).float()).float()
        losses = {"speaker_activity": asked_NK.sum() * 0.0, "line_speaker": asked_NK.sum() * 0.0}
        if len(asked_NK):
            losses["speaker_activity"] = nn.functional.binary_cross_entropy_with_logits(
                asked_NK, torch.cat(activity).to(asked_NK.device)
            )
        if lines:
            losses["line_speaker"] = nn.functional.cross_entropy(
                self.line(torch.stack(lines).float()).float(),
                torch.tensor(speakers, device=asked_NK.device),
            )
        return losses

    def activity_of(self, target: str, frames: int) -> Tensor:
        """(P, K) for `frames` projected frames: 1 where a speaker of `target` talks."""
        activity_PK = torch.zeros(frames, self.speakers)
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
    """Where in the target text the `>` behind the range of each line stands, in characters."""
    ends, place = [], 0
    for line in target.split("\n"):
        if line == "</text>":
            break
        if line != "<text>":
            ends.append(place + line.index(">"))
        place += len(line) + 1
    return ends


def token_at(tokenizer: Any, text: str, places: Sequence[int]) -> list[int]:
    """The number of the token that holds the character at each of `places` of `text`."""
    spans = tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
    )["offset_mapping"]
    return [
        next(number for number, (start, end) in enumerate(spans) if start <= place < end)
        for place in places
    ]
