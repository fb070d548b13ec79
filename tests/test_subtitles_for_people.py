"""Subtitles for people: lines and cues of bounded size, ASS with colours, and new names."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagspeech.formats import read, render, write
from tagspeech.formats.convert import convert
from tagspeech.formats.readable import LINE, LONGEST, SHORTEST, SPEED, columns, readable_cues
from tagspeech.segments import Segment

LONG = "so the budget for next year is " * 6 + "done, and that is all that I have to say today."
TALK = [
    Segment("talk", "1", 0.0, 20.0, " ".join(LONG.split())),
    Segment("talk", "2", 20.5, 20.7, "yes"),
    Segment("talk", "1", 23.0, 25.0, "good"),
]
WORD = st.text("abcdefghij.,", min_size=1, max_size=LINE // 2)


def times(segment: Segment) -> tuple[float, float]:
    return segment.start, segment.end


@given(st.lists(WORD, min_size=1, max_size=60), st.floats(0.1, 60))
def test_cues_are_small_and_keep_every_word(words: list[str], seconds: float) -> None:
    segment = Segment("s", "A", 1.0, 1.0 + seconds, " ".join(words))
    cues = readable_cues([segment], {"A": 3})
    assert " ".join(cue.segment.words for cue in cues) == segment.words
    for cue in cues:
        assert len(cue.lines) <= 2
        assert columns(cue.lines[0]) + 3 <= LINE
        assert all(columns(line) <= LINE for line in cue.lines)
        assert " ".join(cue.lines) == cue.segment.words
        if " " in cue.segment.words:
            assert cue.segment.duration <= LONGEST + 0.001
    for before, after in pairwise(cues):
        assert before.segment.end <= after.segment.start + 0.001


def test_short_words_stay_until_they_are_read() -> None:
    cues = readable_cues(TALK, {"1": 0, "2": 0})
    (yes,) = [cue.segment for cue in cues if cue.segment.speaker == "2"]
    assert times(yes) == (20.5, pytest.approx(20.5 + SHORTEST, abs=0.001))
    assert times(cues[-1].segment) == (23.0, 25.0)
    for cue in cues:
        assert len(cue.segment.words) <= SPEED * cue.segment.duration + 0.1


def test_fast_speech_is_said_and_kept(caplog: pytest.LogCaptureFixture) -> None:
    fast = [replace(TALK[0], end=3.0), Segment("talk", "1", 3.0, 4.0, "next")]
    with caplog.at_level(logging.WARNING):
        cues = readable_cues(fast, {"1": 0})
    assert " ".join(cue.segment.words for cue in cues[:-1]) == TALK[0].words
    assert "have more than 17 characters per second, as the speech is fast" in caplog.text
    assert len(caplog.records) == 1


def test_text_without_spaces_is_cut_between_characters() -> None:
    segment = Segment("s", "A", 0, 12, "今天讨论这个项目" * 10)
    cues = readable_cues([segment], {"A": 0})
    assert "".join(cue.segment.words for cue in cues) == segment.words
    assert max(columns(line) for cue in cues for line in cue.lines) <= LINE
    assert max(len(cue.lines) for cue in cues) == 2


@pytest.mark.parametrize("format", ["srt", "vtt"])
def test_subtitles_read_back_with_the_same_words(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"talk.{format}"
    write(TALK, path, readable=True)
    found = read(path)
    for speaker in "12":
        sides = [
            " ".join(item.words for item in side if item.speaker == speaker)
            for side in (found, TALK)
        ]
        assert sides[0] == sides[1]
    assert len(found) > len(TALK)
    assert [times(item) for item in read_exact(tmp_path, format)] == [*map(times, TALK)]


def read_exact(folder: Path, format: str) -> list[Segment]:
    write(TALK, folder / "talk.seglst.json")
    convert([folder / "talk.seglst.json"], [format], folder / "exact")
    return read(folder / "exact" / f"talk.{format}")


def test_ass_has_a_colour_for_each_speaker() -> None:
    talk = [*TALK, Segment("talk", "1", 30, 31, r"{\b1} a\Nb"), Segment("talk", "1", 32, 33, "")]
    subtitles = pysubs2.SSAFile.from_string(render(talk, "ass"))
    colours = {str(style.primarycolor) for style in subtitles.styles.values()}
    assert len(subtitles.styles) == len(colours) == 2
    assert subtitles[0].text.startswith(r"{\b1}1:{\b0} so the budget")
    assert all(event.text.count(r"\N") <= 1 for event in subtitles)
    assert [event.name for event in subtitles if event.style == "Speaker2"] == ["2"]
    assert subtitles[-1].text == "\\{\\\u2060b1\\} a\\\u2060Nb"
    assert (subtitles[-1].start, subtitles[-1].end) == (30000, 31000)


def test_speakers_get_names_on_the_command_line(tmp_path: Path) -> None:
    write(TALK, tmp_path / "talk.seglst.json")
    (tmp_path / "names.txt").write_text("2=Ben O'Neil\n\n", encoding="utf-8")
    call = [sys.executable, "-m", "tagspeech", "convert", "--format", "ass,seglst"]
    call += ["--output", "out", "talk.seglst.json", "--rename", "1=Anna"]
    names = ["--rename", "@names.txt", "--rename", "3=Nobody"]
    done = subprocess.run([*call, *names], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--rename: no file has a speaker 3" in done.stderr
    found = {item.speaker for item in read(tmp_path / "out/talk.seglst.json")}
    assert found == {"Anna", "Ben O'Neil"}
    assert "Anna:" in (tmp_path / "out/talk.ass").read_text(encoding="utf-8")
    for wrong in ("1", "=x", "@absent.txt"):
        refused = subprocess.run([*call, "--rename", wrong], cwd=tmp_path, capture_output=True)
        assert refused.returncode == 2
    twice = subprocess.run([*call, "--rename", "1=Eva"], cwd=tmp_path, capture_output=True)
    assert twice.returncode == 2
    assert b"1 is given two names, Anna and Eva" in twice.stderr
