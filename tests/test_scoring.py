"""Scores: agreement with libraries and recorded figures, and that nothing disappears from them."""

from __future__ import annotations

import gzip
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import kaldialign
import meeteval
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.report import render_examples, render_table, report, results
from tagspeech.scoring import score, score_files
from tagspeech.scoring import words as words_module
from tagspeech.segments import Segment, by_time
from tagspeech.serialize import parse_target

GOLDEN = Path(os.environ.get("TAGSPEECH_SHARED", Path(__file__).parents[2] / "shared")) / "golden"
WORD_RATES = ("wer", "cpwer", "tcpwer")
RATES = (*WORD_RATES, "der", "der_collar_025")

REF = [
    Segment("s1", "A", 0.0, 3.0, "one two three", "f"),
    Segment("s1", "B", 2.5, 5.0, "four five", "m"),
    Segment("s1", "A", 6.0, 8.0, "six seven", "f"),
    Segment("s2", "C", 0.5, 4.0, "eight nine", "m"),
]


def overall(ref: list[Segment], hyp: list[Segment], **options: object) -> dict:
    return score(ref, hyp, **options)["overall"]


def test_perfect_hypothesis_scores_zero() -> None:
    scores = score(REF, REF)
    for metrics in (scores["overall"], *scores["sessions"].values()):
        assert [metrics[key]["error_rate"] for key in RATES] == [0.0] * len(RATES)
        assert metrics["speaker_count_accuracy"] == metrics["gender_accuracy"]["accuracy"] == 1
        assert metrics["malformed_rate"] == metrics["empty_rate"] == 0
    assert list(scores["sessions"]) == ["s1", "s2"]
    assert scores["overall"]["wer"]["length"] == 9
    assert scores["overall"]["der"]["scored"] == pytest.approx(3.0 + 2.5 + 2.0 + 3.5)


def test_names_of_speakers_do_not_matter() -> None:
    hyp = [replace(s, words=s.words + " more", end=s.end + 0.3) for s in REF]
    names = {"A": "2", "B": "1", "C": "A"}
    assert score(REF, hyp) == score(REF, [replace(s, speaker=names[s.speaker]) for s in hyp])


@pytest.mark.parametrize("index", range(len(REF)))
def test_removing_a_segment_is_deletions_and_missed_speech(index: int) -> None:
    lost = overall(REF, REF[:index] + REF[index + 1 :])
    for key in WORD_RATES:
        assert lost[key]["errors"] == lost[key]["deletions"] == len(REF[index].words.split())
        assert lost[key]["length"] == 9
    assert lost["der"]["missed"] == pytest.approx(REF[index].duration)


def test_missing_session_counts() -> None:
    lost = overall(REF, [s for s in REF if s.session == "s1"])
    assert lost["sessions"] == 2
    assert lost["empty_rate"] == 0.5
    assert lost["cpwer"]["errors"] == 2
    assert lost["der"]["missed"] == 3.5
    assert lost["speaker_count_accuracy"] == 0.5
    assert lost["speaker_count_mean_absolute_error"] == 0.5
    nothing = overall(REF, [])
    assert [nothing[key]["error_rate"] for key in RATES] == [1.0] * len(RATES)


def test_malformed_session_is_scored_and_counted() -> None:
    half = overall(REF, REF[:-1], malformed={"s2"})
    assert half["malformed_rate"] == 0.5
    assert half["wer"]["errors"] == 2


def test_unknown_session_is_an_error() -> None:
    stranger = Segment("s9", "A", 0.0, 1.0, "hello")
    with pytest.raises(InputError, match="'s9'"):
        score(REF, [*REF, stranger])
    with pytest.raises(InputError, match="'s9'"):
        score(REF, REF, malformed=["s9"])
    with pytest.raises(InputError, match="no session"):
        score([], [])
    assert overall(REF, [*REF, stranger], sessions=["s9"])["cpwer"]["insertions"] == 1


def test_empty_sides_do_not_crash() -> None:
    both = overall([], [], sessions=["s"])
    assert [both[key]["error_rate"] for key in RATES] == [None] * len(RATES)
    assert both["speaker_count_accuracy"] == 1
    invented = overall([], [Segment("s", "A", 1.0, 3.0, "a b")], sessions=["s"])
    assert [invented[key]["insertions"] for key in WORD_RATES] == [2, 2, 2]
    assert invented["der"]["false_alarm"] == invented["der_collar_025"]["false_alarm"] == 2
    wordless = overall([Segment("s", "A", 1.0, 3.0, "")], [Segment("s", "A", 1.0, 3.0, "")])
    assert wordless["der"]["error_rate"] == 0
    assert wordless["wer"]["length"] == 0
    covered = overall([Segment("s", "A", 1.0, 1.3, "a")], [Segment("s", "A", 5.0, 6.0, "a")])
    assert covered["der_collar_025"]["error_rate"] is None  # the collar takes all of it
    assert covered["der_collar_025"]["false_alarm"] == 1


