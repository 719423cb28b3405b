"""The U-Net of the DDPM line of papers, with the options in which its public descendants differ.

x (B, C, H, W) and t (B,) go in, the network's raw output (B, C or 2C, H, W) comes out. Every resolution has
``blocks`` residual blocks on the way down and one more on the way up, each followed by self-attention where
the level has it; every feature map of the way down is concatenated to its counterpart on the way up.

Source: Ho et al. 2020, arXiv:2006.11239, appendix B. Scale-shift norm, several heads and learned variances:
Nichol & Dhariwal 2021, arXiv:2102.09672. Residual blocks that resample: Dhariwal & Nichol 2021,
arXiv:2105.05233.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.config import UNetConfig
from models.layers import (
    Attention,
    Downsample,
    ResBlock,
    Upsample,
    group_norm,
    sinusoidal_embedding,
)


def best_scalar(abar: Tensor, deviation: float = 0.5) -> tuple[Tensor, Tensor]:
    """Return a and b of eps = a x_t + b r: the best scalar predictor of eps from x_t, and what it leaves.

    With Var[x_0] = s^2 and V = abar s^2 + 1 - abar: a = sqrt(1 - abar) / V, b = s sqrt(abar / V), and the
    remainder r has unit variance at every t. A network that is to say r has nothing to learn at first, and an
    error of its own moves the predicted x_0 by s / sqrt(V) of itself at most, however small abar is.

    Args:
        abar: abar_t.
        deviation: s; that of natural images in [-1, 1].

    Source: the preconditioning of Karras et al. 2022, arXiv:2206.00364, section 5, put in terms of eps.
    """
    variance = abar * deviation**2 + 1 - abar
    return (1 - abar).sqrt() / variance, deviation * (abar / variance).sqrt()


class UNet(nn.Module):
    """The network described in this module's docstring.

    It runs in any memory format, under autocast and under ``torch.compile`` (no graph break). Made with its
    training initialisation: Glorot-uniform weights, zero biases, zero weights where a residual branch ends.
    """

    factor: Tensor
    spread: Tensor

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.time_embed = nn.Sequential(
            nn.Linear(c.channels, 4 * c.channels), nn.SiLU(), nn.Linear(4 * c.channels, 4 * c.channels)
        )
        self.label_embed = nn.Embedding(c.classes, 4 * c.channels) if c.classes else None
        pixels = c.patch**2
        self.conv_in = nn.Conv2d(pixels * c.in_channels, c.channels, 3, padding=1)
        last = len(c.widths) - 1
        width, skips = c.channels, [c.channels]
        down, up = [], []
        for level, out in enumerate(c.widths):
            down.append(DownLevel(c, width, level, resample=level < last))
            width = out
            skips += [out] * (c.blocks + (level < last))
        self.middle = Middle(c, width)
        for level in reversed(range(len(c.widths))):
            incoming = [skips.pop() for _ in range(c.blocks + 1)]
            up.append(UpLevel(c, width, incoming, level, resample=level > 0))
            width = c.widths[level]
        self.down = nn.ModuleList(down)
        self.up = nn.ModuleList(reversed(up))  # indexed like `down`: 0 is the highest resolution
        self.norm_out = group_norm(c, width)
        self.conv_out = nn.Conv2d(width, pixels * c.out_channels, 3, padding=1)
        if c.residual:
            self.register_buffer("factor", torch.zeros(c.residual))
            self.register_buffer("spread", torch.zeros(c.residual))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights of an untrained network.

        Source: Ho et al. 2020's code: variance scaling over the mean fan with a uniform law, which is
        Glorot's, and scale 0 for the last layer of every residual branch and of the network.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        for name, module in self.named_modules():
            if name == "conv_out" or name.endswith((".conv2", ".out")):
                nn.init.zeros_(module.get_parameter("weight"))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return the raw output for images x (B, C, H, W) at times t (B,), integer or real.

        With ``residual``, t must be the time steps themselves, 0 to T-1. A network with a table of labels
        takes labels (B,) too.

        Raises:
            ValueError: if H or W cannot be halved as often as the network has levels.
        """
        c = self.config
        if x.shape[-1] % c.divisor or x.shape[-2] % c.divisor:
            raise ValueError(f"height and width must be multiples of {c.divisor}, got {tuple(x.shape[-2:])}")
        emb = sinusoidal_embedding(t, c.channels, c.embedding_order, c.embedding_shift)
        emb = self.time_embed(emb.to(x.dtype))
        if self.label_embed is not None:
            if label is None:
                raise ValueError("a class-conditional network needs labels")
            emb = emb + self.label_embed(label)
        emb = F.silu(emb)  # every block takes it through the same SiLU
        h = self.conv_in(F.pixel_unshuffle(x, c.patch))
        skips = [h]
        for level in self.down:
            h = level(h, emb, skips)
        h = self.middle(h, emb)
        for level in reversed(self.up):
            h = level(h, emb, skips)
        out = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), c.patch)
        return self._corrected(x, t, out) if c.residual else out

    def _corrected(self, x: Tensor, t: Tensor, out: Tensor) -> Tensor:
        """Return eps = a_t x + b_t out for the channels of eps, in x's precision; v as it is."""
        factor, spread = (table[t.long()].view(-1, 1, 1, 1) for table in (self.factor, self.spread))
        out, channels = out.to(x.dtype), x.shape[1]
        eps = torch.addcmul(factor * x, spread, out[:, :channels])
        return torch.cat([eps, out[:, channels:]], dim=1)


