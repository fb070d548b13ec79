"""What a caller can choose, as frozen dataclasses. The command line is made from their fields."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from tagspeech.config import WORD_TIMES, DecodeConfig
from tagspeech.errors import InputError
from tagspeech.files import read_terms
from tagspeech.ranges import (
    Count,
    Limits,
    Natural,
    NonNegative,
    Positive,
    Range,
    Share,
    check_overlap,
    fault,
)

VADS = ("auto", "silero", "energy", "none")
OVERLAP = 2.0  # seconds that windows share by default
NO_HOTWORDS = "hotword_strength: has no effect without hotwords; leave it out"
LEAST_WINDOW = 1.0  # seconds; a shorter window hardly holds a word


def option(
    text: str,
    default: Any = MISSING,
    *,
    choices: tuple[str, ...] = (),
    shown: str = "",
    flag: str = "",
    metavar: str = "",
    parse: Callable[[str], Any] | None = None,
    is_repeated: bool = False,
) -> Any:
    """A field that becomes an option of the command line, named after the field.

    The range of a number belongs to its type (`tagspeech.ranges`).

    Args:
        text: The help.
        default: The default; absent: the option is required.
        choices: The values it can have; empty: any of its type.
        shown: The default as the help shows it; empty: its value.
        flag: The name of the option; empty: that of the field.
        metavar: The placeholder of the value in the help; empty: derived from the type.
        parse: Makes the value of its text, and raises `argparse.ArgumentTypeError`; absent: a
            tuple of strings is split at commas and spaces, other types are called.
        is_repeated: The option may be given several times, once for each item of a tuple.
    """
    return field(default=default, metadata=locals())


def argument(text: str, default: Any = MISSING, **settings: Any) -> Any:
    """A field that becomes an argument without a name; a tuple takes one argument or more."""
    metadata = {**option(text, default, **settings).metadata, "is_positional": True}
    return field(default=default, metadata=metadata)


def like(options: type, name: str, default: Any) -> Any:
    """The option of a field of another dataclass, with another default."""
    return field(default=default, metadata=options.__dataclass_fields__[name].metadata)  # type: ignore[attr-defined]


def group(title: str, text: str = "") -> Any:
    """A field whose type is a dataclass of options: the section `title` of the help."""
    return field(metadata={"title": title, "text": text})


def check(options: Any) -> None:
    """Raises `InputError` naming the field if a value is out of its range or not a choice."""
    hints = get_type_hints(type(options), include_extras=True)
    for item in fields(options):
        value, choices = getattr(options, item.name), item.metadata["choices"]
        if choices and value is not None and value not in choices:
            raise InputError(f"{item.name}: must be {' or '.join(choices)}, got {value!r}")
        if problem := fault(hints[item.name], value):
            raise InputError(f"{item.name}: {problem}")


def _terms(text: str) -> tuple[str, ...]:
    try:
        return read_terms(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


@dataclass(frozen=True)
class TranscribeOptions:
    """How recordings are transcribed. None means: as the model's configuration says.

    Raises:
        InputError: A value is out of its range; the message names the field.
    """

    speakers: str = option(
        "assign speakers with the LLM, or by clustering of voice frames",
        "llm",
        choices=("llm", "voice"),
    )
    grammar: bool | None = option(
        "constrain the LLM to the output format, so that no output is malformed",
        None,
        shown="decode.grammar of the configuration",
    )
    word_times: str | None = option(
        "aligned: measure the start and end of each word, with an output that the semantic encoder "
        "was trained with; estimated: spread a segment's time over its characters; auto: aligned "
        "if the model has such an output",
        None,
        choices=WORD_TIMES,
        shown="decode.word_times of the configuration",
    )
    hotwords: tuple[str, ...] | None = option(
        "names and terms that the LLM favours: a file with one a line, or a list at commas",
        None,
        shown="decode.hotwords of the configuration",
        metavar="FILE|A,B,...",
        parse=_terms,
    )
    hotword_strength: NonNegative | None = option(
        "how much their log-probability is raised at each token",
        None,
        shown="decode.hotword_strength of the configuration",
    )
    batch_size: Natural = option("windows decoded together", 1)
    max_duration: Annotated[float, Range(0, is_infinite=True)] = option(
        "seconds of audio in a batch, padding included", math.inf, shown="no limit"
    )
    channel: str = option(
        "a number from 0; mix: the mean of all channels; each: transcribe every channel on its own "
        "and name its speakers CHANNEL-SPEAKER; auto: the mix of two channels, the first of more",
        "auto",
        metavar="{auto,mix,each,N}",
    )
    vad: str = option(
        "voice activity detection; none: windows cover the whole recording; auto: none if the "
        "recording fits into one window, otherwise silero",
        "auto",
        choices=VADS,
    )
    max_window: Annotated[float, Range(LEAST_WINDOW)] | None = option(
        "longest window in seconds", None, shown="decode.max_window of the model"
    )
    window_overlap: NonNegative | None = option(
        "seconds that two windows share where speech has no pause; at most half a window",
        None,
        shown="2, or half of the longest window if that is less",
    )
    max_pause: NonNegative = option("seconds without speech that end a window", 1.0)
    num_speakers: Natural | None = option(
        "number of speakers, if it is known", None, shown="unknown"
    )
    min_speakers: Natural = option("least number of speakers", 1)
    max_speakers: Natural | None = option("largest number of speakers", None, shown="no limit")

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel", str(self.channel))
        hotwords: object = self.hotwords
        if isinstance(hotwords, str):  # from Python, as on the command line
            object.__setattr__(self, "hotwords", read_terms(hotwords))
        if not (self.channel in ("auto", "mix", "each") or self.channel.isdecimal()):
            raise InputError(
                f"channel: must be auto, mix, each or a number from 0, got {self.channel!r}"
            )
        check(self)
        self.limits  # noqa: B018  # checks them
        if self.max_window is not None and self.window_overlap is not None:
            check_overlap(self.window_overlap, self.max_window)

    def resolved(self, decode: DecodeConfig) -> TranscribeOptions:
        """These options with the model's values in place of None."""
        longest = decode.max_window if self.max_window is None else self.max_window
        overlap = self.window_overlap
        hotwords = decode.hotwords if self.hotwords is None else self.hotwords
        if self.hotword_strength is not None and not hotwords:
            raise InputError(NO_HOTWORDS)
        return replace(
            self,
            grammar=decode.grammar if self.grammar is None else self.grammar,
            word_times=self.word_times or decode.word_times,
            hotwords=hotwords,
            hotword_strength=decode.hotword_strength
            if self.hotword_strength is None
            else self.hotword_strength,
            max_window=longest,
            window_overlap=min(OVERLAP, longest / 2) if overlap is None else overlap,
        )

    @property
    def limits(self) -> Limits:
        """The number of speakers of a recording."""
        return Limits(self.num_speakers, self.min_speakers, self.max_speakers)


