"""The semantic encoder of stage 3 as icefall's Zipformer recipe has it, and its shape from there.

icefall (egs/librispeech/ASR/zipformer) takes the shape of a model from options of the command line,
and stores them beside the weights of a training in epoch-N.pt.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tagspeech.config import Config, ZipformerConfig
from tagspeech.config_file import load_config
from tagspeech.data.units import Units
from tagspeech.encoders.sot import SotModel
from tagspeech.encoders.transducer import TransducerModel
from tagspeech.errors import InputError
from tagspeech.files import atomic_path, write_text
from tagspeech.weights import copy_weights, read_model, read_pt

log = logging.getLogger(__name__)

# Options of its train.py that give a value for each stack, and those that give one value
_OF_STACKS = (
    *("num_encoder_layers", "downsampling_factor", "feedforward_dim", "num_heads", "encoder_dim"),
    *("query_head_dim", "value_head_dim", "pos_head_dim", "cnn_module_kernel"),
)
_FIXED = {"embed_channels": (8, 32, 128), "feature_dim": 80, "output_downsampling_factor": 2}


def shape_of_training(path: Path) -> dict[str, Any]:
    """The shape of the Zipformer in an epoch-N.pt of icefall, as a config.json has it.

    Empty for a file without it, such as a pretrained.pt or a .safetensors.

    Raises:
        InputError: The file cannot be read, or an option has another form than icefall's.
    """
    held = read_pt(path) if path.suffix == ".pt" else {}
    if not isinstance(held, dict) or not all(name in held for name in (*_OF_STACKS, "pos_dim")):
        return {}
    tree = {"model_type": "zipformer", "pos_dim": held["pos_dim"], **_FIXED}
    del tree["embed_channels"]  # a config.json has none
    for name in _OF_STACKS:
        try:
            tree[name] = [int(value) for value in str(held[name]).split(",")]
        except ValueError as error:
            raise InputError(
                f"{path}: {name} must be numbers with commas between them, got {held[name]!r}"
            ) from error
    return {**tree, "causal": held.get("causal", False)}


def export_icefall(semantic: Path, output: Path) -> None:
    """Writes `output/{pretrained.pt,bpe.model,tokens.txt,options.txt}` and prints the options.

    Args:
        semantic: The folder of stage 3: config.yaml, final.pt, units.model.
        output: The folder to write.

    Raises:
        InputError: `semantic` lacks a file, or has an encoder that icefall's recipe does not.
    """
    for name in ("config.yaml", "final.pt", "units.model"):
        if not (semantic / name).is_file():
            raise InputError(
                f"{semantic}: has no {name}; name a folder that stage 3 wrote, such as exp/semantic"
            )
    config = load_config(semantic / "config.yaml")
    units = Units(semantic / "units.model")
    state = read_model(semantic / "final.pt")
    options = _options(config, state, semantic)
    _check(config, state, len(units), semantic)
    pieces = [units.model.id_to_piece(number) for number in range(len(units))]
    if "<sos/eos>" not in pieces:
        log.warning(
            "%s: has no <sos/eos>, which icefall's export.py looks for; pretrained.py and "
            "decode.py do not. Units that began from icefall's have it (parts.semantic_units)",
            semantic / "units.model",
        )
    output.mkdir(parents=True, exist_ok=True)
    with atomic_path(output / "pretrained.pt") as temporary:
        torch.save({"model": state}, temporary)
    with atomic_path(output / "bpe.model") as temporary:
        shutil.copyfile(semantic / "units.model", temporary)
    lines = (f"{piece} {number}\n" for number, piece in enumerate(pieces))
    write_text(output / "tokens.txt", "".join(lines))
    write_text(output / "options.txt", f"{options}\n")
    print(options)


def _options(config: Config, state: dict[str, Tensor], semantic: Path) -> str:
    """The options of icefall's scripts that build such a model."""
    if config.semantic.encoder_section != "encoder":
        raise InputError(
            f"{semantic / 'config.yaml'}: semantic.{config.semantic.encoder_section}: is no "
            "Zipformer, so icefall's recipe cannot load it"
        )
    shape: ZipformerConfig = config.semantic.encoder
    for name, only in _FIXED.items():
        if (found := getattr(shape, name)) != only:
            raise InputError(
                f"{semantic / 'config.yaml'}: semantic.encoder.{name}: must be {only}, as in "
                f"icefall's recipe, got {found}"
            )
    has_ctc, has_transducer = (
        any(name.startswith(part) for name in state) for part in ("ctc_output.", "joiner.")
    )
    values: dict[str, Any] = {name: getattr(shape, name) for name in _OF_STACKS}
    values |= {"encoder_unmasked_dim": shape.encoder_dim, "pos_dim": shape.pos_dim, "causal": 0}
    values |= {"use_ctc": int(has_ctc), "use_transducer": int(has_transducer)}
    if has_transducer:
        settings = config.semantic.sot.transducer
        for name in ("decoder_dim", "joiner_dim", "context_size"):
            values[name] = getattr(settings, name)
    words = []
    for name, value in values.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        words.append(f"--{name.replace('_', '-')} {text}")
    return " ".join(words)


def _check(config: Config, state: dict[str, Tensor], num_units: int, semantic: Path) -> None:
    """Raises `InputError` unless the weights are all those of the configured model."""
    shape, sot = config.semantic.encoder, config.semantic.sot
    model: SotModel | TransducerModel
    if sot.loss == "pruned_transducer":
        if sot.transducer.context_size < 2:
            raise InputError(
                "semantic.sot.transducer.context_size: must be 2 or more: icefall's decoder has "
                "other weights for 1"
            )
        model = TransducerModel(shape, sot.transducer, num_units)
    else:
        model = SotModel(shape, num_units)
    del model.alignment_output  # used in training only
    copy_weights(model, state, semantic / "final.pt")
