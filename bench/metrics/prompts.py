"""CLIP score and prompt retrieval: whether samples of a text model show what their prompts say.

The network and the prompts are the user's own and named by two environment variables, so that nothing is
downloaded: ``SAMPLER_BENCH_CLIP_SCORE``, a folder with a CLIP model as transformers saves it, and
``SAMPLER_BENCH_PROMPTS``, the file with a prompt a line that the model was given as ``prompts=FILE``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.device.precision import full_float32
from bench.errors import UsageError
from bench.files.digests import file_digest
from bench.hooks import hookimpl
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import Metric, score_without_reference
from bench.metrics.reference import Reference
from bench.metrics.space import Shape, fingerprint
from bench.stats.score import Score

FOLDER, PROMPTS = "SAMPLER_BENCH_CLIP_SCORE", "SAMPLER_BENCH_PROMPTS"

_MEAN = (0.48145466, 0.4578275, 0.40821073)
_SD = (0.26862954, 0.26130258, 0.27577711)
_BATCH = 32


class PromptedImages:
    """(uint8 images (B, C, H, W), labels (B,)) -> (B, 2): how near an image is to its prompt.

    The first number is max(cos, 0) of image and prompt, the second 1 where no other prompt is nearer, else 0:
    cos(i, k) = <f(x_i), g(p_k)> / (|f(x_i)| |g(p_k)|) with f and g CLIP's embeddings of images and texts.
    Images are resized to the network's side by antialiased bicubic interpolation, gray ones repeated thrice.

    Attributes:
        labelled: True: label k of a sample is the k-th prompt.
    """

    name = "clip_prompts"
    dim = 2
    labelled = True
    most_at_once = _BATCH

    def __init__(self, network: Any, side: int, texts: Tensor, identity: str) -> None:
        self.network, self.side = network, side
        self.texts = functional.normalize(texts, dim=1)
        self.fingerprint = fingerprint(
            self.name, weights=identity, side=side, resize="bicubic, antialiased", dtype="float32"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Hold every image to its prompt.

        Raises:
            UsageError: without labels, or with one that is no prompt's.
        """
        if labels is None:
            raise UsageError(f"feature space {self.name} takes the labels of its samples beside them")
        if bool(((labels < 0) | (labels >= len(self.texts))).any()):
            raise UsageError(
                f"label {int(labels.max())} has no prompt in {PROMPTS}, which holds {len(self.texts)}: name"
                " the file that the model was given as prompts=FILE"
            )
        with torch.autocast(images.device.type, enabled=False), full_float32():
            found = [self._cosines(part) for part in torch.split(images, _BATCH)]
        cosines = torch.cat(found)
        own = labels.to(cosines.device)
        nearest = cosines.argmax(1) == own
        return torch.stack([cosines.gather(1, own[:, None])[:, 0].clamp_min(0), nearest.float()], 1)

    def _cosines(self, images: Tensor) -> Tensor:
        x = images.expand(-1, 3, -1, -1).float()
        x = functional.interpolate(x, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 255)
        mean, sd = (torch.tensor(values, device=x.device)[:, None, None] for values in (_MEAN, _SD))
        embedded = _embedding(self.network.get_image_features(pixel_values=(x / 255 - mean) / sd))
        cosines: Tensor = functional.normalize(embedded.float(), dim=1) @ self.texts.T
        return cosines

    def to(self, device: torch.device | str) -> PromptedImages:
        """Move the network to ``device`` and return the space itself."""
        self.network.to(device)
        self.texts = self.texts.to(device)
        return self


def prompt_space(name: str, shape: Shape) -> PromptedImages:
    """Make the space from what the two environment variables name.

    Raises:
        UsageError: if one is not set or names nothing of use, or transformers is not installed.
    """
    folder, prompts = (_named(variable) for variable in (FOLDER, PROMPTS))
    texts = _lines(prompts)
    try:
        import transformers
    except ImportError:
        raise UsageError(f"{name} needs transformers: pip install 'sampler-bench[hub]'") from None
    try:
        network: Any = transformers.CLIPModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"{FOLDER}={folder} holds no CLIP model that can be read: {error}") from None
    network = network.eval().requires_grad_(False)
    most = network.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
    with torch.no_grad(), full_float32():
        embedded = _embedding(network.get_text_features(**tokens)).float()
    told = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    weights = ",".join(file_digest(path) for path in sorted(folder.glob("*.safetensors")))
    return PromptedImages(network, network.config.vision_config.image_size, embedded, f"{weights},{told}")


def _embedding(told: Any) -> Tensor:
    """Return the projected embedding, which newer versions of transformers put into an object."""
    found: Tensor = getattr(told, "pooler_output", told)
    return found


def _named(variable: str) -> Path:
    if not os.environ.get(variable):
        raise UsageError(
            f"the scores of prompts need {variable}: set {FOLDER} to a folder with a CLIP model as"
            f" transformers saves it, and {PROMPTS} to the file that the model was given as prompts=FILE"
        )
    return Path(os.environ[variable])


def _lines(path: Path) -> Sequence[str]:
    """Return the prompts of a file, in the order in which a text model numbers them."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{PROMPTS}={path} cannot be read ({error}); name a text file") from None
    if not lines:
        raise UsageError(f"{PROMPTS}={path} holds no prompt; give a prompt a line")
    return lines


@dataclass(frozen=True)
class PromptScore:
    """The mean of one of the space's features over the samples, times a weight; no reference enters.

    ``clip_score`` is 100 E max(cos, 0), as text-to-image papers print it. Source: Hessel et al. 2021,
    CLIPScore, arXiv:2104.08718, eq. 1, whose weight is 2.5.

    ``clip_retrieval`` is the share of images whose own prompt is the nearest of all of the file. Source: the
    R-precision of Xu et al. 2018, AttnGAN, arXiv:1711.10485, with CLIP, as in Park et al. 2021.

    Attributes:
        name: column name.
        feature: which feature.
        weight: what it is multiplied with.
    """

    name: str
    feature: int
    weight: float
    space: str = "clip_prompts"
    needs: Needs = "moments"
    higher_is_better: bool = True
    uses_reference: bool = False

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the score with its jackknife error; UsageError for no samples."""
        return score_without_reference(
            self, sample, reference, lambda moments: self.weight * float(moments.mean[self.feature])
        )


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``clip_score`` and ``clip_retrieval``."""
    return [PromptScore("clip_score", 0, 100.0), PromptScore("clip_retrieval", 1, 1.0)]
