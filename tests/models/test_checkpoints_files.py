"""Containers that training loops write, and files that are wrong: read safely, or refused in one sentence."""

from __future__ import annotations

import json
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.unets import CONFIGS, family_checkpoint, image_and_time
from torch import Tensor, nn

import models
from models import CheckpointError, UNet
from models.files import check_digest

State = dict[str, Tensor]


def same(a: UNet, b: UNet) -> bool:
    x, t = image_and_time(a.config)
    with torch.no_grad():
        return torch.allclose(a(x, t), b(x, t), atol=1e-5)


def prefixed(state: State) -> State:
    return {f"module.{key}": value for key, value in state.items()}


def refused(source: Any, *words: str, config: dict[str, Any] | None = None, **options: Any) -> str:
    """Load what must not load, and return the sentence that says so."""
    with pytest.raises(CheckpointError) as caught:
        models.load_network(source, config, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence
    return sentence


@pytest.mark.parametrize("name", CONFIGS)
def test_families_are_told_by_their_keys(name: str) -> None:
    network, state, config = family_checkpoint(name)
    assert same(models.load_network(state, config), network)


def test_averaged_weights_of_ermongroup_lists_are_the_default(tmp_path: Path) -> None:
    raw, raw_state, config = family_checkpoint("pesser", seed=1)
    ema, ema_state, _ = family_checkpoint("pesser", seed=2)
    optimiser = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 2e-4}]}
    torch.save([prefixed(raw_state), optimiser, 3, 1000, ema_state], tmp_path / "ckpt.pth")
    assert same(models.load_network(tmp_path / "ckpt.pth", config), ema)
    assert same(models.load_network(tmp_path / "ckpt.pth", config, ema=False), raw)


def test_a_list_without_averaged_weights_is_loaded_with_a_warning(tmp_path: Path) -> None:
    raw, raw_state, config = family_checkpoint("pesser")
    torch.save([prefixed(raw_state), {}, 3, 1000], tmp_path / "ckpt.pth")
    with pytest.warns(UserWarning, match="EMA"):
        assert same(models.load_network(tmp_path / "ckpt.pth", config), raw)
    refused(tmp_path / "ckpt.pth", "averaged", config=config, ema=True)


def test_averaged_weights_of_pytorch_ddpm_dicts_are_the_default(tmp_path: Path) -> None:
    raw, raw_state, config = family_checkpoint("pytorch_ddpm", seed=1)
    ema, ema_state, _ = family_checkpoint("pytorch_ddpm", seed=2)
    sched = {"base_lrs": [2e-4], "last_epoch": 5000, "lr_lambdas": [None]}
    saved = {"net_model": raw_state, "ema_model": ema_state, "sched": sched, "optim": {}, "step": 5000}
    torch.save({**saved, "x_T": torch.zeros(2)}, tmp_path / "ckpt.pt")
    assert same(models.load_network(tmp_path / "ckpt.pt", config), ema)
    assert same(models.load_network(tmp_path / "ckpt.pt", config, ema=False), raw)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("layout", ["flat", "pipeline", "anonymous"])
def test_diffusers_folders(tmp_path: Path, suffix: str, layout: str) -> None:
    network, state, config = family_checkpoint("diffusers")
    folder = tmp_path / "unet" if layout == "pipeline" else tmp_path
    folder.mkdir(exist_ok=True)
    named = {} if layout == "anonymous" else {"_class_name": "UNet2DModel", "_diffusers_version": "0.30.0"}
    (folder / "config.json").write_text(json.dumps({**named, **config}))
    weights = folder / f"diffusion_pytorch_model.{suffix}"
    save_file(state, weights) if suffix == "safetensors" else torch.save(state, weights)
    assert same(models.load_network(tmp_path), network)
    assert same(models.load_network(weights), network)


def test_averaged_folder_of_a_diffusers_training_is_the_default(tmp_path: Path) -> None:
    networks = {}
    for seed, name in enumerate(("unet", "unet_ema")):
        networks[name], state, config = family_checkpoint("diffusers", seed)
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **config}))
        save_file(state, tmp_path / name / "diffusion_pytorch_model.safetensors")
    assert same(models.load_network(tmp_path), networks["unet_ema"])
    assert same(models.load_network(tmp_path, ema=False), networks["unet"])


def test_old_attention_names_of_diffusers_files(tmp_path: Path) -> None:
    network, state, config = family_checkpoint("diffusers")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for key, value in state.items():
        for new, name in old.items():
            key = key.replace(f".{new}.", f".{name}.")
        renamed[key] = value
    assert renamed.keys() != state.keys()
    assert same(models.load_network(renamed, config), network)


def test_half_precision_weights_become_float32(tmp_path: Path) -> None:
    network, state, config = family_checkpoint("openai")
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    loaded = models.load_network(tmp_path / "half.safetensors", config)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    difference = (loaded.conv_in.weight - network.conv_in.weight).abs().max()
    assert 0 < float(difference.detach()) < 1e-3


