"""The leaderboard in a browser: filters, plot and front, on wide and narrow screens, light and dark."""

import json

import pytest
from support import browser as chromium
from support.pages import CONTRAST
from support.reports import record

from bench.records.store import Store
from bench.report.site.boards import boards_of
from bench.report.site.sources import Source
from bench.report.site.write import write_site
from bench.report.verify import Checked

pytestmark = pytest.mark.skipif(chromium.find() is None, reason="no Chromium is installed")

VALUES = {"ddim:eta=0": (9.0, 2.0, 1.0), "ddim:eta=1": (8.0, 4.0, 0.9), "sigma-hat": (7.0, 5.0, 3.0)}
STEPS = (5, 10, 20)


def trials(model, metric, higher=False):
    """A model's records: ddim's time falls with its number of calls, sigma-hat takes twice as long."""
    made = []
    for spec, values in VALUES.items():
        for steps, value in zip(STEPS, values, strict=True):
            shown = 10 - value if higher else value
            seed = len(made)
            made.append(record(spec, steps, shown, model=model, metric=metric, n=1000, spacing="uniform",
                               higher_is_better=higher, seed=seed))  # fmt: skip
    return made


@pytest.fixture(scope="module")
def records():
    return [*trials("digits", "fd_digits"), *trials("exact-digits", "precision", higher=True)]


@pytest.fixture(scope="module")
def path(records, tmp_path_factory):
    folder = tmp_path_factory.mktemp("board")
    store = Store(folder / "r")
    store.prepare()
    for one in records:
        store.write(one)
    write_site([Source("r", store.folder, records, Checked(store.folder, 1, 9, ()), "d")], folder / "site")
    return folder / "site" / "index.html"


@pytest.fixture
def page(browser, path):
    """The page freshly opened; whatever a test did, nothing was said and nothing but the page asked for."""
    browser.errors.clear()
    browser.requests.clear()
    browser.open(path)
    yield browser
    assert browser.errors == []
    assert {request.partition("#")[0] for request in browser.requests} == {path.resolve().as_uri()}


def rows(page):
    """The (model, sampler, S) of the rows that are seen."""
    return [
        tuple(one)
        for one in page.run(
            "Array.from(document.querySelectorAll('.board:not([hidden]) tbody.lines tr:not([hidden])'))"
            ".map(r => [r.closest('.board').dataset.model, r.dataset.label, Number(r.dataset.steps)])"
        )
    ]


