"""From a checkpoint to a noise predictor: diffusion, variance, rescaled time, and what must be said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.unets import family_checkpoint, random_network
from torch import Tensor, nn

import models
from bench import EpsilonModel, NoiseSchedule, get_sampler, make_grid, sample
from models import CheckpointError, EpsilonNetwork, Process, UNetConfig
from models.spec import split_spec


def refused(*words: str, source: Any, **options: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        models.load_checkpoint(source, **options)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


class Recorder(nn.Module):
    """A network that notes the time it receives."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.channels = channels
        self.times: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.times.append(t)
        return torch.arange(float(self.channels)).view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])


def test_network_receives_rescaled_time_and_its_output_is_split() -> None:
    network = Recorder()
    model = EpsilonNetwork(network, NoiseSchedule.cosine(4000), (3, 4, 4), "learned_range", True)
    eps, raw, _ = model(torch.zeros(3, 3, 4, 4), torch.tensor([0, 1001, 3999]))
    assert network.times[0].tolist() == [0.0, 250.25, 999.75]
    assert raw is not None
    assert eps[0, :, 0, 0].tolist() == [0, 1, 2]
    assert raw[0, :, 0, 0].tolist() == [3, 4, 5]


def test_time_that_is_not_rescaled_arrives_as_it_is() -> None:
    network = Recorder(3)
    model = EpsilonNetwork(network, NoiseSchedule.linear(4000), (3, 4, 4))
    prediction = model(torch.zeros(1, 3, 4, 4), torch.tensor([3999]))
    assert network.times[0].tolist() == [3999]
    assert prediction.raw_variance is None


def test_precision_of_the_prediction_is_that_of_x() -> None:
    _, state, config = family_checkpoint("pesser")
    model = models.load_checkpoint(state, config=config)
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert model(x, torch.tensor([5])).eps.dtype == torch.float32


def test_defaults_of_each_family() -> None:
    linear = NoiseSchedule.linear(1000)
    for name in ("diffusers", "pesser", "pytorch_ddpm"):
        _, state, config = family_checkpoint(name)
        model = models.load_checkpoint(state, config=config)
        assert isinstance(model, EpsilonModel)
        assert (model.schedule, model.shape, model.variance) == (linear, (3, 8, 8), "fixed")
        assert not model.rescale_timesteps
        assert not model.training


def test_openai_models_need_their_diffusion_named() -> None:
    _, state, config = family_checkpoint("openai")
    refused("T=4000", "schedule", source=state, config=config)
    refused("rescale_timesteps", source=state, config=config, T=4000, schedule="cosine")
    refused("T=1000", source=state, config=config, schedule="cosine")
    refused("size of an image", source=state, config={"num_heads": 4}, T=1000, schedule="linear")
    model = models.load_checkpoint(state, config=config, T=4000, schedule="cosine", rescale_timesteps=True)
    assert model.schedule == NoiseSchedule.cosine(4000)
    assert model.variance == "learned_range"
    assert models.load_checkpoint(
        state, config=config, T=1000, schedule="linear"
    ).schedule == NoiseSchedule.linear(1000)


def test_openai_scales_the_linear_schedule_with_T() -> None:
    _, state, config = family_checkpoint("openai")
    model = models.load_checkpoint(state, config=config, T=4000, schedule="linear", rescale_timesteps=True)
    assert float(model.schedule.betas[0]) == pytest.approx(2.5e-5)
    assert float(model.schedule.betas[-1]) == pytest.approx(0.005)


def test_what_the_caller_says_has_the_last_word() -> None:
    _, state, config = family_checkpoint("pesser")
    schedule = NoiseSchedule.cosine(500)
    model = models.load_checkpoint(state, config=config, schedule=schedule, image_size=16)
    assert model.schedule is schedule
    assert model.shape == (3, 16, 16)
    assert models.load_checkpoint(state, config=config, T=500, schedule="cosine").schedule == schedule
    refused("contradicts", source=state, config=config, T=500)
    refused("contradicts", source=state, config=config, T=400, schedule=schedule)
    refused("unknown schedule", source=state, config=config, T=400, schedule="sigmoid")
    refused("output channels", source=state, config=config, variance="learned_range")


