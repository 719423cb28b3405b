"""What a network takes of memory, found by running it once on one sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, UntypedStorage
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True)
class Footprint:
    """Bytes that a function of tensors takes.

    Attributes:
        resident: the bytes of the tensors that were there before: weights, tables.
        working: the most that those it makes take at one time.
    """

    resident: int
    working: int


def footprint(function: Callable[[], object]) -> Footprint:
    """Run a function and return what it took.

    Every tensor that an operation takes or gives is counted by its storage, once, for as long as it lives.
    What an operation needs inside, as a convolution's workspace, is not seen.
    """
    tally = _Tally()
    with torch.no_grad(), tally:
        kept = function()
    del kept
    return Footprint(sum(tally.resident.values()), tally.peak)


class _Tally(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resident: WeakKeyDictionary[UntypedStorage, int] = WeakKeyDictionary()
        self._made: WeakKeyDictionary[UntypedStorage, int] = WeakKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            storage = tensor.untyped_storage()
            if storage not in self._made:
                self.resident[storage] = storage.nbytes()
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            storage = tensor.untyped_storage()
            if storage not in self.resident:
                self._made[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self._made.values()))
        return result


def _tensors(tree: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
