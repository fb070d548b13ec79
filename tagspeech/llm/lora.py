"""LoRA: low-rank adapters on the layers of the LLM (arXiv 2106.09685), by peft.

The LLM becomes a `peft.PeftModel` with the same interface; its own weights stay frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.weights import check_weights, read_safetensors

if TYPE_CHECKING:  # peft takes seconds to import, and few runs need it
    from peft import PeftModel

ALL_LINEAR = "all-linear"  # peft's name for all linear layers but the output
_WEIGHTS = "adapter_model.safetensors"  # as peft names them


def add_lora(llm: Any, config: LLMConfig) -> PeftModel:
    """`llm` with new adapters, which change nothing until they are trained.

    Raises:
        InputError: The LLM has no layer that `llm.lora.layers` names.
    """
    from peft import LoraConfig, get_peft_model

    lora = config.lora
    layers = ALL_LINEAR if lora.layers == (ALL_LINEAR,) else list(lora.layers)
    try:
        return get_peft_model(
            llm,
            LoraConfig(
                task_type="CAUSAL_LM",
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=layers,
            ),
        )
    except ValueError as error:
        names = ", ".join(lora.layers)
        raise InputError(f"llm.lora.layers: {names}: {str(error).splitlines()[0]}") from error


def save_lora(llm: PeftModel, base: str, folder: Path) -> None:
    """Writes the adapters for `PeftModel.from_pretrained`, with the name of their LLM."""
    llm.active_peft_config.base_model_name_or_path = base
    # Embeddings have no adapters; without this option peft looks for `base` on the Hub.
    llm.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty template


def load_lora(llm: Any, config: LLMConfig, folder: Path) -> PeftModel:
    """`llm` with the adapters of a folder. Raises `InputError` if weights do not fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    path = folder / _WEIGHTS
    state = read_safetensors(path)
    adapted = add_lora(llm, config)
    check_weights(get_peft_model_state_dict(adapted, save_embedding_layers=False), state, path)
    set_peft_model_state_dict(adapted, state)
    return adapted


def base_state(llm: PeftModel) -> dict[str, Tensor]:
    """The weights of the LLM without its adapters, under their original names."""
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in llm.get_base_model().state_dict().items()
        if ".lora_" not in name
    }
