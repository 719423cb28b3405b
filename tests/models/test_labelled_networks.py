"""Class-conditional networks, DiT and EDM's, against the outputs of their own code.

The published code was run once on weights made by a formula; the same weights are made here.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.commands import bench as run_bench
from torch import Tensor

import bench
import models
from bench import ConditionalModel
from models.dit import position_table
from models.epsilon import EpsilonNetwork

GOLDEN = Path(__file__).parents[1] / "golden" / "labelled"
CASES: dict[str, dict[str, Any]] = json.loads((GOLDEN / "cases.json").read_text())
OUTPUTS = np.load(GOLDEN / "outputs.npz")
TOLERANCE = 1e-5


def weights(name: str) -> dict[str, Tensor]:
    """0.1 sin(0.37 k + n) for element k of weight number n; 1 more for the weight of a norm."""
    case, state = CASES[name], {}
    for number, (key, shape) in enumerate(sorted(case["shapes"].items())):
        k = torch.arange(math.prod(shape), dtype=torch.float64)
        state[key] = (0.1 * torch.sin(0.37 * k + number)).view(shape).float()
        if len(shape) == 1 and key.endswith("weight"):
            state[key] += 1
        if key.endswith("resample_filter"):
            taps = torch.tensor(case["config"].get("resample_filter", [1, 1])).float()
            state[key] = (taps.outer(taps) / taps.sum() ** 2)[None, None]
        if key.endswith("freqs"):
            state[key] = torch.from_numpy(OUTPUTS[f"{name}_freqs"])
        if key == "pos_embed":
            state[key] = position_table(shape[2], round(shape[1] ** 0.5))
    return state


def inputs(name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    case = CASES[name]
    channels, side = case["x"]
    k = torch.arange(2 * channels * side * side, dtype=torch.float64)
    label = None if case["label"] is None else torch.tensor(case["label"])
    return torch.cos(0.11 * k).view(2, channels, side, side).float(), torch.tensor(case["t"]), label


def error(found: Tensor, name: str) -> float:
    return float((found.detach() - torch.from_numpy(OUTPUTS[name])).abs().max())


def network_of(model: Any) -> Any:
    return model.network.network if isinstance(model, ConditionalModel) else model.network


def loaded(name: str, tmp_path: Path, **options: Any) -> Any:
    torch.save({f"model.{key}": weight for key, weight in weights(name).items()}, tmp_path / "net.pt")
    return models.load_checkpoint(tmp_path / "net.pt", **options)


DIFFUSION = {"T": 1000, "schedule": "linear", "rescale_timesteps": False, "variance": "learned_range"}


def test_label_emb_of_guided_diffusion(tmp_path: Path) -> None:
    name = "guided_diffusion_labels"
    model = loaded(name, tmp_path, config={"num_heads": 4}, image_size=8, **DIFFUSION)
    assert isinstance(model, ConditionalModel)
    x, t, label = inputs(name)
    assert error(network_of(model)(x, t, label), name) < TOLERANCE
    assert model.network.classes == 5
    with pytest.raises(bench.UsageError, match="knows no label for none"):
        model.with_options({"guidance": "2"})
    told = loaded(name, tmp_path, config={"num_heads": 4}, image_size=8, null_label=4, **DIFFUSION)
    assert told.network.classes == 4
    assert told.with_options({"guidance": "2"}).guidance == 2


def test_one_number_stands_for_a_list_of_it(tmp_path: Path) -> None:
    name = "guided_diffusion_labels"
    given = {"num_heads": 4, "attention_resolutions": 2}
    model = loaded(name, tmp_path, config=given, image_size=8, **DIFFUSION)
    x, t, label = inputs(name)
    assert error(network_of(model)(x, t, label), name) < TOLERANCE


def test_a_null_label_in_the_middle_is_asked_for_none(tmp_path: Path) -> None:
    name = "guided_diffusion_labels"
    model = loaded(name, tmp_path, config={"num_heads": 4}, image_size=8, null_label=2, **DIFFUSION)
    x, t, _ = inputs(name)
    none, two = (model.network(x, t.long(), torch.full((2,), label)).eps for label in (5, 2))
    assert torch.equal(none, two)


def test_dit_under_its_published_names(tmp_path: Path) -> None:
    model = loaded("dit", tmp_path, config={"num_heads": 4})
    x, t, label = inputs("dit")
    assert error(network_of(model)(x, t, label), "dit") < TOLERANCE
    assert (model.shape, model.variance, model.network.classes) == ((4, 8, 8), "learned_range", 5)
    with pytest.raises(models.CheckpointError, match="give num_heads="):
        loaded("dit", tmp_path)
    with pytest.raises(models.CheckpointError, match="takes no 'depth'; known: num_heads"):
        loaded("dit", tmp_path, config={"depth": 2})
    with pytest.raises(models.CheckpointError, match="do not split into 7 heads"):
        loaded("dit", tmp_path, config={"num_heads": 7})
    with pytest.raises(models.CheckpointError, match="T=500 contradicts the schedule"):
        loaded("dit", tmp_path, config={"num_heads": 4}, T=500)
    (tmp_path / "config.json").write_text('{"_class_name": "DiTTransformer2DModel", "num_layers": 2}')
    with pytest.raises(models.CheckpointError, match=r"config\.json beside it is of diffusers' class"):
        loaded("dit", tmp_path, config={"num_heads": 4})


@pytest.mark.parametrize("name", ["edm_ddpmpp", "edm_ncsnpp", "edm_adm"])
def test_networks_of_edm(name: str, tmp_path: Path) -> None:
    model = loaded(name, tmp_path)
    assert isinstance(model, EpsilonNetwork if CASES[name]["label"] is None else ConditionalModel)
    x, noise, label = inputs(name)
    denoiser = network_of(model)
    exact = copy.deepcopy(denoiser.inner).double()  # in float32 the processor's rounding reaches the bound
    assert error(exact(x.double(), noise.double(), label), name) < TOLERANCE
    assert model.shape == (3, 8, 8)
    grid = bench.make_grid(model.schedule, 4, "edm:rho=7")
    bound = model.at(range(2), 0) if isinstance(model, ConditionalModel) else model
    end = bench.sample(bound, bench.get_sampler("ddim"), grid, x, lambda index, draw=0: x)
    assert torch.isfinite(end).all()
    with pytest.raises(models.CheckpointError, match="levels sigma and no T"):
        loaded(name, tmp_path, T=1000)
    with pytest.raises(models.CheckpointError, match="sigma_data must be a positive number, got 'half'"):
        loaded(name, tmp_path, config={"sigma_data": "half"})
    with pytest.raises(models.CheckpointError, match="precond must be one of"):
        loaded(name, tmp_path, config={"precond": "vpx"})


OPTIONAL = {"map_augment.weight", "edm_adm map_label.weight"}
"""Weights without which the others are those of another network of the paper."""


@pytest.mark.parametrize("name", ["dit", "edm_ddpmpp", "edm_ncsnpp", "edm_adm"])
def test_nothing_is_half_loaded(name: str) -> None:
    whole = weights(name)
    options: dict[str, Any] = {"config": {"num_heads": 4}} if name == "dit" else {}

    def says(state: dict[str, Tensor]) -> str:
        with pytest.raises(models.CheckpointError) as told:
            models.load_checkpoint(state, **options)
        return str(told.value)

    for key in whole:
        if not {key, f"{name} {key}"} & OPTIONAL:
            said = says({other: weight for other, weight in whole.items() if other != key})
            assert f"lacks {key}:" in said or "not the weights of a known network" in said
    for module in {".".join(key.split(".")[:2]) for key in whole if key.startswith(("enc.", "dec."))}:
        assert "lacks " in says({key: w for key, w in whole.items() if not key.startswith(f"{module}.")})
    key = "blocks.1.mlp.fc2.bias" if name == "dit" else "enc.4x4_block0.affine.bias"
    assert f"{key} of this" in says({**whole, key: whole[key] * math.nan})
    assert f"{key} of this" in says({**whole, key: whole[key][1:]})
    assert "beyond what its other weights ask for, more.weight:" in says({**whole, "more.weight": whole[key]})


def test_the_variance_of_iddpm_is_left_out(tmp_path: Path) -> None:
    alone = loaded("edm_adm", tmp_path, config={"precond": "iddpm"})
    state = weights("edm_adm")
    for part in ("weight", "bias"):
        key = next(key for key in state if key.endswith(f"out_conv.{part}"))
        state[key] = torch.cat([state[key], 1 + state[key]])
    whole = {"u": torch.zeros(1001), **{f"model.{key}": weight for key, weight in state.items()}}
    torch.save(whole, tmp_path / "doubled.pt")
    doubled = models.load_checkpoint(tmp_path / "doubled.pt", config={"precond": "iddpm"})
    y, sigma, label = inputs("edm_adm")
    sigma = torch.full((len(y),), 1.0, dtype=torch.float64)
    with torch.no_grad():
        told = [
            network_of(model)(y, sigma, *([] if label is None else [label])) for model in (alone, doubled)
        ]
    assert torch.equal(*told)


@pytest.mark.parametrize(("kind", "low"), [("edm", 0.002), ("vp", 0.002), ("ve", 0.02), ("iddpm", 0.0064)])
def test_levels_end_where_those_of_the_preconditioning_do(kind: str, low: float, tmp_path: Path) -> None:
    schedule = loaded("edm_adm", tmp_path, config={"precond": kind}).schedule
    assert schedule.first == pytest.approx(low, rel=0.05)


def test_no_label_of_edm_is_a_vector_of_zeros(tmp_path: Path) -> None:
    model = loaded("edm_ddpmpp", tmp_path)
    x, noise, _ = inputs("edm_ddpmpp")
    inner = network_of(model).inner
    assert torch.equal(inner(x, noise, torch.full((2,), 5)), inner(x, noise, None))


def test_what_the_weights_do_not_tell_is_in_the_fingerprint(tmp_path: Path) -> None:
    kinds = {}
    for kind in ("edm", "vp", "ve", "iddpm"):
        kinds[kind] = loaded("edm_ncsnpp", tmp_path, config={"precond": kind}).fingerprint
    assert len(set(kinds.values())) == 4


def test_heads_are_in_the_fingerprint(tmp_path: Path) -> None:
    name = "guided_diffusion_labels"
    found = {
        loaded(name, tmp_path, config={"num_heads": heads}, image_size=8, **DIFFUSION).fingerprint
        for heads in (2, 4)
    }
    found |= {loaded("dit", tmp_path, config={"num_heads": heads}).fingerprint for heads in (2, 4)}
    assert len(found) == 4


def test_pickles_that_carry_code_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "edm.pkl"
    path.write_bytes(pickle.dumps({"ema": 1}))
    with pytest.raises(models.CheckpointError, match=r"docs/networks\.md"):
        models.load_checkpoint(path)


def test_a_class_conditional_checkpoint_is_swept_under_guidance(tmp_path: Path) -> None:
    torch.save(weights("edm_ddpmpp"), tmp_path / "net.pt")
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    done = run_bench(
        *("run", "--model", f"{tmp_path}/net.pt:label=balanced", "--guidance", "1", "2"),
        *("--samplers", "ddim", "--steps", "3", "--n", "8", "--reference", tmp_path / "images.npz"),
        *("--spacing", "edm:rho=7", "--results", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr
    rows = bench.load_results(tmp_path / "results")
    assert sorted(rows[rows.kind == "samples"].evaluations) == [3, 6]


def test_two_conditional_models_have_two_hashes() -> None:
    from bench.plugins.lookup import weights_hash

    class Net(torch.nn.Module):
        schedule, shape, variance = bench.NoiseSchedule.linear(), (1, 2, 2), "fixed"
        prediction, classes = "eps", 3

        def __init__(self, value: float) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.full((2,), value))

        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> bench.Prediction:
            return bench.Prediction(self.weight[0] * x)

    assert weights_hash(ConditionalModel(Net(0.1))) != weights_hash(ConditionalModel(Net(0.2)))
