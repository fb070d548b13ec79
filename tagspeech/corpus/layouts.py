"""Reads a corpus to import: a folder of audio, and files that say who spoke what and when.

Audio is WAV or FLAC; words are STM, CTM, SegLST, TextGrid or JSON lists; speakers are those of the
words or of an RTTM. Audio files are not opened here. `tagspeech.corpus.kaldi` reads Kaldi's layout.
"""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lhotse.supervision import AlignmentItem, SupervisionSegment

from tagspeech.corpus import channels
from tagspeech.corpus.files import WORDS, find_audio, find_files
from tagspeech.errors import InputError
from tagspeech.files import check_id, read_text
from tagspeech.formats import nist, read, split_name
from tagspeech.segments import Segment, by_start, composed
from tagspeech.serialize import UNKNOWN_SPEAKER

log = logging.getLogger(__name__)

LHOTSE_GENDERS = {"m": "M", "f": "F", "u": None}
ROUNDING = 0.01  # seconds by which times of words and of turns differ: STM has two decimals
LEAST_OVERLAP = 1e-6  # seconds; a turn without overlap is not chosen for one with little
MIX, EACH = "mix", "each"  # of several channels: their mean; each as a separate recording
_NIST = {"stm": nist.parse_stm, "ctm": nist.parse_ctm, "rttm": nist.parse_rttm}


@dataclass(frozen=True)
class RecordingSource:
    """The audio of a recording.

    Attributes:
        source: A file, or a shell command that prints one if `is_command`, as in Kaldi.
        channel: The channel to use, from 0; "mix" for the mean of all; None for the mean of two
            channels, or the first of more, which are an array.
        is_command: Whether `source` is a command.
        mono_is_it: Whether a file with one channel contains only this channel.
        folder: Folder of the file, for a corpus split by folders.
    """

    source: str
    channel: int | str | None = None
    is_command: bool = False
    mono_is_it: bool = False
    folder: str = ""


@dataclass
class Corpus:
    """Recordings by name, their supervisions, and rejected supervisions with reasons."""

    audio: dict[str, RecordingSource]
    supervisions: list[SupervisionSegment]
    rejected: list[tuple[str, SupervisionSegment]] = field(default_factory=list)


def read_files(
    audio: Path, words: Path, speakers: Path | None, channel: int | str | None = None
) -> Corpus:
    """Reads recordings, words and speakers.

    With `speakers`, each word of a CTM belongs to the turn that it overlaps most, and the turns are
    the segments. A segment of another format keeps its times and takes the speaker of that turn.
    Words and segments that overlap no turn are rejected.

    Args:
        audio: Folder; the recording NAME is NAME.wav or NAME.flac in it or below.
        words: A file in one of the formats `WORDS` or a JSON list, or a folder with files of one
            format. If the format has no sessions, the file name is that of the recording.
        speakers: RTTM file or folder; by default the speakers are those of `words`.
        channel: As in `RecordingSource`; with "each", sessions are those of `corpus.channels`.

    Raises:
        InputError: Files are missing, unreadable or of an unknown format.
    """
    recordings = _find_audio(audio, channel)
    each = channel == EACH
    format, segments = read_words(words, each)
    if speakers is None:
        if format == "ctm":
            raise InputError(f"{words}: CTM has no speakers; give an RTTM with --speakers")
        return Corpus(recordings, supervisions_of([(segment, []) for segment in segments]))
    turns = [turn for path in find_files(speakers, ("rttm",)) for turn in _read(path, "rttm", each)]
    assigned: list[list[Segment]] = [[] for _ in turns]
    lost: list[tuple[Segment, list[Segment]]] = []
    for segment, turn_index in zip(segments, _best_turns(segments, turns), strict=True):
        if turn_index is None:
            lost.append((segment, []))
        else:
            assigned[turn_index].append(segment)
    if format == "ctm":
        found = [
            (replace(turn, words=" ".join(word.words for word in words_of_turn)), words_of_turn)
            for turn, words_of_turn in zip(turns, map(by_start, assigned), strict=True)
        ]
    else:
        found = [
            (replace(segment, speaker=turn.speaker), [])
            for turn, segments_of_turn in zip(turns, assigned, strict=True)
            for segment in segments_of_turn
        ]
        if empty := [turn for turn, group in zip(turns, assigned, strict=True) if not group]:
            log.warning(
                "%s: %d of %d turns have no words and are left out (the first: %s, %g-%g s)",
                *(speakers, len(empty), len(turns)),
                *(empty[0].session, empty[0].start, empty[0].end),
            )
    reason = f"{speakers} has no turn at its time"
    rejected = [(reason, item) for item in supervisions_of(lost, "rejected-")]
    return Corpus(recordings, supervisions_of(found), rejected)


