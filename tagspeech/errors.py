"""The exception for errors that a user can fix, and the test for running out of memory."""

from __future__ import annotations


class InputError(Exception):
    """Bad input. The message is one line that names the file, the field and the remedy.

    The command line prints it on stderr and exits with code 2.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python or torch raised `error` because host or GPU memory ran out."""
    phrases = ("out of memory", "allocate memory")  # torch raises a plain RuntimeError
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in phrases)
    )
