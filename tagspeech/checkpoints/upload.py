"""Uploads the folder of a model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HTTPError

from tagspeech.checkpoints.download import HUB_ID
from tagspeech.errors import InputError

CARD = "README.md"


def push_folder(
    folder: Path, name: str, card: str, *, private: bool = False, revision: str | None = None
) -> str:
    """Uploads a model in one commit, to a repository that is made if it is missing.

    Args:
        folder: The model.
        name: ORG/NAME on the Hub.
        card: Takes the place of the README.md in `folder`.
        private: A new repository is private.
        revision: The branch; None: the main one.

    Returns:
        The address of the commit.

    Raises:
        InputError: The name is no Hub id, the folder is no model, or the Hub refuses.
    """
    if not HUB_ID.fullmatch(name):
        raise InputError(f"{name}: must be ORG/NAME, as on the Hugging Face Hub")
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: is no folder of a TagSpeech (no config.json)")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    operations = [CommitOperationAdd(CARD, card.encode())]
    operations += [
        CommitOperationAdd(path.relative_to(folder).as_posix(), path)
        for path in files
        if path != folder / CARD
    ]
    api = HfApi()
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.create_commit(
            name, operations, commit_message="Upload a TagSpeech model", revision=revision
        )
    except (OSError, ValueError, HTTPError) as error:
        reason = str(error).strip().split("\n")[-1]
        raise InputError(
            f"{name}: cannot be uploaded: {reason}; log in with `hf auth login`"
        ) from error
    return str(done.commit_url)
