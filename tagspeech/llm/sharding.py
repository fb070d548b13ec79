"""A frozen LLM in shares: each process keeps a part of every layer (FSDP2, arXiv 2304.11277).

A layer is whole only while it computes, forward and backward; in between each of N processes holds
an Nth of it. Embeddings and the output stay whole on every process: their rows are read, and the
output applied at scored positions, outside of what the LLM computes itself.
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
    """Raises `InputError` where `llm.shard` does not go with what learns, or with one process."""
    if not config.shard:
        return
    if config.trainable != "none" or config.lora.r:
        raise InputError(
            "llm.shard: wants a frozen LLM: llm.trainable: none and llm.lora.r: 0; gradients of "
            "its weights or adapters are not shared out"
        )
    if config.layout == "runs":
        raise InputError(
            "llm.layout: runs does not go with llm.shard, where all processes call the layers as "
            "often; wants auto, padded or packed"
        )
    if processes == 1:
        raise InputError(
            "llm.shard: wants several processes (torchrun, --processes); set it to false for one"
        )


def shard_llm(llm: Any, device: torch.device, processes: int) -> None:
    """Leaves of each layer of a frozen `llm` the share of this process, in place, on `device`.

    Each process calls it, and has the same weights before. From then on whatever runs the LLM, a
    validation too, must run in all processes at once.
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
    llm._is_fsdp_managed_module = True  # transformers' word: who is done writing waits for others
    here = sum(
        one.to_local().numel() if isinstance(one, DTensor) else one.numel()
        for one in llm.parameters()
    )
    every = sum(one.numel() for one in llm.parameters())
    log.info("LLM in shares: %.2f M of its %.2f M weights in this process", here / 1e6, every / 1e6)


def is_sharded(model: nn.Module) -> bool:
    """Whether this process has only its share of some weights."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def whole_state(llm: nn.Module) -> dict[str, Tensor]:
    """The state dict of a sharded `llm` with whole weights; each process calls it."""
    return {
        name: weight.full_tensor().cpu() if isinstance(weight, DTensor) else weight
        for name, weight in llm.state_dict().items()
    }
