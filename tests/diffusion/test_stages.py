"""Decoders and cascades: what comes after x_0 is drawn, counted, filmed and scored."""

import numpy as np
import pytest
import torch
from support.commands import bench as run_bench

import bench
from bench.diffusion.grid import grid_for
from bench.diffusion.noise import STAGE, TrajectoryNoise, normal_noise
from bench.diffusion.sampling import get_sampler
from bench.diffusion.stages import image_shape, images_of, latents_of, unclipped
from bench.sweep.worker import draw

SCHEDULE = bench.NoiseSchedule.linear()


def latent_model():
    """A diffusion of latents (2, 3, 3)."""
    return bench.from_prediction(lambda x, t: 0.1 * x, SCHEDULE, (2, 3, 3), "eps")


def doubled(z):
    """A decoder to (1, 6, 6): the mean of the channels, each pixel twice."""
    return z.mean(1, keepdim=True).repeat_interleave(2, -1).repeat_interleave(2, -2).tanh()


def upsampler(low):
    """A model of (1, 12, 12) around a picture (1, 6, 6)."""
    large = low.repeat_interleave(2, -1).repeat_interleave(2, -2)

    def network(x, t):
        return (x - 0.5 * large) * 0.3

    return bench.from_prediction(network, SCHEDULE, (1, 12, 12), "eps")


def drawn(model, indices=range(4), sampler="ddim", steps=5, reached=lambda stage: None):
    """What a worker draws."""
    with torch.inference_mode():
        return draw(
            model,
            get_sampler(sampler),
            grid_for(model, steps, "uniform"),
            indices,
            0,
            "float32",
            torch.device("cpu"),
            reached,
        )


def test_latents_are_sampled_and_images_come_out():
    model = bench.decoded(latent_model(), doubled)
    assert (model.shape, image_shape(model)) == ((2, 3, 3), (1, 6, 6))
    plain, found = drawn(model.model), drawn(model)
    assert torch.equal(found.x0, doubled(plain.x0))
    assert found.film.shape[1:] == (1, 6, 6)
    assert (plain.cost.decoder_evaluations, found.cost.decoder_evaluations) == (0, 1)
    assert (found.cost.calls, found.cost.evaluations) == (5, 5)
    assert plain.cost.decoding_seconds == 0 < found.cost.decoding_seconds


def test_a_decoder_must_give_images():
    with pytest.raises(bench.UsageError, match="must return images"):
        bench.decoded(latent_model(), lambda z: z.flatten(1))


def test_what_an_image_s_x0_is():
    plain, images = latent_model(), torch.zeros(2, 1, 6, 6)
    assert latents_of(bench.decoded(plain, doubled), images) is None
    encoded = bench.decoded(plain, doubled, lambda x: torch.ones(len(x), 2, 3, 3))
    assert latents_of(encoded, images).shape == (2, 2, 3, 3)
    assert latents_of(bench.cascade(encoded, upsampler), images) is None
    assert latents_of(plain, torch.zeros(2, 2, 3, 3)).shape == (2, 2, 3, 3)
    assert images_of(plain, images) is images


def test_a_cascade_binds_each_sample_s_picture_in_eight_bits():
    bound_to = []

    def seen(low):
        bound_to.append(low)
        return upsampler(low)

    base = bench.decoded(latent_model(), doubled)
    model = bench.cascade(base, seen, sampler="ddim:clip=x0", steps=4, temperature=0.9)
    stages = []
    found = drawn(model, reached=stages.append)
    small = drawn(base).x0
    levels = (bound_to[-1] + 1) * 127.5
    assert float((levels - levels.round()).abs().max()) < 1e-4
    assert float((bound_to[-1] - small).abs().max()) <= 1 / 255 + 1e-6
    assert found.x0.shape == (4, 1, 12, 12) == (4, *image_shape(model))
    assert found.film.shape[1:] == (1, 12, 12)
    assert (found.cost.calls, found.cost.upsampler_evaluations, found.cost.decoder_evaluations) == (5, 4, 1)
    assert "binding of stage 2" in stages
    noise = 0.9 * normal_noise(0, range(4), 0, (1, 12, 12), draw=STAGE)
    larger = upsampler(bound_to[-1])
    end = bench.sample(
        larger,
        get_sampler("ddim:clip=x0"),
        grid_for(larger, 4, "uniform"),
        noise,
        TrajectoryNoise(0, range(4), (1, 12, 12)),
    )
    assert torch.equal(end, found.x0)


def test_three_stages_follow_each_other_whatever_the_batch():
    def last(low):
        return bench.from_prediction(lambda x, t: x - low.repeat(1, 3, 1, 1), SCHEDULE, (3, 12, 12), "eps")

    base = bench.decoded(latent_model(), doubled)
    model = bench.cascade(bench.cascade(base, upsampler), last, steps=2, sampler="ddpm")
    whole = drawn(model)
    parts = [drawn(model, range(0, 3)), drawn(model, range(3, 4))]
    assert torch.allclose(whole.x0, torch.cat([part.x0 for part in parts]), atol=1e-6)
    assert whole.cost.upsampler_evaluations == 5 + 2
    first = normal_noise(0, range(1), 0, (1, 2, 2), draw=STAGE)
    second = normal_noise(0, range(1), 0, (1, 2, 2), draw=2 * STAGE)
    assert not torch.equal(first, second)


