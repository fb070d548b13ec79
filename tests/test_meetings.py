"""Whole meetings: where they are cut, what two windows both heard, who is who, the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from tagspeech import TagSpeech
from tagspeech.audio.sources import Span, open_audio
from tagspeech.errors import InputError
from tagspeech.inference.linking import Voices, link
from tagspeech.inference.meeting import transcribe
from tagspeech.inference.recognizer import Recognizer, WindowResult
from tagspeech.inference.stitching import join, mend
from tagspeech.inference.windows import BLOCK, detector, speech_regions, windows
from tagspeech.options import TranscribeOptions
from tagspeech.ranges import Limits
from tagspeech.segments import Segment

RATE = 16000


def said(start: float, end: float, words: str = "one two three", speaker: str = "1") -> Segment:
    return Segment("m", speaker, start, end, words)


def heard(start: float, end: float, *segments: Segment, vectors: object = None) -> WindowResult:
    given = np.eye(4, dtype=np.float32)[[int(one.speaker) - 1 for one in segments]]
    vectors_ND = given if vectors is None else np.array(vectors, dtype=np.float32)
    return WindowResult(start, end, segments, vectors_ND.reshape(len(segments), -1))


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 400)), max_size=20))
def test_windows_hold_all_speech_and_overlap_only_where_nobody_pauses(
    steps: list[tuple[int, int]],
) -> None:
    regions, at = [], 0.0
    for pause, length in steps:
        regions.append(Span(at + pause / 10, at + pause / 10 + length / 10))
        at = regions[-1].end
    cut = list(windows(regions, 12.0, 2.0, 1.0))
    assert all(0 < one.end - one.start <= 12.001 for one in cut)
    for region in regions:
        own = [one for one in cut if one.start < region.end and one.end > region.start]
        assert own[0].start <= region.start
        assert own[-1].end >= region.end
        assert all(b.start <= a.end for a, b in pairwise(own))
    for before, after in pairwise(cut):
        if after.start < before.end:
            assert before.end - after.start == pytest.approx(2.0, abs=0.01)
            assert any(one.start < after.start and one.end > before.end for one in regions)


def test_an_overlap_of_a_whole_window_is_refused() -> None:
    with pytest.raises(InputError, match="half of the longest window, 6 s"):
        list(windows([Span(0, 30)], 12.0, 7.0, 1.0))


def test_energy_finds_bursts_in_noise() -> None:
    rng = np.random.default_rng(1)
    audio = rng.normal(0, 2e-4, 12 * RATE).astype(np.float32)
    for start in (3, 8):
        audio[start * RATE : (start + 1) * RATE] += rng.normal(0, 0.1, RATE).astype(np.float32)
    pieces = [audio[: 5 * RATE + 17], audio[5 * RATE + 17 :]]
    found = list(speech_regions(pieces, detector("energy")))
    assert [(round(one.start), round(one.end)) for one in found] == [(3, 4), (8, 9)]
    assert list(speech_regions([np.zeros(RATE, dtype=np.float32)], detector("energy"))) == []


def test_silero_hears_no_speech_in_a_tone() -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(4 * BLOCK * 31) / RATE).astype(np.float32)
    assert list(speech_regions([tone], detector("silero"))) == []


def test_words_of_an_overlap_are_written_once() -> None:
    words = [f"w{number}" for number in range(20)]  # one each second
    left = heard(0, 12, said(0, 12, " ".join(words[:12])))
    right = heard(10, 20, said(10, 20, " ".join(words[10:])))
    (one,) = mend(link(join([left, right]), Voices(0.5)))
    assert (one.start, one.end, one.words.split()) == (0, 20, words)


def test_where_two_windows_agree_on_no_word_the_middle_decides() -> None:
    left = heard(0, 12, said(0, 12, " ".join("abcdefghijkl")))
    right = heard(10, 20, said(10, 20, " ".join("mnopqrstuv")))
    joined = join([left, right])
    assert [one.segments[0].words.split()[-1] for one in joined] == ["k", "v"]
    assert joined[1].segments[0].words.split()[0] == "n"


@given(
    st.lists(st.lists(st.sampled_from("1234"), min_size=1, max_size=3, unique=True), max_size=9),
    st.integers(0, 2**20),
)
def test_two_of_a_window_are_two_and_the_number_is_kept(people: list[list[str]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = []
    for number, names in enumerate(people):
        segments = [said(20.0 * number, 20.0 * number + 2, speaker=name) for name in names]
        vectors_ND = rng.normal(size=(len(names), 4))
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        rows.append(heard(20.0 * number, 20.0 * number + 9, *segments, vectors=vectors_ND))
    most = max((len(names) for names in people), default=0)
    linked = link(rows, Voices(0.0))
    assert len(linked) == sum(map(len, people))
    assert {(one.start, one.words) for one in linked} == {
        (one.start, one.words) for row in rows for one in row.segments
    }
    for start in {one.start for one in linked}:
        own = [one.speaker for one in linked if one.start == start]
        assert len(set(own)) == len(own)
    if people:
        assert len({one.speaker for one in linked}) >= most
        alone = link(rows[:1], Voices(0.0))
        assert [one.speaker for one in alone] == [str(n + 1) for n in range(len(people[0]))]
    for number in range(1, min(4, sum(map(len, people))) + 1):
        told = link(rows, Voices(0.5, Limits(number=number)))
        assert len({one.speaker for one in told}) <= number


def test_voices_that_return_keep_their_names() -> None:
    rng = np.random.default_rng(2)
    centres = np.linalg.qr(rng.normal(size=(64, 4)))[0].T
    rows = []
    for number in range(60):
        names = rng.permutation(4)[:2]
        vectors_ND = centres[names] + rng.normal(0, 0.05, (2, 64))
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        start = 20.0 * number
        segments = [
            said(start + n, start + n + 1.5, f"p{who}", str(n + 1)) for n, who in enumerate(names)
        ]
        rows.append(heard(start, start + 9, *segments, vectors=vectors_ND))
    for voices in (Voices(0.5), Voices(0.01, Limits(number=4)), Voices(2.0, Limits(minimum=4))):
        pairs = {(one.words, one.speaker) for one in link(rows, voices)}
        assert len(pairs) == len({words for words, _ in pairs}) == 4
    strange = np.linalg.qr(rng.normal(size=(64, 64)))[0][0]
    ann, bob = (one.astype(np.float32) for one in (centres[3], strange))
    known = Voices(0.5, Limits(number=4), {"bob": bob, "ann": ann})
    named = {(one.speaker, one.words) for one in link(rows, known)}
    assert ("ann", "p3") in named
    assert sorted(name for name, _ in named) == ["1", "2", "3", "ann"]  # bob was not there


def test_a_window_that_takes_one_voice_for_two_founds_no_speaker() -> None:
    rng = np.random.default_rng(4)
    centres = np.eye(64)[:2]
    rows = []
    for number in range(20):
        people = [0, 1, 1] if number == 7 else [0, 1]  # bob is two there, for a moment
        vectors_ND = centres[people] + rng.normal(0, 0.03, (len(people), 64))
        vectors_ND /= np.linalg.norm(vectors_ND, axis=1, keepdims=True)
        start = 20.0 * number
        segments = [
            said(start + 2 * n, start + 2 * n + 1.8, f"p{who}", str(n + 1))
            for n, who in enumerate(people)
        ]
        rows.append(heard(start, start + 9, *segments, vectors=vectors_ND))
    assert len({one.speaker for one in link(rows, Voices(0.5))}) == 2


def test_who_says_a_word_once_founds_no_speaker() -> None:
    ann, bob = np.eye(2)
    rows = [
        heard(20.0 * n, 20.0 * n + 9, said(20.0 * n, 20.0 * n + 5), vectors=ann) for n in range(9)
    ]
    rows.append(heard(200, 209, said(200, 201), vectors=bob))
    assert {one.speaker for one in link(rows, Voices(0.5))} == {"1"}
    rows.append(heard(220, 229, said(220, 229), vectors=bob))
    assert [one.speaker for one in link(rows, Voices(0.5))][-2:] == ["2", "2"]


def test_where_nobody_talks_nobody_is_named() -> None:
    assert link([], Voices(0.5, enrolled={"ann": np.eye(4, dtype=np.float32)[0]})) == []


def test_a_journal_of_another_model_is_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    model = TagSpeech.from_pretrained(tiny_model_folder)
    audio, row = meeting(tmp_path / "m.wav", 12), tmp_path / "journal.jsonl"
    energy = TranscribeOptions(vad="energy")

    def run() -> list[Segment]:
        recognizer = Recognizer(model, energy)
        (segments,) = transcribe(recognizer, [open_audio(audio)], journals=[[row]])
        return segments

    first = run()
    assert run() == first
    with torch.no_grad():
        next(model.voice_projector.parameters()).add_(1)
    with pytest.raises(InputError, match="begun for another recording or model"):
        run()


def meeting(path: Path, seconds: int) -> Path:
    """Bursts of noise of five seconds, two seconds of near silence between them."""
    rng = np.random.default_rng(3)
    audio = rng.normal(0, 1e-4, seconds * 8000)
    for start in range(0, seconds * 8000, 7 * 8000):
        audio[start : start + 5 * 8000] = rng.normal(0, 0.1, len(audio[start : start + 5 * 8000]))
    soundfile.write(path, audio, 8000)
    return path


def test_a_killed_run_gives_the_same_bytes(tiny_model_folder: Path, tmp_path: Path) -> None:
    audio = meeting(tmp_path / "long.wav", 100)
    command = [sys.executable, "-m", "tagspeech", "transcribe", "--model", str(tiny_model_folder)]
    command += ["--vad", "energy", "--threads", "1", "--output"]
    whole = subprocess.run([*command, str(tmp_path / "a"), str(audio)], capture_output=True)
    assert whole.returncode == 0, whole.stderr
    journal = tmp_path / "b/long.journal.jsonl"
    begun = subprocess.Popen([*command, str(tmp_path / "b"), str(audio)], stderr=subprocess.PIPE)
    while begun.poll() is None and (not journal.exists() or journal.read_text().count("\n") < 4):
        time.sleep(0.02)
    begun.send_signal(signal.SIGKILL)
    begun.communicate()
    assert journal.read_text().count("\n") >= 4
    assert not (tmp_path / "b/long.seglst.json").exists()
    refused = subprocess.run(
        [*command, str(tmp_path / "b"), "--max-pause", "0.5", str(audio)], capture_output=True
    )
    assert refused.returncode == 2
    assert b"with other options; delete it" in refused.stderr
    again = subprocess.run([*command, str(tmp_path / "b"), str(audio)], capture_output=True)
    assert again.returncode == 0, again.stderr
    ours, theirs = (tmp_path / name / "long.seglst.json" for name in "ab")
    assert ours.read_bytes() == theirs.read_bytes()
    assert not journal.exists()
    assert {round(row["start_time"]) // 7 for row in json.loads(ours.read_text())} >= {0, 5}


def test_turns_of_another_system_and_silence(
    tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tagspeech.cli import main

    audio = meeting(tmp_path / "m.wav", 30)
    (tmp_path / "m.rttm").write_text(
        "SPEAKER m 1 0.0 5.0 <NA> <NA> ann <NA> <NA>\n"
        "SPEAKER m 1 14.0 5.0 <NA> <NA> bob <NA> <NA>\n"
    )
    command = ["transcribe", "--model", str(tiny_model_folder), "--format", "seglst"]
    assert not main([*command, "--diarization", str(tmp_path / "m.rttm"), str(audio)])
    rows = json.loads(capsys.readouterr().out)
    assert rows
    assert all(row["speaker"] == ("ann" if row["start_time"] < 9 else "bob") for row in rows)
    soundfile.write(tmp_path / "quiet.wav", np.zeros(90 * 8000), 8000)
    assert not main([*command, str(tmp_path / "quiet.wav")])
    assert json.loads(capsys.readouterr().out) == []
