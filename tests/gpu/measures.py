"""Everything that waits for a GPU, in parts: tests, ratios, a training run, its sweep and table.

    tox -e gpu -- --out DIR                        # all parts; what DIR holds already is not done again
    python tests/gpu/measures.py speed --out DIR   # one part
    python tests/gpu/measures.py --small --out DIR # the same on a CPU, in minutes, to see that it runs

Each part prints a line a number and keeps it in DIR/PART.json at once, so that a part that was stopped at any
moment goes on with the next number, and with the training and the sweep where they were. A part ends by
itself within --seconds. One that is not whole says so: the exit status is then 1, as where a part fails, and
the same command goes on. A part is measured anew where its file is deleted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.machine import ROOT, Findings, Unfinished, command, utilisation
from support.speed_of_modes import measured
from support.unets import random_network

from bench import EpsilonModel, NoiseSchedule, Prediction, get_sampler, make_grid, normal_noise
from bench.device.clock import Clock
from bench.device.modes import Mode
from bench.device.precision import PRECISIONS
from bench.records.store import Store
from bench.report.tables.scores import score_sheet
from bench.report.tables.sheets import plain
from bench.report.tables.table import tables_of
from bench.sweep.device_memory import device_needs
from bench.sweep.readiness import AS_IT_IS
from bench.sweep.speed import Setting, measure_overheads
from bench.sweep.worker import draw
from models import EpsilonNetwork, UNet, UNetConfig, load_checkpoint

SMALL = {"channels": 32, "widths": (32, 64), "attention": (False, False), "blocks": 1, "norm_groups": 8}
"""Options of the network that stands in for the 35.7 M one on a CPU."""

SAMPLERS = ("ddim:eta=0", "ddim:eta=1", "sigma-hat", "ddpm:variance=learned")
ADMITTED_BY = ("ddim:eta=0", "ddim:eta=1", "ddpm")
"""Samplers whose images a mode is held to."""

PRECISION = "tf32"
COMPILED = (("compile+channels_last", "bfloat16"), ("compile", "bfloat16"), ("compile", "tf32"))
"""What is compiled, at one batch: each takes a minute."""

COMPILING, REPORTING = 120.0, 60.0
"""Seconds that a network may take to be compiled and measured, and a sweep to be drawn up as a report."""

NAME = "cifar10-ddpm"
TRAINING = """
preset = "cifar10-ddpm"
data = {data}
network_options = {options}
batch = {batch}
steps = {steps}
learning_rate = 4e-4
warmup = {warmup}
decay = "linear"
decay_steps = {decay}
ema = {ema}
precision = "auto"
channels_last = true
compile = {compile}
log_every = {log}
checkpoint_every = {every}
pictures = {pictures}
"""
"""The preset for minutes, not days: a larger batch and learning rate, which falls to zero at the end, a short
average, and bf16 where the device computes in it."""


@dataclass(frozen=True)
class Machine:
    """One machine, its folder of results, and the size of what is done.

    Attributes:
        out: folder of results, from the root of the project.
        small: whether to do everything in a size for a CPU.
        data: images to train on and to score against.
        training_seconds: time for the training.
        n: samples a trial of the sweep.
        metrics: its scores.
    """

    out: Path
    small: bool
    data: str
    training_seconds: float
    n: int
    metrics: str

    @property
    def device(self) -> torch.device:
        """Where everything runs."""
        return torch.device("cpu" if self.small else "cuda")

    @property
    def batches(self) -> tuple[int, ...]:
        """Batches that are measured."""
        return (2,) if self.small else (256, 1024)

    @property
    def config(self) -> UNetConfig:
        """Options of the network."""
        return UNetConfig(**SMALL) if self.small else UNetConfig()

    @property
    def weights(self) -> Path:
        """The trained weights, from the root of the project, under the name that titles tell."""
        return self.out / NAME / f"{NAME}.safetensors"

    @property
    def is_trained(self) -> bool:
        """Whether they are there."""
        return (ROOT / self.weights).exists()

    def model(self) -> EpsilonModel:
        """Return the network with weights that nobody trained."""
        network = random_network(self.config).to(self.device).requires_grad_(False)
        return EpsilonNetwork(network, NoiseSchedule.linear(), (3, 32, 32))

    def grid_of(self, model: EpsilonModel):
        """Return the steps that samplers take."""
        return make_grid(model.schedule, 2 if self.small else 10)


Part = Callable[[Machine, Findings], None]


def check(machine: Machine, found: Findings) -> None:
    """Run every test that needs CUDA."""
    tests = sorted(
        str(path) for path in (ROOT / "tests").rglob("test_*.py") if "mark.cuda" in path.read_text()
    )

    def run() -> str:
        said = command(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", *tests, seconds=found.left
        )
        last = said.strip().splitlines()[-1]
        if not machine.small and "passed" not in last:
            raise RuntimeError(f"no test of CUDA ran: {last}")
        return last

    found.get("pytest", run)


def noise(machine: Machine, found: Findings) -> None:
    """Compare the counter-based noise with the CPU's numbers, and its time with that of torch.randn."""
    batch, shape = (64 if machine.small else 1024), (3, 32, 32)

    def gap() -> float:
        here = normal_noise(0, range(16), 1, shape, device=machine.device)
        return float((here.cpu() - normal_noise(0, range(16), 1, shape)).abs().max())

    def ratio() -> float:
        ours = _seconds(machine, lambda: normal_noise(0, range(batch), 1, shape, device=machine.device))
        return ours / _seconds(machine, lambda: torch.randn(batch, *shape, device=machine.device))

    found.get("largest difference from the CPU", gap)
    found.get("seconds over those of torch.randn", ratio)


