"""DER: agreement with md-eval-22, its collar, its regions, and what a UEM leaves to score."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_scoring import GROUPS, overall

from tagspeech import formats
from tagspeech.scoring.diarization import diarization
from tagspeech.segments import Segment


@settings(max_examples=60, deadline=None)
@given(GROUPS, GROUPS, st.sampled_from([0.0, 0.25]))
def test_regions_add_up(ref: list[Segment], hyp: list[Segment], collar: float) -> None:
    sides = [[(s.speaker, s.start, s.end) for s in side] for side in (ref, hyp)]
    whole, overlap, rest = (
        diarization(*sides, collar, region) for region in ("all", "overlap", "nonoverlap")
    )
    for part in ("scored", "missed", "false_alarm", "confusion"):
        parts = getattr(overlap, part) + getattr(rest, part)
        assert getattr(whole, part) == pytest.approx(parts, abs=1e-5), part


def test_collar_around_every_reference_boundary() -> None:
    """Turns of one speaker that touch (at 5) or overlap (4-6) keep the collars between them.

    x is not heard at 4.9-5.1, inside the collar of 5. Of 1-8 and 8-12 remain 1.25-4.75, 5.25-7.75
    and 8.25-11.75; with the turns 1-6 and 4-8 in place of 1-5 and 5-8 they are 1.25-3.75,
    4.25-5.75, 6.25-7.75 and 8.25-11.75, of which x misses 0.2 s.
    """
    hyp = [
        Segment("s", "x", 1, 4.9, ""),
        Segment("s", "x", 5.1, 8, ""),
        Segment("s", "y", 8, 12, ""),
    ]
    for inner, scored, missed in (((5, 5), 9.5, 0), ((6, 4), 9.0, 0.2)):
        ref = [
            Segment("s", "a", 1, inner[0], ""),
            Segment("s", "a", inner[1], 8, ""),
            Segment("s", "b", 8, 12, ""),
        ]
        der, collared = (overall(ref, hyp)[key] for key in ("der", "der_collar_025"))
        assert (der["scored"], der["missed"]) == (11, 0.2)
        assert (collared["scored"], collared["missed"]) == (scored, missed)
        assert collared["false_alarm"] == collared["confusion"] == 0


def test_collar_of_real_meetings(shared: Path) -> None:
    """Figures of md-eval-22.pl -c 0.25, and of the same without a collar."""
    folder = shared / "cases/collar_ami"
    metrics = overall(*(formats.read(folder / f"{side}.rttm") for side in ("ref", "hyp")))
    assert round(metrics["der_collar_025"]["scored"], 1) == 670.6
    assert round(100 * metrics["der_collar_025"]["error_rate"], 2) == 6.27
    assert metrics["der"]["error_rate"] == pytest.approx(0.14752312742464938)
    folder = shared / "cases/collar_touch"
    metrics = overall(*(formats.read(folder / f"{side}.rttm") for side in ("ref", "hyp")))
    assert metrics["der_collar_025"]["error_rate"] == 0


MD_EVAL = Path(os.environ.get("MD_EVAL", "/usr/lib/sctk/bin/md-eval.pl"))  # as Debian's sctk has it
needs_md_eval = pytest.mark.skipif(
    not MD_EVAL.exists(), reason="md-eval.pl is not on this machine (MD_EVAL)"
)
Stretch = tuple[float, float]


def md_eval(
    ref: list[Segment], hyp: list[Segment], collar: float, uem: list[Stretch] | None
) -> dict[str, float] | None:
    """Seconds by md-eval; None where nothing is scored, since it divides by zero there."""
    with TemporaryDirectory() as folder:
        for name, side in (("ref", ref), ("hyp", hyp)):
            formats.write(side, Path(folder) / f"{name}.rttm")
        options = ["-c", str(collar), "-r", "ref.rttm", "-s", "hyp.rttm"]
        if uem is not None:
            lines = (f"s 1 {start} {end}\n" for start, end in uem)
            Path(folder, "uem").write_text("".join(lines))
            options += ["-u", "uem"]
        call = ["perl", str(MD_EVAL), *options]
        output = subprocess.run(call, cwd=folder, capture_output=True, text=True).stdout
    titles = {
        "scored": "SCORED SPEAKER",
        "missed": "MISSED SPEAKER",
        "false_alarm": "FALARM SPEAKER",
        "confusion": "SPEAKER ERROR",
    }
    found = {
        key: re.search(rf"{title} TIME = +([0-9.]+) secs", output) for key, title in titles.items()
    }
    if found["scored"] is None or not float(found["scored"][1]):
        return None
    assert None not in found.values(), output
    return {key: float(match[1]) for key, match in found.items() if match}


@needs_md_eval
@settings(max_examples=100, deadline=None)
@given(
    GROUPS.filter(bool),
    GROUPS.filter(bool),
    st.sampled_from([0.0, 0.25]),
    st.sampled_from(["speech", "reference", [(2.0, 9.0)], [(0.0, 3.5), (3.5, 5.0), (7.1, 30.0)]]),
)
def test_der_agrees_with_md_eval(
    ref: list[Segment], hyp: list[Segment], collar: float, uem: str | list[Stretch]
) -> None:
    """Of turns as they are in the files, where speakers overlap and touch themselves."""
    turns_of = [[(s.speaker, s.start, s.end) for s in side] for side in (ref, hyp)]
    if uem == "speech":  # ours by default; md-eval has to be told
        times = [time for s in (*ref, *hyp) for time in (s.start, s.end)]
        ours, told = diarization(*turns_of, collar), [(min(times), max(times))]
    elif uem == "reference":  # md-eval's default; ours has to be told
        extent = (min(s.start for s in ref), max(s.end for s in ref))
        ours, told = diarization(*turns_of, collar, uem=[extent]), None
    else:
        ours, told = diarization(*turns_of, collar, uem=uem), uem
    theirs = md_eval(ref, hyp, collar, told)
    assume(theirs)
    for key, seconds in theirs.items():
        assert getattr(ours, key) == pytest.approx(seconds, abs=0.006), key