class DownLevel(nn.Module):
    """The blocks of one resolution on the way down; every result is put on the stack ``skips``."""

    def __init__(self, config: UNetConfig, width: int, level: int, *, resample: bool) -> None:
        super().__init__()
        out = config.widths[level]
        self.blocks = nn.ModuleList(
            ResBlock(config, width if i == 0 else out, out) for i in range(config.blocks)
        )
        self.attentions = _attentions(config, level, config.blocks)
        self.resample = _resampler(config, out, "down") if resample else None

    def forward(self, h: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the feature map for the next level."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            h = attention(block(h, emb))
            skips.append(h)
        if self.resample is not None:
            h = self.resample(h, emb)
            skips.append(h)
        return h


class UpLevel(nn.Module):
    """The blocks of one resolution on the way up; each takes one feature map from the stack ``skips``."""

    def __init__(
        self, config: UNetConfig, width: int, incoming: list[int], level: int, *, resample: bool
    ) -> None:
        super().__init__()
        out = config.widths[level]
        self.blocks = nn.ModuleList(
            ResBlock(config, (width if i == 0 else out) + skip, out) for i, skip in enumerate(incoming)
        )
        self.attentions = _attentions(config, level, len(incoming))
        self.resample = _resampler(config, out, "up") if resample else None

    def forward(self, h: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        """Return the feature map for the next level."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            h = attention(block(torch.cat([h, skips.pop()], dim=1), emb))
        if self.resample is not None:
            h = self.resample(h, emb)
        return h


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.block1 = ResBlock(config, width, width)
        self.attention = Attention(config, width)
        self.block2 = ResBlock(config, width, width)

    def forward(self, h: Tensor, emb: Tensor) -> Tensor:
        """Return a feature map of the same shape."""
        h = self.attention(self.block1(h, emb))
        out: Tensor = self.block2(h, emb)
        return out


def _attentions(config: UNetConfig, level: int, count: int) -> nn.ModuleList:
    if not config.attention[level]:
        return nn.ModuleList(nn.Identity() for _ in range(count))
    return nn.ModuleList(Attention(config, config.widths[level]) for _ in range(count))


def _resampler(config: UNetConfig, width: int, direction: Literal["up", "down"]) -> nn.Module:
    if config.resample == "resblock":
        return ResBlock(config, width, width, direction)
    return Downsample(config, width) if direction == "down" else Upsample(width)
