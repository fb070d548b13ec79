"""Processes that train together, or that share the work of a stage.

In data-parallel training each process has its own batches, and gradients are summed. On a CPU the
operations of a small model are too small for several threads; processes use all cores.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.tensor import DTensor

from tagspeech.data.transfer import on_its_way
from tagspeech.errors import InputError

TIMEOUT = timedelta(hours=12)  # others wait while the first process validates or writes


def launch(processes: int, function: Callable[..., None], *args: Any) -> None:
    """Calls `function(*args)` in `processes` processes; this process is the first (rank 0).

    Under torchrun the processes exist already and `processes` is ignored.

    Raises:
        InputError: If another process failed; its own message is on stderr.
    """
    others: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            dist.init_process_group(_backend(), timeout=TIMEOUT)
            device()
        elif processes > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
            rendezvous = Path(folder) / "store"
            threads = torch.get_num_threads()
            context = multiprocessing.get_context("spawn")
            for rank in range(1, processes):
                worker_args = (rank, processes, rendezvous, threads, function, args)
                others.append(context.Process(target=_worker, args=worker_args, daemon=True))
                others[-1].start()
            _join(0, processes, rendezvous)
        try:
            function(*args)
        except RuntimeError as error:  # raised by gloo when another process has ended
            for other in others:
                other.join(timeout=10)
            if any(other.exitcode for other in others):
                raise InputError("another process failed; see its message above") from error
            raise
        finally:
            if dist.is_initialized():
                dist.destroy_process_group()


def _join(rank: int, processes: int, rendezvous: Path) -> None:
    dist.init_process_group(_backend(), rendezvous.as_uri(), TIMEOUT, processes, rank)


def _backend() -> str:
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"


def _worker(
    rank: int,
    processes: int,
    rendezvous: Path,
    threads: int,
    function: Callable[..., None],
    args: tuple[Any, ...],
) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    os.environ["LOCAL_RANK"] = str(rank)  # the number of its GPU, as under torchrun
    _join(rank, processes, rendezvous)
    try:
        device()
        function(*args)
    except InputError as error:
        print(f"process {rank}: {error}", file=sys.stderr)
        sys.exit(2)
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """Ends this process when the first one was killed: a new run must find nobody at work."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def device() -> torch.device:
    """Returns the GPU of this process, or the CPU if the machine has no GPU.

    Raises:
        InputError: If a machine has fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, gpus = int(os.environ.get("LOCAL_RANK", rank())), torch.cuda.device_count()
    if number >= gpus:
        raise InputError(
            f"process {number + 1} has no GPU: this machine has {gpus}; start as many processes, "
            "or hide the GPUs (CUDA_VISIBLE_DEVICES=) to compute on the CPU"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def on_device(tensors: Iterable[Tensor]) -> list[Tensor]:
    """Moves tensors to the device of this process; nothing waits for the copies."""
    here = device()
    return [on_its_way(tensor, here) for tensor in tensors]


def rank() -> int:
    """Returns the number of this process; process 0 writes files and shows progress."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Returns the number of processes that work together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def broadcast_weights(model: nn.Module) -> None:
    """Copies the weights that are trained from the first process to all others.

    Frozen ones come from the same files everywhere; sharded ones differ between processes.
    """
    if world_size() > 1:
        for weight in model.parameters():
            if weight.requires_grad and not isinstance(weight, DTensor):
                dist.broadcast(weight.data, 0)


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """Sums each value over all processes."""
    total = torch.tensor(values, dtype=torch.float64)
    if world_size() > 1:
        dist.all_reduce(total)
    return total.tolist()


def sum_gradients(weights: Sequence[nn.Parameter]) -> None:
    """Replaces gradients by their sums over all processes, in a single message."""
    if world_size() == 1:
        return
    flat = torch.cat(
        [(torch.zeros_like(w) if w.grad is None else w.grad).flatten() for w in weights]
    )
    dist.all_reduce(flat)
    parts: Sequence[Tensor] = flat.split([weight.numel() for weight in weights])
    for weight, part in zip(weights, parts, strict=True):
        weight.grad = part.view_as(weight)


def gather(value: Any) -> list[Any]:
    """Returns the values of all processes in order of rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def wait_for_all() -> None:
    """Blocks until all processes have called this."""
    if world_size() > 1:
        dist.barrier()
