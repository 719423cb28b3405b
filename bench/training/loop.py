"""The training loop: any network, data and schedule; resumes bit-exactly after a kill at any moment."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.data.images import from_uint8
from bench.data.sets import ImageData
from bench.device.bfloat16 import computes_bfloat16
from bench.diffusion.interfaces import Variance
from bench.errors import UsageError
from bench.plugins.lookup import weights_hash
from bench.records.trainings import TRAINING_TABLE
from bench.training.autoencoder import latents_of, make_autoencoder
from bench.training.checkpoint import (
    load_into,
    load_optimiser_tensors,
    named,
    optimiser_tensors,
    read_safetensors,
    under,
    write_safetensors,
)
from bench.training.config import TrainConfig
from bench.training.disk import TrainingError, disk_errors, prepare_folder
from bench.training.draws import Draw, batch_indices, derived_seed, step_generator
from bench.training.ema import MovingAverage
from bench.training.losses import DiffusionLoss
from bench.training.optimisers import make_optimisers
from bench.training.pictures import Averaged, draw_samples, plot_losses, save_samples
from bench.training.processes import Processes, without_exchange
from bench.training.setup import SelfDescribing, load_training_images, make_network
from bench.training.table import MetricsTable, Progress, write_losses_by_t
from bench.training.timesteps import make_timesteps

CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"
LOSS_BY_T = "loss_by_t.csv"
LOSS_PLOT, SAMPLES = "loss.png", "samples-{step:07d}.png"


@dataclass(frozen=True)
class TrainResult:
    """What a finished run leaves.

    Attributes:
        weights: the averaged weights at the last checkpoint, safetensors.
        metrics: the table, CSV.
        loss_by_t: mean losses over ranges of t, CSV.
        steps: optimiser steps done in all.
        resumed_at: the step this call began with.
    """

    weights: Path
    metrics: Path
    loss_by_t: Path
    steps: int
    resumed_at: int


def train(
    config: TrainConfig,
    out_dir: Path | str,
    *,
    resume: bool = True,
    device: torch.device | str = "cpu",
    report: Callable[[Progress], None] | None = None,
    stop_after: int | None = None,
    strict: bool = False,
    warn: Callable[[str], None] = warnings.warn,
) -> TrainResult:
    """Train as ``config`` says, leaving checkpoint, averaged weights, tables and pictures in ``out_dir``.

    A second call goes on from the last checkpoint, and ends with the same weights to the last bit as one
    that was never interrupted, given the same machine, number of threads and versions.

    Among the processes of `bench.training.processes.joined` each takes its share of every batch, and the
    first writes. K micro-batches on each of N processes give what K N give on one, to rounding, dropout
    included; without dropout any division of the batch does.

    Args:
        config: the run.
        out_dir: made where it does not exist.
        resume: whether to go on from a checkpoint found there; otherwise an existing one is an error.
        device: where to compute.
        report: called with the progress at every row of the table.
        stop_after: end early, with a checkpoint, after this many steps in all.
        strict: whether a training image that cannot be decoded is an error.
        warn: called with a sentence that names those left out, and one where bf16 is not to be had.

    Raises:
        UsageError: if there are no images, or ``out_dir`` holds a run with another config or a broken
            checkpoint.
        TrainingError: if the loss or the weights are no longer finite, or the disk is full; the last
            checkpoint stays as it is.
    """
    out, device = Path(out_dir), torch.device(device)
    prepare_folder(out)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        run = _Run(config, out, device, load_training_images(config, strict, warn))
        resumed_at = run.restore(resume)
        run.processes.agree(resumed_at)
        for sentence in run.told_of_precision():
            warn(sentence)
        end = config.steps if stop_after is None else min(stop_after, config.steps)
        with disk_errors(out):
            run.go(end, report)
    return TrainResult(out / WEIGHTS, out / TRAINING_TABLE, out / LOSS_BY_T, run.step, resumed_at)


def _precision(config: TrainConfig, device: torch.device) -> str:
    """Return what a run computes its network in: ``float32`` or ``bf16``."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if computes_bfloat16(device) else "float32"


