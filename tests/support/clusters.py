"""A Ray cluster of two nodes on this machine, and samplers that tell who draws."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}

PLUGIN = """
import os, signal, time
from pathlib import Path
from bench import sampler
from bench.plugins import hookimpl

HERE = Path(__file__).parent


def rule(name, act):
    def walk(model, x, grid, noise):
        for step in grid:
            if step.index == 0:
                with open(HERE / f"{name}.log", "a") as file:
                    file.write(f"{float(x.double().sum())!r} {os.getpid()} {os.getppid()}\\\\n")
            if step.index == 1:
                act()
            x = x + noise(step.index + 1)
            yield x

    return sampler(name=name)(walk)


def stops():
    try:
        open(HERE / "stopped", "x").close()
    except FileExistsError:
        return
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(600)


def pauses():
    time.sleep(float(os.environ.get("SAMPLER_BENCH_PAUSE", "0.7")))
    while (HERE / "held").exists():
        time.sleep(0.05)


@hookimpl
def bench_samplers():
    return [
        rule("slow", pauses),
        rule("stops", stops),
        rule("exits", lambda: os._exit(3)),
        rule("hangs", lambda: time.sleep(600)),
    ]
""".replace("\\\\n", "\\n")


def plugin_folder(tmp_path_factory, name):
    """Return a folder with the samplers of `PLUGIN`, of which ``slow`` waits while there is a ``held``."""
    folder = tmp_path_factory.mktemp(name)
    (folder / "slow.py").write_text(PLUGIN)
    return folder


def sweep(folder, results, *samplers, n, batch=10):
    """Return the arguments that run samplers of `plugin_folder`, ``slow`` where none is named."""
    return (
        *("run", "--model", "exact-gaussian", "--plugin", folder / "slow.py"),
        *("--samplers", *(samplers or ("slow",)), "--steps", "4", "--n", n, "--batch", batch),
        *("--results", folder / results),
    )


@contextlib.contextmanager
def two_nodes():
    """Yield a cluster of a head and a second node, each with one CPU."""
    from ray.cluster_utils import Cluster

    terminate = signal.getsignal(signal.SIGTERM)
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.second = cluster.add_node(**NODE)
        signal.signal(signal.SIGTERM, terminate)  # Ray's own would stay, for every fork of this process too
        yield cluster
    finally:
        cluster.shutdown()


def start(*arguments):
    """Start ``python -m bench`` and return its process."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(holds, seconds=300):
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not (held := holds()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return held


def is_alive(process):
    """Return whether a process id is that of a process."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def drawn(folder, name):
    """Return what a sampler of `PLUGIN` told when it began a block: (sum of x_T, process, its parent)."""
    path = folder / f"{name}.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(total, int(process), int(parent)) for total, process, parent in map(str.split, lines)]


def records(results):
    """Return the records of a folder by name of their sampler."""
    read = [json.loads(path.read_text()) for path in (results / "records").glob("*.json")]
    return {one["sampler"]["name"]: one for one in read if one["sampler"].get("name")}
