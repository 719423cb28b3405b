"""What a sampler costs beside the network: its arithmetic and noise alone, and over the bare calls.

`tox -e bench` prints the table. Where a network answers with tensors made beforehand, what is timed is the
sampler's arithmetic and its noise, at (256, 3, 32, 32).
"""

import pytest
import torch

from bench import NoiseSchedule, Prediction, get_sampler, make_grid, normal_noise, sample
from bench.commands.options import parse_samplers
from bench.plugins.lookup import load_model
from bench.sweep.speed import Setting, measure_overheads

SHAPE = (3, 32, 32)
BATCH = 256
STEPS = 10
OVERHEAD = 2.0
"""A trajectory may take so many times what its bare calls do, beside a network as small as the shipped."""
SAMPLERS = ["ddim:eta=0", "ddim:eta=1", "ddim:eta=1,clip=x0", "ddpm", "sigma-hat", "ddpm:variance=learned"]


class Ready:
    """A network that costs nothing."""

    schedule, shape, variance = NoiseSchedule.linear(), SHAPE, "learned_range"

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.answer = Prediction(
            torch.randn(BATCH, *SHAPE, generator=generator), torch.rand(BATCH, *SHAPE, generator=generator)
        )

    def __call__(self, x, t):
        return self.answer


@pytest.mark.parametrize("spec", SAMPLERS)
def test_sampler_without_its_noise(benchmark, spec):
    """Ten steps of the sampler's arithmetic."""
    model, x = Ready(), torch.randn(BATCH, *SHAPE)
    grid, ready = make_grid(model.schedule, STEPS), torch.randn(BATCH, *SHAPE)
    benchmark.group = "sampler arithmetic, ten steps at (256, 3, 32, 32)"
    benchmark(sample, model, get_sampler(spec), grid, x, lambda index: ready)


@pytest.mark.parametrize("spec", SAMPLERS)
def test_sampler_with_its_noise(benchmark, spec):
    """Ten steps with the counter-based noise."""
    model, x = Ready(), torch.randn(BATCH, *SHAPE)
    grid = make_grid(model.schedule, STEPS)
    benchmark.group = "sampler with noise, ten steps at (256, 3, 32, 32)"
    noise = lambda index: normal_noise(0, range(BATCH), index + 1, SHAPE)  # noqa: E731
    benchmark(sample, model, get_sampler(spec), grid, x, noise)


@pytest.mark.ratio
@pytest.mark.parametrize("spec", [one.spec for one in parse_samplers(["all"])])
def test_overhead(benchmark, spec):
    """A trajectory of the default model over its bare calls, in turns: `python -m bench speed` in small."""
    model = load_model("digits").model
    setting = Setting(model, make_grid(model.schedule, STEPS), torch.device("cpu"), turns=5)
    benchmark.group = "overhead of samplers beside the default model, ten steps at batch 250"
    (found,) = benchmark.pedantic(
        lambda: list(measure_overheads(setting, [get_sampler(spec)], 250)), rounds=1
    )
    if found.failure is not None and found.failure.status == "skipped":
        pytest.skip(found.failure.message)
    assert found.failure is None
    benchmark.extra_info |= {"overhead": round(found.ratio, 3), "at most": OVERHEAD}
    print(f"{spec}: x{found.ratio:.3f} of {found.calls} bare calls (at most {OVERHEAD})")
    assert found.ratio < OVERHEAD


@pytest.mark.parametrize("what", ["torch.randn", "counter-based"])
def test_noise_against_torch(benchmark, what):
    """One draw at (256, 3, 32, 32): numbers that do not depend on the batch cost more than a stream's."""
    benchmark.group = "standard normal noise, (256, 3, 32, 32)"
    if what == "torch.randn":
        generator = torch.Generator().manual_seed(0)
        benchmark(torch.randn, (BATCH, *SHAPE), generator=generator)
    else:
        benchmark(normal_noise, 0, range(BATCH), 1, SHAPE)


@pytest.mark.parametrize("what", ["network", "noise"])
def test_noise_against_the_default_network(benchmark, what):
    """One step of the default model at batch 250: the noise should stay under a tenth of the network."""
    model = load_model("digits").model
    x, t = torch.randn(250, *model.shape), torch.full((250,), 500)
    benchmark.group = "one step of the default model at batch 250"
    with torch.inference_mode():
        if what == "network":
            benchmark(model, x, t)
        else:
            benchmark(normal_noise, 0, range(250), 1, model.shape)
