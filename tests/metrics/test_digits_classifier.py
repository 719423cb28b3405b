"""The feature space ``digits``."""

from __future__ import annotations

import pytest
import torch

from bench import UsageError
from bench.data.sets import load_images
from bench.metrics import digits as module
from bench.metrics.digits import DigitsFeatures, digit_space


@pytest.fixture(scope="module")
def space():
    return DigitsFeatures()


def test_the_classifier_knows_digits_it_never_saw(space):
    held_out = load_images("digits-held-out")
    right = (space.logits(held_out.images).argmax(1) == held_out.labels).float().mean()
    assert right >= 0.985


def test_features_do_not_depend_on_the_batch(space):
    images = load_images("digits-held-out").images[:601]
    whole = space(images)
    assert whole.dtype == torch.float32 and whole.shape == (601, space.dim)
    single = torch.cat([space(image[None]) for image in images[595:]])
    assert torch.allclose(whole[595:], single, atol=1e-4, rtol=1e-4)
    assert torch.equal(whole, space(images))


def test_features_are_those_of_a_plain_evaluation_in_float64(space):
    images = load_images("digits-held-out").images[:20]
    w = {k: v.double() for k, v in space.classifier.state_dict().items()}
    x = images.double() / 127.5 - 1
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 1)):
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        windows = padded.unfold(2, 3, stride).unfold(3, 3, stride)
        x = torch.einsum("bchwij,ocij->bohw", windows, w[f"{name}.weight"])
        x = x + w[f"{name}.bias"][:, None, None]
        x = x * torch.sigmoid(x)
    x = x.flatten(1) @ w["embed.weight"].T + w["embed.bias"]
    assert torch.allclose(space(images).double(), x * torch.sigmoid(x), atol=1e-4, rtol=1e-4)


def test_the_covariance_of_real_digits_has_full_rank(space):
    covariance = torch.cov(space(load_images("digits-held-out").images).double().T)
    values = torch.linalg.eigvalsh(covariance)
    assert values[0] > 1e-6 * values[-1]


def test_other_images_are_refused(space):
    with pytest.raises(UsageError, match=r"expects uint8 images \(B, 1, 12, 12\), got torch.float32"):
        space(torch.zeros(1, 1, 12, 12))
    with pytest.raises(UsageError, match=r"not \(3, 32, 32\)"):
        digit_space("digits", (3, 32, 32))


def test_a_damaged_weight_file_is_refused(monkeypatch):
    monkeypatch.setattr(module, "CLASSIFIER_SHA256", "0" * 64)
    with pytest.raises(UsageError, match="is damaged"):
        DigitsFeatures()
