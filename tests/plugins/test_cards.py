"""Cards of public checkpoints: published facts; finding, refusing and fetching their files."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.unets import family_checkpoint

import models
import models.plugin
from bench import NoiseSchedule, UnknownNameError
from models import CheckpointCard, CheckpointError, UNet
from models.cards import RemoteFile

PUBLISHED_PARAMETERS = {
    "google/ddpm-cifar10-32": 35_746_307,
    "ema_cifar10": 35_746_307,
    "pytorch-ddpm-cifar10": 35_746_307,
    "cifar10_uncond_50M_500K": 52_546_438,
    "cifar10_uncond_vlb_50M_500K": 52_546_438,
    "ddim-celeba64": 78_700_803,
    "ema_lsun_church": 113_673_219,
    "google/ddpm-celebahq-256": 113_673_219,
    "google/ddpm-ema-celebahq-256": 113_673_219,
}


@pytest.fixture(autouse=True)
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLER_BENCH_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CheckpointCard:
    """A card of a small pesser checkpoint that a file server, here a folder, offers."""
    network, state, config = family_checkpoint("pesser")
    origin = tmp_path / "origin" / "weights.ckpt"
    origin.parent.mkdir()
    torch.save(state, origin)
    md5 = hashlib.md5(origin.read_bytes()).hexdigest()
    card = replace(
        models.get_checkpoint_card("ema_cifar10"),
        name="small",
        files=(RemoteFile("small_model/model-1.ckpt", origin.as_uri(), f"md5:{md5}"),),
        config=config,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    monkeypatch.setattr(models.public, "CARDS", (*models.public.CARDS, card))
    return card


@pytest.mark.parametrize("card", models.all_cards(), ids=lambda card: card.name)
def test_card_describes_a_network_with_its_number_of_parameters(card: CheckpointCard) -> None:
    with torch.device("meta"):
        network = UNet(card.unet)
    assert sum(p.numel() for p in network.parameters()) == card.parameters
    assert card.parameters == PUBLISHED_PARAMETERS.get(card.name, card.parameters)
    assert card.unet.out_channels == (3 if card.variance == "fixed" else 6)


def test_published_parameter_counts_are_all_on_cards() -> None:
    assert {card.name for card in models.all_cards()} >= PUBLISHED_PARAMETERS.keys()


def test_published_facts() -> None:
    ema = models.get_checkpoint_card("ema_cifar10")
    assert ema.files[0].digest == "md5:1fa350b952534ae442b1d5235cce5cd3"
    assert ema.averaged
    hub = models.get_checkpoint_card("hub:google/ddpm-cifar10-32")
    assert hub.averaged is False
    assert "not averaged" in hub.summary
    assert "about 143 MB" in hub.summary
    for name in ("cifar10_uncond_50M_500K", "cifar10_uncond_vlb_50M_500K"):
        card = models.get_checkpoint_card(name)
        assert (card.T, card.schedule, card.variance, card.rescale_timesteps) == (
            4000,
            "cosine",
            "learned_range",
            True,
        )
        assert (card.unet.scale_shift, card.unet.heads, card.unet.blocks) == (True, 4, 3)
        assert card.unet.attention == (False, True, True, False)  # at 16 and 8


def test_names_are_unique_and_unknown_ones_get_a_suggestion() -> None:
    names = [card.name for card in models.all_cards()]
    assert len(set(names)) == len(names)
    with pytest.raises(UnknownNameError, match=r"did you mean.*ema_cifar10"):
        models.get_checkpoint_card("ema_cifar01")
    with pytest.raises(UnknownNameError, match=r"did you mean.*ema_cifar10"):
        models.load_network("ema_cifar01")


@pytest.mark.parametrize("name", ["hub:google/ddpm-cifar10-32", "google/ddpm-cifar10-32"])
def test_absent_hub_model_is_one_sentence_with_file_size_place_and_command(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        models.resolve(name)
    sentence = str(caught.value)
    place = tmp_path / "models" / "google--ddpm-cifar10-32" / "diffusion_pytorch_model.safetensors"
    for part in ("about 143 MB", str(place), "config.json", "sampler-bench fetch google/ddpm-cifar10-32"):
        assert part in sentence
    assert "\n" not in sentence


def test_absent_file_names_its_hash_or_its_web_page() -> None:
    with pytest.raises(CheckpointError, match=r"1fa350b952534ae442b1d5235cce5cd3.*bench fetch ema_cifar10"):
        models.load_checkpoint("ema_cifar10")
    with pytest.raises(CheckpointError, match=r"about 315 MB.*github.com/ermongroup/ddim"):
        models.load_checkpoint("ddim-celeba64")
    with pytest.raises(CheckpointError, match="huggingface-cli download somebody/model"):
        models.load_checkpoint("hub:somebody/model")
    with pytest.raises(CheckpointError, match="OWNER/NAME"):
        models.load_checkpoint("hub:model")


def test_nothing_is_downloaded_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    def open_nothing(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr(urllib.request, "urlopen", open_nothing)
    for card in models.all_cards():
        with pytest.raises(CheckpointError, match="not on this machine"):
            models.load_checkpoint(card.name)


def write_snapshot(folder: Path, seed: int) -> None:
    _, state, config = family_checkpoint("diffusers", seed)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel", **config}))
    (folder / "scheduler_config.json").write_text(json.dumps({"timesteps": 1000, "beta_schedule": "linear"}))
    blob = folder / "blob"
    save_file(state, blob)
    (folder / "diffusion_pytorch_model.safetensors").symlink_to(blob)  # as the Hub's cache has it


def test_hub_cache_and_folders_are_searched(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--google--ddpm-cifar10-32"
    write_snapshot(repository / "snapshots" / "aaa", seed=1)
    write_snapshot(repository / "snapshots" / "bbb", seed=2)
    os.utime(repository / "snapshots" / "aaa", (1, 1))
    assert models.resolve("hub:google/ddpm-cifar10-32")[0].name == "bbb"  # the newest
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("aaa")
    assert models.resolve("hub:google/ddpm-cifar10-32")[0].name == "aaa"  # the one that main means
    with pytest.warns(UserWarning, match="not averaged"):
        model = models.load_checkpoint("hub:google/ddpm-cifar10-32")
    assert model.schedule == NoiseSchedule.linear(1000)
    for name in ("google--ddpm-cifar10-32", "google/ddpm-cifar10-32"):
        own = tmp_path / name[:8] / name
        write_snapshot(own, seed=3)
        assert models.resolve("hub:google/ddpm-cifar10-32", [tmp_path / name[:8]])[0] == own


def test_hub_repository_without_a_card_is_found(tmp_path: Path) -> None:
    write_snapshot(tmp_path / "models" / "somebody--model", seed=1)
    assert models.load_checkpoint("hub:somebody/model").shape == (3, 8, 8)


def test_fetched_checkpoint_is_checked_loaded_and_not_fetched_again(
    small: CheckpointCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    file = models.fetch("small", progress=lambda path, done, total: seen.append((path.name, done)))
    assert file == tmp_path / "models" / "small_model" / "model-1.ckpt"
    assert seen[-1] == ("model-1.ckpt", file.stat().st_size)
    assert models.load_checkpoint("small").shape == (3, 8, 8)
    assert models.load_checkpoint(file).schedule == NoiseSchedule.linear(1000)
    monkeypatch.delattr(urllib.request, "urlopen")
    assert models.fetch("small") == file


def test_file_that_is_not_its_cards_is_refused(small: CheckpointCard, tmp_path: Path) -> None:
    file = models.fetch("small")
    torch.save(family_checkpoint("pesser", seed=9)[1], file)
    for source in ("small", file):
        with pytest.raises(CheckpointError, match="damaged or another file"):
            models.load_network(source)


def test_damaged_file_is_fetched_again(small: CheckpointCard) -> None:
    file = models.fetch("small")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert models.fetch("small").read_bytes() == whole


def test_wrong_download_leaves_nothing(
    small: CheckpointCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = replace(small.files[0], digest="md5:" + "0" * 32)
    monkeypatch.setattr(models.public, "CARDS", (replace(small, files=(wrong,)),))
    with pytest.raises(CheckpointError, match="damaged or another file"):
        models.fetch("small")
    gone = replace(small.files[0], url=(tmp_path / "nowhere").as_uri())
    monkeypatch.setattr(models.public, "CARDS", (replace(small, files=(gone,)),))
    with pytest.raises(CheckpointError, match="could not be downloaded"):
        models.fetch("small")
    assert list((tmp_path / "models" / "small_model").iterdir()) == []


def test_card_tells_what_its_weights_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, state, config = family_checkpoint("openai")
    card = replace(models.get_checkpoint_card("cifar10_uncond_50M_500K"), config=config)
    others = tuple(c for c in models.public.CARDS if c.name != card.name)
    monkeypatch.setattr(models.public, "CARDS", (*others, card))
    torch.save(state, tmp_path / "cifar10_uncond_50M_500K.pt")
    for source in (tmp_path / "cifar10_uncond_50M_500K.pt", "cifar10_uncond_50M_500K"):
        model = models.load_checkpoint(source, folders=[tmp_path])
        assert model.schedule == NoiseSchedule.cosine(4000)
        assert (model.variance, model.rescale_timesteps) == ("learned_range", True)


def test_every_card_is_offered_as_a_model() -> None:
    offered = {card.name: card for card in models.plugin.bench_models()}
    assert offered.keys() == {card.name for card in models.all_cards()}
    assert "EMA" in offered["google/ddpm-cifar10-32"].summary
    with pytest.raises(CheckpointError, match="not on this machine"):
        offered["ema_cifar10"].load()
