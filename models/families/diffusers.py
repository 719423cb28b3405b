"""huggingface/diffusers: ``UNet2DModel``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from bench import ContinuousSchedule, NoiseSchedule, Variance
from models.config import UNetConfig, is_whole
from models.errors import CheckpointError
from models.families.base import Config, Family, Place, Process, State, count, size
from models.families.scheduler import UNNAMED, read_scheduler

BLOCKS = {"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"}
LEGACY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention layers by the names that files of the first versions have."""

ASSUMED = (
    "no scheduler_config.json tells its diffusion, and DDPMScheduler's defaults are taken: linear betas from"
    " 0.0001 to 0.02, T=1000{predicts}; give schedule=linear to say that this is right, or another"
)
"""What is said of a folder that tells no diffusion; ``predicts`` is left out where the caller says it."""

VARIANCES: Mapping[str, Variance] = {"learned": "learned", "learned_range": "learned_range"}


class Diffusers(Family):
    """``UNet2DModel(sample_size, in_channels, out_channels, ..., block_out_channels, ...)``.

    Every option of the network is in ``config.json``; what it omits has the class's default (so an omitted
    ``attention_head_dim`` means 8 channels a head, and null means one head). ``up_blocks.0`` is the lowest
    resolution. The diffusion is in ``scheduler_config.json``.
    """

    name = "diffusers"
    origin = "github.com/huggingface/diffusers"
    signature = frozenset(
        {"time_embedding.linear_1.weight", "conv_norm_out.weight", "down_blocks.0.resnets.0.conv1.weight"}
    )
    arguments = frozenset(
        {"sample_size", "in_channels", "out_channels", "center_input_sample", "time_embedding_type"}
        | {"time_embedding_dim", "freq_shift", "flip_sin_to_cos", "down_block_types", "mid_block_type"}
        | {"up_block_types", "block_out_channels", "layers_per_block", "mid_block_scale_factor", "dropout"}
        | {
            "downsample_padding",
            "downsample_type",
            "upsample_type",
            "act_fn",
            "attention_head_dim",
            "norm_eps",
        }
        | {"norm_num_groups", "attn_norm_num_groups", "resnet_time_scale_shift", "add_attention"}
        | {"class_embed_type", "num_class_embeds", "num_train_timesteps"}
    )
    lists = frozenset({"block_out_channels", "down_block_types", "up_block_types"})
    stem: ClassVar[Mapping[str, str]] = {
        "time_embed.0": "time_embedding.linear_1",
        "time_embed.2": "time_embedding.linear_2",
        "conv_in": "conv_in",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
        "label_embed": "class_embedding",
    }
    leaves: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm1": ("norm1",),
        "conv1": ("conv1",),
        "time": ("time_emb_proj",),
        "norm2": ("norm2",),
        "conv2": ("conv2",),
        "skip": ("conv_shortcut",),
        "norm": ("group_norm",),
        "qkv": ("to_q", "to_k", "to_v"),
        "out": ("to_out.0",),
        "down.conv": ("conv",),
        "up.conv": ("conv",),
    }

    def infer(self, state: State) -> dict[str, Any]:
        """Channels, widths, blocks, attention, scale-shift norm; the rest leaves no trace in the weights."""
        levels = count(state, "down_blocks.*.")
        widths = tuple(size(state, f"down_blocks.{n}.resnets.0.conv1.weight") for n in range(levels))
        attend = [f"down_blocks.{n}.attentions.0.group_norm.weight" in state for n in range(levels)]
        doubled = size(state, "down_blocks.0.resnets.0.time_emb_proj.weight") == 2 * widths[0]
        return {
            "in_channels": size(state, "conv_in.weight", 1),
            "out_channels": size(state, "conv_out.weight"),
            "block_out_channels": widths,
            "layers_per_block": count(state, "down_blocks.0.resnets.*."),
            "down_block_types": tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attend),
            "up_block_types": tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
            "resnet_time_scale_shift": "scale_shift" if doubled else "default",
            "num_class_embeds": size(state, "class_embedding.weight")
            if "class_embedding.weight" in state
            else None,
        }

    def undecided(self, given: Config) -> str | None:
        """Ask for config.json: padding, heads, epsilon and embedding leave no trace in the weights."""
        if given:
            return None
        return "padding, heads, epsilon and embedding: put its config.json beside it or give it as config="

    def read(self, config: Config) -> UNetConfig:
        """Translate; see the base class."""
        _check_lists(config)
        down, up = tuple(config["down_block_types"]), tuple(config["up_block_types"])
        mirrored = tuple(
            name.replace("Up", "Down").replace("Downsample", "Upsample") for name in reversed(up)
        )
        if tuple(
            name.replace("Downsample", "Upsample") for name in down
        ) != mirrored or not BLOCKS.issuperset(down):
            raise CheckpointError(
                f"a diffusers network of blocks {', '.join(down)} and {', '.join(up)} is not supported, only "
                "Down, AttnDown and ResnetDownsample blocks with the same on the way up"
            )
        widths = tuple(config["block_out_channels"])
        resnet = config.get("downsample_type", "conv") == "resnet"
        kinds = {("Resnet" in name) or (resnet and "Attn" in name) for name in down[:-1]}
        self.demand(config, "downsample_type", "conv", "resnet")
        self.demand(config, "upsample_type", "resnet" if resnet else "conv")
        if len(kinds) > 1:
            raise CheckpointError("a diffusers network that resamples in two different ways is not supported")
        self.demand(config, "time_embedding_type", "positional")
        self.demand(config, "time_embedding_dim", None, 4 * widths[0])
        self.demand(config, "mid_block_type", "UNetMidBlock2D")
        self.demand(config, "mid_block_scale_factor", 1)
        self.demand(config, "center_input_sample", False)
        self.demand(config, "act_fn", "silu", "swish")
        self.demand(config, "downsample_padding", 1, 0)
        self.demand(config, "resnet_time_scale_shift", "default", "scale_shift")
        self.demand(config, "add_attention", True)
        self.demand(config, "flip_sin_to_cos", True, False)
        self.demand(config, "class_embed_type", None)
        groups = config.get("norm_num_groups", 32)
        self.demand(config, "attn_norm_num_groups", None, groups)
        return UNetConfig(
            image_size=_side(config.get("sample_size")),
            in_channels=config["in_channels"],
            out_channels=config["out_channels"],
            channels=widths[0],
            widths=widths,
            blocks=config["layers_per_block"],
            attention=tuple("Attn" in name for name in down),
            head_channels=config.get("attention_head_dim", 8),
            dropout=config.get("dropout", 0.0),
            scale_shift=config["resnet_time_scale_shift"] == "scale_shift",
            resample="resblock" if kinds == {True} else "conv",
            asymmetric_padding=config.get("downsample_padding", 1) == 0,
            norm_groups=groups,
            norm_eps=config.get("norm_eps", 1e-5),
            embedding_order="cos-sin" if config.get("flip_sin_to_cos", True) else "sin-cos",
            embedding_shift=config.get("freq_shift", 0),
            classes=config.get("num_class_embeds") or 0,
        )

    def modernise(self, state: State) -> State:
        """Give attention layers of old files their present names."""

        def renamed(key: str) -> str:
            *module, layer, parameter = key.split(".")
            if "attentions" in module and layer in LEGACY:
                return ".".join([*module, LEGACY[layer], parameter])
            return key

        return {renamed(key) if key.count(".") > 1 else key: value for key, value in state.items()}

    def prefix(self, place: Place, config: UNetConfig) -> str:
        """Return e.g. ``up_blocks.3.resnets.1``, ``mid_block.attentions.0``, ``up_blocks.0.upsamplers.0``."""
        kind = "attentions" if place.kind == "attention" else "resnets"
        if place.part == "middle":
            return f"mid_block.{kind}.{place.index}"
        level = place.level if place.part == "down" else len(config.widths) - 1 - place.level
        kind = f"{place.part}samplers" if place.kind == "resample" else kind
        return f"{place.part}_blocks.{level}.{kind}.{place.index}"

    def schedule(self, T: int, kind: str) -> NoiseSchedule:
        """Linear from 1e-4 to 0.02 whatever T."""
        return NoiseSchedule.cosine(T) if kind == "cosine" else NoiseSchedule.linear(T)

    def process(self, state: State, config: Config, unet: UNetConfig) -> Process:
        """What ``scheduler_config.json`` says; without one, DDPMScheduler's defaults."""
        return scheduled(config, doubled=unet.out_channels != unet.in_channels)