def test_speech_outside_the_reference_is_false_alarm() -> None:
    late = Segment("s1", "A", 20.0, 22.0, "")
    early = Segment("s2", "C", 0.0, 0.2, "")
    assert overall(REF, [*REF, late])["der"]["false_alarm"] == pytest.approx(2.0)
    assert overall(REF, [*REF, late])["der_collar_025"]["false_alarm"] == pytest.approx(2.0)
    assert overall(REF, [*REF, early])["der"]["false_alarm"] == pytest.approx(0.2)


def test_der_with_overlap_by_hand() -> None:
    """A 0-4, B 3-8 against x 0-8, y 3-4, z 7-8: x is B and y is A.

    Scored 4 + 5 s. 0-3: A spoke, x was heard: 3 s confusion. 3-4: A, B against x, y: right.
    4-7: right. 7-8: B against x and z: 1 s false alarm. With a collar of 0.25 s on each side of
    0, 3, 4 and 8 remain 0.25-2.75 (2.5 s confusion), 3.25-3.75 (two speakers), 4.25-7.75.
    """
    ref = [Segment("s", "A", 0, 4, ""), Segment("s", "B", 3, 8, "")]
    hyp = [Segment("s", "x", 0, 8, ""), Segment("s", "y", 3, 4, ""), Segment("s", "z", 7, 8, "")]
    der, collared = (overall(ref, hyp)[key] for key in ("der", "der_collar_025"))
    assert (der["scored"], der["missed"], der["false_alarm"], der["confusion"]) == (9, 0, 1, 3)
    assert der["error_rate"] == pytest.approx(4 / 9)
    assert (collared["scored"], collared["false_alarm"], collared["confusion"]) == (7, 0.75, 2.5)


def test_self_overlap_is_merged_and_counted() -> None:
    hyp = [*REF, Segment("s1", "A", 1.0, 2.0, "")]
    scores = overall(REF, hyp)
    assert scores["der"]["error_rate"] == 0
    assert scores["self_overlaps"] == {"ref": 0, "hyp": 1}


def test_unknown_gender_is_never_right() -> None:
    hyp = [replace(s, gender="u") if s.speaker == "A" else s for s in REF]
    expected = {"accuracy": pytest.approx(6.0 / 11.0), "matched_seconds": pytest.approx(11.0)}
    assert overall(REF, hyp)["gender_accuracy"] == expected
    assert overall(hyp, hyp)["gender_accuracy"] == expected
    assert overall(REF, [])["gender_accuracy"] == {"accuracy": 0.0, "matched_seconds": 0.0}


def test_chinese_is_scored_by_character() -> None:
    ref = [Segment("s", "A", 0, 4, "我们今天讨论")]
    rates = overall(ref, [replace(ref[0], words="我们 今讨论")], language="zh")
    assert rates["wer"]["length"] == 6
    assert rates["cpwer"]["deletions"] == 1


def test_more_speakers_than_meeteval_allows() -> None:
    hyp = [
        Segment("s1", str(n), n, n + 1, word) for n, word in enumerate("abcdefghijklmnopqrstuvwx")
    ]
    ref = [Segment("s1", "A", 0, 5, "a b"), Segment("s1", "B", 9, 14, "j z")]
    rates = overall(ref, hyp)
    assert (rates["cpwer"]["length"], rates["cpwer"]["insertions"]) == (4, 22)
    assert rates["cpwer"]["errors"] == 24


