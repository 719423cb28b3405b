"""The Inception spaces against torch-fidelity's own extractor, published numbers and wrong weight files."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support.inception import Images, sha256, write_random_weights
from support.references import moments_reference

from bench.errors import UnknownNameError, UsageError
from bench.metrics import FrechetMetric, GroupedStatistics, Moments, get_space, reference_statistics
from bench.metrics.inception import LAYERS, InceptionSpace, resize_matrix
from bench.metrics.weights import INCEPTION, WeightFile

torch_fidelity = pytest.importorskip("torch_fidelity")
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402
from torch_fidelity.interpolate_compat_tensorflow import (  # noqa: E402
    interpolate_bilinear_2d_like_tensorflow1x,
)

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    return write_random_weights(tmp_path_factory.mktemp("weights") / "random.pth")


@pytest.fixture(scope="module")
def images():
    return torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def published(random_weights, images):
    """Features of torch-fidelity's extractor, as it is."""
    names = ["64", "192", "768", "2048", "logits_unbiased"]
    extractor = FeatureExtractorInceptionV3("x", names, feature_extractor_weights_path=str(random_weights))
    with torch.inference_mode():
        return dict(zip(names, extractor(images), strict=True))


def space(layer, weights, **options):
    return InceptionSpace(layer, weights=weights, accept=sha256(weights), **options)


