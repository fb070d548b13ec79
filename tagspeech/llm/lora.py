"""LoRA: low-rank adapters on the layers of the LLM (arXiv 2106.09685), by peft.

The LLM becomes a `peft.PeftModel`, which answers as the LLM does; what it had before stays frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.weights import check_weights, read_safetensors

if TYPE_CHECKING:  # peft takes seconds to load, and few trainings want it
    from peft import PeftModel

ALL_LINEAR = "all-linear"  # peft's word for all linear layers but the output
_WEIGHTS = "adapter_model.safetensors"  # as peft names them


def add_lora(llm: Any, config: LLMConfig) -> PeftModel:
    """`llm` with new adapters, which change nothing before they have learnt.

    Raises `InputError` where no layer of the LLM has a name of `llm.lora.layers`.
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
    """Writes the adapters as `PeftModel.from_pretrained` reads them, with the name of their LLM."""
    llm.active_peft_config.base_model_name_or_path = base
    # Embeddings have no adapters; to find that out itself, peft would ask the Hub for `base`.
    llm.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # an empty form, which the model's card fills


def load_lora(llm: Any, config: LLMConfig, folder: Path) -> PeftModel:
    """`llm` with the adapters of a folder. Raises `InputError` where weights do not fit."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    path = folder / _WEIGHTS
    state = read_safetensors(path)
    adapted = add_lora(llm, config)
    check_weights(get_peft_model_state_dict(adapted, save_embedding_layers=False), state, path)
    set_peft_model_state_dict(adapted, state)
    return adapted


def base_state(llm: PeftModel) -> dict[str, Tensor]:
    """The weights of the LLM below its adapters, under the names that it has without them."""
    return {
        name.replace(".base_layer.", "."): weight
        for name, weight in llm.get_base_model().state_dict().items()
        if ".lora_" not in name
    }
