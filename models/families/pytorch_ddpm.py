"""w86763777/pytorch-ddpm: an independent DDPM, close to the original's network but not a renaming of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from bench import NoiseSchedule
from models.config import UNetConfig
from models.errors import CheckpointError
from models.families.base import Config, Family, Place, Process, State, count, ratio, size
from models.layers import sinusoidal_embedding

TABLE = "time_embedding.timembedding.0.weight"


class PytorchDDPM(Family):
    """``UNet(T, ch, ch_mult, attn, num_res_blocks, dropout)``.

    Interleaved sines and cosines, stored as a frozen table with one row a time step; frequencies divided by
    half; GroupNorm epsilon 1e-5; symmetric padding; ``attn`` lists levels; blocks are numbered through.
    """

    name = "pytorch_ddpm"
    origin = "github.com/w86763777/pytorch-ddpm"
    signature = frozenset({TABLE, "head.weight", "middleblocks.0.block1.0.weight"})
    arguments = frozenset({"T", "ch", "ch_mult", "attn", "num_res_blocks", "dropout", "image_size"})
    lists = frozenset({"ch_mult", "attn"})
    stem: ClassVar[Mapping[str, str]] = {
        "time_embed.0": "time_embedding.timembedding.1",
        "time_embed.2": "time_embedding.timembedding.3",
        "conv_in": "head",
        "norm_out": "tail.0",
        "conv_out": "tail.2",
    }
    leaves: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm1": ("block1.0",),
        "conv1": ("block1.2",),
        "time": ("temb_proj.1",),
        "norm2": ("block2.0",),
        "conv2": ("block2.3",),
        "skip": ("shortcut",),
        "norm": ("group_norm",),
        "qkv": ("proj_q", "proj_k", "proj_v"),
        "out": ("proj",),
        "down.conv": ("main",),
        "up.conv": ("main",),
    }

    def infer(self, state: State) -> dict[str, Any]:
        """Everything but the image size."""
        ch = size(state, "head.weight")
        resamplers = [
            int(m[1]) for key in state if (m := re.fullmatch(r"downblocks\.(\d+)\.main\.weight", key))
        ]
        blocks = min(resamplers, default=count(state, "downblocks.*."))
        first = [level * (blocks + 1) for level in range(len(resamplers) + 1)]
        return {
            "T": size(state, TABLE),
            "ch": ch,
            "ch_mult": tuple(ratio(size(state, f"downblocks.{n}.block1.2.weight"), ch) for n in first),
            "attn": tuple(i for i, n in enumerate(first) if f"downblocks.{n}.attn.proj_q.weight" in state),
            "num_res_blocks": blocks,
        }

    def read(self, config: Config) -> UNetConfig:
        """Translate; see the base class."""
        return UNetConfig(
            image_size=config.get("image_size"),
            channels=config["ch"],
            widths=tuple(int(config["ch"] * m) for m in config["ch_mult"]),
            blocks=config["num_res_blocks"],
            attention=tuple(level in config["attn"] for level in range(len(config["ch_mult"]))),
            dropout=config.get("dropout", 0.0),
            asymmetric_padding=False,
            norm_eps=1e-5,
            embedding_order="interleaved",
            embedding_shift=0,
        )

    def modernise(self, state: State) -> State:
        """Drop the table of embeddings, which is computed instead, so that t need not be whole.

        Raises:
            CheckpointError: if the table holds anything else than the embeddings.
        """
        if TABLE not in state or state[TABLE].ndim != 2:
            raise CheckpointError(f"this pytorch_ddpm checkpoint lacks {TABLE}: it is damaged, get it again")
        table = state[TABLE].to(torch.float32)
        t = torch.arange(len(table))
        computed = sinusoidal_embedding(t, table.shape[1], "interleaved", 0)
        ulps = 1 + t[:, None]  # of float32: an angle of t is good to t of them
        error = torch.finfo(state[TABLE].dtype).eps if state[TABLE].is_floating_point() else 0
        if not bool(((table - computed).abs() <= 1e-6 * ulps + error).all()):
            raise CheckpointError(
                f"{TABLE} of this pytorch_ddpm checkpoint is no sinusoidal embedding: get it again"
            )
        return {key: value for key, value in state.items() if key != TABLE}

    def prefix(self, place: Place, config: UNetConfig) -> str:
        """Return e.g. ``downblocks.4``, ``upblocks.7.attn``, ``middleblocks.0``."""
        suffix = ".attn" if place.kind == "attention" else ""
        if place.part == "middle":
            return f"middleblocks.{place.index}{suffix}"
        per_level = config.blocks + (1 if place.part == "down" else 2)
        level = place.level if place.part == "down" else len(config.widths) - 1 - place.level
        index = per_level - 1 if place.kind == "resample" else place.index
        return f"{place.part}blocks.{level * per_level + index}{suffix}"

    def schedule(self, T: int, kind: str) -> NoiseSchedule:
        """Linear from 1e-4 to 0.02 whatever T."""
        return NoiseSchedule.cosine(T) if kind == "cosine" else NoiseSchedule.linear(T)

    def process(self, state: State, config: Config, unet: UNetConfig) -> Process:
        """Linear with as many steps as the table of embeddings has rows.

        Raises:
            CheckpointError: if the configuration has another T.
        """
        rows = size(state, TABLE)
        if config["T"] != rows:
            raise CheckpointError(
                f"this pytorch_ddpm checkpoint has embeddings of {rows} time steps, so that T={config['T']}"
                " is not what it was made with: leave T out"
            )
        return Process(NoiseSchedule.linear(config["T"]), "fixed")
