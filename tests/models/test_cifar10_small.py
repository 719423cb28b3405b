"""The shipped CIFAR-10 model: the file that was trained, what it predicts, and what is said of it."""

import csv
import hashlib
import os
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import models.cifar10
from bench import NoiseSchedule, from_uint8, get_sampler, make_grid, normal_noise, sample
from bench.errors import BenchError, UsageError
from bench.plugins.lookup import load_model
from bench.records.store import Store
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner
from bench.training import get_recipe

DATA = os.environ.get("SAMPLER_BENCH_TEST_DATA")


@pytest.fixture
def model(monkeypatch, tmp_path):
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path))  # whatever lies there is not needed
    return load_model("cifar10-small").model


def test_it_is_the_network_of_its_preset_and_small_enough_to_ship(model):
    preset, file = get_recipe("cifar10-small"), models.cifar10.ASSETS / "cifar10-small.safetensors"
    assert (model.shape, model.variance) == ((3, 32, 32), "learned_range")
    assert torch.equal(model.schedule.betas, NoiseSchedule.linear(1000).betas)
    options = {name: getattr(model.network.config, name) for name in preset.network_options}
    assert options == dict(preset.network_options)
    assert sum(p.numel() for p in model.parameters()) == 2_715_864
    assert file.stat().st_size < 20e6
    with (models.cifar10.ASSETS / "cifar10-small-training.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert int(rows[-1]["step"]) == preset.steps
    assert int(rows[-1]["images"]) == preset.steps * preset.batch


def test_its_card_tells_hash_size_and_how_it_was_made(model):
    card = (models.cifar10.ASSETS / "cifar10-small.md").read_text(encoding="utf-8")
    file = models.cifar10.ASSETS / "cifar10-small.safetensors"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert digest == models.cifar10.WEIGHTS_SHA256
    for said in (
        digest,
        f"{file.stat().st_size:,} bytes",
        "2,715,864",
        "sampler-bench train cifar10-small",
    ):
        assert said in card


def test_a_damaged_file_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "cifar10-small.safetensors"
    shutil.copy(models.cifar10.ASSETS / path.name, path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(models.cifar10, "ASSETS", tmp_path)
    with pytest.raises(BenchError, match=r"SHA-256|sha256"):
        models.cifar10.load_cifar10_small()


def test_samples_are_images_that_differ(model):
    x = normal_noise(0, range(4), 0, model.shape)
    with torch.inference_mode():
        x0 = sample(model, get_sampler("ddim"), make_grid(model.schedule, 10), x, torch.zeros_like)
    assert bool(torch.isfinite(x0).all())
    # The colours are those of photographs: no channel of an image is all black or all white.
    assert (x0.mean((2, 3)).abs() < 0.9).all()
    assert 0.2 < float(x0.std()) < 0.8  # 0.49 of the data
    assert all(not torch.allclose(a, b, atol=0.1) for a, b in pairwise(x0))


def test_without_the_data_one_sentence_says_where_to_put_it(monkeypatch, tmp_path):
    monkeypatch.setenv("SAMPLER_BENCH_DATA", str(tmp_path))
    sweep = Sweep(model="cifar10-small", samplers=(get_sampler("ddim"),), metrics=("fd_pooled",))
    with pytest.raises(UsageError, match=r"CIFAR-10 is not in .*cifar-10-python.tar.gz"):
        Runner(sweep, Store(tmp_path / "results")).plan()


@pytest.mark.skipif(DATA is None, reason="SAMPLER_BENCH_TEST_DATA is not set: no real images")
def test_it_predicts_the_noise_of_images_it_never_saw(model):
    """L_simple on test images, t spread evenly: as its card says, and a quarter of the best scalar's."""
    with np.load(Path(DATA) / "cifar10_test1000.npz") as arrays:
        x0 = from_uint8(torch.from_numpy(arrays["images"][:250]).permute(0, 3, 1, 2))
    generator = torch.Generator().manual_seed(0)
    t = torch.arange(250) * 4 + 2
    noise = torch.randn(x0.shape, generator=generator)
    abar = model.schedule.alphas_cumprod[t].float().view(-1, 1, 1, 1)
    x = abar.sqrt() * x0 + (1 - abar).sqrt() * noise
    with torch.inference_mode():
        loss = (model(x, t).eps - noise).square().mean()
    scalar = ((1 - abar).sqrt() / (abar / 4 + 1 - abar) * x - noise).square().mean()
    assert loss < 0.045
    assert loss < scalar / 3
