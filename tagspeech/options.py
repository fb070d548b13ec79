"""What a caller can choose, as frozen dataclasses. The command line is made from their fields.

A field made by `option` becomes an option of that name: its help, its choices, its default.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from tagspeech.config import DecodeConfig
from tagspeech.errors import InputError

VADS = ("auto", "silero", "energy", "none")
OVERLAP = 2.0  # seconds that windows share by default
LEAST_WINDOW = 1.0  # seconds; less holds hardly a word


def option(
    default: Any, text: str, choices: tuple[str, ...] = (), default_text: str | None = None
) -> Any:
    """A field of an options dataclass.

    Args:
        default: Its default.
        text: The help of its option.
        choices: What it can be; empty: anything of its type.
        default_text: What the help says of the default, if not its value.
    """
    shown = str(default) if default_text is None else default_text
    return field(default=default, metadata={"help": text, "choices": choices, "default": shown})


@dataclass(frozen=True)
class Limits:
    """The number of speakers of a recording: `number` if it is known, otherwise from `minimum` to
    `maximum`; None: any."""

    number: int | None = None
    minimum: int = 1
    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.least < 1 or (self.most is not None and self.most < self.least):
            raise InputError(
                f"number of speakers: must be 1 or more, got {self.least} to {self.most}"
            )

    @property
    def least(self) -> int:
        """The least number."""
        return self.number or self.minimum

    @property
    def most(self) -> int | None:
        """The largest number; None: any."""
        return self.number or self.maximum


def check_overlap(overlap: float, longest: float) -> None:
    """Raises `InputError` if windows of `longest` seconds cannot share `overlap` seconds."""
    if not 0 <= overlap <= longest / 2:
        raise InputError(
            f"window overlap: must be from 0 to half of the longest window, {longest / 2:g} s, "
            f"got {overlap:g}"
        )


@dataclass(frozen=True)
class TranscribeOptions:
    """How recordings are transcribed. None means: as the model's configuration says.

    Raises:
        InputError: A value is out of its range; the message names the field.
    """

    speakers: str = option(
        "llm",
        "who assigns the speakers of a window: the LLM, or clustering of voice frames",
        ("llm", "voice"),
    )
    grammar: bool | None = option(
        None,
        "constrain the LLM to the output format, so that no output is malformed",
        default_text="decode.grammar of the configuration",
    )
    batch_size: int = option(1, "windows decoded together")
    max_duration: float = option(
        math.inf, "seconds of audio in a batch, padding included", default_text="no limit"
    )
    channel: str = option(
        "auto",
        "a number; mix: the mean of all channels; each: transcribe every channel apart, its "
        "speakers named CHANNEL-SPEAKER; auto: the mix of two channels, the first of more",
    )
    vad: str = option(
        "auto",
        "voice activity detection; none: windows cover the whole recording; auto: none if the "
        "recording fits into one window, otherwise silero",
        VADS,
    )
    max_window: float | None = option(
        None, "longest window in seconds", default_text="decode.max_window of the model"
    )
    window_overlap: float | None = option(
        None,
        "seconds that two windows share where speech has no pause; at most half a window",
        default_text="2, or half of the longest window if that is less",
    )
    max_pause: float = option(1.0, "seconds without speech that end a window")
    num_speakers: int | None = option(
        None, "number of speakers, if it is known", default_text="unknown"
    )
    min_speakers: int = option(1, "least number of speakers")
    max_speakers: int | None = option(None, "largest number of speakers", default_text="no limit")

    def __post_init__(self) -> None:
        object.__setattr__(self, "channel", str(self.channel))
        if not (self.channel in ("auto", "mix", "each") or self.channel.isdecimal()):
            raise InputError(
                f"channel: must be auto, mix, each or a number from 0, got {self.channel!r}"
            )
        for name, choices in (("speakers", ("llm", "voice")), ("vad", VADS)):
            if (value := getattr(self, name)) not in choices:
                raise InputError(f"{name}: must be {' or '.join(choices)}, got {value!r}")
        for name, least in (
            ("batch_size", 1),
            ("max_duration", 0.0),
            ("max_window", LEAST_WINDOW),
            ("window_overlap", 0.0),
            ("max_pause", 0.0),
            ("num_speakers", 1),
            ("min_speakers", 1),
            ("max_speakers", 1),
        ):
            value = getattr(self, name)
            is_finite = value is None or math.isfinite(value) or name == "max_duration"
            if not is_finite or (value is not None and not value >= least):
                raise InputError(f"{name}: must be {least:g} or more, got {value:g}")
        self.limits  # noqa: B018  # checks them
        if self.max_window is not None and self.window_overlap is not None:
            check_overlap(self.window_overlap, self.max_window)

    def resolved(self, decode: DecodeConfig) -> TranscribeOptions:
        """These options with the model's values in the place of None."""
        longest = decode.max_window if self.max_window is None else self.max_window
        overlap = self.window_overlap
        return replace(
            self,
            grammar=decode.grammar if self.grammar is None else self.grammar,
            max_window=longest,
            window_overlap=min(OVERLAP, longest / 2) if overlap is None else overlap,
        )

    @property
    def limits(self) -> Limits:
        """The number of speakers of a recording."""
        return Limits(self.num_speakers, self.min_speakers, self.max_speakers)
