"""The report as a file: whole in itself, the same for the same records, safe whatever a record says."""

import argparse
import re
from dataclasses import replace

import pytest
from support.pages import EVIL, Elements
from support.reports import record, results, table

from bench.commands import run
from bench.commands.main import main
from bench.commands.usage import run_options
from bench.drawing.style import DARK, LIGHT
from bench.records.record import Environment
from bench.records.store import Store
from bench.records.trial import Failure, Trial
from bench.report.page.details import command_of
from bench.report.page.html import report
from bench.report.tables.findings import find_claims
from bench.report.tables.summary import best_of_columns, plus_minus, sentences, short
from bench.report.verify import verify


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return results(tmp_path_factory.mktemp("html"))


@pytest.fixture(scope="module")
def text(store):
    return report(store, store.read()[0])


@pytest.fixture(scope="module")
def elements(text):
    return Elements(text)


def test_equal_records_give_an_equal_page(store, text):
    assert report(Store(store.folder), store.read()[0][::-1]) == text


def test_the_page_asks_for_nothing(text, elements):
    for tag in ("img", "script", "link", "iframe", "object", "embed", "video", "source", "use", "image"):
        for attributes in elements.all(tag):
            for name in ("src", "href", "data", "xlink:href"):
                assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    assert not re.search(r"url\((?!data:|#)|@import", text)
    (policy,) = [m["content"] for m in elements.all("meta") if "http-equiv" in m]
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_every_name_is_unique_and_every_link_leads_somewhere(elements):
    names = [attributes["id"] for _, attributes in elements.found if "id" in attributes]
    assert len(names) == len(set(names))
    links = {a["href"] for a in elements.all("a") if a["href"].startswith("#")}
    used = {a["xlink:href"] for a in elements.all("use")}
    assert len(links) > 12
    assert {link[1:] for link in links | used} <= set(names)
    assert {a["href"] for a in elements.all("a")} - links == {
        f"https://arxiv.org/abs/{number}" for number in ("2006.11239", "2010.02502")
    }


def test_every_score_is_in_the_table_and_leads_to_its_trial(store, text):
    for made in store.read()[0]:
        for score in made.scores.values():
            assert f'<a href="#t-{made.key}">{plus_minus(score)}</a>' in text
        assert f'id="t-{made.key}"' in text


def test_what_cannot_be_seen_is_said(elements):
    assert all(attributes.get("scope") in ("row", "col") for attributes in elements.all("th"))
    assert all(attributes.get("aria-label") for attributes in elements.all("svg"))
    assert all(a.get("aria-label") for _, a in elements.found if a.get("role") in ("img", "region"))
    assert len(elements.all("caption")) == len(elements.all("table"))
    labelled = {attributes.get("for") for attributes in elements.all("label")}
    assert {a["id"] for a in elements.all("input") if a["type"] == "range"} <= labelled


def test_failures_are_told_with_their_traceback(elements):
    assert "failed ddim eta=0.5 at S=10 , step 3: it broke traceback Traceback: it broke" in elements.text
    assert "Of 11 trials 1 failed and 1 skipped." in elements.text


def test_points_of_a_plot_say_what_they_are(text):
    (titles,) = re.findall(r'<g id="g0-steps-row-0">(.*?)</g>\s*</g>', text, re.DOTALL)[:1]
    found = re.findall(r"<title>(.*?)</title>", titles)
    assert found == ["ddim eta=0, S=10: 2.000 ± 0.010", "ddim eta=0, S=50: 1.000 ± 0.010",
                     "ddim eta=0, S=1000: 0.600 ± 0.010"]  # fmt: skip


def test_plots_have_the_colours_of_the_page(text):
    drawings = re.findall(r"<svg .*?</svg>", text, re.DOTALL)
    assert len(drawings) == 8
    assert all("#fe00" not in drawing and "var(--ink)" in drawing for drawing in drawings)
    for theme in (LIGHT, DARK):
        assert f"--ink:{theme.ink};" in text
        assert f"--series-7:{theme.series[7]}" in text


