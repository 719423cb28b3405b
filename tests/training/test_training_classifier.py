"""The recipes of the classifiers behind feature spaces."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from bench import UsageError
from bench.commands.main import main
from bench.metrics import cifar_resnet as cifar
from bench.metrics.cifar_resnet import CifarResNet
from bench.training.checkpoint import read_safetensors
from bench.training.classifier import (
    CIFAR,
    DIGITS,
    moved_and_mirrored,
    train_cifar_classifier,
    train_digits_classifier,
)

QUICK = CIFAR._replace(epochs=2, batch=20)
ASSETS = resources.files("models") / "assets"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Images of ten colours, a training set and others."""
    folder, rng = tmp_path_factory.mktemp("tiny"), np.random.default_rng(0)
    for name, count in (("train", 60), ("test", 20)):
        labels = np.arange(count) % 10
        images = labels[:, None, None, None] * 25 + rng.integers(0, 20, (count, 32, 32, 3))
        np.savez(folder / f"{name}.npz", images=images.astype(np.uint8), labels=labels)
    return folder


def same_tensors(first: Path, second: Path) -> bool:
    """Whether two files hold the same numbers; the order of their metadata is any."""
    a, b = (read_safetensors(path).tensors for path in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_training_is_a_function_of_its_seed(tiny, tmp_path):
    said: list[str] = []
    sources = {"source": tiny / "train.npz", "held_out": tiny / "test.npz"}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(said))
        train_cifar_classifier(tmp_path / name, course=QUICK, seed=seed, report=said.append, **sources)
    assert len(said) == 3 * QUICK.epochs and said[0].startswith("epoch 1/2  held-out accuracy 0.")
    assert same_tensors(tmp_path / "a", tmp_path / "b")
    assert not same_tensors(tmp_path / "a", tmp_path / "c")


def test_the_file_is_the_folded_network_in_float16(tiny, tmp_path):
    told = train_cifar_classifier(
        tmp_path / "net", course=QUICK, source=tiny / "train.npz", held_out=tiny / "test.npz"
    )
    found = read_safetensors(tmp_path / "net")
    assert all(tensor.dtype == torch.float16 for tensor in found.tensors.values())
    assert not any("norm" in name for name in found.tensors)
    network = CifarResNet().folded()
    network.load_state_dict(found.tensors)
    with np.load(tiny / "test.npz") as arrays, torch.no_grad():
        x = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2) / 127.5 - 1
        right = network(x).argmax(1).numpy() == arrays["labels"]
    assert told == pytest.approx(right.mean())
    assert float(found.metadata["held_out_accuracy"]) == pytest.approx(told, abs=1e-4)


def test_folding_keeps_what_the_network_says():
    torch.manual_seed(0)
    network = CifarResNet()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        before = network.eval()(x)
        assert torch.allclose(network.folded()(x), before, atol=1e-4)


def test_an_image_is_moved_over_its_reflection_and_mirrored_half_the_time():
    x = torch.arange(32 * 32.0).reshape(1, 1, 32, 32).repeat(400, 1, 1, 1)
    made = moved_and_mirrored(x, torch.Generator().manual_seed(0))
    assert made.shape == x.shape
    mirrored = made[:, 0, 16, 16] > made[:, 0, 16, 17]
    assert 0.4 < mirrored.float().mean() < 0.6
    rows, columns = np.divmod(made[:, 0, 16, 16].numpy(), 32)
    assert set(rows) == set(range(12, 21))
    assert set(columns[~mirrored.numpy()]) == set(range(12, 21))


def test_the_shipped_network_says_where_it_comes_from():
    found = read_safetensors(ASSETS / cifar.CLASSIFIER_FILE)
    card = (ASSETS / "cifar-resnet.md").read_text()
    accuracy = float(found.metadata["held_out_accuracy"])
    assert accuracy >= 0.88
    assert f"{accuracy:.1%}" in card
    assert cifar.CLASSIFIER_SHA256 in card
    assert re.search(rf"\b{found.metadata['data_hash']}\b", card)
    assert f"seed {found.metadata['seed']}," in card
    assert f"{CIFAR.epochs} epochs" in card and f"batch {CIFAR.batch}" in card
    parameters = sum(tensor.numel() for tensor in found.tensors.values())
    assert f"{parameters:,} float16" in card


def test_images_without_labels_are_refused(tmp_path):
    np.savez(tmp_path / "plain.npz", images=np.zeros((40, 32, 32, 3), np.uint8))
    with pytest.raises(UsageError, match=r"needs images with labels, and .*plain\.npz has none"):
        train_cifar_classifier(
            tmp_path / "net", source=tmp_path / "plain.npz", held_out=tmp_path / "plain.npz"
        )


def test_the_digits_recipe_still_trains(tmp_path):
    course = DIGITS._replace(epochs=1, batch=20_000)
    first, again = (train_digits_classifier(tmp_path / name, course=course) for name in "ab")
    assert first == again
    assert same_tensors(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("option", [("--data", "x"), ("--steps", "3")])
@pytest.mark.parametrize("name", ["digits-classifier", "cifar-classifier", "digits-autoencoder"])
def test_options_that_a_recipe_does_not_take_are_refused(capsys, name, option):
    assert main(["train", name, *option]) == 2
    assert f"{name} has one recipe" in capsys.readouterr().err


def test_the_list_names_the_recipe(capsys):
    assert main(["train", "--list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cifar-classifier")]
    assert line.split()[1:4] == ["cifar10", str(CIFAR.epochs), "epochs"]


@pytest.mark.parametrize("name", ["digits-classifier", "cifar-classifier", "digits-autoencoder"])
def test_a_folder_that_cannot_be_made_is_told_before_the_training(tmp_path, capsys, name):
    (tmp_path / "file").touch()
    assert main(["train", name, "--out", str(tmp_path / "file" / "within")]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert "choose --out DIR" in told.err
