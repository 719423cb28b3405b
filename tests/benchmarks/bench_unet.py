"""One forward pass of the CIFAR-10 DDPM network, 35.7 M parameters, in every way it can be run, side by side.

Run with ``pytest tests/benchmarks/bench_unet.py --benchmark-only -o addopts=``; the table's ratios are the
result. ``SAMPLER_BENCH_BATCH`` sets the batch; a GPU is used where there is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch

from models import UNet, UNetConfig, get_checkpoint_card

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BATCH = int(os.environ.get("SAMPLER_BENCH_BATCH", "128" if DEVICE == "cuda" else "2"))
LAST = {"memory_format": torch.channels_last}


def measure(benchmark: Any, network: Callable[..., Any], *, last: bool = False, bf16: bool = False) -> None:
    x = torch.randn(BATCH, 3, 32, 32, device=DEVICE)
    x = x.to(**LAST) if last else x
    t = torch.arange(BATCH, device=DEVICE)

    def run() -> None:
        with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
            network(x, t)
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"forward, batch {BATCH}, {DEVICE}"
    benchmark.pedantic(run, rounds=5, warmup_rounds=2)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(UNetConfig()).to(DEVICE).eval()


def test_eager(benchmark: Any, network: UNet) -> None:
    measure(benchmark, network)


def test_channels_last(benchmark: Any, network: UNet) -> None:
    measure(benchmark, network.to(**LAST), last=True)


def test_bfloat16(benchmark: Any, network: UNet) -> None:
    measure(benchmark, network, bf16=True)


def test_bfloat16_channels_last(benchmark: Any, network: UNet) -> None:
    measure(benchmark, network.to(**LAST), last=True, bf16=True)


def test_compiled(benchmark: Any, network: UNet) -> None:
    measure(benchmark, torch.compile(network))


def test_compiled_bfloat16_channels_last(benchmark: Any, network: UNet) -> None:
    measure(benchmark, torch.compile(network.to(**LAST)), last=True, bf16=True)


def test_diffusers_eager(benchmark: Any) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    config = get_checkpoint_card("google/ddpm-cifar10-32").config
    measure(benchmark, diffusers.UNet2DModel(**config).to(DEVICE).eval())
