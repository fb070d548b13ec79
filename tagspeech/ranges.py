"""Ranges as types: a field `lr: NonNegative = 1e-3` declares which values it takes."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any

from tagspeech.errors import InputError


@dataclass(frozen=True)
class Range:
    """Numbers from `least` to `most`, both included; never nan.

    Attributes:
        least: The smallest number.
        most: The largest number.
        is_open: `least` itself is excluded.
        is_infinite: Infinity is included.
    """

    least: float = -math.inf
    most: float = math.inf
    is_open: bool = False
    is_infinite: bool = False

    def __contains__(self, value: float) -> bool:
        is_above = value > self.least if self.is_open else value >= self.least
        is_finite = self.is_infinite or isinstance(value, int) or math.isfinite(value)
        return is_above and value <= self.most and is_finite

    def __str__(self) -> str:
        if self.is_open:
            return f"more than {self.least:g}"
        if self.least == -math.inf:
            return "a finite number"
        if self.most == math.inf:
            return f"{self.least:g} or more"
        return f"from {self.least:g} to {self.most:g}"


@dataclass(frozen=True)
class OneOf:
    """A closed list of names."""

    names: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return f"one of {', '.join(self.names)}"


Count = Annotated[int, Range(0)]
OrMinus1 = Annotated[int, Range(-1)]  # -1 has a meaning of its own
Natural = Annotated[int, Range(1)]
Processes = Annotated[int, Range(1, 1024)]
Threads = Annotated[int, Range(0, 1024)]
Finite = Annotated[float, Range()]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, is_open=True)]
Share = Annotated[float, Range(0, 1)]


def plain_type(hint: Any) -> Any:
    """The type of a field without its range and without `| None`."""
    hint = _required(hint)
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def fault(hint: Any, value: Any) -> str | None:
    """What is wrong with a value of a type such as `Share` or `Natural | None`.

    Returns:
        Text such as "must be 0 or more, got -1"; None if the value is in range, if it is None, or
        if the type has no range.
    """
    for valid in getattr(_required(hint), "__metadata__", ()):
        if value is not None and value not in valid:
            shown = repr(value[:80]) if isinstance(value, str) else f"{value:g}"
            return f"must be {valid}, got {shown}"
    return None


def _required(hint: Any) -> Any:
    """`X` of `X | None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint


@dataclass(frozen=True)
class Limits:
    """The number of speakers of a recording.

    Attributes:
        number: The number, if it is known; it replaces the other two.
        minimum: The least number.
        maximum: The largest number; None: no limit.
    """

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
        """The largest number; None: no limit."""
        return self.number or self.maximum


def check_overlap(overlap: float, longest: float) -> None:
    """Raises `InputError` if windows of `longest` seconds cannot share `overlap` seconds."""
    if not 0 <= overlap <= longest / 2:
        raise InputError(
            f"window overlap: must be from 0 to half of the longest window, {longest / 2:g} s, "
            f"got {overlap:g}"
        )