class _Run:
    """One training run and all of its state."""

    def __init__(self, config: TrainConfig, out: Path, device: torch.device, data: ImageData) -> None:
        self.config, self.out, self.device = config, out, device
        self.autoencoder = make_autoencoder(config)
        self.data_hash, x0 = data.hash, data.images
        if self.autoencoder is not None:
            x0 = latents_of(self.autoencoder, data.images)
            self.data_hash = f"{data.hash[:16]} {weights_hash(self.autoencoder)}"
            self.autoencoder.to(device)
        self.images = x0.to(device)
        self.precision = _precision(config, device)
        self.labels = data.labels
        self.no_label = 0 if data.labels is None else int(data.labels.max()) + 1
        if config.label_dropout is not None and self.labels is None:
            raise UsageError(f"label_dropout needs images with labels, and {config.data} has none")
        self.schedule = config.make_schedule()
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        network = make_network(config, x0, self.schedule).to(device)
        self.network = network.to(memory_format=self.layout)
        self.average = MovingAverage(self.network)
        self._description()  # what cannot be described fails now and not at the first checkpoint
        self.processes = Processes.present()
        self.parallel = self.processes.wrap(self.network, device)
        self.forward: Callable[..., Tensor] = (
            torch.compile(self.parallel) if config.compile else self.parallel
        )
        self.parts = self._own_parts()
        self.optimisers = make_optimisers(config, self.network)
        self.loss = DiffusionLoss(
            self.schedule,
            config.objective,
            config.variance,
            config.vlb_weight,
            device,
            discrete=self.autoencoder is None,
        )
        self.timesteps = make_timesteps(config.timestep_sampling, config.timesteps)
        self.table = MetricsTable(out / TRAINING_TABLE)
        self.step = 0
        self.seconds = 0.0
        self.by_t = torch.zeros(3, config.timesteps, dtype=torch.float64)  # count, L_simple, L_vlb
        self._clear()

    def _clear(self) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64)  # loss, L_simple, L_vlb, gradient norm
        self.since = time.perf_counter()

    def _own_parts(self) -> dict[int, Tensor]:
        """Return this process's micro-batches: number within the global batch -> places in it."""
        config, size = self.config, self.processes.size
        count = config.accumulate * size
        if config.batch % count:
            raise UsageError(
                f"batch {config.batch} does not divide into {config.accumulate} micro-batches on each of"
                f" {size} processes; choose a multiple of {count}"
            )
        parts = enumerate(torch.arange(config.batch).chunk(count))
        return {i: part for i, part in parts if i // config.accumulate == self.processes.rank}

    def restore(self, resume: bool) -> int:
        path = self.out / CHECKPOINT
        if not path.exists():
            if self.processes.writes:
                self.table.begin(0)
            return 0
        if not resume:
            raise UsageError(f"{path} exists; continue it, delete it, or choose another folder")
        tensors, metadata = read_safetensors(path)
        for key, mine in (("config_hash", self.config.hash), ("data_hash", self.data_hash)):
            if str(metadata.get(key)) != mine:  # a hash of digits alone reads as a number
                raise UsageError(
                    f"{path} belongs to another run ({key} {metadata.get(key)}, not {mine}); choose another"
                    " folder"
                )
        load_into(self.network, under("network", tensors), str(path))
        load_into(self.average.module, under("average", tensors), str(path))
        for index, optimiser in enumerate(self.optimisers):
            load_optimiser_tensors(optimiser, under(f"optimiser{index}", tensors))
        self.timesteps.load_state(under("timesteps", tensors))
        self.by_t, self.sums = tensors["by_t"], tensors["sums"]
        self.step, self.seconds = int(metadata["step"]), float(metadata["seconds"])
        if self.config.precision == "auto":
            self.precision = metadata.get("precision", "bf16")  # a run goes on as it began, on any machine
        if self.processes.writes:
            self.table.begin(self.step)
        return self.step

    def told_of_precision(self) -> Iterator[str]:
        """Yield a sentence where the network is not computed in bf16 as asked, or only with great pains."""
        if self.config.precision == "float32" or computes_bfloat16(self.device):
            return
        here = f"this {'GPU' if self.device.type != 'cpu' else 'processor'} does not compute in bf16 itself"
        if self.precision == "float32":
            yield f"precision: float32, since {here}"
        else:
            yield f"{here}: it is emulated, which takes many times as long; precision = 'float32' does not"

    def go(self, end: int, report: Callable[[Progress], None] | None) -> None:
        if self.step and self.processes.writes and not self._samples.exists():
            self._show()  # a kill came between the checkpoint and its pictures
        self.since = time.perf_counter()
        while self.step < end:
            self.sums += self._optimise(self.draw(self.step))
            self.step += 1
            if not self.processes.writes:
                continue
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                self._log(report)
            if self.step % self.config.checkpoint_every == 0 or self.step == end:
                self._check_finite()
                self._save_weights()  # first: a kill between the two leaves a checkpoint to make both from
                self._save()
                self._show()
        if self.step == self.config.steps and self.processes.writes:
            write_losses_by_t(self.out / LOSS_BY_T, self.by_t)
        self.processes.wait()

    def draw(self, step: int) -> Draw:
        config, generator = self.config, step_generator(self.config.seed, step)
        t, weights = self.timesteps.draw(config.batch, generator)
        return Draw(
            batch_indices(config.seed, step, config.batch, len(self.images)),
            t,
            weights,
            torch.randn(config.batch, *self.images.shape[1:], generator=generator),
            torch.rand(config.batch, generator=generator) < 0.5,
            derived_seed(generator),
            None
            if config.label_dropout is None
            else torch.rand(config.batch, generator=generator) < config.label_dropout,
        )

    def _optimise(self, draw: Draw) -> Tensor:
        config = self.config
        self.network.train()
        share = config.rate_share_at(self.step)
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * share
        found = []
        for number, part in self.parts.items():
            # By its number, so that the masks do not depend on which process draws them.
            torch.manual_seed(draw.dropout_seed + number)
            last = number == max(self.parts)
            with nullcontext() if last else without_exchange(self.parallel):
                losses = self._losses(draw, part)
                loss = (draw.weights[part].to(self.device) * losses.total).sum() / config.batch
                (loss * self.processes.size).backward()  # the processes' gradients are averaged
            found.append(torch.stack([losses.total.detach(), losses.simple, losses.vlb]).double())
        values = self.processes.gather(torch.cat(found, 1).cpu())
        self.timesteps.update(draw.t, values[0])
        totals = (values * draw.weights.double()).sum(1) / config.batch
        self.by_t[0].index_add_(0, draw.t, torch.ones(config.batch, dtype=torch.float64))
        self.by_t[1:].index_add_(1, draw.t, values[1:])
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        if not (torch.isfinite(totals).all() and torch.isfinite(norm)):
            raise TrainingError(
                f"the loss or its gradient is not finite at step {self.step}; lower the learning rate"
                f" {config.learning_rate:g} or lengthen the warm-up, the last checkpoint is kept"
            )
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update(config.ema_at(self.step))
        return torch.cat([totals, norm.detach().cpu().double().view(1)])

    def _losses(self, draw: Draw, part: Tensor) -> Any:
        config = self.config
        x0 = self.images[draw.indices[part].to(self.device)]
        if config.flip:
            x0 = torch.where(draw.flips[part].to(self.device).view(-1, 1, 1, 1), x0.flip(3), x0)
        x0 = from_uint8(x0) if self.autoencoder is None else x0
        x0 = x0.contiguous(memory_format=self.layout)
        t, noise = draw.t[part].to(self.device), draw.noise[part].to(self.device)
        x_t = self.loss.diffuse(x0, t, noise)
        times = t * (1000.0 / config.timesteps) if config.rescale_timesteps else t
        condition = () if draw.hidden is None else (self._labels_of(draw.indices[part], draw.hidden[part]),)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            output = self.forward(x_t, times, *condition)
        return self.loss(output, x0, x_t, t, noise)

    def _labels_of(self, indices: Tensor, hidden: Tensor) -> Tensor:
        """Return the labels of some images, those that are hidden as K."""
        assert self.labels is not None  # the run began with labels
        return torch.where(hidden, self.no_label, self.labels[indices]).to(self.device)

    def _log(self, report: Callable[[Progress], None] | None) -> None:
        now, config = time.perf_counter(), self.config
        steps = self.step % config.log_every or config.log_every
        elapsed = now - self.since
        self.seconds += elapsed
        loss, simple, vlb, norm = (self.sums / steps).tolist()
        pace = steps * config.batch / elapsed
        rate = config.learning_rate * config.rate_share_at(self.step - 1)
        images, seconds = self.step * config.batch, round(self.seconds, 1)
        self.table.append(self.step, images, loss, simple, vlb, norm, rate, round(pace, 1), seconds)
        self._clear()
        if report is not None:
            left = (config.steps - self.step) * config.batch / pace
            report(Progress(self.step, config.steps, loss, simple, pace, left))

    def _metadata(self) -> dict[str, Any]:
        return {
            "config": self.config.to_json(),
            "config_hash": self.config.hash,
            "precision": self.precision,
            "data_hash": self.data_hash,
            "step": self.step,
            "seconds": round(self.seconds, 1),
            "torch": str(torch.__version__),
        }

    def _check_finite(self) -> None:
        """See to it that no checkpoint is overwritten by one that nothing can be done with."""
        for name, weight in self.network.state_dict().items():
            if not bool(torch.isfinite(weight).all()):
                raise TrainingError(
                    f"{name} is not finite after step {self.step - 1}; lower the learning rate"
                    f" {self.config.learning_rate:g} or lengthen the warm-up, the last checkpoint is kept"
                )

    def _save(self) -> None:
        tensors = (
            named("network", self.network.state_dict())
            | named("average", self.average.module.state_dict())
            | named("timesteps", self.timesteps.state())
            | {"by_t": self.by_t, "sums": self.sums}
        )
        for index, optimiser in enumerate(self.optimisers):
            tensors |= named(f"optimiser{index}", optimiser_tensors(optimiser))
        write_safetensors(self.out / CHECKPOINT, tensors, self._metadata())

    def _save_weights(self) -> None:
        metadata = self._metadata() | self._description()
        write_safetensors(self.out / WEIGHTS, self.average.module.state_dict(), metadata)

    def _description(self) -> dict[str, str]:
        """Return what the network says of itself for its weight file."""
        config, network = self.config, self.average.module
        if not isinstance(network, SelfDescribing):
            return {}
        variance: Variance = "learned_range" if config.variance == "learned_range" else "fixed"
        return network.weight_metadata(self.schedule, variance, config.rescale_timesteps)

    @property
    def _samples(self) -> Path:
        return self.out / SAMPLES.format(step=self.step)

    def _show(self) -> None:
        config, began = self.config, time.perf_counter()
        if not config.pictures:
            return
        if self.step >= config.log_every:
            plot_losses(self.out / LOSS_PLOT, self.table.read(), config.name)
        _, channels, height, width = self.images.shape
        shape = (channels, height, width)
        model = Averaged(self.average.module, self.schedule, shape, config.rescale_timesteps)
        decode = {} if self.autoencoder is None else {"decode": self.autoencoder.decode}
        drawn = draw_samples(model, config.pictures, self.device, **decode)
        save_samples(self._samples, drawn)
        self.since += time.perf_counter() - began  # the pace is that of training
