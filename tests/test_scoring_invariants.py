"""What must hold of any scores, whoever made the segments; and the figures of other scorers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scoring import RATES, TIME_RATES, WORD_RATES, overall

from tagspeech import formats
from tagspeech.scoring import score
from tagspeech.segments import Segment
from tagspeech.serialize import parse_target


def segments(words: int = 4) -> st.SearchStrategy[list[Segment]]:
    """Of two sessions, speakers overlapping with themselves too."""
    return st.lists(
        st.builds(
            lambda session, speaker, start, length, words: Segment(
                *(session, speaker, start, start + length, words)
            ),
            st.sampled_from(["s1", "s2"]),
            st.sampled_from("xyz"),
            st.integers(0, 12),
            st.integers(1, 6),
            st.lists(st.sampled_from("abcd"), max_size=words).map(" ".join),
        ),
        max_size=8,
    )


SESSIONS = ("s1", "s2")


def errors(metrics: dict[str, Any]) -> dict[str, float]:
    """The errors of every rate, in words or in seconds."""
    return {
        **{key: metrics[key]["errors"] for key in WORD_RATES},
        **{
            key: sum(metrics[key][part] for part in ("missed", "false_alarm", "confusion"))
            for key in TIME_RATES
        },
    }


@settings(max_examples=40)
@given(segments())
def test_a_perfect_hypothesis_scores_zero(ref: list[Segment]) -> None:
    metrics = overall(ref, ref, sessions=SESSIONS)
    assert errors(metrics) == dict.fromkeys(RATES, 0)
    assert metrics["speaker_count_accuracy"] == 1


@settings(max_examples=40)
@given(segments(), segments(), st.permutations(["1", "x", "speaker"]))
def test_relabelling_speakers_changes_nothing(
    ref: list[Segment], hyp: list[Segment], names: list[str]
) -> None:
    own = dict(zip("xyz", names, strict=True))
    before = overall(ref, hyp, sessions=SESSIONS)
    relabelled = [replace(segment, speaker=own[segment.speaker]) for segment in hyp]
    after = overall(ref, relabelled, sessions=SESSIONS)
    assert errors(after) == pytest.approx(errors(before))
    key = "speaker_count_mean_absolute_error"
    assert after[key] == before[key]


@settings(max_examples=40)
@given(segments(), segments())
def test_removing_a_hypothesis_never_helps(ref: list[Segment], hyp: list[Segment]) -> None:
    """Of a session: its reference counts on. What was invented there goes, and only that."""
    left = [segment for segment in hyp if segment.session != "s2"]
    before, after = (overall(ref, one, sessions=SESSIONS) for one in (hyp, left))
    for key in WORD_RATES:
        assert after[key]["length"] == before[key]["length"]
        assert after[key]["deletions"] >= before[key]["deletions"]
        assert after[key]["errors"] >= before[key]["errors"] - before[key]["insertions"]
    for key in TIME_RATES:
        assert after[key]["scored"] == pytest.approx(before[key]["scored"])
        assert after[key]["missed"] >= before[key]["missed"] - 1e-6
        gone = before[key]["false_alarm"]
        assert errors(after)[key] >= errors(before)[key] - gone - 1e-6


@settings(max_examples=40)
@given(segments(), st.lists(st.booleans(), min_size=8, max_size=8))
def test_every_part_of_a_right_hypothesis_that_is_lost_counts(
    ref: list[Segment], kept: list[bool]
) -> None:
    hyp = [segment for segment, keep in zip(ref, kept, strict=False) if keep]
    metrics = overall(ref, hyp, sessions=SESSIONS)
    lost = sum(len(s.words.split()) for s in ref) - sum(len(s.words.split()) for s in hyp)
    for key in WORD_RATES:
        assert metrics[key]["errors"] >= lost


@settings(max_examples=40)
@given(segments(), segments())
def test_adding_a_session_adds_its_counts(ref: list[Segment], hyp: list[Segment]) -> None:
    scores = score(ref, hyp, sessions=SESSIONS)
    one, other = (errors(scores["sessions"][name]) for name in SESSIONS)
    assert errors(scores["overall"]) == pytest.approx({key: one[key] + other[key] for key in one})
    for name in SESSIONS:
        sides = ([s for s in side if s.session == name] for side in (ref, hyp))
        alone = overall(*sides, sessions=[name])
        assert errors(alone) == errors(scores["sessions"][name])


def test_equals_the_command_of_meeteval(tmp_path: Path) -> None:
    """On normalised text, over thirty sessions."""
    rng = random.Random(5)
    sides: dict[str, list[Segment]] = {"ref": [], "hyp": []}
    for side, number in ((side, number) for side in sides for number in range(30)):
        for place in range(rng.randint(1, 6)):
            words = " ".join(rng.choices(["a", "b", "c", "d"], k=rng.randint(1, 6)))
            start = place + rng.random()
            sides[side].append(
                Segment(
                    f"s{number}", rng.choice("xyz"), start, start + 2 * rng.random() + 0.1, words
                )
            )
    for side, rows in sides.items():
        formats.write(rows, tmp_path / f"{side}.stm")
    # meeteval gets the milliseconds that are in the file
    ref, hyp = (formats.read(tmp_path / f"{side}.stm") for side in sides)
    ours = overall(ref, hyp)
    timed = ("--collar", "5")
    for metric, *options in (("cpwer",), ("tcpwer", *timed), ("orcwer",), ("tcorcwer", *timed)):
        call = [sys.executable, "-m", "meeteval.wer", metric, "-r", "ref.stm", "-h", "hyp.stm"]
        call += ["--average-out", "average.json", "--per-reco-out", "each.json", *options]
        subprocess.run(call, cwd=tmp_path, check=True, capture_output=True)
        theirs = json.loads((tmp_path / "average.json").read_text())
        for key in ("error_rate", "errors", "length", "insertions", "deletions", "substitutions"):
            assert ours[metric][key] == theirs[key], (metric, key)


def read_pairs(path: Path) -> dict[str, str]:
    rule = "-" * 80
    blocks = path.read_text(encoding="utf-8").split(f"\n{rule}\n")
    pairs = (block.partition("\n") for block in blocks if block.strip())
    return {head.removeprefix("Cut ID: "): text for head, _, text in pairs}


def test_agrees_with_recorded_figures(shared: Path) -> None:
    """p11, p12 and p14 are left out: their recorded figures are known to be wrong."""
    folder = shared / "golden/eval"
    recorded = json.loads((folder / "eval.json").read_text(encoding="utf-8"))["per_sample"]
    refs, hyps = (read_pairs(folder / name) for name in ("ref.txt", "hyp.txt"))
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


def test_recorded_outputs_that_do_not_parse_are_in_the_totals(shared: Path) -> None:
    """The recorded system leaves them out of its rates (failed.txt lists them)."""
    folder = shared / "golden/eval"
    refs, hyps = (read_pairs(folder / name) for name in ("ref.txt", "hyp.txt"))
    refs.pop("p13-chinese")
    parsed = {name: parse_target(hyps.get(name, ""), name) for name in refs}
    malformed = {name for name, one in parsed.items() if one.malformed}
    assert {"p06", "p07", "p08", "p10", "p15"} - {name[:3] for name in malformed} == {"p06"}
    ref = [s for name in refs for s in parse_target(refs[name], name).segments]
    hyp = [s for one in parsed.values() for s in one.segments]
    scores = score(ref, hyp, sessions=list(refs), malformed=malformed)
    assert scores["overall"]["sessions"] == len(refs) == 17
    assert scores["overall"]["malformed_rate"] == len(malformed) / 17
    words = {name: scores["sessions"][name]["cpwer"] for name in refs}
    assert sum(one["length"] for one in words.values()) == scores["overall"]["cpwer"]["length"]
    empty = words["p08-hyp-empty"]
    assert (empty["deletions"], empty["error_rate"]) == (13, 1.0)
    assert words["p06-hyp-ampersand-parse-fail"]["errors"] == 2  # "um the" became "r d"
    assert words["p09-ref-special-chars"]["length"] == 13
