"""`tagspeech score --uem`: DER and time-constrained word rates over what a UEM file names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import meeteval
import pytest
from test_score_files import tagspeech, write
from test_scoring import REF

from tagspeech.errors import InputError
from tagspeech.scoring import score_files
from tagspeech.segments import Segment

HYP = [
    Segment("s1", "A", 0.0, 3.0, "one two three"),
    Segment("s1", "B", 2.5, 5.0, "four"),
    Segment("s1", "A", 9.0, 11.0, "six seven"),
    Segment("s2", "C", 0.5, 4.0, "eight nine"),
]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A reference, a hypothesis, and where a UEM may be written."""
    return write(tmp_path / "ref.stm", REF), write(tmp_path / "hyp.stm", HYP), tmp_path / "all.uem"


def scored(files: tuple[Path, Path, Path], text: str, **options: Any) -> dict[str, Any]:
    ref, hyp, uem = files
    uem.write_text(text, encoding="utf-8")
    return score_files(ref, hyp, uem=uem, **options)["overall"]


def test_only_the_stretches_of_the_uem_are_scored(files: tuple[Path, Path, Path]) -> None:
    """Of s1 0-5 is right, 6-8 missed, 9-11 false alarm; 4-7 and 10-20 have a second of each."""
    text = ";; a comment\n\ns1 1 4.0 7.0\ns1 1 10 20\n# another\ns2 1 0.0 3.5\n"
    overall = scored(files, text)
    der = overall["der"]
    assert (der["scored"], der["missed"], der["false_alarm"], der["confusion"]) == (5, 1, 1, 0)
    assert overall["uem"] == {"file": str(files[2]), "sessions": 2, "seconds": 16.5}
    # Segments that do not reach into the stretches are left out of time-constrained rates alone
    assert overall["tcpwer"]["length"] == overall["tcorcwer"]["length"] == 6
    assert overall["cpwer"]["length"] == overall["orcwer"]["length"] == 9
    assert overall["speaker_count_accuracy"] == 1


def test_a_session_without_a_line_is_scored_as_without_a_uem_and_said(
    files: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    ref, hyp, uem = files
    uem.write_text("s1 1 0 5\nelsewhere 1 0 5\n", encoding="utf-8")
    scores = score_files(ref, hyp, uem=uem)
    whole = score_files(ref, hyp)
    assert scores["sessions"]["s2"]["der"] == whole["sessions"]["s2"]["der"]
    assert whole["overall"]["uem"] is None
    assert scores["overall"]["uem"]["sessions"] == 1
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"{uem}: has no line for session 's2' (1 such); all of it is scored",
        f"{uem}: session 'elsewhere' (1 such) is not in the reference; its lines are not used",
    ]


def test_names_may_have_a_folder_and_an_extension(files: tuple[Path, Path, Path]) -> None:
    """As md-eval takes them."""
    plain = scored(files, "s1 1 0 5\ns2 1 0 5\n")
    assert scored(files, "/audio/s1.sph 1 0 5\ns2.wav 1 0.0 5\n") == plain


def test_names_match_however_their_accents_are_spelt(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.stm", [Segment("caf\u00e9", "A", 0, 4, "a b")])
    overall = scored((ref, ref, tmp_path / "all.uem"), "cafe\u0301 1 1.0 3.0\n")
    assert overall["der"]["scored"] == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("s1 1 0\n", ["line 1", "session, channel, start and end"]),
        ("s1 1 0 5\ns2 1 zero 5\n", ["line 2", "'zero'"]),
        ("s1 1 nan 5\n", ["line 1", "'nan'"]),
        ("s1 1 0 inf\n", ["line 1", "'inf'"]),
        ("s1 1 5 5\n", ["line 1", "start must be before its end"]),
        ("s1 1 -1 5\n", ["line 1", "'-1'"]),
        ("s1 1 0 5\ns1 1 4 6\n", ["session 's1'", "4-6", "overlap"]),
        ("s1 1 0 5\ns1 2 0 6\n", ["session 's1'", "channels"]),
        ("S1 1 0 5\n", ["none of its sessions is in the reference", "'S1'"]),
        ("; nothing\n", ["has no line"]),
    ],
)
def test_a_wrong_uem_is_refused(
    files: tuple[Path, Path, Path], text: str, parts: list[str]
) -> None:
    with pytest.raises(InputError) as raised:
        scored(files, text)
    for part in ("all.uem", *parts):
        assert part in str(raised.value)


def test_two_channels_with_the_same_times_are_one(files: tuple[Path, Path, Path]) -> None:
    text = "s1 1 0 5\ns2 1 0 5\n"
    assert scored(files, text + "s1 2 0 5\n") == scored(files, text)


@pytest.mark.parametrize("metric", ["tcpwer", "tcorcwer"])
def test_time_constrained_rates_are_those_of_meeteval(
    files: tuple[Path, Path, Path], metric: str
) -> None:
    text = "s1 1 2.0 4.0\ns2 1 4.0 9.0\n"
    ours = scored(files, text, collar=5)[metric]
    sides = [meeteval.io.STM.load(path) for path in files[:2]]
    uem = meeteval.io.UEM.parse(text)
    rates = getattr(meeteval.wer, metric)(*sides, collar=5, uem=uem)
    theirs = meeteval.wer.combine_error_rates(rates)
    assert (ours["errors"], ours["length"]) == (theirs.errors, theirs.length) == (1, 7)


def test_the_command_refuses_in_one_line(files: tuple[Path, Path, Path]) -> None:
    ref, hyp, uem = files
    uem.write_text("s3 1 0 5\n", encoding="utf-8")
    message = tagspeech("score", "--ref", ref, "--hyp", hyp, "--uem", uem, code=2)
    assert "all.uem: none of its sessions is in the reference, such as 's3'" in message
    assert message.count("\n") == 1


def test_a_uem_of_a_real_meeting(shared: Path) -> None:
    """Figures of md-eval-22.pl -u all.uem."""
    folder = shared / "cases/collar_ami"
    ref, hyp, uem = (folder / name for name in ("ref.rttm", "hyp.rttm", "all.uem"))
    overall = json.loads(tagspeech("score", "--ref", ref, "--hyp", hyp, "--uem", uem))
    assert round(100 * overall["der_collar_025"]["error_rate"], 2) == 6.27
    assert round(100 * overall["der"]["error_rate"], 2) == 14.75
