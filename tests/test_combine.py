"""Several views of one meeting combined: better than most of them, words with their speakers."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from tagspeech import formats
from tagspeech.scoring import score
from tagspeech.scoring.combine import combine
from tagspeech.segments import Segment, by_time

SPEAKERS = ("ann", "bob", "cleo", "dan")


def meeting(rng: random.Random) -> list[Segment]:
    """Four people who take turns for some minutes, a third of the time before another has ended."""
    segments, time, speaker = [], 0.0, "ann"
    for number in range(60):
        speaker = rng.choice([one for one in SPEAKERS if one != speaker])
        start = max(0.0, time + rng.choice([-0.8, 0.2, 0.6]))
        time = start + rng.uniform(1.5, 5)
        words = " ".join(f"{speaker}{number}w{place}" for place in range(6))
        segments.append(Segment("m", speaker, round(start, 2), round(time, 2), words, "f"))
    return segments


def seen(ref: Sequence[Segment], rng: random.Random) -> list[Segment]:
    """A view with errors of its own: turns missed, given to others, moved; speakers renamed."""
    names = dict(zip(SPEAKERS, rng.sample("12345678", 4), strict=True))
    view = []
    for one in ref:
        if rng.random() < 0.1:
            continue
        speaker = rng.choice(SPEAKERS) if rng.random() < 0.15 else one.speaker
        start = max(0.0, one.start + rng.gauss(0, 0.15))
        end = max(start + 0.2, one.end + rng.gauss(0, 0.15))
        view.append(replace(one, speaker=names[speaker], start=start, end=end))
    return by_time(view)


def rates(ref: list[Segment], hyp: list[Segment]) -> tuple[float, float]:
    overall = score(ref, hyp)["overall"]
    return overall["der"]["error_rate"], overall["cpwer"]["error_rate"]


@pytest.mark.parametrize("count", [3, 5])
def test_combined_is_better_than_the_median_view(count: int) -> None:
    rng = random.Random(count)
    for _ in range(3):
        ref = meeting(rng)
        views = [seen(ref, rng) for _ in range(count)]
        single = [rates(ref, view) for view in views]
        der, cpwer = rates(ref, combine(views))
        assert der < 0.8 * median(one for one, _ in single)
        assert cpwer < median(one for _, one in single)


def test_one_view_many_times_is_that_view() -> None:
    ref = meeting(random.Random(1))
    assert rates(ref, combine([ref] * 3)) == (0, 0)
    assert {one.gender for one in combine([ref] * 3)} == {"f"}


def test_silence_is_a_vote() -> None:
    ref = meeting(random.Random(2))
    assert combine([ref, [], []]) == []
    assert rates(ref, combine([ref, [], ref])) == (0, 0)
    assert combine([[], []]) == []


def test_a_turn_that_the_best_view_missed_has_the_words_of_another() -> None:
    ref = meeting(random.Random(3))
    without, other = ref[:20] + ref[21:], [replace(one, speaker=one.speaker[::-1]) for one in ref]
    text = " ".join(one.words for one in combine([without, other, ref[:10] + ref[11:]]))
    assert sorted(text.split()) == sorted(" ".join(one.words for one in ref).split())


def combine_command(*args: object, code: int = 0) -> str:
    words = [sys.executable, "-m", "tagspeech", "combine", *map(str, args)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr


def test_files_of_several_formats(tmp_path: Path) -> None:
    ref = meeting(random.Random(4))
    paths = [tmp_path / name for name in ("a.seglst.json", "b.rttm", "c.stm")]
    for path in paths:
        formats.write(ref, path)
    combine_command("--output", tmp_path / "all.seglst.json", *paths)
    assert rates(ref, formats.read(tmp_path / "all.seglst.json")) == (0, 0)
    formats.write([replace(one, session="other") for one in ref], paths[2])
    said = combine_command("--output", tmp_path / "no.rttm", *paths, code=2)
    assert "session 'm'" not in said
    assert "c.stm: session 'other' is in no other view" in said
    combine_command("--output", tmp_path / "yes.rttm", "--session", "x", *paths)
    assert {one.session for one in formats.read(tmp_path / "yes.rttm")} == {"x"}
    assert "two views or more" in combine_command(
        "--output", tmp_path / "no.rttm", paths[0], code=2
    )
