"""Whether the released layout can hold a model, checked before anything is written."""

from __future__ import annotations

from torch import nn

from tagspeech.config import Config
from tagspeech.config_file import to_tree
from tagspeech.dependencies import of_model
from tagspeech.errors import InputError

# Where the LLM was before, and what only training reads of an encoder.
_NOT_COMPARED = (
    *("llm.name", "llm.revision", "llm.sha256"),
    *("semantic.encoder.dropout", "voice.encoder.dropout"),
)
_WITH_FILES = ("semantic_encoder.", "voice_encoder.", "llm.")  # that hold whatever they consist of
_PROJECTORS = {
    f"{stream}_projector.linear{number}.{kind}"
    for stream in ("semantic", "voice")
    for number in (1, 2)
    for kind in ("weight", "bias")
}


def check_names(model: nn.Module) -> None:
    """Raises `InputError` for a weight that the layout has no place for, or that it lacks."""
    own = {name for name in model.state_dict() if not name.startswith(_WITH_FILES)}
    for name in sorted(own ^ _PROJECTORS):
        fault = "has no place for it" if name in own else "must have it"
        raise InputError(f"{name}: the released layout {fault}: a projector is two linear layers")


def check_meaning(config: Config, written: Config) -> None:
    """Raises `InputError` for the first value that a model has and its export would not have.

    written  what the configuration of the export means
    """
    own, theirs = of_model(to_tree(config)), of_model(to_tree(written))
    for key in sorted(own.keys() | theirs.keys()):
        if own.get(key) != theirs.get(key) and key not in _NOT_COMPARED:
            raise InputError(
                f"{key}: the released layout knows only {theirs.get(key)}, and the model has "
                f"{own.get(key)}"
            )
