"""Diffusion transformers: the class-conditional latent networks of Peebles & Xie 2022, arXiv:2212.09748."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from models.config import is_whole
from models.errors import CheckpointError
from models.families.base import State, count, size, whole
from models.layers import sinusoidal_embedding
from models.named import NamedLayers

HEADS = {1152: 16, 1024: 16, 768: 12, 384: 6}
"""Attention heads of the published sizes XL, L, B and S, by the width of a token."""

_BLOCK = {
    "adaLN_modulation.1": ("norm1.linear",),
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
}

_STEM = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}

_SHARED = {
    "t_embedder.mlp.0": "timestep_embedder.linear_1",
    "t_embedder.mlp.2": "timestep_embedder.linear_2",
    "y_embedder.embedding_table": "class_embedder.embedding_table",
}


class DiT(NamedLayers):
    """Tokens of patches through blocks whose norms are scaled, shifted and gated by time and label.

    Args:
        state: weights under the published names, whole: see `published_weights` and `diffusers_weights`.
        heads: attention heads; None for those of the published sizes.
        inner_eps: epsilon of the norm before the perceptron; diffusers' class has one of its own.
        embedding_shift: the frequencies of the embedding of t are 10000^(-i / (128 - shift)): 0 as published,
            1 in diffusers' class.

    Attributes:
        channels: C of the latents.
        size: height and width of the latents.
        outputs: channels of the output, 2C where a variance is learned.
        labels: rows of the table of labels; the last one is "none".

    Raises:
        CheckpointError: if the weights do not tell the heads, or those that are given do not fit.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        heads: int | None = None,
        inner_eps: float = 1e-6,
        embedding_shift: int = 0,
    ) -> None:
        super().__init__(state)
        self.inner_eps, self.embedding_shift = inner_eps, embedding_shift
        width, self.channels, self.patch, _ = self.need("x_embedder.proj.weight").shape
        self.size = round(self.need("pos_embed").shape[1] ** 0.5) * self.patch
        self.labels = len(self.need("y_embedder.embedding_table.weight"))
        self.outputs = len(self.need("final_layer.linear.bias")) // self.patch**2
        self.depth = count(state, "blocks.*.")
        found = HEADS.get(width, 0) if heads is None else heads
        if not is_whole(found) or found < 1 or width % found:
            raise CheckpointError(
                f"tokens of {width} numbers do not split into {found or 'an unknown number of'} heads: give"
                " num_heads="
            )
        self.heads = found

    def extra_repr(self) -> str:
        """Return what the weights do not tell: it belongs to the model's fingerprint."""
        return f"heads={self.heads}, inner_eps={self.inner_eps}, embedding_shift={self.embedding_shift}"

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Return the raw output (B, outputs, H, W) for latents x (B, C, H, W), times and labels (B,)."""
        grid, p = self.size // self.patch, self.patch
        h = F.conv2d(x, self.need("x_embedder.proj.weight"), self.need("x_embedder.proj.bias"), stride=p)
        h = h.flatten(2).transpose(1, 2) + self.need("pos_embed")
        told = sinusoidal_embedding(t, 256, "cos-sin", self.embedding_shift).to(x.dtype)
        told = self.linear("t_embedder.mlp.2", F.silu(self.linear("t_embedder.mlp.0", told)))
        told = F.silu(told + F.embedding(label, self.need("y_embedder.embedding_table.weight")))
        for number in range(self.depth):
            h = self._block(f"blocks.{number}", h, told)
        shift, scale = self.linear("final_layer.adaLN_modulation.1", told).unsqueeze(1).chunk(2, -1)
        h = self.linear("final_layer.linear", _norm(h) * (1 + scale) + shift)
        h = h.view(len(x), grid, grid, p, p, self.outputs).permute(0, 5, 1, 3, 2, 4)
        return h.reshape(len(x), self.outputs, self.size, self.size)

    def _block(self, name: str, h: Tensor, told: Tensor) -> Tensor:
        parts = self.linear(f"{name}.adaLN_modulation.1", told).unsqueeze(1).chunk(6, -1)
        h = h + parts[2] * self._attention(f"{name}.attn", _norm(h) * (1 + parts[1]) + parts[0])
        inner = self.linear(f"{name}.mlp.fc1", _norm(h, self.inner_eps) * (1 + parts[4]) + parts[3])
        return h + parts[5] * self.linear(f"{name}.mlp.fc2", F.gelu(inner, approximate="tanh"))

    def _attention(self, name: str, h: Tensor) -> Tensor:
        batch, tokens, width = h.shape
        qkv = self.linear(f"{name}.qkv", h).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.linear(f"{name}.proj", mixed.transpose(1, 2).flatten(2))


def _norm(h: Tensor, eps: float = 1e-6) -> Tensor:
    return F.layer_norm(h, h.shape[-1:], eps=eps)


def is_dit(state: Mapping[str, Any]) -> bool:
    """Return whether a state dict has the names of a DiT, its own or diffusers'."""
    return "final_layer.linear.weight" in state or (
        "proj_out_2.weight" in state and "proj_out_1.weight" in state
    )