def _seconds(machine: Machine, call: Callable[[], object], rounds: int = 5) -> float:
    """Return the median seconds of a call, the device waited for, after two calls to warm up."""
    taken = []
    for _ in range(rounds + 2):
        clock = Clock(machine.device)
        with clock.running():
            call()
        taken.append(clock.seconds)
    return sorted(taken[2:])[rounds // 2]


class _WithVariance:
    """A model whose network also says where the variance lies, at no cost."""

    variance = "learned_range"

    def __init__(self, model: EpsilonModel) -> None:
        self.model, self.schedule, self.shape = model, model.schedule, model.shape

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> Prediction:
        eps = self.model(x, t).eps
        return Prediction(eps, torch.zeros_like(eps))


def _subject(model: EpsilonModel, spec: str) -> EpsilonModel:
    """Return what a sampler can walk with."""
    return _WithVariance(model) if "learned" in spec else model


def overhead(machine: Machine, found: Findings) -> None:
    """Measure whole trajectories over as many bare calls of the network, in turns: 1 costs nothing."""
    model = machine.model()

    def ratio(spec: str, batch: int) -> dict[str, float]:
        setting = Setting(_subject(model, spec), machine.grid_of(model), machine.device, PRECISION)
        (one,) = measure_overheads(setting, [get_sampler(spec)], batch)
        if one.failure is not None:
            raise RuntimeError(one.failure.message)
        return {"median": one.ratio, "least": min(one.ratios), "greatest": max(one.ratios)}

    for batch in machine.batches:
        for spec in SAMPLERS:
            found.get(f"{spec}, batch {batch}", lambda spec=spec, batch=batch: ratio(spec, batch))


def utilised(machine: Machine, found: Findings) -> None:
    """Measure the share of the wall time in which the device computes while trajectories are drawn."""
    model = machine.model()

    def share(spec: str, batch: int) -> float:
        subject, sampler, grid = _subject(model, spec), get_sampler(spec), machine.grid_of(model)
        later = range(batch, 2 * batch)
        with torch.no_grad():
            return utilisation(
                lambda: draw(subject, sampler, grid, later, 0, PRECISION, machine.device), machine.device
            )

    for batch in machine.batches:
        for spec in SAMPLERS:
            found.get(f"{spec}, batch {batch}", lambda spec=spec, batch=batch: share(spec, batch))


def memory(machine: Machine, found: Findings) -> None:
    """Compare the memory that a sweep is estimated to need with the peak of drawing a block."""
    model = machine.model()
    needs = device_needs(EpsilonNetwork(UNet(machine.config).eval(), model.schedule, model.shape), [])

    def peak(batch: int) -> dict[str, float]:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        free = torch.cuda.mem_get_info()[0]
        grid = make_grid(model.schedule, 2)
        with torch.no_grad():
            draw(model, get_sampler("ddim"), grid, range(batch), 0, "float32", machine.device)
        taken = free - torch.cuda.mem_get_info()[0]
        return {"of tensors": torch.cuda.max_memory_allocated() / 2**30, "taken from the card": taken / 2**30}

    for batch in machine.batches:
        found.get(f"estimated GiB, batch {batch}", lambda batch=batch: needs.total(batch) / 2**30)
        if machine.device.type == "cuda":
            found.get(f"peak GiB, batch {batch}", lambda batch=batch: peak(batch))


def fid(machine: Machine, found: Findings) -> None:
    """Time FID from end to end beside torch-fidelity's, with and without TF32 on its side."""
    file = ROOT / machine.out / "fid-benchmark.json"

    def seconds() -> dict[str, float]:
        asked = [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "python_files=bench_*.py",
            "-o",
            "addopts=",
        ]
        asked += ["--benchmark-only", f"--benchmark-json={file}", "-k", "end_to_end", "tests/benchmarks"]
        images = "32" if machine.small else "5000"
        said = command(*asked, seconds=found.left, SAMPLER_BENCH_IMAGES=images)
        rows = json.loads(file.read_text())["benchmarks"] if file.exists() else []
        if len(rows) < 3:
            raise Unfinished(f"torch-fidelity or pytest-benchmark is not installed: {said.strip()[-300:]}")
        return {row["params"]["way"]: row["stats"]["min"] for row in rows}

    taken = found.get("seconds", seconds)
    for way in taken.keys() - {"here"}:
        found.get(f"{way} over ours", lambda way=way: taken[way] / taken["here"])


def pipelines(machine: Machine, found: Findings) -> None:
    """Draw images beside the schedulers of diffusers, of the same weights, in turns."""
    try:
        from support.pipelines import SPECS, Pipelines

        both = Pipelines(machine.device, 4 if machine.small else 20, small=machine.small)
    except ImportError as error:
        raise Unfinished(
            f"diffusers cannot be imported ({error}); install sampler-bench[diffusers]"
        ) from None
    found.get("images differ by, of the greatest value", lambda: both.difference(machine.batches[0]))
    for batch in (2,) if machine.small else (16, 256):
        for spec in SPECS:
            found.get(f"{spec}, batch {batch}", lambda spec=spec, batch=batch: both.compare(spec, batch))


def train(machine: Machine, found: Findings) -> None:
    """Train the CIFAR-10 network for about the seconds asked for: a short run tells the pace.

    Stopped at any moment, a run goes on from its checkpoint, to the same weights.
    """
    compiles = found.get("compiled", lambda: not machine.small and _has_compiler())
    batch, least = (8, 20) if machine.small else (256, 100)

    def pace() -> float:
        last = _trained(machine, found, "pace", batch, 10 if machine.small else 150, compiles)
        return float(last["images_per_second"])

    paced = found.get("images a second of a short run", pace, about=COMPILING)
    steps = found.get("steps", lambda: max(least, int(machine.training_seconds * paced / batch) // 10 * 10))

    def run() -> dict[str, float]:
        last = _trained(machine, found, NAME, batch, steps, compiles)
        return {"L_simple": float(last["simple"]), "images a second": float(last["images_per_second"])}

    try:
        found.get(f"{steps} steps of {batch}", run)
    except Unfinished as stopped:
        rows = _rows(machine, NAME)
        at = rows[-1]["step"] if rows else "0"
        raise Unfinished(f"{at} of {steps} steps are trained: {stopped}") from None
    finally:
        _name_weights(machine)


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))


def _trained(
    machine: Machine, found: Findings, name: str, batch: int, steps: int, compiles: bool
) -> dict[str, str]:
    """Train into a folder, or go on with what is there, and return the last row of the table."""
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in SMALL.items()}
    log = 5 if machine.small else 50
    recipe = ROOT / machine.out / f"{name}.toml"
    text = TRAINING.format(
        data=json.dumps(machine.data),
        options=_inline(options if machine.small else {}),
        batch=batch,
        steps=steps,
        warmup=steps // 20,
        decay=steps // 3,
        ema=0.9 if machine.small else 0.999,
        compile=str(compiles).lower(),
        log=log,
        every=max(log, steps // 10 // log * log),
        pictures=0 if machine.small else 36,
    )
    recipe.write_text(text)
    out = machine.out / name
    asked = ["-m", "bench", "train", str(recipe), "--out", str(out), "--device", machine.device.type]
    command(*asked, seconds=found.left)
    return _rows(machine, name)[-1]


def _inline(options: dict[str, object]) -> str:
    """Return a table of TOML on one line."""
    return "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in options.items()) + "}"