def read_words(path: Path, each: bool = False) -> tuple[str, list[Segment]]:
    """The format of a file or of the files in a folder, and their segments.

    With `each`, sessions are those of channels (`tagspeech.corpus.channels`).
    """
    paths = find_files(path, WORDS)
    formats = Counter(split_name(file)[1] or "" for file in paths)
    if len(formats) > 1:
        raise InputError(
            f"{path}: has {' and '.join(f'{n} files of {name}' for name, n in formats.items())}; "
            "give a folder with one format, or one file"
        )
    (format,) = formats
    return format, [segment for file in paths for segment in _read(file, format, each)]


def _read(path: Path, format: str, each: bool) -> list[Segment]:
    if each and format in channels.FIELDS:
        text = channels.name_sides(read_text(path), format)
        return by_start(_NIST[format](text, str(path), ""))
    return read(path)


def supervisions_of(
    segments: Iterable[tuple[Segment, Sequence[Segment]]], prefix: str = ""
) -> list[SupervisionSegment]:
    """Segments and their words with times as Lhotse supervisions, named by recording and number."""
    counts: Counter[str] = Counter()
    found = []
    for segment, words in sorted(segments, key=lambda item: (item[0].session, item[0].start)):
        items = [AlignmentItem(w.words, w.start, round(w.duration, 7)) for w in words]
        found.append(
            SupervisionSegment(
                id=f"{prefix}{segment.session}-{counts[segment.session]:05d}",
                recording_id=segment.session,
                start=segment.start,
                duration=round(segment.duration, 7),
                text=segment.words,
                speaker="" if segment.speaker == UNKNOWN_SPEAKER else segment.speaker,
                gender=LHOTSE_GENDERS[segment.gender],
                alignment={"word": items} if items else None,
            )
        )
        counts[segment.session] += 1
    return found


def _best_turns(segments: Sequence[Segment], turns: Sequence[Segment]) -> list[int | None]:
    """For each segment, the index of the turn of its session that it overlaps most.

    Of equally overlapped turns, up to `ROUNDING`, the last to start is chosen, such as a short turn
    within a longer one. A segment of zero duration belongs to a turn at its time.
    """
    by_session: defaultdict[str, list[int]] = defaultdict(list)
    for number in sorted(range(len(turns)), key=lambda number: turns[number].start):
        if turns[number].duration:
            by_session[turns[number].session].append(number)
    starts = {name: [turns[n].start for n in ids] for name, ids in by_session.items()}
    longest = {name: max(turns[n].duration for n in ids) for name, ids in by_session.items()}
    chosen: list[int | None] = []
    ambiguous = 0
    for segment in segments:
        near: list[int] = []
        if ids := by_session.get(segment.session):
            first = bisect_left(starts[segment.session], segment.start - longest[segment.session])
            near = ids[first : bisect_right(starts[segment.session], segment.end)]
        overlaps = [
            round(min(segment.end, turns[n].end) - max(segment.start, turns[n].start), 6)
            for n in near
        ]
        most = max(overlaps, default=0.0)
        has_turn = most > 0 or (most == 0 and segment.start == segment.end)
        best = [
            n
            for n, overlap in zip(near, overlaps, strict=True)
            if has_turn and overlap >= max(most - ROUNDING, min(most, LEAST_OVERLAP))
        ]
        chosen.append(best[-1] if best else None)
        ambiguous += len({turns[n].speaker for n in best}) > 1
    if ambiguous:
        log.warning(
            "%d of %d words or segments are in turns of several speakers; each is assigned to the "
            "turn that starts last",
            *(ambiguous, len(segments)),
        )
    return chosen


def _find_audio(folder: Path, channel: int | str | None) -> dict[str, RecordingSource]:
    """The audio files in `folder` and below, by name."""
    found: dict[str, RecordingSource] = {}
    for path in find_audio(folder):
        name = composed(path.stem)
        check_id(name, str(path))
        if name in found:
            raise InputError(f"{found[name].source} and {path} are both named {name}; rename one")
        inner = path.relative_to(folder).parts
        found[name] = RecordingSource(str(path), channel, folder=inner[0] if inner[1:] else "")
    return found


def refuse(what: str, names: Sequence[str], remedy: str) -> None:
    """Raises `InputError` with the number of `names` and the first, if there are any."""
    if names:
        raise InputError(f"{len(names)} {what} (the first: {names[0]}); {remedy}")
