"""Combines several transcripts (views) of a meeting: from channels, models or shifted windows.

DOVER-Lap (Raj et al., SLT 2021) votes on who spoke when: it maps the speakers of all views to one
another and assigns each stretch of time to the speakers with the most weight, as many as the views
have on average. It does not vote on words; the words of a turn come from one view.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import spyder
from dover_lap.libs import turn as dover
from dover_lap.src.doverlap import DOVERLap

from tagspeech import formats
from tagspeech.errors import InputError
from tagspeech.scoring.diarization import Turn, diarization, turns
from tagspeech.scoring.files import read_side
from tagspeech.segments import Segment, by_time, word_times

log = logging.getLogger(__name__)

RANK_POWER = 0.1  # the weight of the view of rank r is 1 / r ** RANK_POWER, as in the paper


@dataclass
class _Voted:
    """A turn of the result, and its words (middle time, word); None until a view has given them."""

    speaker: str
    start: float
    end: float
    words: list[tuple[float, str]] | None = field(default=None)

    def overlap(self, segment: Segment) -> float:
        """Seconds of overlap with a segment."""
        return max(0.0, min(self.end, segment.end) - max(self.start, segment.start))

    def distance(self, time: float) -> float:
        """Seconds from the turn to `time`; 0 within the turn."""
        return max(self.start - time, time - self.end, 0.0)


def combine(views: Sequence[Sequence[Segment]]) -> list[Segment]:
    """Combines several views of the same sessions, whose speaker names need not agree.

    The result has a segment for each voted turn, with speakers "1", "2", ... in order of
    appearance. Views are ranked by their mean DER against the others and weighted by rank. Voting
    needs at least three views; of two, the first ranked decides.

    The words of a segment go to the voted speaker that its speaker is mapped to if that speaker
    talks for half of the segment, otherwise to the speaker who talks most; within that speaker's
    turns words are placed by their estimated times. A turn has the words of the first ranked view
    that has any for it. Words where no speaker was voted for are dropped: most views have silence
    there.

    A view without segments of a session votes for silence. Zero duration becomes a millisecond, so
    that the words find a turn.
    """
    sessions = sorted({segment.session for view in views for segment in view})
    combined = []
    for session in sessions:
        session_views = [
            [
                s if s.duration else replace(s, end=s.end + 0.001)
                for s in view
                if s.session == session
            ]
            for view in views
        ]
        combined += _combine_session(session, session_views)
    return combined


def _combine_session(session: str, views: Sequence[list[Segment]]) -> list[Segment]:
    ranked = _ranked(views)
    ranked_turns = [turns(view)[0] for view in ranked]
    voted = _vote(session, ranked_turns)
    genders: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for view, view_turns in zip(ranked, ranked_turns, strict=True):
        matches = diarization([(v.speaker, v.start, v.end) for v in voted], view_turns, 0.0).mapping
        placed: dict[int, list[tuple[float, str]]] = {}
        for segment in view:
            speaker = _speaker_of(segment, matches.get(segment.speaker), voted)
            if speaker is None:
                log.info("%s: no other view has %s; its words are dropped", session, segment)
                continue
            genders[speaker][segment.gender] += segment.duration
            _place(segment, [(n, v) for n, v in enumerate(voted) if v.speaker == speaker], placed)
        for number, words in placed.items():
            if voted[number].words is None:
                voted[number].words = words
    names: dict[str, str] = {}
    return by_time(
        [
            Segment(
                *(session, names.setdefault(turn.speaker, str(len(names) + 1))),
                *(turn.start, turn.end),
                " ".join(word for _, word in sorted(turn.words or [])),
                _main_gender(genders[turn.speaker]),
            )
            for turn in voted
        ]
    )


def _ranked(views: Sequence[list[Segment]]) -> list[list[Segment]]:
    """The views sorted by mean DER against the others; empty views last."""
    filled = [view for view in views if view]
    view_turns = [turns(view)[0] for view in filled]

    def difference(number: int) -> float:
        others = [other for n, other in enumerate(view_turns) if n != number]
        ders = [spyder.DER(other, view_turns[number]).der for other in others]
        return float(np.mean(ders)) if ders else 0

    order = sorted(range(len(filled)), key=difference)
    return [filled[number] for number in order] + [view for view in views if not view]


def _vote(session: str, views: Sequence[list[Turn]]) -> list[_Voted]:
    """The turns that ranked views vote for, sorted by start.

    Speakers are mapped by the Hungarian method, since DOVER-Lap's greedy mapping needs memory
    exponential in the number of views. It sorts the views as `_ranked` does, so weights fit.
    """
    weights = 1 / np.arange(1, len(views) + 1) ** RANK_POWER
    weights /= weights.sum()
    filled = [view for view in views if view]
    if len(filled) == 1:  # no mapping needed
        found = filled[0] if weights[0] > 0.5 else []
    else:
        combined = DOVERLap.combine_turns_list(
            [
                [dover.Turn(start, end, speaker_id=name, file_id=session) for name, start, end in v]
                for v in filled
            ],
            session,
            label_mapping="hungarian",
            weight_type="custom",
            custom_weight=weights[: len(filled)].tolist(),
        )
        found = [
            (str(turn.speaker_id), round(float(turn.onset), 3), round(float(turn.offset), 3))
            for turn in combined
        ]
    voted = [_Voted(speaker, start, end) for speaker, start, end in found if end > start]
    return sorted(voted, key=lambda turn: turn.start)


def _speaker_of(segment: Segment, match: str | None, voted: Sequence[_Voted]) -> str | None:
    """The voted speaker of a segment; None if no voted turn overlaps with it."""
    seconds: dict[str, float] = defaultdict(float)
    for turn in voted:
        if overlap := turn.overlap(segment):
            seconds[turn.speaker] += overlap
    if match is not None and seconds.get(match, 0.0) >= segment.duration / 2:
        return match
    return max(seconds, key=seconds.__getitem__, default=None)


def _place(
    segment: Segment,
    speaker_turns: Sequence[tuple[int, _Voted]],
    placed: dict[int, list[tuple[float, str]]],
) -> None:
    """Adds the words of a segment to the overlapping turns of its speaker, by turn number."""
    overlapping = [(number, turn) for number, turn in speaker_turns if turn.overlap(segment)]
    for number, _ in overlapping:
        placed.setdefault(number, [])
    for word, (start, end) in zip(segment.words.split(), word_times(segment), strict=True):
        time = (start + end) / 2
        number, _ = min(overlapping, key=lambda pair: pair[1].distance(time))
        placed[number].append((time, word))


def _main_gender(genders: dict[str, float]) -> str:
    """The known gender with the most seconds; "u" if none is known."""
    known = {gender: seconds for gender, seconds in genders.items() if gender != "u"}
    return max(sorted(known), key=known.__getitem__) if known else "u"


def combine_files(views: Sequence[Path], output: Path, session: str | None = None) -> None:
    """Combines files (`tagspeech combine`) and writes `output` in the format of its extension.

    Args:
        views: Files of segments in any format, or folders of them.
        output: The file to write.
        session: Replaces the session of all views, if they are of one meeting.

    Raises:
        InputError: There are fewer than two views, or a session is in one view only although the
            others are not empty.
    """
    if len(views) < 2:
        raise InputError("combine: must have two views or more; one view is combined already")
    read = [read_side(path, session)[0] for path in views]
    if session is not None:
        read = [[replace(segment, session=session) for segment in view] for view in read]
    known = [{segment.session for segment in view} for view in read]
    for path, names in zip(views, known, strict=True):
        for name in sorted(names):
            others = [other for other in known if other is not names and other]
            if others and all(name not in other for other in others):
                raise InputError(
                    f"{path}: session {name!r} is in no other view; name the one meeting that all "
                    "views are of with --session NAME"
                )
    formats.write(combine(read), output)