def test_a_learned_variance_can_be_ignored() -> None:
    _, state, config = family_checkpoint("openai")
    options: dict[str, Any] = {"config": config, "T": 1000, "schedule": "linear"}
    learned = models.load_checkpoint(state, **options)
    fixed = models.load_checkpoint(state, **options, variance="fixed")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([1, 900])
    assert torch.equal(fixed(x, t).eps, learned(x, t).eps)
    assert fixed(x, t).raw_variance is None


SCHEDULERS: list[tuple[dict[str, Any], NoiseSchedule]] = [
    ({"timesteps": 1000, "beta_schedule": "linear"}, NoiseSchedule.linear(1000)),
    (
        {"num_train_timesteps": 500, "beta_start": 0.001, "beta_end": 0.01},
        NoiseSchedule.linear(500, 0.001, 0.01),
    ),
    ({"num_train_timesteps": 200, "beta_schedule": "squaredcos_cap_v2"}, NoiseSchedule.cosine(200)),
    ({"trained_betas": [0.1, 0.2]}, NoiseSchedule.from_betas([0.1, 0.2])),
    (
        {"num_train_timesteps": 3, "beta_schedule": "scaled_linear", "beta_start": 0.01, "beta_end": 0.09},
        NoiseSchedule.from_betas([0.01, 0.04, 0.09]),
    ),
]


@pytest.mark.parametrize(("scheduler", "expected"), SCHEDULERS)
def test_scheduler_of_a_diffusers_folder_is_read(
    tmp_path: Path, scheduler: dict[str, Any], expected: NoiseSchedule
) -> None:
    _, state, config = family_checkpoint("diffusers")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **config}))
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
    got = models.load_checkpoint(tmp_path).schedule
    torch.testing.assert_close(got.betas, expected.betas, atol=1e-15, rtol=1e-12)


def test_diffusers_models_of_other_quantities_are_refused(tmp_path: Path) -> None:
    _, state, config = family_checkpoint("diffusers")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **config}))
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    for scheduler, word in (
        ({"prediction_type": "score"}, "predicts score"),
        ({"beta_schedule": "exp"}, "exp"),
    ):
        (tmp_path / "scheduler_config.json").write_text(json.dumps(scheduler))
        refused(word, source=tmp_path)


@pytest.mark.parametrize("process_variance", ["fixed", "learned_range"])
def test_own_checkpoints_come_back_whole(tmp_path: Path, process_variance: Any) -> None:
    out = 3 if process_variance == "fixed" else 6
    config = UNetConfig(8, 3, out, 32, (32, 64), 1, (False, True), heads=2, dropout=0.1, scale_shift=True)
    network = random_network(config)
    process = Process(NoiseSchedule.cosine(4000), process_variance, True)
    file = tmp_path / "own.safetensors"
    models.save_network(file, network, process, config)
    model = models.load_checkpoint(file)
    assert model.network.config == config
    assert model.schedule == process.schedule
    assert model.schedule.name == "cosine(T=4000)"
    assert (model.variance, model.rescale_timesteps, model.shape) == (process_variance, True, (3, 8, 8))
    state = model.network.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert [path.name for path in tmp_path.iterdir()] == ["own.safetensors"]


def test_fingerprint_tells_what_decides_the_prediction() -> None:
    config = UNetConfig(8, 3, 3, 32, (32, 64), 1, (False, True))
    linear = NoiseSchedule.linear(1000)

    def fingerprint(seed: int = 0, schedule: NoiseSchedule = linear, rescale: bool = False) -> str:
        network = random_network(config, seed)
        return EpsilonNetwork(network, schedule, (3, 8, 8), "fixed", rescale).fingerprint

    assert fingerprint() == fingerprint()
    others = {
        fingerprint(seed=1),
        fingerprint(schedule=NoiseSchedule.cosine(1000)),
        fingerprint(rescale=True),
    }
    assert len(others | {fingerprint()}) == 4


