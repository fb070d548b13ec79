"""Several views of one meeting combined into one: channels of an array, models, shifted windows.

Who spoke when is voted on by DOVER-Lap (Raj et al., SLT 2021): speakers of all views are mapped to
one another, then each stretch of time goes to the speakers with most weight, as many as the views
hear on average. Words are not voted on: a turn has those of one view.
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

RANK_POWER = 0.1  # the view of rank r weighs 1 / r ** RANK_POWER, as in the paper


@dataclass
class _Voted:
    """A turn that was voted for, and the words that one view puts into it (None: no view yet)."""

    speaker: str
    start: float
    end: float
    words: list[tuple[float, str]] | None = field(default=None)

    def shares(self, segment: Segment) -> float:
        """Seconds in common with a segment; 0 where they only touch."""
        return max(0.0, min(self.end, segment.end) - max(self.start, segment.start))

    def distance(self, time: float) -> float:
        return max(self.start - time, time - self.end, 0.0)


def combine(views: Sequence[Sequence[Segment]]) -> list[Segment]:
    """One list of segments from several of the same sessions; each view names speakers as it likes.

    A segment of the result is a turn that the views voted for, by speaker "1", "2", ... in order of
    appearance. The views are ranked by how little they differ from the others (mean DER against
    each), and weigh by rank. Of two views the better ranked one decides; voting wants three.

    Words of a segment go to the voted speaker that its own speaker is matched with, where he has
    half of the time, otherwise to who has most of it; there to turns by their times, spread over
    the segment by characters. A turn has the words of the best ranked view that hears its speaker
    then. Words at a time for which nobody was voted are lost: most views hear no speech there.

    A view without segments of a session votes for silence. A segment of zero duration lasts a
    millisecond here, so that its words find the turn at its time.
    """
    sessions = sorted({segment.session for view in views for segment in view})
    return [
        segment
        for session in sessions
        for segment in _combine_session(
            session, [[_lasting(one) for one in view if one.session == session] for view in views]
        )
    ]


def _lasting(segment: Segment) -> Segment:
    return segment if segment.duration else replace(segment, end=segment.end + 0.001)


def _combine_session(session: str, views: Sequence[list[Segment]]) -> list[Segment]:
    ranked = _ranked(views)
    told = [turns(view)[0] for view in ranked]
    voted = _vote(session, told)
    genders: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for view, view_turns in zip(ranked, told, strict=True):
        matches = diarization([(v.speaker, v.start, v.end) for v in voted], view_turns, 0.0).mapping
        given: dict[int, list[tuple[float, str]]] = {}
        for segment in view:
            speaker = _speaker_of(segment, matches.get(segment.speaker), voted)
            if speaker is None:
                log.info("%s: nobody else hears %s", session, segment)
                continue
            genders[speaker][segment.gender] += segment.duration
            _give(segment, [(n, v) for n, v in enumerate(voted) if v.speaker == speaker], given)
        for number, words in given.items():
            if voted[number].words is None:
                voted[number].words = words
    names: dict[str, str] = {}
    return by_time(
        [
            Segment(
                *(session, names.setdefault(one.speaker, str(len(names) + 1))),
                *(one.start, one.end),
                " ".join(word for _, word in sorted(one.words or [])),
                _most(genders[one.speaker]),
            )
            for one in voted
        ]
    )


def _ranked(views: Sequence[list[Segment]]) -> list[list[Segment]]:
    """Those first that differ least from the others, empty ones last."""
    heard = [(turns(view)[0], view) for view in views if view]

    def difference(one: tuple[list[Turn], list[Segment]]) -> float:
        others = [turns_ for turns_, view in heard if view is not one[1]]
        return float(np.mean([spyder.DER(other, one[0]).der for other in others])) if others else 0

    return [view for _, view in sorted(heard, key=difference)] + [v for v in views if not v]


def _vote(session: str, views: Sequence[list[Turn]]) -> list[_Voted]:
    """The turns that ranked views vote for, sorted by start.

    The Hungarian mapping is taken, view by view: the tensor of the other one has a cell for each
    choice of one speaker from every view. It ranks as `_ranked` does: weights stay in order.
    """
    weights = 1 / np.arange(1, len(views) + 1) ** RANK_POWER
    weights /= weights.sum()
    heard = [view for view in views if view]
    if len(heard) == 1:  # there is nobody to be mapped to
        found = heard[0] if weights[0] > 0.5 else []
    else:
        found = [
            (str(turn.speaker_id), round(float(turn.onset), 3), round(float(turn.offset), 3))
            for turn in DOVERLap.combine_turns_list(
                [
                    [
                        dover.Turn(start, end, speaker_id=name, file_id=session)
                        for name, start, end in v
                    ]
                    for v in heard
                ],
                session,
                label_mapping="hungarian",
                weight_type="custom",
                custom_weight=weights[: len(heard)].tolist(),
            )
        ]
    return sorted((_Voted(*one) for one in found if one[2] > one[1]), key=lambda one: one.start)


def _speaker_of(segment: Segment, match: str | None, voted: Sequence[_Voted]) -> str | None:
    """Who of the voted speakers says a segment; None where nobody talks at its time."""
    shared: dict[str, float] = defaultdict(float)
    for one in voted:
        if seconds := one.shares(segment):
            shared[one.speaker] += seconds
    if match is not None and shared.get(match, 0.0) >= segment.duration / 2:
        return match
    return max(shared, key=shared.__getitem__, default=None)


def _give(
    segment: Segment,
    own: Sequence[tuple[int, _Voted]],
    given: dict[int, list[tuple[float, str]]],
) -> None:
    """Adds the segment's words, with the middle of their times, to turns of its speaker."""
    reached = [(number, one) for number, one in own if one.shares(segment)]
    for number, _ in reached:
        given.setdefault(number, [])
    for word, (start, end) in zip(segment.words.split(), word_times(segment), strict=True):
        time = (start + end) / 2
        number, _ = min(reached, key=lambda pair: pair[1].distance(time))
        given[number].append((time, word))


def _most(genders: dict[str, float]) -> str:
    """The gender of most seconds, unknown only where nothing else was told."""
    known = {gender: seconds for gender, seconds in genders.items() if gender != "u"}
    return max(sorted(known), key=known.__getitem__) if known else "u"


def combine_files(views: Sequence[Path], output: Path, session: str | None = None) -> None:
    """Behind `tagspeech combine`: writes `output` in the format of its extension.

    views    files of segments in any format, or folders of them
    session  the name of the one meeting that all views are of, whatever they call it

    Raises `InputError` for less than two views, and for a session that one view alone knows while
    the others know only different ones.
    """
    if len(views) < 2:
        raise InputError("combine: wants two views or more; one view is combined already")
    read = [read_side(path, session)[0] for path in views]
    if session is not None:
        read = [[replace(segment, session=session) for segment in view] for view in read]
    known = [{segment.session for segment in view} for view in read]
    for path, own in zip(views, known, strict=True):
        for name in sorted(own):
            others = [other for other in known if other is not own and other]
            if others and all(name not in other for other in others):
                raise InputError(
                    f"{path}: session {name!r} is in no other view; name the one meeting that all "
                    "views are of with --session NAME"
                )
    formats.write(combine(read), output)
