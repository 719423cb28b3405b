"""Weights as trainers leave them: under prefixes, beside averages and options, in shards."""

import argparse
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.errors import CheckpointError
from models.files import read_checkpoint, unwrapped

STATE = {"conv_in.weight": torch.arange(6.0), "out.bias": torch.ones(2)}
OTHER = {name: weight + 1 for name, weight in STATE.items()}


def under(prefix, state):
    return {prefix + name: weight for name, weight in state.items()}


def equal(found, known):
    return found.keys() == known.keys() and all(torch.equal(found[name], known[name]) for name in known)


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "ema_model.module.",
        "net.",
    ],
)
def test_a_prefix_that_all_names_share_is_taken_off(prefix):
    assert equal(unwrapped(under(prefix, STATE)), STATE)
    kept = {**under("model.", STATE), "head.weight": torch.ones(1)}
    assert equal(unwrapped(kept), kept)


@pytest.mark.parametrize("prefix", ["ema.", "ema_model.", "model_ema."])
def test_averaged_weights_beside_the_raw_ones_come_first(prefix):
    both = {**under("model.", STATE), **under(prefix, OTHER)}
    assert equal(read_checkpoint(both).state, OTHER)
    assert equal(read_checkpoint(both, ema=False).state, STATE)


@pytest.mark.parametrize("name", ["model.pt", "model.pth.tar", "model.ckpt"])
def test_options_and_numbers_beside_the_weights_are_read_as_data(name, tmp_path):
    saved = {
        "state_dict": STATE,
        "args": argparse.Namespace(lr=1e-3, name="run"),
        "best": np.float64(3.17),
        "step": np.int64(7),
    }
    torch.save(saved, tmp_path / name)
    with pytest.warns(UserWarning, match="no averaged"):
        assert equal(read_checkpoint(tmp_path / name).state, STATE)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_code_is_refused_still(tmp_path):
    torch.save({"state_dict": STATE, "evil": Evil()}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="holds code or objects besides weights"):
        read_checkpoint(tmp_path / "model.pt")


def test_a_folder_of_shards_is_one_network(tmp_path):
    names = sorted(STATE)
    files = [f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name, file in zip(names, files, strict=True):
        save_file({name: STATE[name]}, tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    index = tmp_path / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(names, files, strict=True))}))
    assert equal(read_checkpoint(tmp_path).state, STATE)
    index.write_text(json.dumps({"weight_map": {**dict(zip(names, files, strict=True)), "more": files[0]}}))
    with pytest.raises(CheckpointError, match="lists more, which its files do not hold"):
        read_checkpoint(tmp_path)


LIST = list(OTHER.values())


@pytest.mark.parametrize(
    "kept",
    [
        {"ema": {"decay": 0.999, "shadow": OTHER}},
        {"ema": {"shadow_params": LIST}},
        {"ema_params": OTHER},
        {"ema_weights": LIST},
        {"averaged_model": OTHER},
        {"swa_model": under("module.", OTHER)},
        {"shadow_params": LIST},
        {"callbacks": {"EMACallback": {"every": 1, "ema_state_dict": OTHER}}},
        {"state_dict": {**under("model.", STATE), **under("ema_model.", OTHER)}},
    ],
)
def test_averages_are_found_wherever_a_training_loop_keeps_them(kept, recwarn):
    saved = {"model": STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}, **kept}
    if "state_dict" in kept:
        del saved["model"]
    found = read_checkpoint(saved)
    assert found.averaged is True and equal(found.state, OTHER)
    assert equal(read_checkpoint(saved, ema=False).state, STATE)
    assert not list(recwarn)


def test_buffers_that_an_average_leaves_out_are_the_raw_ones():
    averaged = {"module.conv_in.weight": OTHER["conv_in.weight"]}
    found = read_checkpoint({"model": STATE, "ema": {"decay": torch.tensor(0.999), "shadow": averaged}})
    assert equal(found.state, {**STATE, "conv_in.weight": OTHER["conv_in.weight"]})


def test_what_is_no_average_is_none():
    saved = {"model": STATE, "ema": {"decay": torch.tensor(0.99)}, "optimizer": {"exp_avg": STATE}}
    with pytest.warns(UserWarning, match="holds no averaged"):
        assert equal(read_checkpoint(saved).state, STATE)
    with pytest.raises(CheckpointError, match=r"list of 1 \(ema_list\) for 2 names"):
        read_checkpoint({"model": STATE, "ema_list": LIST[:1]})


def folder_of(tmp_path, shards, suffix):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    index = tmp_path / f"diffusion_pytorch_model{suffix}.index.json"
    names = {name: f"part-{place}{suffix}" for place, name in enumerate(sorted(STATE))}
    index.write_text(json.dumps({"weight_map": names}))
    for name, file in list(names.items())[:shards]:
        held = {name: STATE[name]}
        save_file(held, tmp_path / file) if suffix == ".safetensors" else torch.save(held, tmp_path / file)
    return index


def test_shards_of_bin_are_one_network(tmp_path):
    index = folder_of(tmp_path, 2, ".bin")
    assert equal(read_checkpoint(tmp_path).state, STATE)
    torch.save([1], tmp_path / "part-0.bin")
    with pytest.raises(CheckpointError, match=r"part-0\.bin holds no state dict"):
        read_checkpoint(tmp_path)
    index.write_text(json.dumps({"weight_map": {}}))
    with pytest.raises(CheckpointError, match="lists no weights"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_a_shard_that_is_gone_is_named(tmp_path, suffix):
    folder_of(tmp_path, 1, suffix)
    with pytest.raises(CheckpointError, match=f"lists part-1{suffix}, which is not beside it"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_several_variants_are_named(tmp_path, suffix):
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    for variant in ("fp16", "non_ema"):
        path = tmp_path / f"diffusion_pytorch_model.{variant}{suffix}"
        save_file(STATE, path) if suffix == ".safetensors" else torch.save(STATE, path)
    with pytest.raises(CheckpointError, match=r"several networks' weights \(.*fp16.*, .*non_ema"):
        read_checkpoint(tmp_path)
    save_file(OTHER, tmp_path / "diffusion_pytorch_model.safetensors")
    assert equal(read_checkpoint(tmp_path).state, OTHER)
