"""The pictures of a run: samples of the averaged weights from fixed noise, curves of the table."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from bench import NoiseSchedule, get_sampler, make_grid, normal_noise, sample, to_uint8
from bench.drawing.curves import training_curves
from bench.plugins.lookup import load_model
from bench.training import TrainConfig, train
from bench.training.checkpoint import read_safetensors
from bench.training.pictures import Averaged, draw_samples, save_samples
from bench.training.table import MetricsTable


class OnePicture(nn.Module):
    """The exact network where all data are one picture; it is told t 1000/T."""

    def __init__(self, schedule, picture):
        super().__init__()
        self.schedule, self.picture = schedule, picture

    def forward(self, x, t):
        abar = (
            self.schedule.alphas_cumprod[(t * self.schedule.T / 1000).round().long()]
            .float()
            .view(-1, 1, 1, 1)
        )
        eps = (x - abar.sqrt() * self.picture) / (1 - abar).sqrt()
        return torch.cat([eps, torch.full_like(eps, 100.0)], 1)  # the second half is no part of a sample


def test_the_grid_holds_the_samples_enlarged_and_in_order(tmp_path):
    schedule = NoiseSchedule.cosine(200)
    want = torch.randint(1, 255, (3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    network = OnePicture(schedule, want.float() / 127.5 - 1)
    images = draw_samples(Averaged(network, schedule, (3, 4, 4), rescale=True), 5, torch.device("cpu"))
    assert images.dtype == torch.uint8 and images.shape == (5, 3, 4, 4)
    assert (images.int() - want.int()).abs().max() <= 1
    save_samples(tmp_path / "grid.png", torch.stack([want + i for i in range(5)]))
    sheet = np.asarray(Image.open(tmp_path / "grid.png"))
    assert sheet.shape == (2 + 2 * 66, 2 + 3 * 66, 3)  # 5 images in 3 columns, 4 pixels by 16 each
    for i in range(6):
        tile = sheet[2 + i // 3 * 66 :][:64, 2 + i % 3 * 66 :][:, :64]
        if i == 5:
            assert (tile == 255).all()
        else:
            assert np.array_equal(tile[::16, ::16], (want + i).permute(1, 2, 0).numpy())
            assert np.array_equal(tile[15::16, 15::16], tile[::16, ::16])
    assert (sheet[:2] == 255).all() and (sheet[:, 66:68] == 255).all()


@pytest.fixture
def config(tmp_path):
    np.savez(
        tmp_path / "data.npz", images=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    )
    return TrainConfig(
        name="tiny",
        network="models.unet_training:make_unet",
        network_options={"channels": 8, "widths": (8,), "attention": (False,), "blocks": 1, "norm_groups": 4},
        data=str(tmp_path / "data.npz"),
        objective="hybrid",
        variance="learned_range",
        schedule="cosine",
        timesteps=60,
        rescale_timesteps=True,
        steps=6,
        batch=4,
        learning_rate=1e-3,
        warmup=0,
        log_every=2,
        checkpoint_every=4,
        pictures=4,
    )


def test_a_run_leaves_a_grid_at_every_checkpoint_of_the_weights_that_it_wrote(config, tmp_path):
    result = train(config, tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").glob("*.png")) == [
        "loss.png",
        "samples-0000004.png",
        "samples-0000006.png",
    ]
    model = load_model(str(result.weights)).model
    x = normal_noise(0, range(4), 0, (3, 8, 8))
    grid = make_grid(model.schedule, 50, "linspace")
    images = sample(model, get_sampler("ddim:eta=0"), grid, x, lambda k: torch.full_like(x, torch.nan))
    save_samples(tmp_path / "want.png", to_uint8(images))
    drawn = np.asarray(Image.open(tmp_path / "run" / "samples-0000006.png")).astype(int)
    assert np.abs(drawn - np.asarray(Image.open(tmp_path / "want.png")).astype(int)).max() <= 1
    before = np.asarray(Image.open(tmp_path / "run" / "samples-0000004.png")).astype(int)
    assert np.abs(drawn - before).max() > 1


def test_pictures_change_nothing_of_the_run(config, tmp_path):
    first, second = (
        read_safetensors(train(config.but(pictures=n), tmp_path / str(n)).weights).tensors for n in (0, 4)
    )
    assert not list((tmp_path / "0").glob("*.png"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert config.but(pictures=0).hash == config.hash


def test_the_curves_are_the_columns_of_the_table(config, tmp_path):
    result = train(config, tmp_path / "run")
    table = MetricsTable(result.metrics).read()
    assert table["step"] == [2, 4, 6] and table["images"] == [8, 16, 24]
    left, right = training_curves(table, "tiny").axes
    for axes, column in ((left, "simple"), (right, "vlb_bits_per_dim")):
        (line,) = [one for one in axes.lines if one.get_gid() == f"rows-{column}"]
        assert line.get_xdata().tolist() == table["step"]
        assert line.get_ydata().tolist() == table[column]
    with Image.open(tmp_path / "run" / "loss.png") as picture:
        assert picture.width > 2 * picture.height
