"""The optimisers of a run: AdamW, or Muon for chosen weight matrices and AdamW for the rest."""

from __future__ import annotations

import re

import torch
from torch import nn

from bench.errors import UsageError
from bench.training.config import TrainConfig


def make_optimisers(config: TrainConfig, network: nn.Module) -> list[torch.optim.Optimizer]:
    """Return the run's optimisers; each group remembers its full learning rate as ``initial_lr``.

    Muon replaces the momentum of a weight matrix by its nearest semi-orthogonal one. Source: K. Jordan et al.
    2024, kellerjordan.github.io/posts/muon.

    Raises:
        UsageError: if Muon is asked for and torch lacks it, or no matrix is chosen.
    """
    named = dict(network.named_parameters())
    made: list[torch.optim.Optimizer] = []
    if config.optimiser == "muon":
        chosen = [n for n, p in named.items() if p.ndim == 2 and re.fullmatch(config.muon_parameters, n)]
        if not hasattr(torch.optim, "Muon"):
            raise UsageError(f"optimiser 'muon' needs torch 2.9, this is {torch.__version__}; use 'adam'")
        if not chosen:
            raise UsageError(f"muon_parameters={config.muon_parameters!r} matches no matrix; use 'adam'")
        matrices = [named.pop(n) for n in chosen]
        rate = config.muon_learning_rate
        made.append(torch.optim.Muon(matrices, rate, weight_decay=config.weight_decay, momentum=0.95))
    adam = torch.optim.AdamW(
        named.values(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=True,
    )
    made.append(adam)
    for optimiser in made:
        for group in optimiser.param_groups:
            group["initial_lr"] = group["lr"]
    return made
