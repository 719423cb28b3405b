"""The page on sweeps from Python shows what works."""

import re
from pathlib import Path

from bench import load_results

PAGE = Path(__file__).parents[2] / "docs" / "from-python.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(block, space)
    told = capsys.readouterr().out
    assert "digits: fd_digits, n=100" in told
    assert "paired: one noise, of seed 0" in told
    assert (tmp_path / "steps.png").stat().st_size > 10_000
    assert space["results"].failures == []
    made = load_results().query("kind == 'samples'")
    assert sorted(made.label.unique()) == ["ddim eta=0", "dpmpp-2m", "plain"]
    by_model = made.query("steps == 5").set_index(["model", "label"]).score
    assert by_model["mine", "plain"] == by_model["mine", "ddim eta=0"]
    assert by_model["mine", "plain"] == by_model["digits", "ddim eta=0"]