class Malice:
    """Runs a command when unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("suffix", ["pt", "pth", "ckpt", "bin"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, suffix: str, legacy: bool) -> None:
    proof = tmp_path / "proof"
    _, state, config = family_checkpoint("pesser")
    file = tmp_path / f"model.{suffix}"
    malice = {**state, "conv_in.bias": Malice(f"touch {proof}")}
    torch.save(malice, file, _use_new_zipfile_serialization=not legacy)
    refused(file, "none of it was run", config=config)
    assert not proof.exists()
    torch.load(file, weights_only=False)  # the file is a real attack on whoever trusts it
    assert proof.exists()


def test_code_in_a_bare_pickle_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Malice(f"touch {proof}")))
    refused(tmp_path / "model.pt")
    assert not proof.exists()


def test_a_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    refused(tmp_path / "model.pt", "torch.nn.modules.linear.Linear", "state dict")


def test_code_in_a_diffusers_folder_is_not_run(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    config = {"_class_name": "UNet2DModel", **CONFIGS["diffusers"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save({"conv_in.weight": Malice(f"touch {proof}")}, tmp_path / "diffusion_pytorch_model.bin")
    refused(tmp_path, "none of it was run")
    assert not proof.exists()


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files_are_refused(tmp_path: Path, kind: str, keep: float) -> None:
    _, state, config = family_checkpoint("pesser")
    file = tmp_path / ("m.safetensors" if kind == "safetensors" else "m.pt")
    if kind == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=kind == "zip")
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole))])
    refused(file, "damaged", config=config)


@pytest.mark.parametrize("content", [b"", b"<html>404 not found</html>", bytes(range(256)) * 40])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_other_files_are_refused(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"m.{suffix}").write_bytes(content)
    refused(tmp_path / f"m.{suffix}", "damaged")


def test_a_zip_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    refused(tmp_path / "m.pt", "damaged")


def test_files_of_another_kind_and_missing_ones_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(b"x")
    refused(tmp_path / "m.h5", ".safetensors")
    refused(tmp_path / "nothing.pt", "there is no checkpoint at", "nothing.pt")
    refused(tmp_path, "config.json")


@pytest.mark.parametrize(
    "value", [[], {}, 3, "text", {"a": 1}, [1, 2, 3, 4, 5], {"x": {"y": torch.zeros(1)}}]
)
def test_pickles_without_weights_are_refused(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "m.pt")
    refused(tmp_path / "m.pt", "no state dict")


def test_weights_of_something_else_are_refused() -> None:
    refused(nn.Linear(2, 2).state_dict(), "not the weights of a known network", "pesser")


@pytest.mark.parametrize("name", CONFIGS)
def test_missing_extra_and_misshapen_weights_are_refused(name: str) -> None:
    _, state, config = family_checkpoint(name)
    for key in (sorted(state)[0], sorted(state)[len(state) // 2], sorted(state)[-1]):
        refused({k: v for k, v in state.items() if k != key}, key, config=config)
        refused({**state, key: torch.zeros(7)}, key, config=config)
        refused({**state, key: torch.full_like(state[key], torch.nan)}, key, config=config)
    refused({**state, "extra.weight": torch.zeros(1)}, "extra.weight", config=config)


@pytest.mark.parametrize(
    ("name", "change", "word"),
    [
        ("pesser", {"num_res_blocks": 2}, "down.0.block.1"),
        ("pesser", {"ch_mult": (1, 3)}, "shape"),
        ("pesser", {"attn_resolutions": ()}, "attn"),
        ("openai", {"attention_resolutions": (1, 2)}, "input_blocks.1.1"),
        ("openai", {"use_scale_shift_norm": False}, "emb_layers"),
        ("pytorch_ddpm", {"ch": 64}, "shape"),
        ("diffusers", {"layers_per_block": 2}, "resnets.1"),
        ("diffusers", {"norm_num_groups": 24}, "groups"),
        ("diffusers", {"act_fn": "gelu"}, "act_fn"),
        ("diffusers", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("diffusers", {"down_block_types": ["SkipDownBlock2D", "AttnDownBlock2D"]}, "SkipDownBlock2D"),
        ("diffusers", {"center_input_sample": True}, "center_input_sample"),
        ("openai", {"num_classes": 1000}, "lacks label_emb.weight"),
        ("openai", {"num_head": 2}, "num_heads"),
        ("pesser", {"ch": "wide"}, "configuration"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(name: str, change: dict[str, Any], word: str) -> None:
    _, state, config = family_checkpoint(name)
    refused(state, word, config={**config, **change})


def test_what_the_weights_cannot_tell_is_asked_for() -> None:
    refused(family_checkpoint("openai")[1], "attention heads", "num_heads")
    refused(family_checkpoint("diffusers")[1], "config.json")


def test_labels_that_a_configuration_denies_are_refused() -> None:
    _, state, config = family_checkpoint("openai")
    labels = {**state, "label_emb.weight": torch.zeros(10, 128)}
    refused(labels, "beyond what its configuration asks for, label_emb.weight", config=config)


def test_averaged_weights_listed_without_names_are_found(tmp_path: Path) -> None:
    _, raw_state, config = family_checkpoint("pesser", seed=1)
    ema, ema_state, _ = family_checkpoint("pesser", seed=2)
    average = {"decay": 0.999, "num_updates": 10, "shadow_params": list(ema_state.values())}
    saved = {"model": raw_state, "ema": average, "step": 10}
    torch.save(saved, tmp_path / "ckpt.pth")
    assert same(models.load_network(tmp_path / "ckpt.pth", config), ema)
    given = {"config": config, "image_size": 8, "schedule": "linear", "T": 1000}
    assert models.load_checkpoint(tmp_path / "ckpt.pth", **given).averaged is True
    assert models.load_checkpoint(tmp_path / "ckpt.pth", ema=False, **given).averaged is False
    assert models.load_checkpoint(raw_state, **given).averaged is None
    torch.save(
        {**saved, "ema": {**average, "shadow_params": average["shadow_params"][1:]}}, tmp_path / "b.pth"
    )
    refused(tmp_path / "b.pth", "shadow_params", "ema=false", config=config)
    models.load_network(tmp_path / "b.pth", config, ema=False)


def test_the_average_of_denoising_diffusion_pytorch_is_found(tmp_path: Path) -> None:
    raw, state, config = family_checkpoint("pesser", seed=1)
    ema, averaged, _ = family_checkpoint("pesser", seed=2)
    tables = {"betas": torch.zeros(10), "sqrt_alphas_cumprod": torch.zeros(10)}

    def diffusion(weights: dict[str, torch.Tensor], before: str = "") -> dict[str, torch.Tensor]:
        held = {**tables, **{f"model.{key}": value for key, value in weights.items()}}
        return {before + key: value for key, value in held.items()}

    both = {**diffusion(state, "online_model."), **diffusion(averaged, "ema_model.")}
    both |= {"initted": torch.tensor(True), "step": torch.tensor(7)}
    torch.save({"step": 7, "model": diffusion(state), "opt": {}, "ema": both}, tmp_path / "model-1.pt")
    assert same(models.load_network(tmp_path / "model-1.pt", config), ema)
    assert same(models.load_network(tmp_path / "model-1.pt", config, ema=False), raw)
    own = {"init_conv.weight": torch.zeros(8, 3, 7, 7)}
    torch.save(
        {"step": 7, "model": diffusion(own), "opt": {}, "ema": diffusion(own, "ema_model.")},
        tmp_path / "b.pt",
    )
    refused(tmp_path / "b.pt", "denoising-diffusion-pytorch", "FILE.py:FUNCTION")


def test_weights_without_their_configuration_are_called_that(tmp_path: Path) -> None:
    _, state, _ = family_checkpoint("diffusers")
    save_file(state, tmp_path / "diffusion_pytorch_model-00001-of-00002.safetensors")
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    sentence = refused(tmp_path, "config.json", "holds weights")
    assert "needs" not in sentence


def test_a_table_that_is_no_embedding_is_refused() -> None:
    _, state, config = family_checkpoint("pytorch_ddpm")
    table = "time_embedding.timembedding.0.weight"
    refused({**state, table: state[table] * 1.01}, "sinusoidal", config=config)


@pytest.mark.parametrize("text", ["{", "[]", '{"_class_name": "UNet2DConditionModel"}'])
def test_damaged_or_foreign_configurations_are_refused(tmp_path: Path, text: str) -> None:
    save_file(family_checkpoint("diffusers")[1], tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(text)
    refused(tmp_path, "config.json")


def test_digests_are_checked(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    check_digest(tmp_path / "f", "md5:900150983cd24fb0d6963f7d28e17f72")  # RFC 1321, appendix A.5
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    check_digest(tmp_path / "f", f"sha256:{known}")
    with pytest.raises(CheckpointError, match="damaged or another file"):
        check_digest(tmp_path / "f", "md5:900150983cd24fb0d6963f7d28e17f73")
    _, state, config = family_checkpoint("pesser")
    save_file(state, tmp_path / "m.safetensors")
    refused(tmp_path / "m.safetensors", "sha256", config=config, digest=f"sha256:{known}")


def test_nothing_is_loaded_in_part() -> None:
    # The network is made only once every weight has been checked: an error leaves nothing behind to use.
    _, state, config = family_checkpoint("pesser")
    made = []
    original = UNet.load_state_dict

    def spy(self: UNet, *args: Any, **kwargs: Any) -> Any:
        made.append(self)
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(UNet, "load_state_dict", spy)
        refused({**state, "conv_out.bias": torch.full((3,), torch.inf)}, "conv_out.bias", config=config)
        assert made == []
        models.load_network(state, config)
        assert len(made) == 1
