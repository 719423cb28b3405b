"""Scores on a GPU: the features of the CPU, no TF32, sums in float64, nothing that waits for the device."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.inception import sha256, write_random_weights

from bench.data.images import to_device
from bench.device.precision import allow_tf32
from bench.metrics import FrechetMetric, GroupedStatistics, Moments, get_space, reference_statistics
from bench.metrics.copying import nearest_neighbours
from bench.metrics.inception import InceptionSpace
from bench.metrics.manifold import neighbourhoods
from bench.metrics.mmd import gaussian, kernel_sums, mmd, on_sphere, polynomial
from bench.metrics.tiles import computing_on
from bench.records.trial import WorkerSetup
from bench.sweep.worker import Worker

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    pytest.importorskip("torch_fidelity")
    return write_random_weights(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(params=[False, True], ids=["full float32", "TF32 allowed"])
def tf32(request):
    """Whether the sampler's network may use TF32: a score must not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    allow_tf32(request.param)
    yield request.param
    allow_tf32(*before)


@contextmanager
def nothing_waits():
    """Any call that makes the host wait for the GPU fails."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def drawn(seed, n=3, shape=(3, 32, 32), high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (n, *shape), dtype=torch.uint8, generator=generator)


def space(layer, weights, path="fast"):
    return InceptionSpace(layer, weights=weights, accept=sha256(weights), path=path)


def relative(found, truth):
    assert found.device.type == "cuda"
    return float((found.cpu().double() - truth.double()).norm() / truth.double().norm())


@pytest.mark.parametrize("path", ["fast", "stock"])
@pytest.mark.parametrize("layer", ["64", "192", "768", "2048", "spatial", "probs"])
def test_inception_features_are_those_of_the_cpu(layer, path, weights, tf32):
    images = drawn(1)
    truth = space(layer, weights, "stock")(images)
    assert relative(space(layer, weights, path).to("cuda")(images.to("cuda")), truth) < 1e-4


@pytest.mark.parametrize("layer", ["192", "2048"])
def test_features_do_not_depend_on_what_the_network_may_use(layer, weights):
    """TF32 keeps 10 bits: it would move the features by some 1e-3."""
    images, found = drawn(2).to("cuda"), []
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for allowed in (False, True):
            allow_tf32(allowed)
            found.append(space(layer, weights).to("cuda")(images).double())
    finally:
        allow_tf32(*before)
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-5


def test_digit_features_are_those_of_the_cpu(tf32):
    images = drawn(3, 20, (1, 12, 12))
    truth = get_space("digits", (1, 12, 12))(images)
    assert relative(get_space("digits", (1, 12, 12)).to("cuda")(images.to("cuda")), truth) < 1e-5


def test_images_may_come_from_either_side(weights):
    """What was kept of images on one device is not compared with images on the other."""
    deep, shallow = space("192", weights).to("cuda"), space("64", weights).to("cuda")
    images = drawn(4)
    first = deep(images)
    assert relative(shallow(images.to("cuda")), space("64", weights)(images)) < 1e-4
    torch.testing.assert_close(deep(images.to("cuda")), first, rtol=1e-4, atol=1e-5)


def test_moments_are_float64_on_the_device():
    x = torch.randn(1000, 40, generator=torch.Generator().manual_seed(5)) * 1e-3 + 100
    on_gpu, on_cpu = Moments.of(x.to("cuda")), Moments.of(x)
    np.testing.assert_allclose(on_gpu.mean, on_cpu.mean, rtol=1e-13)
    np.testing.assert_allclose(on_gpu.scatter, on_cpu.scatter, rtol=1e-9, atol=1e-12)
    assert np.array_equal(on_gpu.scatter, on_gpu.scatter.T)


def test_values_that_are_not_finite_are_told_when_the_sums_are_read():
    x = torch.zeros(6, 2, device="cuda")
    x[3, 1] = torch.nan
    sums = GroupedStatistics(6, 2, groups=1)
    sums.add(x[:2], range(2))
    sums.add(x[2:], range(2, 6))
    with pytest.raises(ValueError, match="1 of 6 feature vectors"):
        sums.close()


def test_no_batch_waits_for_the_device(weights, tf32):
    pooled = space("2048", weights).to("cuda")
    sums = GroupedStatistics(16, pooled.dim, groups=2)
    images = drawn(6, 16)
    sums.add(pooled(to_device(images[:2], "cuda")), range(2))  # the first batch sets up
    with nothing_waits():
        for start in (2, 4):
            batch = to_device(images[start : start + 2], "cuda")
            sums.add(pooled(batch), range(start, start + 2))
    assert sums.total.n == 6


def test_distances_are_those_of_the_cpu(weights, tf32, tmp_path):
    """From uint8 images to the score; 64-d, so that few images give a covariance of full rank."""
    x, y = drawn(7, 90, (3, 16, 16)), drawn(8, 90, (3, 16, 16), 200)
    values = []
    for device in ("cpu", "cuda"):
        pooled = space("64", weights).to(device)
        reference = reference_statistics(y, pooled, device=device, cache=tmp_path / device)
        sums = GroupedStatistics(90, pooled.dim)
        for start in range(0, 90, 40):
            part = x[start : start + 40].to(device)
            sums.add(pooled(part), range(start, start + len(part)))
        values.append(FrechetMetric("fd", "inception_64").score(sums, reference).value)
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_nothing_of_a_block_stays_on_the_device():
    """Blocks go from process to process."""
    worker = Worker.make(WorkerSetup("digits", None, ("fd_pixels", "fd_digits")), "cuda")
    images = drawn(9, 30, (1, 12, 12))
    measured = worker.measure(images, range(30), 100)
    for name, sums in measured.items():
        assert sums._open is None
        truth = Moments.of(get_space(name, (1, 12, 12))(images))
        np.testing.assert_allclose(sums.total.mean, truth.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(sums.total.cov, truth.cov, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["kid", "cmmd", "neighbourhoods", "nearest"])
def test_pairs_are_gone_through_on_the_gpu_in_tiles(kind, monkeypatch):
    """The CPU's values, and no more memory than a few tiles."""
    monkeypatch.setattr("bench.metrics.tiles.TILE", 256)
    x, y = (np.random.default_rng(s).normal(size=(3000, 32)).astype(np.float32) for s in range(2))
    groups = [slice(150 * g, 150 * g + 150) for g in range(20)]

    def measured():
        of_x, of_y = torch.from_numpy(x), torch.from_numpy(y)
        if kind == "nearest":
            return nearest_neighbours(x, y)[0]
        if kind == "neighbourhoods":
            return np.array(list(neighbourhoods(of_x, of_y, groups).values.values()))
        kernel = polynomial if kind == "kid" else on_sphere(gaussian(1.0))
        found = mmd(of_x, of_y, kernel, groups, kernel_sums(of_y, kernel, [slice(0, len(y))]))
        return np.array([found.value, found.se, *found.leave_one_out])

    here = measured()
    with computing_on(torch.device("cuda")):
        measured()  # the libraries' own workspace is taken at the first call
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        there = measured()
    np.testing.assert_allclose(there, here, rtol=1e-8, atol=1e-10)
    assert 0 < torch.cuda.max_memory_allocated() - before < 12 * 8 * 256 * 256 + 8 * 3000 * 64
