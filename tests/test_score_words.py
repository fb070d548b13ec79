"""Normalisers of `score`, and word errors in overlapped and in single speech."""

from __future__ import annotations

import json
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given, settings
from test_scoring_invariants import segments

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.report.table import metric_tables, rate_charts
from tagspeech.scoring import score, score_files
from tagspeech.scoring.normalisers import normaliser_of
from tagspeech.segments import Segment

REF = [
    Segment("s", "A", 0.0, 4.0, "aa bb cc dd"),  # cc and dd are overlapped
    Segment("s", "B", 2.0, 6.0, "ee ff gg hh"),  # ee and ff are
]
HYP = [
    Segment("s", "1", 0.0, 4.0, "aa xx cc yy"),
    Segment("s", "2", 2.0, 6.0, "ee gg hh"),
]


def test_errors_are_counted_where_several_people_talk() -> None:
    overall = score(REF, HYP)["overall"]
    both, single = overall["cpwer_overlap"], overall["cpwer_nonoverlap"]
    assert (both["length"], both["substitutions"], both["deletions"]) == (4, 1, 1)
    assert (single["length"], single["substitutions"], single["deletions"]) == (4, 1, 0)
    assert both["error_rate"] == 0.5


def test_an_insertion_counts_by_its_own_time() -> None:
    hyp = [*REF[:1], Segment("s", "B", 2.0, 6.0, "ee ff gg hh ii jj")]
    overall = score(REF, hyp)["overall"]
    assert overall["cpwer_overlap"]["insertions"] == 0
    assert overall["cpwer_nonoverlap"]["insertions"] == 2


def test_without_overlap_everything_is_single_speech() -> None:
    overall = score(REF[:1], HYP[:1])["overall"]
    assert overall["cpwer_overlap"]["error_rate"] is None
    assert overall["cpwer_nonoverlap"] == overall["cpwer"]


@settings(max_examples=40)
@given(segments(), segments())
def test_both_parts_add_up_to_cpwer(ref: list[Segment], hyp: list[Segment]) -> None:
    overall = score(ref, hyp, sessions=("s1", "s2"))["overall"]
    for key in ("errors", "length"):
        parts = (overall[name][key] for name in ("cpwer_overlap", "cpwer_nonoverlap"))
        assert sum(parts) == overall["cpwer"][key]


def test_report_and_older_scores() -> None:
    scores = {"test": score(REF, HYP, intervals=True)}
    names = [row[0] for row in metric_tables(scores)[0]]
    assert names[3:5] == ["cpWER, overlapped", "cpWER, not overlapped"]
    assert [row[0] for row in rate_charts(scores)[0]["rows"]][2] == "cpWER, overlapped"
    for key in ("cpwer_overlap", "cpwer_nonoverlap"):
        del scores["test"]["overall"][key]
    assert "cpWER, overlapped" not in [row[0] for row in metric_tables(scores)[0]]


def sides(folder: Path) -> list[Path]:
    files = [folder / f"{side}.seglst.json" for side in ("ref", "hyp")]
    for path, words in zip(
        files, ("Um, I won't pay twenty-one dollars", "i will not pay $21"), strict=True
    ):
        formats.write([Segment("s", "A", 0, 4, words)], path)
    return files


def test_whispers_normaliser_is_used_and_named(tmp_path: Path) -> None:
    pytest.importorskip("whisper_normalizer")
    output = tmp_path / "scores.json"
    overall = score_files(*sides(tmp_path), normaliser="whisper", output=output)["overall"]
    assert overall["cpwer"]["errors"] == overall["cpwer_nonoverlap"]["errors"] == 0
    version = metadata.version("whisper-normalizer")
    written = json.loads(output.read_text(encoding="utf-8"))["overall"]["normaliser"]
    assert written == {"name": "whisper", "package": f"whisper-normalizer {version}"}
    own = score_files(*sides(tmp_path))["overall"]
    assert own["normaliser"] == {"name": "own"}
    assert own["cpwer"]["errors"] > 0
    basic = score_files(*sides(tmp_path), normaliser="basic", language="zh")["overall"]
    assert basic["normaliser"]["name"] == "basic"


@pytest.mark.parametrize(
    ("name", "language", "words"),
    [
        ("whisper", "zh", "whisper is made for English, got --language zh; choose basic"),
        ("basic", "none", "basic has no effect with --language none; leave it out"),
        ("else", "en", "must be one of own, basic, whisper, got 'else'"),
    ],
)
def test_a_normaliser_that_does_not_fit_is_refused(name: str, language: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        score(REF, HYP, normaliser=name, language=language)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whisper_normalizer", types.ModuleType("empty"))
    for name in ("basic", "english"):
        monkeypatch.delitem(sys.modules, f"whisper_normalizer.{name}", raising=False)
    normaliser_of.cache_clear()
    with pytest.raises(InputError, match="whisper needs the package whisper-normalizer"):
        normaliser_of("whisper", "en")
