"""`tagspeech score`: what it reads, what it leaves out, what it refuses."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_scoring import REF, WORD_RATES, overall

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.scoring import score, score_files
from tagspeech.segments import Segment
from tagspeech.serialize import to_target


def tagspeech(*arguments: object, code: int = 0) -> str:
    """The command line; gives stdout, or stderr of a call that is to fail."""
    words = [sys.executable, "-m", "tagspeech", *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def write(path: Path, segments: list[Segment]) -> Path:
    formats.write(segments, path)
    return path


def groups_file(path: Path, **seconds: float) -> Path:
    """Utterance groups as Lhotse writes them, as far as scoring reads them."""
    rows = [json.dumps({"id": name, "duration": one}) + "\n" for name, one in seconds.items()]
    path.write_bytes(gzip.compress("".join(rows).encode()))
    return path


@pytest.mark.parametrize("extension", ["seglst.json", "stm", "ctm", "rttm"])
def test_every_format_is_scored(
    tmp_path: Path, extension: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = write(tmp_path / "ref.seglst.json", REF)
    hyp = write(tmp_path / f"hyp.{extension}", REF[:3])
    scores = score_files(ref, hyp)["overall"]
    assert scores["sessions"] == 2
    if extension == "rttm":  # no words
        assert scores["cpwer"]["deletions"] == 9
    else:
        assert (scores["wer"]["errors"], scores["orcwer"]["length"]) == (2, 9)
    if extension != "ctm":  # words without speakers
        assert scores["der"]["missed"] == pytest.approx(3.5)


def test_target_texts_that_do_not_parse_are_scored_and_counted(tmp_path: Path) -> None:
    """A folder of them, a session each: cut off, missing, empty, whole."""
    names = ("cut", "gone", "nothing", "whole")
    ref = write(
        tmp_path / "ref.stm",
        [Segment(n, s.speaker, s.start, s.end, s.words) for n in names for s in REF[:3]],
    )
    hyp = tmp_path / "hyp"
    hyp.mkdir()
    text = to_target(REF[:3])
    (hyp / "cut.txt").write_text(text.partition("2.50-5.00")[0])  # one line, nobody speaks it
    (hyp / "nothing.txt").write_text("")
    (hyp / "whole.txt").write_text(text)
    output = tmp_path / "scores.json"
    printed = tagspeech("score", "--ref", ref, "--hyp", hyp, "--output", output)
    scores = json.loads(output.read_text())
    assert json.loads(printed) == scores["overall"]
    overall = scores["overall"]
    assert (overall["malformed_rate"], overall["empty_rate"]) == (0.5, 0.5)
    assert overall["cpwer"]["deletions"] == 4 + 7 + 7
    assert overall["cpwer"]["errors"] == 18
    assert scores["sessions"]["cut"]["cpwer"]["errors"] == 4


def test_two_files_without_a_session_are_of_the_same(tmp_path: Path) -> None:
    ref, hyp = tmp_path / "meeting.txt", tmp_path / "output.srt"
    ref.write_text(to_target(REF[:3]))
    write(hyp, REF[:3])
    assert score_files(ref, hyp)["overall"]["wer"]["error_rate"] == 0


def test_traditional_and_simplified_chinese_are_the_same_where_asked(tmp_path: Path) -> None:
    pytest.importorskip("opencc")
    ref = write(tmp_path / "ref.stm", [Segment("s", "A", 0, 4, "今天討論這個項目 okay")])
    hyp = write(tmp_path / "hyp.stm", [Segment("s", "A", 0, 4, "今天讨论这个项目 okay")])
    call = ("score", "--ref", ref, "--hyp", hyp, "--language", "zh")
    apart = json.loads(tagspeech(*call))
    assert (apart["wer"]["errors"], apart["wer"]["length"]) == (5, 9)
    together = json.loads(tagspeech(*call, "--fold-chinese"))
    assert together["wer"]["errors"] == 0
    assert (apart["folded"], together["folded"]) == (False, True)


@pytest.mark.parametrize(
    ("language", "said", "heard", "errors", "length"),
    [
        ("ja", "今日は いい天気です", "今日わいい天気デス", 3, 9),
        ("ko", "할 수 있습니다", "할수 있슴니다", 1, 6),  # spaces do not count
        ("en", "할 수 있습니다", "할수 있슴니다", 3, 3),
    ],
)
def test_japanese_and_korean_are_scored_by_character(
    tmp_path: Path, language: str, said: str, heard: str, errors: int, length: int
) -> None:
    ref = write(tmp_path / "ref.stm", [Segment("s", "A", 0, 4, said)])
    hyp = write(tmp_path / "hyp.stm", [Segment("s", "A", 0, 4, heard)])
    call = ("score", "--ref", ref, "--hyp", hyp, "--language", language)
    overall = json.loads(tagspeech(*call))
    assert overall["language"] == language
    for key in WORD_RATES:
        assert (overall[key]["errors"], overall[key]["length"]) == (errors, length), key


def test_folders_that_cannot_be_read(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.stm", REF)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="has no file of segments"):
        score_files(ref, empty)
    for extension in ("srt", "vtt"):
        write(empty / f"s1.{extension}", REF[:3])
    with pytest.raises(InputError, match="has 2 files named s1"):
        score_files(ref, empty)


def test_paper_protocol_keeps_its_groups_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.seglst.json", REF)
    hyp = write(tmp_path / "hyp.seglst.json", REF[:3])
    # s2 is just too long, s3 too short and silent, s4 has no reference and no row of the decoder
    groups = groups_file(tmp_path / "test.jsonl.gz", s1=80.0, s2=80.01, s3=0.49, s4=0.5)
    output = tmp_path / "scores.json"
    call = ("score", "--ref", ref, "--hyp", hyp, "--groups", groups, "--output", output)
    tagspeech(*call, "--protocol", "paper")
    scores = json.loads(output.read_text())
    assert list(scores["sessions"]) == ["s1", "s2", "s3", "s4"]

    def rates(metrics: dict[str, Any]) -> list[Any]:
        return [metrics[key] for key in ("sessions", *WORD_RATES, "der", "der_overlap")]

    within = overall(REF[:3], REF[:3], sessions=["s1", "s4"])
    everything = overall(REF, REF[:3], sessions=["s1", "s2", "s3", "s4"])
    assert rates(scores["overall"]) == rates(within)
    assert rates(scores["all"]) == rates(everything)
    assert scores["overall"]["left_out"] == {
        "sessions": 2,
        "speech_seconds": 3.5,
        "share_of_speech": pytest.approx(3.5 / 11),
    }
    assert sum(part["sessions"] for part in scores["by_duration"].values()) == 2
    tagspeech(*call)
    assert rates(json.loads(output.read_text())["overall"]) == rates(everything)


def test_paper_protocol_without_groups_goes_by_the_reference() -> None:
    ref = [*REF, Segment("long", "A", 70.0, 80.5, "a b")]
    scores = score(ref, REF, protocol="paper")
    assert (scores["overall"]["sessions"], scores["all"]["sessions"]) == (2, 3)
    whole = score(REF, REF, protocol="paper")
    assert "all" not in whole
    assert whole["overall"]["left_out"]["sessions"] == 0


def test_paper_protocol_that_keeps_nothing_is_an_error(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.seglst.json", REF)
    groups = groups_file(tmp_path / "none.jsonl.gz", s1=99, s2=0.1)
    message = tagspeech(
        *("score", "--ref", ref, "--hyp", ref, "--groups", groups, "--protocol", "paper"), code=2
    )
    assert "no session lasts 0.5-80 s" in message
    assert message.count("\n") == 1


def test_scored_as_the_authors_do_beside_ours(tmp_path: Path) -> None:
    """s2 is malformed, s3 missing, s4 too long; in s1 speech after the reference's end is free."""
    spoken = [Segment(name, "A", 0.0, 4.0, "a b", "f") for name in ("s2", "s3", "s4")]
    early, late = (Segment("s1", "1", *times, "oh", "f") for times in ((3.0, 3.5), (20.0, 22.0)))
    ref = write(tmp_path / "ref.seglst.json", [Segment("s1", "A", 1.0, 5.0, "a b"), *spoken])
    heard = [Segment("s1", "1", 1.5, 5.0, "a b"), replace(early, speaker="2"), late]
    hyp = write(tmp_path / "hyp.seglst.json", [*heard, spoken[0], spoken[2]])
    raw = tmp_path / "raw.jsonl"
    rows = ({"session": f"s{n}", "malformed": n == 2} for n in (1, 2, 4))
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = groups_file(tmp_path / "test.jsonl.gz", s1=30.0, s2=4.0, s3=4.0, s4=90.0)
    output = tmp_path / "scores.json"
    sides = ("--ref", ref, "--hyp", hyp)
    call = ("score", *sides, "--raw", raw, "--groups", groups, "--output", output)
    tagspeech(*call, "--protocol", "as-authors")
    scores = json.loads(output.read_text())
    authors, ours = scores["overall"], scores["all"]
    assert (authors["protocol"], ours["protocol"]) == ("as-authors", "all")
    assert (authors["sessions"], ours["sessions"]) == (1, 4)
    assert (authors["cpwer"]["length"], ours["cpwer"]["length"]) == (2, 8)
    assert authors["left_out"]["sessions"] == 3
    assert authors["malformed_rate"] == authors["empty_rate"] == 0
    der = authors["der"]
    assert (der["scored"], der["missed"], der["false_alarm"]) == (4, 0.5, 0.5)
    assert ours["der"]["false_alarm"] == 2.5
    tagspeech(*call, "--protocol", "paper")
    three = json.loads(output.read_text())
    assert [three[key]["sessions"] for key in ("overall", "all", "as_authors")] == [3, 4, 1]
    folded = {"folded": False}
    assert {**three["as_authors"], **folded} == {**authors, "uem": None}
    tagspeech(*call)
    plain = json.loads(output.read_text())["overall"]
    assert {**plain, "folded": False} == {**ours, **{key: plain[key] for key in ("uem", "folded")}}


