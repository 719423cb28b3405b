"""One training step in every way the trainer has, beside a plain eager float32 loop on the same U-Net.

Run with ``pytest tests/benchmarks/bench_training.py --benchmark-only -o addopts=``; the table's ratios are
the result. The small CIFAR-10 preset on a CPU, the DDPM one on a GPU; ``SAMPLER_BENCH_BATCH`` sets the batch.
A row's name tells the memory: of the GPU, the peak of the first two steps; of a CPU, the greatest the process
has ever had resident, so that only a row run alone (``-k``) tells its own.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bench.data.sets import ImageData, content_hash
from bench.device.clock import peak_memory, reset_peak_memory
from bench.training import get_recipe
from bench.training.loop import _Run
from bench.training.setup import make_network

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRESET = get_recipe("cifar10-ddpm" if DEVICE.type == "cuda" else "cifar10-small")
BATCH = int(os.environ.get("SAMPLER_BENCH_BATCH", "128" if DEVICE.type == "cuda" else "16"))
CONFIG = PRESET.but(
    batch=BATCH, objective="simple", variance="fixedlarge", precision="float32", channels_last=False, clip=1.0
)
IMAGES = torch.randint(256, (1000, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def measure(benchmark: Any, step: Callable[[], Any]) -> None:
    def run() -> None:
        step()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    reset_peak_memory(DEVICE)
    run()
    run()
    benchmark.name = f"{benchmark.name} ({peak_memory(DEVICE) / 2**20:.0f} MiB)"
    benchmark.group = f"training step of {PRESET.name}, batch {BATCH}, {DEVICE}"
    benchmark.pedantic(run, rounds=5)


def test_plain_loop(benchmark: Any) -> None:
    """What one writes first: images converted on the host, every update parameter by parameter."""
    schedule = CONFIG.make_schedule()
    network = make_network(CONFIG, IMAGES, schedule).to(DEVICE).train()
    average = copy.deepcopy(network)
    optimiser = torch.optim.Adam(network.parameters(), CONFIG.learning_rate, foreach=False)
    abar = schedule.alphas_cumprod.float().to(DEVICE)

    def step() -> None:
        images = IMAGES[torch.randint(len(IMAGES), (BATCH,))].float() / 127.5 - 1
        x0 = images.to(DEVICE)
        t, noise = torch.randint(CONFIG.timesteps, (BATCH,), device=DEVICE), torch.randn_like(x0)
        share = abar[t].view(-1, 1, 1, 1)
        loss = F.mse_loss(network(share.sqrt() * x0 + (1 - share).sqrt() * noise, t), noise)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), network.parameters(), strict=True):
                mean.mul_(0.9999).add_(weight, alpha=0.0001)
        loss.item()

    measure(benchmark, step)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"channels_last": True},
        {"channels_last": True, "precision": "bf16"},
        {"channels_last": True, "precision": "bf16", "compile": True},
    ],
    ids=["float32", "channels_last", "channels_last-bf16", "channels_last-bf16-compiled"],
)
def test_trainer(benchmark: Any, tmp_path: Any, changes: dict[str, Any]) -> None:
    run = _Run(CONFIG.but(**changes), tmp_path, DEVICE, ImageData("noise", IMAGES, content_hash(IMAGES)))
    measure(benchmark, lambda: run._optimise(run.draw(run.step)))