@dataclass(frozen=True)
class SimulateOptions:
    """The sizes of a simulated corpus.

    Raises:
        InputError: A value is out of its range; the message names the field.
    """

    train_groups: Count = option("least number of utterance groups in train", 12500)
    dev_groups: Count = option("least number of utterance groups in dev", 200)
    test_groups: Count = option("least number of utterance groups in test", 400)
    meetings: Count = option("number of whole meetings", 3)
    meeting_minutes: Positive = option("minutes of each whole meeting", 5.0)
    max_speakers: Annotated[int, Range(1, 12)] = option(  # 12: the voices of dev
        "largest number of speakers in an utterance group", 3
    )
    seed: Count = option("the same seed writes the same bytes", 1)
    train_from: str = option(
        "voices and sentences of train; pretrain shares none with any other split",
        "train",
        choices=("train", "pretrain"),
    )
    overlap_share: Share = option(
        "share of speaker changes that overlap; 0.65 overlaps 14 % of the speech, 0.5 11 %", 0.65
    )

    def __post_init__(self) -> None:
        check(self)


def _channel(text: str) -> int | str:
    if text not in ("mix", "each") and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be mix, each or a number from 0, got {text!r}")
    return int(text) if text.isdecimal() else text


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        message = f"must be three numbers such as 0.8,0.1,0.1, got {text!r}"
        raise argparse.ArgumentTypeError(message) from error


@dataclass(frozen=True)
class ImportConfig:
    """Where a corpus is and how it is divided; either `audio` and `words`, or `kaldi`.

    Raises:
        InputError: A value is out of its range; the message names the field.
    """

    audio: Path | None = option("folder of WAV and FLAC files", None)
    words: Path | None = option("file or folder: who spoke what and when", None)
    speakers: Path | None = option("RTTM, file or folder: who spoke when", None)
    kaldi: Path | None = option("Kaldi data directory", None)
    wav_root: Path = option(
        "folder that relative paths in wav.scp start from", Path(), shown="the current folder"
    )
    genders: Path | None = option("lines of a speaker and m or f, as in spk2gender", None)
    local_speakers: bool = option(
        "the same name is another speaker in another recording, as A and B often are; speakers "
        "become RECORDING-NAME",
        False,
    )
    channel: int | str | None = option(
        "of audio with several channels; mix: their mean; each: all, as recordings ID-ch0, ID-ch1, "
        "...; N: that channel, from 0",
        None,
        shown="the mix of two, the first of more",
        metavar="{mix,each,N}",
        parse=_channel,
    )
    split_by: str = option(
        "folder: the folders train, dev and test in --audio or --kaldi; lists: see --lists; "
        "shares: see --shares; recordings stay whole",
        "folder",
        choices=("folder", "lists", "shares"),
    )
    lists: Path | None = option(
        "folder of train.txt, dev.txt and test.txt, each with a recording on a line", None
    )
    shares: tuple[float, ...] = option(
        "shares of the number of recordings, drawn with --seed",
        (0.8, 0.1, 0.1),
        metavar="TRAIN,DEV,TEST",
        parse=_shares,
    )
    seed: Count = option("seed of --shares", 1)
    skip_unmatched: bool = option(
        "leave out recordings without segments, and segments without a recording", False
    )
    max_rejected: Share = option("largest share of segments that may be rejected", 0.1)

    def __post_init__(self) -> None:
        check(self)
