"""What comes after x_0: a decoder that turns latents into images, and upsamplers that enlarge them.

A latent model is sampled in its latents and decoded once, at the end (Rombach et al. 2022, arXiv:2112.10752).
A cascade samples a small picture first; each later model is bound to that picture and sampled in its turn
(Ho et al. 2021, arXiv:2106.15282).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from bench.data.images import from_uint8, to_uint8
from bench.diffusion.conditions import TakesOptions, bound
from bench.diffusion.guidance import Around
from bench.diffusion.interfaces import EpsilonModel, Prediction
from bench.diffusion.noise import AUGMENTATION, TrajectoryNoise
from bench.diffusion.sampling import Sampler, get_sampler
from bench.errors import UsageError

Shape = tuple[int, int, int]


@runtime_checkable
class Decodes(Protocol):
    """A model whose x_0 is not the image yet.

    Attributes:
        image_shape: (C, H, W) of one image.
    """

    @property
    def image_shape(self) -> Shape:
        """Give (C, H, W) of one image."""

    def decode(self, x0: Tensor) -> Tensor:
        """Return the images in [-1, 1], (B, C, H, W), of latents x_0 (B, c, h, w)."""


def image_shape(model: EpsilonModel) -> Shape:
    """Return (C, H, W) of the images that a model's samples become: `shape` where nothing comes after x_0."""
    return getattr(model, "image_shape", None) or model.shape


def images_of(model: EpsilonModel, x0: Tensor) -> Tensor:
    """Return the images in [-1, 1] of a model's x_0: itself where the model has no decoder."""
    return model.decode(x0) if isinstance(model, Decodes) else x0


def latents_of(model: EpsilonModel, images: Tensor) -> Tensor | None:
    """Return what a model's x_0 is for images in [-1, 1], (B, C, H, W); None where nobody can say.

    Latents need the encoder. The x_0 of a cascade is a small picture, made in a way of its own.
    """
    if isinstance(model, Decodes):
        encoder = getattr(model, "encoder", None)
        return None if encoder is None else encoder(images)
    return images if image_shape(model) == tuple(model.shape) else None


def unclipped(model: EpsilonModel, sampler: Sampler) -> Sampler:
    """Return the sampler with ``clip=none`` where a model's x_0 are latents: [-1, 1] is the range of images.

    It is the sampler itself for a model of images, and where there is nothing to clip with.
    """
    first = model.model if isinstance(model, CascadeModel) else model
    clips = sampler.parameters.get("clip", "none") != "none"
    return sampler.with_(clip="none") if clips and isinstance(first, Decodes) else sampler


