"""Whether a sweep fits into the memory of its GPUs, estimated before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from bench.data.images import to_uint8
from bench.device.footprint import footprint
from bench.diffusion.conditions import bound
from bench.diffusion.grid import times_like
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.stages import image_shape
from bench.metrics.space import FeatureSpace, features_of

GIB = 2**30


LIBRARIES = GIB // 2
"""Kernels and workspaces of the libraries, which no tensor shows."""


SLACK = 4.4
"""Memory that is taken from the card for every byte of activations counted: the allocator's blocks, the
workspaces of convolutions, what a sampler and its noise keep of x. Measured: the 35.7 M U-Net on an H200 with
torch 2.11 took 4.4 at batch 256 (7.7 GiB) and 4.0 at batch 1024 (26.5 GiB).
"""


@dataclass(frozen=True)
class DeviceNeeds:
    """Memory that a sweep needs at once on each of its GPUs, in bytes.

    Attributes:
        weights: bytes of the network and the feature spaces.
        network: tensors alive at one time in a call of the network, a sample.
        spaces: the bytes of every feature space, and the most samples that it takes at a time.
    """

    weights: int
    network: int
    spaces: Sequence[tuple[int, int | None]] = ()

    def activations(self, batch: int) -> int:
        """Return what a batch takes: the network and the spaces run in turn."""
        scoring = (a_sample * min(batch, most or batch) for a_sample, most in self.spaces)
        return max(self.network * batch, *scoring, 0)

    def total(self, batch: int) -> int:
        """Return everything that is needed at a batch size."""
        return LIBRARIES + self.weights + int(SLACK * self.activations(batch))

    def largest_batch(self, there: int) -> int:
        """Return the largest batch that fits, of one or two digits and zeros; 0 where none does."""
        sizes = (digits * 10**zeros for zeros in range(7) for digits in range(1, 100))
        return max((size for size in sizes if self.total(size) <= there), default=0)


def device_needs(model: EpsilonModel, spaces: Sequence[FeatureSpace]) -> DeviceNeeds:
    """Return what a sweep needs on a GPU: the network and the spaces are run on one sample, on the CPU.

    A batch takes as many times as much, in float32: half precision needs less.
    """

    def call() -> object:
        x = torch.zeros(1, *model.shape)
        return bound(model, range(1), 0)(x, times_like(x, model.schedule.last))

    def score(space: FeatureSpace) -> object:
        x = torch.zeros(1, *image_shape(model))
        return features_of(space, to_uint8(x), x, torch.zeros(1, dtype=torch.int64))

    network, scoring = footprint(call), [footprint(partial(score, space)) for space in spaces]
    most = [getattr(space, "most_at_once", None) for space in spaces]
    return DeviceNeeds(
        network.resident + sum(one.resident for one in scoring),
        network.working,
        [(one.working, limit) for one, limit in zip(scoring, most, strict=True)],
    )


def lacks_on_devices(
    devices: Sequence[str], batch: int, model: EpsilonModel, spaces: Sequence[FeatureSpace]
) -> Iterator[str]:
    """Yield a sentence for every GPU whose free memory the sweep will not fit into."""
    gpus = [device for device in dict.fromkeys(devices) if torch.device(device).type == "cuda"]
    if not gpus:
        return
    needs = device_needs(model, spaces)
    for device in gpus:
        there, _ = torch.cuda.mem_get_info(device)
        if there < needs.total(batch):
            fits = needs.largest_batch(there)
            advice = f"give --batch {fits}" if fits else "free some of it, or give --device cpu"
            weights, activations = needs.weights / GIB, needs.activations(batch) / GIB
            yield (
                f"about {needs.total(batch) / GIB:.1f} GiB are needed on {device} at --batch {batch} (weights"
                f" {weights:.1f}, activations {activations:.1f} by a run on one sample, the rest"
                f" for libraries and the allocator), {there / GIB:.1f} are free: {advice}"
            )
