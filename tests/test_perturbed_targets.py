"""Targets read with moved times or swapped speakers: the same lines, and what is scored then."""

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

from tagspeech.checkpoints.native import load_pretrained
from tagspeech.model.frames import Frames
from tagspeech.model.loss import IGNORED
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.training.perturbed_targets import (
    MAX_SHIFT_SECONDS,
    perturbed_target,
    scored_text,
    unpredictable_spans,
)

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
    target, moved = to_target(segments, grid), perturbed_target(segments, grid, moved=True)
    assert re.sub(TIME, "", moved) == re.sub(TIME, "", target)
    assert parse_target(moved, "").malformed == parse_target(target, "").malformed
    starts, others = (
        [float(time) for time in re.findall(rf"^({TIME})-", text, re.M)] for text in (target, moved)
    )
    for one, other in zip(starts, others, strict=True):
        assert abs(one - other) <= MAX_SHIFT_SECONDS + grid
    assert scored_text(target, target) == target


def test_what_is_heard_and_what_is_copied(tiny_segments: list[Segment]) -> None:
    random.seed(1)
    target, moved = to_target(tiny_segments, 0.1), perturbed_target(tiny_segments, 0.1, moved=True)
    assert moved != target
    scored = scored_text(target, moved)
    assert scored.partition("</text>")[0] == target.partition("</text>")[0]
    assert scored.partition("</text>")[2] == moved.partition("</text>")[2]


@given(SEGMENTS, st.integers(0, 99), st.booleans())
def test_only_speakers_are_swapped(segments: list[Segment], seed: int, moved: bool) -> None:
    random.seed(seed)
    target = to_target(segments, 0.1)
    swapped = perturbed_target(segments, 0.1, moved=moved, swapped=True)
    ours, theirs = (parse_target(text, "") for text in (target, swapped))
    assert ours.malformed == theirs.malformed
    assert [one.words for one in ours.segments] == [one.words for one in theirs.segments]
    assert len({one.speaker for one in ours.segments}) == len(
        {one.speaker for one in theirs.segments}
    )
    random.seed(seed)
    assert perturbed_target(segments, 0.1, moved=moved, swapped=True) == swapped


def test_what_no_line_before_tells() -> None:
    text = (
        "<text>\n0.00-1.00>one\n1.20-2.00>two\n2.20-3.00>three\n3.20-4.00>four\n</text>\n<speaker>\n"
        '<spk id="1" g="m" t="0.00-1.00,2.20-3.00"/>\n<spk id="2" g="f" t="1.20-2.00,3.20-4.00"/>\n'
        "</speaker>"
    )
    assert [text[start:end] for start, end in unpredictable_spans(text)] == [
        "m",
        ",2.20-",
        '"',
        "f",
    ]
    assert unpredictable_spans(to_target([], 0.1)) == []


def test_the_loss_reads_one_and_asks_the_other(
    tiny_model_folder: Path, tiny_segments: list[Segment]
) -> None:
    random.seed(1)
    target, moved = to_target(tiny_segments, 0.1), perturbed_target(tiny_segments, 0.1, moved=True)
    model = load_pretrained(TagSpeechModel, tiny_model_folder).eval()
    size = model.config.semantic.output_dim, model.config.voice.encoder.output_dim
    lens_B = torch.tensor([75])
    frames = Frames(torch.randn(1, 75, size[0]), lens_B, torch.randn(1, 75, size[1]), lens_B)

    def logits(**texts: str) -> tuple[torch.Tensor, float]:
        ids = {name: [model.target_ids(text)] for name, text in texts.items()}
        output = model.loss_from_frames(frames, [target], return_logits=True, **ids)
        return output.logits, output.loss.item()

    with torch.inference_mode():
        plain, loss = logits()
        same, again = logits(given=target, labels=target)
        read, _ = logits(given=moved, labels=moved)
        mixed, third = logits(given=moved, labels=scored_text(target, moved))
    assert torch.equal(plain, same)
    assert loss == again
    assert torch.equal(read, mixed)  # what is scored changes no logit
    assert not torch.equal(plain, read)
    assert third != loss


def test_what_is_ignored_is_not_scored(
    tiny_model_folder: Path, tiny_segments: list[Segment]
) -> None:
    model = load_pretrained(TagSpeechModel, tiny_model_folder).eval()
    size = model.config.semantic.output_dim, model.config.voice.encoder.output_dim
    lens_B = torch.tensor([75])
    frames = Frames(torch.randn(1, 75, size[0]), lens_B, torch.randn(1, 75, size[1]), lens_B)
    target = to_target(tiny_segments, 0.1)
    ids = model.target_ids(target)
    labels = [IGNORED, *ids[1:-2], IGNORED, ids[-1]]
    with torch.inference_mode():
        whole = model.loss_from_frames(frames, [target], return_logits=True)
        part = model.loss_from_frames(
            frames, [target], return_logits=True, given=[ids], labels=[labels]
        )
    assert part.tokens == len(ids) - 2
    assert whole.logits is not None
    kept_N = torch.tensor(labels) != IGNORED
    expected = torch.nn.functional.cross_entropy(whole.logits[kept_N], torch.tensor(ids)[kept_N])
    assert part.terms["target"].item() == pytest.approx(expected.item(), rel=1e-6)