def _rows(machine: Machine, name: str) -> list[dict[str, str]]:
    """Return the whole rows of a training's table; none where it has not begun."""
    path = ROOT / machine.out / name / "metrics.csv"
    head, *rows = path.read_text().splitlines() if path.exists() else [""]
    names = head.split(",")
    return [
        dict(zip(names, row.split(","), strict=True)) for row in rows if row.count(",") == head.count(",")
    ]


def _name_weights(machine: Machine) -> None:
    """Copy the weights of the last checkpoint to a name that tells which model they are."""
    named = ROOT / machine.weights
    made = named.with_name("weights.safetensors")
    if made.exists():
        shutil.copyfile(made, named)


def speed(machine: Machine, found: Findings) -> None:
    """Measure every mode in every precision: images a second, how far off, and whether it is admitted.

    Last, what ``--mode auto --batch auto`` chooses for a sweep of 50,000 images.
    """
    trained = machine.is_trained
    model = load_checkpoint(ROOT / machine.weights) if trained else machine.model()
    kind = "" if trained else ", random weights"
    model.to(machine.device).eval().requires_grad_(False)
    first = machine.batches[0]

    def row(way: tuple[str, str], batch: int) -> dict[str, object]:
        samplers = ADMITTED_BY if batch == first else ()
        one = measured(model, NAME, way, batch, machine.device, samplers, turns=5)
        return asdict(one) if one.rate else {"refused": one.refused}

    for batch in machine.batches:
        for way in _ways(machine):
            found.get(f"{' '.join(way)}, batch {batch}{kind}", lambda way=way, batch=batch: row(way, batch))
    for way in COMPILED if _has_compiler() and not machine.small else ():
        found.get(f"{' '.join(way)}, batch {first}{kind}", lambda way=way: row(way, first), about=COMPILING)
    if not trained:
        raise Unfinished(
            "what --mode auto chooses needs trained weights: run the part `train`, then this one"
        )
    found.get("--mode auto --batch auto", lambda: _chosen(machine, found), about=COMPILING)


