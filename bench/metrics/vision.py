"""DINOv2 and CLIP as feature spaces, prepared as torch-fidelity does it, where their weights are present."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.images import to_device
from bench.device.precision import full_float32
from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.inception import check_colours, resize_matrix
from bench.metrics.metric import Metric
from bench.metrics.space import Shape, fingerprint
from bench.metrics.weights import CLIP, DINOV2

_MEAN = {"dinov2_l14": (0.485, 0.456, 0.406), "clip_l14_336": (0.48145466, 0.4578275, 0.40821073)}
_SD = {"dinov2_l14": (0.229, 0.224, 0.225), "clip_l14_336": (0.26862954, 0.26130258, 0.27577711)}
_SIDE = {"dinov2_l14": 224, "clip_l14_336": 336}
_DIM = {"dinov2_l14": 1024, "clip_l14_336": 768}
_BATCH = 32
_DINOV2_CODE = "facebookresearch_dinov2_main"


class VisionSpace:
    """A vision transformer's embedding of the image, resized bilinearly the TensorFlow-1 way.

    FD-DINOv2 (Stein et al. 2023, arXiv:2306.04675) and CMMD (Jayasumana et al. 2024, arXiv:2401.09603) resize
    bicubically: their published figures are near these, not equal.

    Args:
        name: ``dinov2_l14`` or ``clip_l14_336``; the space's own name says so where other weights are used.
        network: maps normalised images (B, 3, side, side) to (B, d).
        sha256: the SHA-256 of its weights.
    """

    def __init__(self, name: str, network: nn.Module, sha256: str) -> None:
        self.name = (DINOV2 if name == "dinov2_l14" else CLIP).space_name(name, sha256)
        self._kind = name
        self._network = network.eval().requires_grad_(False)
        self._sha256 = sha256
        self._device = torch.device("cpu")

    @property
    def dim(self) -> int:
        """Number of features."""
        return _DIM[self._kind]

    @property
    def fingerprint(self) -> str:
        """Name and hash of weights, resize, normalisation and dtype."""
        return fingerprint(
            self.name,
            weights=self._sha256,
            resize=f"tensorflow-1 bilinear {_SIDE[self._kind]}",
            mean=_MEAN[self._kind],
            sd=_SD[self._kind],
            dtype="float32",
            tf32=False,
            grey="repeated thrice",
        )

    @property
    def most_at_once(self) -> int:
        """Images that go through the network at a time."""
        return _BATCH

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 3, H, W), or (B, 1, H, W) repeated thrice, to float32 (B, d)."""
        check_colours(self.name, images)
        with torch.inference_mode(), full_float32():
            return torch.cat(
                [self._embed(part) for part in torch.split(to_device(images, self._device), _BATCH)]
            )

    def to(self, device: torch.device | str) -> VisionSpace:
        """Move the network to ``device`` and return the space itself."""
        self._device = torch.device(device)
        self._network.to(self._device)
        return self

    def _embed(self, images: Tensor) -> Tensor:
        side = _SIDE[self._kind]
        x = images.expand(-1, 3, -1, -1).float()
        rows, columns = (resize_matrix(size, side, self._device) for size in images.shape[2:])
        mean, sd = (torch.tensor(v[self._kind], device=self._device)[:, None, None] for v in (_MEAN, _SD))
        embedded: Tensor = self._network((rows @ x @ columns.T - 255 * mean) / (255 * sd))
        return embedded.float()


def vision_space(name: str, shape: Shape) -> VisionSpace:
    """Make ``dinov2_l14`` or ``clip_l14_336`` from weights that are already on this machine.

    Raises:
        UsageError: if the weights are missing or wrong, or DINOv2's code is not in the torch.hub folder.
    """
    return _dinov2(name) if name == "dinov2_l14" else _clip(name)


def _dinov2(name: str) -> VisionSpace:
    state, digest = DINOV2.load()
    code = Path(torch.hub.get_dir()) / _DINOV2_CODE
    if not (code / "hubconf.py").is_file():
        raise UsageError(
            f"dinov2_l14 needs the code of github.com/facebookresearch/dinov2 at {code}: `git clone` it there"
        )
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # it warns that xFormers is missing; nothing here needs it
        load: Any = torch.hub.load
        network = load(str(code), "dinov2_vitl14", source="local", pretrained=False, verbose=False)
    network.load_state_dict(dict(state))
    return VisionSpace(name, network, digest)


def _clip(name: str) -> VisionSpace:
    path, digest = CLIP.check()
    try:
        from torch_fidelity.feature_extractor_clip import FeatureExtractorCLIP
    except ImportError as error:
        raise UsageError(f"CLIP features need `pip install torch-fidelity`: {error}") from error
    with torch.random.fork_rng(devices=[]):
        extractor: Any = FeatureExtractorCLIP(
            "clip-vit-l-14-336px", ["clip"], feature_extractor_weights_path=str(path)
        )
    return VisionSpace(name, extractor.model.visual, digest)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_dinov2_l14``."""
    return [FrechetMetric("fd_dinov2_l14", "dinov2_l14")]
