"""Images of any shape: kept, drawn, scored and reported; single pixels of two channels are points."""

import numpy as np
import pytest
import torch
from support.reports import record

from bench.commands.main import main
from bench.data.images import from_uint8
from bench.data.sets import load_images
from bench.records.record import FLOOR
from bench.records.store import Store, read_strip, write_strip
from bench.report.page.page import page
from bench.report.plots.gallery import draw_all
from bench.report.plots.pictures import film_strips, picture_grid
from bench.report.plots.scatter import SHOWN, scatter_plot
from bench.report.tables.table import tables_of


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 4, 6), (2, 4, 4), (4, 5, 3), (5, 4, 4), (2, 1, 1)])
def test_images_of_any_shape_are_kept_to_the_bit(shape, tmp_path):
    images = torch.randint(0, 256, (7, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_strip(tmp_path / "strip.png", images)
    assert torch.equal(read_strip(tmp_path / "strip.png"), images)


SHAPES = """
import torch
import bench

SCHEDULE = bench.NoiseSchedule.cosine()


def make(*shape):
    mean = 0.6 * torch.sin(torch.arange(float(torch.tensor(shape).prod()))).view(shape)
    return bench.from_prediction(lambda x, t: (mean + 0.1 * x).clamp(-1, 1), SCHEDULE, shape, "x0")


def wide():
    return make(3, 24, 32)


def five():
    return make(5, 8, 8)


def points():
    return make(2, 1, 1)


def odd():
    return make(1, 7, 9)
"""
SHAPE_OF = {"wide": (3, 24, 32), "five": (5, 8, 8), "points": (2, 1, 1), "odd": (1, 7, 9)}


@pytest.mark.parametrize("name", SHAPE_OF)
def test_models_of_any_shape_are_drawn_scored_and_reported(name, tmp_path):
    shape = SHAPE_OF[name]
    (tmp_path / "shapes.py").write_text(SHAPES)
    images = np.random.default_rng(0).integers(0, 256, (120, *shape), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images.transpose(0, 2, 3, 1) if shape[0] == 3 else images)
    command = ["run", "--model", f"{tmp_path / 'shapes.py'}:{name}", "--samplers", "ddim", "--steps", "4"]
    command += ["--n", "24", "--reference", str(tmp_path / "images.npz"), "--results", str(tmp_path / "r")]
    assert main([*command, "--metrics", "sliced_wasserstein_pixels"]) == 0
    assert main(["report", "--results", str(tmp_path / "r")]) == 0
    assert main(["verify", str(tmp_path / "r")]) == 0
    store = Store(tmp_path / "r")
    kept = {one.kind: store.previews(one) for one in store.read()[0]}
    points = name == "points"
    assert kept["samples"].shape == kept["real"].shape == (24 if points else 16, *shape)
    drawn = {path.stem.rpartition("-")[2] for path in (tmp_path / "r" / "plots").iterdir()}
    assert ("scatter" in drawn) == points
    assert ("pictures" in drawn) == ("films" in drawn) == (not points)
    told = (tmp_path / "r" / "report.html").read_text()
    assert ("Samples as points" in told) == points
    channels, height, width = shape
    tall = (height if channels in (1, 3) else channels * height) / width
    assert (f"height:calc(var(--size) * {tall})" in told) == (not points)


@pytest.mark.parametrize("shape", [(9, 2, 1, 1), (9, 3, 1, 1)])
def test_arrays_of_points_are_read_as_points(shape, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "points.npy", array)
    read = load_images(tmp_path / "points.npy").images
    assert np.array_equal(read.numpy(), array)


def stored(folder, count, channels=2):
    """Two samplers at two S, and real images, with points of their own."""
    store, generator = Store(folder), torch.Generator().manual_seed(0)
    store.prepare()
    kept = {}
    for spec, steps in [("ddim:eta=0", 10), ("ddim:eta=0", 20), ("ddim:eta=1", 10), (FLOOR, 0)]:
        points = torch.randint(0, 256, (count, channels, 1, 1), generator=generator, dtype=torch.uint8)
        made = record(spec, steps, n=2000)
        store.write(made, points, points[:11])
        kept[made.sampler.label, steps] = points
    (table,) = tables_of(store.read()[0])
    return store, table, kept


@pytest.mark.parametrize("count", [7, 1000])
def test_every_panel_has_its_cell_s_points_over_the_real_ones(count, tmp_path):
    store, table, kept = stored(tmp_path, count)
    panels = {axes.get_title(): axes for axes in scatter_plot(table, store).axes}
    assert set(panels) == {f"{row}, S={s}" for row in ("ddim eta=0", "ddim eta=1") for s in (10, 20)}
    for (row, steps), points in kept.items():
        for axes in panels.values() if row == FLOOR else [panels[f"{row}, S={steps}"]]:
            line = axes.lines[0 if row == FLOOR else 1]
            there = from_uint8(points[:SHOWN, :, 0, 0], torch.float64).numpy()
            np.testing.assert_allclose(np.column_stack(line.get_data()), there, atol=1e-6)
    assert len(panels["ddim eta=1, S=20"].lines) == 1  # nobody drew it


def test_points_are_no_pictures_and_no_film(tmp_path):
    store, table, _ = stored(tmp_path, 30, channels=3)
    assert picture_grid(table, store) is None and film_strips(table, store) is None
    (figure,) = [figure for plot, figure in draw_all(table, store) if plot.name == "scatter"]
    assert "the first two of 3 coordinates" in figure.get_suptitle()
    shown = page(store, store.read()[0])
    assert shown["strips"] == [] and shown["groups"][0]["matrix"] is None
    assert "scatter" in [plot["name"] for plot in shown["groups"][0]["plots"]]


def test_images_have_no_scatter_plot(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    store.write(record("ddim:eta=0", 10), torch.zeros(16, 1, 4, 4, dtype=torch.uint8))
    (table,) = tables_of(store.read()[0])
    assert scatter_plot(table, store) is None
