"""The report in a browser: it draws, sorts, filters and opens, says nothing to the console, asks nobody."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from support import browser as chromium
from support.pages import CONTRAST
from support.reports import record, results

from bench.records.store import Store
from bench.report.page.html import report

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return results(tmp_path_factory.mktemp("browser"))


@pytest.fixture(scope="module")
def path(store):
    made = store.folder / "report.html"
    made.write_text(report(store, store.read()[0]), encoding="utf-8")
    return made


@pytest.fixture
def page(browser, path):
    """The report freshly opened; whatever a test did, nothing was said or asked for."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(path)
    yield browser
    assert browser.errors == []
    assert browser.requests == [path.resolve().as_uri()]


def column(page, place):
    """The shown texts of a column of the table of all trials."""
    return page.run(
        "Array.from(document.querySelectorAll('#all tbody tr')).filter(r => !r.hidden)"
        f".map(r => r.cells[{place}].textContent.trim())"
    )


def head(place):
    return f"#all thead th:nth-child({place + 1})"


def test_it_draws(page):
    assert page.run("document.title") == "digits – sampler-bench"
    sizes = page.run(
        "Array.from(document.querySelectorAll('svg.plot')).map(s => s.getBoundingClientRect().height)"
    )
    assert len(sizes) == 8
    assert min(sizes) > 150
    colours = page.run(
        "Array.from(document.querySelectorAll('#g0-steps-row-0 use')).map(u => getComputedStyle(u).fill)"
    )
    assert set(colours) == {"rgb(8, 67, 142)"}  # the first colour on light paper


def test_sorting_by_number_keeps_empty_cells_last(page):
    start = column(page, 0)
    assert start[:2] == ["ddim eta=0", "ddim eta=0.5"]
    page.click(f"{head(2)} button")
    up = [text.split(" ")[0] for text in column(page, 2)]
    assert [float(text) for text in up[:10]] == [0.4, 0.5, 0.6, 0.7, 1.0, 2.0, 2.0, 3.0, 4.0, 9.0]
    assert up[10:] == ["", ""]
    assert page.run(f"document.querySelector('{head(2)}').getAttribute('aria-sort')") == "ascending"
    page.click(f"{head(2)} button")
    down = [text.split(" ")[0] for text in column(page, 2)]
    assert down == [*up[:10][::-1], "", ""]
    assert page.run(f"document.querySelector('{head(2)}').getAttribute('aria-sort')") == "descending"


def test_sorting_by_text_with_the_keyboard(page):
    page.run(f"document.querySelector('{head(0)} button').focus()")
    page.press("Enter", 13)
    if page.run(f"document.querySelector('{head(0)}').getAttribute('aria-sort')") is None:
        page.press(" ", 32)
    labels = column(page, 0)
    assert labels == sorted(labels)
    assert page.run("document.querySelectorAll('#all [aria-sort]').length") == 1


