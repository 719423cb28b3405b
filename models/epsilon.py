"""A network that predicts noise, as samplers see it."""

from __future__ import annotations

import hashlib
from functools import cached_property

import torch
from torch import Tensor, nn

from bench import NoiseSchedule, Prediction, Variance


class EpsilonNetwork(nn.Module):
    """A network with its diffusion: an :class:`bench.EpsilonModel`.

    Args:
        network: maps x (B, C, H, W) and t (B,) to (B, C, H, W), or to (B, 2C, H, W) with the raw variance in
            the second half of the channels.
        schedule: what it was trained on.
        shape: (C, H, W).
        variance: what the second half holds; with ``"fixed"`` it is ignored where there is one.
        rescale_timesteps: whether the network receives t 1000/T for the time step t
            (``rescale_timesteps`` of improved-diffusion).
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        shape: tuple[int, int, int],
        variance: Variance = "fixed",
        rescale_timesteps: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.shape = shape
        self.variance: Variance = variance
        self.rescale_timesteps = rescale_timesteps
        # Sinusoids embed any real time; a table of the best scalar predictor has the time steps only.
        self.continuous = not getattr(getattr(network, "config", None), "residual", 0)

    def forward(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict the noise in x (B, C, H, W) at the original time steps t (B,), in x's precision."""
        if self.rescale_timesteps:
            t = t.to(torch.float32) * (1000.0 / self.schedule.T)
        out = self.network(x, t).to(x.dtype)
        channels = self.shape[0]
        raw = None if self.variance == "fixed" else out[:, channels:]
        return Prediction(out[:, :channels], raw)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the weights and of everything else that decides what the model predicts."""
        digest = hashlib.sha256()
        for name, weight in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode())
            digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        digest.update(self.schedule.betas.numpy().tobytes())
        digest.update(f"{self.shape} {self.variance} {self.rescale_timesteps}".encode())
        return digest.hexdigest()
