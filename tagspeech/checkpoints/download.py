"""The folder of a model, on this machine or downloaded from the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tagspeech.errors import InputError

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# The files of a model, in either layout; pictures and code are not downloaded.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.pt", "*.jinja")


def find_model(
    model: str | Path,
    revision: str | None = None,
    offline: bool = False,
    files: Sequence[str] = MODEL_FILES,
) -> Path:
    """The folder of a model; that of a Hub id has the name of its commit.

    A download shows its progress, and resumes if it was interrupted.

    Args:
        model: A local folder, or a Hub id such as `AudenAI/TagSpeech-AMI`.
        revision: Branch, tag or commit on the Hub; None is its main branch.
        offline: Whether to use only the Hub's cache on this machine.
        files: Patterns of the files to download.

    Raises:
        InputError: The model cannot be downloaded; the message says what to download by hand.
    """
    folder = Path(model)
    name = str(model)
    if folder.exists() or not HUB_ID.fullmatch(name):
        if revision is not None:
            raise InputError(f"{model}: is a path; a revision belongs to a Hub id such as ORG/NAME")
        return folder
    try:
        fetched = snapshot_download(
            name, revision=revision, local_files_only=offline, allow_patterns=list(files)
        )
    except RevisionNotFoundError as error:
        raise InputError(f"{name}: has no revision {revision} on the Hugging Face Hub") from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: is not a local folder, and the Hugging Face Hub has no model of this name, "
            "or not for you (private models: `hf auth login`)"
        ) from error
    except (OSError, ValueError, HTTPError) as error:
        reason = "it is not in the cache of this machine" if offline else _reason(error)
        option = f" --revision {revision}" if revision else ""
        local = name.partition("/")[2]
        raise InputError(
            f"{name}: is not a local folder, and cannot be downloaded: {reason}; run "
            f"`hf download {name}{option} --local-dir {local}` on a machine with a network, copy "
            f"the folder {local} here and name it as the model"
        ) from error
    return Path(fetched)


def _reason(error: Exception) -> str:
    """The first cause in a chain of errors, as one line; later ones only report the failure."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
