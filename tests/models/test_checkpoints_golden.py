"""Networks of six published code bases, loaded through the public functions, against their own outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.unets import GOLDEN, golden

import models

TOLERANCE = 1e-4


@pytest.mark.parametrize("name", GOLDEN)
def test_state_dict_gives_the_published_output(name: str) -> None:
    state, config, x, t, y = golden(name)
    network = models.load_network(state, config)
    with torch.no_grad():
        assert float((network(x, t) - y).abs().max()) < TOLERANCE


@pytest.mark.parametrize("name", GOLDEN)
def test_file_gives_the_published_output(name: str, tmp_path: Path) -> None:
    state, config, x, t, y = golden(name)
    torch.save(state, tmp_path / "weights.pt")
    save_file(state, tmp_path / "weights.safetensors")
    for file in ("weights.pt", "weights.safetensors"):
        with torch.no_grad():
            assert float((models.load_network(tmp_path / file, config)(x, t) - y).abs().max()) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("pesser", None),
        ("ermongroup", None),
        ("pytorch_ddpm", None),
        ("improved_diffusion", {"num_heads": 4}),
        ("guided_diffusion", {"num_heads": 2, "use_new_attention_order": True}),
    ],
)
def test_options_that_the_weights_show_need_not_be_given(name: str, needed: dict[str, Any] | None) -> None:
    state, _, x, t, y = golden(name)
    network = models.load_network(state, needed)
    with torch.no_grad():
        assert float((network(x, t) - y).abs().max()) < TOLERANCE


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("diffusers", {"attention_head_dim": 8}),
        ("diffusers", {"downsample_padding": 1}),
        ("diffusers", {"flip_sin_to_cos": True}),
        ("diffusers", {"freq_shift": 0}),
        ("improved_diffusion", {"num_heads": 2}),
        ("guided_diffusion", {"use_new_attention_order": False}),
    ],
)
def test_options_without_a_trace_in_the_weights_are_obeyed(name: str, wrong: dict[str, Any]) -> None:
    # Each of these loads without complaint and computes something else, so the tests above can fail.
    state, config, x, t, y = golden(name)
    network = models.load_network(state, {**config, **wrong})
    with torch.no_grad():
        assert float((network(x, t) - y).abs().max()) > 10 * TOLERANCE


def test_the_document_tells_the_differences() -> None:
    text = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
    told = dict(re.findall(r"^\| `(\w+)`.*? \| (\S+e-\d+) \|", text, re.M))
    assert told.keys() == set(GOLDEN)
    for name, difference in told.items():
        state, config, x, t, y = golden(name)
        with torch.no_grad():
            found = float((models.load_network(state, config)(x, t) - y).abs().max())
        assert found < 4 * float(difference)  # the last bits are the machine's


def test_loading_leaves_the_given_weights_alone() -> None:
    state, config, *_ = golden("pesser")
    before = {key: value.clone() for key, value in state.items()}
    network = models.load_network(state, config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert all(torch.equal(state[key], before[key]) for key in before)


def test_splitting_the_golden_learned_variance() -> None:
    state, config, x, t, y = golden("improved_diffusion")
    model = models.load_checkpoint(state, config=config, T=1000, schedule="cosine")
    with torch.no_grad():
        eps, raw, _ = model(x, t)
    assert model.variance == "learned_range"
    assert raw is not None
    assert float((torch.cat([eps, raw], 1) - y).abs().max()) < TOLERANCE
