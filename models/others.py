"""Checkpoints of networks that are no U-Net of the line: EDM's, and diffusion transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from bench import ConditionalModel, ContinuousSchedule, NoiseSchedule, Schedule, preconditioned
from bench.diffusion.prediction import Predicts, iddpm_levels
from models.dit import DiT, is_dit, published_names
from models.edm import EDMNetwork, is_edm
from models.epsilon import EpsilonNetwork, LabelledNetwork
from models.errors import CheckpointError
from models.families.scheduler import read_scheduler
from models.files import Checkpoint

Preconditioning = Literal["edm", "vp", "ve", "iddpm"]

EDM_WORDS = frozenset({"precond", "sigma_data", "sigma_min", "sigma_max"})
"""What a file of EDM's does not say and may be given; the published networks have the defaults."""

LOWEST: Mapping[str, float] = {"edm": 0.002, "vp": 0.002, "ve": 0.02, "iddpm": float(iddpm_levels()[-2])}
"""sigma_min of each preconditioning, as EDM's own sampler has it."""

DIT_WORDS = frozenset({"num_heads"})

DIT_CONFIG = frozenset(
    {"num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "num_layers", "dropout"}
    | {"norm_num_groups", "attention_bias", "sample_size", "patch_size", "activation_fn", "norm_type"}
    | {"num_embeds_ada_norm", "upcast_attention", "norm_elementwise_affine", "norm_eps"}
)
"""Words of the config.json of diffusers' ``DiTTransformer2DModel``."""


class Denoiser(nn.Module):
    """D(y, sigma, label) of an EDM network, preconditioned; see `bench.preconditioned`."""

    def __init__(self, network: EDMNetwork, kind: Preconditioning, sigma_data: float) -> None:
        super().__init__()
        self.inner = network
        self.kind, self.sigma_data = kind, sigma_data
        self._denoise = preconditioned(self._image, kind, sigma_data)

    def extra_repr(self) -> str:
        """Return what the weights do not tell: it belongs to the model's fingerprint."""
        return f"{self.kind}, sigma_data={self.sigma_data}"

    def _image(self, x: Tensor, noise: Tensor, *label: Tensor) -> Tensor:
        """Return F without the second half of iDDPM's channels, the variance, which EDM does not use."""
        out: Tensor = self.inner(x, noise, *label)
        return out[:, : self.inner.channels]

    def forward(self, y: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """Return x_0 for y = x_0 + sigma eps (B, C, H, W)."""
        return self._denoise(y, sigma, *([] if label is None else [label]))


def is_other(state: Mapping[str, Any]) -> bool:
    """Return whether a state dict is of a network that is loaded here."""
    return is_edm(state) or is_dit(state)


def load_other(
    checkpoint: Checkpoint, config: Mapping[str, Any], T: int | None, schedule: Schedule | str | None
) -> EpsilonNetwork | ConditionalModel:
    """Return the model of a checkpoint that `is_other`.

    Args:
        checkpoint: its weights, and what its files say.
        config: what the caller says of the network.
        T: number of time steps, where the caller says it.
        schedule: ``linear``, ``cosine`` or a schedule, likewise.

    Raises:
        CheckpointError: if something is given that the network does not have, or its weights do not fit.
    """
    if is_edm(checkpoint.state):
        if T is not None or schedule is not None:
            raise CheckpointError(f"{checkpoint.name} is an EDM network, which has levels sigma and no T")
        return _edm(checkpoint, _known(config, EDM_WORDS, checkpoint.name))
    return _dit(checkpoint, _known(config, DIT_WORDS, checkpoint.name), T, schedule)


def _edm(checkpoint: Checkpoint, config: Mapping[str, Any]) -> EpsilonNetwork | ConditionalModel:
    kind = config.get("precond", "edm")
    if kind not in get_args(Preconditioning):
        raise CheckpointError(f"precond must be one of {', '.join(get_args(Preconditioning))}, got {kind!r}")
    network = EDMNetwork(checkpoint.state)
    denoiser = Denoiser(network, cast(Preconditioning, kind), float(config.get("sigma_data", 0.5)))
    low, high = float(config.get("sigma_min", LOWEST[kind])), float(config.get("sigma_max", 80.0))
    shape = (network.channels, network.size, network.size)
    levels = ContinuousSchedule.edm(low, high)
    if not network.classes:
        return EpsilonNetwork(denoiser, levels, shape, predicts="denoiser").eval()
    return _conditional(
        LabelledNetwork(
            denoiser,
            levels,
            shape,
            predicts="denoiser",
            classes=network.classes,
            null_label=network.classes,  # a vector of zeros
        )
    )


def _dit(
    checkpoint: Checkpoint, config: Mapping[str, Any], T: int | None, schedule: Schedule | str | None
) -> ConditionalModel:
    told = {name: value for name, value in checkpoint.config.items() if not name.startswith("_")}
    _known(told, DIT_CONFIG, checkpoint.name)
    heads = config.get("num_heads", told.get("num_attention_heads"))
    state = published_names(checkpoint.state, told)
    theirs = "final_layer.linear.weight" not in checkpoint.state  # diffusers' class computes a little else
    network = DiT(state, heads, float(told.get("norm_eps", 1e-5)) if theirs else 1e-6, int(theirs))
    learned = network.outputs == 2 * network.channels
    levels, predicts = _levels(checkpoint, T, schedule)
    return _conditional(
        LabelledNetwork(
            network,
            levels,
            (network.channels, network.size, network.size),
            "learned_range" if learned else "fixed",
            predicts=predicts,
            classes=network.labels - 1,
            null_label=network.labels - 1,
        )
    )


def _levels(
    checkpoint: Checkpoint, T: int | None, schedule: Schedule | str | None
) -> tuple[Schedule, Predicts]:
    """Return (schedule, what the network predicts): as given, as its files say, or as published."""
    scheduler = checkpoint.config.get("_scheduler")
    if schedule is None and T is None and scheduler is not None:
        return read_scheduler(scheduler)
    if isinstance(schedule, Schedule):
        return schedule, "eps"
    return (NoiseSchedule.cosine if schedule == "cosine" else NoiseSchedule.linear)(T or 1000), "eps"


def _conditional(network: LabelledNetwork) -> ConditionalModel:
    return ConditionalModel(network.eval(), fingerprint=network.fingerprint)


def _known(config: Mapping[str, Any], names: frozenset[str], where: str) -> Mapping[str, Any]:
    """Return a configuration whose words are all known.

    Raises:
        CheckpointError: naming one that is not.
    """
    strange = sorted(set(config) - names)
    if strange:
        raise CheckpointError(f"{where} takes no {strange[0]!r}; known: {', '.join(sorted(names))}")
    return config
