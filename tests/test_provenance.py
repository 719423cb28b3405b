"""Which changes of the source make the scores of a record old."""

import inspect
from pathlib import Path

import pytest

import bench
from bench.metrics.copying import CopyingMetric
from bench.metrics.distance import FrechetMetric
from bench.metrics.kid import KernelMetric
from bench.plugins import Registry
from bench.provenance import scoring_hash

PACKAGE = Path(bench.__file__).parent


@pytest.fixture
def changed(monkeypatch):
    """A function that returns a metric's hash as it is where one file of the package is another."""
    read = Path.read_bytes

    def hash_with(name, metric):
        def read_changed(path):
            return read(path) + (b"\n# changed" if path == PACKAGE / name else b"")

        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", read_changed)
            return scoring_hash.__wrapped__(metric)

    return hash_with


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        (KernelMetric, "metrics/kid.py"),
        (KernelMetric, "metrics/mmd.py"),
        (KernelMetric, "metrics/moments.py"),
        (CopyingMetric, "metrics/manifold.py"),
        (FrechetMetric, "metrics/frechet.py"),
        (FrechetMetric, "stats.py"),
    ],
)
def test_a_change_of_what_a_score_is_made_with_is_another_hash(changed, metric, file):
    assert changed(file, metric) != scoring_hash(metric)


@pytest.mark.parametrize(
    ("metric", "file"),
    [
        (FrechetMetric, "metrics/mmd.py"),
        (KernelMetric, "metrics/sliced.py"),
        (CopyingMetric, "metrics/inception.py"),
        (KernelMetric, "runner.py"),
    ],
)
def test_a_change_elsewhere_is_not(changed, metric, file):
    assert changed(file, metric) == scoring_hash(metric)


SOURCE = """
from bench import hookimpl
{line}


class Mine:
    name, space, needs, higher_is_better = "mine", "pixels", "moments", False

    def score(self, sample, reference):
        raise NotImplementedError


@hookimpl
def bench_metrics():
    return [Mine()]
"""


@pytest.mark.parametrize(
    ("line", "file"),
    [
        ("import bench.metrics.mmd", "metrics/mmd.py"),
        ("from bench.metrics import mmd", "metrics/mmd.py"),
        ("from bench.metrics.mmd import mmd", "metrics/mmd.py"),
        ("from bench.metrics import FrechetMetric", "metrics/distance.py"),
    ],
)
def test_a_plugin_depends_on_what_it_imports(changed, tmp_path, line, file):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE.format(line=line))
    registry = Registry()
    registry.load_file(path)
    metric = type(registry.metrics.entries["mine"])
    assert inspect.getsourcefile(metric) == str(path)
    assert changed(file, metric) != scoring_hash(metric)
    assert changed("metrics/vision.py", metric) == scoring_hash(metric)
