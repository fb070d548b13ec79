"""Utterance groups: neighbouring segments without a long pause between them (docs/paper.md).

recording  |----A----|  |-B-|            |---A---|
                   |---C---|                 |--B--|
groups     |---------------|             |---------|
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lhotse import CutSet, Recording, RecordingSet, SupervisionSet
from lhotse.audio import AudioLoadingError
from lhotse.audio.backend import info
from lhotse.cut import Cut, MultiCut
from lhotse.supervision import SupervisionSegment
from lhotse.utils import add_durations
from tqdm import tqdm

from tagspeech.corpus.manifests import read_manifest, write_cuts
from tagspeech.corpus.recordings import run_commands
from tagspeech.corpus.rejections import OUTSIDE, PAST_END, ROUNDING, Rejection, write_rejected
from tagspeech.errors import InputError
from tagspeech.files import check_id, read_journal
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
    allow_commands: bool = False,
) -> None:
    """Writes `output/SPLIT.jsonl.gz` with one Lhotse cut per group and normalized text.

    A group has the channels that its supervisions name. Supervisions that cannot be used are
    rejected one by one. A recording whose audio is shorter than in its manifest is cut.

    Args:
        manifests: Folder of `SPLIT_{recordings,supervisions}.jsonl.gz`.
        output: Folder for the groups.
        rejected: File for rejected supervisions and their reasons; see `corpus.rejections`.
        splits: Names of the splits.
        max_pause: Maximum pause within a group in seconds.
        language: Language of the text normalization.
        left_out: Rows for `rejected` about what the manifests lack.
        max_rejected: Maximum share of the seconds of speech that may be rejected.
        allow_commands: Whether to run the commands that recordings come from; each runs once, and
            its output is kept in `output/audio`.

    Raises:
        InputError: A manifest or audio file is missing or unreadable, more than `max_rejected` is
            rejected, a recording id is not a file name, or a split has no usable supervision.
    """
    if left_out and not left_out.exists():
        raise InputError(f"{left_out}: does not exist; run the stage that makes it")
    rows: list[Rejection] = read_journal(left_out) if left_out else []
    usable: dict[str, tuple[RecordingSet, list[SupervisionSegment]]] = {}
    for split in splits:
        recordings, supervisions = _read_split(manifests, split, allow_commands)
        if allow_commands:
            recordings = run_commands(recordings, output / "audio")
        usable[split] = (recordings, [])
        for item in _usable(split, recordings, supervisions, language):
            if isinstance(item, SupervisionSegment):
                usable[split][1].append(item)
            else:
                rows.append(item)
    kept = sum(segment.duration for _, good in usable.values() for segment in good if segment.text)
    write_rejected(rejected, rows, kept=kept, most=max_rejected)
    for split, (recordings, good) in usable.items():
        if not good:
            raise InputError(f"{manifests}: split {split} has no usable supervision")
        cuts = CutSet.from_manifests(
            recordings=recordings, supervisions=SupervisionSet.from_segments(good)
        )
        silent = [cut.recording_id for cut in cuts if not cut.supervisions]
        if silent:
            log.warning(
                "%s: %d of %d recordings have no usable segment (the first: %s): no groups",
                *(split, len(silent), len(cuts), silent[0]),
            )
        progress = tqdm(cuts, desc=f"utterance groups of {split}", unit=" recordings")
        groups = [
            _with_word_times(cut).with_id(group_id(cut))
            for cut in map(_with_named_channels, _groups(progress, max_pause))
        ]
        write_cuts(output / f"{split}.jsonl.gz", groups)
        empty = sum(not segment.text for segment in good)
        log.info(
            "%s: %d utterance groups, %.2f hours, %d segments (%d without words)",
            *(split, len(groups), sum(cut.duration for cut in groups) / 3600, len(good), empty),
        )


def _read_split(
    manifests: Path, split: str, allow_commands: bool
) -> tuple[RecordingSet, SupervisionSet]:
    """The recordings and supervisions of a split. Raises `InputError` if they are others."""
    recordings_path, supervisions_path = (
        manifests / f"{split}_{kind}.jsonl.gz" for kind in ("recordings", "supervisions")
    )
    recordings = read_manifest(recordings_path, allow_commands=allow_commands)
    if not isinstance(recordings, RecordingSet):
        raise InputError(f"{recordings_path}: must have recordings")
    for recording in recordings:
        check_id(recording.id, str(recordings_path))
    supervisions = read_manifest(supervisions_path)
    if not isinstance(supervisions, SupervisionSet):
        raise InputError(f"{supervisions_path}: must have supervisions")
    return recordings, supervisions


def _usable(
    split: str, recordings: RecordingSet, supervisions: SupervisionSet, language: str
) -> Iterator[SupervisionSegment | Rejection]:
    """Yields each usable supervision with normalized text, and a row for each rejection."""
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
    channels = {
        recording.id: {channel for source in recording.sources for channel in source.channels}
        for recording in recordings
    }
    for supervision in supervisions:
        text = normalise(supervision.text or "", language)
        reason = _reason_against(supervision, ends, channels)
        lost = max(0.0, supervision.duration)
        if not reason:
            end = ends[supervision.recording_id]
            yield replace(supervision.trim(end), text=text)
            lost = supervision.end - end
            reason = PAST_END if lost > ROUNDING else ""
        if reason:
            seconds = round(lost, 3) if text else 0.0
            yield {"split": split, "reason": reason, "seconds": seconds, **supervision.to_dict()}


def audio_end(recording: Recording) -> float:
    """The duration in seconds of the shortest file. Raises `InputError` for unreadable files."""
    ends = [recording.duration]
    for source in recording.sources:
        if source.type == "file":
            try:
                found = info(source.source)
            except AudioLoadingError as error:
                raise InputError(f"{source.source}: cannot be read; get it again") from error
            ends.append(found.frames / found.samplerate)
    return min(ends)


def _reason_against(
    supervision: SupervisionSegment, ends: dict[str, float], channels: dict[str, set[int]]
) -> str:
    """Why a supervision cannot be used; empty if it can."""
    if supervision.recording_id not in ends:
        return "its recording is missing"
    if supervision.duration <= 0:
        return "its duration is not positive"
    if not 0 <= supervision.start < ends[supervision.recording_id]:
        return OUTSIDE
    named = supervision.channel if isinstance(supervision.channel, list) else [supervision.channel]
    there = channels[supervision.recording_id]
    if there and not there.issuperset(named):
        return "its recording has no such channel"
    if not supervision.speaker:
        return "it has no speaker"
    return ""


def _groups(cuts: Iterable[Cut], max_pause: float) -> Iterator[Cut]:
    """Yields the utterance groups of whole recordings in order of time.

    The result is that of Lhotse's `trim_to_supervision_groups`, which takes quadratic time: minutes
    for AMI instead of seconds.
    """
    for cut in cuts:
        bare = cut.drop_supervisions()
        for group in _neighbours(cut.supervisions, max_pause):
            start, end = group[0].start, max(segment.end for segment in group)
            duration = add_durations(end, -start, sampling_rate=cut.sampling_rate)
            piece = bare.truncate(offset=start, duration=duration)
            piece.supervisions = [segment.with_offset(-start) for segment in group]
            yield piece


def _neighbours(
    supervisions: Iterable[SupervisionSegment], max_pause: float
) -> Iterator[list[SupervisionSegment]]:
    """Yields supervisions sorted by start, split at pauses of more than `max_pause` seconds."""
    group: list[SupervisionSegment] = []
    end = 0.0
    for segment in sorted(supervisions, key=lambda segment: segment.start):
        if group and segment.start - end > max_pause:
            yield group
            group = []
        end = max(end, segment.end) if group else segment.end
        group.append(segment)
    if group:
        yield group


def _with_named_channels(cut: Cut) -> Cut:
    """The cut with only the channels that its supervisions name."""
    channels = {
        channel
        for segment in cut.supervisions
        for channel in (segment.channel if isinstance(segment.channel, list) else [segment.channel])
    }
    if isinstance(cut, MultiCut) and channels < set(cut.channel):
        return cut.with_channels(sorted(channels))
    return cut


def _with_word_times(cut: Cut) -> Cut:
    """The cut with word times relative to its start; Lhotse does not move them."""
    for supervision in cut.supervisions:
        for name, items in (supervision.alignment or {}).items():
            supervision.alignment[name] = [item.with_offset(-cut.start) for item in items]
    return cut


def group_id(cut: Cut) -> str:
    """The id of a group: recording, start and end in centiseconds."""
    return f"{cut.recording_id}-{round(cut.start * 100):07d}-{round(cut.end * 100):07d}"


def group_segments(cut: Cut) -> list[Segment]:
    """The reference segments of a group, relative to its start and sorted by time.

    Negative start times from rounding become 0.
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
