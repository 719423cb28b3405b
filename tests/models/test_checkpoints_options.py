"""What callers give to the loader: each wrong thing is one sentence that names it, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.unets import family_checkpoint, golden, image_and_time

import models
from bench import BenchError
from bench.commands.main import main
from bench.plugins.lookup import load_model as load_named
from models import CheckpointError


def sentence(call: Any, *args: Any, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("diffusers", {"attention_head_dim": 0}, "head_channels must be a whole number"),
        ("diffusers", {"norm_eps": "a"}, "norm_eps must be positive"),
        ("diffusers", {"freq_shift": "1"}, "embedding_shift"),
        ("diffusers", {"layers_per_block": 1.5}, "blocks must be a whole number"),
        ("diffusers", {"sample_size": "16"}, "image_size must be a whole number"),
        ("diffusers", {"in_channels": None}, "in_channels must be a whole number"),
        ("openai", {"num_head_channels": 0}, "head_channels must be a whole number"),
        ("openai", {"num_heads": "4"}, "heads must be a whole number"),
        ("openai", {"dropout": float("nan")}, "dropout must lie in"),
        ("pesser", {"ch": 0}, "channels must be a whole number"),
        ("pesser", {"dropout": 1.5}, "dropout must lie in"),
        ("pytorch_ddpm", {"T": 500}, "1000 time steps, so that T=500"),
    ],
)
def test_impossible_arguments_of_a_family_are_named(name: str, change: dict[str, Any], words: str) -> None:
    _, state, config = family_checkpoint(name)
    assert words in sentence(models.load_network, state, {**config, **change})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"T": "x"}, "T must be a whole number of at least 1, got 'x'"),
        ({"T": 0}, "T must be a whole number of at least 1, got 0"),
        ({"T": 10.5}, "T must be a whole number"),
        ({"T": True}, "T must be a whole number"),
        ({"T": 1000, "schedule": "quadratic"}, "unknown schedule 'quadratic'"),
        ({"image_size": "big"}, "image_size must be a whole number"),
        ({"image_size": 15}, "a multiple of 2, got image_size=15"),
        ({"rescale_timesteps": "yes"}, "rescale_timesteps must be true or false"),
        ({"variance": "loud"}, "unknown variance 'loud'"),
        ({"ema": "maybe"}, "ema must be true or false"),
        ({"digest": "abc"}, "no digest"),
        ({"config": "pesser"}, "config must be a mapping"),
    ],
)
def test_impossible_options_are_named(options: dict[str, Any], words: str) -> None:
    _, state, config = family_checkpoint("pesser")
    assert words in sentence(models.load_checkpoint, state, **{"config": config, **options})


def test_a_digest_must_be_one(tmp_path: Path) -> None:
    _, state, config = family_checkpoint("pesser")
    save_file(state, tmp_path / "a.safetensors")
    for digest in ("abc", "md5:", "crc:1"):
        assert "md5:... or sha256:..." in sentence(
            models.load_network, tmp_path / "a.safetensors", config, digest=digest
        )
    assert "no digest to check" in sentence(models.load_network, tmp_path, config, digest="md5:00")


@pytest.mark.parametrize("source", [None, 3, b"model.pt"])
def test_what_is_no_source_is_refused(source: Any) -> None:
    assert type(source).__name__ in sentence(models.load_network, source)


def test_what_a_training_loop_saved_can_be_read_already() -> None:
    network, state, config = family_checkpoint("pesser", seed=2)
    raw = {f"module.{key}": value for key, value in family_checkpoint("pesser", seed=1)[1].items()}
    x, t = image_and_time(network.config)
    with torch.no_grad():
        assert torch.allclose(models.load_network([raw, {}, 1, 2, state], config)(x, t), network(x, t))


@pytest.mark.parametrize("kind", ["int64", "complex64", "sparse", "meta"])
def test_weights_that_are_no_plain_real_numbers_are_refused(kind: str) -> None:
    _, state, config = family_checkpoint("pesser")
    weight = state["conv_in.weight"]
    made = {"sparse": weight.to_sparse(), "meta": weight.to("meta")}
    changed = made[kind] if kind in made else weight.to(getattr(torch, kind))
    assert "conv_in.weight" in sentence(models.load_network, {**state, "conv_in.weight": changed}, config)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["openai", "pytorch_ddpm"])
def test_weights_of_half_precision_with_all_that_is_stored_beside_them(name: str, dtype: torch.dtype) -> None:
    network, state, config = family_checkpoint(name)
    x, t = image_and_time(network.config)
    loaded = models.load_network({key: value.to(dtype) for key, value in state.items()}, config)
    with torch.no_grad():
        want, found = network(x, t), loaded(x, t)
    assert 0 < float((want - found).abs().max()) < 0.1 * float(want.abs().max())


def test_complete_arguments_are_taken_at_their_word() -> None:
    # An absent resblock_updown then means the constructor's False, whatever the weights are of.
    state, _, *_ = golden("guided_diffusion")
    _, other, *_ = golden("improved_diffusion")
    assert "lacks input_blocks.2.0.op.bias" in sentence(models.load_network, state, other)


@pytest.mark.parametrize("name", ["nowhere.pt", "./nowhere", "/nowhere/at/all", "weights.safetensors"])
def test_a_path_that_is_not_there_is_called_a_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchError, match=f"there is no checkpoint at {name}$"):
        load_named(name)


@pytest.mark.parametrize("verb", ["run", "nll"])
def test_both_verbs_ask_for_what_a_file_does_not_say_and_take_it(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, state, _ = family_checkpoint("openai")
    path = tmp_path / "openai.pt"
    torch.save(state, path)
    images = tmp_path / "images.npz"
    np.savez(images, images=np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8))
    data = ["--reference", str(images), "--samplers", "ddim"] if verb == "run" else ["--data", str(images)]
    command = [verb, *data, "--results", str(tmp_path / "r"), "--n", "4", "--steps", "2", "--device", "cpu"]
    given = str(path)
    for missing, option in (
        ("num_heads=4", "num_heads=4"),
        ("image_size=32", "image_size=8"),
        ("T=4000", "T=4000,schedule=cosine"),
        ("rescale_timesteps=true", "rescale_timesteps=true"),
    ):
        assert main([*command, "--model", given]) == 2
        error = capsys.readouterr().err.strip().splitlines()
        assert missing in error[-1] and error[-1].startswith("error: ")
        given += f"{',' if '=' in given else ':'}{option}"
    assert main([*command, "--model", given]) == 0, capsys.readouterr().err
    capsys.readouterr()


def test_an_absent_hub_model_ends_the_command_with_one_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", "--model", "hub:google/ddpm-cifar10-32"],
        cwd=Path(__file__).parents[2],
        env={"PATH": "", "HOME": str(tmp_path), "SAMPLER_BENCH_MODELS": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    for words in ("about 143 MB", str(tmp_path), "sampler-bench fetch google/ddpm-cifar10-32"):
        assert words in done.stderr
