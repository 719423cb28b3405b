"""Training in an autoencoder's latents: what the network sees, what is drawn, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.distributions import Normal, kl_divergence

from bench import NoiseSchedule, UsageError, from_uint8, load_images
from bench.training import TrainConfig, read_config, train
from bench.training.autoencoder import autoencoder_losses, latents_of, train_digits_autoencoder
from bench.training.checkpoint import read_safetensors
from bench.training.losses import DiffusionLoss
from models.digits import network_around
from models.digits_latent import load_autoencoder


class Means(nn.Module):
    """Latents (C, 3, 3) of images (C, 6, 6): five times the means of 2 x 2 pixels."""

    def __init__(self, factor=5.0):
        super().__init__()
        self.register_buffer("factor", torch.tensor(factor))

    def encode(self, images):
        return self.factor * nn.functional.avg_pool2d(images, 2)

    def decode(self, latents):
        return (latents / self.factor).repeat_interleave(2, -1).repeat_interleave(2, -2)


def other():
    return Means(4.0)


def around(latents, schedule, learned_range):
    return network_around(latents, schedule, learned_range, width=8, hidden=8, blocks=1, embedding=4)


@pytest.fixture
def config(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    return TrainConfig(
        name="tiny",
        network=f"{__name__}:around",
        data=str(tmp_path / "data.npz"),
        autoencoder=f"{__name__}:Means",
        objective="hybrid",
        variance="learned_range",
        timesteps=20,
        steps=8,
        batch=16,
        warmup=2,
        log_every=4,
        checkpoint_every=4,
        pictures=4,
    )


def test_the_network_is_made_of_the_latents_and_pictures_are_decoded(config, tmp_path):
    result = train(config, tmp_path / "run")
    images = load_images(config.data).images
    latents = 5 * from_uint8(images).view(60, 1, 3, 2, 3, 2).mean((3, 5))
    assert torch.allclose(latents_of(Means(), images), latents, atol=1e-5)
    weights = read_safetensors(result.weights).tensors
    assert torch.allclose(weights["mean"], latents.flatten(1).mean(0), atol=1e-5)
    assert float(weights["spectrum"].sum()) == pytest.approx(float(latents.flatten(1).var(0).sum()), rel=1e-4)
    assert not any("factor" in name for name in weights)
    sheet = np.asarray(Image.open(tmp_path / "run" / "samples-0000008.png"))
    tile = sheet[2:62, 2:62][::10, ::10]  # a picture of 6 x 6 pixels, each 10 x 10 large
    assert sheet.shape == (2 + 2 * 62, 2 + 2 * 62)
    assert np.array_equal(tile[::2, ::2], tile[1::2, 1::2])
    assert len(np.unique(tile)) > 3


def test_a_run_in_the_latents_of_another_autoencoder_is_another_run(config, tmp_path):
    train(config, tmp_path / "run", stop_after=4)
    before = read_safetensors(tmp_path / "run" / "checkpoint.safetensors").metadata["data_hash"]
    assert train(config, tmp_path / "run").resumed_at == 4
    with pytest.raises(UsageError, match="belongs to another run"):
        train(config.but(autoencoder=f"{__name__}:other"), tmp_path / "run")
    other_run = train(config.but(autoencoder=f"{__name__}:other"), tmp_path / "other")
    assert read_safetensors(other_run.weights).metadata["data_hash"] != before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"autoencoder": "nowhere:Means"}, "'nowhere:Means' cannot be found"),
        ({"autoencoder": f"{__name__}:case"}, "makes no nn.Module with encode"),
        ({"flip": True}, "latents cannot be mirrored"),
    ],
)
def test_what_is_no_autoencoder_is_told_before_the_training(config, tmp_path, change, says):
    with pytest.raises(UsageError, match=says):
        train(config.but(**change), tmp_path / "run")


def test_an_autoencoder_is_named_by_text(tmp_path):
    (tmp_path / "mine.toml").write_text('preset = "digits"\nautoencoder = 3\n')
    with pytest.raises(UsageError, match="autoencoder must be text, got 3"):
        read_config(tmp_path / "mine.toml")


def case():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(3, 2, 2, 2, generator=g, dtype=torch.float64) for _ in range(3)]


def test_the_last_term_of_the_bound_is_a_density_in_latents():
    schedule, (x0, noise, error) = NoiseSchedule.linear(), case()
    loss = DiffusionLoss(schedule, "vlb", "fixedlarge", discrete=False)
    t = torch.zeros(3, dtype=torch.int64)
    x1, eps = loss.diffuse(x0, t, noise), noise + 0.1 * error
    beta = float(schedule.betas[0])
    model = Normal((x1 - math.sqrt(beta) * eps) / math.sqrt(1 - beta), math.sqrt(beta))
    known = -1000 * model.log_prob(x0).mean((1, 2, 3)) / math.log(2)
    eps, x0, x1, noise = (part.float() for part in (eps, x0, x1, noise))
    assert torch.allclose(loss(eps, x0, x1, t, noise).vlb.double(), known, rtol=1e-4)


def test_the_losses_of_an_autoencoder_are_error_and_divergence():
    x, mean, noise = case()
    log_variance = 0.5 * noise - 1
    law = Normal(mean, (0.5 * log_variance).exp())
    found = autoencoder_losses(lambda z: 2 * z, x, mean, log_variance, noise)
    z = mean + law.stddev * noise
    assert float(found.error) == pytest.approx(float((2 * z - x).square().mean()))
    kl = kl_divergence(law, Normal(torch.zeros_like(mean), 1.0))
    assert float(found.kl) == pytest.approx(float(kl.mean()))


def test_the_digits_autoencoder_is_trained_from_scratch_and_read_back(tmp_path):
    path, lines = tmp_path / "own.safetensors", []
    error = train_digits_autoencoder(path, epochs=1, batch=512, report=lines.append)
    assert len(lines) == 1
    x = from_uint8(load_images("digits-held-out").images)
    assert error < 0.5 * float((x - x.mean(0)).square().mean())
    own = load_autoencoder(path)
    with torch.no_grad():
        read = float((own.decode(own.encode(x)) - x).square().mean())
    assert read == pytest.approx(error, rel=1e-4)
    latents = latents_of(own, load_images("digits").images)
    assert float(latents.std()) == pytest.approx(1, abs=1e-4)