@pytest.mark.parametrize("layer", ["64", "192", "768", "2048"])
def test_stock_path_is_the_published_network(layer, random_weights, images, published):
    mine = space(layer, random_weights, path="stock")(images)
    torch.testing.assert_close(mine, published[layer], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("layer", ["64", "192", "768", "2048"])
def test_fast_path_agrees(layer, random_weights, images, published):
    mine = space(layer, random_weights)(images)
    assert mine.dtype == torch.float32
    assert mine.shape == (3, int(layer))
    error = (mine - published[layer]).norm() / published[layer].norm()
    assert error < 1e-5  # a tenth of what is promised
    torch.testing.assert_close(mine, published[layer], rtol=1e-4, atol=1e-4)


def test_probabilities_are_softmax_and_their_entropy(random_weights, images, published):
    mine = space("probs", random_weights)(images)
    p = published["logits_unbiased"].double().softmax(1)
    torch.testing.assert_close(mine[:, :1008], p, rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(mine[:, 1008], (p * p.log()).sum(1), rtol=1e-4, atol=1e-6)


def test_spatial_features_are_the_first_channels_of_mixed_6d(random_weights, images):
    extractor = FeatureExtractorInceptionV3("x", ["768"], feature_extractor_weights_path=str(random_weights))
    seen = []
    extractor.Mixed_6d.register_forward_hook(lambda module, given, out: seen.append(out[:, :7].flatten(1)))
    with torch.inference_mode():
        extractor(images)
    torch.testing.assert_close(space("spatial", random_weights)(images), seen[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (64, 48), (299, 299), (512, 300)])
def test_resize_matrices_are_the_tensorflow_resize(size):
    x = torch.rand(2, 3, *size) * 255
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    mine = resize_matrix(size[0], 299) @ x @ resize_matrix(size[1], 299).T
    torch.testing.assert_close(mine, theirs, rtol=0, atol=2e-4)


def test_grey_images_are_repeated(random_weights, images):
    grey = images[:, :1]
    pooled = space("64", random_weights)
    torch.testing.assert_close(pooled(grey), pooled(grey.repeat(1, 3, 1, 1)))


def test_one_pass_serves_every_layer(random_weights, images, monkeypatch):
    deep, shallow = space("768", random_weights), space("64", random_weights)
    network = deep._network
    passes = []
    forward = network._forward
    monkeypatch.setattr(network, "_forward", lambda x, layers: passes.append(len(x)) or forward(x, layers))
    first = deep(images)
    shallow(images)
    assert sum(passes) == 3
    changed = images.clone()
    changed[0] = 0
    assert not torch.equal(deep(changed), first)
    assert sum(passes) == 6


def test_a_single_layer_keeps_nothing(random_weights, images):
    """Images would be compared with those before, and a GPU waited for."""
    alone = space("64", random_weights, path="stock")
    alone(images)
    assert alone._network._last is None


def test_wrong_images_are_refused(random_weights, images):
    pooled = space("64", random_weights)
    for wrong in (images.float(), images[:, :2], images[0]):
        with pytest.raises(UsageError, match="expects uint8 images"):
            pooled(wrong)
    with pytest.raises(UnknownNameError, match="Inception layer '100'"):
        InceptionSpace("100")


def test_global_generator_is_left_alone(tmp_path, random_weights):
    copy = tmp_path / "copy.pth"
    copy.write_bytes(random_weights.read_bytes())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    space("64", copy)
    assert torch.equal(torch.rand(3), expected)


def test_missing_weights_say_what_and_where(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION", raising=False)
    with pytest.raises(UsageError) as refusal:
        get_space("inception_2048", SHAPE)
    text = str(refusal.value)
    for part in (
        INCEPTION.name,
        "95,628,359 bytes",
        INCEPTION.sha256,
        str(tmp_path),
        "bench fetch inception",
    ):
        assert part in text
    assert "\n" not in text


def test_weights_are_found_in_the_hub_cache_and_by_variable(tmp_path, monkeypatch, random_weights):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    place = tmp_path / "hub" / "checkpoints" / INCEPTION.name
    place.parent.mkdir(parents=True)
    place.write_bytes(random_weights.read_bytes())
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION", raising=False)
    monkeypatch.setenv("SAMPLER_BENCH_INCEPTION_SHA256", sha256(place))
    found = get_space("inception_192", SHAPE)
    assert found.name == f"inception_192_of_{sha256(place)[:8]}"
    monkeypatch.setenv("SAMPLER_BENCH_INCEPTION", str(tmp_path / "nowhere.pth"))
    with pytest.raises(UsageError, match=r"in SAMPLER_BENCH_INCEPTION, .*nowhere\.pth, does not exist"):
        get_space("inception_192", SHAPE)


def test_weights_are_looked_for_in_order(tmp_path, monkeypatch):
    """The path given, the one in the environment, torch-fidelity's place, our own."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "cache"))
    given, named = tmp_path / "given.pth", tmp_path / "named.pth"
    hub = tmp_path / "hub" / "checkpoints" / INCEPTION.name
    own = tmp_path / "cache" / "weights" / INCEPTION.name
    for place in (given, named, hub, own):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
    monkeypatch.setenv("SAMPLER_BENCH_INCEPTION", str(named))
    assert INCEPTION.find(given) == given
    assert INCEPTION.find() == named
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION")
    assert INCEPTION.find() == hub
    hub.unlink()
    assert INCEPTION.find() == own


@pytest.mark.parametrize("damaged", [b"weigh", b"weighed"])
def test_a_fetched_file_cures_a_damaged_one_in_another_place(tmp_path, monkeypatch, damaged):
    """Cut short, or of the right size and another content; until a good one is there the error stays."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "cache"))
    file = WeightFile("toy.pth", 7, hashlib.sha256(b"weights").hexdigest(), "", "SAMPLER_BENCH_TOY", "fetch")
    hub, own = tmp_path / "hub" / "checkpoints" / "toy.pth", tmp_path / "cache" / "weights" / "toy.pth"
    hub.parent.mkdir(parents=True)
    hub.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"hub.*toy\.pth (is truncated|has SHA-256)"):
        file.check()
    own.parent.mkdir(parents=True)
    own.write_bytes(b"we")
    with pytest.raises(UsageError, match=r"toy\.pth (is truncated|has SHA-256)"):
        file.check()
    own.write_bytes(b"weights")
    assert file.check() == (own, file.sha256)
    monkeypatch.setenv("SAMPLER_BENCH_TOY_SHA256", sha256(hub))
    assert file.check() == (hub, sha256(hub))


@pytest.mark.parametrize("content", [None, b"weigh", b"weighed"])
def test_a_damaged_file_that_the_variable_names_says_so(tmp_path, monkeypatch, content):
    """It is final, so that a file fetched to another place would not be looked at."""
    file = WeightFile("toy.pth", 7, hashlib.sha256(b"weights").hexdigest(), "", "SAMPLER_BENCH_TOY", "fetch")
    named = tmp_path / "named.pth"
    if content is not None:
        named.write_bytes(content)
    monkeypatch.setenv("SAMPLER_BENCH_TOY", str(named))
    for path in (None, named):
        with pytest.raises(UsageError, match="no other is looked for: correct or unset it"):
            file.check(path)
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    with pytest.raises(UsageError, match="is truncated") as refusal:
        file.check(other)
    assert "unset" not in str(refusal.value)


def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "locked.pth"
    path.write_bytes(b"weights")

    def refuse(*given):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match=r"locked\.pth cannot be read: Permission denied; get "):
        INCEPTION.check(path, accept="0" * 64)


def test_truncated_and_wrong_files_are_refused(tmp_path, random_weights):
    content = random_weights.read_bytes()
    cut = tmp_path / "cut.pth"
    cut.write_bytes(content[: INCEPTION.size // 2])
    with pytest.raises(UsageError, match=r"cut\.pth is truncated, it has 47,814,179 bytes"):
        InceptionSpace("64", weights=cut)
    padded = tmp_path / "same-size.pth"
    padded.write_bytes(content[: INCEPTION.size].ljust(INCEPTION.size, b"\0"))
    with pytest.raises(UsageError, match=f"has SHA-256 {sha256(padded)}, not {INCEPTION.sha256}"):
        InceptionSpace("64", weights=padded)
    with pytest.raises(UsageError, match="SAMPLER_BENCH_INCEPTION_SHA256"):
        InceptionSpace("64", weights=random_weights)


def test_a_file_that_runs_code_is_not_run(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "payload.pth"
    torch.save({"x": Payload()}, path)
    with pytest.raises(UsageError, match="cannot be read as a state dict"):
        space("64", path)
    assert not (tmp_path / "ran").exists()


def test_fid_means_the_published_weights_alone(monkeypatch, random_weights):
    monkeypatch.setenv("SAMPLER_BENCH_INCEPTION", str(random_weights))
    monkeypatch.setenv("SAMPLER_BENCH_INCEPTION_SHA256", sha256(random_weights))
    with pytest.raises(UsageError, match="fid means weights-inception-2015-12-05-6726825d"):
        get_space("inception_2048", SHAPE)
    assert get_space("inception_2048_any", SHAPE).name.startswith("inception_2048_of_")


def test_fingerprint_knows_layer_path_and_weights(tmp_path, random_weights):
    other = tmp_path / "other.pth"
    state = torch.load(random_weights, weights_only=True)
    state["fc.bias"][0] += 1
    torch.save(state, other)
    prints = {
        space("64", random_weights).fingerprint,
        space("192", random_weights).fingerprint,
        space("64", random_weights, path="stock").fingerprint,
        space("64", other).fingerprint,
    }
    assert len(prints) == 4
    assert space("64", random_weights).fingerprint in prints


def test_changed_weight_file_is_another_network(tmp_path, random_weights, images):
    path = tmp_path / "weights.pth"
    path.write_bytes(random_weights.read_bytes())
    before = space("64", path)
    values = before(images[:1])
    state = torch.load(path, weights_only=True)
    state["Conv2d_1a_3x3.conv.weight"] *= 1.01
    torch.save(state, path)
    after = space("64", path)
    assert after.fingerprint != before.fingerprint
    assert not torch.allclose(after(images[:1]), values)


def calculate_metrics(x, y, **options):
    """The distance torch-fidelity's front door gives."""
    return torch_fidelity.calculate_metrics(
        input1=Images(x), input2=Images(y), cuda=False, fid=True, cache=False, verbose=False, **options
    )["frechet_inception_distance"]


class PooledPixels(torch_fidelity.FeatureExtractorBase):
    """A cheap extractor: 4 x 4 means of each channel, 48 numbers."""

    def __init__(self, name, features_list, **options):
        super().__init__(name, features_list)

    def forward(self, x):
        return (torch.nn.functional.avg_pool2d(x.float(), x.shape[-1] // 4).flatten(1),)

    @staticmethod
    def get_provided_features_list():
        return ("48",)


def test_score_agrees_with_calculate_metrics_on_its_features():
    """Everything but the network: its data loading, its moments, its distance, to 1e-6."""
    if "pooled-pixels" not in torch_fidelity.registry.FEATURE_EXTRACTORS_REGISTRY:
        torch_fidelity.register_feature_extractor("pooled-pixels", PooledPixels)
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (300, 3, 16, 16), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 200, (300, 3, 16, 16), dtype=torch.uint8, generator=generator)
    theirs = calculate_metrics(x, y, feature_extractor="pooled-pixels", feature_layer_fid="48")
    extractor = PooledPixels("x", ["48"])
    stats = GroupedStatistics(300, 48)
    stats.add(extractor(x)[0], range(300))
    reference = moments_reference(Moments.of(extractor(y)[0]), "pooled-1", name="y")
    assert FrechetMetric("fd", "pooled").score(stats, reference).value == pytest.approx(theirs, rel=1e-6)


slow = pytest.mark.skipif(
    not os.environ.get("SAMPLER_BENCH_SLOW"), reason="set SAMPLER_BENCH_SLOW=1: minutes of Inception on a CPU"
)


@pytest.mark.slow
@slow
def test_score_agrees_with_calculate_metrics(random_weights, tmp_path, monkeypatch):
    """The whole way through torch-fidelity, 64-d so that few images give a covariance of full rank."""
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path))
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 256, (70, 3, 16, 16), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 200, (70, 3, 16, 16), dtype=torch.uint8, generator=generator)
    theirs = calculate_metrics(
        x,
        y,
        feature_extractor="inception-v3-compat",
        feature_layer_fid="64",
        feature_extractor_weights_path=str(random_weights),
    )
    for path, tolerance in (("stock", 1e-6), ("fast", 1e-4)):
        pooled = space("64", random_weights, path=path)
        reference = reference_statistics(y, pooled)
        stats = GroupedStatistics(70, pooled.dim, groups=2)
        stats.add(pooled(x), range(70))
        score = FrechetMetric("fd_inception_64", "inception_64").score(stats, reference)
        assert score.value == pytest.approx(theirs, rel=tolerance)
        assert "other-weights" in score.flags


@pytest.fixture(scope="module")
def real():
    folder = os.environ.get("SAMPLER_BENCH_TEST_DATA")
    if not folder:
        pytest.skip("set SAMPLER_BENCH_TEST_DATA to the folder with the unpacked test data")
    weights = Path(folder) / "weights-inception-2015-12-05-to-768.pth"
    data = Path(folder) / "cifar10_train.npz"
    if not (weights.exists() and data.exists()):
        pytest.skip(f"{folder} lacks {weights.name} or {data.name}")
    return weights, data


def test_layers_without_weights_are_refused(real):
    """The test file ends at the 768-d layer; what lies behind is NaN."""
    for layer in ("2048", "probs"):
        with pytest.raises(UsageError, match="the weights of Mixed_7a"):
            space(layer, real[0])
    for layer in set(LAYERS) - {"2048", "probs"}:
        space(layer, real[0])


def test_real_weights_on_real_images(real):
    """The 768-d features of two CIFAR-10 images, fast against published."""
    images = torch.from_numpy(np.load(real[1])["images"][:2]).permute(0, 3, 1, 2).contiguous()
    extractor = FeatureExtractorInceptionV3("x", ["768"], feature_extractor_weights_path=str(real[0]))
    with torch.inference_mode():
        theirs = extractor(images)[0]
    torch.testing.assert_close(space("768", real[0])(images), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@slow
def test_published_distance_of_cifar10_halves(real):
    """torch-fidelity 0.4.0, 768-d, training images 0..999 against 1000..1999: 0.14910981."""
    images = torch.from_numpy(np.load(real[1])["images"][:2000]).permute(0, 3, 1, 2).contiguous()
    pooled = space("768", real[0])
    reference = reference_statistics(images[1000:], pooled)
    stats = GroupedStatistics(1000, 768)
    for start in range(0, 1000, 200):
        stats.add(pooled(images[start : start + 200]), range(start, start + 200))
    score = FrechetMetric("fd_inception_768", "inception_768").score(stats, reference)
    assert score.value == pytest.approx(0.14910981, rel=1e-4)
