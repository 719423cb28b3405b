"""What the documents show a reader works."""

import re
from pathlib import Path

import pytest

from bench.check import check_sampler
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


def test_every_picture_and_page_the_readme_names_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_readme_shows_the_tables_that_are_committed():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, metric in (("digits", "fd_digits"), ("exact-digits", "fd_pixels")):
        path = ROOT / "results" / "reference" / name / "tables" / f"{name}-{metric}.md"
        table = path.read_text(encoding="utf-8")
        rows = [line for line in table.splitlines() if line.startswith("| dd")]
        assert len(rows) == 7
        for row in rows:
            assert row in text
