"""Memory of a training: computed before it starts, except for batches, of which the largest is
tried."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from lhotse import CutSet
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from tagspeech.errors import InputError, is_out_of_memory
from tagspeech.parallel import sum_gradients, world_size
from tagspeech.training.checkpoint import rng_state, set_rng_state
from tagspeech.training.precision import MixedPrecision
from tagspeech.training.steps import Task

log = logging.getLogger(__name__)


def model_memory(model: nn.Module) -> dict[str, int]:
    """Returns the bytes of "weights", "gradients" and "optimiser" in one process.

    Summing gradients over processes takes a second copy of them. AdamW keeps two values for each
    trainable weight.
    """
    weights = sum(_bytes(tensor) for tensor in (*model.parameters(), *model.buffers()))
    trainable = sum(_bytes(weight) for weight in model.parameters() if weight.requires_grad)
    copies = 2 if world_size() > 1 else 1
    return {"weights": weights, "gradients": copies * trainable, "optimiser": 2 * trainable}


def check_memory(model: nn.Module, device: torch.device) -> None:
    """Logs the sizes of the model and its optimizer.

    Raises:
        InputError: If `device` has less memory than that.
    """
    trainable, frozen = (
        sum(weight.numel() for weight in model.parameters() if weight.requires_grad == learns) / 1e6
        for learns in (True, False)
    )
    log.info("%.2f M trainable weights, %.2f M frozen", trainable, frozen)
    needed = model_memory(model)
    listed = ", ".join(f"{name} {gigabytes(count)}" for name, count in needed.items())
    present = device_memory(device)
    log.info(
        *("memory per process: %s, plus activations; %s has %s", listed, device),
        gigabytes(present),
    )
    if sum(needed.values()) > present:
        raise InputError(
            f"{device} has {gigabytes(present)} of memory, but a process needs more before its "
            f"first batch: {listed}; set llm.dtype: bfloat16 for a frozen LLM, split it over "
            "processes with llm.shard: true, or train fewer weights"
        )


def try_largest(
    task: Task,
    batches: Iterable[CutSet],
    weights: Sequence[nn.Parameter],
    precision: MixedPrecision,
) -> None:
    """Runs forward and backward on the largest of `batches` and logs memory and time.

    Gradients and the state of random generators are restored.

    Raises:
        InputError: If memory does not suffice.
    """

    def positions(batch: CutSet) -> int:
        return len(batch) * max(map(task.positions, batch))

    before = rng_state()
    activations = Activations()
    largest = max(batches, key=positions)
    last_step = task.train.max_steps
    batch = task.read(largest, last_step, random.Random(0))
    started = time.monotonic()
    with explain_out_of_memory(batch.groups), activations.counted():
        with precision.autocast():
            loss, _, _ = task.loss(batch, last_step)
        loss.backward()
        sum_gradients(weights)
    seconds = time.monotonic() - started
    log.info(
        "largest batch: %d groups of up to %.1f s, %d positions: activations %s, %s in all; "
        "%.1f s, or %.2f h for %d such steps",
        *(len(largest), _longest(largest), positions(largest), gigabytes(activations.bytes)),
        *(gigabytes(sum(model_memory(task.model).values()) + activations.bytes), seconds),
        *(seconds * task.train.accumulate * last_step / 3600, last_step),
    )
    for weight in weights:
        weight.grad = None
    set_rng_state(before)


@contextmanager
def explain_out_of_memory(batch: CutSet) -> Iterator[None]:
    """Turns an out-of-memory error into an `InputError` that names the batch and the remedy."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"out of memory at a batch of {len(batch)} groups of up to {_longest(batch):.1f} s, "
            f"{next(iter(batch)).id} and others; lower max_duration or max_positions of its "
            "section train and raise accumulate; longest bounds a single group"
        ) from error


class Activations:
    """Counts the bytes that autograd saves for the backward pass, weights excluded."""

    def __init__(self) -> None:
        self.bytes = 0
        self._seen: set[int] = set()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts within this context; tensors that share storage count once."""
        with torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor):
            yield

    def _keep(self, tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        storage = tensor.untyped_storage()
        if not isinstance(base, nn.Parameter) and storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def device_memory(device: torch.device) -> int:
    """Returns the bytes of memory that `device` has, free or not."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gigabytes(count: int) -> str:
    """Formats bytes."""
    return f"{count / 1e9:.2f} GB"


def _bytes(tensor: Tensor) -> int:
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.numel() * local.element_size()


def _longest(batch: CutSet) -> float:
    return max(cut.duration for cut in batch)
