"""The one exception for what a user can mend."""

from __future__ import annotations


class InputError(Exception):
    """Bad input: the message is one line that names the file, the field and the remedy.

    The command line prints it on stderr and exits with code 2; from Python it is raised as is.
    """
