"""How many images separate two samplers, from records whose difference and error are known."""

import json

import pytest
from scipy import stats
from support.reports import record

from bench.commands.main import main
from bench.records.store import Store
from bench.stats.comparison import compare

N = 1000


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    common = {"model": "digits", "metric": "fd_digits", "n": N, "spacing": "uniform"}
    for steps, gap, seed in ((10, 0.05, 2), (20, 0.0, 1), (50, 0.002, 2)):
        store.write(record("ddim:eta=0", steps, 2.0, se=0.02, seed=1, **common))
        store.write(record("ddim:eta=1", steps, 2.0 + gap, se=0.02, seed=seed, **common))
    store.write(record("sigma-hat", 10, 3.0, seed=3, **common))
    return tmp_path


def run(capsys, folder, *arguments):
    status = main(["power", *map(str, arguments), "--results", str(folder)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_number_of_images_has_the_power_asked_for(folder, capsys):
    status, out, _ = run(capsys, folder, "ddim:eta=0", "ddim:eta=1", "--steps", 10, "--json")
    assert status == 0
    (plan,) = json.loads(out)
    records = {(r.sampler.label, r.trial.steps): r for r in Store(folder).read()[0]}
    a, b = (records[f"ddim eta={eta}", 10].scores["fd_digits"] for eta in (0, 1))
    known = compare(b, a)
    assert plan["difference"] == pytest.approx(0.05)
    assert plan["se"] == pytest.approx(known.se)
    apart = 0.05 / (known.se * (N / plan["needed"]) ** 0.5)
    critical = stats.t.ppf(0.975, 19)
    assert stats.nct.sf(critical, 19, apart) == pytest.approx(0.8, abs=0.01)
    assert plan["least"] < plan["needed"]
    high = plan["needed"] * (0.05 / (0.05 + (known.high - known.low) / 2)) ** 2
    assert plan["least"] == pytest.approx(high, rel=0.01)
    assert plan["power"] == pytest.approx(stats.nct.sf(critical, 19, 0.05 / known.se), abs=0.01)


def test_more_power_takes_more_images(folder, capsys):
    needed = [
        json.loads(run(capsys, folder, "ddim:eta=0@10", "ddim:eta=1@10", "--power", p, "--json")[1])[0][
            "needed"
        ]
        for p in (0.5, 0.8, 0.95)
    ]
    assert needed == sorted(set(needed))


def test_equal_scores_are_separated_by_no_number_of_images(folder, capsys):
    status, out, _ = run(capsys, folder, "ddim:eta=0", "ddim:eta=1")
    assert status == 0
    head, ten, twenty, fifty = out.splitlines()
    assert head == "ddim:eta=1 less ddim:eta=0, two-sided at 95%:"
    assert "separate them with power 0.8" in ten
    assert "S=20: fd_digits +0 ± 0 with 1,000 images: no n up to 50,000 separates them" in twenty
    assert "no n up to 50,000 separates them: power 0." in fifty
    assert (
        "no n up to 300" in run(capsys, folder, "ddim:eta=0", "ddim:eta=1", "--most", 300)[1].splitlines()[1]
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ddim:eta=0"], "the following arguments are required: SAMPLER"),
        (["ddim:eta=0", "ddim:eta=1", "--power", "1"], "--power takes a chance between 0.05 and 1, got 1"),
        (["ddim:eta=0", "ddim:eta=1", "--most", "0"], "--most takes a number of images from 2 on, got 0"),
        (["ddim:eta=0", "ddim:eta=1", "--steps", "7"], "unknown trial 'ddim:eta=0@7'"),
        (["ddim:eta=0", "heun"], "no number of steps has trials of both ddim:eta=0 and heun"),
        (["ddim:eta=0@10", "ddim:eta=1"], "give two samplers, with --steps S or without"),
        (["ddim:eta=0@10", "ddim:eta=1@10", "--steps", "10"], "give two samplers, with --steps S or without"),
        (["ddim:eta=0", "ddim:eta=1", "--metric", "fid"], "has no score 'fid'; it has fd_digits"),
    ],
)
def test_what_cannot_be_planned_is_said(folder, capsys, arguments, sentence):
    try:
        status, _, err = run(capsys, folder, *arguments)
    except SystemExit as stop:
        status, err = stop.code, capsys.readouterr().err
    assert status == 2
    assert sentence in err
