"""In which numbers a training computes: products, the weights of a frozen LLM, scaled gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError
from tagspeech.llm.load import DTYPES


def product_type(precision: str, device: torch.device) -> torch.dtype:
    """The type of products (`train.precision`); weights that learn, and sums, stay in float32.

    auto is bfloat16 where the device has it, else float32. Raises `InputError` for a type that is
    none, or not to be had on `device`.
    """
    if precision not in ("auto", *DTYPES):
        wants = ", ".join(("auto", *DTYPES))
        raise InputError(f"train.precision: wants one of {wants}, found {precision!r}")
    on_gpu = device.type == "cuda"
    if precision == "float16" and not on_gpu:
        raise InputError("train.precision: float16 wants a GPU; training is on a CPU: bfloat16")
    if precision != "auto":
        return DTYPES[precision]
    has_bfloat16 = (
        torch.cuda.is_bf16_supported(including_emulation=False)
        if on_gpu
        else torch.cpu._is_avx512_bf16_supported()
    )
    return torch.bfloat16 if has_bfloat16 else torch.float32


def llm_type(llm: LLMConfig, precision: str, device: torch.device) -> torch.dtype:
    """The type of the LLM's weights in training (`llm.dtype`).

    Weights that learn are float32, adapters too; frozen ones need no such master copy. auto is
    bfloat16 for a frozen LLM on a GPU that computes products in it, else float32. Raises
    `InputError` for what does not go together.
    """
    if llm.dtype not in ("auto", *DTYPES):
        wants = ", ".join(("auto", *DTYPES))
        raise InputError(f"llm.dtype: wants one of {wants}, found {llm.dtype!r}")
    if llm.trainable == "full" and llm.dtype not in ("auto", "float32"):
        raise InputError(
            f"llm.dtype: {llm.dtype} wants llm.trainable: none; weights that learn are float32"
        )
    products = product_type(precision, device)
    if llm.dtype == "float16" and products != torch.float16:
        raise InputError(
            "llm.dtype: float16 wants train.precision: float16; gradients through such an LLM "
            "vanish unless they are scaled"
        )
    if llm.dtype != "auto":
        return DTYPES[llm.dtype]
    lower = device.type == "cuda" and llm.trainable == "none" and products == torch.bfloat16
    return torch.bfloat16 if lower else torch.float32


class Arithmetic:
    """How a step computes on `device`: products in `dtype`, steps of the optimiser.

    Where products are float16, losses are multiplied by a scale that follows the gradients, so that
    small ones do not vanish; a step whose gradients overflow is left out and the scale halved
    (arXiv 1710.03740).
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self.dtype, self.device = dtype, device
        self.scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def products(self) -> torch.autocast:
        """A context in which products are of type `dtype`, where that is safe."""
        lower = self.dtype != torch.float32
        return torch.autocast(
            self.device.type, self.dtype if lower else torch.bfloat16, enabled=lower
        )

    def step(
        self, optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], clip_norm: float
    ) -> Tensor:
        """One step by the gradients in `weights`, clipped; gives their norm before."""
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(weights, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()
        return norm
