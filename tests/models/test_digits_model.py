"""The shipped network: what it is made of, how well it predicts, how it is loaded."""

from __future__ import annotations

import hashlib
from importlib import resources

import pytest
import torch
from safetensors.torch import load, save

from bench import NoiseSchedule, from_uint8
from bench.data.sets import load_images
from bench.errors import UsageError
from bench.training.losses import DiffusionLoss
from models import digits as module
from models.digits import WEIGHTS_FILE, load_digits, make_digits_network, read_digits
from models.errors import CheckpointError

HELD_OUT_ERROR = 0.060  # of L_simple over uniform t; the best linear predictor has 0.115


@pytest.fixture(scope="module")
def model():
    return load_digits()


@pytest.fixture(scope="module")
def shipped():
    return resources.files("models").joinpath("assets", WEIGHTS_FILE).read_bytes()


@pytest.fixture(scope="module")
def noisy():
    """x_0, t, noise and x_t of 12,000 held-out draws, t evenly over 0 .. 999."""
    x0 = from_uint8(load_images("digits-held-out").images).repeat(2, 1, 1, 1)
    t = torch.arange(len(x0)) % 1000
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    loss = DiffusionLoss(NoiseSchedule.linear(), "hybrid", "learned_range")
    return x0, t, noise, loss.diffuse(x0, t, noise).float()


def predict(model, x, t):
    parts = [model(x[i : i + 500], t[i : i + 500]) for i in range(0, len(x), 500)]
    return torch.cat([p.eps for p in parts]), torch.cat([p.raw_variance for p in parts])


def test_untrained_it_is_the_best_linear_predictor():
    images = load_images("digits").images[:3000]
    schedule = NoiseSchedule.linear()
    network = make_digits_network(images, schedule, True)
    x = from_uint8(images).flatten(1).double()
    mean, covariance = x.mean(0), torch.cov(x.T)
    x_t = torch.randn(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    for t in (20, 400, 999):
        abar = schedule.alpha_bar(t)
        total = abar * covariance + (1 - abar) * torch.eye(144, dtype=torch.float64)
        centred = x_t.flatten(1).double() - abar**0.5 * mean
        best = (1 - abar) ** 0.5 * torch.linalg.solve(total, centred.T).T
        got = network(x_t, torch.full((4,), t))[:, :1].flatten(1).double()
        assert torch.allclose(got, best, atol=2e-3, rtol=2e-3)


def test_it_predicts_the_noise_in_digits_it_never_saw(model, noisy):
    _, t, noise, x_t = noisy
    eps, _ = predict(model, x_t, t)
    assert float((eps - noise).square().mean()) < HELD_OUT_ERROR


def test_its_learned_variance_has_a_lower_bound_than_either_fixed_one(model, noisy):
    x0, t, noise, x_t = noisy
    eps, v = predict(model, x_t, t)
    bounds = {}
    for variance in ("learned_range", "fixedlarge", "fixedsmall"):
        output = torch.cat([eps, v], 1) if variance == "learned_range" else eps
        loss = DiffusionLoss(model.schedule, "vlb", variance)
        bounds[variance] = float(loss(output, x0, x_t, t, noise).vlb.mean())
    assert bounds["learned_range"] < bounds["fixedlarge"]
    assert bounds["learned_range"] < bounds["fixedsmall"]


def test_one_time_step_for_all_and_one_for_each_are_the_same(model):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 1, 12, 12, generator=g)
    mixed = model(x, torch.tensor([0, 7, 999, 7, 500, 0]))
    for t in (0, 7, 500, 999):
        alike = model(x, torch.full((6,), t))
        direct = model.network(x, torch.full((6,), t))
        rows = (torch.tensor([0, 7, 999, 7, 500, 0]) == t).nonzero().squeeze(1)
        # Answers go up to 300 here, and what depends on t is rounded in one row unlike in six.
        assert torch.allclose(alike.eps[rows], mixed.eps[rows], atol=1e-4)
        assert torch.allclose(alike.raw_variance[rows], mixed.raw_variance[rows], atol=1e-4)
        assert torch.allclose(direct[:, :1], alike.eps, atol=1e-4)
        assert torch.allclose(direct[:, 1:].clamp(-1, 1), alike.raw_variance, atol=1e-4)


def test_the_input_is_left_alone_and_the_contract_kept(model):
    x = torch.randn(3, 1, 12, 12)
    before = x.clone()
    eps, v, _ = model(x, torch.full((3,), 9))
    assert torch.equal(x, before)
    assert eps.shape == v.shape == (3, *model.shape) and eps.dtype == torch.float32
    assert (model.schedule, model.variance) == (NoiseSchedule.linear(), "learned_range")


def test_the_shipped_file_is_the_recorded_one(model, shipped):
    assert hashlib.sha256(shipped).hexdigest() == module.WEIGHTS_SHA256 == model.fingerprint
    assert len(shipped) == module.WEIGHTS_BYTES < 6_000_000


def test_wrong_files_are_refused_in_a_sentence(shipped, monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match=r"digits\.bin is truncated or holds no digits network"):
        read_digits(shipped[:-1000], "digits.bin")
    with pytest.raises(CheckpointError, match="is truncated or holds no digits network"):
        read_digits(b"no weights at all", "digits.bin")
    with pytest.raises(CheckpointError, match="is truncated or holds no digits network"):
        read_digits(save(load(shipped)), "digits.bin")  # no metadata
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_digits(tmp_path / "none.safetensors")
    (tmp_path / "own.safetensors").write_bytes(shipped)
    assert load_digits(tmp_path / "own.safetensors").fingerprint == module.WEIGHTS_SHA256
    monkeypatch.setattr(module, "WEIGHTS_BYTES", len(shipped) + 1)
    with pytest.raises(UsageError, match="it is truncated or not the shipped one"):
        load_digits()
    monkeypatch.setattr(module, "WEIGHTS_BYTES", len(shipped))
    monkeypatch.setattr(module, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(UsageError, match="is damaged"):
        load_digits()


def scaled(network):
    with torch.no_grad():
        network.modulate.weight.mul_(1.5)


def loaded(network):
    weights = network.state_dict()
    network.load_state_dict(weights | {"modulate.weight": 1.5 * weights["modulate.weight"]})


def replaced(network):
    network.modulate.weight.data = 1.5 * network.modulate.weight.data


@pytest.mark.parametrize("change", [scaled, loaded, replaced])
def test_weights_that_are_changed_after_a_call_count_at_the_next(change):
    changed, x, t = load_digits(), torch.ones(2, 1, 12, 12), torch.full((2,), 500)
    before = changed(x, t).eps
    change(changed.network)
    assert not torch.allclose(changed(x, t).eps, before)
    assert torch.allclose(changed(x, t).eps, changed.network(x, t)[:, :1], atol=1e-4)