VOCABULARY = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).map(" ".join)
GROUPS = st.lists(
    st.builds(
        lambda speaker, start, length, words: Segment("s", speaker, start, start + length, words),
        st.sampled_from("xyz"),
        st.integers(0, 12),
        st.integers(1, 6),
        VOCABULARY,
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(GROUPS, GROUPS)
def test_agrees_with_the_libraries(ref: list[Segment], hyp: list[Segment]) -> None:
    rates = overall(ref, hyp, sessions=["s"])
    joined = [" ".join(s.words for s in by_time(side)).split() for side in (ref, hyp)]
    assert rates["wer"]["errors"] == kaldialign.edit_distance(*joined)["total"]
    stm = [
        meeteval.io.STM.parse(
            "".join(f"s 1 {s.speaker} {s.start} {s.end} {s.words}\n" for s in by_time(side))
        )
        for side in (ref, hyp)
    ]
    if ref and hyp:
        cp = meeteval.wer.combine_error_rates(meeteval.wer.cpwer(*stm))
        tcp = meeteval.wer.combine_error_rates(meeteval.wer.tcpwer(*stm, collar=5))
        assert rates["cpwer"]["errors"] == cp.errors
        assert rates["cpwer"]["length"] == cp.length
        assert rates["tcpwer"]["errors"] == tcp.errors
    assert rates["cpwer"]["errors"] <= rates["tcpwer"]["errors"]


@settings(max_examples=30, deadline=None)
@given(GROUPS, GROUPS)
def test_pairing_of_many_speakers_is_the_same_metric(
    ref: list[Segment], hyp: list[Segment]
) -> None:
    rates = overall(ref, hyp, sessions=["s"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_module, "MEETEVAL_SPEAKERS", 0)
        paired = overall(ref, hyp, sessions=["s"])
    for key in ("cpwer", "tcpwer"):
        assert paired[key]["errors"] == rates[key]["errors"]
        assert paired[key]["length"] == rates[key]["length"]


def read_pairs(path: Path) -> dict[str, str]:
    rule = "-" * 80
    blocks = path.read_text(encoding="utf-8").split(f"\n{rule}\n")
    pairs = (block.partition("\n") for block in blocks if block.strip())
    return {head.removeprefix("Cut ID: "): text for head, _, text in pairs}


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="the recorded figures are not on this machine")
def test_agrees_with_recorded_figures() -> None:
    """p11, p12 and p14 are left out: their recorded figures are known to be wrong."""
    recorded = json.loads((GOLDEN / "eval" / "eval.json").read_text(encoding="utf-8"))["per_sample"]
    refs, hyps = (read_pairs(GOLDEN / "eval" / name) for name in ("ref.txt", "hyp.txt"))
    compared = []
    for name, figures in recorded.items():
        ref = parse_target(refs[name], name)
        hyp = parse_target(hyps[name], name)
        if figures is None or name[:3] in ("p11", "p12", "p14") or ref.problems or hyp.problems:
            continue
        language = "zh" if "chinese" in name else "en"
        rates = overall(ref.segments, hyp.segments, sessions=[name], language=language)
        for key, theirs in (("cpwer", "cpwer"), ("wer", "global_wer")):
            assert rates[key]["errors"] == figures[theirs]["errors"], name
            assert rates[key]["length"] == figures[theirs]["length"], name
        count, gender = figures["count"], figures["gender"]
        assert rates["speaker_count_accuracy"] == count["exact_match"], name
        assert rates["speaker_count_mean_absolute_error"] == count["absolute_error"], name
        assert rates["gender_accuracy"]["accuracy"] == pytest.approx(gender["accuracy"]), name
        compared.append(name[:3])
    assert compared == ["p01", "p02", "p03", "p04", "p05", "p13", "p18"]


def test_files_to_scores_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ref = tmp_path / "ref.seglst.json"
    formats.write(REF, ref)
    hyp = tmp_path / "hyp.seglst.json"
    formats.write(REF[:3], hyp)
    raw = tmp_path / "test.raw.jsonl"
    rows = [
        {"session": name, "text": "", "malformed": malformed, "problems": []}
        for name, malformed in (("s1", False), ("s2", True), ("s3", False))
    ]
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    scores = score_files(ref, hyp, raw, output=tmp_path / "scores.json")
    assert json.loads(capsys.readouterr().out) == scores["overall"]
    assert scores["overall"]["sessions"] == 3
    assert scores["overall"]["malformed_rate"] == pytest.approx(1 / 3)
    assert scores["overall"]["empty_rate"] == pytest.approx(2 / 3)

    output = tmp_path / "results.json"
    report(tmp_path / "scores.json", ref, hyp, "mini", "abc", {"train": 60.0, "decode": 2}, output)
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written == results({"test": scores}, "mini", "abc", {"train": 60.0, "decode": 2})
    assert list(written) == ["recipe", "commit", "seconds", "test"]
    assert list(written["test"]) == [
        *("sessions", "malformed_rate", "wer", "cpwer", "tcpwer", "der", "der_collar_025"),
        *("speaker_count_accuracy", "gender_accuracy"),
    ]
    assert written["test"]["cpwer"] == pytest.approx(2 / 9)
    printed = capsys.readouterr().out
    assert render_table(written, {"test": scores}) in printed
    assert "speakers by LLM" in printed
    assert "speakers by voice" not in printed
    assert "22.2" in printed
    assert "62.0" in printed
    assert "s2: cpWER 100.0 %" in printed


def test_report_of_speakers_by_voice_stands_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref, hyp = tmp_path / "ref.seglst.json", tmp_path / "hyp.seglst.json"
    formats.write(REF, ref)
    formats.write(REF[:3], hyp)
    score_files(ref, hyp, output=tmp_path / "scores.json")
    score_files(ref, ref, output=tmp_path / "scores-voice.json")
    output, voice = tmp_path / "results.json", tmp_path / "scores-voice.json"
    report(tmp_path / "scores.json", ref, hyp, "mini", "abc", {}, output, scores_voice_path=voice)
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["test"].keys() == written["test_voice"].keys()
    assert (written["test"]["cpwer"], written["test_voice"]["cpwer"]) == (2 / 9, 0.0)
    _, by_llm, by_voice = re.split("speakers by (?:LLM|voice)", capsys.readouterr().out)
    assert re.search(r"^cpWER +22\.2 ", by_llm, re.M)
    assert re.search(r"^cpWER +0\.0 ", by_voice, re.M)


def groups_file(path: Path, **seconds: float) -> Path:
    """Utterance groups as Lhotse writes them, as far as scoring reads them."""
    rows = [json.dumps({"id": name, "duration": one}) + "\n" for name, one in seconds.items()]
    path.write_bytes(gzip.compress("".join(rows).encode()))
    return path


def test_groups_of_the_protocol_are_scored_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref, hyp = tmp_path / "ref.seglst.json", tmp_path / "hyp.seglst.json"
    formats.write(REF, ref)
    formats.write(REF[:3], hyp)
    scores_path, output = tmp_path / "scores.json", tmp_path / "results.json"
    # s2 is just too long, s3 too short and silent, s4 has no reference and no row of the decoder
    groups = groups_file(tmp_path / "test.jsonl.gz", s1=80.0, s2=80.01, s3=0.49, s4=0.5)
    scores = score_files(ref, hyp, groups=groups, output=scores_path)
    assert list(scores["sessions"]) == ["s1", "s2", "s3", "s4"]
    assert scores["overall"] == overall(REF, REF[:3], sessions=["s1", "s2", "s3", "s4"])
    assert scores["protocol"] == overall(REF[:3], REF[:3], sessions=["s1", "s4"])
    capsys.readouterr()
    report(scores_path, ref, hyp, "ami", "abc", {}, output, scores_voice_path=scores_path)
    written = json.loads(output.read_text(encoding="utf-8"))
    keys = ["test", "test_protocol", "test_voice", "test_voice_protocol"]
    assert list(written)[3:] == keys
    assert [written[key]["sessions"] for key in keys] == [4, 2, 4, 2]
    assert [written[key]["cpwer"] for key in keys] == [2 / 9, 0.0, 2 / 9, 0.0]
    printed = capsys.readouterr().out
    titles = re.findall("^speakers by .*?(?=  )", printed, re.M)
    assert titles == [
        f"speakers by {who}, {which}"
        for who in ("LLM", "voice")
        for which in ("all groups", "groups of 0.5-80 s")
    ]


def test_the_protocol_says_nothing_where_it_holds_everything_or_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ref = tmp_path / "ref.seglst.json"
    formats.write(REF, ref)
    whole = score_files(ref, ref, groups=groups_file(tmp_path / "all.jsonl.gz", s1=9, s2=4))
    assert whole == score(REF, REF)
    assert caplog.text == ""
    none = score_files(ref, ref, groups=groups_file(tmp_path / "none.jsonl.gz", s1=99, s2=0.1))
    assert none == whole
    assert "no group lasts 0.5-80 s" in caplog.text


def test_score_refuses_wrong_groups(tmp_path: Path) -> None:
    ref = tmp_path / "ref.seglst.json"
    formats.write(REF, ref)
    with pytest.raises(InputError, match=r"ref\.seglst\.json: is no list of utterance groups"):
        score_files(ref, ref, groups=ref)


def test_examples_are_best_median_worst() -> None:
    ref = [Segment(f"s{n}", "A", 0, 5, "a b c d") for n in range(5)]
    hyp = [replace(s, words="a b c d"[: 2 * n].strip()) for n, s in enumerate(ref) if n]
    text = render_examples(ref, hyp, score(ref, hyp)["sessions"])
    heads = [line for line in text.splitlines() if "cpWER" in line]
    assert heads == ["s4: cpWER 0.0 %", "s2: cpWER 50.0 %", "s0: cpWER 100.0 %"]


def test_score_refuses_a_missing_or_wrong_journal(tmp_path: Path) -> None:
    ref = tmp_path / "ref.seglst.json"
    formats.write(REF, ref)
    with pytest.raises(InputError, match="does not exist"):
        score_files(ref, ref, tmp_path / "absent.jsonl")
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"session": "s1"}\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        score_files(ref, ref, wrong)