def _ways(machine: Machine) -> list[tuple[str, str]]:
    """Return (mode, precision) of what is made ready at once, the network as it is first."""
    if machine.small:
        return [AS_IT_IS, ("eager+channels_last", "float32"), ("cuda-graph", "float32")]
    modes = [str(Mode(engine, last)) for engine in ("eager", "cuda-graph") for last in (False, True)]
    return [(mode, precision) for mode in modes for precision in PRECISIONS]


def _chosen(machine: Machine, found: Findings) -> list[str]:
    """Return what a sweep says of the batch and the mode that it would take."""
    n = str(machine.n if machine.small else 50_000)
    said = command(
        *("-m", "bench", "run", "--dry-run", "--mode", "auto", "--batch", "auto", "--n", n),
        *("--samplers", *ADMITTED_BY, *_sweep_of(machine, machine.out / "auto")),
        seconds=found.left,
    )
    lines = [line.strip() for line in said.splitlines()]
    told = ("times as fast", "refused", "images a second", "does not work")
    return [line for line in lines if line.startswith("mode ") or any(words in line for words in told)]


def _sweep_of(machine: Machine, results: Path) -> list[str]:
    """Return the options of a sweep over the trained network."""
    return [
        *("--model", str(machine.weights), "--reference", machine.data),
        *("--metrics", machine.metrics, "--results", str(results)),
        *("--steps", "2" if machine.small else "10,20,50,100", "--device", machine.device.type),
    ]


