"""Utterance groups: neighbouring segments with no long pause between them (docs/paper.md).

recording  |----A----|  |-B-|            |---A---|
                   |---C---|                 |--B--|
groups     |---------------|             |---------|
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lhotse import CutSet, Recording, RecordingSet, SupervisionSet, load_manifest
from lhotse.audio import AudioLoadingError
from lhotse.audio.backend import info
from lhotse.cut import Cut, MultiCut
from lhotse.supervision import SupervisionSegment
from tqdm import tqdm

from tagspeech.data.rejected import GOES_ON, OUTSIDE, ROUNDING, Row, write_rejected
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, read_journal
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
    left_out: Path | None = None,
    max_rejected: float = 0.1,
) -> None:
    """Writes `output/SPLIT.jsonl.gz`, one Lhotse cut a group, text normalised.

    Reads `manifests/SPLIT_{recordings,supervisions}.jsonl.gz`. A supervision that cannot be used
    is written with its reason to `rejected` (`tagspeech.data.rejected`); the rest of its group
    stays. So is a recording whose files end before its manifest says; it ends there. A group has
    the channels that its supervisions name.

    left_out      rows of what the manifests lack already, for the same list
    max_rejected  the largest share of the seconds of speech that may be listed

    Raises `InputError` when a manifest or an audio file is missing or unreadable, more than
    `max_rejected` is rejected, or a split keeps nothing.
    """
    if left_out and not left_out.exists():
        raise InputError(f"{left_out}: does not exist; run the stage that makes it")
    rows: list[Row] = read_journal(left_out) if left_out else []
    usable: dict[str, tuple[RecordingSet, list[SupervisionSegment]]] = {}
    for split in splits:
        recordings = read_manifest(manifests / f"{split}_recordings.jsonl.gz")
        usable[split] = (recordings, [])
        supervisions = read_manifest(manifests / f"{split}_supervisions.jsonl.gz")
        for one in _usable(split, recordings, supervisions, language):
            if isinstance(one, SupervisionSegment):
                usable[split][1].append(one)
            else:
                rows.append(one)
    kept = sum(one.duration for _, good in usable.values() for one in good if one.text)
    write_rejected(rejected, rows, kept=kept, most=max_rejected)
    for split, (recordings, good) in usable.items():
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


def _usable(
    split: str, recordings: RecordingSet, supervisions: SupervisionSet, language: str
) -> Iterator[SupervisionSegment | Row]:
    """Each supervision that can be used, text normalised; a row for what cannot."""
    ends = {recording.id: audio_end(recording) for recording in recordings}
    for recording in recordings:
        if recording.duration - ends[recording.id] >= 1 / recording.sampling_rate:
            yield {
                "split": split,
                "reason": "its audio ends before its manifest says",
                "seconds": 0.0,
                "id": recording.id,
                "duration": recording.duration,
                "ends": ends[recording.id],
            }
    for supervision in supervisions:
        text = normalise(supervision.text or "", language)
        reason = _reason_against(supervision, ends)
        lost = max(0.0, supervision.duration)
        if not reason:
            end = ends[supervision.recording_id]
            yield replace(supervision.trim(end), text=text)
            lost = supervision.end - end
            reason = GOES_ON if lost > ROUNDING else ""
        if reason:
            seconds = round(lost, 3) if text else 0.0
            yield {"split": split, "reason": reason, "seconds": seconds, **supervision.to_dict()}


def audio_end(recording: Recording) -> float:
    """Where the audio really ends, in seconds: that of the shortest of its files.

    Raises `InputError` where a file cannot be read.
    """
    ends = [recording.duration]
    for source in recording.sources:
        if source.type == "file":
            try:
                found = info(source.source)
            except AudioLoadingError as error:
                raise InputError(f"{source.source}: cannot be read; get it again") from error
            ends.append(found.frames / found.samplerate)
    return min(ends)


def _reason_against(supervision: SupervisionSegment, ends: dict[str, float]) -> str:
    """Why a supervision cannot be used; empty when it can."""
    if supervision.recording_id not in ends:
        return "its recording is missing"
    if supervision.duration <= 0:
        return "its duration is not positive"
    if not 0 <= supervision.start < ends[supervision.recording_id]:
        return OUTSIDE
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