def test_filtering_by_words_steps_and_status(page):
    assert page.run("document.querySelector('#shown').textContent") == "12 of 12 shown"
    page.click("#find")
    page.type("eta=1 S=50")
    assert column(page, 0) == ["ddim eta=1"]
    assert page.run("document.querySelector('#shown').textContent") == "1 of 12 shown"
    page.run("document.querySelector('#find').value = ''")
    for name, value, count in (("by-steps", "10", 5), ("by-status", "failed", 1), ("by-steps", "1000", 0)):
        page.run(
            f"(() => {{ const s = document.getElementById('{name}'); s.value = '{value}';"
            " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )
        assert len(column(page, 0)) == count, (name, value)


def test_a_number_of_the_table_opens_its_trial(page, store):
    key = next(r.key for r in store.read()[0] if r.sampler.label == "ddim eta=1" and r.trial.steps == 50)
    assert not page.run(f"document.getElementById('t-{key}').open")
    page.click(f".wide a[href='#t-{key}']")
    assert page.run(
        f"new Promise(done => setTimeout(() => done(document.getElementById('t-{key}').open), 100))"
    )
    shown = page.run(f"document.querySelector('#t-{key} dl').textContent")
    assert "--samplers ddim:eta=1,clip=none --steps 50" in shown
    assert page.run("document.activeElement.tagName") == "SUMMARY"


def _tile(page, label, steps):
    """The pixels of a picture in the matrix, as the screen shows them."""
    selector = f".matrix .tile[data-label='{label}'][data-steps='{steps}']"
    box = page.run(
        f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
        " e.scrollIntoView({block: 'center', behavior: 'instant'}); const b = e.getBoundingClientRect();"
        " return [b.x, b.y, b.width]; })()"
    )
    screen = np.asarray(Image.open(io.BytesIO(page.picture())).convert("L"), dtype=int)
    cell = box[2] / 12
    middles = [int((k + 0.5) * cell) for k in range(12)]
    return np.array([[screen[int(box[1]) + y, int(box[0]) + x] for x in middles] for y in middles])


@pytest.mark.parametrize("sample", [0, 11])
def test_the_slider_shows_that_sample_of_every_trial(page, store, sample):
    page.run(
        f"(() => {{ const s = document.getElementById('g0-k'); s.value = {sample};"
        " s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    for label, steps in (("ddim eta=0", 10), ("ddpm fixedlarge", 1000)):
        made = next(r for r in store.read()[0] if r.sampler.label == label and r.trial.steps == steps)
        expected = store.previews(made)[sample, 0].numpy().astype(int)
        middle = (slice(1, 11), slice(1, 11))  # corners are rounded
        shown = f"{label} clip x0" if label.startswith("ddpm") else label
        assert np.abs(_tile(page, shown, steps)[middle] - expected[middle]).max() <= 2


def test_the_slider_moves_by_keyboard(page):
    page.run("document.getElementById('g0-k').focus()")
    page.press("ArrowRight", 39)
    assert page.run("document.querySelector('.picker output').textContent") == "1"
    assert (
        page.run("document.querySelector('.matrix .tile').getAttribute('aria-label')")
        == "ddim eta=0, S=10, sample 1"
    )


def test_the_pointer_tells_seed_and_index_and_marks_the_same_noise(page):
    page.run("document.querySelector('.strips').open = true")
    page.hover(".strips .tile[data-label='ddim eta=1'][data-steps='50'][data-k='7']")
    assert page.run("document.getElementById('tip').textContent") == "ddim eta=1, S=50, seed 0, sample 7"
    assert not page.run("document.getElementById('tip').hidden")
    marked = page.run("Array.from(document.querySelectorAll('.strips .same')).map(t => t.dataset.k)")
    assert marked == ["7"] * 9
    page.hover("h1")
    assert page.run("document.getElementById('tip').hidden")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_asks_for(browser, path, theme):
    browser.open(path, prefers_color_scheme=theme)
    assert browser.run(CONTRAST) == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(250, 250, 251)", "dark": "rgb(16, 18, 22)"}[theme]


def test_the_button_changes_the_paper_and_back(page):
    page.click("#theme")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(16, 18, 22)"
    assert page.run("document.getElementById('theme').textContent") == "Light"
    dark = page.run("getComputedStyle(document.querySelector('#g0-steps-row-0 use')).fill")
    assert dark == "rgb(60, 125, 216)"
    page.click("#theme")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(250, 250, 251)"


@pytest.mark.parametrize("width", [360, 800, 1920])
def test_nothing_sticks_out_on_any_screen(browser, path, width):
    browser.open(path, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_it_prints_on_light_paper_without_controls(page):
    page.send(
        "Emulation.setEmulatedMedia",
        media="print",
        features=[{"name": "prefers-color-scheme", "value": "dark"}],
    )
    assert page.run("getComputedStyle(document.querySelector('h1')).color") == "rgb(26, 27, 30)"
    hidden = page.run(
        "['nav', '#theme', '.filters', '.picker input', '#details'].map("
        "s => getComputedStyle(document.querySelector(s)).display)"
    )
    assert hidden == ["none"] * 5
    assert page.pdf().startswith(b"%PDF-")


def test_without_scripts_everything_is_still_there(browser, path):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path)
        shown = browser.send("DOM.getDocument", depth=-1)
        assert "12 of 12" not in json.dumps(shown)
        assert "Traceback: it broke" in json.dumps(shown)
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_the_pointer_tells_a_point_of_a_plot_and_lights_its_sampler(page):
    page.run(
        "document.querySelector('#g0-steps-row-0').scrollIntoView({block: 'center', behavior: 'instant'})"
    )
    page.hover("#g0-steps-row-0 use[data-told^='ddim eta=0, S=50']")
    assert page.run("document.getElementById('tip').textContent") == "ddim eta=0, S=50: 1.000 ± 0.010"
    lit = page.run("Array.from(document.querySelectorAll('.lit')).map(e => e.id || e.dataset.label)")
    assert lit == ["ddim eta=0", *(f"g0-{plot}-row-0" for plot in ("steps", "time", "calls", "limit"))]
    page.hover("h1")
    assert page.run("document.querySelectorAll('.lit').length") == 0
    page.hover(".wide tr[data-label='ddim eta=1'] th")
    assert "g0-calls-row-2" in page.run("Array.from(document.querySelectorAll('.lit')).map(e => e.id)")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A report whose table has more rows and columns than a narrow screen shows."""
    store = Store(tmp_path_factory.mktemp("wide"))
    specs = ["ddim:eta=0", "ddim:eta=0.2", "ddim:eta=0.5", "ddim:eta=1", "sigma-hat", "ddpm", "dpmpp:order=2",
             "dpmpp:order=3", "deis", "ipndm"]  # fmt: skip
    made = [record(s, n, 2.0 + n / 100, seed=n) for s in specs for n in (10, 20, 50, 100, 200, 500)]
    path = store.folder / "report.html"
    path.write_text(report(store, made), encoding="utf-8")
    return path


def test_the_rows_of_a_table_are_filtered(browser, wide):
    browser.open(wide)
    browser.click("form[data-rows^='#g0-table'] input")
    browser.type("ddim 0.")
    rows = "Array.from(document.querySelectorAll('#g0-table tbody tr')).filter(r => !r.hidden)"
    shown = browser.run(f"{rows}.map(r => r.dataset.label)")
    assert shown == ["ddim eta=0.2", "ddim eta=0.5"]
    told = browser.run("document.querySelector(\"form[data-rows^='#g0-table'] output\").textContent")
    assert told == "2 of 10 shown"


def test_the_samplers_stay_in_sight_while_the_numbers_move(browser, wide):
    browser.open(wide, width=360)
    moved = browser.run(
        "(() => { const table = document.getElementById('g0-table'), box = table.closest('.scroll');"
        " box.scrollLeft = 300; const left = (e) => e.getBoundingClientRect().x;"
        " const at = (e) => left(e) - left(box);"
        " return [box.scrollLeft, at(table.querySelector('tbody th')),"
        " at(table.querySelector('tbody td'))]; })()"
    )
    assert moved[:2] == [300, 0] and moved[2] < 0
    assert browser.run("document.documentElement.scrollWidth") <= 360
