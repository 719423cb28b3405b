"""Folders that an installed diffusers saved: conditional networks, other predictions, schedulers' words."""

from __future__ import annotations

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch

import models
from bench import ConditionalModel
from bench.diffusion.prediction import from_network, to_network
from models.families.scheduler import FLOWS, OF_BETAS, PREDICTIONS, SAMPLERS, USED, read_scheduler

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "norm_num_groups": 16,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
}
DIT = {
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 10,
}


def shaken(network: Any) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


def saved(tmp_path: Path, network: Any, scheduler: Any = None) -> Path:
    network.save_pretrained(tmp_path)
    if scheduler is not None:
        scheduler.save_pretrained(tmp_path / "scheduler")
    return tmp_path


def test_labels_of_a_unet(tmp_path: Path) -> None:
    unet = shaken(diffusers.UNet2DModel(**SMALL, num_class_embeds=5))
    model = models.load_checkpoint(saved(tmp_path, unet, diffusers.DDPMScheduler()))
    assert isinstance(model, ConditionalModel)
    x, t, label = torch.randn(3, 3, 8, 8), torch.tensor([0, 7, 999]), torch.tensor([0, 4, 2])
    with torch.no_grad():
        gap = model.network(x, t, label).eps - unet(x, t, label).sample
    assert float(gap.abs().max()) < 1e-5


@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_dit(tmp_path: Path, eps: float) -> None:
    torch.manual_seed(1)
    network = diffusers.DiTTransformer2DModel(**DIT, norm_eps=eps)
    first = network.transformer_blocks[0].norm1.emb
    shaken(network)
    for block in network.transformer_blocks:  # in a published file all blocks hold one embedding
        block.norm1.emb.load_state_dict(first.state_dict())
    model = models.load_checkpoint(saved(tmp_path, network, diffusers.DDIMScheduler()))
    x, t, label = torch.randn(3, 4, 8, 8), torch.tensor([0, 7, 999]), torch.tensor([0, 4, 10])
    with torch.no_grad():
        wanted = network(x, t, label).sample
        got = model.network(x, t, label)
    assert float((torch.cat([got.eps, got.raw_variance], 1) - wanted).abs().max()) < 1e-5
    assert model.network.classes == 10
    assert model.with_options({"guidance": "4"}).at(range(2), 0).shape == (4, 8, 8)


def test_a_dit_whose_blocks_differ_is_refused(tmp_path: Path) -> None:
    network = shaken(diffusers.DiTTransformer2DModel(**DIT))
    with pytest.raises(models.CheckpointError, match="--model diffusers:PATH"):
        models.load_checkpoint(saved(tmp_path, network, diffusers.DDIMScheduler()))


@pytest.mark.parametrize(("said", "predicts"), [("epsilon", "eps"), ("sample", "x0"), ("v_prediction", "v")])
def test_what_a_folder_predicts_is_read(tmp_path: Path, said: str, predicts: Any) -> None:
    unet = shaken(diffusers.UNet2DModel(**SMALL))
    model = models.load_checkpoint(saved(tmp_path, unet, diffusers.DDIMScheduler(prediction_type=said)))
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([10, 900])
    with torch.no_grad():
        raw, got = unet(x, t).sample, model(x, t)
    eps, x0 = from_network(predicts, x, raw, model.schedule.alpha_bars(t))
    assert float((got.eps - eps).abs().max()) < 1e-4
    assert (got.x0 is None) == (x0 is None)


def test_a_flow_is_told_a_thousand_times_its_time(tmp_path: Path) -> None:
    unet = shaken(diffusers.UNet2DModel(**SMALL))
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    model = models.load_checkpoint(saved(tmp_path, unet, flow))
    assert "flow" in model.schedule.name
    x, s = torch.randn(2, 3, 8, 8), torch.tensor([0.25, 0.9], dtype=torch.float64)
    alpha_bar = model.schedule.alpha_bars(s)
    with torch.no_grad():
        raw = unet(to_network("flow", x, alpha_bar), (1000 * s).float()).sample
        got = model(x, s)
    eps, x0 = from_network("flow", x, raw, alpha_bar)
    assert float((got.eps - eps).abs().max()) < 1e-4
    assert float((got.x0 - x0).abs().max()) < 1e-4


def test_a_bare_folder_says_what_is_taken(tmp_path: Path) -> None:
    folder = saved(tmp_path, shaken(diffusers.UNet2DModel(**SMALL)))
    with pytest.warns(UserWarning, match="no scheduler_config.json tells its diffusion"):
        models.load_checkpoint(folder)
    models.load_checkpoint(folder, schedule="linear")


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_betas_are_those_of_diffusers(kind: str) -> None:
    theirs = diffusers.DDPMScheduler(beta_schedule=kind, beta_start=0.001, beta_end=0.012)
    ours, _ = read_scheduler(dict(theirs.config))
    gap = ours.alphas_cumprod - theirs.alphas_cumprod.double()
    assert float(gap.abs().max()) < 1e-5  # theirs are of float32


