"""Number types of a training: products, weights of a frozen LLM, scaled gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.llm.load import DTYPES


def product_type(precision: str, device: torch.device) -> torch.dtype:
    """Returns the type of matrix products; trainable weights and sums stay in float32.

    Args:
        precision: `train.precision`. auto is bfloat16 where the device supports it, else float32.

    Raises:
        InputError: If `precision` is unknown or not supported on `device`.
    """
    _check_choice("train.precision", precision)
    on_gpu = device.type == "cuda"
    if precision == "float16" and not on_gpu:
        raise InputError("train.precision: float16 needs a GPU; use bfloat16 on a CPU")
    if precision != "auto":
        return DTYPES[precision]
    has_bfloat16 = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if on_gpu
        else torch.cpu._is_avx512_bf16_supported()
    )
    return torch.bfloat16 if has_bfloat16 else torch.float32


def llm_type(llm: LLMConfig, precision: str, device: torch.device) -> torch.dtype:
    """Returns the type of the LLM's weights in training (`llm.dtype`).

    Trainable weights, adapters included, are float32; frozen weights need no float32 copy. auto is
    bfloat16 for a frozen LLM on a GPU that computes products in bfloat16, else float32.

    Raises:
        InputError: If the type is unknown or does not go with `llm.trainable` or `precision`.
    """
    _check_choice("llm.dtype", llm.dtype)
    if llm.trainable == "full" and llm.dtype not in ("auto", "float32"):
        raise InputError(
            f"llm.dtype: {llm.dtype} needs llm.trainable: none; trainable weights are float32"
        )
    products = product_type(precision, device)
    if llm.dtype == "float16" and products != torch.float16:
        raise InputError(
            "llm.dtype: float16 needs train.precision: float16; gradients through such an LLM "
            "vanish unless they are scaled"
        )
    if llm.dtype != "auto":
        return DTYPES[llm.dtype]
    lower = device.type == "cuda" and llm.trainable == "none" and products == torch.bfloat16
    return torch.bfloat16 if lower else torch.float32


def _check_choice(key: str, value: str) -> None:
    choices = ("auto", *DTYPES)
    if value not in choices:
        raise InputError(f"{key}: must be one of {', '.join(choices)}, got {value!r}")


class MixedPrecision:
    """Matrix products in `dtype` on `device`, and optimizer steps.

    With float16 the loss is multiplied by a scale, so that small gradients do not vanish. A step
    whose gradients overflow is skipped and halves the scale (arXiv 1710.03740).
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def autocast(self) -> torch.autocast:
        """Returns a context in which products are of type `dtype` where that is safe."""
        lower = self.dtype != torch.float32
        return torch.autocast(
            self.device.type, self.dtype if lower else torch.bfloat16, enabled=lower
        )

    def step(
        self, optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], clip_norm: float
    ) -> Tensor:
        """Clips the gradients (0: not) and takes an optimizer step; returns their norm before."""
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(weights, clip_norm or math.inf)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm
