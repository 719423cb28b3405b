"""pesser/pytorch_diffusion and ermongroup/ddim: the DDPM authors' networks, converted from TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bench import NoiseSchedule
from models.config import UNetConfig
from models.errors import CheckpointError
from models.families.base import Config, Family, Place, Process, State, count, ratio, size


class Pesser(Family):
    """``Model(ch, out_ch, ch_mult, num_res_blocks, attn_resolutions, dropout, in_channels, resolution)``.

    Sines then cosines, frequencies divided by half - 1, GroupNorm epsilon 1e-6, one head, padding right and
    bottom before a stride-2 convolution. ``up.0``, like ``down.0``, is the highest resolution.
    """

    name = "pesser"
    origin = "github.com/pesser/pytorch_diffusion, github.com/ermongroup/ddim"
    signature = frozenset({"temb.dense.0.weight", "mid.block_1.norm1.weight", "mid.attn_1.q.weight"})
    arguments = frozenset(
        {"ch", "out_ch", "ch_mult", "num_res_blocks", "attn_resolutions", "dropout", "resamp_with_conv"}
        | {"in_channels", "resolution"}
    )
    lists = frozenset({"ch_mult", "attn_resolutions"})
    stem: ClassVar[Mapping[str, str]] = {
        "time_embed.0": "temb.dense.0",
        "time_embed.2": "temb.dense.1",
        "conv_in": "conv_in",
        "norm_out": "norm_out",
        "conv_out": "conv_out",
    }
    leaves: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm1": ("norm1",),
        "conv1": ("conv1",),
        "time": ("temb_proj",),
        "norm2": ("norm2",),
        "conv2": ("conv2",),
        "skip": ("nin_shortcut",),
        "norm": ("norm",),
        "qkv": ("q", "k", "v"),
        "out": ("proj_out",),
        "down.conv": ("conv",),
        "up.conv": ("conv",),
    }

    def infer(self, state: State) -> dict[str, Any]:
        """Everything but the resolution; ``_attention`` stands for ``attn_resolutions`` without it."""
        ch, levels = size(state, "conv_in.weight"), count(state, "down.*.block")
        widths = [size(state, f"down.{level}.block.0.conv1.weight") for level in range(levels)]
        return {
            "ch": ch,
            "ch_mult": tuple(ratio(width, ch) for width in widths),
            "num_res_blocks": count(state, "down.0.block.*."),
            "in_channels": size(state, "conv_in.weight", 1),
            "out_ch": size(state, "conv_out.weight"),
            "_attention": tuple(f"down.{level}.attn.0.q.weight" in state for level in range(levels)),
        }

    def read(self, config: Config) -> UNetConfig:
        """Translate; see the base class."""
        self.demand(config, "resamp_with_conv", True)
        levels = len(config["ch_mult"])
        resolution, attention = config.get("resolution"), config.get("_attention")
        if "attn_resolutions" in config and resolution is not None:
            attention = tuple(resolution // 2**level in config["attn_resolutions"] for level in range(levels))
        if attention is None or len(attention) != levels:
            raise CheckpointError(
                "this pesser network's ch_mult does not fit its weights: leave it out to infer it"
            )
        return UNetConfig(
            image_size=resolution,
            in_channels=config["in_channels"],
            out_channels=config["out_ch"],
            channels=config["ch"],
            widths=tuple(int(config["ch"] * m) for m in config["ch_mult"]),
            blocks=config["num_res_blocks"],
            attention=attention,
            dropout=config.get("dropout", 0.0),
        )

    def prefix(self, place: Place, config: UNetConfig) -> str:
        """Return e.g. ``up.0.block.1``, ``mid.attn_1``, ``down.2.downsample``."""
        if place.part == "middle":
            return "mid.attn_1" if place.kind == "attention" else f"mid.block_{place.index + 1}"
        if place.kind == "resample":
            return f"{place.part}.{place.level}.{place.part}sample"
        return f"{place.part}.{place.level}.{'block' if place.kind == 'block' else 'attn'}.{place.index}"

    def schedule(self, T: int, kind: str) -> NoiseSchedule:
        """Linear from 1e-4 to 0.02 whatever T."""
        return NoiseSchedule.cosine(T) if kind == "cosine" else NoiseSchedule.linear(T)

    def process(self, state: State, config: Config, unet: UNetConfig) -> Process:
        """Linear, T=1000: what every published file of the family was trained with."""
        return Process(NoiseSchedule.linear(1000), "fixed" if unet.out_channels == unet.in_channels else None)