@pytest.mark.parametrize("name", sorted(OF_BETAS))
def test_betas_that_a_file_leaves_out_are_those_of_its_class(name: str) -> None:
    if name == "DPMSolverSDEScheduler":
        pytest.importorskip("torchsde")
    theirs = getattr(diffusers, name)()
    ours, predicts = read_scheduler({"_class_name": name})
    assert float((ours.alphas_cumprod - theirs.alphas_cumprod.double()).abs().max()) < 1e-5
    assert predicts == PREDICTIONS[theirs.config.get("prediction_type", "epsilon")]


def test_zero_terminal_snr_is_honoured() -> None:
    theirs = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    ours, predicts = read_scheduler(dict(theirs.config))
    assert predicts == "v" and ours.alpha_bar(999) == 0
    assert float((ours.alphas_cumprod - theirs.alphas_cumprod.double()).abs().max()) < 1e-5
    with pytest.raises(models.CheckpointError, match="epsilon does not tell the image"):
        read_scheduler({"rescale_betas_zero_snr": True})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler, whose noise levels"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "ScoreSdeVeScheduler, whose noise levels"),
        ({"_class_name": "UnCLIPScheduler"}, "UnCLIPScheduler, whose noise levels"),
        ({"_class_name": "DDPMWuerstchenScheduler"}, "DDPMWuerstchenScheduler, whose noise levels"),
        ({"_class_name": "AmusedScheduler"}, "AmusedScheduler, whose noise levels"),
        ({"_class_name": "NoSuchScheduler"}, "NoSuchScheduler, whose noise levels"),
        ({"beta_schedule": "laplace"}, "beta schedule 'laplace'"),
        ({"prediction_type": "score"}, "predicts score"),
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
            "shifts its times by the size",
        ),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "(invert_sigmas)"),
        ({"_class_name": "FlowMatchLCMScheduler", "scale_factors": [0.5, 1.0]}, "(scale_factors)"),
        ({"_class_name": "FlowMatchLCMScheduler", "num_train_timesteps": 500}, "500 s for the time s"),
        ({"_class_name": "FlowMatchLCMScheduler", "shift": None}, "shift .* must be a positive number"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler", "prediction_type": "epsilon"}, "by its class"),
        ({"use_flow_sigmas": True, "flow_shift": 5.0}, r"rectified flow \(by use_flow_sigmas\)"),
        ({"num_train_timesteps": 100.5}, "must be a whole number from 1 to 1,000,000, got 100.5"),
        ({"num_train_timesteps": "1000"}, "must be a whole number from 1 to 1,000,000, got '1000'"),
        ({"num_train_timesteps": 10**12}, "must be a whole number from 1 to 1,000,000"),
        ({"num_train_timesteps": True}, "got True"),
        ({"beta_end": None}, "beta_end of this diffusers scheduler must be a number between 0 and 1"),
        ({"beta_start": float("nan")}, "beta_start .* got nan"),
        ({"beta_schedule": "scaled_linear", "beta_end": "0.02"}, "beta_end .* got '0.02'"),
        ({"rescale_betas_zero_snr": "false"}, "must be true or false, got 'false'"),
        ({"trained_betas": {"0": 0.1}}, "trained_betas .* must be a list of numbers"),
        ({"trained_betas": [0.1, None]}, "trained_betas .* must be a list of numbers"),
        ({"trained_betas": [0.1, 1.5]}, "trained_betas .* every beta must lie"),
    ],
)
def test_what_is_not_known_is_refused(config: dict[str, Any], words: str) -> None:
    with pytest.raises(models.CheckpointError, match=words) as told:
        read_scheduler(config)
    assert not str(told.value).endswith(":") and "\n" not in str(told.value)


def test_an_unknown_word_is_named() -> None:
    with pytest.warns(UserWarning, match="says snr_shift_scale, which is not known"):
        read_scheduler({"_class_name": "DDPMScheduler", "snr_shift_scale": 3.0})
    with pytest.warns(UserWarning, match="says snr_shift_scale, which is not known"):
        read_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler", "snr_shift_scale": 3.0})


