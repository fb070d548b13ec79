"""A sharded frozen LLM: each process keeps a part of every layer (FSDP2, arXiv 2304.11277).

A layer is gathered while it computes, forward and backward; otherwise each of N processes has an
Nth of it. Embeddings and the output are not sharded: embeddings are looked up, and the output
applied at scored positions, outside the LLM's forward pass.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tagspeech.config import LLMConfig
from tagspeech.errors import InputError

log = logging.getLogger(__name__)


def check_sharding(config: LLMConfig, processes: int) -> None:
    """Raises `InputError` if `llm.shard` does not fit the other settings or the processes."""
    if not config.shard:
        return
    if config.trainable != "none" or config.lora.r:
        raise InputError(
            "llm.shard: needs a frozen LLM: llm.trainable: none and llm.lora.r: 0; gradients of "
            "its weights or adapters are not sharded"
        )
    if config.layout == "runs":
        raise InputError(
            "llm.layout: must be auto, padded or packed with llm.shard, got runs: all processes "
            "must call the layers equally often"
        )
    if processes == 1:
        raise InputError(
            "llm.shard: needs several processes (torchrun, --processes); set it to false for one"
        )


def shard_llm(llm: Any, device: torch.device, processes: int) -> None:
    """Shards the layers of a frozen `llm` over the processes, in place, on `device`.

    Every process calls it with the same weights. Afterwards everything that runs the LLM,
    validation included, must run in all processes at once.
    """
    mesh = init_device_mesh(device.type, (processes,))
    decoder = llm.get_decoder()
    for layers in decoder.children():
        if isinstance(layers, nn.ModuleList):
            for layer in layers:
                fully_shard(layer, mesh=mesh)
    ends = (llm.get_input_embeddings(), llm.get_output_embeddings())
    whole = {weight for end in ends for weight in end.parameters()}
    fully_shard(decoder, mesh=mesh, ignored_params=whole)
    llm._is_fsdp_managed_module = True  # makes transformers wait for all processes when it saves
    local = sum(
        weight.to_local().numel() if isinstance(weight, DTensor) else weight.numel()
        for weight in llm.parameters()
    )
    total = sum(weight.numel() for weight in llm.parameters())
    log.info("sharded LLM: %.2f M of %.2f M weights in this process", local / 1e6, total / 1e6)


def is_sharded(model: nn.Module) -> bool:
    """Whether this process has only its shard of some weights."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def whole_state(llm: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded `llm` with gathered weights; every process calls it."""
    return {
        name: weight.full_tensor().cpu() if isinstance(weight, DTensor) else weight
        for name, weight in llm.state_dict().items()
    }
