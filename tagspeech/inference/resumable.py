"""The windows of recordings, each recognized once: a journal lets a killed run resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tagspeech.audio.sources import Audio, Span
from tagspeech.config_file import to_tree
from tagspeech.errors import InputError
from tagspeech.files import journal, read_journal, sha256_of
from tagspeech.inference.recognizer import Recognizer, Window, WindowResult

Watch = Callable[[int, WindowResult], None]


@dataclass(frozen=True)
class Meeting:
    """A recording, how it is cut into windows, and the journal that lets a killed run resume.

    Attributes:
        audio: The recording.
        cut: Gives the windows, in order.
        cut_by: What the windows depend on; a journal of other windows is refused.
        journal: A file for the results of windows; None: none.
    """

    audio: Audio
    cut: Callable[[], Iterable[Span]]
    cut_by: str = ""
    journal: Path | None = None


def recognize_meetings(
    recognizer: Recognizer, meetings: Sequence[Meeting], watch: Watch | None = None
) -> Iterator[list[WindowResult]]:
    """The results of all windows of each recording, in order.

    Those of a recording are complete when the next one has a result, or all are done.

    Args:
        recognizer: Decodes the windows.
        meetings: The recordings.
        watch: Is called with the number of the recording and the result of each window as soon as
            it is known, also from a journal; then there is no progress bar. What it raises ends the
            work.
    """
    begun: list[_Begun] = []
    number, before = 0, 0.0
    results: list[WindowResult] = []
    total = round(sum(meeting.audio.duration for meeting in meetings))
    bar = tqdm(total=total, unit=" s", desc="transcribe", disable=watch is not None)
    with ExitStack() as stack, bar:

        def all_windows() -> Iterator[Window]:
            for meeting in meetings:
                begun.append(_begin(recognizer, meeting))
                stack.push(begun[-1].files)
                yield from begun[-1].windows

        for result in recognizer.recognize(all_windows()):
            while len(results) == len(begun[number].windows):
                begun[number].files.close()
                yield results
                before += meetings[number].audio.duration
                number, results = number + 1, []
            if not begun[number].windows[len(results)].known:
                begun[number].add(result.to_row())
            results.append(result)
            if watch is not None:
                watch(number, result)
            bar.set_description(meetings[number].audio.name, refresh=False)
            bar.update(round(before + result.end) - bar.n)
        for _ in meetings[number:]:
            yield results
            results = []
        bar.update(total - bar.n)


@dataclass(frozen=True)
class _Begun:
    """The windows of a recording, and how their results are written to its journal."""

    windows: list[Window]
    add: Callable[[dict[str, Any]], None]
    files: ExitStack


def _begin(recognizer: Recognizer, meeting: Meeting) -> _Begun:
    """Cuts a recording and opens its journal.

    The first row of a journal says what it is of; a row for each window that is done follows.
    """
    files = ExitStack()
    if meeting.journal is None:
        return _Begun([Window(meeting.audio, span) for span in meeting.cut()], _ignore, files)
    rows, identity = read_journal(meeting.journal), _identity(recognizer, meeting)
    if rows and rows[0] != identity:
        raise InputError(
            f"{meeting.journal}: was begun for another recording or model, or with other options; "
            "delete it"
        )
    done = [WindowResult.from_row(row) for row in rows[1:]]
    windows = [
        Window(meeting.audio, span, done[place] if place < len(done) else None)
        for place, span in enumerate(meeting.cut())
    ]
    add = files.enter_context(journal(meeting.journal))
    if not rows:
        add(identity)
    return _Begun(windows, add, files)


def _ignore(row: dict[str, Any]) -> None:
    """Takes a row where there is no journal."""


def _identity(recognizer: Recognizer, meeting: Meeting) -> dict[str, object]:
    """What a journal is of."""
    audio = meeting.audio
    return {
        "recording": [audio.name, *map(sha256_of, audio.files)],
        "model": recognizer.fingerprint,
        "options": repr((recognizer.options, audio.channels, meeting.cut_by)),
        "decode": to_tree(recognizer.model.config.decode),
    }
