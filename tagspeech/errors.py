"""The one exception for what a user can mend, and how want of memory is known."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: the message is one line that names the file, the field and the remedy.

    The command line prints it on stderr and exits with code 2; from Python it is raised as is.
    """


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is Python's or torch's for want of memory, of the machine or of a GPU."""
    words = ("out of memory", "allocate memory")  # torch's are RuntimeErrors, told by their words
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(one in str(error) for one in words)
    )
