"""Two processes that train together against one with the same global batch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from bench import UsageError
from bench.training import TrainConfig, train
from bench.training.checkpoint import read_safetensors
from bench.training.processes import Processes


@pytest.fixture
def config(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    return TrainConfig(
        name="shared",
        network="models.unet_training:make_unet",
        network_options={
            "channels": 8,
            "widths": [8, 8],
            "attention": [False, True],
            "blocks": 1,
            "norm_groups": 4,
            "dropout": 0.2,
        },
        data=str(tmp_path / "data.npz"),
        objective="hybrid",
        variance="learned_range",
        timesteps=10,
        timestep_sampling="loss-second-moment",
        steps=30,
        batch=16,
        accumulate=2,
        learning_rate=3e-3,
        warmup=5,
        flip=True,
        log_every=2,
        checkpoint_every=10,
        pictures=4,
    )


def toml(config):
    values = config.to_json()
    options = values.pop("network_options")
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join([*lines, "[network_options]", *(f"{k} = {json.dumps(v)}" for k, v in options.items())])


def together(config, folder, tmp_path, processes=2):
    """Train under torchrun, as a user would."""
    (tmp_path / "config.toml").write_text(toml(config))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = ["-m", "bench", "train", str(tmp_path / "config.toml"), "--out", str(folder), "--device", "cpu"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.run(
        [sys.executable, *launch, *command],
        env=environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )


def losses(folder):
    with (folder / "metrics.csv").open() as file:
        return {
            int(row["step"]): [float(row[c]) for c in ("loss", "simple", "vlb_bits_per_dim", "gradient_norm")]
            for row in csv.DictReader(file)
        }


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_of_one(config, tmp_path):
    # With T = 10, second moments are in use after some 10 steps: they need the losses of both processes.
    alone = train(config, tmp_path / "alone")
    done = together(config.but(accumulate=1), tmp_path / "two", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("averaged weights") == 1  # the first alone writes
    want, found = losses(tmp_path / "alone"), losses(tmp_path / "two")
    assert list(found) == list(want) == list(range(2, 31, 2))
    for step, values in want.items():
        assert found[step] == pytest.approx(values, rel=1e-4), step
    first, second = (
        read_safetensors(tmp_path / name / "weights.safetensors").tensors for name in ("alone", "two")
    )
    for name in first:
        assert torch.allclose(first[name], second[name], rtol=1e-3, atol=1e-5), name
    assert alone.resumed_at == 0 and (tmp_path / "two" / "samples-0000030.png").exists()


def test_a_batch_that_the_processes_cannot_share_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Processes, "present", classmethod(lambda cls: cls(0, 3)))
    monkeypatch.setattr(Processes, "wrap", lambda self, network, device: network)
    with pytest.raises(UsageError, match="2 micro-batches on each of 3 processes; choose a multiple of 6"):
        train(config, tmp_path / "run")


def test_processes_that_found_other_checkpoints_do_not_go_on(monkeypatch):
    monkeypatch.setattr(Processes, "gather", lambda self, values: torch.tensor([20, 0]))
    with pytest.raises(UsageError, match=r"checkpoints of the steps \[20, 0\]"):
        Processes(0, 2).agree(20)
