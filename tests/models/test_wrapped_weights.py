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
