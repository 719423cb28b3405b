"""``sampler-bench train``: presets, configs from files, and what the document shows."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from bench import UsageError
from bench.commands.main import main
from bench.commands.train import APART
from bench.training import RECIPES, TrainConfig, get_recipe, read_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_the_list_names_every_preset_with_its_data_and_length(capsys):
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*RECIPES, *APART]
    assert re.search(r"cifar10-ddpm +cifar10 +800,000 steps of 128 +35\.7 M U-Net", "\n".join(lines))


def test_the_recipes_are_the_published_ones():
    # arXiv:2006.11239, appendix B; arXiv:2102.09672, section 3 and appendix A.
    ddpm, iddpm = get_recipe("cifar10-ddpm"), get_recipe("cifar10-iddpm")
    assert (ddpm.objective, ddpm.schedule, ddpm.timesteps) == ("simple", "linear", 1000)
    assert (ddpm.learning_rate, ddpm.warmup, ddpm.batch, ddpm.clip) == (2e-4, 5000, 128, 1.0)
    assert (ddpm.ema, ddpm.network_options["dropout"], ddpm.flip, ddpm.steps) == (0.9999, 0.1, True, 800_000)
    assert (iddpm.objective, iddpm.schedule, iddpm.timesteps) == ("hybrid", "cosine", 4000)
    assert (iddpm.learning_rate, iddpm.batch, iddpm.ema, iddpm.steps) == (1e-4, 128, 0.9999, 500_000)
    assert (iddpm.variance, iddpm.vlb_weight, iddpm.rescale_timesteps) == ("learned_range", 0.001, True)
    assert iddpm.network_options["dropout"] == 0.3
    assert all(config.optimiser == "adam" for config in (ddpm, iddpm))


def test_a_file_changes_a_preset(tmp_path):
    path = write(
        tmp_path, 'preset = "cifar10-iddpm"\nsteps = 7\nclip = inf\n[network_options]\ndropout = 0.2\n'
    )
    config, base = read_config(path), get_recipe("cifar10-iddpm")
    assert (config.name, config.steps, config.learning_rate) == ("mine", 7, base.learning_rate)
    assert config.network_options == dict(base.network_options) | {"dropout": 0.2}
    assert TrainConfig.from_mapping(base.to_json()) == base


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('preset = "cifar10-dpm"', "unknown training preset 'cifar10-dpm'; did you mean cifar10-ddpm"),
        ('preset = "digits"\nsteps = "7"', "steps must be a whole number, got '7'"),
        ('preset = "digits"\nbatch = true', "batch must be a whole number, got True"),
        ('preset = "digits"\nflip = 1', "flip must be true or false, got 1"),
        ('preset = "digits"\nobjective = "hybird"', "unknown objective 'hybird'; did you mean hybrid"),
        ('preset = "digits"\nprecision = "fp8"', "unknown precision 'fp8'; known: auto, bf16, float32"),
        ('preset = "digits"\nlabel_dropout = "half"', "label_dropout must be a number, got 'half'"),
        ('preset = "digits"\nlabel_dropout = true', "label_dropout must be a number, got True"),
        ('preset = "digits"\nlabel_dropout = 1.5', r"label_dropout must lie in \[0, 1\), got 1.5"),
        ('preset = "digits"\nstep = 7', "unknown training option 'step'"),
        ('preset = "digits"\nnetwork_options = 7', "network_options must be a table, got 7"),
        ("steps = 7", "a training config needs 'network'"),
        ("steps = ", "is not TOML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_config(write(tmp_path, text))
    assert "mine.toml" in str(caught.value)


def test_the_document_shows_configs_and_presets_that_exist():
    text = DOCUMENT.read_text(encoding="utf-8")
    for name in RECIPES:
        assert f"`{name}`" in text
    for number in ("35,746,307", "52,546,438", "78,700,803"):  # counted in test_training_unet.py
        assert number in text


def test_the_config_of_the_document_is_one(tmp_path):
    (block,) = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S)
    config = read_config(write(tmp_path, block))
    assert (config.objective, config.batch, config.precision) == ("hybrid", 64, "bf16")


def test_the_command_trains_a_file_and_samples_from_what_it_wrote(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("data.npz", images=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8))
    path = write(
        tmp_path,
        """
        preset = "cifar10-small"
        data = "data.npz"
        batch = 4
        log_every = 1
        checkpoint_every = 2
        pictures = 4
        [network_options]
        channels = 8
        widths = [8, 8, 8]
        norm_groups = 4
        """,
    )
    assert main(["train", str(path), "--steps", "2", "--device", "cpu"]) == 0
    assert "2 steps; averaged weights results/train/mine/weights.safetensors" in capsys.readouterr().out
    weights = "results/train/mine/weights.safetensors"
    command = ["run", "--model", weights, "--reference", "data.npz", "--samplers", "ddim", "--steps", "3"]
    assert (
        main([*command, "--n", "8", "--metrics", "fd_pixels", "--device", "cpu", "--results", "swept"]) == 0
    )
    assert list(Path("swept").rglob("*.json"))
