"""Counts operations of torch, as a stand-in for what a GPU would be asked to do."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """The operations that ran in a `with` block, by name, and how many of them read a value."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names[str(function)] += 1
        return function(*args, **(kwargs or {}))

    @property
    def reads(self) -> int:
        """Values that Python read, for each of which it would wait for a GPU."""
        return self.names["aten._local_scalar_dense.default"]