@pytest.mark.parametrize(
    ("config", "idle"),
    [
        ({"_class_name": "DPMSolverMultistepScheduler", "flow_shift": 5.0}, "flow_shift"),
        ({"_class_name": "DDPMScheduler", "shift": 3.0}, "shift"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_end": 0.02}, "beta_end"),
        (
            {
                "_class_name": "UniPCMultistepScheduler",
                "prediction_type": "flow_prediction",
                "rescale_betas_zero_snr": True,
            },
            "rescale_betas_zero_snr",
        ),
    ],
)
def test_a_word_that_says_nothing_where_it_stands_is_told(config: dict[str, Any], idle: str) -> None:
    with pytest.warns(UserWarning, match=f"says {idle}, which does not go with its prediction_type"):
        read_scheduler(config)


@pytest.mark.parametrize("name", sorted(FLOWS | OF_BETAS - {"DPMSolverSDEScheduler"}))
def test_every_word_of_the_known_schedulers_is_known(name: str, recwarn: pytest.WarningsRecorder) -> None:
    kind = getattr(diffusers, name)
    config = {key: one.default for key, one in signature(kind).parameters.items() if key != "kwargs"}
    unknown = {k for k in config if not k.startswith("_")} - USED - SAMPLERS
    assert not unknown
    schedule, predicts = read_scheduler({**config, "_class_name": name})
    assert (predicts == "flow") == (name in FLOWS) == schedule.name.startswith("flow")
    assert not list(recwarn)


def test_every_scheduler_of_the_library_is_read_or_refused() -> None:
    """A class that is new in diffusers is nobody's linear DDPM."""
    names = [name for name in dir(diffusers) if name.endswith("Scheduler") and "Mixin" not in name]
    assert len(names) > 30
    for name in names:
        if name.removeprefix("Flax") in FLOWS | OF_BETAS:
            read_scheduler({"_class_name": name})
            continue
        with pytest.raises(models.CheckpointError, match=f"{name}, whose noise levels"):
            read_scheduler({"_class_name": name})


def test_a_flow_of_few_steps_is_a_flow() -> None:
    """The levels of the library's own class at its shift are those of the schedule."""
    theirs = diffusers.FlowMatchLCMScheduler(shift=3.0)
    ours, predicts = read_scheduler({**theirs.config, "_class_name": "FlowMatchLCMScheduler"})
    u = torch.arange(1000, 0, -1) / 1000
    assert predicts == "flow"
    told = torch.tensor([ours.from_unit(float(one)) for one in u])
    assert float((1000 * told - theirs.timesteps).abs().max()) < 1e-3


def test_a_file_without_a_class_is_read_with_a_warning(tmp_path: Path) -> None:
    folder = saved(tmp_path, shaken(diffusers.UNet2DModel(**SMALL)))
    (folder / "scheduler_config.json").write_text(json.dumps({"num_train_timesteps": 200}))
    with pytest.warns(UserWarning, match="names no class, and is read as DDPMScheduler's"):
        assert models.load_checkpoint(folder).schedule.last == 199


def test_what_is_given_is_not_said_to_be_taken(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder = saved(tmp_path, shaken(diffusers.UNet2DModel(**SMALL)))
    assert models.load_checkpoint(folder, predicts="v").predicts == "v"
    (told,) = [str(one.message) for one in recwarn if "no scheduler_config.json" in str(one.message)]
    assert "T=1000; give" in told and "epsilon" not in told


@pytest.mark.parametrize(
    ("scheduler", "predicts"),
    [(None, "flow"), ({}, "flow"), ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "eps")],
)
def test_a_flow_goes_with_a_flow_s_levels_alone(tmp_path: Path, scheduler: Any, predicts: Any) -> None:
    folder = saved(tmp_path, shaken(diffusers.UNet2DModel(**SMALL)))
    if scheduler is not None:
        (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(models.CheckpointError, match=f"would predict {predicts} on the schedule"):
        models.load_checkpoint(folder, predicts=predicts)


@pytest.mark.parametrize("size", [[8, 16], []])
def test_what_is_no_square_is_refused(tmp_path: Path, size: list[Any]) -> None:
    folder = saved(tmp_path, shaken(diffusers.UNet2DModel(**SMALL)), diffusers.DDPMScheduler())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "sample_size": size}))
    with pytest.raises(models.CheckpointError, match=r"is no square, .* give sample_size=\d+, say"):
        models.load_checkpoint(folder)
    assert models.load_checkpoint(folder, config={"sample_size": 16}).shape == (3, 16, 16)
    (folder / "config.json").write_text(json.dumps({**config, "sample_size": [8, 8]}))
    assert models.load_checkpoint(folder).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        ("block_out_channels", None, "must be a list of whole numbers, got None"),
        ("block_out_channels", [32, "64"], r"must be a list of whole numbers, got \[32, '64'\]"),
        ("down_block_types", [1, 2], "must be a list of names of blocks"),
        ("up_block_types", {"a": 1}, "must be a list of names of blocks"),
        ("flip_sin_to_cos", "no", "only True or False"),
        ("layers_per_block", "2", "must be a whole number"),
    ],
)
def test_values_of_a_network_that_are_none_are_named(
    tmp_path: Path, word: str, value: Any, says: str
) -> None:
    folder = saved(tmp_path, shaken(diffusers.UNet2DModel(**SMALL)), diffusers.DDPMScheduler())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, word: value}))
    with pytest.raises(models.CheckpointError, match=says):
        models.load_checkpoint(folder)


@pytest.mark.parametrize(
    "given", [{"predicts": "v"}, {"variance": "fixed"}, {"null_label": 3}, {"image_size": 16}]
)
def test_options_that_a_transformer_does_not_take_are_refused(tmp_path: Path, given: dict[str, Any]) -> None:
    torch.manual_seed(1)
    network = shaken(diffusers.DiTTransformer2DModel(**DIT))
    first = network.transformer_blocks[0].norm1.emb
    for block in network.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
    folder = saved(tmp_path, network, diffusers.DDIMScheduler())
    with pytest.raises(models.CheckpointError, match=f"whose weights tell {next(iter(given))}"):
        models.load_checkpoint(folder, **given)


def test_shards_without_a_configuration_are_told_truly(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(models.CheckpointError, match=r"config\.json"):
        models.load_checkpoint(tmp_path)
