"""The shipped latent model: its autoencoder, its latents, its scores, what its card says of them."""

import csv
import hashlib
import io
import re
from contextlib import redirect_stdout

import pytest
import torch
from PIL import Image
from safetensors.torch import load, save
from support.commands import bench as run_bench
from support.sweeps import Silent

from bench import UsageError, diffuse, from_uint8, get_sampler, load_images, load_results
from bench.commands.main import main
from bench.diffusion.stages import DecodedModel, latents_of
from bench.files.tensors import read_tensors
from bench.records.store import Store
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner
from bench.training import get_recipe
from models import digits_latent as module
from models.digits import asset
from models.digits_latent import load_autoencoder, load_digits_latent
from models.errors import CheckpointError

CARD = asset("digits-latent.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model():
    return load_digits_latent()


@pytest.fixture(scope="module")
def held_out():
    return from_uint8(load_images("digits-held-out").images)


def test_the_shipped_files_are_those_of_the_card_and_small():
    total = 0
    files = {module.AUTOENCODER_FILE: module.AUTOENCODER_SHA256, module.WEIGHTS_FILE: module.WEIGHTS_SHA256}
    for name, digest in files.items():
        data = asset(name).read_bytes()
        total += len(data)
        assert hashlib.sha256(data).hexdigest() == digest
        assert digest in CARD and f"{len(data):,} bytes" in CARD
    assert total < 1_500_000


def test_it_is_the_network_of_its_recipe(model):
    recipe = get_recipe("digits-latent")
    assert isinstance(model, DecodedModel)
    assert (model.shape, model.image_shape, model.variance) == ((4, 3, 3), (1, 12, 12), "learned_range")
    sizes = recipe.network_options
    assert model.model.network.enter.weight.shape == (sizes["width"], 36)
    assert [up.weight.shape[0] for up in model.model.network.up] == [sizes["hidden"]] * sizes["blocks"]
    metadata = read_tensors(asset(module.WEIGHTS_FILE))[1]
    assert metadata["config_hash"] == recipe.hash
    with asset(module.TRAINING_FILE).open() as table:
        rows = list(csv.DictReader(table))
    assert int(rows[-1]["images"]) == recipe.steps * recipe.batch
    line = next(one for one in CARD.splitlines() if one.startswith("| L_simple"))
    assert f"{float(rows[-1]['simple']):.3f}" in line


def test_latents_have_unit_variance_and_give_the_image_back(model, held_out):
    z = latents_of(model, held_out)
    assert float(z.std()) == pytest.approx(1, abs=0.01)
    assert float(z.mean()) == pytest.approx(0, abs=0.02)
    assert float(z.std(0).min()) > 0.4 and float(z.std(0).max()) < 1.2
    back = model.decode(z)
    assert float(back.min()) >= -1 and float(back.max()) <= 1
    assert float((back - held_out).square().mean()) == pytest.approx(0.00794, abs=1e-4)
    assert "0.0079 |" in CARD


def test_the_scale_is_part_of_both_functions(held_out):
    plain, scaled = load_autoencoder(), load_autoencoder()
    plain.scale_factor.fill_(1)
    x = held_out[:50]
    z = plain.encode(x)
    assert torch.allclose(scaled.encode(x), z * scaled.scale_factor, atol=1e-6)
    assert torch.allclose(scaled.decode(z * scaled.scale_factor), plain.decode(z), atol=1e-5)


def test_the_floor_of_the_card_is_what_its_program_prints():
    (program,) = re.findall(r"```python\n(.*?)```", CARD, re.S)
    with redirect_stdout(io.StringIO()) as out:
        exec(program, {})
    real, returned = map(float, out.getvalue().split())
    assert (real, returned) == pytest.approx((0.86, 1.00), abs=0.011)
    assert "`fd_digits` of 1.00 where they are at 0.86" in CARD


def test_it_predicts_the_noise_in_latents_of_digits_it_never_saw(model, held_out):
    z = latents_of(model, held_out).repeat(2, 1, 1, 1)
    t = torch.arange(len(z)) % 1000
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(0))
    x = diffuse(z, noise, model.schedule.alphas_cumprod[t])
    assert float((model(x, t).eps - noise).square().mean()) == pytest.approx(0.147, abs=0.002)


def test_a_whole_sweep_clips_nothing_and_keeps_decoded_pictures(tmp_path):
    done = run_bench(
        *("run", "--model", "digits-latent", "--samplers", "paper", "--steps", "10", "--n", "200"),
        *("--results", tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert (
        "latents are not bound to [-1, 1] as images are: clip=none for ddpm fixedsmall, ddpm fixedlarge"
        in done.stderr
    )
    rows = load_results(tmp_path)
    floor, rows = rows[rows.kind == "real"], rows[rows.kind == "samples"]
    assert set(rows["clip"]) == {"none"} and len(rows) == 7
    assert set(rows.decoder_evaluations) == {1}
    assert set(rows.network_calls) == {10}
    assert float(floor.score.iloc[0]) < rows.score.min() and rows.score.max() < 20
    records, _ = Store(tmp_path).read()
    assert all("clip=none" in one.trial.sampler for one in records if one.kind == "samples")
    films = [Image.open(path).size for path in (tmp_path / "records").glob("*.film.png")]
    assert len(films) == 8 and {(width // 11, height) for width, height in films} == {(12, 12)}


@pytest.mark.parametrize(("sampler", "row"), [("ddim", "`ddim` eta = 0"), ("ddpm", "`ddpm` fixedsmall")])
def test_scores_are_those_of_the_card(tmp_path, sampler, row):
    sweep = Sweep("digits-latent", (get_sampler(sampler),), steps=(10, 20), n=1000, metrics=("fd_digits",))
    runner = Runner(sweep, Store(tmp_path))

    scores = [record.scores["fd_digits"].value for record in runner.run(runner.plan(), Silent())]
    line = next(one for one in CARD.splitlines() if one.startswith(f"| {row}"))
    told = [float(cell.split(" ±")[0]) for cell in line.split("|")[3:5]]
    assert scores == pytest.approx(told, abs=0.02)


def test_asking_for_a_clip_by_name_is_told_and_not_done(tmp_path, capsys):
    asked = ["run", "--model", "digits-latent", "--samplers", "ddim:clip=x0", "ddim", "--steps", "2"]
    assert main([*asked, "--n", "20", "--metrics", "fd_pixels", "--results", str(tmp_path)]) == 0
    assert "clip=none for ddim eta=0 clip x0" in " ".join(capsys.readouterr().err.split())
    rows = load_results(tmp_path)
    assert list(rows[rows.kind == "samples"]["clip"]) == ["none"]  # one trial: the two are the same now


def test_wrong_files_are_refused_in_a_sentence(monkeypatch, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes(asset(module.WEIGHTS_FILE).read_bytes())
    assert load_digits_latent(own).model.fingerprint == module.WEIGHTS_SHA256
    own.write_bytes(asset("digits.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"holds the network models\.digits:make_digits_network"):
        load_digits_latent(own)
    with pytest.raises(CheckpointError, match="holds no autoencoder of digits"):
        load_autoencoder(own)
    own.write_bytes(save({"scale_factor": load(asset(module.AUTOENCODER_FILE).read_bytes())["scale_factor"]}))
    with pytest.raises(CheckpointError, match="holds no autoencoder of digits"):
        load_autoencoder(own)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_autoencoder(tmp_path / "none.safetensors")
    monkeypatch.setattr(module, "AUTOENCODER_SHA256", "0" * 64)
    with pytest.raises(UsageError, match="is damaged"):
        load_digits_latent()
