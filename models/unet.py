"""The U-Net of the DDPM line of papers, with the options in which its public descendants differ.

x (B, C, H, W) and t (B,) go in, the network's raw output (B, C or 2C, H, W) comes out. Every resolution has
``blocks`` residual blocks on the way down and one more on the way up, each followed by self-attention where
the level has it; every feature map of the way down is concatenated to its counterpart on the way up.

Source: Ho et al. 2020, arXiv:2006.11239, appendix B. Scale-shift norm, several heads and learned variances:
Nichol & Dhariwal 2021, arXiv:2102.09672. Residual blocks that resample: Dhariwal & Nichol 2021,
arXiv:2105.05233.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.checks import check_config
from models.layers import (
    Attention,
    Downsample,
    EmbeddingOrder,
    ResBlock,
    Upsample,
    group_norm,
    sinusoidal_embedding,
)


@dataclass(frozen=True)
class UNetConfig:
    """What distinguishes one U-Net of the line from another. The defaults are the DDPM network for CIFAR-10.

    Attributes:
        image_size: height and width it was made for; no layer depends on it. None where nobody said.
        in_channels: channels of x.
        out_channels: channels of the output; twice ``in_channels`` where the variance is learned.
        channels: width of the first convolution and of the sinusoidal embedding of t; its two-layer
            perceptron makes 4 times as many.
        widths: channels of each level, from the highest resolution to the lowest.
        blocks: residual blocks of a level on the way down (one more on the way up).
        attention: for each level, whether self-attention follows its residual blocks.
        heads: attention heads; ignored where ``head_channels`` is given.
        head_channels: channels of one head.
        heads_first: whether the rows of a fused q, k, v projection are ordered (head, q|k|v, channel) as in
            improved-diffusion, instead of (q|k|v, head, channel).
        dropout: probability, in training, before the second convolution of a residual block.
        scale_shift: whether t scales and shifts the second norm's output, instead of being added before it.
        resample: ``"conv"``, a 3x3 convolution; or ``"resblock"``, a residual block that resamples inside.
        asymmetric_padding: whether a stride-2 convolution pads right and bottom only, as TensorFlow does.
        norm_groups: groups of every GroupNorm.
        norm_eps: epsilon of every GroupNorm.
        embedding_order: how the sines and cosines of t are arranged.
        embedding_shift: the frequencies are 10000^(-i / (channels/2 - embedding_shift)).
        patch: the first convolution sees squares of ``patch`` x ``patch`` pixels as the channels of one, and
            the last one makes them: a network for a CPU spends nothing at full resolution. No published one
            has it.
    """

    image_size: int | None = 32
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 128
    widths: tuple[int, ...] = (128, 256, 256, 256)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, True, False, False)
    heads: int = 1
    head_channels: int | None = None
    heads_first: bool = False
    dropout: float = 0.0
    scale_shift: bool = False
    resample: Literal["conv", "resblock"] = "conv"
    asymmetric_padding: bool = True
    norm_groups: int = 32
    norm_eps: float = 1e-6
    embedding_order: EmbeddingOrder = "sin-cos"
    embedding_shift: int = 1
    patch: int = 1

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def divisor(self) -> int:
        """What height and width of an image must be multiples of."""
        return self.patch << (len(self.widths) - 1)

    def heads_of(self, width: int) -> int:
        """Return the number of attention heads at a level with ``width`` channels."""
        return self.heads if self.head_channels is None else width // self.head_channels


class UNet(nn.Module):
    """The network described in this module's docstring.

    It runs in any memory format, under autocast and under ``torch.compile`` (no graph break). Made with its
    training initialisation: Glorot-uniform weights, zero biases, zero weights where a residual branch ends.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.time_embed = nn.Sequential(
            nn.Linear(c.channels, 4 * c.channels), nn.SiLU(), nn.Linear(4 * c.channels, 4 * c.channels)
        )
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

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the raw output for images x (B, C, H, W) at times t (B,), integer or real.

        Raises:
            ValueError: if H or W cannot be halved as often as the network has levels.
        """
        c = self.config
        if x.shape[-1] % c.divisor or x.shape[-2] % c.divisor:
            raise ValueError(f"height and width must be multiples of {c.divisor}, got {tuple(x.shape[-2:])}")
        emb = sinusoidal_embedding(t, c.channels, c.embedding_order, c.embedding_shift)
        emb = F.silu(self.time_embed(emb.to(x.dtype)))  # every block takes it through the same SiLU
        h = self.conv_in(F.pixel_unshuffle(x, c.patch))
        skips = [h]
        for level in self.down:
            h = level(h, emb, skips)
        h = self.middle(h, emb)
        for level in reversed(self.up):
            h = level(h, emb, skips)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), c.patch)


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
