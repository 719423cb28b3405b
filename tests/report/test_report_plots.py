"""Plots: the numbers that are drawn, colours that can be told apart, equal figures from equal records."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.container import ErrorbarContainer
from support.reports import record, results, table

from bench.drawing.style import DARK, LIGHT, THEMES
from bench.published.presets import get_preset
from bench.records.store import Store
from bench.report.plots import score as plots
from bench.report.plots.gallery import PLOTS, draw_all, draw_files, published_for
from bench.report.plots.heatmap import _ink
from bench.report.plots.limit import distance_to_limit, distances
from bench.report.plots.pictures import _columns, _left_out
from bench.report.tables.table import tables_of

# Machado, Oliveira & Fernandes 2009, at full severity, on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip


def linear(colour):
    c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def contrast(a, b):
    dark, light = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (light + 0.05) / (dark + 0.05)


def lab(rgb):
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.array([v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz / [0.9505, 1, 1.089]])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_colours_can_be_told_from_one_another_and_from_the_paper(theme):
    for matrix in BLINDNESS.values():
        seen = [lab(np.clip(np.array(matrix) @ linear(colour), 0, 1)) for colour in theme.series]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 22
    assert min(contrast(colour, theme.paper) for colour in theme.series) >= 3
    assert contrast(theme.ink, theme.paper) >= 12
    assert contrast(theme.muted, theme.paper) >= 4.5


def test_the_numbers_of_a_heat_map_can_be_read_on_every_colour():
    for level in np.linspace(0, 1, 50):
        colour = (level, level, level, 1.0)
        hexed = "#" + f"{round(level * 255):02X}" * 3
        assert contrast(_ink(colour), hexed) >= 4.5


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return results(tmp_path_factory.mktemp("plots"))


@pytest.fixture(scope="module")
def group(store):
    (made,) = tables_of(store.read()[0])
    return made


def _series(figure):
    (axes,) = figure.axes
    return {
        c.get_label(): c.lines[0].get_xydata() for c in axes.containers if isinstance(c, ErrorbarContainer)
    }


def test_score_against_steps_draws_the_scores(group):
    series = _series(plots.score_against_steps(group))
    assert set(series) == {"ddim eta=0", "ddim eta=1", "ddpm fixedlarge clip x0"}  # the failed rows have none
    assert series["ddpm fixedlarge clip x0"][:, 1].tolist() == [9.0, 3.0, 0.5]
    # set aside by less than 5%, so that equal scores do not hide one another
    assert series["ddim eta=0"][:, 0] == pytest.approx([10, 50, 1000], rel=0.05)


def test_published_values_are_open_markers_of_their_own_model_and_score_only(group):
    preset = get_preset("ddim-table1-cifar10")
    mine = table([record("ddim:eta=0", s, v) for s, v in ((10, 13.4), (20, 6.9))])
    assert published_for(mine) == preset.values()
    assert published_for(group) == ()
    (axes,) = plots.score_against_steps(mine, LIGHT, published_for(mine)).axes
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]
    assert sorted(float(line.get_ydata()[0]) for line in hollow) == [4.04, 4.16, 4.67, 6.84, 13.36]
    other = table(
        [
            record("ddim:eta=0", 10, 13.4, metric="fd_inception_768"),
            record("ddim:eta=0", 20, 7.0, metric="fd_inception_768"),
        ]
    )
    assert published_for(other) == ()


@pytest.mark.parametrize(
    ("draw", "costs"),
    [(plots.score_against_calls, [10, 50, 1000]), (plots.score_against_time, [0.2, 1.0, 20.0])],
)
def test_what_a_sampler_costs_is_where_its_points_are_and_they_are_joined(group, draw, costs):
    """Two samplers of equal calls stand at equal calls: not aside, as on the axis of S."""
    figure = draw(group)
    for points in _series(figure).values():
        assert points[:, 0] == pytest.approx(costs)
    drawn = [c.lines[0] for c in figure.axes[0].containers if isinstance(c, ErrorbarContainer)]
    assert [line.get_linestyle() for line in drawn] == ["-"] * 3


def test_the_pareto_front_joins_what_nothing_cheaper_beats(group):
    figure = plots.score_against_calls(group)
    (front,) = [line for line in figure.axes[0].lines if line.get_label() == "Pareto front"]
    assert front.get_xydata().tolist() == [[10, 2.0], [50, 1.0], [1000, 0.5]]


def test_the_breakdown_adds_up_to_the_measured_time(group, store):
    figure = PLOTS["seconds"].draw(group, store, LIGHT)
    for axes, steps in zip(figure.axes, (10, 50, 1000), strict=True):
        widths = [bar.get_width() for bar in axes.patches]
        assert len(widths) == 9
        cost = group.cells["ddim eta=0", steps].record.cost
        total = (cost.sampling_seconds + cost.scoring_seconds) / (1000 * steps) * 1e6
        assert sum(widths[:3]) == pytest.approx(total)


def test_stability_shows_every_group_of_every_cell(group, store):
    figure = PLOTS["jackknife"].draw(group, store, LIGHT)
    shown = [points for axes in figure.axes for points in axes.collections]
    assert len(shown) == 9
    score = group.cells["ddim eta=0", 10].score
    expected = [100 * (left - score.value) / score.value for left in score.leave_one_out]
    assert shown[0].get_offsets()[:, 0].tolist() == pytest.approx(expected)


def test_the_heat_map_has_a_number_in_every_cell(group, store):
    figure = PLOTS["heat"].draw(group, store, DARK)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == ["2.00", "1.00", "0.600", "4.00", "2.00", "0.700", "9.00", "3.00", "0.500"]
    assert PLOTS["heat"].draw(table([record()]), store, LIGHT) is None


def test_a_table_of_failures_has_no_plots(store):
    assert list(draw_all(table([record(status="failed")]), store)) == []


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_equal_records_give_equal_files(store, group, tmp_path, suffix):
    for theme in THEMES if suffix == "png" else ("light",):
        a, b = (list(draw_files([group], store, tmp_path / name, suffix, theme)) for name in "ab")
        mark = "-dark" if theme == "dark" else ""
        names = [f"digits-fd_digits-{name}{mark}.{suffix}" for name in PLOTS if name != "scatter"]
        assert [path.name for path in a] == [
            *names,
            "digits-fd_digits-pictures.png",
            "digits-fd_digits-films.png",
        ]
        assert [path.read_bytes() for path in a] == [path.read_bytes() for path in b]


def test_the_distance_to_the_limit_is_that_of_the_same_noise(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    limit = torch.full((16, 1, 4, 4), 100, dtype=torch.uint8)
    records = [record("ddim:eta=0", s, 1.0, spacing="uniform") for s in (10, 20, 40)]
    for made, away in zip(records, (20, 10, 0), strict=True):
        pictures = limit + away
        pictures[:8] += away // 5  # half of the images further by a fifth
        store.write(made, pictures)
    (points,) = distances(table(records), store).values()
    se = float(np.std([20.0] * 8 + [24.0] * 8, ddof=1) / 4)
    assert points == [(10, 22.0, pytest.approx(se)), (20, 11.0, pytest.approx(se / 2))]
    (axes,) = distance_to_limit(table(records), store).axes
    (guide,) = [line for line in axes.lines if line.get_label() == "1/S"]
    assert guide.get_xydata().tolist() == [[10, 22.0], [20, 11.0]]
    assert distance_to_limit(table(records[:2]), store) is None


def test_a_large_table_shows_some_columns_of_pictures():
    rows = [f"ddim:eta={k / 100:g}" for k in range(20)]
    steps = (2, 3, 5, 10, 20)
    large = table([record(row, s, 1.0 + s) for row in rows for s in steps])
    assert _columns(large) == [2, 20]
    assert _left_out(large) == "; S = 2, 20 of 5"
    assert _columns(table([record(rows[0], s, 1.0 + s) for s in steps])) == list(steps)
    assert _columns(replace(large, known={**large.known, **{str(k): None for k in range(20)}})) == [5]


def test_several_time_grids_are_panels_of_one_plot():
    grids = ("edm", "time")
    rows = [record("ddim", s, 9.0 / s, spacing=one, seed=s) for one in grids for s in (5, 10)]
    made = table(rows)
    for draw in (plots.score_against_steps, plots.score_against_calls, plots.score_against_time):
        first, second = draw(made).axes
        assert [axes.get_title() for axes in (first, second)] == ["edm", "time"]
        assert first.get_ylim() == second.get_ylim()
        assert second.get_legend() is not None and first.get_legend() is None
        (one,) = [c for c in first.containers if isinstance(c, ErrorbarContainer)]
        (other,) = [c for c in second.containers if isinstance(c, ErrorbarContainer)]
        assert one.get_label() == other.get_label() == "ddim eta=0"
        assert [c.lines[0].get_gid() for c in (one, other)] == ["row-0", "row-1"]
