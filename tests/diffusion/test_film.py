"""Films: frames of one sample's way, kept with its record through resumes, shown in plots and report."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from support.reports import results, table
from support.sweeps import Silent

from bench import get_sampler, make_grid, normal_noise, to_uint8, trajectory
from bench.diffusion.film import FRAMES, forward_film, frame_steps
from bench.plugins.lookup import load_model
from bench.records.store import Store, read_strip, write_strip
from bench.report.page.html import report
from bench.report.plots.pictures import film_strips
from bench.sweep.request import Sweep
from bench.sweep.runner import Runner

MODEL = "exact-gaussian"


def runner(folder, steps, n=40):
    sampler = get_sampler("ddim:eta=1")
    return Runner(Sweep(model=MODEL, samplers=(sampler,), steps=(steps,), n=n, batch=20), Store(folder))


def states(steps):
    """x_T and x after every step of sample 0, drawn alone."""
    model = load_model(MODEL).model
    shape, block = model.shape, range(1)
    x = normal_noise(0, block, 0, shape)

    def noise(index):
        return normal_noise(0, block, index + 1, shape)

    grid = make_grid(model.schedule, steps)
    return [x, *trajectory(model, get_sampler("ddim:eta=1"), grid, x, noise)]


@pytest.mark.parametrize(
    ("steps", "frames"),
    [
        (1, [0, 1]),
        (5, [0, 1, 2, 3, 4, 5]),
        (10, list(range(11))),
        (1000, list(range(0, 1001, 100))),
    ],
)
def test_frames_lie_at_equal_parts_of_the_steps(steps, frames):
    assert frame_steps(steps) == frames
    assert len(frame_steps(steps)) == min(FRAMES, steps + 1)


@pytest.mark.parametrize("steps", [5, 40])
def test_a_record_keeps_the_way_of_its_first_sample(tmp_path, steps):
    made = runner(tmp_path, steps)
    (record,) = made.run(made.plan(), Silent())
    kept = made.store.film(record)
    path = [to_uint8(x[0]) for x in states(steps)]
    expected = torch.stack([path[taken] for taken in frame_steps(len(path) - 1)])
    # Drawn in a batch of 20 or alone: a rounding may fall on the other side of a level.
    assert (kept.int() - expected.int()).abs().max() <= 1
    assert torch.equal(kept[-1], made.store.previews(record)[0])


def test_a_film_survives_a_stop_between_blocks(tmp_path):
    whole = runner(tmp_path / "whole", 10)
    (expected,) = whole.run(whole.plan(), Silent())

    class Stop(Silent):
        def advanced(self, trial, samples):
            raise KeyboardInterrupt

    cut = runner(tmp_path / "cut", 10)
    with pytest.raises(KeyboardInterrupt):
        cut.run(cut.plan(), Stop())
    assert len(list(cut.store.blocks.glob("*/*.npz"))) == 1
    again = runner(tmp_path / "cut", 10)
    (record,) = again.run(again.plan(), Silent())
    assert torch.equal(again.store.film(record), whole.store.film(expected))


def test_the_film_of_real_images_is_the_forward_process(tmp_path):
    made = Runner(Sweep(model="digits", samplers=(get_sampler("ddim"),), steps=(5,), n=100), Store(tmp_path))
    record = made.floor()
    kept, image = made.store.film(record), made.store.previews(record)[0].double()
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    x0, noise = image / 127.5 - 1, normal_noise(0, range(1), 0, (1, 12, 12))[0].double()
    for j in range(FRAMES):
        share = float(torch.prod(1 - betas[: 100 * j]))
        frame = (math.sqrt(share) * x0 + math.sqrt(1 - share) * noise) * 127.5 + 128
        assert (kept[j].double() - frame.clamp(0, 255).floor()).abs().max() <= 1
    assert torch.equal(kept[0].double(), image)


def test_forward_film_of_a_short_schedule_has_a_frame_a_step():
    schedule = load_model(MODEL).model.schedule
    film = forward_film(torch.zeros(1, 2, 2), schedule, torch.ones(1, 2, 2), lambda x: x)
    expected = [0.0, *(1 - schedule.alphas_cumprod).sqrt().tolist()]
    frames = [expected[t] for t in frame_steps(len(expected) - 1)]
    assert film[:, 0, 0, 0].tolist() == [int(min(255, 127.5 * value + 128)) for value in frames]


def test_a_record_written_again_keeps_its_film_and_drops_that_of_its_old_name(tmp_path):
    store = results(tmp_path)
    record = store.read()[0][0]
    frames = store.film(record)
    old = store.records / f"older-name-{record.key}.film.png"
    write_strip(old, frames)
    store.write(record)
    assert torch.equal(store.film(record), frames)
    assert not old.exists()


def test_the_sheet_of_films_shows_every_frame_enlarged(tmp_path):
    store = results(tmp_path)
    group = table(store.read()[0])
    sheet = film_strips(group, store)
    pixels = torch.from_numpy(np.array(sheet.convert("L")))
    row = group.cells[group.rows[0], 10].record
    frames, scale = store.film(row), 4
    tile = frames[3, 0].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
    side = tile.shape[0]
    windows = pixels.unfold(0, side, 1).unfold(1, side, 1)
    assert (windows == tile).all(dim=(2, 3)).any()
    assert film_strips(table([row]), Store(tmp_path / "none")) is None


def test_a_long_label_is_not_drawn_over(tmp_path):
    """All that is written of it is there: as much ink as on a sheet of its own."""
    store = results(tmp_path)
    record = next(one for one in store.read()[0] if one.kind == "samples")
    label = "ddpm fixedsmall dynamic 0.9975 100"
    named, film = replace(record, sampler=replace(record.sampler, label=label)), store.film(record)
    store.write(named, film=film)
    sheet = film_strips(table([named]), store)
    font = ImageFont.load_default(14)
    alone = Image.new("L", sheet.size, "white")
    ImageDraw.Draw(alone).text((70, 56), label, "black", font, anchor="lm")
    text = np.array(alone)[40:72, 70 : 70 + int(font.getlength(label)) + 1] < 128
    ink = np.array(sheet.convert("L")) < 128
    windows = np.lib.stride_tricks.sliding_window_view(ink[:, 70 : 70 + text.shape[1]], text.shape)
    assert (windows == text).all(axis=(2, 3)).any()


def test_the_report_shows_the_films_once_each(tmp_path):
    store = results(tmp_path)
    records = store.read()[0]
    text = report(store, records)
    filmed = [record for record in records if store.film(record) is not None]
    assert len(filmed) == 10
    for record in filmed:
        assert text.count(f".f-{record.key}{{background-image") == 1
        assert text.count(f'class="tile f-{record.key}"') == len(store.film(record))


def test_strips_are_lossless(tmp_path):
    images = torch.randint(0, 256, (11, 3, 6, 6), dtype=torch.uint8)
    write_strip(tmp_path / "a.png", images)
    assert torch.equal(read_strip(tmp_path / "a.png"), images)
