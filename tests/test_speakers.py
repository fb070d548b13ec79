"""Speakers by voice: clustering of made vectors, any times the LLM may write, stage 7 with both."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tagspeech.config import DecodeConfig, ZipformerConfig
from tagspeech.encoders.stream import StreamEncoder
from tagspeech.formats import read
from tagspeech.inference.clustering import cluster_voices, with_speakers
from tagspeech.inference.decode import decode
from tagspeech.inference.generate import Output
from tagspeech.llm.prompt import encode_text
from tagspeech.model.frames import Frames
from tagspeech.model.tagspeech import TagSpeechModel
from tagspeech.segments import Segment
from tagspeech.serialize import to_target


def said(*ranges: tuple[float, float], speaker: str = "1", gender: str = "u") -> list[Segment]:
    return [Segment("one", speaker, start, end, "so", gender) for start, end in ranges]


def voices(*stretches: tuple[float, Sequence[float]]) -> Tensor:
    """Frames at 25 Hz: for so many seconds this voice, with a little noise: (T, D)."""
    frames = torch.cat([torch.tensor([voice] * round(25 * s)) for s, voice in stretches])
    return frames + 0.1 * torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))


MEAN = StreamEncoder(ZipformerConfig())  # at 25 Hz; a vector is the mean of frames
ANN, BEN, CAT = (3.0, 1.0, 0.0, 0.0), (0.0, 2.0, 2.0, 0.0), (0.0, -1.0, 0.0, 1.0)
THREE = voices((2, ANN), (1, BEN), (1, ANN), (2, CAT), (1, BEN))


def test_segments_of_one_voice_are_one_speaker() -> None:
    segments = said((2.0, 3.0), (0.0, 2.0), (3.0, 4.0), (4.0, 6.0), (6.0, 7.0))
    assert cluster_voices(segments, THREE, MEAN, 0.5) == ["1", "2", "2", "3", "1"]


def test_where_others_talk_too_does_not_count() -> None:
    """Ben is louder than Ann, who talks on until his end."""
    loud_ben = [4 * value for value in BEN]
    frames = voices((1, ANN), (3, loud_ben), (1, BEN), (1, ANN))
    segments = said((0.0, 4.0), (1.0, 4.0), (4.0, 5.0), (5.0, 6.0))
    assert cluster_voices(segments, frames, MEAN, 0.5) == ["1", "2", "2", "1"]


@pytest.mark.parametrize(("threshold", "speakers"), [(0.4, ["1", "2"]), (0.6, ["1", "1"])])
def test_threshold_is_a_cosine_distance(threshold: float, speakers: list[str]) -> None:
    """Voices 60 degrees apart, one louder than the other: a distance of 0.5."""
    frames = torch.tensor([[1.0, 0.0]] * 25 + [[3 * math.cos(math.pi / 3), 3 * 0.75**0.5]] * 25)
    assert cluster_voices(said((0.0, 1.0), (1.0, 2.0)), frames, MEAN, threshold) == speakers


@pytest.mark.parametrize(
    ("ranges", "speakers"),
    [
        ([], []),
        ([(90.0, 91.0)], ["1"]),
        ([(0.0, 2.0), (6.5, 60.0), (2.0, 3.0)], ["1", "2", "2"]),  # half beyond the end
        ([(0.0, 2.0), (2.0, 3.0), (7.0, 8.0)], ["1", "2", "2"]),  # behind: as the last frame
        ([(0.0, 2.0), (2.5, 2.51), (6.0, 9999999.0)], ["1", "2", "2"]),  # less than a frame
        ([(0.0, 2.0), (9999998.0, 9999999.0), (2.0, 3.0)], ["1", "2", "2"]),
        ([(0.0, 2.0), (4.0, 6.0), (4.0, 6.0)], ["1", "2", "3"]),  # nobody talks over himself
        ([(0.0, 2.0), (1.8, 2.0), (1.95, 3.0), (6.0, 9999999.0)], ["1", "2", "3", "3"]),
    ],
)
def test_any_times_have_speakers(ranges: list[tuple[float, float]], speakers: list[str]) -> None:
    assert cluster_voices(said(*ranges), THREE, MEAN, 0.5) == speakers


def test_one_voice_exactly_is_one_speaker() -> None:
    """The cosine of equal vectors is often above one, by rounding."""
    for voice_D in torch.rand(20, 64, generator=torch.Generator().manual_seed(1)):
        segments = said((0.0, 0.1), (0.1, 0.2), (0.2, 0.3))
        assert cluster_voices(segments, voice_D.expand(10, 64), MEAN, 0.5) == ["1"] * 3


def test_audio_without_a_frame_is_of_one_speaker() -> None:
    assert cluster_voices(said((0.0, 0.1), (0.1, 0.2)), torch.zeros(0, 4), MEAN, 0.5) == ["1", "1"]


def test_gender_is_that_of_most_of_the_time() -> None:
    segments = [
        *said((0, 3), gender="f"),
        *said((3, 4), (4, 5), speaker="2", gender="m"),
        *said((5, 9), speaker="?"),
        *said((9, 10), speaker="?"),
    ]
    changed = with_speakers(segments, ["1", "1", "2", "1", "3"])
    assert [(s.speaker, s.gender) for s in changed] == [
        *[("1", "f"), ("1", "f"), ("2", "m"), ("1", "f"), ("3", "u")],
    ]
    told = [(s.session, s.start, s.end, s.words) for s in segments]
    assert [(s.session, s.start, s.end, s.words) for s in changed] == told


# Stage 7


@pytest.fixture
def telling(monkeypatch: pytest.MonkeyPatch, tiny_segments: list[Segment]) -> None:
    """The model writes the target of `tiny_segments`, for every other length cut off."""
    text = to_target(tiny_segments)

    def told(model: TagSpeechModel, frames: Frames, *_: object) -> list[Output]:
        texts = [text[:100] if n % 2 else text for n in frames.voice_lens]
        rows = [encode_text(model.tokenizer, one) for one in texts]
        return [Output(ids, [-0.1] * len(ids)) for ids in rows]

    monkeypatch.setattr("tagspeech.inference.recognizer.generate", told)


def decoded(output: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in output.iterdir()}


def test_decoding_writes_both_and_resumes_to_the_same(
    telling: None, tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    config = DecodeConfig(max_duration=20, speaker_threshold=0.01)
    groups, output = tiny_groups / "test.jsonl.gz", tmp_path / "whole"
    decode(tiny_model_folder, groups, output, config)
    whole = decoded(output)
    assert sorted(whole) == [
        f"test.{name}"
        for name in (
            *("hyp-voice.seglst.json", "hyp.seglst.json"),
            *("places.json", "raw.jsonl", "raw.origin.json", "ref.seglst.json"),
        )
    ]
    by_llm = read(output / "test.hyp.seglst.json")
    by_voice = read(output / "test.hyp-voice.seglst.json")
    assert [(s.session, s.start, s.end, s.words) for s in by_llm] == [
        (s.session, s.start, s.end, s.words) for s in by_voice
    ]
    assert [s.speaker for s in by_llm] != [s.speaker for s in by_voice]
    assert all(s.speaker == "1" for s in by_voice if s.start == 0.3)

    killed = tmp_path / "killed"
    killed.mkdir()
    lines = whole["test.raw.jsonl"].splitlines(keepends=True)
    assert {row["malformed"] for row in map(json.loads, lines)} == {True, False}
    (killed / "test.raw.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:-9])
    decode(tiny_model_folder, groups, killed, config)
    for name in ("test.hyp.seglst.json", "test.hyp-voice.seglst.json"):
        assert (killed / name).read_bytes() == whole[name], name


def test_decoding_takes_the_threshold_of_the_recipe(
    telling: None, tiny_model_folder: Path, tiny_groups: Path, tmp_path: Path
) -> None:
    config = DecodeConfig(max_duration=20, speaker_threshold=2.0)
    decode(tiny_model_folder, tiny_groups / "test.jsonl.gz", tmp_path, config)
    by_llm, by_voice = (read(tmp_path / f"test.hyp{s}.seglst.json") for s in ("", "-voice"))
    assert {s.speaker for s in by_llm} == {"1", "2", "?"}
    assert {s.speaker for s in by_voice} == {"1"}
