"""Everything that waits for a GPU, in parts: tests, ratios, a training run, its sweep and table.

    tox -e gpu -- --out DIR                       # all parts; those that are done in DIR are not done again
    python tests/gpu/measures.py speed --out DIR   # one part
    python tests/gpu/measures.py --small --out DIR # the same on a CPU, in minutes, to see that it runs

Each part writes DIR/PART.json and prints a line a number. A part that fails costs itself; the exit status is
then 1, and the same command tries it again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bench import EpsilonModel, NoiseSchedule, Prediction, get_sampler, make_grid, normal_noise
from bench.device.clock import Clock
from bench.sweep.device_memory import device_needs
from bench.sweep.worker import draw
from models import EpsilonNetwork, UNet, UNetConfig

SMALL = {"channels": 32, "widths": (32, 64), "attention": (False, False), "blocks": 1, "norm_groups": 8}
"""Options of the network that stands in for the 35.7 M one on a CPU."""

ROOT = Path(__file__).parents[2]
SAMPLERS = ("ddim:eta=0", "ddim:eta=1", "sigma-hat", "ddpm:variance=learned")
MODES = ("float32", "tf32", "float16", "bfloat16")

TRAINING = """
name = "cifar10-ddpm"
network = "models.unet_training:make_unet"
network_options = {options}
data = "cifar10"
flip = true
batch = {batch}
steps = {steps}
learning_rate = 4e-4
warmup = {warmup}
decay = "linear"
decay_steps = {decay}
ema = 0.999
precision = "bf16"
channels_last = true
compile = {compile}
log_every = 50
checkpoint_every = {every}
"""
"""The preset cifar10-ddpm for minutes, not days: a larger batch and learning rate, which falls to zero at
the end, and an average over the last thousand steps instead of ten thousand."""


class Machine:
    """One machine, its folder of results, and the size of what is done.

    Args:
        out: folder of results.
        small: whether to do everything in a size for a CPU.
        training_seconds: time for the training.
        n: samples a trial of the sweep.
        seconds: longest time of one part.
    """

    def __init__(self, out: Path, small: bool, training_seconds: float, n: int, seconds: float) -> None:
        self.out, self.small, self.n, self.seconds = out, small, n, seconds
        self.training_seconds = training_seconds
        self.batch, self.steps = (8, 50) if small else (256, 100)
        self.device = torch.device("cpu" if small else "cuda")
        self.config = UNetConfig(**SMALL) if small else UNetConfig()
        self.batches = (2,) if small else (256, 1024)

    def network(self) -> UNet:
        torch.manual_seed(0)
        return UNet(self.config).to(self.device).eval().requires_grad_(False)

    def model(self) -> EpsilonModel:
        return EpsilonNetwork(self.network(), NoiseSchedule.linear(), (3, 32, 32))

    def seconds_of(self, call: Callable[[], object], rounds: int = 5) -> float:
        """Return the median seconds of a call, the device waited for, after two calls to warm up."""
        taken = []
        for _ in range(rounds + 2):
            clock = Clock(self.device)
            with clock.running():
                call()
            taken.append(clock.seconds)
        return sorted(taken[2:])[rounds // 2]

    def command(self, *arguments: str, **environment: str) -> str:
        """Run a command from the root of the project and return what it printed; it may take `seconds`."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.seconds,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
        return done.stdout


