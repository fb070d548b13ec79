"""Scores: agreement with libraries and recorded figures, and that nothing disappears from them."""

from __future__ import annotations

import math
from dataclasses import replace

import kaldialign
import meeteval
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tagspeech.errors import InputError
from tagspeech.scoring import score
from tagspeech.scoring import words as words_module
from tagspeech.scoring.metrics import interval
from tagspeech.segments import Segment, by_start

WORD_RATES = ("wer", "cpwer", "tcpwer", "orcwer", "tcorcwer")
TIME_RATES = ("der", "der_collar_025", "der_overlap", "der_nonoverlap")
RATES = (*WORD_RATES, *TIME_RATES)

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
        assert {metrics[key]["error_rate"] for key in RATES} <= {0.0, None}  # s2 has no overlap
        assert metrics["speaker_count_accuracy"] == metrics["gender_accuracy"]["accuracy"] == 1
        assert metrics["empty_rate"] == 0
        assert "malformed_rate" not in metrics  # nobody has said what was malformed
    assert {scores["overall"][key]["error_rate"] for key in RATES} == {0.0}
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
    assert overall(REF, REF, malformed=())["malformed_rate"] == 0.0
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
    assert [invented[key]["insertions"] for key in WORD_RATES] == [2] * len(WORD_RATES)
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
    overlap, rest = (overall(ref, hyp)[key] for key in ("der_overlap", "der_nonoverlap"))
    assert (overlap["scored"], overlap["error_rate"]) == (2, 0)
    assert (rest["scored"], rest["false_alarm"], rest["confusion"]) == (7, 1, 3)


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
    # "a b" costs a deletion whether a or b gets it, and so does "j z" in j; the rest is inserted
    for key in ("orcwer", "tcorcwer"):
        assert (rates[key]["errors"], rates[key]["greedy_sessions"]) == (24, 1)


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
    joined = [" ".join(s.words for s in by_start(side)).split() for side in (ref, hyp)]
    assert rates["wer"]["errors"] == kaldialign.edit_distance(*joined)["total"]
    stm = [
        meeteval.io.STM.parse(
            "".join(f"s 1 {s.speaker} {s.start} {s.end} {s.words}\n" for s in by_start(side))
        )
        for side in (ref, hyp)
    ]
    if ref and hyp:
        cp = meeteval.wer.combine_error_rates(meeteval.wer.cpwer(*stm))
        tcp = meeteval.wer.combine_error_rates(meeteval.wer.tcpwer(*stm, collar=5))
        assert rates["cpwer"]["errors"] == cp.errors
        assert rates["cpwer"]["length"] == cp.length
        assert rates["tcpwer"]["errors"] == tcp.errors
        orc = meeteval.wer.combine_error_rates(meeteval.wer.orcwer(*stm))
        assert rates["orcwer"]["errors"] == orc.errors
        tcorc = meeteval.wer.combine_error_rates(meeteval.wer.tcorcwer(*stm, collar=5))
        assert rates["tcorcwer"]["errors"] == tcorc.errors
        assert rates["tcorcwer"]["length"] == tcorc.length
    assert rates["orcwer"]["errors"] <= rates["cpwer"]["errors"] <= rates["tcpwer"]["errors"]
    assert rates["orcwer"]["errors"] <= rates["tcorcwer"]["errors"] <= rates["tcpwer"]["errors"]


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


@settings(max_examples=30, deadline=None)
@given(GROUPS, GROUPS, st.sampled_from([words_module.ORC_SPEAKERS, 0]))
def test_greedy_orcwer_is_never_too_low(ref: list[Segment], hyp: list[Segment], most: int) -> None:
    """Neither by meeteval's search nor where it refuses the number of speakers (`most`)."""
    exact = overall(ref, hyp, sessions=["s"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words_module, "ORC_CELLS", -1)
        patch.setattr(words_module, "ORC_SPEAKERS", most)
        greedy = overall(ref, hyp, sessions=["s"])
    for key in ("orcwer", "tcorcwer"):
        assert (exact[key]["greedy_sessions"], greedy[key]["greedy_sessions"]) == (0, 1)
        assert greedy[key]["errors"] >= exact[key]["errors"]
        assert greedy[key]["length"] == exact[key]["length"]


def test_breakdown_holds_every_session_once() -> None:
    ref = [Segment(f"s{n}", "A", 0, n + 1, "a b") for n in range(12)]
    ref += [Segment("s3", "B", 1, 2, "c")]
    hyp = [s for s in ref if s.session != "s3"]
    scores = score(ref, hyp, seconds={"s0": 81.0})
    assert {key: part["sessions"] for key, part in scores["by_duration"].items()} == {
        **{"0-5": 3, "5-10": 5, "10-20": 3},
        "80+": 1,
    }
    assert {key: part["sessions"] for key, part in scores["by_speakers"].items()} == {
        "1": 11,
        "2": 1,
    }
    assert scores["by_speakers"]["2"]["cpwer"]["errors"] == 3
    for parts in (scores["by_duration"], scores["by_speakers"]):
        for key in WORD_RATES:
            errors = sum(part[key]["errors"] for part in parts.values())
            assert errors == scores["overall"][key]["errors"] == 3


def test_intervals_hold_the_rate_and_narrow_with_more_sessions() -> None:
    def scored(count: int) -> dict:
        ref = [Segment(f"s{n}", "A", 0, 5, "a b c d") for n in range(count)]
        hyp = [replace(s, words="a b c d"[: 2 * (n % 4) + 1]) for n, s in enumerate(ref)]
        return overall(ref, hyp, intervals=True)

    few, many = scored(16), scored(400)
    for metrics in (few, many):
        low, high = metrics["intervals"]["cpwer"]
        assert low < metrics["cpwer"]["error_rate"] == 0.375 < high
        assert metrics["intervals"]["der"] == [0, 0]
        assert "malformed_rate" not in metrics["intervals"]
    (low, high), (lower, higher) = few["intervals"]["cpwer"], many["intervals"]["cpwer"]
    # Standard error of the mean: deviation of the rates over the root of their number
    deviation = math.sqrt(5) / 8
    assert high - low == pytest.approx(2 * 1.96 * deviation / 4, rel=0.15)
    assert higher - lower == pytest.approx(2 * 1.96 * deviation / 20, rel=0.15)
    assert scored(16) == few


def test_no_interval_where_there_is_none() -> None:
    assert interval([(1, 2)]) is None
    assert interval([(1, 2), (0, 0)]) is None  # a resample may have the second only
    assert interval([(1, 2), (1, 2)]) == [0.5, 0.5]
