"""The shipped latent model: its autoencoder, its latents, its samples, and how it is trained."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commands import bench as run_bench

import bench
from bench.data.sets import load_images
from bench.diffusion.stages import DecodedModel
from bench.records.store import Store
from bench.training.config import TrainConfig
from bench.training.loop import train
from bench.training.recipes import get_recipe
from models import latent as module
from models.autoencoder_training import reconstruction_error, reconstructions, train_autoencoder
from models.errors import CheckpointError
from models.latent import load_autoencoder, load_latent_digits

ASSETS = Path(module.__file__).parent / "assets"


def test_the_shipped_files_are_the_recorded_ones():
    for name, known in (
        (module.AUTOENCODER_FILE, module.AUTOENCODER_SHA256),
        (module.WEIGHTS_FILE, module.WEIGHTS_SHA256),
    ):
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == known


def test_latents_have_unit_scale_and_give_the_image_back():
    shipped = load_autoencoder()
    x = bench.from_uint8(load_images("digits").images[:4000])
    z = shipped.encode(x)
    assert z.shape == (4000, 4, 3, 3)
    assert abs(float(z.std()) - 1) < 0.02
    assert reconstruction_error(shipped) < 0.016  # the images' variance is 0.40
    again = reconstructions(shipped, load_images("digits").images[:5])
    assert again.dtype == torch.uint8 and again.shape == (5, 1, 12, 12)


def test_the_two_files_hold_one_autoencoder():
    inside = load_latent_digits().decoder.__self__.state_dict()
    for name, weight in load_autoencoder().state_dict().items():
        assert torch.equal(weight, inside[name])


def test_it_predicts_the_noise_in_latents_of_digits_it_never_saw():
    model = load_latent_digits()
    assert isinstance(model, DecodedModel)
    assert (model.shape, model.image_shape) == ((4, 3, 3), (1, 12, 12))
    z = model.encoder(bench.from_uint8(load_images("digits-held-out").images[:500]))
    errors = []
    for t in (100, 500, 900):
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(t))
        x = bench.diffuse(z, noise, model.schedule.alpha_bar(t))
        errors.append(float((model(x, torch.full((500,), t)).eps - noise).square().mean()))
    assert errors[0] < 0.7 and errors[1] < 0.15 and errors[2] < 0.02
    assert errors == sorted(errors, reverse=True)


def test_a_sweep_scores_decoded_images(tmp_path):
    done = run_bench(
        *("run", "--model", "digits-latent", "--samplers", "ddim", "--steps", "20", "--n", "300"),
        *("--metrics", "fd_digits", "--results", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    rows = bench.load_results(tmp_path)
    row = rows[rows.kind == "samples"].iloc[0]
    floor = rows[rows.kind == "real"].iloc[0]
    assert floor.score < row.score < 5 * floor.score
    assert (row.network_calls, row.decoder_evaluations) == (20, 1)
    films = list((tmp_path / "records").glob("*.film.png"))
    assert len(films) == 2  # a sample's, and a real image's on its way to noise and through the decoder


def test_a_whole_sweep_clips_nothing_and_keeps_decoded_pictures(tmp_path):
    asked = ["--samplers", "all", "ddim:clip=x0", "--steps", "10", "--n", "200", "--results", tmp_path]
    done = run_bench("run", "--model", "digits-latent", *asked)
    assert done.returncode == 0, done.stderr
    said = "latents are not bound to [-1, 1] as images are: clip=none for ddpm fixedsmall, ddpm fixedlarge"
    assert said in done.stderr
    rows = bench.load_results(tmp_path)
    floor, rows = rows[rows.kind == "real"], rows[rows.kind == "samples"]
    assert set(rows["clip"]) == {"none"}
    assert len(rows) == 7  # ddim was asked for twice, with a clip and without: one trial
    assert float(floor.score.iloc[0]) < rows[rows.status == "done"].score.min()
    records, _ = Store(tmp_path).read()
    drawn = [one for one in records if one.kind == "samples" and one.status == "done"]
    assert all("clip=none" in one.trial.sampler for one in drawn)
    assert all(Store(tmp_path).film(one).shape[1:] == (1, 12, 12) for one in drawn)
    assert all(Store(tmp_path).previews(one).shape[1:] == (1, 12, 12) for one in drawn)


def test_it_passes_its_own_check():
    done = run_bench("check-model", "digits-latent", "--n", "128")
    assert done.returncode == 0, done.stdout
    assert "nothing is wrong" in done.stdout
    assert "images in [0, 1]" not in done.stdout  # a reading of images, not of latents


def test_it_trains_and_resumes_to_the_same_weights(tmp_path):
    quick: TrainConfig = get_recipe("digits-latent").but(
        steps=4, batch=32, warmup=1, decay_steps=2, log_every=2, checkpoint_every=2, pictures=4
    )
    whole = train(quick, tmp_path / "whole")
    train(quick, tmp_path / "parts", stop_after=2)
    parts = train(quick, tmp_path / "parts")
    one, other = load_file(whole.weights), load_file(parts.weights)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (tmp_path / "whole" / "samples-0000004.png").is_file()
    model = load_latent_digits(whole.weights)
    inside = model.decoder.__self__.state_dict()
    shipped = load_autoencoder().state_dict()
    assert all(torch.equal(inside[name], shipped[name]) for name in shipped)  # it stayed frozen


def test_the_autoencoder_is_made_by_its_command(tmp_path, monkeypatch):
    few = load_images("digits")
    few = few.__class__(few.name, few.images[:512], few.hash, few.labels[:512])
    monkeypatch.setattr("models.autoencoder_training.load_images", lambda name: few)
    lines = []
    error = train_autoencoder(tmp_path / "ae.safetensors", epochs=2, batch=128, report=lines.append)
    assert len(lines) == 2 and 0 < error < 1
    assert abs(float(load_autoencoder(tmp_path / "ae.safetensors").scale_factor)) > 0


@pytest.mark.parametrize("load", [load_autoencoder, load_latent_digits])
def test_wrong_files_are_refused_in_a_sentence(load, tmp_path):
    path = tmp_path / "wrong.safetensors"
    path.write_bytes((ASSETS / "digits.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="train it"):
        load(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="train it"):
        load(path)
