"""The default model: a small network on 12 x 12 handwritten digits, shipped with the package."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from bench import (
    ConditionalModel,
    ModelCard,
    NoiseSchedule,
    Prediction,
    UsageError,
    Variance,
    from_uint8,
    hookimpl,
)
from bench.files.assets import read_asset
from bench.files.tensors import metadata_of
from models.errors import CheckpointError
from models.layers import sinusoidal_embedding

NETWORK = "models.digits:make_digits_network"
WEIGHTS_FILE, TRAINING_FILE = "digits.safetensors", "digits-training.csv"
WEIGHTS_BYTES = 4651720
CONDITIONAL_FILE = "digits-conditional.safetensors"
CONDITIONAL_TRAINING_FILE = "digits-conditional-training.csv"
CONDITIONAL_SHA256 = "a59ae1144f1768d24fa2c2e7e45967735786483222f8b3e5a91d92bff259cc02"
WEIGHTS_SHA256 = "2709c02b4709bce6b50ce7030b6c2cfeacc8002b012afd4b17c5624151f69a71"

_LEAST_VARIANCE = 1e-6  # of a direction of the data: pixels that are always black have none


class Conditioning(NamedTuple):
    """What the network needs to know of t, one row a time step.

    Attributes:
        shift: sqrt(abar_t) m, the mean of x_t, (B, D).
        scale: 1 / sd of x_t along each principal direction, (B, D).
        linear: what the best linear predictor of eps multiplies the whitened x_t by, (B, D).
        residual: sd of its error, (B, D).
        gains: the gains of every layer, (B, layers).
        biases: the biases of every layer, (B, layers).
    """

    shift: Tensor
    scale: Tensor
    linear: Tensor
    residual: Tensor
    gains: Tensor
    biases: Tensor


class DigitsNetwork(nn.Module):
    """A residual perceptron around the best linear predictor of the noise.

    In the principal directions of the data (mean m, variances l), x_t has variance s^2 = abar l + 1 - abar,
    and with u = Q^T (x_t - sqrt(abar) m) / s

        eps_theta = Q (sqrt(1 - abar) / s u + sqrt(abar l) / s F_theta(u, t)).

    The first term is the best linear predictor, the factor of the second the standard deviation of its error:
    F sees and predicts values of unit variance at every t, and is exact where the data have no spread.
    F is a stack of residual blocks h <- h + B silu(g_t (A h) + b_t), whose gains g_t and biases b_t come from
    a sinusoidal embedding of t.

    Args:
        mean: m, (D,).
        basis: Q, its columns the principal directions, (D, D).
        spectrum: l, (D,).
        schedule: gives abar_t.
        shape: (C, H, W) with D = C H W.
        learned_range: whether the output holds v in a second half of channels.
        width: the width of h.
        hidden: the width of the inside of a block.
        blocks: how many.
        embedding: width of the embedding of t.
        classes: K, the number of labels that the network is told; 0 for none. Label K is "none".
    """

    alpha_bar: Tensor
    mean: Tensor
    basis: Tensor
    spectrum: Tensor

    def __init__(
        self,
        mean: Tensor,
        basis: Tensor,
        spectrum: Tensor,
        schedule: NoiseSchedule,
        shape: tuple[int, int, int],
        learned_range: bool = True,
        width: int = 256,
        hidden: int = 512,
        blocks: int = 3,
        embedding: int = 64,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.learned_range = learned_range
        dimensions = math.prod(shape)
        self._sizes = [hidden] * blocks + [width]
        self._embedding = embedding
        self.register_buffer("mean", mean.float())
        self.register_buffer("basis", basis.float())
        self.register_buffer("spectrum", spectrum.clamp(min=_LEAST_VARIANCE).float())
        self.register_buffer("alpha_bar", schedule.alphas_cumprod.clone(), persistent=False)
        self.embed = nn.Sequential(
            nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.labels = nn.Embedding(classes + 1, embedding) if classes else None
        self.modulate = nn.Linear(embedding, 2 * sum(self._sizes))
        self.enter = nn.Linear(dimensions, width)
        self.up = nn.ModuleList(nn.Linear(width, hidden) for _ in range(blocks))
        downs = [nn.Linear(hidden, width) for _ in range(blocks)]
        self.down = nn.ModuleList(downs)
        self.leave = nn.Linear(width, dimensions * (2 if learned_range else 1))
        for linear in (self.modulate, self.leave):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        for down in downs:
            nn.init.normal_(down.weight, std=0.2 / math.sqrt(hidden * blocks))

    def condition(self, t: Tensor, label: Tensor | None = None) -> Conditioning:
        """Return what the layers need to know of the time steps t, int64 (B,), and of labels (B,).

        In float32 under autocast too: it costs little beside the images, and an error in it is in every one.
        """
        abar = self.alpha_bar[t].unsqueeze(1)
        spectrum = self.spectrum.double()
        sd = (abar * spectrum + 1 - abar).sqrt()
        told = sinusoidal_embedding(t, self._embedding)
        if self.labels is not None and label is not None:
            told = told + self.labels(label)
        with torch.autocast(t.device.type, enabled=False):
            gains, biases = self.modulate(self.embed(told)).chunk(2, 1)
        return Conditioning(
            (abar.sqrt() * self.mean.double()).float(),
            (1 / sd).float(),
            ((1 - abar).sqrt() / sd).float(),
            ((abar * spectrum).sqrt() / sd).float(),
            1 + gains,
            biases,
        )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Map x (B, C, H, W) and t (B,) to eps and, with learned_range, v: (B, C or 2C, H, W).

        A network with a table of labels takes labels (B,) too, and K for "none", which it is without them.
        """
        if self.labels is not None and label is None:
            label = torch.full_like(t, self.labels.num_embeddings - 1)
        return self.predict(x, self.condition(t, label))

    def predict(self, x: Tensor, at: Conditioning) -> Tensor:
        """Return what `forward` does, for one row of ``at`` to each image or a single row for all."""
        with torch.autocast(x.device.type, enabled=False):
            u = (x.flatten(1).float() - at.shift) @ self.basis * at.scale
        raw = self._perceptron(u, at.gains, at.biases).float()
        with torch.autocast(x.device.type, enabled=False):
            residual, *v = raw.chunk(2 if self.learned_range else 1, 1)
            eps = torch.addcmul(u * at.linear, residual, at.residual) @ self.basis.T
        return torch.cat([eps, *v], 1).view(len(x), -1, *self.shape[1:])

    def _perceptron(self, u: Tensor, gains: Tensor, biases: Tensor) -> Tensor:
        layers = list(
            zip(
                gains.split_with_sizes(self._sizes, 1),
                biases.split_with_sizes(self._sizes, 1),
                strict=True,
            )
        )
        h = self.enter(u)
        for up, down, (gain, bias) in zip(self.up, self.down, layers[:-1], strict=True):
            h = h + down(_activate(up(h), gain, bias))
        return self.leave(_activate(h, *layers[-1]))  # type: ignore[no-any-return]