def test_pictures_may_be_augmented_with_noise_of_their_own():
    seen = []

    def augmented(low, z):
        seen.append(z)
        return bench.diffuse(low, z, 0.9)

    base = bench.from_prediction(lambda x, t: 0.1 * x, SCHEDULE, (1, 6, 6), "eps")
    drawn(bench.cascade(base, upsampler, augmentation=augmented))
    drawn(bench.cascade(base, upsampler, augmentation=augmented), range(2, 4))
    assert torch.equal(seen[0][2:], seen[1])
    assert not torch.equal(seen[0], drawn(base).x0)


def test_a_decoder_is_bound_to_what_a_prior_draws():
    """DALL-E 2's two stages: a vector that predicts x_0, as it is, and images drawn around it."""
    seen = []

    def decoder(vector):
        seen.append(vector)
        return bench.from_prediction(lambda x, t: x - vector.mean(1, True), SCHEDULE, (3, 8, 8), "eps")

    prior = bench.from_prediction(lambda x, t: 2.5 * x.tanh(), SCHEDULE, (16, 1, 1), "x0")
    found = drawn(bench.cascade(prior, decoder, sampler="ddpm", rounded=False))
    assert torch.equal(seen[-1], drawn(prior).x0)
    assert float(seen[-1].abs().max()) > 1  # no picture: neither rounded nor cut off
    assert found.x0.shape == (4, 3, 8, 8)


def test_an_upsampler_must_give_a_model():
    with pytest.raises(bench.UsageError, match="must return a model"):
        bench.cascade(latent_model(), lambda low: low)


@pytest.mark.parametrize(
    ("asked", "run"),
    [
        ("ddpm:variance=fixedlarge", "ddpm:variance=fixedlarge,clip=none,quantile=0.995,greatest=1000"),
        ("sigma-hat", "ddpm:variance=fixedlarge,clip=none"),
        ("ddim:clip=dynamic-raw-eps", "ddim:eta=0,clip=none"),
        ("ddim:clip=state,eta=1", "ddim:eta=1,clip=none"),
        ("ddim", "ddim"),
    ],
)
def test_latents_are_not_clipped_to_the_range_of_images(asked, run):
    asked, run, latent = get_sampler(asked), get_sampler(run), bench.decoded(latent_model(), doubled)
    assert unclipped(latent, asked).spec == run.spec
    assert unclipped(bench.cascade(latent, upsampler), asked).spec == run.spec
    assert unclipped(latent_model(), asked) is asked
    assert unclipped(latent, run) is run


def test_a_stage_of_latents_in_a_cascade_is_not_clipped_either():
    base = bench.from_prediction(lambda x, t: 0.1 * x, SCHEDULE, (1, 3, 3), "eps")
    stacked = bench.cascade(base, lambda low: bench.decoded(latent_model(), doubled), sampler="ddpm")
    assert stacked.stages[0].sampler == get_sampler("ddpm:clip=none")
    plain = bench.cascade(base, lambda low: latent_model(), sampler="ddpm")
    assert plain.stages[0].sampler == get_sampler("ddpm")


MODEL_FILE = """
import torch
import bench

schedule = bench.NoiseSchedule.linear()


class Net:
    schedule, shape, variance, prediction, classes = schedule, (2, 3, 3), "fixed", "eps", 4

    def __call__(self, x, t, label):
        return bench.Prediction(0.1 * x - 0.1 * label.view(-1, 1, 1, 1) % 4)


def decode(z):
    return z.mean(1, keepdim=True).repeat_interleave(2, -1).repeat_interleave(2, -2).tanh()


def latent():
    return bench.decoded(bench.ConditionalModel(Net()), decode)


def stacked():
    def larger(low):
        large = low.repeat_interleave(2, -1).repeat_interleave(2, -2)
        return bench.from_prediction(lambda x, t: 0.3 * (x - large), schedule, (1, 12, 12), "eps")

    return bench.cascade(latent(), larger, sampler="ddim", steps=4)
"""


@pytest.mark.parametrize(("factory", "shape"), [("latent", (1, 6, 6)), ("stacked", (1, 12, 12))])
def test_a_sweep_over_what_a_file_composes(tmp_path, factory, shape):
    (tmp_path / "mine.py").write_text(MODEL_FILE)
    images = torch.randint(0, 256, (40, *shape[1:], shape[0]), dtype=torch.uint8)
    np.savez(tmp_path / "reference.npz", images=images.numpy())
    done = run_bench(
        *("run", "--model", f"{tmp_path}/mine.py:{factory}:label=balanced", "--guidance", "1", "3"),
        *("--samplers", "ddim", "--steps", "4", "--n", "20", "--reference", tmp_path / "reference.npz"),
        *("--results", tmp_path / "results"),
    )
    assert done.returncode == 0, done.stderr
    rows = bench.load_results(tmp_path / "results")
    rows = rows[rows.kind == "samples"]
    assert sorted(rows.evaluations) == [4, 8]
    assert set(rows.decoder_evaluations) == {1}
    assert set(rows.upsampler_evaluations) == {4 if factory == "stacked" else 0}
    shown = run_bench("show", "ddim@4", "--results", tmp_path / "results")
    assert "decoder evaluations" in shown.stdout, shown.stderr
    refused = run_bench("nll", "--model", f"{tmp_path}/mine.py:{factory}", "--results", tmp_path / "b")
    assert refused.returncode == 2
    assert "no likelihood" in " ".join(refused.stderr.split())
