"""What depends on which keys of the configuration: the stages of a recipe, and a trained model.

Each list names what is NOT depended on. A new key that nobody thought of here thus redoes every
stage that reads its section, which costs time at worst; a list of what is depended on would ignore
it. The marks of finished stages (local/mark.py) and the check before a training resumes use this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# Keys that change how fast a training is, and not a bit of its result.
ONLY_SPEED = tuple(
    f"{section}.{key}"
    for section in ("semantic.train", "voice.train", "llm.new.train", "train")
    for key in ("read_ahead", "try_largest")
)

_EVERYTHING = ("*",)
_TAGSPEECH = (
    "prompt",
    "llm",
    "target",
    "loss",
    "drop",
    "masks",
    "train",
)  # sections of stage 6 alone
_INTO_LLM = (
    "stack",
    "anchor_interval",
    "projector",
    "normalise",
    "tune_lr",
)  # of a stream, in stage 6
_SEMANTIC_TRAINING = ("semantic.sot", "semantic.grow", "semantic.train")
_VOICE_TRAINING = ("voice.margin", "voice.scale", "voice.train")
_STREAMS = tuple(f"{stream}.{key}" for stream in ("semantic", "voice") for key in _INTO_LLM)

# The keys, or sections, that a stage does not read, by its number in run.sh. What a stage reads as
# a file (the weights of a pretrained part, a trained model) is among the inputs of its mark.
NOT_READ: dict[int, tuple[str, ...]] = {
    0: _EVERYTHING,  # download or simulate
    1: _EVERYTHING,  # manifests
    2: ("features", "semantic", "voice", "parts", *_TAGSPEECH, "decode"),  # utterance groups
    3: (  # semantic encoder
        *("voice", *_TAGSPEECH, "decode", *_STREAMS),
        *("parts.semantic_encoder", "parts.voice_init", "parts.voice_encoder"),
    ),
    4: (  # voice encoder
        *("language", "semantic", *_TAGSPEECH, "decode", *_STREAMS, "parts.semantic_init"),
        *("parts.semantic_units", "parts.semantic_encoder", "parts.voice_encoder"),
    ),
    5: (  # speaker embeddings
        *("language", *_TAGSPEECH, "decode", *_STREAMS, *_SEMANTIC_TRAINING, *_VOICE_TRAINING),
        *("parts.semantic_init", "parts.semantic_units", "parts.voice_init"),
    ),
    6: ("parts", "decode", *_SEMANTIC_TRAINING, *_VOICE_TRAINING),  # TagSpeech
    7: ("language", "features", "semantic", "voice", "parts", *_TAGSPEECH),  # decode
    8: ("features", "semantic", "voice", "parts", *_TAGSPEECH, "decode"),  # score
    9: _EVERYTHING,  # report
    10: ("features", "semantic", "voice", "parts", *_TAGSPEECH),  # whole meetings
}

# How a model was trained, is loaded and decodes; the rest says what it is.
NOT_OF_A_MODEL = (
    *("language", "parts", "target", "loss", "drop", "masks", "train", "decode"),
    *("semantic.tune_lr", "voice.tune_lr", *_SEMANTIC_TRAINING, *_VOICE_TRAINING),
    *(
        "llm.trainable",
        "llm.lora",
        "llm.lora_lr",
        "llm.dtype",
        "llm.shard",
        "llm.attention",
        "llm.layout",
    ),
    *("llm.gradient_checkpointing", "llm.new"),
)


def of_stage(stage: int, tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage depends on: values of a configuration (`config_file.to_tree`) by dotted key."""
    return _without((*NOT_READ.get(stage, ()), *ONLY_SPEED), tree)


def of_model(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What a trained model is: values of its configuration by dotted key."""
    return _without(NOT_OF_A_MODEL, tree)


def copy_keys(
    keys: Sequence[str], source: Mapping[str, Any], target: Mapping[str, Any]
) -> dict[str, Any]:
    """`target` with the values that `source` has at some dotted keys; both are nested."""
    copied = dict(target)
    for key in keys:
        name, _, rest = key.partition(".")
        copied[name] = copy_keys([rest], source[name], copied[name]) if rest else source[name]
    return copied


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values in nested dictionaries, by dotted key."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return flat


def _without(keys: Sequence[str], tree: Mapping[str, Any]) -> dict[str, Any]:
    """`tree`, flat, without some keys and what lies in them."""
    if "*" in keys:
        return {}
    sections = tuple(f"{key}." for key in keys)
    # With a dot behind it, a key begins with itself, and not with one that is merely a part of it.
    return {key: v for key, v in flatten(tree).items() if not f"{key}.".startswith(sections)}