def _activate(h: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    h = torch.addcmul(bias.to(h.dtype), h, gain.to(h.dtype))
    # In place where nothing has to be kept for a gradient: fresh memory costs more than the arithmetic.
    return functional.silu(h, inplace=not torch.is_grad_enabled())


def make_digits_network(
    images: Tensor, schedule: NoiseSchedule, learned_range: bool, **options: Any
) -> DigitsNetwork:
    """Return an untrained network for uint8 images (N, C, H, W), with their mean and principal directions."""
    return network_around(from_uint8(images), schedule, learned_range, **options)


def network_around(
    data: Tensor, schedule: NoiseSchedule, learned_range: bool, **options: Any
) -> DigitsNetwork:
    """Return an untrained network for data (N, C, H, W) of any range, around their mean and directions."""
    x = data.flatten(1).double()
    spectrum, basis = torch.linalg.eigh(torch.cov(x.T))
    shape = (data.shape[1], data.shape[2], data.shape[3])
    return DigitsNetwork(x.mean(0), basis, spectrum, schedule, shape, learned_range, **options)


def make_conditional_digits(
    images: Tensor, schedule: NoiseSchedule, learned_range: bool, classes: int = 10
) -> DigitsNetwork:
    """Return the shipped network with a table of K labels and one for "none", which begins at zero.

    Args:
        images: uint8 (N, C, H, W), of the shipped network's shape.
        schedule: the shipped network's.
        learned_range: whether the output holds v; the shipped network's does.
        classes: K.

    Raises:
        UsageError: if the images or the variance are not those of the shipped network.
    """
    base = load_digits()
    if tuple(images.shape[1:]) != base.shape or not learned_range or schedule != base.schedule:
        raise UsageError("the conditional digits begin as the shipped network, on its images")
    started = base.network
    network = DigitsNetwork(
        started.mean, started.basis, started.spectrum, schedule, base.shape, True, classes=classes
    )
    network.load_state_dict(started.state_dict(), strict=False)
    assert network.labels is not None
    nn.init.zeros_(network.labels.weight)
    return network


class DigitsModel(nn.Module):
    """The trained network as an epsilon-model with learned_range variance.

    What depends on t alone is computed once where all images have the same t.

    Attributes:
        schedule: linear, T = 1000.
        shape: (1, 12, 12).
        variance: ``learned_range``.
        fingerprint: SHA-256 of the weight file.
    """

    def __init__(self, network: DigitsNetwork, schedule: NoiseSchedule, fingerprint: str) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self.schedule = schedule
        self.shape = network.shape
        self.variance: Variance = "learned_range" if network.learned_range else "fixed"
        self.fingerprint = fingerprint

    def forward(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the noise in x (B, 1, 12, 12) at the time steps t, int64 (B,), and v; float32.

        v is kept in [-1, 1], between the two bounds of eq. 15: beyond them the network has seen gaps of one
        time step only, and at the edge of the picture, which never varies, it runs far below.
        """
        with torch.no_grad():
            # A comparison on a GPU would wait for it; a row for each image costs next to nothing there.
            same = x.device.type == "cpu" and len(t) > 0 and bool((t == t[0]).all())
            output = self.network.predict(x, self.network.condition(t[:1] if same else t))
        channels = self.shape[0]
        v = output[:, channels:].clamp(-1, 1) if self.network.learned_range else None
        return Prediction(output[:, :channels], v)


class ConditionalDigits(nn.Module):
    """The conditional network as `bench.guided` takes it: (x, t, label) -> Prediction.

    Attributes:
        schedule: the shipped network's.
        shape: (1, 12, 12).
        variance: ``learned_range``.
        prediction: ``eps``.
        classes: 10 digits.
    """

    prediction: Literal["eps"] = "eps"

    def __init__(self, network: DigitsNetwork, schedule: NoiseSchedule) -> None:
        super().__init__()
        assert network.labels is not None
        self.network = network.eval().requires_grad_(False)
        self.schedule, self.shape = schedule, network.shape
        self.variance: Variance = "learned_range"
        self.classes = network.labels.num_embeddings - 1

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Prediction:
        """Predict the noise in x (B, 1, 12, 12) at time steps t (B,) for labels (B,), and v in [-1, 1]."""
        with torch.no_grad():
            output = self.network(x, t, label)
        channels = self.shape[0]
        return Prediction(output[:, :channels], output[:, channels:].clamp(-1, 1))


def load_conditional_digits(path: Path | str | None = None) -> ConditionalModel:
    """Return the shipped conditional model, or one that ``train digits-conditional`` made.

    Raises:
        UsageError: if the file is missing, truncated, damaged or of another network.
    """
    data = read_asset(CONDITIONAL_FILE, CONDITIONAL_SHA256) if path is None else read_weights(path)
    tensors = load(data)
    if "labels.weight" not in tensors:
        raise CheckpointError(f"{path or CONDITIONAL_FILE} holds no network with labels")
    schedule, side = NoiseSchedule.linear(), math.isqrt(len(tensors["mean"]))
    network = DigitsNetwork(
        tensors["mean"],
        tensors["basis"],
        tensors["spectrum"],
        schedule,
        (1, side, side),
        True,
        classes=len(tensors["labels.weight"]) - 1,
    )
    network.load_state_dict(tensors)
    return ConditionalModel(
        ConditionalDigits(network, schedule), fingerprint=hashlib.sha256(data).hexdigest()
    )


def load_digits(path: Path | str | None = None) -> DigitsModel:
    """Return the shipped model, or one that ``bench.training.train`` made with the same kind of network.

    Args:
        path: a weight file; None for the shipped one, whose size and SHA-256 are verified first.

    Raises:
        UsageError: if the file is missing, truncated, damaged or of another network.
    """
    if path is None:
        return read_digits(read_asset(WEIGHTS_FILE, WEIGHTS_SHA256, WEIGHTS_BYTES), WEIGHTS_FILE)
    return read_digits(read_weights(path), str(path))


def read_weights(path: Path | str) -> bytes:
    """Return the bytes of a weight file.

    Raises:
        CheckpointError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); give an existing file") from None


def read_digits(
    data: bytes, name: str, factory: str = NETWORK, shape: tuple[int, int, int] | None = None
) -> DigitsModel:
    """Return the model in the bytes of a safetensors file.

    Args:
        data: the bytes.
        name: the file's, for messages.
        factory: what made the network that is looked for, "module:factory".
        shape: (C, H, W) of its data; None for square images of one channel.

    Raises:
        CheckpointError: if the bytes are truncated or hold another network.
    """
    try:
        tensors = load(data)
        config = json.loads(metadata_of(data)["config"])
        options = config["network_options"]
        schedule = NoiseSchedule.linear(int(config["timesteps"]))
        if config["network"] != factory or config["schedule"] != "linear":
            raise CheckpointError(
                f"{name} holds the network {config['network']} on the {config['schedule']} schedule, not"
                f" {factory} on the linear one"
            )
        side = math.isqrt(len(tensors["mean"]))
        network = DigitsNetwork(
            tensors["mean"],
            tensors["basis"],
            tensors["spectrum"],
            schedule,
            shape or (1, side, side),
            config["variance"] == "learned_range",
            **options,
        )
        network.load_state_dict(tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{name} is truncated or holds no digits network ({reason}); train it again or install the"
            " package again"
        ) from None
    return DigitsModel(network, schedule, hashlib.sha256(data).hexdigest())


@hookimpl
def bench_models() -> Sequence[ModelCard]:
    """Register the default model and its conditional sister."""
    return [
        ModelCard(
            "digits",
            load_digits,
            "shipped: a small network on 12x12 handwritten digits, learned variance, averaged weights",
            data="digits",
            held_out="digits-held-out",
            metrics=("fd_digits", "fd_pixels"),
            batch=1000,
            training=asset(TRAINING_FILE),
        ),
        ModelCard(
            "digits-conditional",
            load_conditional_digits,
            "shipped: the network of digits told which digit, for classifier-free guidance:"
            " digits-conditional:guidance=3,label=uniform",
            data="digits",
            held_out="digits-held-out",
            metrics=("fd_digits", "fd_pixels"),
            batch=1000,
            training=asset(CONDITIONAL_TRAINING_FILE),
        ),
    ]


def asset(name: str) -> Path:
    """Return the path of a file that ships with the models."""
    return Path(str(resources.files("models").joinpath("assets", name)))
