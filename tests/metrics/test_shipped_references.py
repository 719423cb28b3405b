"""The statistics that ship: equal to a fresh measurement, and used in its place."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bench import load_images, load_results
from bench.commands.main import main
from bench.metrics.copying import CopyingMetric
from bench.metrics.measuring import reference_statistics
from bench.metrics.moments import Accumulator
from bench.metrics.reference import SHIPPED
from bench.metrics.space import get_space
from bench.plugins.loading import registry
from bench.plugins.lookup import load_model
from bench.sweep.references import References, with_held_out

SHAPE = (1, 12, 12)


class Untouchable:
    """A feature space that must not be asked."""

    def __init__(self, space):
        self.name, self.dim, self.fingerprint = space.name, space.dim, space.fingerprint

    def __call__(self, images):
        raise AssertionError("the shipped statistics were measured again")

    def to(self, device):
        return self


@pytest.mark.parametrize("name", ["digits", "pixels"])
def test_shipped_statistics_are_found_and_right(name, tmp_path):
    images, space = load_images("digits").images, get_space(name, SHAPE)
    found = reference_statistics(images, Untouchable(space), cache=tmp_path)
    fresh = Accumulator(space.dim)
    with torch.inference_mode():
        for start in range(0, len(images), 1000):
            fresh.add(space(images[start : start + 1000]))
    moments = fresh.moments()
    assert found.n == len(images) == 40_000
    assert np.allclose(found.mean, moments.mean, rtol=1e-5, atol=1e-6)
    assert np.allclose(found.cov, moments.cov, rtol=1e-4, atol=1e-5)
    assert len(list(SHIPPED.glob("*.npz"))) == 2


def test_other_images_do_not_get_the_shipped_statistics(tmp_path):
    images = load_images("digits").images.clone()
    images[123, 0, 6, 6] ^= 1
    with pytest.raises(AssertionError, match="measured again"):
        reference_statistics(images, Untouchable(get_space("digits", SHAPE)), cache=tmp_path)


def test_copying_is_measured_against_held_out_images(tmp_path):
    loaded, space = load_model("digits"), get_space("pixels", SHAPE)
    told = with_held_out(loaded, CopyingMetric("copying_pixels", "pixels"), space, torch.device("cpu"))
    assert told.held_out.n == 6000
    lawful = load_model("exact-digits")
    assert (
        with_held_out(lawful, CopyingMetric("copying_pixels", "pixels"), space, torch.device("cpu")).held_out
        is None
    )

    options = ["--samplers", "ddim", "--steps", "20", "--n", "200", "--metrics", "copying_pixels"]
    assert main(["run", *options, "--results", str(tmp_path)]) == 0
    table = load_results(tmp_path).set_index("sampler")
    real = table.loc["real images"]
    assert abs(real.copying_pixels - 0.5) < 5 * max(real.copying_pixels_se, 0.005)
    assert math.isfinite(table.loc["ddim"].copying_pixels)


def test_the_reference_images_are_read_once_for_all_metrics():
    loaded, drawn = load_model("exact-digits"), []
    draw = loaded.reference.data
    counted = replace(loaded, reference=replace(loaded.reference, data=lambda: drawn.append(1) or draw()))
    metrics = [
        registry().metrics.get(name) for name in ("fd_pixels", "fd_digits", "sliced_wasserstein_pixels")
    ]
    spaces = {name: get_space(name, SHAPE) for name in ("pixels", "digits")}
    found = References(counted, metrics, spaces, torch.device("cpu"))
    known = found.hashes
    assert {metric.name: found.of(metric.name).hash for metric in metrics} == known
    assert len(drawn) == 1
    assert found.of("fd_pixels") is found.of("sliced_wasserstein_pixels")
    assert found.of("fd_pixels").features is not None
    assert found.of("fd_digits").features is None
