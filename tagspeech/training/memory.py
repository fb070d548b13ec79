"""What a training will want of memory: known before it starts, but for a batch, which is tried."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tagspeech.errors import InputError
from tagspeech.training.parallel import world_size

log = logging.getLogger(__name__)


def held_memory(model: nn.Module) -> dict[str, int]:
    """Bytes that one process holds throughout: "weights", "gradients", "optimiser".

    Gradients are as large as the weights that learn, twice where processes share them; AdamW keeps
    two numbers for each.
    """
    weights = sum(_bytes(one) for one in (*model.parameters(), *model.buffers()))
    learn = sum(_bytes(one) for one in model.parameters() if one.requires_grad)
    shared = 2 if world_size() > 1 else 1
    return {"weights": weights, "gradients": shared * learn, "optimiser": 2 * learn}


def tell_memory(model: nn.Module, device: torch.device) -> None:
    """Logs how much learns, how much is frozen, and what a process will hold for them.

    Raises `InputError` where `device` has less.
    """
    learn, frozen = (
        sum(one.numel() for one in model.parameters() if one.requires_grad == learns) / 1e6
        for learns in (True, False)
    )
    log.info("%.2f M weights learn, %.2f M are frozen", learn, frozen)
    held = held_memory(model)
    told = ", ".join(f"{name} {gigabytes(count)}" for name, count in held.items())
    there = memory_here(device)
    log.info("memory of a process: %s, and activations; %s has %s", told, device, gigabytes(there))
    if sum(held.values()) > there:
        raise InputError(
            f"{device} has {gigabytes(there)} of memory, a process wants more before any batch: "
            f"{told}; a frozen LLM takes less with llm.dtype: bfloat16, or in more processes with "
            "llm.shard: true; or let less learn"
        )


def _bytes(tensor: Tensor) -> int:
    here = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return here.numel() * here.element_size()


class Activations:
    """Bytes of what is kept from a forward for a backward pass, the weights left out.

    with activations.counted():
        loss = ...
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[int] = set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts what is kept within; tensors that share their memory count once."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        storage = tensor.untyped_storage()
        if not isinstance(base, nn.Parameter) and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def memory_here(device: torch.device) -> int:
    """Bytes of memory that `device` has, free or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gigabytes(count: int) -> str:
    """Bytes as people read them."""
    return f"{count / 1e9:.2f} GB"