def test_whatever_a_record_says_is_text(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    evil = record("ddim:eta=0", 10, 2.0, model=EVIL, metric=EVIL)
    named = replace(evil.sampler, label=EVIL, source=EVIL, plugin=EVIL)
    machine = Environment(command=EVIL, versions={EVIL: EVIL})
    key = "x}</style><script>" + "a" * 8
    failed = record("ddim:eta=1", 10, status="failed", message=EVIL)
    broken = failed.failed(Failure("failed", EVIL, EVIL, EVIL))
    made = [replace(evil, sampler=named, key=key, environment=machine), broken]
    found = Elements(report(store, made))
    assert len(found.all("script")) == 1
    assert len(found.all("style")) == 1
    assert found.all("img") == []
    assert not any("onerror" in attributes for _, attributes in found.found)
    assert "{{7*7}}" in found.text
    assert "49" not in found.text


def test_the_command_of_a_trial_makes_the_same_trial():
    parser = argparse.ArgumentParser()
    run_options(parser)
    made = record(
        "ddim:eta=0.35,clip=x0",
        37,
        2.0,
        model="exact-gaussian",
        metric="fd_pixels",
        n=123,
        spacing="trailing",
    )
    command = command_of(made)
    assert command.startswith("python -m bench run --model exact-gaussian --samplers ddim:eta=0.35,clip=x0 ")
    sweep = run._sweep(parser.parse_args(command.split()[4:]), None)
    (sampler,), (steps,), (device,) = sweep.samplers, sweep.steps, sweep.devices
    again = Trial(
        sweep.model, sampler.spec, *sweep.spacings, steps, sweep.n, sweep.seed, sweep.batch, sweep.precision,
        device, sweep.metrics, sweep.reference,
    )  # fmt: skip
    assert again.key == made.key


def test_real_images_have_no_command(store):
    assert [command_of(r) == "" for r in store.read()[0]].count(True) == 1


def test_published_tables_are_shown_where_a_cell_can_be_compared_or_on_demand(tmp_path):
    store = Store(tmp_path)
    mine, other = (
        record("ddim:eta=0", 10, 13.4),
        record("ddim:eta=0", 10, 0.3, model="digits", metric="fd_digits"),
    )
    assert "reproduced" in Elements(report(store, [mine])).text
    assert "Beside the published figures" not in report(store, [other])
    asked = report(store, [other], ["ddim-table1-cifar10"])
    assert "24 not run. Not comparable: other model: digits" in Elements(asked).text
    assert "Song, Meng &amp; Ermon 2021" in asked


def test_verify_makes_the_report_again(tmp_path, capsys):
    store = results(tmp_path)
    assert main(["report", "--results", str(tmp_path), "--preset", "ddim-table1-celeba64"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'report.html'} (")
    path = store.folder / "report.html"
    others = {f.path.name for f in verify(tmp_path).findings}
    assert "report.html" not in others
    path.write_text(path.read_text().replace("2.000 ± 0.010", "1.000 ± 0.010", 1))
    (found,) = [f.reason for f in verify(tmp_path).findings if f.path == path]
    assert "differs from what the records make: line " in found


def test_a_report_that_cannot_be_written(store, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["report", "--results", str(store.folder), "--out", str(tmp_path / "file" / "x.html")]
    assert main(arguments) == 1
    assert "choose another --out" in capsys.readouterr().err
    assert main(["report", "--results", str(store.folder), "--preset", "ddim"]) == 2


def words(records):
    made = table(records)
    return " ".join(sentences(made, find_claims(made)))


def test_the_summary_says_what_the_table_says(store):
    told = words(store.read()[0])
    assert "The best fd_digits is 0.500 ± 0.010, of ddpm fixedlarge clip x0 at S=1000." in told
    assert (
        "Real images in the place of samples score 0.400 ± 0.010: the best score is 1.25 times that." in told
    )
    assert "With 10 steps ddim eta=0 is best (2.000 ± 0.010), and no other ties with it;" in told
    assert "; ddpm fixedlarge clip x0 is worst (9.000 ± 0.010)." in told
    assert "No much faster cell is within 10% of the best score, which takes 20 ms an image." in told
    assert "ddim eta=0 still gains at S=1000" in told


def test_the_summary_finds_the_fastest_that_is_nearly_as_good():
    records = [record("ddim:eta=0", s, v) for s, v in ((10, 5.0), (50, 1.05), (1000, 1.0))]
    told = words(records)
    assert "Within 10% of the best score the fastest is ddim eta=0 at S=50: 0.02 ms an image instead" in told
    assert "instead of 0.4, 20 times as fast." in told
    higher = [
        record("ddim:eta=0", s, v, higher_is_better=True) for s, v in ((10, 0.2), (50, 0.95), (1000, 1.0))
    ]
    assert "the fastest is ddim eta=0 at S=50" in words(higher)


def test_the_summary_knows_where_more_steps_stop_helping():
    records = [
        record("ddim:eta=0", s, v, se=0.1, seed=s)
        for s, v in ((10, 5.0), (50, 2.0), (100, 1.99), (1000, 2.01))
    ]
    assert (
        "ddim eta=0 gains from more steps up to S=50; beyond it no gain is larger than its error."
        in words(records)
    )
    flat = [record("ddim:eta=0", s, 2.0, se=0.1, seed=s) for s in (10, 50)]
    assert "More steps bring ddim eta=0 no gain that is larger than its error." in words(flat)


def test_ties_are_told_from_leaders():
    records = [record("ddim:eta=0", 10, 2.0, se=0.1, seed=1), record("ddim:eta=1", 10, 2.05, se=0.1, seed=2)]
    records.append(record("sigma-hat", 10, 9.0, se=0.1, seed=3))
    (best,) = best_of_columns(table(records))
    assert (best.row, best.ties) == ("ddim eta=0", ("ddim eta=1",))
    assert "not to be told from ddim eta=1; ddpm fixedlarge clip x0 is worst" in words(records)


def test_numbers_are_rounded_by_their_error():
    made = record(value=4.7123, se=0.5432).scores["fid"]
    assert plus_minus(made) == "4.71 ± 0.54"
    assert plus_minus(replace(made, se=0.0099999)) == "4.712 ± 0.010"
    assert plus_minus(replace(made, value=367.43, se=12.3)) == "367 ± 12"
    assert plus_minus(replace(made, se=float("nan"))) == "4.712"
    assert [short(x) for x in (0.2174, 4621, 12345678, 0)] == ["0.217", "4,620", "12,300,000", "0"]
