"""Networks that are read off their weights: layers looked up by their names in a state dict."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class NamedLayers(nn.Module):
    """Weights under the names of a state dict; subclasses say how they act, in evaluation mode.

    Args:
        state: every weight by its name, in float32.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, weight in state.items():
            self.register_buffer(_slot(name), weight.detach().float().clone())

    def weight(self, name: str) -> Tensor | None:
        """Return a weight, None where the network has none of that name."""
        return self._buffers.get(_slot(name))

    def need(self, name: str) -> Tensor:
        """Return a weight that must be there.

        Raises:
            KeyError: if it is not.
        """
        found = self.weight(name)
        if found is None:
            raise KeyError(name)
        return found

    def linear(self, name: str, x: Tensor) -> Tensor:
        """Return x A^T + b of a layer, with or without b."""
        return F.linear(x, self.need(f"{name}.weight").to(x.dtype), _as(self.weight(f"{name}.bias"), x))


def _slot(name: str) -> str:
    return name.replace(".", "/")  # a module's own names hold no dots


def _as(weight: Tensor | None, x: Tensor) -> Tensor | None:
    return None if weight is None else weight.to(x.dtype)