def test_as_authors_must_know_what_is_malformed_and_takes_no_uem(tmp_path: Path) -> None:
    ref = write(tmp_path / "ref.stm", REF)
    with pytest.raises(InputError, match=r"as-authors excludes malformed outputs.*--raw"):
        score_files(ref, ref, protocol="as-authors")
    uem = tmp_path / "all.uem"
    uem.write_text("s1 1 0 5\ns2 1 0 5\n")
    with pytest.raises(InputError, match="as-authors scores without a UEM"):
        score_files(ref, ref, uem=uem, protocol="as-authors")
    with pytest.raises(InputError, match=r"no session of 0\.5-80 s has a well-formed output"):
        score(REF, REF, malformed=["s1", "s2"], protocol="as-authors")


def test_an_unknown_protocol_is_refused_by_the_function_too() -> None:
    with pytest.raises(
        InputError, match="protocol: must be one of all, paper, as-authors, got 'Paper'"
    ):
        score(REF, REF, protocol="Paper")


@pytest.mark.parametrize("collar", ["nan", "-1"])
def test_a_collar_that_is_no_number_of_seconds_is_refused(tmp_path: Path, collar: str) -> None:
    ref = write(tmp_path / "ref.stm", REF)
    message = tagspeech("score", "--ref", ref, "--hyp", ref, f"--collar={collar}", code=2)
    assert f"--collar: must be 0 or more, got {collar}" in message
    assert message.count("\n") == 1


