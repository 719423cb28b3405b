"""openai/improved-diffusion and openai/guided-diffusion, with labels or without."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from bench import NoiseSchedule
from models.config import UNetConfig
from models.families.base import Config, Family, Place, Process, State, count, ratio, size


class OpenAI(Family):
    """``UNetModel(image_size, in_channels, model_channels, out_channels, num_res_blocks, ...)``.

    Cosines then sines, frequencies divided by half, GroupNorm epsilon 1e-5, symmetric padding, fused q, k, v.
    ``attention_resolutions`` are factors of downsampling. The weights tell neither the number of heads nor
    their order, and nothing of the diffusion.
    """

    name = "openai"
    origin = "github.com/openai/improved-diffusion, github.com/openai/guided-diffusion"
    signature = frozenset({"input_blocks.0.0.weight", "middle_block.0.in_layers.0.weight", "out.2.weight"})
    required = frozenset(
        {"in_channels", "model_channels", "out_channels", "num_res_blocks", "attention_resolutions"}
    )
    arguments = required | frozenset(
        {"image_size", "dropout", "channel_mult", "conv_resample", "dims"}
        | {
            "num_classes",
            "use_checkpoint",
            "use_fp16",
            "num_heads",
            "num_head_channels",
            "num_heads_upsample",
        }
        | {"use_scale_shift_norm", "resblock_updown", "use_new_attention_order"}
    )
    lists = frozenset({"channel_mult", "attention_resolutions"})
    stem: ClassVar[Mapping[str, str]] = {
        "time_embed.0": "time_embed.0",
        "time_embed.2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "norm_out": "out.0",
        "conv_out": "out.2",
        "label_embed": "label_emb",
    }
    leaves: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm1": ("in_layers.0",),
        "conv1": ("in_layers.2",),
        "time": ("emb_layers.1",),
        "norm2": ("out_layers.0",),
        "conv2": ("out_layers.3",),
        "skip": ("skip_connection",),
        "norm": ("norm",),
        "qkv": ("qkv",),
        "out": ("proj_out",),
        "down.conv": ("op",),
        "up.conv": ("conv",),
    }

    def infer(self, state: State) -> dict[str, Any]:
        """Everything but the image size and the attention heads."""
        channels = size(state, "time_embed.0.weight", 1)
        upsampler = re.compile(r"output_blocks\.(\d+)\.[12]\.(conv|in_layers\.0)\.weight")
        ups = [(int(m[1]), m[2]) for key in state if (m := upsampler.fullmatch(key))]
        blocks = min((n for n, _ in ups), default=count(state, "output_blocks.*.") - 1)
        first = [1 + level * (blocks + 1) for level in range(len(ups) + 1)]
        widths = [size(state, f"input_blocks.{n}.0.out_layers.3.weight") for n in first]
        return {
            "in_channels": size(state, "input_blocks.0.0.weight", 1),
            "out_channels": size(state, "out.2.weight"),
            "model_channels": channels,
            "channel_mult": tuple(ratio(width, channels) for width in widths),
            "num_res_blocks": blocks,
            "attention_resolutions": tuple(
                2**i for i, n in enumerate(first) if f"input_blocks.{n}.1.qkv.weight" in state
            ),
            "use_scale_shift_norm": size(state, "input_blocks.1.0.emb_layers.1.weight") == 2 * widths[0],
            "resblock_updown": any(name != "conv" for _, name in ups),
            "num_classes": size(state, "label_emb.weight") if "label_emb.weight" in state else None,
        }

    def undecided(self, given: Config) -> str | None:
        """Name the heads, unless the given arguments are complete and so imply the constructor's default."""
        if given.keys() & {"num_heads", "num_head_channels"} or self.complete(given):
            return None
        return (
            "the number of attention heads: give num_heads=4 for improved-diffusion's default, "
            "or num_head_channels=64 as most guided-diffusion models have"
        )

    def complete(self, given: Config) -> bool:
        """All that have no default are there."""
        return given.keys() >= self.required

    def read(self, config: Config) -> UNetConfig:
        """Translate; see the base class."""
        self.demand(config, "conv_resample", True)
        self.demand(config, "dims", 2)
        heads, head_channels = config.get("num_heads", 1), config.get("num_head_channels", -1)
        self.demand(config, "num_heads_upsample", -1, heads)
        multipliers = config.get("channel_mult", (1, 2, 4, 8))
        return UNetConfig(
            image_size=config.get("image_size"),
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            channels=config["model_channels"],
            widths=tuple(int(config["model_channels"] * m) for m in multipliers),
            blocks=config["num_res_blocks"],
            attention=tuple(2**level in config["attention_resolutions"] for level in range(len(multipliers))),
            heads=heads,
            head_channels=None if head_channels == -1 else head_channels,
            heads_first=not config.get("use_new_attention_order", False),
            dropout=config.get("dropout", 0.0),
            scale_shift=config.get("use_scale_shift_norm", False),
            resample="resblock" if config.get("resblock_updown", False) else "conv",
            asymmetric_padding=False,
            norm_eps=1e-5,
            embedding_order="cos-sin",
            embedding_shift=0,
            classes=config.get("num_classes") or 0,
        )

    def prefix(self, place: Place, config: UNetConfig) -> str:
        """Return e.g. ``input_blocks.3.0``, ``output_blocks.5.1``, ``middle_block.2``."""
        if place.part == "middle":
            return f"middle_block.{1 if place.kind == 'attention' else 2 * place.index}"
        per_level = config.blocks + 1
        if place.part == "down":
            index = config.blocks if place.kind == "resample" else place.index
            return f"input_blocks.{1 + place.level * per_level + index}.{int(place.kind == 'attention')}"
        index = config.blocks if place.kind == "resample" else place.index
        position = {"block": 0, "attention": 1, "resample": 1 + config.attention[place.level]}[place.kind]
        return f"output_blocks.{(len(config.widths) - 1 - place.level) * per_level + index}.{position}"

    def schedule(self, T: int, kind: str) -> NoiseSchedule:
        """Linear with both ends scaled by 1000/T, or cosine."""
        if kind == "cosine":
            return NoiseSchedule.cosine(T)
        return NoiseSchedule.linear(T, 1e-4 * 1000 / T, 0.02 * 1000 / T)

    def process(self, state: State, config: Config, unet: UNetConfig) -> Process:
        """Nothing but the kind of variance: T and the schedule are flags of OpenAI's scripts."""
        fixed = unet.out_channels == unet.in_channels
        return Process(None, "fixed" if fixed else "learned_range", rescale_timesteps=None)
