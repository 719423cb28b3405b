"""The networks of Karras et al. 2022, arXiv:2206.00364: DDPM++, NCSN++ and ADM as EDM's files have them.

What stands where is read off the names of the weights: levels, blocks, attention, skips.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.errors import CheckpointError
from models.families.base import size, whole
from models.layers import sinusoidal_embedding
from models.named import NamedLayers

_MODULE = re.compile(r"(enc|dec)\.([1-9]\d*)x\2_\w+\.")
_BESIDE = re.compile(r"_aux_(up|skip|down)$")


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
        CheckpointError: if the weights are not exactly those of such a network.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        plan = _Plan(state)
        super().__init__(whole("EDM", state, plan.weights, configured=False))
        self.song, self.encoder, self.decoder = plan.song, plan.encoder, plan.decoder
        self.size, self.channels, self.classes = plan.sizes[0], plan.channels, plan.classes

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


class _Plan:
    """What the names and widths of some weights tell: the modules, and the shape of every weight.

    Args:
        state: weights under EDM's names.

    Attributes:
        song: whether it is DDPM++ or NCSN++, not ADM.
        sizes: the resolutions, the highest first.
        channels: C of the images.
        classes: K.
        encoder: names of modules in the order in which they act.
        decoder: those of the way up, without the convolution behind ``aux_norm``.
        weights: the shape of every weight.

    Raises:
        CheckpointError: if these are not the weights of such a network, or lack what tells others' shapes.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = state
        modules = {tuple(name.split(".")[:2]) for name in state if _MODULE.match(name)}
        if {part for part, _ in modules} != {"enc", "dec"}:
            raise CheckpointError("these are not the weights of an EDM network: it has blocks enc. and dec.")
        if odd := sorted(name for _, name in modules if _BESIDE.search(name)):
            raise CheckpointError(f"EDM networks with images beside the blocks ({odd[0]}) are not supported")
        self.song = not self._has("out_")
        sides = {int(name.split("x")[0]) for _, name in modules}
        self.sizes = [max(sides)]
        while self.sizes[-1] // 2 >= min(sides):
            self.sizes.append(self.sizes[-1] // 2)
        found = Counter((part, name.split("_")[0]) for part, name in modules if "_block" in name)
        blocks = max((number - (part == "dec") for (part, _), number in found.items()), default=0)
        # NCSN++ has Fourier features and a residual encoder; EDM's files have neither without the other.
        self._ncsn = self._has("map_noise.") or any(name.endswith("aux_residual") for _, name in modules)
        numbers = [f"block{number}" for number in range(blocks + 1)]
        self.encoder, self.decoder = [], []
        for side in self.sizes:
            first = ["conv"] if side == self.sizes[0] else ["down", "aux_residual"][: 1 + self._ncsn]
            self.encoder += [f"{side}x{side}_{name}" for name in (*first, *numbers[:-1])]
        for side in reversed(self.sizes):
            first = ["in0", "in1"] if side == self.sizes[-1] else ["up"]
            self.decoder += [f"{side}x{side}_{name}" for name in (*first, *numbers)]
        self.decoder += [f"{self.sizes[0]}x{self.sizes[0]}_aux_norm"] * self.song
        self.weights: dict[str, tuple[int, ...]] = {}
        self.channels = size(state, f"enc.{self.encoder[0]}.weight", 1)
        self._embed()
        last = f"dec.{self.decoder[-1]}" if self.song else "out_norm"
        self._follow(last, last.replace("norm", "conv"))

    def _has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self._state)

    def _layer(self, name: str, *shape: int, bias: bool = True) -> None:
        self.weights[f"{name}.weight"] = shape
        if bias:
            self.weights[f"{name}.bias"] = shape[:1]

    def _embed(self) -> None:
        """Take down the layers that embed noise and label."""
        self._told, width = (size(self._state, "map_layer0.weight", dim) for dim in (0, 1))
        self._layer("map_layer0", self._told, width)
        self._layer("map_layer1", self._told, self._told)
        self.classes = size(self._state, "map_label.weight", 1) if self._has("map_label.") else 0
        if self.classes:
            self._layer("map_label", width if self.song else self._told, self.classes, bias=self.song)
        if self._has("map_augment."):  # of training alone
            self._layer("map_augment", width, size(self._state, "map_augment.weight", 1), bias=False)
        if self._ncsn:
            self.weights["map_noise.freqs"] = (width // 2,)

    def _follow(self, last_norm: str, last_conv: str) -> None:
        """Take down the layers on the way of an image, whose number of channels each hands to the next."""
        width, skips = self.channels, list[int]()
        aside = width
        for name in (f"enc.{name}" for name in self.encoder):
            if name.endswith("conv"):
                width = self._conv(name, width, 3)
            elif name.endswith("aux_residual"):
                aside = self._conv(name, aside, 3, resampled=True)
                continue
            else:
                width = self._block(name, width)
            skips.append(width)
        for name in (f"dec.{name}" for name in self.decoder):
            if "_aux_" not in name:
                width = self._block(name, width + (skips.pop() if "_block" in name else 0))
        self._layer(last_norm, width)
        doubled = size(self._state, f"{last_conv}.weight") == 2 * self.channels  # iDDPM's variance
        self._layer(last_conv, (1 + doubled) * self.channels, width, 3, 3)

    def _conv(self, name: str, width: int, kernel: int, *, resampled: bool = False) -> int:
        out = size(self._state, f"{name}.weight")
        self._layer(name, out, width, kernel, kernel)
        if resampled:
            self._filter(name)
        return out

    def _filter(self, name: str) -> None:
        taps = size(self._state, f"{name}.resample_filter", 3)
        self.weights[f"{name}.resample_filter"] = (1, 1, taps, taps)

    def _block(self, name: str, width: int) -> int:
        resampled = name.endswith(("_up", "_down"))
        self._layer(f"{name}.norm0", width)
        out = self._conv(f"{name}.conv0", width, 3, resampled=resampled)
        self._layer(f"{name}.affine", out if self.song else 2 * out, self._told)
        self._layer(f"{name}.norm1", out)
        self._layer(f"{name}.conv1", out, out, 3, 3)
        if width != out or (resampled and self.song):
            self._layer(f"{name}.skip", out, width, 1, 1)
        if resampled:
            self._filter(f"{name}.skip")
        if any(self._has(f"{name}.{layer}.") for layer in ("norm2", "qkv", "proj")):
            self._layer(f"{name}.norm2", out)
            self._layer(f"{name}.qkv", 3 * out, out, 1, 1)
            self._layer(f"{name}.proj", out, out, 1, 1)
        return out


def is_edm(state: Mapping[str, Any]) -> bool:
    """Return whether a state dict has the names of an EDM network."""
    return "map_layer0.weight" in state and "map_layer1.weight" in state
