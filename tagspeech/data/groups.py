"""Utterance groups: neighbouring segments with no long pause between them (PAPER, unit).

recording  |----A----|  |-B-|            |---A---|
                   |---C---|                 |--B--|
groups     |---------------|             |---------|
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lhotse import CutSet, Recording, SupervisionSet, load_manifest
from lhotse.audio import AudioLoadingError
from lhotse.audio.backend import info
from lhotse.cut import Cut, MultiCut
from lhotse.supervision import SupervisionSegment
from tqdm import tqdm

from tagspeech.errors import InputError
from tagspeech.files import atomic_path, write_text
from tagspeech.segments import Segment, by_time
from tagspeech.serialize import to_target
from tagspeech.text import normalise

log = logging.getLogger(__name__)


def make_groups(
    manifests: Path,
    output: Path,
    *,
    rejected: Path,
    splits: Sequence[str],
    max_pause: float,
    language: str,
) -> None:
    """Writes `output/SPLIT.jsonl.gz`, one Lhotse cut a group, text normalised.

    Reads `manifests/SPLIT_{recordings,supervisions}.jsonl.gz`. A supervision that cannot be used
    is written with its reason to `rejected`; the rest of its group stays. So is a recording whose
    files end before its manifest says; it ends there. A group has the channels that its
    supervisions name.
    Raises `InputError` when a manifest or an audio file is missing or unreadable, or a split keeps
    nothing.
    """
    bad: list[dict[str, object]] = []
    for split in splits:
        recordings = read_manifest(manifests / f"{split}_recordings.jsonl.gz")
        supervisions = read_manifest(manifests / f"{split}_supervisions.jsonl.gz")
        ends = {recording.id: _end(recording) for recording in recordings}
        bad += [
            {"split": split, "reason": reason, "id": recording.id, "duration": recording.duration}
            for recording in recordings
            if (reason := _reason_to_shorten(recording, ends[recording.id]))
        ]
        good = []
        for supervision in supervisions:
            reason = _reason_against(supervision, ends)
            if reason:
                bad.append({"split": split, "reason": reason, **supervision.to_dict()})
            else:
                end = ends[supervision.recording_id]
                text = normalise(supervision.text or "", language)
                good.append(replace(supervision.trim(end), text=text))
        if not good:
            raise InputError(f"{manifests}: split {split} has no usable supervision")
        cuts = CutSet.from_manifests(
            recordings=recordings, supervisions=SupervisionSet.from_segments(good)
        )
        groups = [
            _with_word_times(cut).with_id(group_id(cut))
            for cut in tqdm(
                map(_with_own_channels, cuts.trim_to_supervision_groups(max_pause=max_pause)),
                desc=f"utterance groups of {split}",
                unit=" groups",
            )
        ]
        write_cuts(output / f"{split}.jsonl.gz", groups)
        empty = sum(not one.text for one in good)
        log.info(
            "%s: %d utterance groups, %.2f hours, %d segments (%d without words)",
            *(split, len(groups), sum(cut.duration for cut in groups) / 3600, len(good), empty),
        )
    rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in bad]
    write_text(rejected, "".join(rows))
    for (where, why), count in Counter((row["split"], row["reason"]) for row in bad).items():
        log.warning("%s: rejected, %d times: %s; see %s", where, count, why, rejected)


def _end(recording: Recording) -> float:
    """Where the audio really ends, in seconds: that of the shortest of its files."""
    ends = [recording.duration]
    for source in recording.sources:
        if source.type == "file":
            try:
                found = info(source.source)
            except AudioLoadingError as error:
                raise InputError(f"{source.source}: cannot be read; get it again") from error
            ends.append(found.frames / found.samplerate)
    return min(ends)


def _reason_to_shorten(recording: Recording, end: float) -> str:
    """Why a recording does not last as long as its manifest says; empty when it does."""
    if recording.duration - end < 1 / recording.sampling_rate:
        return ""
    return f"its audio ends at {end:.3f} s, its manifest says {recording.duration:.3f} s"


def _reason_against(supervision: SupervisionSegment, ends: dict[str, float]) -> str:
    """Why a supervision cannot be used; empty when it can."""
    if supervision.recording_id not in ends:
        return "its recording is missing"
    if supervision.duration <= 0:
        return "its duration is not positive"
    if not 0 <= supervision.start < ends[supervision.recording_id]:
        return "it starts outside its recording"
    if not supervision.speaker:
        return "it has no speaker"
    return ""


def _with_own_channels(cut: Cut) -> Cut:
    """The cut with those channels only that its supervisions name."""
    channels = {
        channel
        for one in cut.supervisions
        for channel in (one.channel if isinstance(one.channel, list) else [one.channel])
    }
    if isinstance(cut, MultiCut) and channels < set(cut.channel):
        return cut.with_channels(sorted(channels))
    return cut


def _with_word_times(cut: Cut) -> Cut:
    """Word times relative to the group, as the supervisions' own times; Lhotse leaves them."""
    for supervision in cut.supervisions:
        for name, items in (supervision.alignment or {}).items():
            supervision.alignment[name] = [item.with_offset(-cut.start) for item in items]
    return cut


def group_id(cut: Cut) -> str:
    """The session of a group: recording, start and end in centiseconds."""
    return f"{cut.recording_id}-{round(cut.start * 100):07d}-{round(cut.end * 100):07d}"


def group_segments(cut: Cut) -> list[Segment]:
    """The reference segments of a group, times relative to it, sorted by start.

    A time of -0.001 that rounding left before the group's start becomes 0.
    """
    segments = []
    for supervision in cut.supervisions:
        gender = (supervision.gender or "u")[0].lower()
        segments.append(
            Segment(
                session=cut.id,
                speaker=supervision.speaker,
                start=max(0.0, round(supervision.start, 3)),
                end=round(supervision.end, 3),
                words=" ".join((supervision.text or "").split()),
                gender=gender if gender in "mf" else "u",
            )
        )
    return by_time(segments)


def group_targets(groups: CutSet, time_grid: float) -> list[str]:
    """The target text of each group, times rounded to `time_grid` seconds."""
    return [to_target(group_segments(cut), time_grid) for cut in groups]


def read_manifest(path: Path) -> Any:
    """A Lhotse manifest. Raises `InputError` when it is missing or unreadable."""
    if not path.exists():
        raise InputError(f"{path}: does not exist; run the stage that makes it")
    try:
        return load_manifest(path)
    except (ValueError, KeyError, EOFError, OSError) as error:
        raise InputError(f"{path}: is no Lhotse manifest: {error}") from error


def write_cuts(path: Path, cuts: Sequence[Cut]) -> None:
    """Writes cuts as `.jsonl.gz` in one step."""
    with atomic_path(path) as temporary:
        named = temporary.with_name(temporary.name + ".jsonl.gz")
        CutSet.from_cuts(cuts).to_file(named)
        named.rename(temporary)
