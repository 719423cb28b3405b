"""Checkpoints of networks that are no U-Net of the line: EDM's, and diffusion transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from torch import Tensor, nn

from bench import ConditionalModel, ContinuousSchedule, NoiseSchedule, Schedule, preconditioned
from bench.diffusion.prediction import iddpm_levels
from models.config import is_number, is_whole
from models.dit import DiT, diffusers_weights, is_dit, published_weights
from models.edm import EDMNetwork, is_edm
from models.epsilon import EpsilonNetwork, LabelledNetwork
from models.errors import CheckpointError
from models.families import Family, find_family
from models.families.base import Process
from models.families.diffusers import scheduled
from models.files import Checkpoint
from models.process import check_process, decide

Preconditioning = Literal["edm", "vp", "ve", "iddpm"]

EDM_WORDS = frozenset({"precond", "sigma_data", "sigma_min", "sigma_max"})
"""What a file of EDM's does not say and may be given; the published networks have the defaults."""

LOWEST: Mapping[str, float] = {"edm": 0.002, "vp": 0.002, "ve": 0.02, "iddpm": float(iddpm_levels()[-2])}
"""sigma_min of each preconditioning, as EDM's own sampler has it."""

DIT_WORDS = frozenset({"num_heads"})

DIT_NUMBERS: Mapping[str, int] = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 28,
    "sample_size": 32,
    "patch_size": 2,
    "num_embeds_ada_norm": 1000,
}
"""Numbers of the config.json of diffusers' ``DiTTransformer2DModel``, with the defaults of the class."""

DIT_VALUES: Mapping[str, Any] = {
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
"""Words of it of which one value is known here, the default."""

DIT_IDLE = frozenset({"dropout", "norm_num_groups"})
"""Words of it that change no answer: one acts in training, the other nowhere in that class."""


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
    usual = {"sigma_data": 0.5, "sigma_min": LOWEST[kind], "sigma_max": 80.0}
    data, low, high = (_sigma(word, config.get(word, usual[word])) for word in usual)
    network = EDMNetwork(checkpoint.state)
    denoiser = Denoiser(network, cast(Preconditioning, kind), data)
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
    family, state = find_family("diffusers"), checkpoint.state
    told = {name: value for name, value in checkpoint.config.items() if not name.startswith("_")}
    published = "final_layer.linear.weight" in state
    if published and told:
        raise CheckpointError(
            f"{checkpoint.name} holds a DiT under its published names, and the config.json beside it is of"
            " diffusers' class: put them into folders of their own"
        )
    if published:
        network = DiT(published_weights(state), config.get("num_heads"))
    else:  # diffusers' class computes a little else
        words = _read_dit(family, told, checkpoint.name)
        heads = config.get("num_heads", words["num_attention_heads"])
        network = DiT(diffusers_weights(state, words), heads, float(words["norm_eps"]), 1)
    if network.outputs not in (network.channels, 2 * network.channels):
        raise CheckpointError(
            f"{checkpoint.name} has {network.outputs} output channels for {network.channels} input channels,"
            " and as many or twice as many are supported"
        )
    doubled = network.outputs != network.channels
    stored = Process(NoiseSchedule.linear(1000), "learned_range" if doubled else "fixed")
    if not published:
        stored = scheduled(checkpoint.config, doubled=doubled)
    process = decide(stored, family, T, schedule)
    check_process(checkpoint.name, process)
    assert process.schedule is not None
    return _conditional(
        LabelledNetwork(
            network,
            process.schedule,
            (network.channels, network.size, network.size),
            process.variance or "learned_range",
            bool(process.rescale_timesteps),
            process.predicts,
            classes=network.labels - 1,
            null_label=network.labels - 1,
        )
    )


def _read_dit(family: Family, told: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the words of a config.json of diffusers' class that decide its answers, with its defaults.

    Raises:
        CheckpointError: if there is none, or one of its words or values is not known.
    """
    if not told:
        raise CheckpointError(
            f"{where} holds a DiT under diffusers' names without its config.json: put the one it was made"
            " with beside it"
        )
    _known(told, DIT_IDLE.union(DIT_NUMBERS, DIT_VALUES, {"norm_eps"}), where)
    for word, value in DIT_VALUES.items():
        family.demand(told, word, value)
    words: dict[str, Any] = {**DIT_NUMBERS, "norm_eps": 1e-5, **told}
    if told.get("out_channels") is None:
        words["out_channels"] = words["in_channels"]
    for word in DIT_NUMBERS:
        if not is_whole(words[word]) or words[word] < 1:
            raise CheckpointError(
                f"{word} of {where} must be a whole number of at least 1, got {words[word]!r}"
            )
    if not is_number(words["norm_eps"]) or not 0 < words["norm_eps"] < math.inf:
        raise CheckpointError(f"norm_eps of {where} must be a positive number, got {words['norm_eps']!r}")
    if words["sample_size"] % words["patch_size"]:
        raise CheckpointError(
            f"sample_size={words['sample_size']} of {where} is no multiple of"
            f" patch_size={words['patch_size']}: give the configuration it was made with"
        )
    return words


def _conditional(network: LabelledNetwork) -> ConditionalModel:
    return ConditionalModel(network.eval(), fingerprint=network.fingerprint)


def _sigma(word: str, value: Any) -> float:
    """Return a level that is given.

    Raises:
        CheckpointError: if it is no positive number.
    """
    if not is_number(value) or not 0 < value < math.inf:
        raise CheckpointError(f"{word} must be a positive number, got {value!r}")
    return float(value)


def _known(config: Mapping[str, Any], names: frozenset[str], where: str) -> Mapping[str, Any]:
    """Return a configuration whose words are all known.

    Raises:
        CheckpointError: naming one that is not.
    """
    strange = sorted(set(config) - names)
    if strange:
        raise CheckpointError(f"{where} takes no {strange[0]!r}; known: {', '.join(sorted(names))}")
    return config
