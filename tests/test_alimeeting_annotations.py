"""Stages 0 to 2 of the recipe alimeeting on real annotations, over silent audio, and their scoring.

Test and dev are AliMeeting's own: the speaker times of 28 sessions, and the text of one. Train is
AISHELL-4's, whose text is Mandarin of meetings too. All are written in AliMeeting's layout.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from test_ami_annotations import write_silence
from test_recipes import drive

from tagspeech.corpus.groups import group_segments
from tagspeech.data.batches import read_groups
from tagspeech.formats import write
from tagspeech.formats.textgrid import Interval, render_tiers
from tagspeech.scoring.files import score_files

WITH_TEXT = "R8008_M8014"
AISHELL = ("L_R004S06C01", "M_R003S02C01", "S_R003S03C01")  # the last has segments without text
MARKS = ("<sil>", "<%>", "<->", "<$>", "<#>")

Tiers = dict[str, list[Interval]]  # by speaker, as the tier of a TextGrid is named
Spans = list[tuple[float, float]]


def milliseconds(seconds: str) -> int:
    return round(float(seconds) * 1000)


def alimeeting(rttm: Path, text: Path) -> dict[str, Tiers]:
    """The sessions of an RTTM file. Times have no words but in one: elsewhere somebody coughs."""
    words = [line.partition(" ")[2] for line in text.read_text(encoding="utf-8").splitlines()]
    sessions: dict[str, Tiers] = defaultdict(lambda: defaultdict(list))
    for line in rttm.read_text().splitlines():
        _, session, _, start, length, _, _, speaker, *_ = line.split()
        session = session.rpartition("_")[0]  # without the number of the array
        label = "<%>"
        if session == WITH_TEXT:
            number = sum(map(len, sessions[session].values()))
            label = words[number][:2] + MARKS[number % len(MARKS)] + words[number][2:]
        begin = milliseconds(start)
        interval = (begin, begin + milliseconds(length), label)
        sessions[session][f"F_SPK{int(speaker):04d}"].append(interval)
    return sessions


def aishell(path: Path) -> Tiers:
    """A session of an STM file, with silence labelled between its first segments."""
    tiers: Tiers = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        _, _, speaker, start, end, *words = line.split()
        number, gender = speaker.split("-")
        interval = (milliseconds(start), milliseconds(end), "".join(words) or " ")
        tiers[f"{gender}_SPK0{number}"].append(interval)
    for tier in tiers.values():
        (_, end, _), (start, _, _) = tier[:2]
        if start > end:
            tier.insert(1, (end, start, "<sil>"))
    return tiers


def write_session(folder: Path, session: str, tiers: Tiers) -> None:
    """The TextGrid of a session, and silence until a second after its last segment."""
    grid = folder / "textgrid_dir" / f"{session}.TextGrid"
    grid.parent.mkdir(parents=True, exist_ok=True)
    grid.write_text(render_tiers({f"{session}_{n}": tier for n, tier in tiers.items()}))
    last = max(end for tier in tiers.values() for _, end, _ in tier)
    write_silence(folder / f"audio_dir/{session}_MS001.wav", last / 1000 + 1, channels=1)


def spoken(tiers: Tiers) -> Spans:
    """The utterance groups of a session: what touches or overlaps is one."""
    intervals = sorted(
        (start / 1000, end / 1000)
        for tier in tiers.values()
        for start, end, label in tier
        if label != "<sil>"
    )
    groups: Spans = []
    for start, end in intervals:
        if groups and start <= groups[-1][1]:
            groups[-1] = (groups[-1][0], max(groups[-1][1], end))
        else:
            groups.append((start, end))
    return groups


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Tiers]]:
    """The sessions of each split."""
    real, mandarin = shared / "data/alimeeting_annotations", shared / "data/aishell4_eval_stm"
    for folder in (real, mandarin):
        if not folder.is_dir():
            pytest.skip(f"{folder} is absent: no real annotations of AliMeeting")
    text = real / f"{WITH_TEXT}.text"
    return {
        "train": {name: aishell(mandarin / f"{name}.stm") for name in AISHELL},
        "dev": alimeeting(real / "eval8.rttm", text),
        "test": alimeeting(real / "test20.rttm", text),
    }


def test_real_mandarin_goes_through_stages_0_to_2_and_is_scored_by_character(
    root: Path, tmp_path: Path, corpus: dict[str, dict[str, Tiers]], shared: Path
) -> None:
    parts = {"train": "Train_Ali_far", "dev": "Eval_Ali/Eval_Ali_far"}
    for split, sessions in corpus.items():
        for session, tiers in sessions.items():
            folder = tmp_path / "corpus" / parts.get(split, "Test_Ali/Test_Ali_far")
            write_session(folder, session, tiers)
    drive(root, "alimeeting", tmp_path, "--corpus-dir", tmp_path / "corpus")
    groups = {
        split: list(read_groups(tmp_path / f"data/groups/{split}.jsonl.gz")) for split in corpus
    }
    for split, sessions in corpus.items():
        expected = {
            (session, round(start, 2), round(end, 2))
            for session, tiers in sessions.items()
            for start, end in spoken(tiers)
        }
        found = {
            (cut.recording_id, round(cut.start, 2), round(cut.end, 2)) for cut in groups[split]
        }
        assert found == expected, split
    silences = sum(
        label == "<sil>" for ts in corpus["train"].values() for t in ts.values() for *_, label in t
    )
    rejected = (tmp_path / "data/rejected.jsonl").read_text().splitlines()
    assert silences
    assert {json.loads(row)["reason"] for row in rejected} == {"it has no words"}
    # Scores count the characters of the text as it is published, and nothing of a mark.
    ref = [
        segment
        for cut in groups["test"]
        if cut.recording_id == WITH_TEXT
        for segment in group_segments(cut)
    ]
    lines = (shared / f"data/alimeeting_annotations/{WITH_TEXT}.text").read_text().splitlines()
    published = ["".join(line.split()[1:]) for line in lines]
    assert sorted(s.words.replace(" ", "") for s in ref) == sorted(published)
    write(ref, tmp_path / "ref.seglst.json", "seglst")
    write([replace(s, words=s.words[1:]) for s in ref], tmp_path / "hyp.seglst.json", "seglst")
    score_files(
        *(tmp_path / "ref.seglst.json", tmp_path / "hyp.seglst.json"),
        language="zh",
        output=tmp_path / "scores.json",
    )
    overall = json.loads((tmp_path / "scores.json").read_text())["overall"]
    characters = sum(map(len, published))
    for rate in ("wer", "cpwer"):
        assert (overall[rate]["length"], overall[rate]["errors"]) == (characters, len(published))
    assert overall["der"]["error_rate"] == 0
