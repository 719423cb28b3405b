"""The loop: resumes to the last bit, learns, draws by (seed, step), refuses what does not fit."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench import UsageError
from bench.training import TrainConfig, TrainingError, get_recipe, train
from bench.training.checkpoint import read_safetensors, write_safetensors
from bench.training.draws import batch_indices
from bench.training.ema import MovingAverage


class Tiny(nn.Module):
    """Two convolutions with dropout, enough to have every kind of state."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, 8, 3, padding=1)
        self.dropout = nn.Dropout(0.2)
        self.second = nn.Conv2d(8, factor * channels, 3, padding=1)

    def forward(self, x, t):
        time = (t.float() / 1000).view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return self.second(self.dropout(torch.relu(self.first(torch.cat([x, time], 1)))))


def tiny(images, schedule, learned_range):
    return Tiny(images.shape[1], 2 if learned_range else 1)


class Exploding(Tiny):
    def forward(self, x, t):
        return super().forward(x, t) * math.inf


def exploding(images, schedule, learned_range):
    return Exploding(images.shape[1], 1)


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (50, 6, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    return TrainConfig(
        name="tiny",
        network=f"{__name__}:tiny",
        data=str(tmp_path / "data.npz"),
        objective="hybrid",
        variance="learned_range",
        timesteps=20,
        timestep_sampling="loss-second-moment",
        flip=True,
        steps=60,
        batch=16,
        accumulate=2,
        warmup=4,
        learning_rate=1e-2,
        log_every=5,
        checkpoint_every=10,
        pictures=0,
    )


def table(result):
    with result.metrics.open() as file:
        return [{k: v for k, v in r.items() if "second" not in k} for r in csv.DictReader(file)]


@pytest.mark.parametrize("optimiser", ["adam", "muon"])
def test_an_interrupted_run_ends_with_the_same_bits(config, tmp_path, optimiser):
    if optimiser == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("needs torch 2.9 for Muon")
    # 320 time steps drawn before the stop: with T = 20 the second moments are in use after it.
    network = "tiny" if optimiser == "adam" else "dense"
    config = config.but(optimiser=optimiser, network=f"{__name__}:{network}")
    whole = train(config, tmp_path / "whole")
    train(config, tmp_path / "parts", stop_after=33)
    resumed = train(config, tmp_path / "parts")
    assert (whole.resumed_at, resumed.resumed_at, resumed.steps) == (0, 33, 60)
    first, second = (read_safetensors(r.weights).tensors for r in (whole, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert whole.loss_by_t.read_text() == resumed.loss_by_t.read_text()
    assert table(whole) == table(resumed)  # the row of step 35 has the three steps before the stop in it, too


def dense(images, schedule, learned_range):
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            size = images[0].numel()
            self.linear = nn.Linear(size, 2 * size)

        def forward(self, x, t):
            return self.linear(x.flatten(1)).view(len(x), -1, *x.shape[2:])

    return Dense()


def test_kill_dash_nine_loses_nothing_but_the_steps_since_the_checkpoint(config, tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        sys.path.insert(0, sys.argv[2])
        import torch
        torch.set_num_threads(1)
        import json
        from bench.training import TrainConfig, train
        config = TrainConfig.from_mapping(json.loads(sys.argv[1]))
        def report(progress):
            if progress.step == 25:
                os.kill(os.getpid(), signal.SIGKILL)
        train(config, sys.argv[3], report=report)
        """
    )
    here = str(Path(__file__).parent)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", script, json.dumps(config.to_json()), here, str(tmp_path / "killed")]
    done = subprocess.run(command, env=environment, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = train(config, tmp_path / "killed")
        whole = train(config, tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert resumed.resumed_at == 20
    first, second = (read_safetensors(r.weights).tensors for r in (whole, resumed))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert table(whole) == table(resumed)  # the row of step 25 is there once


def test_accumulation_changes_nothing_but_rounding(config, tmp_path):
    config = config.but(network=f"{__name__}:dense", timestep_sampling="uniform", steps=10)
    ends = [
        read_safetensors(train(config.but(accumulate=k), tmp_path / str(k)).weights).tensors for k in (1, 4)
    ]
    for name in ends[0]:
        assert torch.allclose(ends[0][name], ends[1][name], rtol=1e-4, atol=1e-5)


def test_training_finds_the_best_constant_prediction(tmp_path):
    # All images alike, T = 1: eps = (x_t - sqrt(abar) x_0) / sqrt(1 - abar), 1 / sqrt(1 - abar) = 100, is
    # within reach of the network, so that L_simple falls to nothing.
    np.savez(tmp_path / "data.npz", images=np.full((8, 2, 2), 200, np.uint8))
    config = TrainConfig(
        name="constant",
        network=f"{__name__}:affine",
        data=str(tmp_path / "data.npz"),
        timesteps=1,
        steps=400,
        batch=32,
        warmup=0,
        learning_rate=0.02,
        clip=math.inf,
        decay="cosine",
        ema=0.5,
    )
    result = train(config, tmp_path / "run")
    weights = read_safetensors(result.weights).tensors
    assert float(weights["scale"]) == pytest.approx(1, rel=0.01)
    wanted = 0.57 - math.sqrt(1 - 1e-4) * (200 / 127.5 - 1)
    assert float(weights["offset"]) == pytest.approx(wanted, abs=1e-4)


def affine(images, schedule, learned_range):
    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.5))
            self.offset = nn.Parameter(torch.tensor(0.05))

        def forward(self, x, t):
            return 100 * (self.scale * (x - 0.57) + self.offset)

    return Affine()


def test_batches_go_through_every_image_once_an_epoch():
    batches = [batch_indices(3, step, 7, 20) for step in range(20)]
    drawn = torch.cat(batches)
    for epoch in range(7):
        assert torch.equal(drawn[20 * epoch : 20 * epoch + 20].sort().values, torch.arange(20))
    assert not torch.equal(drawn[:20], drawn[20:40])
    assert torch.equal(batch_indices(3, 11, 7, 20), batches[11])
    assert not torch.equal(batch_indices(4, 11, 7, 20), batches[11])


def test_the_average_is_the_weighted_sum_of_the_weights():
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    average = MovingAverage(module)
    want = 1.0
    for value, decay in ((2.0, 0.5), (5.0, 0.9), (-1.0, 0.99)):
        nn.init.constant_(module.weight, value)
        average.update(decay)
        want = decay * want + (1 - decay) * value
    assert float(average.module.weight) == pytest.approx(want, rel=1e-6)
    assert not average.module.weight.requires_grad


def test_schedules_of_the_learning_rate():
    config = get_recipe("digits").but(steps=100, warmup=10, decay="linear", decay_steps=40)
    assert config.rate_share_at(0) == pytest.approx(0.1)
    assert config.rate_share_at(9) == config.rate_share_at(60) == 1
    assert config.rate_share_at(80) == pytest.approx(0.5)
    assert config.but(decay="cosine").rate_share_at(50) == pytest.approx(0.5)
    assert config.but(decay="none").rate_share_at(99) == 1


def test_what_does_not_belong_together_is_refused(config, tmp_path):
    train(config, tmp_path / "run", stop_after=10)
    with pytest.raises(UsageError, match="belongs to another run"):
        train(config.but(seed=1), tmp_path / "run")
    with pytest.raises(UsageError, match="exists; continue it"):
        train(config, tmp_path / "run", resume=False)
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UsageError, match="is no readable checkpoint"):
        train(config, tmp_path / "run")
    with pytest.raises(UsageError, match="cannot be found"):
        train(config.but(network="nowhere:at_all"), tmp_path / "other")
    with pytest.raises(UsageError, match="unknown training option 'stepz'"):
        TrainConfig.from_mapping({"stepz": 1})
    with pytest.raises(UsageError, match="must be a multiple"):
        config.but(checkpoint_every=7)
    with pytest.raises(UsageError, match="digits"):
        get_recipe("digit")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(config, tmp_path):
    config = config.but(network=f"{__name__}:exploding", objective="simple", variance="fixedlarge")
    with pytest.raises(TrainingError, match="not finite at step 0"):
        train(config, tmp_path / "run")


@pytest.mark.parametrize("text", ["776952e297960152", "1e5", "-1.50", "7769522979601520", "deadbeef"])
def test_a_hash_that_looks_like_a_number_is_read_as_it_was_written(text, tmp_path):
    """Hexadecimal digits may read as infinity: one run in some hundred could not be continued."""
    write_safetensors(
        tmp_path / "x.safetensors", {"w": torch.zeros(1)}, {"hash": text, "loss": 1.5, "step": 3}
    )
    found = read_safetensors(tmp_path / "x.safetensors").metadata
    assert str(found["hash"]) == text
    assert (found["loss"], found["step"]) == (1.5, 3)