def sweep(machine: Machine, found: Findings) -> None:
    """Sweep the papers' samplers over the trained network and write table, plots and report.

    Stopped at any moment, it goes on at the trial and the block where it was.
    """
    if not machine.is_trained:
        raise Unfinished("there are no trained weights: run the part `train`, then this one")
    results = machine.out / "results"
    batch = ("--batch", "10" if machine.small else "500")
    asked = ["-m", "bench", "run", "--samplers", "paper", "--n", str(machine.n), *_sweep_of(machine, results)]

    def run() -> str:
        command(*asked, "--precision", PRECISION, *batch, seconds=found.left - REPORTING)
        return f"{len(Store(ROOT / results).read()[0])} records in {results}"

    def report() -> str:
        command("-m", "bench", "report", "--results", str(results), seconds=found.left)
        return str(results / "report.html")

    try:
        found.get("swept", run, about=2 * REPORTING)
    except Unfinished as stopped:
        print(_table(ROOT / results), flush=True)
        done = len(Store(ROOT / results).read()[0])
        raise Unfinished(f"{done} records are there: {stopped}") from None
    found.get("report", report, about=REPORTING)
    found.get("table", lambda: "\n" + _table(ROOT / results))


def _table(results: Path) -> str:
    """Return the scores of a folder as text."""
    return "\n".join(plain(score_sheet(table)) for table in tables_of(Store(results).read()[0]))


PARTS: dict[str, Part] = {
    "check": check,
    "noise": noise,
    "overhead": overhead,
    "utilisation": utilised,
    "memory": memory,
    "fid": fid,
    "pipelines": pipelines,
    "train": train,
    "speed": speed,
    "sweep": sweep,
}


def do(name: str, machine: Machine, seconds: float) -> bool:
    """Do a part, or what is left of it, and return whether it is whole."""
    began = time.perf_counter()
    found = Findings(
        ROOT / machine.out / f"{name}.json", seconds, lambda line: print(f"{name}: {line}", flush=True)
    )
    if found.whole:
        print(f"{name}: done before, {found.path}", flush=True)
        return True
    try:
        PARTS[name](machine, found)
        found.whole = True
    except Unfinished as stopped:
        print(f"{name}: not whole, the same command goes on: {stopped}", flush=True)
    except Exception:
        print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
    device = torch.cuda.get_device_name() if machine.device.type == "cuda" else "CPU"
    found.write(device=device, torch=torch.__version__)
    print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    return found.whole


def _images(folder: Path) -> str:
    """Write images that stand in for CIFAR-10, smooth ones, and return what names them."""
    path = folder / "images.npz"
    if not path.exists():
        coarse = torch.rand(64, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        fine = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
        np.savez(path, images=(255 * fine).to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return str(path)


def main(arguments: list[str] | None = None) -> int:
    """Do the parts that were asked for and are not done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), metavar="DIR", help="[results/gpu]")
    parser.add_argument("--small", action="store_true", help="in a size for a CPU")
    parser.add_argument("--data", help="images to train on and to score against [cifar10]")
    parser.add_argument("--training-seconds", type=float, help="time for the training [360]")
    parser.add_argument("--n", type=int, help="samples a trial of the sweep [2000]")
    parser.add_argument("--metrics", help="scores of the sweep [fd_inception_768]")
    parser.add_argument("--seconds", type=float, default=600, help="longest time of a part [600]")
    options = parser.parse_args(arguments)
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; known: {', '.join(PARTS)}")
    if not options.small and not torch.cuda.is_available():
        parser.error("no CUDA device is there; --small does the same in a size for a CPU")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    data = options.data or (_images(out) if options.small else "cifar10")
    machine = Machine(
        out.relative_to(ROOT) if out.is_relative_to(ROOT) else out,  # records name the model by it
        options.small,
        data,
        options.training_seconds or (1 if options.small else 360),
        options.n or (20 if options.small else 2000),
        options.metrics or ("fd_pooled" if options.small else "fd_inception_768"),
    )
    whole = [do(name, machine, options.seconds) for name in options.parts or PARTS]
    return int(not all(whole))


if __name__ == "__main__":
    sys.exit(main())
