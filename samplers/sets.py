"""The sets that ``--samplers NAME`` runs together: the DDIM paper's rows, and the solvers of few steps."""

from __future__ import annotations

from collections.abc import Mapping

from bench import SamplerSet, hookimpl

PAPER = SamplerSet(
    (
        "ddpm:variance=fixedsmall",
        "ddpm:variance=fixedlarge",
        "ddpm:variance=learned",
        "ddim:eta=0",
        "ddim:eta=0.2",
        "ddim:eta=0.5",
        "ddim:eta=1",
    ),
    (10, 20, 50, 100, 1000),
    "the rows of the DDIM paper's table 1, and learned variance",
)

FAST = SamplerSet(
    (
        "ddim",
        "heun",
        "dpm2",
        "dpmpp-2s",
        "dpm-solver",
        "dpmpp-2m",
        "unipc",
        "deis:order=3",
        "ipndm",
        "lms",
        "sa-solver",
        "er-sde",
        "dpmpp-2m-sde",
        "euler-a",
    ),
    (5, 8, 10, 20),
    "one of each family of solvers, at the few steps that they are made for",
)


@hookimpl
def bench_sampler_sets() -> Mapping[str, SamplerSet]:
    """Register them."""
    return {"paper": PAPER, "fast": FAST}
