"""The model that is used where none is named."""

from __future__ import annotations

import logging
from pathlib import Path

from tagspeech.errors import InputError

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "egs/librispeech/pretrained"


def default_model() -> Path:
    """The folder of the model for English that belongs to this repository.

    Raises:
        InputError: The folder is not there, as in a package installed without the repository.
    """
    if not (FOLDER / "config.json").exists():
        raise InputError(
            f"--model: must name a model; the default one, {FOLDER}, is not there: it belongs to "
            "a clone of the repository"
        )
    log.warning("model: %s, for English, as --model names none", FOLDER)
    return FOLDER