class Oracle(nn.Module):
    """The exact predictor for one known image, as a network that takes t 1000/T."""

    def __init__(self, schedule: NoiseSchedule, image: Tensor) -> None:
        super().__init__()
        self.schedule, self.image = schedule, image
        self.seen: list[int] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return eps and v = 0."""
        step = t * 4  # back from [0, 1000) to the original steps
        assert t.is_floating_point() and torch.equal(step, step.round())
        self.seen.append(int(step[0]))
        abar = self.schedule.alphas_cumprod[step.long()].view(-1, 1, 1, 1)
        eps = ((x - abar.sqrt() * self.image) / (1 - abar).sqrt()).to(x.dtype)
        return torch.cat([eps, torch.zeros_like(eps)], 1)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm:variance=learned"])
@pytest.mark.parametrize(
    ("spacing", "steps"),
    [
        *((spacing, 10) for spacing in ("uniform", "quadratic", "openai", "linspace", "trailing")),
        *((spacing, 1000) for spacing in ("uniform", "openai")),
        ("openai", 4000),
    ],
)
def test_cosine_model_of_4000_rescaled_steps_samples_through_every_grid(
    spacing: str, steps: int, sampler: str
) -> None:
    # Both samplers end at the mean of p(x_0 | x_1), which for the exact predictor is the image.
    schedule, image = NoiseSchedule.cosine(4000), torch.linspace(-1, 1, 3 * 2 * 2).view(1, 3, 2, 2)
    oracle = Oracle(schedule, image)
    model = EpsilonNetwork(oracle, schedule, (3, 2, 2), "learned_range", True)
    grid = make_grid(schedule, steps, spacing)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 3, 2, 2), generator=generator)
    found = sample(
        model, get_sampler(sampler), grid, x, lambda index: torch.randn(x.shape, generator=generator)
    )
    assert oracle.seen == [step.t for step in grid]
    assert len(grid) >= steps and oracle.seen[0] > 3000
    assert float((found - image).abs().max()) < 1e-5


def test_command_line_says_what_the_file_does_not(tmp_path: Path) -> None:
    _, state, config = family_checkpoint("openai")
    torch.save(state, tmp_path / "model.pt")
    spec = f"{tmp_path}/model.pt:T=4000,schedule=cosine,rescale_timesteps=true,num_heads=4,image_size=8"
    model = models.load_spec(spec)
    reference = models.load_checkpoint(
        state, config=config, T=4000, schedule="cosine", rescale_timesteps=True
    )
    assert model.fingerprint == reference.fingerprint
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([3001])
    assert torch.equal(model(x, t).eps, reference(x, t).eps)
    with pytest.raises(CheckpointError, match="num_heads"):
        models.load_spec(f"{tmp_path}/model.pt:num_head=4,T=1000,schedule=linear")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hub:google/ddpm-cifar10-32", ("hub:google/ddpm-cifar10-32", {}, {})),
        ("hub:a/b:ema=false", ("hub:a/b", {"ema": False}, {})),
        ("a.pt:digest=md5:00,ch=64,dropout=0.5", ("a.pt", {"digest": "md5:00"}, {"ch": 64, "dropout": 0.5})),
        (
            "C:/models/a.pt:family=pesser,resolution=none",
            ("C:/models/a.pt", {"family": "pesser"}, {"resolution": None}),
        ),
    ],
)
def test_specs_are_split(spec: str, expected: tuple[str, dict[str, Any], dict[str, Any]]) -> None:
    assert split_spec(spec) == (*expected, {})


def test_lists_and_conditions_are_options_too() -> None:
    found = split_spec("x.pt:channel_mult=1,2,2,num_heads=2,guidance=3,label=uniform,T=4000")
    assert found.source == "x.pt"
    assert found.config == {"channel_mult": (1, 2, 2), "num_heads": 2}
    assert found.options == {"T": 4000}
    assert found.conditions == {"guidance": "3", "label": "uniform"}
