"""The causal LM and its tokenizer, from a folder, the Hub or a package, loaded strictly.

`transformers`, which takes seconds, is imported in functions: training an encoder needs no LLM.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.files import read_json
from tagspeech.llm.prompt import MARKERS, build_prompt, encode_text
from tagspeech.packages.fetch import package_folder

# By the names that the configuration uses
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# What libraries raise for files that are missing, damaged or contradict each other
_LOAD_ERRORS = (
    *(OSError, ValueError, RuntimeError, SafetensorError, ImportError, LookupError),
    *(TypeError, AttributeError, AssertionError, ArithmeticError, StrictDataclassError),
)


def usable_device(name: str | torch.device) -> torch.device:
    """The device of this name. Raises `InputError` if torch cannot use it on this machine."""
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"device {name}: cannot be used here: {reason}") from error
    if device.type == "meta":
        raise InputError(f"device {name}: cannot be used here: it computes nothing")
    return device


def load_llm(
    config: LLMConfig,
    dtype: torch.dtype = torch.float32,
    *,
    offline: bool = False,
    tokenizer_folder: str | None = None,
) -> tuple[Any, Any]:
    """The causal LM and its tokenizer, by Hugging Face name, folder or file in a package.

    Args:
        config: Names the LLM.
        dtype: Of its weights.
        offline: Whether to use only what this machine has.
        tokenizer_folder: Folder of the tokenizer, if it is not the LLM's.

    Raises:
        InputError: The LLM cannot be loaded, or a weight is missing, unexpected or of another shape
            than config.json says.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    if not config.name:
        raise InputError(
            "llm.name: is empty; name a causal LM on the Hugging Face Hub, or a folder"
        )
    place = str(package_folder("llm", config, offline) or config.name)
    _check_quantization(config, place, offline)
    with _loading(config.name):
        tokenizer = (
            _load_tokenizer(place, config.revision, offline)
            if tokenizer_folder is None
            # The folder's config.json is not that of an LLM.
            else _load_tokenizer(
                *(tokenizer_folder, None, offline),
                config=AutoConfig.from_pretrained(
                    place, local_files_only=True, trust_remote_code=False
                ),
            )
        )
        llm, report = AutoModelForCausalLM.from_pretrained(
            place,
            revision=config.revision,
            local_files_only=offline,
            trust_remote_code=False,
            dtype=dtype,
            attn_implementation=config.attention,
            # Mismatches are refused below, with the name of the tensor.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    where = f"llm.name: {config.name}"
    _check_weights(report, where)
    _check_vocabulary(llm, tokenizer, where)
    if getattr(llm.config, "final_logit_softcapping", None):  # Gemma 2; the loss has no cap
        raise InputError(f"{where}: has final_logit_softcapping set; choose an LLM without")
    return llm, tokenizer


def check_llm(folder: Path) -> None:
    """Raises `InputError` if a folder lacks weights that it lists, or has no chat tokenizer.

    It does not read the weights, which takes minutes for a large LLM.
    """
    index = folder / "model.safetensors.index.json"
    weights = {"model.safetensors"}
    if index.exists():
        weights = set(read_json(index)["weight_map"].values())
    for name in ("config.json", *sorted(weights)):
        if not (folder / name).exists():
            raise InputError(f"llm.name: {folder / name}: is missing; download the whole LLM")
    with _loading(str(folder)):
        tokenizer = _load_tokenizer(str(folder), None, offline=True)
    build_prompt(tokenizer)


def _check_weights(report: dict[str, Any], where: str) -> None:
    """Raises `InputError` if the loading report of transformers names a weight."""
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(f"{where}: {name} must have shape {tuple(expected)}, got {tuple(found)}")
    for name in sorted(report["missing_keys"]):  # transformers would use random weights
        raise InputError(f"{where}: its weights lack {name}")
    for name in sorted(report["unexpected_keys"]):
        raise InputError(f"{where}: its weights have unexpected {name}")


def _check_quantization(config: LLMConfig, place: str, offline: bool) -> None:
    """Raises `InputError` if the config.json of an LLM asks for a quantiser, which is code too."""
    from transformers import AutoConfig

    with _loading(config.name):
        found = AutoConfig.from_pretrained(
            place,
            revision=config.revision,
            local_files_only=offline,
            trust_remote_code=False,
        )
    if quantization := getattr(found, "quantization_config", None):
        method = dict(quantization).get("quant_method") if isinstance(quantization, dict) else None
        raise InputError(
            f"llm.name: {config.name}: config.json: quantization_config: {method or 'unknown'} is "
            "not supported; name an LLM that is not quantized"
        )


def _check_vocabulary(llm: Any, tokenizer: Any, where: str) -> None:
    """Raises `InputError` if text or turn markers have tokens without an embedding."""
    rows = llm.get_input_embeddings().num_embeddings
    never_used = set(tokenizer.get_added_vocab()) - MARKERS
    for token, index in tokenizer.get_vocab().items():
        if index >= rows and token not in never_used:
            raise InputError(
                f"{where}: its tokenizer has {token!r} as token {index}, but its embeddings have "
                f"only {rows} rows; the tokenizer is of another LLM"
            )


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turns an error of the block, which loads from `name`, into an `InputError`."""
    try:
        yield
    except _LOAD_ERRORS as error:
        raise _cannot_load(name, error) from error
    except Exception as error:
        if type(error) is not Exception:  # which is what tokenizers raises for a damaged file
            raise
        raise _cannot_load(name, error) from error


def _cannot_load(name: str, error: Exception) -> InputError:
    """The one-line error of an LLM that cannot be loaded."""
    reason = str(error).strip().split("\n")[0]
    if not isinstance(error, (OSError, RuntimeError, SafetensorError)) or not reason:
        reason = f"{type(error).__name__}: {reason}"  # such as KeyError: 'vocab'
    return InputError(
        f"llm.name: {name}: {reason}; download it on a machine with a network and set llm.name to "
        "its folder"
    )


def _load_tokenizer(name: str, revision: str | None, offline: bool, **options: Any) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    # With the plain backend, tokenizer.json is complete; AutoTokenizer would replace its word
    # splitting by that of the LLM's family.
    declared = get_tokenizer_config(name, revision=revision, local_files_only=offline)
    where = {"revision": revision, "local_files_only": offline, "trust_remote_code": False}
    if declared.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(name, **where)
    else:
        tokenizer = AutoTokenizer.from_pretrained(name, **where, **options)
    encode_text(tokenizer, "0.00-1.00>so")  # values of a wrong type show only here
    return tokenizer
