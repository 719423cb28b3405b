"""Presets train in bf16 where the device computes in it, and in float32, with a word, where it does not."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from bench.training import RECIPES, TrainConfig, loop, train
from bench.training.checkpoint import read_safetensors


class Seen(nn.Module):
    """A network that keeps the dtypes of what it computed."""

    dtypes: ClassVar[set[torch.dtype]] = set()

    def __init__(self, channels):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x, t):
        answer = self.layer(x)
        if self.training:
            Seen.dtypes.add(answer.dtype)
        return answer


def seen(images, schedule, learned_range):
    return Seen(images.shape[1])


@pytest.fixture
def config(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    Seen.dtypes = set()
    return TrainConfig(
        name="tiny",
        network=f"{__name__}:seen",
        data=str(tmp_path / "data.npz"),
        timesteps=20,
        steps=4,
        batch=4,
        warmup=0,
        log_every=1,
        checkpoint_every=2,
        pictures=0,
        precision="auto",
    )


def can(monkeypatch, whether):
    monkeypatch.setattr(loop, "computes_bfloat16", lambda device: whether)


@pytest.mark.parametrize(("whether", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_goes_by_what_the_device_computes_in(config, tmp_path, monkeypatch, whether, dtype):
    can(monkeypatch, whether)
    told = []
    result = train(config, tmp_path / "run", warn=told.append)
    assert Seen.dtypes == {dtype}
    assert read_safetensors(result.weights).metadata["precision"] == {True: "bf16", False: "float32"}[whether]
    assert told == (
        [] if whether else ["precision: float32, since this processor does not compute in bf16 itself"]
    )


def test_what_is_asked_for_by_name_is_done_and_the_price_is_told(config, tmp_path, monkeypatch):
    can(monkeypatch, False)
    told = []
    train(config.but(precision="bf16"), tmp_path / "run", warn=told.append)
    assert Seen.dtypes == {torch.bfloat16}
    (sentence,) = told
    assert "emulated" in sentence and "precision = 'float32'" in sentence


def test_a_run_goes_on_in_the_precision_that_it_began_with(config, tmp_path, monkeypatch):
    can(monkeypatch, False)
    train(config, tmp_path / "run", stop_after=2, warn=lambda sentence: None)
    can(monkeypatch, True)
    result = train(config, tmp_path / "run")
    assert result.resumed_at == 2
    assert Seen.dtypes == {torch.float32}
    assert read_safetensors(result.weights).metadata["precision"] == "float32"


def test_a_run_that_a_preset_began_in_bf16_is_the_same_run_under_auto():
    """The hash of a checkpoint made when the presets asked for bf16."""
    asked = [config for config in RECIPES.values() if config.precision == "auto"]
    assert asked
    assert all(config.hash == config.but(precision="bf16").hash for config in asked)
    assert all(config.hash != config.but(precision="float32").hash for config in asked)
