"""Whole pipelines beside those of diffusers: from noise to images, of one network's weights, in turns."""

from collections.abc import Mapping
from statistics import median

import torch

from bench import NoiseSchedule, TrajectoryNoise, get_sampler, make_grid
from bench.data.images import to_uint8
from bench.device.precision import allow_tf32
from bench.sweep.speed import in_turns
from bench.sweep.worker import draw
from models import EpsilonNetwork, get_checkpoint_card
from models.families import find_family
from support.machine import wall_seconds
from support.ratios import STEPPERS
from support.unets import CONFIGS, export, random_network

SPECS = ("ddim:eta=0", "ddim:eta=1", "ddpm", "dpmpp-2m")
PRECISION = "tf32"


class Pipelines:
    """Our U-Net and that of diffusers with the same weights, and what draws with them.

    Args:
        device: where they are.
        steps: of a trajectory.
        small: whether they are of a size for a CPU instead of the 35.7 M parameters of DDPM's for CIFAR-10.
    """

    def __init__(self, device: torch.device, steps: int, *, small: bool) -> None:
        import diffusers

        diffusers.logging.set_verbosity_error()
        self._schedulers, self.device, self.steps = diffusers, device, steps
        config = CONFIGS["diffusers"] if small else get_checkpoint_card("google/ddpm-cifar10-32").config
        assert isinstance(config, Mapping)
        ours = random_network(find_family("diffusers").read({"resnet_time_scale_shift": "default", **config}))
        theirs = diffusers.UNet2DModel(**config).eval()
        theirs.load_state_dict(export("diffusers", ours))
        self.ours = ours.to(device).requires_grad_(False)
        self.theirs = theirs.to(device).requires_grad_(False)
        side = config["sample_size"]
        self.model = EpsilonNetwork(self.ours, NoiseSchedule.linear(), (3, side, side))
        self.grid = make_grid(self.model.schedule, steps)

    @torch.no_grad()
    def difference(self, batch: int) -> float:
        """Return the greatest difference of what DDIM ends in, of the greatest value, from one noise."""
        x = TrajectoryNoise(0, range(batch), self.model.shape, self.device).initial()
        ours = self._drawn("ddim:eta=0", range(batch))
        theirs = self._walked("ddim:eta=0", self._network, x)
        return float((ours - theirs).abs().max() / ours.abs().max())

    def compare(self, spec: str, batch: int, turns: int = 5) -> dict[str, float]:
        """Measure ours, their scheduler around our network, and their scheduler around theirs, in turns.

        Ours is what a sweep does: counter-based noise, checks of every answer and of the result.
        """
        later = range(batch, 2 * batch)  # of the first samples a sweep keeps pictures, which takes time once

        def noise():
            return torch.randn(batch, *self.model.shape, device=self.device)

        works = [
            lambda: to_uint8(self._drawn(spec, later)),
            lambda: _rounded(self._walked(spec, self.ours, noise())),
            lambda: _rounded(self._walked(spec, self._network, noise())),
        ]
        with torch.no_grad():
            clocks = [lambda work=work: wall_seconds(work, self.device) for work in works]
            own, loop, whole = in_turns(clocks, turns)
        return {
            "images a second": batch / median(own),
            "times as fast as their loop around our network": _ratio(loop, own),
            "as their loop around their network": _ratio(whole, own),
        }

    def _network(self, x, t):
        return self.theirs(x, t).sample

    def _drawn(self, spec, indices):
        return draw(self.model, get_sampler(spec), self.grid, indices, 0, PRECISION, self.device).x0

    def _walked(self, spec, network, x):
        """Return where a scheduler's loop ends, as the pipelines of diffusers have it."""
        allow_tf32(PRECISION == "tf32")
        name, options, asked, *_ = STEPPERS[spec]
        scheduler = getattr(self._schedulers, name)(num_train_timesteps=1000, **options)
        scheduler.set_timesteps(self.steps)
        for t in scheduler.timesteps:
            answer = network(x, t.to(self.device).expand(len(x)))
            x = scheduler.step(answer, t, x, **asked).prev_sample
        return x


def _rounded(x):
    """Return images as the pipelines of diffusers make them: uint8."""
    return ((x / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)


def _ratio(theirs, ours):
    return median(a / b for a, b in zip(theirs, ours, strict=True))
