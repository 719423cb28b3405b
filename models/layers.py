"""The layers of the U-Net: residual block, attention, resampling, embedding of t."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from models.config import EmbeddingOrder, UNetConfig


class ResBlock(nn.Module):
    """skip(x) + conv2(dropout(silu(norm2(conv1(silu(norm1(x))) + time(emb))))).

    With ``scale_shift``, (s, b) = time(emb) act as norm2(h) (1 + s) + b instead. A resampling block resamples
    x and the input of conv1.
    """

    def __init__(
        self, config: UNetConfig, inputs: int, outputs: int, resample: Literal["up", "down"] | None = None
    ) -> None:
        super().__init__()
        self.scale_shift = config.scale_shift
        self.resample = resample
        self.norm1 = group_norm(config, inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(4 * config.channels, outputs * (2 if config.scale_shift else 1))
        self.norm2 = group_norm(config, outputs)
        self.dropout = nn.Dropout(config.dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return the block's output for x (B, C, H, W) and the activated time embedding emb (B, E)."""
        h = F.silu(self.norm1(x))
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = _double(h), _double(x)
        h = self.conv1(h)
        time = self.time(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + time)
        out: Tensor = self.skip(x) + self.conv2(self.dropout(F.silu(h)))
        return out


class Attention(nn.Module):
    """x + out(softmax(q k^T / sqrt(d)) v) over the H W positions, with q, k, v = qkv(norm(x))."""

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.heads = config.heads_of(width)
        self.heads_first = config.heads_first
        self.norm = group_norm(config, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map shaped like x (B, C, H, W)."""
        b, c, height, width = x.shape
        qkv = self.qkv(self.norm(x).flatten(2).transpose(1, 2))
        if self.heads_first:
            q, k, v = qkv.view(b, height * width, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        else:
            q, k, v = qkv.view(b, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(q, k, v)
        h = self.out(h.transpose(1, 2).reshape(b, height * width, c))
        out: Tensor = x + h.transpose(1, 2).reshape(b, c, height, width)
        return out


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2. Takes emb, unused, to stand where a residual block can."""

    def __init__(self, config: UNetConfig, width: int) -> None:
        super().__init__()
        self.asymmetric = config.asymmetric_padding
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=0 if self.asymmetric else 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return x at half the resolution."""
        out: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)) if self.asymmetric else x)
        return out


class Upsample(nn.Module):
    """Every pixel repeated 2x2, then a 3x3 convolution. Takes emb as Downsample does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """Return x at twice the resolution."""
        out: Tensor = self.conv(_double(x))
        return out


def sinusoidal_embedding(
    t: Tensor, channels: int, order: EmbeddingOrder = "sin-cos", shift: int = 1
) -> Tensor:
    """Return sin and cos of t f_i, f_i = 10000^(-i / (channels/2 - shift)); float32, (B, channels).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5. ``shift`` is 1 in DDPM's code, 0 in OpenAI's.
    """
    half = channels // 2
    index = torch.arange(half, dtype=torch.float32, device=t.device)
    angle = t.to(torch.float32)[:, None] * torch.exp(index * (-math.log(10000.0) / (half - shift)))
    sin, cos = angle.sin(), angle.cos()
    if order == "interleaved":
        return torch.stack([sin, cos], dim=-1).flatten(1)
    return torch.cat([sin, cos] if order == "sin-cos" else [cos, sin], dim=1)


def group_norm(config: UNetConfig, width: int) -> nn.GroupNorm:
    """Return a GroupNorm over ``width`` channels."""
    return nn.GroupNorm(config.norm_groups, width, eps=config.norm_eps)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