def published_weights(state: State) -> dict[str, Tensor]:
    """Return the weights of a DiT under its published names, if they are whole.

    Raises:
        CheckpointError: see `whole`.
    """
    width, channels, patch = (size(state, "x_embedder.proj.weight", dim) for dim in range(3))
    wanted = _shapes(
        width,
        size(state, "blocks.0.mlp.fc1.weight"),
        count(state, "blocks.*."),
        channels,
        size(state, "final_layer.linear.weight") // patch**2,
        patch,
        size(state, "y_embedder.embedding_table.weight"),
    )
    side = round(size(state, "pos_embed", 1) ** 0.5)
    return whole("DiT", state, {**wanted, "pos_embed": (1, side**2, width)}, configured=False)


def diffusers_weights(state: State, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of diffusers' ``DiTTransformer2DModel`` under the published names.

    There every block has its own embedding of time and label; in the published network it is one.

    Args:
        state: under diffusers' names.
        config: its config.json, every word with its default; grids of other sizes have no other weights.

    Raises:
        CheckpointError: see `whole`; also if the blocks' embeddings differ.
    """
    width, patch = config["num_attention_heads"] * config["attention_head_dim"], config["patch_size"]
    shapes = _shapes(
        width,
        4 * width,
        config["num_layers"],
        config["in_channels"],
        config["out_channels"],
        patch,
        config["num_embeds_ada_norm"] + 1,
    )
    sources = {name: _sources(name, config["num_layers"]) for name in shapes}
    wanted = {
        source: (shape[0] // 3, *shape[1:]) if ".qkv." in name else shape
        for name, shape in shapes.items()
        for source in sources[name]
    }
    held = whole("diffusers", state, wanted)
    found: dict[str, Tensor] = {}
    for name, theirs in sources.items():
        pieces, fused = [held[source] for source in theirs], ".qkv." in name
        found[name] = torch.cat(pieces) if fused else pieces[0]
        if not fused and not all(torch.equal(piece, pieces[0]) for piece in pieces):
            raise CheckpointError(
                f"the blocks of this DiT embed time and label differently ({theirs[0]}), which is not"
                " supported: sample it as a pipeline, --model diffusers:PATH"
            )
    return {**found, "pos_embed": position_table(width, config["sample_size"] // patch)}


def _shapes(
    width: int, hidden: int, depth: int, channels: int, outputs: int, patch: int, labels: int
) -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight under its published name, the table of positions left out."""
    layers: dict[str, tuple[int, ...]] = {
        "x_embedder.proj": (width, channels, patch, patch),
        "t_embedder.mlp.0": (width, 256),
        "t_embedder.mlp.2": (width, width),
        "final_layer.linear": (patch**2 * outputs, width),
        "final_layer.adaLN_modulation.1": (2 * width, width),
    }
    for number in range(depth):
        layers |= {
            f"blocks.{number}.attn.qkv": (3 * width, width),
            f"blocks.{number}.attn.proj": (width, width),
            f"blocks.{number}.mlp.fc1": (hidden, width),
            f"blocks.{number}.mlp.fc2": (width, hidden),
            f"blocks.{number}.adaLN_modulation.1": (6 * width, width),
        }
    weights = {f"{layer}.weight": shape for layer, shape in layers.items()}
    biases = {f"{layer}.bias": shape[:1] for layer, shape in layers.items()}
    return {**weights, **biases, "y_embedder.embedding_table.weight": (labels, width)}


def _sources(name: str, depth: int) -> list[str]:
    """Return diffusers' names of what makes up a weight of the published network, or of its copies."""
    layer, _, kind = name.rpartition(".")
    if layer in _STEM:
        return [f"{_STEM[layer]}.{kind}"]
    if layer in _SHARED:
        return [f"transformer_blocks.{number}.norm1.emb.{_SHARED[layer]}.{kind}" for number in range(depth)]
    _, number, leaf = layer.split(".", 2)
    return [f"transformer_blocks.{number}.{theirs}.{kind}" for theirs in _BLOCK[leaf]]


def position_table(width: int, side: int) -> Tensor:
    """Return the fixed embedding of side x side patches, (1, side^2, width).

    The first half of the width tells the column, the second the row, each as sines and then cosines of the
    place times 10000^(-i / (width / 4)).

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5; Peebles & Xie 2022, section 3.2.
    """
    places = torch.arange(side, dtype=torch.float64)
    rates = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = places[:, None] * rates
    told = torch.cat([angles.sin(), angles.cos()], 1)
    columns = told[None].expand(side, side, -1)
    rows = told[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], 2).reshape(1, side * side, width).float()
