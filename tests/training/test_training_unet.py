"""U-Nets through the trainer: the published sizes, and weights that the command line can sample from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench import UsageError, get_sampler, make_grid, normal_noise, sample
from bench.plugins.lookup import load_model
from bench.training import RECIPES, TrainConfig, get_recipe, train
from bench.training.checkpoint import read_safetensors, under
from bench.training.setup import make_network
from models import load_network
from models.unet_training import make_unet

OPTIONS = {"channels": 16, "widths": [16, 16], "attention": [False, True], "blocks": 1, "norm_groups": 4}


@pytest.fixture
def config(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    return TrainConfig(
        name="tiny-unet",
        network="models.unet_training:make_unet",
        network_options=OPTIONS | {"dropout": 0.1},
        data=str(tmp_path / "data.npz"),
        objective="hybrid",
        variance="learned_range",
        schedule="cosine",
        timesteps=40,
        rescale_timesteps=True,
        steps=5,
        batch=8,
        learning_rate=1e-3,
        warmup=0,
        flip=True,
        log_every=5,
        checkpoint_every=5,
    )


# Figures of the papers, and the exact numbers of their published checkpoints.
@pytest.mark.parametrize(
    ("preset", "side", "parameters"),
    [
        ("cifar10-ddpm", 32, 35_746_307),
        ("cifar10-iddpm", 32, 52_546_438),
        ("celeba64-ddpm", 64, 78_700_803),
        ("cifar10-small", 32, 2_715_864),  # of this project: what docs/training.md says
        ("celeba64-small", 64, 4_506_968),
    ],
)
def test_the_presets_have_the_number_of_parameters_that_is_published(preset, side, parameters):
    assert sum(p.numel() for p in without_memory(preset, side).parameters()) == parameters


def without_memory(preset, side):
    config, images = get_recipe(preset), torch.empty(0, 3, side, side, dtype=torch.uint8)
    schedule = config.make_schedule()
    with torch.device("meta"):
        return make_network(config, images, schedule)


def test_every_preset_of_a_u_net_fits_its_images():
    for name in RECIPES:
        if not name.startswith("digits"):
            side = 64 if "celeba64" in name else 32
            network = without_memory(name, side)
            channels = 6 if get_recipe(name).variance == "learned_range" else 3
            assert network.config.out_channels == channels and network.config.image_size == side


def test_trained_weights_load_by_path_and_sample(config, tmp_path):
    result = train(config, tmp_path / "run")
    loaded = load_model(str(result.weights))
    model = loaded.model
    assert (model.shape, model.variance, model.rescale_timesteps) == ((3, 8, 8), "learned_range", True)
    assert torch.equal(model.schedule.betas, config.make_schedule().betas)
    tensors = read_safetensors(tmp_path / "run" / "checkpoint.safetensors").tensors
    average, own = under("average", tensors), load_network(result.weights).state_dict()
    assert average.keys() == own.keys() and all(torch.equal(average[k], own[k]) for k in own)

    # The model is told t 1000/T, as the network was while it was trained.
    network = make_unet(torch.empty(0, 3, 8, 8), model.schedule, True, **OPTIONS, dropout=0.1).eval()
    network.load_state_dict(average)
    x = normal_noise(0, range(2), 0, (3, 8, 8))
    with torch.no_grad():
        raw = network(x, torch.tensor([175.0, 175.0]))  # t = 7 of 40
        prediction = model(x, torch.tensor([7, 7]))
    assert torch.allclose(torch.cat([prediction.eps, prediction.raw_variance], 1), raw, atol=1e-6)
    grid = make_grid(model.schedule, 5)
    images = sample(
        model, get_sampler("ddim"), grid, x, lambda k: normal_noise(0, range(2), k + 1, x.shape[1:])
    )
    assert images.shape == x.shape and bool(torch.isfinite(images).all())


def test_the_network_is_told_rescaled_time_steps_while_it_is_trained(config, tmp_path, monkeypatch):
    from models.unet import UNet

    seen = []
    forward = UNet.forward
    monkeypatch.setattr(UNet, "forward", lambda self, x, t: seen.append(t) or forward(self, x, t))
    train(config.but(pictures=0), tmp_path / "run")
    told = torch.cat(seen)
    assert told.is_floating_point() and told.max() > 40
    assert torch.equal(told % 25, torch.zeros_like(told)) and told.max() <= 39 * 25


def test_a_network_that_corrects_the_best_scalar_begins_there_and_loads_by_path(config, tmp_path):
    options = OPTIONS | {"residual": 40, "patch": 2}
    result = train(config.but(network_options=options, rescale_timesteps=False), tmp_path / "run")
    model, schedule = load_model(str(result.weights)).model, config.make_schedule()
    begun = make_unet(torch.empty(0, 3, 8, 8), schedule, True, **options)
    x, t = normal_noise(0, range(3), 0, (3, 8, 8)), torch.tensor([0, 20, 39])
    abar = schedule.alphas_cumprod[t].float().view(-1, 1, 1, 1)
    with torch.no_grad():
        eps, v = begun(x, t).split(3, dim=1)
        # E[eps | x] where x_0 has the standard deviation 1/2
        torch.testing.assert_close(eps, (1 - abar).sqrt() / (abar / 4 + 1 - abar) * x)
        assert not v.any()
        trained = load_network(result.weights)(x, t)[:, :3]
        torch.testing.assert_close(model(x, t).eps, trained)
        assert not torch.equal(trained, eps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widht": 3}, "do not make a U-Net: .*widht"),
        ({"channels": 20, "norm_groups": 32}, "cannot be normalised in 32 groups"),
        (OPTIONS | {"widths": [16] * 5, "attention": [False] * 5}, "do not fit a U-Net of 5 levels"),
        (OPTIONS | {"residual": 1000}, "must be the schedule's T=40"),
        (OPTIONS | {"residual": 40}, "give rescale_timesteps = false"),
    ],
)
def test_options_that_make_no_network_are_said_in_a_sentence(config, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        train(config.but(network_options=options), tmp_path / "run")