def check(machine: Machine) -> Mapping[str, Any]:
    """Run every test that needs CUDA."""
    said = machine.command("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "tests")
    return {"pytest": said.strip().splitlines()[-1]}


def noise(machine: Machine) -> Mapping[str, Any]:
    """Compare the counter-based noise with the CPU's numbers, and its time with that of torch.randn."""
    batch, shape = (64 if machine.small else 1024), (3, 32, 32)
    here = normal_noise(0, range(16), 1, shape, device=machine.device)
    gap = float((here.cpu() - normal_noise(0, range(16), 1, shape)).abs().max())
    ours = machine.seconds_of(lambda: normal_noise(0, range(batch), 1, shape, device=machine.device))
    theirs = machine.seconds_of(lambda: torch.randn(batch, *shape, device=machine.device))
    return {"largest difference from the CPU": gap, "seconds over those of torch.randn": ours / theirs}


def speed(machine: Machine) -> Mapping[str, Any]:
    """Measure bare calls in every precision and memory format, and the sampling loop over bare calls."""
    found: dict[str, Any] = {}
    for batch in machine.batches:
        found |= _calls(machine, batch) | _overhead(machine, batch)
    return found


def _calls(machine: Machine, batch: int) -> dict[str, Any]:
    found = {}
    t = torch.full((batch,), 500, device=machine.device)
    for last in (False, True):
        layout = torch.channels_last if last else torch.contiguous_format
        x = torch.randn(batch, 3, 32, 32, device=machine.device).to(memory_format=layout)
        network = machine.network().to(memory_format=layout)
        for mode in MODES[:1] if machine.small else MODES:
            compiled = [False, True] if last and mode == "bfloat16" and batch == 256 else [False]
            for compile_ in compiled:  # which takes a minute: once is enough
                call = torch.compile(network) if compile_ else network
                torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode == "tf32"
                dtype = getattr(torch, mode.replace("tf32", "float32"))
                with (
                    torch.inference_mode(),
                    torch.autocast(machine.device.type, dtype, dtype != torch.float32),
                ):
                    taken = machine.seconds_of(lambda call=call, x=x: call(x, t))
                words = [mode, *(["channels_last"] if last else []), *(["compiled"] if compile_ else [])]
                found[f"images a second, batch {batch}, {' '.join(words)}"] = batch / taken
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    return found


def _overhead(machine: Machine, batch: int) -> dict[str, Any]:
    """Return whole trajectories over the network's own share of them."""
    found, steps = {}, 2 if machine.small else 10
    model = machine.model()
    for spec in SAMPLERS:
        whole = []
        learned = "learned" in spec
        subject = _WithVariance(model) if learned else model
        grid = make_grid(model.schedule, steps)
        for _ in range(3):
            started = time.perf_counter()
            with torch.inference_mode():
                drawn = draw(subject, get_sampler(spec), grid, range(batch), 0, "tf32", machine.device)
            whole.append((time.perf_counter() - started, drawn.cost.model_seconds))
        taken, network = min(whole)
        found[f"{spec}: whole block over network calls, batch {batch}"] = taken / network
    return found


class _WithVariance:
    """A model whose network also says where the variance lies, at no cost."""

    variance = "learned_range"

    def __init__(self, model: EpsilonModel) -> None:
        self.model, self.schedule, self.shape = model, model.schedule, model.shape

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> Prediction:
        eps = self.model(x, t).eps
        return Prediction(eps, torch.zeros_like(eps))


def memory(machine: Machine) -> Mapping[str, Any]:
    """Compare the memory that a sweep is estimated to need with the peak of drawing a block."""
    model, found = machine.model(), {}
    cpu = EpsilonNetwork(UNet(machine.config).eval(), model.schedule, model.shape)
    needs = device_needs(cpu, [])
    for batch in machine.batches:
        found[f"estimated GiB, batch {batch}"] = needs.total(batch) / 2**30
        if machine.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            free = torch.cuda.mem_get_info()[0]
            grid = make_grid(model.schedule, 2)
            with torch.inference_mode():
                draw(model, get_sampler("ddim"), grid, range(batch), 0, "float32", machine.device)
            found[f"peak GiB of tensors, batch {batch}"] = torch.cuda.max_memory_allocated() / 2**30
            found[f"GiB taken from the card, batch {batch}"] = (free - torch.cuda.mem_get_info()[0]) / 2**30
    return found


def fid(machine: Machine) -> Mapping[str, Any]:
    """Time FID from end to end beside torch-fidelity's, with and without TF32 on its side."""
    file = machine.out / "fid-benchmark.json"
    machine.command(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "python_files=bench_*.py", "-o", "addopts="),
        *("--benchmark-only", f"--benchmark-json={file.resolve()}", "-k", "end_to_end", "tests/benchmarks"),
        SAMPLER_BENCH_IMAGES="32" if machine.small else "5000",
    )
    rows = json.loads(file.read_text())["benchmarks"]
    seconds = {row["params"]["way"]: row["stats"]["min"] for row in rows}
    return {f"seconds, {way}": taken for way, taken in seconds.items()} | {
        f"{way} over ours": taken / seconds["here"] for way, taken in seconds.items() if way != "here"
    }


