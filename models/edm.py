"""The networks of Karras et al. 2022, arXiv:2206.00364: DDPM++, NCSN++ and ADM as EDM's files have them.

What stands where is read off the names of the weights: levels, blocks, attention, skips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.errors import CheckpointError
from models.layers import sinusoidal_embedding
from models.named import NamedLayers


class EDMNetwork(NamedLayers):
    """F(x, c_noise, label) of EDM; see `bench.preconditioned`.

    DDPM++ and NCSN++ (Song et al. 2021, arXiv:2011.13456): the embedding is added before the second norm,
    branches are summed and scaled by sqrt(1/2), one head. ADM (Dhariwal & Nichol 2021, arXiv:2105.05233): it
    scales and shifts the second norm, branches are summed, 64 channels a head.

    Args:
        state: weights under EDM's names.

    Attributes:
        channels: C of the images.
        size: height and width.
        classes: K, 0 for an unconditional network; label K is none, a vector of zeros.

    Raises:
        CheckpointError: if the weights are not those of such a network.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__(state)
        self.song = self.weight("out_conv.weight") is None
        self.encoder, self.decoder = _modules(state, "enc"), _modules(state, "dec")
        if not self.encoder or not self.decoder:
            raise CheckpointError("these are not the weights of an EDM network: it has blocks enc. and dec.")
        self.size = int(self.encoder[0].split("x")[0])
        self.channels = self.need(f"enc.{self.encoder[0]}.weight").shape[1]
        label = self.weight("map_label.weight")
        self.classes = 0 if label is None else label.shape[1]

    def forward(self, x: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Return F for scaled images x (B, C, H, W), c_noise (B,) and labels (B,)."""
        told = self._embedding(x, noise, label)
        skips: list[Tensor] = []
        aside, h = x, x
        for name in self.encoder:
            place = f"enc.{name}"
            if "aux_residual" in name:
                h = aside = (h + self._conv(place, aside, down=True, fused=True)) / math.sqrt(2)
                skips[-1] = h
            else:
                h = self._conv(place, h) if name.endswith("conv") else self._block(place, h, told)
                skips.append(h)
        for name in self.decoder:
            place = f"dec.{name}"
            if "aux_norm" in name:
                return self._conv(f"dec.{name.replace('norm', 'conv')}", F.silu(self._norm(place, h)))
            if len(self.need(f"{place}.norm0.weight")) != h.shape[1]:
                h = torch.cat([h, skips.pop()], 1)
            h = self._block(place, h, told)
        return self._conv("out_conv", F.silu(self._norm("out_norm", h)))

    def _embedding(self, x: Tensor, noise: Tensor, label: Tensor | None) -> Tensor:
        frequencies = self.weight("map_noise.freqs")
        if frequencies is not None:
            angle = 2 * math.pi * noise.to(x.dtype)[:, None] * frequencies
            told = torch.cat([angle.sin(), angle.cos()], 1)
        else:
            width = self.need("map_layer0.weight").shape[1]
            order, shift = ("sin-cos", 1) if self.song else ("cos-sin", 0)
            told = sinusoidal_embedding(noise, width, order, shift).to(x.dtype)  # type: ignore[arg-type]
        known = self._label(label, x)
        if self.song:
            told = told if known is None else told + self.linear("map_label", known * math.sqrt(self.classes))
            told = self.linear("map_layer1", F.silu(self.linear("map_layer0", told)))
        else:
            told = self.linear("map_layer1", F.silu(self.linear("map_layer0", told)))
            told = told if known is None else told + self.linear("map_label", known)
        return F.silu(told)

    def _label(self, label: Tensor | None, x: Tensor) -> Tensor | None:
        """Return one-hot labels (B, K), zeros for none."""
        if not self.classes:
            return None
        if label is None:
            return x.new_zeros(len(x), self.classes)
        return F.one_hot(label, self.classes + 1)[:, : self.classes].to(x.dtype)

    def _block(self, name: str, x: Tensor, told: Tensor) -> Tensor:
        up, down = name.endswith("_up"), name.endswith("_down")
        h = self._conv(f"{name}.conv0", F.silu(self._norm(f"{name}.norm0", x)), up=up, down=down)
        moved = self.linear(f"{name}.affine", told)[:, :, None, None]
        if self.song:
            h = F.silu(self._norm(f"{name}.norm1", h + moved))
        else:
            scale, shift = moved.chunk(2, 1)
            h = F.silu(self._norm(f"{name}.norm1", h) * (1 + scale) + shift)
        h = self._conv(f"{name}.conv1", h)
        half = math.sqrt(0.5) if self.song else 1.0
        has_skip = up or down or self.weight(f"{name}.skip.weight") is not None
        h = (h + (self._conv(f"{name}.skip", x, up=up, down=down) if has_skip else x)) * half
        return self._attention(name, h) * half if self.weight(f"{name}.qkv.weight") is not None else h

    def _attention(self, name: str, x: Tensor) -> Tensor:
        batch, width = x.shape[:2]
        heads = 1 if self.song else max(1, width // 64)
        qkv = self._conv(f"{name}.qkv", self._norm(f"{name}.norm2", x))
        q, k, v = qkv.view(batch, heads, width // heads, 3, -1).permute(3, 0, 1, 4, 2)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(x.shape)
        return x + self._conv(f"{name}.proj", mixed)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        width = x.shape[1]
        eps = 1e-6 if self.song else 1e-5
        weight, bias = self.need(f"{name}.weight"), self.need(f"{name}.bias")
        return F.group_norm(x, min(32, width // 4), weight.to(x.dtype), bias.to(x.dtype), eps)

    def _conv(
        self, name: str, x: Tensor, *, up: bool = False, down: bool = False, fused: bool = False
    ) -> Tensor:
        """Return a convolution of x, resampled by the layer's filter before it, or, fused, behind it."""
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        kernel = self.weight(f"{name}.resample_filter")
        pad = 0 if weight is None else weight.shape[-1] // 2
        if kernel is not None and fused and weight is not None:
            around = (kernel.shape[-1] - 1) // 2
            h = F.conv2d(x, weight.to(x.dtype), padding=pad + around)
            h = _filtered(h, kernel, up=False, padding=0)
        else:
            if kernel is not None and (up or down):
                x = _filtered(x, kernel, up=up, padding=(kernel.shape[-1] - 1) // 2)
            h = x if weight is None else F.conv2d(x, weight.to(x.dtype), padding=pad)
        return h if bias is None else h + bias.to(h.dtype).view(1, -1, 1, 1)


def _filtered(x: Tensor, kernel: Tensor, *, up: bool, padding: int) -> Tensor:
    """Return x at twice or half the resolution, every channel convolved with the same kernel."""
    channels = x.shape[1]
    each = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    if up:
        return F.conv_transpose2d(x, 4 * each, stride=2, padding=padding, groups=channels)
    return F.conv2d(x, each, stride=2, padding=padding, groups=channels)


def _modules(state: Mapping[str, Tensor], part: str) -> list[str]:
    """Return the names of the modules of a part in the order in which they act, ``aux_conv`` left out."""
    names = {name.split(".")[1] for name in state if name.startswith(f"{part}.")}
    if odd := sorted(name for name in names if "aux_up" in name or "aux_skip" in name or "aux_down" in name):
        raise CheckpointError(f"EDM networks with images beside the blocks ({odd[0]}) are not supported")

    def place(name: str) -> tuple[int, int, int]:
        size, _, kind = name.partition("_")
        side = int(size.split("x")[0])
        first = {"conv": 0, "down": 0, "up": 0, "in0": 0, "in1": 1, "aux_residual": 1, "aux_norm": 1000}
        number = first[kind] if kind in first else 2 + int(kind.removeprefix("block"))
        return (-side if part == "enc" else side), number, 0

    return sorted((name for name in names if not name.endswith("aux_conv")), key=place)


def is_edm(state: Mapping[str, Any]) -> bool:
    """Return whether a state dict has the names of an EDM network."""
    return "map_layer0.weight" in state and "map_layer1.weight" in state
