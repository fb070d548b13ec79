"""Targets read with moved times: the same lines, other times, and what is scored then."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagspeech.segments import Segment
from tagspeech.serialize import parse_target, to_target

pytest.importorskip("torch")

import torch

from tagspeech.models.pretrained import load_pretrained
from tagspeech.models.tagspeech import Frames, TagSpeechModel
from tagspeech.training.moved_times import FURTHEST, move_times, scored_text

TIME = r"\d+\.\d\d"

SEGMENTS = st.lists(
    st.builds(
        lambda speaker, start, length, words: Segment("one", speaker, start, start + length, words),
        st.sampled_from("abc"),
        st.floats(0.0, 30.0),
        st.floats(0.05, 5.0),
        st.sampled_from(["yes", "we meet at 10.30", "a > b", ""]),
    ),
    max_size=6,
)


@given(SEGMENTS, st.integers(0, 99), st.sampled_from([0.01, 0.1]))
def test_only_times_move(segments: list[Segment], seed: int, grid: float) -> None:
    random.seed(seed)
    target, moved = to_target(segments, grid), move_times(segments, grid)
    assert re.sub(TIME, "", moved) == re.sub(TIME, "", target)
    assert parse_target(moved, "").malformed == parse_target(target, "").malformed
    starts, others = (
        [float(time) for time in re.findall(rf"^({TIME})-", text, re.M)] for text in (target, moved)
    )
    for one, other in zip(starts, others, strict=True):
        assert abs(one - other) <= FURTHEST + grid
    assert scored_text(target, target) == target


def test_what_is_heard_and_what_is_copied(tiny_segments: list[Segment]) -> None:
    random.seed(1)
    target, moved = to_target(tiny_segments, 0.1), move_times(tiny_segments, 0.1)
    assert moved != target
    scored = scored_text(target, moved)
    assert scored.partition("</text>")[0] == target.partition("</text>")[0]
    assert scored.partition("</text>")[2] == moved.partition("</text>")[2]


def test_the_loss_reads_one_and_asks_the_other(
    tiny_model_folder: Path, tiny_segments: list[Segment]
) -> None:
    random.seed(1)
    target, moved = to_target(tiny_segments, 0.1), move_times(tiny_segments, 0.1)
    model = load_pretrained(TagSpeechModel, tiny_model_folder).eval()
    size = model.config.semantic.output_dim, model.config.voice.encoder.output_dim
    lens_B = torch.tensor([75])
    frames = Frames(torch.randn(1, 75, size[0]), lens_B, torch.randn(1, 75, size[1]), lens_B)

    def logits(**texts: list[str]) -> tuple[torch.Tensor, float]:
        output = model.loss_from_frames(frames, [target], return_logits=True, **texts)
        return output.logits, output.loss.item()

    with torch.inference_mode():
        plain, loss = logits()
        same, again = logits(given=[target], scored=[target])
        read, _ = logits(given=[moved], scored=[moved])
        mixed, third = logits(given=[moved], scored=[scored_text(target, moved)])
    assert torch.equal(plain, same)
    assert loss == again
    assert torch.equal(read, mixed)  # what is scored changes no logit
    assert not torch.equal(plain, read)
    assert third != loss