def train(machine: Machine) -> Mapping[str, Any]:
    """Train the CIFAR-10 network for about the seconds asked for: a short run tells the pace."""
    pace = float(_trained(machine, machine.out / "pace", 10 if machine.small else 150)["images_per_second"])
    steps = max(machine.steps, int(machine.training_seconds * pace / machine.batch) // 100 * 100)
    last = _trained(machine, machine.out / "cifar10-ddpm", steps)
    return {"steps": steps, "L_simple": last["simple"], "images a second": last["images_per_second"]}


def _trained(machine: Machine, out: Path, steps: int) -> dict[str, str]:
    """Train into a folder and return the last row of the table."""
    options = {"dropout": 0.1, **(SMALL if machine.small else {})}
    listed = ", ".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    recipe = machine.out / f"{out.name}.toml"
    recipe.write_text(
        TRAINING.format(
            options=f"{{{listed}}}",
            batch=machine.batch,
            steps=steps,
            warmup=steps // 20,
            decay=steps // 3,
            every=max(50, steps // 4 // 50 * 50),
            compile=str(not machine.small).lower(),
        )
    )
    machine.command("-m", "bench", "train", str(recipe), "--out", str(out), "--device", machine.device.type)
    rows = (out / "metrics.csv").read_text().splitlines()
    return dict(zip(rows[0].split(","), rows[-1].split(","), strict=True))


def sweep(machine: Machine) -> Mapping[str, Any]:
    """Sweep every sampler over the trained network and write table, plots and report."""
    results = machine.out / "results"
    named = machine.out / "cifar10-ddpm" / "cifar10-ddpm.safetensors"  # so that titles tell which model it is
    shutil.copyfile(named.with_name("weights.safetensors"), named)
    asked = ["run", "--model", str(named), "--samplers", "all"]
    asked += ["--reference", "cifar10", "--n", str(machine.n), "--results", str(results)]
    asked += ["--metrics", "fd_inception_768" if not machine.small else "fd_pixels"]
    asked += ["--steps", "10,20,50,100" if not machine.small else "2"]
    asked += ["--device", machine.device.type, "--precision", "tf32", "--batch", "500"]
    try:
        machine.command("-m", "bench", *asked)
    finally:
        machine.command("-m", "bench", "table", "--results", str(results))
    machine.command("-m", "bench", "report", "--results", str(results))
    return {"table": machine.command("-m", "bench", "table", "--results", str(results))}


PARTS: dict[str, Callable[[Machine], Mapping[str, Any]]] = {
    part.__name__: part for part in (check, noise, speed, memory, fid, train, sweep)
}


def main() -> int:
    """Do the parts that were asked for and are not done yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} [all]")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), metavar="DIR", help="[results/gpu]")
    parser.add_argument("--small", action="store_true", help="in a size for a CPU")
    parser.add_argument("--training-seconds", type=float, help="time for the training [400]")
    parser.add_argument("--n", type=int, help="samples a trial of the sweep")
    parser.add_argument("--seconds", type=float, default=600, help="longest time of a part [600]")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; known: {', '.join(PARTS)}")
    if not options.small and not torch.cuda.is_available():
        parser.error("no CUDA device is there; --small does the same in a size for a CPU")
    machine = Machine(
        options.out,
        options.small,
        options.training_seconds or (1 if options.small else 400),
        options.n or (20 if options.small else 2000),
        options.seconds,
    )
    machine.out.mkdir(parents=True, exist_ok=True)
    failed = False
    for name in options.parts or PARTS:
        file = machine.out / f"{name}.json"
        if file.exists():
            print(f"{name}: done before, {file}", flush=True)
            continue
        started = time.perf_counter()
        try:
            found = dict(PARTS[name](machine))
        except Exception:
            failed = True
            print(f"{name}: failed\n{traceback.format_exc()}", flush=True)
            continue
        device = torch.cuda.get_device_name() if machine.device.type == "cuda" else "CPU"
        found |= {"device": device, "torch": torch.__version__, "seconds": time.perf_counter() - started}
        file.write_text(json.dumps(found, indent=1))
        for key, value in found.items():
            print(f"{name}: {key}: {f'{value:.4g}' if isinstance(value, float) else value}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
