"""Results for people: results.json and the tables on the terminal, from the files of scores."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_score_files import groups_file
from test_scoring import REF

from tagspeech import formats
from tagspeech.report.examples import render_examples
from tagspeech.report.report import report
from tagspeech.report.table import render_table, results
from tagspeech.scoring import score, score_files
from tagspeech.segments import Segment
from tagspeech.text import LANGUAGES


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Files of a reference, and of a hypothesis that lacks its end."""
    ref, hyp = tmp_path / "ref.seglst.json", tmp_path / "hyp.seglst.json"
    formats.write(REF, ref)
    formats.write(REF[:3], hyp)
    return ref, hyp


def test_files_to_scores_to_report(
    tmp_path: Path, sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, hyp = sides
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
        *("sessions", "malformed_rate", "wer", "cpwer", "tcpwer", "orcwer", "tcorcwer"),
        *("der", "der_overlap", "der_nonoverlap", "der_collar_025"),
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
    assert re.search(r"^malformed +33\.3 +0\.0-100\.0 ", printed, re.M)


def test_what_nobody_knows_is_not_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref, scores = tmp_path / "ref.seglst.json", tmp_path / "scores.json"
    formats.write(REF, ref)
    score_files(ref, ref, output=scores)
    assert "malformed" not in capsys.readouterr().out
    content = report(scores, ref, ref, "mini", "abc", {}, tmp_path / "results.json")
    assert "malformed_rate" not in content["test"]
    printed = capsys.readouterr().out
    assert "malformed" not in printed
    assert re.search(r"^empty +0\.0 +0\.0-0\.0 ", printed, re.M)


def test_report_of_speakers_by_voice_stands_beside(
    tmp_path: Path, sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, hyp = sides
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


def test_tables_of_the_protocol_stand_beside_those_of_all(
    tmp_path: Path, sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, hyp = sides
    scores_path, output = tmp_path / "scores.json", tmp_path / "results.json"
    groups = groups_file(tmp_path / "test.jsonl.gz", s1=80.0, s2=80.01, s3=0.49, s4=0.5)
    score_files(ref, hyp, groups=groups, protocol="paper", output=scores_path)
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


def test_the_table_as_the_authors_score_stands_beside_ours() -> None:
    scores = {"test": score(REF, REF[:3], malformed=["s2"], protocol="as-authors")}
    content = results(scores, "ami", "abc", {})
    assert (content["test"]["sessions"], content["test_protocol"]["sessions"]) == (2, 1)
    titles = re.findall("^speakers by .*?(?=  )", render_table(content, scores), re.M)
    assert titles == ["speakers by LLM, all groups", "speakers by LLM, as the authors score"]


def test_the_papers_protocol_has_a_third_table_as_the_authors_score() -> None:
    """Where outputs are known to be malformed or not, without a UEM; ours come first."""
    scores = {"test": score(REF, REF[:3], malformed=["s2"], protocol="paper")}
    content = results(scores, "ami", "abc", {})
    assert (content["test"]["sessions"], content["test_as_authors"]["sessions"]) == (2, 1)
    titles = re.findall("^speakers by .*?(?=  )", render_table(content, scores), re.M)
    assert titles == ["speakers by LLM", "speakers by LLM, as the authors score"]
    assert "as_authors" not in score(REF, REF[:3], protocol="paper")
    assert "as_authors" not in score(REF, REF[:3], malformed=["s1", "s2"], protocol="paper")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_table_names_the_normaliser_of_every_language(language: str) -> None:
    scores = {"test": score(REF, REF, language=language)}
    head = render_table(results(scores, "mini", "abc", {}), scores).splitlines()[0]
    assert head.endswith("words" if language == "en" else "characters")


def test_examples_are_best_median_worst() -> None:
    ref = [Segment(f"s{n}", "A", 0, 5, "a b c d") for n in range(5)]
    hyp = [replace(s, words="a b c d"[: 2 * n].strip()) for n, s in enumerate(ref) if n]
    text = render_examples(ref, hyp, score(ref, hyp)["sessions"])
    heads = [line for line in text.splitlines() if "cpWER" in line]
    assert heads == ["s4: cpWER 0.0 %", "s2: cpWER 50.0 %", "s0: cpWER 100.0 %"]
