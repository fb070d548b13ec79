"""Copies to a GPU that nothing waits for."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor


def int_tensors(device: torch.device, *lists: Iterable[int]) -> list[Tensor]:
    """Lists of integers as tensors, by a single copy to the device, which is not waited for."""
    arrays = [np.fromiter(numbers, np.int64) for numbers in lists]
    joined = on_its_way(torch.from_numpy(np.concatenate(arrays)), device)
    return list(joined.split([len(array) for array in arrays]))


def on_its_way(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; a copy to a GPU is not waited for."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
