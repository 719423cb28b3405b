"""What the documents show a reader works."""

import re
from pathlib import Path

import pytest
import torch

from bench.check import check_sampler
from bench.cli import main
from bench.metrics.weights import INCEPTION
from bench.plugins import Registry

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("document", ["README.md", "docs/plugins.md"])
def test_the_plugin_shown_is_whole_and_keeps_the_contract(document, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.S)
    source = next(block for block in blocks if "def bench_samplers" in block)
    path = tmp_path / "mine.py"
    path.write_text(source)
    registry = Registry()
    registry.load_file(path)
    assert registry.failures == []
    (name,) = registry.presets
    findings = check_sampler(registry.presets.entries[name])
    assert all(finding.kept for finding in findings), findings


def test_the_errors_of_weights_are_those_shown(tmp_path, monkeypatch, capsys):
    """A missing file, half of one, and one of the right size that is another."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION", raising=False)
    monkeypatch.delenv("SAMPLER_BENCH_INCEPTION_SHA256", raising=False)
    place = tmp_path / "hub" / "checkpoints" / INCEPTION.name
    place.parent.mkdir(parents=True)
    told = []
    for size in (None, INCEPTION.size // 2, INCEPTION.size):
        if size is not None:
            with place.open("wb") as file:
                file.truncate(size)
        assert main(["stats", "digits-held-out", "--metric", "fid"]) == 2
        told.append(capsys.readouterr().err.replace(str(tmp_path), "~/.cache/torch"))
    text = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- errors -->\n")[2].partition("<!-- end errors -->")[0]
    assert shown == "```\n" + "".join(told) + "```\n"


def test_every_picture_and_page_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_readme_shows_the_tables_that_are_committed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, metric in (
        ("digits", "fd_digits"),
        ("exact-digits", "fd_pixels"),
        ("cifar10-small", "fd_inception_768"),
    ):
        path = ROOT / "results" / "reference" / name / "tables" / f"{name}-{metric}.md"
        table = path.read_text(encoding="utf-8")
        rows = [line for line in table.splitlines() if line.startswith("| dd")]
        assert len(rows) == 7
        for row in rows:
            assert row in text
