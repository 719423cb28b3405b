"""docs/decompose.md: its tables add up, say what its sentences say, and are what is measured."""

import json
import re

import pytest
from support.decompositions import DOCUMENT, MODELS, PARTS, STEPS

from bench.commands.main import main
from bench.commands.parser import command_parser

NUMBER = r"(-?[\d.]+) ± ([\d.]+)"
TEXT = DOCUMENT.read_text(encoding="utf-8")


def parts(model):
    """The rows of a model's parts: (sampler, S) -> [(value, se)]."""
    found = {}
    for line in PARTS[model].written().splitlines():
        if told := re.match(r"(\S+(?: eta=\d)?) +(\d+) +\d+ +-?[\d.]+ ±", line):
            found[told[1], int(told[2])] = [tuple(map(float, pair)) for pair in re.findall(NUMBER, line)]
    return found


def shares(model):
    """The part of every step in the error at x_0, by sampler's place: [[share]]."""
    table = PARTS[model].written().partition(f"S={STEPS}, spacing")[2]
    lines = [line for line in table.splitlines() if re.match(r" +\d+  [\d.]+ to ", line)]
    return list(zip(*([int(share) for share in re.findall(r"(\d+)%", line)] for line in lines), strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_parts_add_up_to_the_score(model):
    rows = parts(model)
    assert len(rows) == 8
    for (score, _), *told in rows.values():
        assert sum(value for value, _ in told[:3]) == pytest.approx(score, abs=0.02 * max(1, score))
    for rule in shares(model):
        assert len(rule) == STEPS
        assert sum(rule) == pytest.approx(100, abs=STEPS / 2)


def test_what_is_said_of_the_tables():
    for _, _, (network, error), *_ in parts("exact-digits").values():
        assert abs(network) < 2 * error
    for model in ("digits", "digits-conditional"):
        rows = parts(model)
        for (sampler, steps), (_, _, network, solver, *_) in rows.items():
            assert steps == 10 or network > solver, (model, sampler)
    rows = parts("digits")
    most = {
        sampler for (sampler, steps), (_, *told) in rows.items() if steps == 10 and max(told[:3]) == told[2]
    }
    assert most == {"ddim eta=0", "heun", "ddim eta=1"}
    assert all(rule[STEPS - 2] > 50 for rule in shares("digits"))


def test_the_commands_of_the_document_are_accepted():
    (line,) = re.findall(r"^    sampler-bench decompose (.*)$", TEXT, re.MULTILINE)
    assert command_parser("decompose").parse_args(line.split()).steps == "10,20"


def test_the_document_has_what_is_measured(capsys, tmp_path):
    asked = ["run", "--model", "exact-digits", "--samplers", "ddim", "heun", "--steps", "10", "--json"]
    assert main([*asked, "--n", "1000", "--metrics", "fd_pixels", "--results", str(tmp_path)]) == 0
    for record in json.loads(capsys.readouterr().out):
        if record["kind"] == "samples":
            told = parts("exact-digits")[record["label"], 10][0]
            assert told == pytest.approx((record["score"], record["score_se"]), abs=6e-4)