def set_field(page, name, value):
    page.run(
        f"(() => {{ const f = document.getElementById('{name}'); f.value = {json.dumps(value)};"
        " f.dispatchEvent(new Event('input', {bubbles: true}));"
        " f.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def front(page, board="b0"):
    """What the plot draws as its front: (sampler, S) in the order of their cost."""
    told = page.run(
        f"Array.from(document.querySelectorAll('#{board} circle[data-front=yes]'))"
        ".map(c => [Number(c.getAttribute('cx')), c.parentNode.dataset.told])"
    )
    return [text.partition(":")[0] for _, text in sorted(told)]


def test_one_board_is_seen_at_first_and_all_where_that_is_asked_for(page):
    assert {row[0] for row in rows(page)} == {"digits"}
    assert page.run("document.getElementById('shown').textContent") == "9 of 18 shown"
    set_field(page, "by-model", "exact-digits")
    assert page.run("document.getElementById('by-score').value") == "precision"
    assert {row[0] for row in rows(page)} == {"exact-digits"}
    set_field(page, "by-model", "")
    set_field(page, "by-score", "")
    assert len(rows(page)) == 18


def test_a_link_of_the_overview_leads_to_its_board(page):
    page.click("#index a[href='#b1']")
    page.run("new Promise(done => setTimeout(done, 100))")
    assert {row[0] for row in rows(page)} == {"exact-digits"}


def test_filters_by_sampler_steps_calls_machine_and_front(page):
    page.click("#find")
    page.type("ddim S=10")
    assert rows(page) == [("digits", "ddim eta=0", 10), ("digits", "ddim eta=1", 10)]
    set_field(page, "find", "")
    set_field(page, "by-steps", "20")
    assert {row[2] for row in rows(page)} == {20}
    set_field(page, "by-steps", "")
    set_field(page, "most-calls", "10")
    assert {row[2] for row in rows(page)} == {5, 10}
    set_field(page, "most-calls", "")
    set_field(page, "by-machine", "a processor")
    assert len(rows(page)) == 9
    set_field(page, "by-front", "calls")
    assert rows(page) == [
        ("digits", "ddim eta=1", 20), ("digits", "ddim eta=0", 10), ("digits", "ddpm fixedlarge clip x0", 5)
    ]  # fmt: skip


@pytest.mark.parametrize("place", [0, 1])
def test_the_front_that_is_drawn_is_the_one_that_was_computed(page, records, place):
    board = boards_of(records)[place]
    page.run(f"location.hash = '#b{place}'")
    page.run("new Promise(done => setTimeout(done, 100))")
    for cost, told in (("calls", "calls"), ("milliseconds", "time")):
        page.run(
            f"(() => {{ const s = document.querySelector('#b{place} .against'); s.value = '{cost}';"
            " s.dispatchEvent(new Event('change')); })()"
        )
        expected = sorted((x.record.trial.steps, x.label) for x in board.lines if told in x.fronts)
        assert front(page, f"b{place}") == [f"{label}, S={steps}" for steps, label in expected]


def test_the_front_is_that_of_what_the_filters_leave(page):
    assert front(page) == ["ddpm fixedlarge clip x0, S=5", "ddim eta=0, S=10", "ddim eta=1, S=20"]
    set_field(page, "find", "ddim")
    assert front(page) == ["ddim eta=1, S=5", "ddim eta=0, S=10", "ddim eta=1, S=20"]


def test_points_stand_where_their_numbers_are(page):
    """Both axes are logarithmic: equal ratios are equal distances."""
    places = dict(
        page.run(
            "Array.from(document.querySelectorAll('#b0 .point')).map(g => [g.dataset.told.split(':')[0],"
            " ['cx', 'cy'].map(a => Number(g.querySelector('circle').getAttribute(a)))])"
        )
    )
    (x5, _), (x10, y2), (x20, y1) = (places[f"ddim eta=0, S={s}"] for s in STEPS)
    assert x10 - x5 == pytest.approx(x20 - x10, abs=0.01)
    y4 = places["ddim eta=1, S=10"][1]
    assert y1 - y2 == pytest.approx(y2 - y4, abs=0.01) and y1 > y2 > y4 - 1


def test_the_pointer_tells_a_point_and_lights_its_sampler(page):
    page.run("document.querySelector('.chart').scrollIntoView({block: 'center', behavior: 'instant'})")
    page.hover("#b0 .point[data-told^='ddim eta=0, S=10'] circle")
    assert page.run("document.getElementById('tip').textContent") == (
        "ddim eta=0, S=10: 2.000 ± 0.010 ★ at 10 network calls"
    )
    lit = page.run("Array.from(document.querySelectorAll('.chart .lit')).map(e => e.dataset.series)")
    assert set(lit) == {"ddim eta=0"} and len(lit) == 1 + 3 + 1  # its line, its points, its name
    page.hover("h1")
    assert page.run("document.getElementById('tip').hidden")
    page.hover("#b0 tbody.lines tr[data-label='ddim eta=1']")
    assert page.run("document.querySelector('.chart .lit').dataset.series") == "ddim eta=1"


def test_a_click_on_a_point_leads_to_its_row(page):
    page.run("document.querySelector('.chart').scrollIntoView({block: 'center', behavior: 'instant'})")
    page.click("#b0 .point[data-told^='ddim eta=1, S=5'] circle")
    row = page.run(
        "(() => { const r = document.querySelector('tr.lit'); return [r.dataset.label, r.dataset.steps]; })()"
    )
    assert row == ["ddim eta=1", "5"]


def test_the_head_and_the_samplers_stay_in_sight(page):
    page.size(360, 800)
    moved = page.run(
        "(() => { const box = document.querySelector('#b0 .tall'); box.scrollLeft = 200;"
        " const th = box.querySelector('tbody th'), td = box.querySelector('tbody td:last-child');"
        " return [th.getBoundingClientRect().x - box.getBoundingClientRect().x, box.scrollLeft]; })()"
    )
    assert abs(moved[0]) < 3 and moved[1] == 200


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_all_text_has_the_contrast_that_wcag_asks_for(browser, path, theme):
    browser.open(path, prefers_color_scheme=theme)
    assert browser.run(CONTRAST) == []


@pytest.mark.parametrize("width", [360, 390, 800, 1920])
def test_nothing_sticks_out_on_any_screen(browser, path, width):
    browser.open(path, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    drawn = browser.run("document.querySelector('.drawing svg').getBoundingClientRect().width")
    assert 0.6 * min(width, 1280) < drawn <= width


def test_without_scripts_every_table_is_there(browser, path):
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(path)
        shown = json.dumps(browser.send("DOM.getDocument", depth=-1))
        assert "The plot and the filters need scripts" in shown
        assert shown.count("--samplers ddim:eta=0,clip=none --steps 20") >= 2
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
