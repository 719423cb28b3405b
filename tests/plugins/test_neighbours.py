"""A user's files import what lies beside them, whatever it is called."""

import numpy as np
from support.commands import bench as run_bench

NET = """
import torch


class Net(torch.nn.Module):
    def forward(self, x, t):
        return 0.5 * x
"""

MODEL = """
import bench
from {where} import Net


def make():
    from {where} import Net as again  # at a call, too
    assert again is Net
    return bench.from_prediction(Net(), bench.NoiseSchedule.linear(), (1, 4, 4), "eps")
"""

SAMPLER = """
from helper import beside
import bench


@bench.hookimpl
def bench_samplers():
    return [beside]
"""

HELPER = """
import bench


@bench.sampler(source="a test")
def beside(model, x, grid, noise):
    for step in grid:
        x = bench.predict_x0(model(x, step.times(x)), x, step.alpha_bar)
        yield x
"""


def reference(folder):
    images = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", images=images)
    return folder / "images.npz"


def test_files_and_packages_beside_a_model_are_found(tmp_path):
    for where in ("unet", "models.unet_of_mine", "samplers.thing", "package.deep"):
        folder = tmp_path / where
        target = folder / f"{where.replace('.', '/')}.py"
        target.parent.mkdir(parents=True)
        target.write_text(NET)
        (folder / "mine.py").write_text(MODEL.format(where=where))
        done = run_bench(
            *("run", "--model", folder / "mine.py:make", "--reference", reference(folder), "--n", "8"),
            *("--samplers", "ddim", "--steps", "2", "--results", folder / "results"),
        )
        assert done.returncode == 0, (where, done.stderr)


def test_a_plugin_file_finds_its_helper(tmp_path):
    (tmp_path / "mine.py").write_text(SAMPLER)
    (tmp_path / "helper.py").write_text(HELPER)
    done = run_bench("list", "samplers", "--plugin", tmp_path / "mine.py")
    assert done.returncode == 0, done.stderr
    assert "beside" in done.stdout


def test_a_plugin_that_exits_while_it_is_imported_is_a_failed_plugin(tmp_path):
    (tmp_path / "ends.py").write_text("import sys\nsys.exit(0)\n")
    done = run_bench("list", "samplers", "--plugin", tmp_path / "ends.py")
    assert done.returncode == 1
    assert "ends.py failed at import: it called sys.exit(0)" in done.stderr
    assert "ddim" in done.stdout


def test_what_is_no_plugin_is_told(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    done = run_bench("list", "samplers", "--plugin", tmp_path / "empty.py")
    assert done.returncode == 1
    assert "offers nothing" in done.stderr
    done = run_bench("list", "samplers", "--plugin", tmp_path)
    assert done.returncode == 2
    assert "is a folder" in done.stderr
