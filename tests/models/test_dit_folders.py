"""Folders of diffusers' DiT: every word of their files is honoured or refused, and every weight is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bench
import models
from bench import ConditionalModel, guided

diffusers = pytest.importorskip("diffusers")

SMALL = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 2,
    "sample_size": 4,
    "patch_size": 2,
    "num_embeds_ada_norm": 5,
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def made(folder: Path, scheduler: Any = None, **words: Any) -> Any:
    """Save a network whose blocks hold one embedding, as in a published file, and return it."""
    torch.manual_seed(2)
    network = diffusers.DiTTransformer2DModel(**{**SMALL, **words}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    for block in network.transformer_blocks:
        block.norm1.emb.load_state_dict(network.transformer_blocks[0].norm1.emb.state_dict())
    network.save_pretrained(folder)
    if scheduler is not None:
        scheduler.save_pretrained(folder)
    return network


def loaded(folder: Path, **options: Any) -> ConditionalModel:
    model = models.load_checkpoint(folder, **options)
    assert isinstance(model, ConditionalModel)
    return model


def test_a_flow_is_walked_as_the_library_walks_it(tmp_path: Path) -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    network = made(tmp_path, scheduler)
    label, x = torch.tensor([0, 3]), torch.randn(2, 4, 4, 4)
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2])
    wanted = x
    with torch.no_grad():
        for t in scheduler.timesteps:
            velocity = network(wanted, timestep=t.expand(2), class_labels=label).sample
            wanted = scheduler.step(velocity, t, wanted).prev_sample
        model = guided(loaded(tmp_path).network, label)
        grid = bench.make_grid(model.schedule, 5, "uniform")
        got = bench.sample(model, bench.get_sampler("ddim"), grid, x, lambda index: torch.zeros_like(x))
    assert float((got - wanted).abs().max()) < 1e-3
    with pytest.raises(models.CheckpointError, match="would predict flow on the schedule linear"):
        loaded(tmp_path, schedule="linear")


def test_what_is_given_leaves_the_rest_of_the_scheduler(tmp_path: Path) -> None:
    scheduler = diffusers.DDIMScheduler(
        prediction_type="v_prediction", beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    made(tmp_path, scheduler)
    told = loaded(tmp_path, T=1000)
    assert told.network.predicts == "v"
    assert told.schedule.alpha_bar(999) == pytest.approx(float(scheduler.alphas_cumprod[-1]), rel=1e-3)
    assert loaded(tmp_path, schedule="linear").network.predicts == "v"
    with pytest.raises(models.CheckpointError, match="T=500 contradicts the schedule, which has 1000"):
        loaded(tmp_path, T=500)


def test_a_folder_without_a_scheduler_says_what_is_taken(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    made(tmp_path)
    loaded(tmp_path, schedule="linear")
    assert not [one for one in recwarn if "tells its diffusion" in str(one.message)]
    with pytest.warns(UserWarning, match="no scheduler_config.json tells its diffusion"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("word", "value", "says"),
    [
        (
            "activation_fn",
            "geglu-approximate",
            "activation_fn='geglu-approximate' .* only 'gelu-approximate'",
        ),
        ("attention_bias", False, "attention_bias=False .* only True"),
        ("norm_elementwise_affine", True, "norm_elementwise_affine=True .* only False"),
        ("norm_type", "layer_norm", "norm_type='layer_norm'"),
        ("upcast_attention", True, "upcast_attention=True"),
        ("norm_eps", "small", "norm_eps .* must be a positive number, got 'small'"),
        ("num_layers", None, "num_layers .* must be a whole number of at least 1, got None"),
        ("num_layers", 3, r"lacks transformer_blocks\.2\."),
        ("num_layers", 1, r"has, beyond what its configuration asks for, transformer_blocks\.1\."),
        ("num_attention_heads", 4, "has shape .* where its configuration asks for"),
        ("in_channels", 3, r"pos_embed\.proj\.weight .* has shape"),
        ("out_channels", 8, r"proj_out_2\.weight .* has shape"),
        ("patch_size", 1, r"pos_embed\.proj\.weight .* has shape"),
        ("num_embeds_ada_norm", 7, "embedding_table.weight .* has shape"),
        ("sample_size", 5, "sample_size=5 .* is no multiple of patch_size=2"),
        ("caption_channels", 8, "takes no 'caption_channels'"),
    ],
)
def test_words_that_are_not_those_of_the_network_are_refused(
    tmp_path: Path, word: str, value: Any, says: str
) -> None:
    made(tmp_path, diffusers.DDIMScheduler())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, word: value}))
    with pytest.raises(models.CheckpointError, match=says):
        loaded(tmp_path)


@pytest.mark.parametrize(("kind", "wanted"), [("learned", "learned"), ("fixed_small", "learned_range")])
def test_the_meaning_of_doubled_channels_is_read(tmp_path: Path, kind: str, wanted: str) -> None:
    made(tmp_path, diffusers.DDPMScheduler(variance_type=kind), out_channels=8)
    assert loaded(tmp_path).variance == wanted
    made(tmp_path, out_channels=6)
    with pytest.raises(models.CheckpointError, match="has 6 output channels for 4 input channels"):
        loaded(tmp_path)


def test_no_weight_may_be_absent_left_over_or_damaged(tmp_path: Path) -> None:
    made(tmp_path, diffusers.DDIMScheduler())
    whole = load_file(tmp_path / WEIGHTS)

    def says(weights: dict[str, torch.Tensor]) -> str:
        save_file(weights, tmp_path / WEIGHTS)
        with pytest.raises(models.CheckpointError) as told:
            loaded(tmp_path)
        return str(told.value)

    for name in sorted(
        whole.keys() - {"proj_out_1.weight", "proj_out_2.weight"}
    ):  # which tell that it is one
        assert f"lacks {name}:" in says({key: value for key, value in whole.items() if key != name})
    assert "beyond what its configuration asks for, more.weight:" in says(
        {**whole, "more.weight": torch.ones(2)}
    )
    assert "proj_out_2.bias of this diffusers checkpoint holds NaN" in says(
        {**whole, "proj_out_2.bias": whole["proj_out_2.bias"] * float("nan")}
    )
    with pytest.raises(models.CheckpointError, match=r"without its config\.json"):
        models.load_checkpoint(whole)