@dataclass(frozen=True)
class _Followed(Around):
    """A model with something after its x_0: asked, bound to samples and given options as it is alone."""

    model: EpsilonModel = field(repr=False)

    @property
    def inside(self) -> EpsilonModel:
        """The model that is sampled first."""
        return self.model

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict what the model inside does, of x (B, C, H, W) at times t (B,)."""
        return self.model(x, t)

    def at(self, indices: Sequence[int] | range, seed: int) -> Self:
        """Return the model for the samples with some indices; see `bench.diffusion.conditions.bound`."""
        inside = bound(self.model, indices, seed)
        return self if inside is self.model else replace(self, model=inside)

    def with_options(self, options: dict[str, str]) -> Self:
        """Return the model with options as text: those of the model inside.

        Raises:
            UsageError: if it takes none, or not these.
        """
        if not isinstance(self.model, TakesOptions):
            raise UsageError("this model takes no options: it has no conditions to guide")
        return replace(self, model=self.model.with_options(options))


@dataclass(frozen=True)
class DecodedModel(_Followed):
    """A model of latents with its decoder; made by `decoded`."""

    decoder: Callable[[Tensor], Tensor] = field(repr=False)
    image_shape: Shape
    encoder: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    fingerprint: str = field(default="", repr=False)

    def decode(self, x0: Tensor) -> Tensor:
        """Return the images (B, C, H, W) of latents x_0 (B, c, h, w)."""
        return self.decoder(x0)


def decoded(
    model: EpsilonModel,
    decoder: Callable[[Tensor], Tensor],
    encoder: Callable[[Tensor], Tensor] | None = None,
    fingerprint: str = "",
) -> DecodedModel:
    """Return a model of latents whose samples are decoded after they are drawn.

    Samplers see the latents: ``shape`` stays theirs. Scores, pictures and films are of the images. Scaling is
    part of the two functions: with a factor f, z = f E(x) and the decoder takes z / f.

    Args:
        model: predicts noise in latents (B, c, h, w); conditional ones too.
        decoder: latents (B, c, h, w) -> images in [-1, 1], (B, C, H, W).
        encoder: the other way; only ``check-model`` asks it.
        fingerprint: a hash of all that decides what is drawn, where the weights alone do not tell it.

    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.

    Raises:
        UsageError: if the decoder does not give a batch of images.
    """
    with torch.no_grad():
        images = decoder(torch.zeros(1, *model.shape))
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != 1:
        given = f"shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"a decoder must return images (B, C, H, W) for latents {model.shape}, not {given}")
    return DecodedModel(model, decoder, _shape_of(images), encoder, fingerprint)


@dataclass(frozen=True)
class Stage:
    """A later model of a cascade, and how it is sampled.

    Attributes:
        upsampler: pictures (B, C, h, w) in [-1, 1], of 8 bits -> the model of larger ones, bound to them.
        image_shape: (C, H, W) of the larger ones.
        sampler: its sampler; None: that of the first model.
        steps: its number of steps; None: likewise.
        spacing: rule of its grid; None: likewise.
        temperature: factor of its x_T.
        augmentation: (pictures, standard normal noise shaped like them) -> the pictures it is bound to.
        rounded: whether pictures are rounded to 8 bits before.
    """

    upsampler: Callable[[Tensor], EpsilonModel] = field(repr=False)
    image_shape: Shape
    sampler: Sampler | None = None
    steps: int | None = None
    spacing: str | None = None
    temperature: float = 1.0
    augmentation: Callable[[Tensor, Tensor], Tensor] | None = field(default=None, repr=False)
    rounded: bool = True

    def bound_to(self, pictures: Tensor, noise: TrajectoryNoise) -> EpsilonModel:
        """Return the model bound to what was drawn before it.

        Args:
            pictures: the images of the stage before, in [-1, 1], (B, C, h, w).
            noise: the noise of this stage.
        """
        low = from_uint8(to_uint8(pictures), pictures.dtype) if self.rounded else pictures
        if self.augmentation is not None:
            apart = replace(noise, shape=tuple(low.shape[1:]))
            low = self.augmentation(low, apart(0, draw=AUGMENTATION).to(low))
        return bound(self.upsampler(low), noise.indices, noise.seed)


@dataclass(frozen=True)
class CascadeModel(_Followed):
    """A model of small pictures with the upsamplers that follow it; made by `cascade`."""

    stages: tuple[Stage, ...]

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of the last stage."""
        return self.stages[-1].image_shape


def cascade(
    base: EpsilonModel,
    upsampler: Callable[[Tensor], EpsilonModel],
    *,
    sampler: str | None = None,
    steps: int | None = None,
    spacing: str | None = None,
    temperature: float = 1.0,
    augmentation: Callable[[Tensor, Tensor], Tensor] | None = None,
    rounded: bool = True,
) -> CascadeModel:
    """Return a model of small pictures whose samples an upsampler enlarges.

    The base is sampled as the trial says. Its pictures are rounded to 8 bits, and the upsampler, bound to
    sample i's picture, is sampled from noise of its own stream. What is not given here is as in the trial.

    Args:
        base: the model of small pictures, or a cascade, after whose last stage this one follows.
        upsampler: pictures (B, C, h, w) in [-1, 1] -> the model of larger ones, bound to them.
        sampler: its sampler, as on the command line: ``ddim:eta=0,clip=x0``.
        steps: its number of steps.
        spacing: the rule of its grid, or a list of times.
        temperature: factor of its x_T; 0.997 in GLIDE.
        augmentation: what is done to the pictures first: (pictures, standard normal noise) -> pictures, as in
            ``lambda low, z: bench.diffuse(low, z, alpha_bar)`` (noise conditioning augmentation).
        rounded: whether pictures are rounded to 8 bits first; False for what is no picture, as the embedding
            that a prior draws and a decoder is bound to (Ramesh et al. 2022, arXiv:2204.06125, section 2).

    Source: Ho et al. 2021, arXiv:2106.15282, section 3; Saharia et al. 2022, arXiv:2205.11487, section 2.4.

    Raises:
        UsageError: if the upsampler cannot be bound to pictures of the base.
    """
    with torch.no_grad():
        larger = upsampler(torch.zeros(1, *image_shape(base)))
    if not callable(larger) or not hasattr(larger, "shape"):
        raise UsageError(
            "an upsampler of a cascade must return a model for pictures (B, C, h, w), as in lambda low:"
            f" bench.from_prediction(lambda x, t: network(x, t, low), ...), not {type(larger).__name__}"
        )
    rule = None if sampler is None else unclipped(larger, get_sampler(sampler))
    shape = image_shape(larger)
    stage = Stage(upsampler, shape, rule, steps, spacing, temperature, augmentation, rounded)
    first, before = (base.model, base.stages) if isinstance(base, CascadeModel) else (base, ())
    return CascadeModel(first, (*before, stage))


def _shape_of(images: Tensor) -> Shape:
    channels, height, width = images.shape[1:]
    return channels, height, width
