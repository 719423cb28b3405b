"""What stops a run, be it a kill, a number that is not finite or a full disk, costs it nothing it had."""

from __future__ import annotations

import re
import resource

import numpy as np
import pytest
import torch
from torch import nn

from bench import UsageError
from bench.commands.main import main
from bench.records.trainings import COLUMNS
from bench.training import TrainConfig, TrainingError, loop, train
from bench.training.checkpoint import read_safetensors
from bench.training.table import MetricsTable

made: list[nn.Module] = []


class Small(nn.Module):
    """A convolution and a factor that a test can change in the middle of a run."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 16 * channels, 3, padding=1)
        self.out = nn.Conv2d(16 * channels, channels, 3, padding=1)
        self.factor = 1.0

    def forward(self, x, t):
        return self.out(torch.relu(self.layer(x))) * self.factor


def small(images, schedule, learned_range):
    made.append(Small(images.shape[1]))
    return made[-1]


@pytest.fixture
def config(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    return TrainConfig(
        name="small",
        network=f"{__name__}:small",
        data=str(tmp_path / "data.npz"),
        timesteps=10,
        steps=30,
        batch=4,
        warmup=2,
        log_every=5,
        checkpoint_every=10,
        pictures=4,
    )


def weights(folder):
    return read_safetensors(folder / "weights.safetensors").tensors


def same_weights(a, b):
    return all(torch.equal(tensor, weights(b)[name]) for name, tensor in weights(a).items())


def test_a_kill_between_weights_and_checkpoint_loses_neither(config, tmp_path, monkeypatch):
    train(config, tmp_path / "whole")
    written = []

    def killed(path, tensors, metadata):
        if len(written) == 5:  # two files a checkpoint: this is the second of the last
            raise KeyboardInterrupt
        written.append(path.name)
        write(path, tensors, metadata)

    write = loop.write_safetensors
    monkeypatch.setattr(loop, "write_safetensors", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut")
    monkeypatch.undo()
    assert train(config, tmp_path / "cut").resumed_at == 20
    assert same_weights(tmp_path / "whole", tmp_path / "cut")


def test_pictures_that_a_kill_has_cost_are_drawn_by_the_next_call(config, tmp_path):
    train(config, tmp_path / "run")
    picture = tmp_path / "run" / "samples-0000030.png"
    before = picture.read_bytes()
    picture.unlink()
    train(config, tmp_path / "run")
    assert picture.read_bytes() == before


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_of_before(config, tmp_path):
    path = tmp_path / "run" / "checkpoint.safetensors"
    kept = {}

    def report(progress):
        if progress.step == 25:
            kept["checkpoint"] = path.read_bytes()
            made[-1].factor = float("nan")

    with pytest.raises(TrainingError, match="not finite at step 25"):
        train(config, tmp_path / "run", report=report)
    assert path.read_bytes() == kept["checkpoint"]
    assert train(config, tmp_path / "run").resumed_at == 20
    train(config, tmp_path / "whole")
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_weights_that_are_not_finite_are_not_saved(config, tmp_path):
    def report(progress):
        if progress.step == 20:
            made[-1].out.bias.data[0] = float("inf")

    with pytest.raises(TrainingError, match=r"out\.bias is not finite after step 19"):
        train(config, tmp_path / "run", report=report)
    assert train(config, tmp_path / "run").resumed_at == 10


def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(config, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def report(progress):
        if progress.step == 15:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        with pytest.raises(TrainingError, match=r"cannot write to .*run: File too large; the last"):
            train(config, tmp_path / "run", report=report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "run").glob(".*"))
    assert train(config, tmp_path / "run").resumed_at == 10
    train(config, tmp_path / "whole")
    assert same_weights(tmp_path / "whole", tmp_path / "run")


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_computed(config, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=f"cannot write to {folder}: .*; choose --out DIR"):
            train(config, folder)


def test_a_table_that_was_lost_or_cut_is_no_hindrance(config, tmp_path):
    table = MetricsTable(tmp_path / "metrics.csv")
    table.begin(10)
    assert table.path.read_text().strip() == ",".join(COLUMNS)
    for step in (5, 10, 15):
        table.append(step, *[0.5] * (len(COLUMNS) - 1))
    table.path.write_text(table.path.read_text() + "\n1\n2,3")
    table.begin(10)
    assert table.read()["step"] == [5, 10]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("warmup = -5", "warmup must be at least 0, got -5"),
        ("beta1 = 1.0", r"beta1 must lie in \[0, 1\)"),
        ("beta2 = 2.0", r"beta2 must lie in \[0, 1\)"),
        ("weight_decay = -1.0", "weight_decay must not be negative"),
        ("clip = nan", "clip must be positive"),
        ("learning_rate = inf", "learning_rate must be positive"),
        ("muon_learning_rate = -1.0", "muon_learning_rate must be positive"),
        ('muon_parameters = "["', "no regular expression"),
        ("vlb_weight = nan", "vlb_weight must not be negative"),
        ("seed = -1", "seed must be at least 0"),
        ('name = "../elsewhere"', "name must be one that a folder can have"),
        ('data = ""', "data must name an image set"),
        ('network = "os:getcwd"', "cannot be called as factory"),
        ('network = "builtins:dict"', "returns no nn.Module|cannot be called"),
        ("[network_options]\nwidth = 3", "cannot be called as factory.*'width'"),
    ],
)
def test_impossible_values_end_the_command_with_one_sentence(config, tmp_path, capsys, lines, message):
    keys = {line.split(" = ")[0] for line in lines.splitlines()}
    given = {"network": config.network, "data": config.data, "steps": 10, "batch": 4}
    text = "\n".join(f"{k} = {v!r}" for k, v in given.items() if k not in keys)
    (tmp_path / "mine.toml").write_text(f"{text}\n{lines}")
    assert main(["train", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "o"), "--device", "cpu"]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert re.search(message, error), error


def test_a_process_has_one_device_and_it_must_be_there(capsys):
    assert main(["train", "digits-quick", "--device", "cpu,cpu"]) == 2
    assert "one device" in capsys.readouterr().err
    assert main(["train", "digits-quick", "--device", "meta"]) == 2
    assert "'meta' is not there" in capsys.readouterr().err
