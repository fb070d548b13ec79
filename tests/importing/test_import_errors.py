"""What is wrong with a corpus is counted, rejected or said in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from corpora import NAMES, append, noise, rejected, take

from tagspeech.errors import InputError


def test_what_audio_and_segments_do_not_share_is_counted(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("x", "y"):
        noise(small / f"audio/train/{name}.wav")
    append(small / "all.stm", "z 1 anna 0 1 hello\n")
    with pytest.raises(InputError) as error:
        take(small)
    assert str(error.value).startswith(
        "2 of 5 recordings have no segments (the first: x), 1 of 4 sessions with segments have no "
        "recording (the first: z); "
    )
    found = take(small, skip_unmatched=True)
    assert {one.recording_id for own in found.values() for one in own} == {"a", "b", "c"}
    assert caplog.text.count(": left out") == 2


def test_segments_at_and_past_the_end(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    append(small / "all.stm", "a 1 anna 1.9 2.5 long\na 1 anna 2.0 2.5 late\n")
    found = take(small, max_rejected=0.13)
    assert found["train"][-1].text == "long"
    assert found["train"][-1].end == 2.0
    assert rejected(small) == [("it starts outside its recording", "late")]
    assert "1 segments extend past the end of their recording" in caplog.text
    with pytest.raises(InputError, match="1 segments are rejected, 1 of them because it starts"):
        take(small, max_rejected=0.12)


def test_segments_at_whose_time_nobody_has_a_turn(small: Path) -> None:
    lines = [f"SPEAKER {name} 1 0.0 1.0 <NA> <NA> carla <NA> <NA>\n" for name in NAMES.values()]
    (small / "all.rttm").write_text("".join(lines))
    append(small / "all.stm", "a 1 x 1.0 1.5 alone\n")  # touches the turn, does not overlap it
    found = take(small, speakers=small / "all.rttm", max_rejected=0.2)
    assert {one.speaker for one in found["train"]} == {"carla"}
    assert rejected(small) == [(f"{small / 'all.rttm'} has no turn at its time", "alone")]


def test_segments_without_a_speaker(small: Path) -> None:
    rows = [
        {"session_id": name, "start_time": start, "end_time": start + 1, "words": "yes"}
        | ({"speaker": "anna"} if start else {})
        for name in NAMES.values()
        for start in (0, 0.5)
    ]
    (small / "all.json").write_text(json.dumps(rows))
    found = take(small, words=small / "all.json", max_rejected=0.5)
    assert [one.start for one in found["train"]] == [0.5]
    assert rejected(small) == [("it has no speaker", "yes")] * 3


def no_audio(folder: Path) -> None:
    (folder / "audio/dev/b.wav").write_text("no audio")


def streamed(folder: Path) -> None:
    """A WAV file whose header was never completed: its data size is 0."""
    path = folder / "audio/dev/b.wav"
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    path.write_bytes(content)


def cut_off(folder: Path) -> None:
    path = folder / "audio/dev/b.wav"
    path.write_bytes(path.read_bytes()[:10000])


def two_alike(folder: Path) -> None:
    noise(folder / "audio/dev/a.flac")


def other_folder(folder: Path) -> None:
    (folder / "audio/dev").rename(folder / "audio/valid")


def other_format(folder: Path) -> None:
    (folder / "all.stm").unlink()
    (folder / "all.txt").write_text("hello")


def json_without(folder: Path) -> None:
    (folder / "all.json").write_text('[{"speaker": "a", "start": 1, "end": 2}]')


def json_gender(folder: Path) -> None:
    row = {"speaker": "a", "start": 1, "end": 2, "text": "b", "gender": "x"}
    (folder / "all.json").write_text(json.dumps([row]))


@pytest.mark.parametrize(
    ("spoil", "config", "words"),
    [
        (no_audio, {}, "1 of 3 recordings cannot be read as audio (the first: "),
        (streamed, {}, "b.wav: its header says that it has no audio, yet 32000 bytes follow"),
        (cut_off, {}, "b.wav: it is cut off: its header says 2.00 s, 0.62 s are there"),
        (two_alike, {}, "are both named a"),
        (other_folder, {}, "1 recordings are in none of the folders train, dev, test"),
        (other_format, {"words": "all.txt"}, "all.txt: its extension must be that of stm, ctm"),
        (other_format, {"words": "nowhere.stm"}, "nowhere.stm: No such file"),
        (other_format, {"words": "audio"}, "audio: has no file of stm, ctm"),
        (json_without, {"words": "all.json"}, "all.json, entry 1: must be an object with speaker"),
        (json_without, {"words": ""}, "has 1 files of seglst and 1 files of stm"),
        (
            json_gender,
            {"words": "all.json"},
            "all.json, entry 1: gender must be m, f or u, got 'x'",
        ),
        (None, {"channel": 1}, "3 of 3 recordings have no channel 1"),
        (None, {"audio": "nowhere"}, "nowhere: no such folder"),
        (None, {"split_by": "lists"}, "together with --lists"),
        (None, {"split_by": "shares", "shares": (0.8, 0.1)}, "shares must be three above 0"),
        (
            *(None, {"split_by": "shares", "shares": (0.8, float("nan"), 0.1)}),
            "shares must be three above 0",
        ),
        (None, {"kaldi": "audio"}, "not both"),
        (lambda folder: append(folder / "all.stm", "a 1 x 9 8 no\n"), {}, "all.stm, line 7: "),
    ],
)
def test_one_line_says_what_is_wrong(
    small: Path, spoil: Callable[[Path], None] | None, config: dict[str, object], words: str
) -> None:
    if spoil:
        spoil(small)
    paths = ("audio", "words", "kaldi")
    own = {key: small / str(value) if key in paths else value for key, value in config.items()}
    with pytest.raises(InputError) as error:
        take(small, **own)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((small / "out").glob("*.jsonl.gz"))


def test_ctm_needs_speakers(small: Path) -> None:
    (small / "all.ctm").write_text("a 1 0.1 0.2 yes\n")
    with pytest.raises(InputError, match="CTM has no speakers; give an RTTM"):
        take(small, words=small / "all.ctm")
