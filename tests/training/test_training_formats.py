"""A run that goes on in another memory format of its state would round otherwise, and be another run."""

import torch
from torch import nn

from bench.training.checkpoint import load_optimiser_tensors, optimiser_tensors


def test_an_optimiser_goes_on_in_the_memory_format_of_its_weights():
    network = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    first, other = (torch.optim.Adam(network.parameters()) for _ in range(2))
    network(torch.randn(2, 4, 8, 8)).sum().backward()
    first.step()
    kept = {
        name: tensor.contiguous() for name, tensor in optimiser_tensors(first).items()
    }  # as a file has it
    load_optimiser_tensors(other, kept)
    for name in ("exp_avg", "exp_avg_sq"):
        mine, before = other.state[network.weight][name], first.state[network.weight][name]
        assert torch.equal(mine, before)
        assert mine.stride() == network.weight.stride() == before.stride()