def test_an_infinite_collar_is_refused() -> None:
    with pytest.raises(InputError, match="seconds from 0, got inf"):
        score(REF, REF, collar=float("inf"))


@pytest.mark.parametrize("collar", [0, 1e-300, 1e300])
def test_any_other_collar_is_taken(collar: float) -> None:
    scores = overall(REF, REF[:3], collar=collar)
    assert (scores["tcpwer"]["errors"], scores["tcpwer"]["collar"]) == (2, collar)


def test_score_refuses_wrong_groups(tmp_path: Path) -> None:
    ref = tmp_path / "ref.seglst.json"
    formats.write(REF, ref)
    with pytest.raises(InputError, match=r"ref\.seglst\.json: is no list of utterance groups"):
        score_files(ref, ref, groups=ref)


def test_score_refuses_a_missing_or_wrong_journal(tmp_path: Path) -> None:
    ref = tmp_path / "ref.seglst.json"
    formats.write(REF, ref)
    with pytest.raises(InputError, match="does not exist"):
        score_files(ref, ref, tmp_path / "absent.jsonl")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"session": "s1"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        score_files(ref, ref, wrong)


def test_a_hypothesis_without_words_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segment = Segment("s", "A", 0.0, 1.0, "one two")
    for name in ("ref.stm", "hyp.rttm"):
        formats.write([segment], tmp_path / name)
    score_files(tmp_path / "ref.stm", tmp_path / "hyp.rttm")
    assert "hyp.rttm: has no words; of its scores only DER and speaker count" in caplog.text
    with pytest.raises(InputError, match="nowhere: No such file"):
        score_files(tmp_path / "ref.stm", tmp_path / "nowhere")