def scheduled(config: Config, *, doubled: bool) -> Process:
    """Return the diffusion that a folder's ``scheduler_config.json`` tells, or DDPMScheduler's defaults.

    Args:
        config: its config.json, with the scheduler's words at ``_scheduler``.
        doubled: whether its network has more channels out than in.

    Raises:
        CheckpointError: see `read_scheduler`.
    """
    scheduler: Mapping[str, Any] | None = config.get("_scheduler")
    assumed = ASSUMED if scheduler is None else "" if "_class_name" in scheduler else UNNAMED
    scheduler = scheduler or {}
    variance = VARIANCES.get(scheduler.get("variance_type", "")) if doubled else "fixed"
    schedule, predicts = read_scheduler(scheduler)
    return Process(schedule, variance, isinstance(schedule, ContinuousSchedule), predicts, assumed)


def _check_lists(config: Config) -> None:
    """Refuse lists of a configuration that are none, or hold something else than widths and names of blocks.

    Raises:
        CheckpointError: naming the word.
    """
    for word, kind, what in (
        ("block_out_channels", int, "whole numbers"),
        ("down_block_types", str, "names of blocks"),
        ("up_block_types", str, "names of blocks"),
    ):
        value = config[word]
        if not isinstance(value, list | tuple) or not all(isinstance(one, kind) for one in value):
            raise CheckpointError(f"{word} of this diffusers network must be a list of {what}, got {value!r}")


def _side(sample_size: Any) -> Any:
    """Return the side of the squares that a network was made for; None where its configuration has none.

    Raises:
        CheckpointError: if it was made for other rectangles.
    """
    if not isinstance(sample_size, list | tuple):
        return sample_size
    if len(set(map(str, sample_size))) != 1:
        sides = [side for side in sample_size if is_whole(side)]
        raise CheckpointError(
            f"sample_size={list(sample_size)} of this diffusers network is no square, and only squares are"
            f" sampled here: give sample_size={max(sides, default=32)}, say, for squares"
        )
    return sample_size[0]
