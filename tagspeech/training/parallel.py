"""Several processes that train one model: each has its own batches, gradients are shared.

On a CPU the operations of a small model are too small to be shared by threads; batches are not.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.tensor import DTensor

from tagspeech.errors import InputError

PATIENCE = timedelta(hours=12)  # others wait as long while the first process validates or writes


def launch(processes: int, function: Callable[..., None], *args: Any) -> None:
    """Calls `function(*args)` in `processes` processes, of which this one is the first (rank 0).

    Under torchrun the processes exist already and `processes` is not used. Raises `InputError` when
    another process failed; that one has said why on stderr.
    """
    others: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            dist.init_process_group(_backend(), timeout=PATIENCE)
        elif processes > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
            meeting_point = Path(folder) / "store"
            threads = torch.get_num_threads()
            context = multiprocessing.get_context("spawn")
            for rank in range(1, processes):
                how = (rank, processes, meeting_point, threads, function, args)
                others.append(context.Process(target=_worker, args=how, daemon=True))
                others[-1].start()
            _join(0, processes, meeting_point)
        try:
            function(*args)
        except RuntimeError as error:  # gloo's, when a process it talks to has gone
            for other in others:
                other.join(timeout=10)
            if any(other.exitcode for other in others):
                raise InputError("another process of this training failed, see above") from error
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def _join(rank: int, jobs: int, meeting_point: Path) -> None:
    where = meeting_point.as_uri()
    dist.init_process_group(
        _backend(), timeout=PATIENCE, init_method=where, rank=rank, world_size=jobs
    )


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _worker(
    rank: int,
    processes: int,
    meeting_point: Path,
    threads: int,
    function: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(threads)
    _join(rank, processes, meeting_point)
    try:
        function(*args)
    except InputError as error:
        print(f"process {rank}: {error}", file=sys.stderr)
        sys.exit(2)
    dist.destroy_process_group()


def device() -> torch.device:
    """Where this process trains: the GPU of its number on this machine, or the CPU without one.

    Raises `InputError` where a machine has fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if number >= gpus:
        raise InputError(
            f"process {number + 1} has no GPU: there are {gpus} here; start as many processes, or "
            "hide them (CUDA_VISIBLE_DEVICES=) to train on the CPU"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def on_device(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors where this process trains."""
    here = device()
    return [one.to(here) for one in tensors]


def rank() -> int:
    """The number of this process; 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share_weights(model: nn.Module) -> None:
    """Every process starts from the weights of the first."""
    if world_size() > 1:
        for weight in model.parameters():
            if not isinstance(weight, DTensor):  # those are shares already
                dist.broadcast(weight.data, 0)


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """Sums of numbers over all processes."""
    total = torch.tensor(values, dtype=torch.float64)
    if world_size() > 1:
        dist.all_reduce(total)
    return total.tolist()


def share_gradients(weights: Sequence[nn.Parameter]) -> None:
    """Sums the gradients of all processes into each; one message for all weights."""
    if world_size() == 1:
        return
    grads = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    parts: Sequence[Tensor] = flat.split([grad.numel() for grad in grads])
    for weight, part in zip(weights, parts, strict=True):
        weight.grad = part.view_as(weight)


def gather(value: Any) -> list[Any]:
    """The values of all processes, in order of rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if world_size() > 1:
        dist.barrier()
