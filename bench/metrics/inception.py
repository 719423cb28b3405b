"""The FID Inception network as feature spaces: equal to the published one, and faster.

``inception_2048`` (the layer called FID), ``inception_768``, ``inception_192``, ``inception_64``: pooled
layers; ``inception_spatial``: the map behind sFID; ``inception_probs``: the classes, for the Inception Score.

The network is torch-fidelity's ``inception-v3-compat``. Here batch norm is folded into the convolutions,
tensors are channels-last, the TensorFlow-1 resize is two matrix products, and a batch goes through in pieces
that fit the processor's cache. ``SAMPLER_BENCH_INCEPTION_PATH=stock`` runs the network as published instead.
"""

from __future__ import annotations

import functools
import io
import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.data.images import to_device
from bench.device.precision import full_float32
from bench.errors import UnknownNameError, UsageError
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.space import Shape, fingerprint
from bench.metrics.weights import INCEPTION

Route = Literal["fast", "stock"]

SIDE = 299
STAGES = (
    *("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
    *("MaxPool_2", "Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d"),
    *("Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c", "fc"),
)
LAYERS = {
    "64": ("MaxPool_1", 64),
    "192": ("MaxPool_2", 192),
    "spatial": ("Mixed_6d", 7 * 17 * 17),
    "768": ("Mixed_6e", 768),
    "2048": ("Mixed_7c", 2048),
    "probs": ("fc", 1009),
}
"""Feature layers: the stage each is read after, and its dimension."""

CPU_BATCH = 8  # activations of more images fall out of the cache: 8 are 1.1 times faster than 32
CUDA_BATCH = 256
_ANY = "_any"


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fid``, ``sfid`` and the distances in the earlier layers, each named for what it is."""
    return [
        FrechetMetric("fid", "inception_2048"),
        FrechetMetric("sfid", "inception_spatial"),
        FrechetMetric("fd_inception_2048", "inception_2048_any"),
        *(FrechetMetric(f"fd_inception_{layer}", f"inception_{layer}") for layer in ("768", "192", "64")),
    ]


class InceptionSpace:
    """One layer of the network as a feature space.

    Layer ``2048`` is the pooled last block (Heusel et al. 2017, arXiv:1706.08500); ``768``, ``192`` and
    ``64`` are pooled earlier ones; ``spatial`` is the first 7 channels of the 17 x 17 map ``mixed_6/conv``
    (Nash et al. 2021, arXiv:2103.03841; the choice of channels is guided-diffusion's), 2023 numbers;
    ``probs`` is softmax of the 1008 logits without bias, followed by the sum of p log p.

    Args:
        layer: a key of ``LAYERS``.
        weights: path of the weight file; found where ``INCEPTION.find`` looks if None.
        accept: SHA-256 of another weight file that is allowed.
        path: ``fast`` or ``stock``.
        strict: refuse every weight file but the published one.

    Raises:
        UsageError: if weights are missing, damaged, not those allowed, or not there for this layer.
    """

    def __init__(
        self,
        layer: str,
        *,
        weights: os.PathLike[str] | str | None = None,
        accept: str | None = None,
        path: Route = "fast",
        strict: bool = False,
    ) -> None:
        if layer not in LAYERS:
            raise UnknownNameError("Inception layer", layer, LAYERS)
        if path not in ("fast", "stock"):
            raise UsageError(f"the path through the network is 'fast' or 'stock', not {path!r}")
        self.layer = layer
        self._network = _network(_File.of(weights, accept), path, torch.device("cpu"))
        known = self._network.sha256 == INCEPTION.sha256
        self.name = INCEPTION.space_name(f"inception_{layer}", self._network.sha256)
        if strict and not known:
            raise UsageError(
                f"fid means {INCEPTION.name} alone, and the weights found have SHA-256"
                f" {self._network.sha256[:8]}...; ask for fd_inception_{layer} instead"
            )
        self._network.check(layer)
        self._network.spaces.add(self)

    @property
    def dim(self) -> int:
        """Number of features."""
        return LAYERS[self.layer][1]

    @property
    def fingerprint(self) -> str:
        """Name and hash of weights, layer, resize, dtype and path."""
        return fingerprint(
            self.name,
            weights=self._network.sha256,
            layer=self.layer,
            resize=f"tensorflow-1 bilinear {SIDE}",
            dtype="float32",
            tf32=False,
            path=self._network.path,
            grey="repeated thrice",
        )

    @property
    def most_at_once(self) -> int:
        """Images that go through the network of a GPU at a time."""
        return CUDA_BATCH

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, H, W), or (B, 1, H, W) repeated thrice, to float32 (B, d)."""
        check_colours(self.name, images)
        return self._network.features(images, self.layer)

    def to(self, device: torch.device | str) -> InceptionSpace:
        """Move to ``device`` and return the space itself; spaces of one device share one network."""
        moved = self._network.on(torch.device(device))
        if moved is not self._network:
            self._network.spaces.discard(self)
            self._network = moved
            moved.spaces.add(self)
        return self


class Network:
    """The network on one device, shared by its spaces: a batch goes through once for all their layers."""

    def __init__(self, file: _File, path: Route, device: torch.device) -> None:
        self._file = file
        self.path = path
        self.device = device
        state, self.sha256 = INCEPTION.load(file.path, accept=file.accept)
        self._module = _published(state).to(device)
        self._finite = {name: _is_finite(self._module.get_submodule(name)) for name in STAGES}
        if self.path == "fast":
            _fold(self._module)
            self._module.to(memory_format=torch.channels_last)
        self.spaces: weakref.WeakSet[InceptionSpace] = weakref.WeakSet()
        self._last: tuple[Tensor, dict[str, Tensor]] | None = None

    def on(self, device: torch.device) -> Network:
        """Return the same network on ``device``."""
        return self if device == self.device else _network(self._file, self.path, device)

    def check(self, layer: str) -> None:
        """Raise UsageError unless every weight before ``layer`` is a number."""
        for name in STAGES[: STAGES.index(LAYERS[layer][0]) + 1]:
            if not self._finite[name]:
                raise UsageError(f"the weights of {name}, which layer {layer} needs, are not numbers")

    def features(self, images: Tensor, layer: str) -> Tensor:
        """Features of one layer; those of the other spaces' layers are kept for the same images.

        They are handed out once: with a single layer nothing is kept or compared, so that a GPU need not be
        waited for.
        """
        images = to_device(images, self.device)
        if self._last is not None and layer in self._last[1] and torch.equal(self._last[0], images):
            return self._last[1].pop(layer)
        self._last = None
        layers = sorted({layer, *(space.layer for space in self.spaces)})
        size = CPU_BATCH if self.device.type == "cpu" else CUDA_BATCH
        with torch.inference_mode(), full_float32():
            parts = [self._forward(part, layers) for part in torch.split(images, size)]
            found = {name: torch.cat([part[name] for part in parts]) for name in layers}
        wanted = found.pop(layer)
        if found:
            self._last = (images.clone(), found)
        return wanted

    def _forward(self, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        x = self._stock_input(images) if self.path == "stock" else self._fast_input(images)
        found: dict[str, Tensor] = {}
        wanted = {LAYERS[name][0]: name for name in layers}
        last = max(STAGES.index(stage) for stage in wanted)
        for stage in STAGES[: last + 1]:
            if stage == "fc":
                found["probs"] = _probabilities(x.mean((2, 3)), self._module.get_submodule("fc"))
                continue
            x = self._module.get_submodule(stage)(x)
            if stage in wanted:
                name = wanted[stage]
                found[name] = x[:, :7].flatten(1).clone() if name == "spatial" else _pooled(x)
        return found

    def _stock_input(self, images: Tensor) -> Tensor:
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(SIDE, SIDE), align_corners=False)
        resized: Tensor = (x - 128) / 128
        return resized

    def _fast_input(self, images: Tensor) -> Tensor:
        x = (images.float() - 128) / 128
        rows, columns = (resize_matrix(side, SIDE, self.device) for side in images.shape[2:])
        return (rows @ x @ columns.T).contiguous(memory_format=torch.channels_last)


def check_colours(space: str, images: Tensor) -> None:
    """Raise UsageError if ``images`` are not uint8 (B, 3, H, W), or (B, 1, H, W)."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UsageError(
            f"{space} expects uint8 images (B, 3, H, W) or (B, 1, H, W), got {images.dtype}"
            f" {tuple(images.shape)}"
        )


@functools.lru_cache(maxsize=32)
def resize_matrix(size: int, out: int, device: torch.device | str = "cpu") -> Tensor:
    """(out, size) matrix of TensorFlow 1's bilinear resize: row i reads the input at i * size / out."""
    position = torch.arange(out, dtype=torch.float32) * torch.tensor(size / out, dtype=torch.float32)
    low = position.long()
    share = position - low
    matrix = torch.zeros(out, size)
    matrix.scatter_add_(1, low[:, None], (1 - share)[:, None])
    return matrix.scatter_add_(1, (low + 1).clamp_max(size - 1)[:, None], share[:, None]).to(device)


def inception_space(name: str, shape: Shape) -> InceptionSpace:
    """Make the space ``inception_LAYER``, or ``inception_2048_any`` for weights other than the published."""
    layer = name.removeprefix("inception_").removesuffix(_ANY)
    path: Any = os.environ.get("SAMPLER_BENCH_INCEPTION_PATH", "fast")
    strict = layer in ("2048", "probs") and not name.endswith(_ANY)
    return InceptionSpace(layer, path=path, strict=strict)


@dataclass(frozen=True)
class _File:
    """A weight file as it is now: one that was changed is another."""

    path: str
    size: int
    modified: int
    accept: str | None

    @classmethod
    def of(cls, weights: os.PathLike[str] | str | None, accept: str | None) -> _File:
        found = INCEPTION.find(weights, accept=accept).resolve()
        status = found.stat()
        return cls(str(found), status.st_size, status.st_mtime_ns, INCEPTION.accepted(accept))


@functools.lru_cache(maxsize=4)
def _network(file: _File, path: Route, device: torch.device) -> Network:
    return Network(file, path, device)


def _published(state: Mapping[str, Tensor]) -> nn.Module:
    """torch-fidelity's module holding ``state``.

    Its constructor unpickles whatever file it is given, so it is given one that was written here, in memory,
    from tensors already read safely; and it draws initial weights, which must not move the global generator.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise UsageError(f"Inception features need `pip install torch-fidelity`: {error}") from error
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    buffer.seek(0)
    with torch.random.fork_rng(devices=[]):
        try:
            module: nn.Module = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer
            )
        except RuntimeError as error:
            raise UsageError(f"the weight file is not that of the FID Inception network: {error}") from error
    return module


def _fold(module: nn.Module) -> None:
    """Fold every batch norm into the convolution before it."""
    for block in list(module.modules()):
        conv, norm = getattr(block, "conv", None), getattr(block, "bn", None)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            block.conv = fuse_conv_bn_eval(conv, norm)
            block.bn = nn.Identity()


def _pooled(x: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(x, (1, 1)).flatten(1)


def _probabilities(pooled: Tensor, head: nn.Module) -> Tensor:
    weight = head.get_parameter("weight")
    logs = torch.log_softmax((pooled @ weight.T).double(), dim=1)
    return torch.cat([logs.exp(), (logs.exp() * logs).sum(1, keepdim=True)], dim=1)


def _is_finite(module: nn.Module) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in module.state_dict().values())
