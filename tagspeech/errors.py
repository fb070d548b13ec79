"""The exception for errors that a user can fix, and the test for running out of memory."""

from __future__ import annotations

import re

LONGEST = 1500  # characters of a message
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ud800-\\udfff]")


class InputError(Exception):
    """Bad input. The message is one line that names the file, the field and the remedy.

    The command line prints it on stderr and exits with code 2. Control characters, which may come
    from damaged input, are shown as escapes, and the middle of a long message is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(message: str) -> str:
    """`message` with escapes for control characters, and without its middle if it is long."""
    line = _CONTROL.sub(lambda match: repr(match[0])[1:-1], message)
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} [...] {line[-LONGEST // 2 :]}"
    return line


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold `text`: names of files and JSON may have lone surrogates."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python or torch raised `error` because host or GPU memory ran out."""
    phrases = ("out of memory", "allocate memory")  # torch raises a plain RuntimeError
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )
