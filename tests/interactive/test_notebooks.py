"""The notebooks run, and show what is stored in them."""

import os
from itertools import groupby
from pathlib import Path

import pytest

import bench

nbformat, nbclient = (pytest.importorskip(name) for name in ("nbformat", "nbclient"))
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs" / "notebooks").glob("*.ipynb"))


def kinds(cell):
    """What a cell put out: streams by name, in however many pieces; results by the forms that they have."""
    found = [(o.output_type, o.get("name"), sorted(o.get("data", {}))) for o in cell.get("outputs", ())]
    return [kind for kind, _ in groupby(found)]


def shown(cell):
    """The tables of a cell's output as text: the rows' labels and the columns' heads."""
    texts = [o.data["text/plain"] for o in cell.get("outputs", ()) if "text/plain" in o.get("data", {})]
    return [[line.split("  ")[0] for line in text.splitlines()] for text in texts if "± one" in text]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path, tmp_path, monkeypatch):
    found = [str(Path(bench.__file__).parents[1]), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, found)))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook shows its figures by a backend of its own
    stored, again = (nbformat.read(path, 4) for _ in range(2))
    client = nbclient.NotebookClient(again, timeout=120, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert [kinds(cell) for cell in again.cells] == [kinds(cell) for cell in stored.cells]
    assert [shown(cell) for cell in again.cells] == [shown(cell) for cell in stored.cells]
    assert any(shown(cell) for cell in stored.cells)
    assert any("image/png" in str(kinds(cell)) for cell in stored.cells)


def test_there_are_notebooks_and_they_name_no_folder_of_ours():
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        text = path.read_text(encoding="utf-8")
        assert path.stat().st_size < 500_000
        assert "/tmp/" not in text
        assert "/root/" not in text
