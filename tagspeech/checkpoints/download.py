"""A model's folder, here or fetched from the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from tagspeech.errors import InputError

_HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
# What a model consists of, in either layout; pictures and code beside it are not fetched.
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.pt", "*.jinja")


def find_model(
    model: str | Path,
    revision: str | None = None,
    offline: bool = False,
    files: Sequence[str] = MODEL_FILES,
) -> Path:
    """The folder of a model: a folder here, or a Hub id such as `AudenAI/TagSpeech-AMI`.

    revision  branch, tag or commit on the Hub; None is its main branch
    offline   only the Hub's cache on this machine is looked at
    files     patterns of what is fetched from the Hub

    The folder of a Hub id has the name of its commit. A download shows its progress; one that broke
    off goes on when called again. Raises `InputError` that says what to download, and where to put
    it, when the Hub cannot give it.
    """
    folder = Path(model)
    name = str(model)
    if folder.exists() or not _HUB_ID.fullmatch(name):
        if revision is not None:
            raise InputError(f"{model}: is a path; a revision belongs to a Hub id such as ORG/NAME")
        return folder
    try:
        fetched = snapshot_download(
            name, revision=revision, local_files_only=offline, allow_patterns=list(files)
        )
    except RevisionNotFoundError as error:
        raise InputError(
            f"{name}: the Hugging Face Hub has no revision {revision} of it"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{name}: no folder here has this name, and the Hugging Face Hub has no model of this "
            "name that you may read (private ones: `hf auth login`)"
        ) from error
    except (OSError, ValueError, HTTPError) as error:
        reason = "it is not in the cache of this machine" if offline else _reason(error)
        option = f" --revision {revision}" if revision else ""
        local = name.partition("/")[2]
        raise InputError(
            f"{name}: no folder here has this name, and the Hugging Face Hub did not give it: "
            f"{reason}; where there is a network, run `hf download {name}{option} --local-dir "
            f"{local}`, bring the folder {local} here and name it as the model"
        ) from error
    return Path(fetched)


def _reason(error: Exception) -> str:
    """The first cause in a chain of errors, as one line: the last ones only say that it failed."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__
