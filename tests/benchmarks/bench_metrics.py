"""Scoring against torch-fidelity: extraction and Frechet distance apart, and the whole score of a trial.

``pytest tests/benchmarks/bench_metrics.py --benchmark-only -o addopts= -o python_files='bench_*.py'``; each
group's ratios are the result. A GPU is used where there is one; SAMPLER_BENCH_BATCH sets the batch (64 is
torch-fidelity's own), SAMPLER_BENCH_IMAGES the number of images from end to end.
"""

import os
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from support.inception import Images, sha256, write_random_weights
from support.references import moments_reference

from bench.device.precision import full_float32
from bench.metrics import (
    FrechetMetric,
    FrechetReference,
    GroupedStatistics,
    Moments,
    frechet_distance,
    reference_statistics,
)
from bench.metrics.inception import InceptionSpace

torch_fidelity = pytest.importorskip("torch_fidelity")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VALUES = {}
BATCH = int(os.environ.get("SAMPLER_BENCH_BATCH", "64"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_random_weights(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator).to(DEVICE)


def synchronised(call, *given):
    result = call(*given)
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return result


@pytest.mark.parametrize("path", ["torch-fidelity", "stock", "fast"])
def test_extraction(benchmark, path, weights, images):
    """2048-d features of one batch of 32 x 32 images."""
    benchmark.group = f"Inception features of {BATCH} images on {DEVICE}, {torch.get_num_threads()} threads"
    if path == "torch-fidelity":
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        module = FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights)).to(
            DEVICE
        )

        def extract(x):
            with torch.no_grad():
                return module(x)[0]

    else:
        extract = InceptionSpace("2048", weights=weights, accept=sha256(weights), path=path).to(DEVICE)
    # Other images each time: a space answers for the images it has just seen from memory.
    turn = iter(range(100))
    benchmark.pedantic(
        synchronised,
        setup=lambda: ((extract, images ^ next(turn)), {}),
        rounds=3,
        warmup_rounds=1,
    )


@pytest.mark.parametrize("way", ["torch-fidelity", "torch-fidelity without TF32", "here"])
def test_end_to_end(benchmark, way, weights, tmp_path):
    """FID of two sets of uint8 images in memory: loading, features, moments, distance; nothing cached.

    torch-fidelity leaves TF32 as torch has it, on for convolutions on a GPU; what is called FID has it off.
    """
    n = int(os.environ.get("SAMPLER_BENCH_IMAGES", "5000" if DEVICE == "cuda" else "32"))
    generator = torch.Generator().manual_seed(1)
    x, y = (
        torch.randint(0, high, (n, 3, 32, 32), dtype=torch.uint8, generator=generator) for high in (256, 200)
    )
    benchmark.group = f"FID of {n} against {n} images on {DEVICE}, end to end"
    space = InceptionSpace("2048", weights=weights, accept=sha256(weights)).to(DEVICE)

    def theirs():
        return torch_fidelity.calculate_metrics(
            input1=Images(x),
            input2=Images(y),
            cuda=DEVICE == "cuda",
            fid=True,
            cache=False,
            verbose=False,
            feature_extractor_weights_path=str(weights),
        )["frechet_inception_distance"]

    def ours():
        first, second = (
            reference_statistics(iter(part.split(256)), space, device=DEVICE, cache=tmp_path)
            for part in (x, y)
        )
        return frechet_distance(first.mean, first.cov, second.mean, second.cov)

    call = ours if way == "here" else theirs
    with full_float32() if "without" in way else nullcontext():
        gpu = DEVICE == "cuda"
        found = benchmark.pedantic(call, rounds=3 if gpu else 1, warmup_rounds=1 if gpu else 0)
    VALUES[way] = found
    benchmark.extra_info["FID"] = found
    if way == "here" and n > space.dim and "torch-fidelity without TF32" in VALUES:
        assert found == pytest.approx(VALUES["torch-fidelity without TF32"], rel=1e-4)


@pytest.fixture(scope="module")
def moments():
    """10,000 vectors of 2048 features each side, with the decaying spectrum of network features."""
    d, rng = 2048, np.random.default_rng(0)
    mix = (rng.normal(size=(d, d)) * np.exp(-np.arange(d) / 300)[:, None] / 40).astype(np.float32)
    sides = []
    for scale in (1.0, 1.1):
        drawn = rng.normal(size=(10_000, d)).astype(np.float32) @ mix * scale
        sides.append(Moments.of(np.maximum(drawn, 0)))
    return sides


@pytest.mark.parametrize("way", ["torch-fidelity", "frechet_distance", "reference factored before"])
def test_frechet_distance(benchmark, way, moments):
    """One distance at d = 2048."""
    a, b = moments
    benchmark.group = "Frechet distance, d = 2048"
    if way == "torch-fidelity":
        from torch_fidelity.metric_fid import fid_statistics_to_metric

        given = ({"mu": a.mean, "sigma": a.cov}, {"mu": b.mean, "sigma": b.cov}, False)
        call = fid_statistics_to_metric
    elif way == "frechet_distance":
        given, call = (a.mean, a.cov, b.mean, b.cov), frechet_distance
    else:
        given, call = (b,), FrechetReference(a.mean, a.cov).distance_to
    benchmark.pedantic(call, args=given, rounds=3, warmup_rounds=1)


@pytest.mark.parametrize("d", [64, 256, 768])
def test_score_with_its_error(benchmark, d):
    """Value, bias correction and standard error: 21 distances."""
    rng = np.random.default_rng(1)
    reference = moments_reference(Moments.of(rng.normal(size=(4 * d, d))), "s", name="r")
    stats = GroupedStatistics(4 * d, d)
    stats.add(rng.normal(size=(4 * d, d)) * 1.1, range(4 * d))
    benchmark.group = f"score of one trial, d = {d}"
    benchmark.pedantic(FrechetMetric("fd", "s").score, args=(stats, reference), rounds=3, warmup_rounds=1)
