"""Measures how far the error bars of scores can be trusted, by repetition with known truth.

    python docs/uncertainty.py [REPETITIONS] [one] [pairs] [kid] [rounds] [saving] [--write]

Prints the tables of uncertainty.md, or those named; --write puts them there. Samples are x = A z with z
normal, or skewed and heavy-tailed (unit exponentials, excess kurtosis 6), so that mean and covariance, all
that the Frechet distance knows, are exact, and so is the distance at infinite N. Cases of few samples for
their dimension get half as many repetitions. One thread, three quarters of an hour at 400 repetitions.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.commands.options import parse_samplers
from bench.errors import UsageError
from bench.metrics import FrechetMetric, FrechetReference, GroupedStatistics, Score
from bench.metrics.influence import influence
from bench.metrics.mmd import kernel_sums, mmd, polynomial
from bench.metrics.reference import Reference
from bench.metrics.samples import law_reference
from bench.records.record import Record
from bench.records.store import Store
from bench.records.trial import Trial
from bench.stats.comparison import compare, estimate, interval
from bench.stats.resampling import influence_se, jackknife
from bench.stats.sequential import Boundary
from bench.sweep.request import Sweep
from bench.sweep.rounds import Rounds, Rule, looks, standings
from bench.sweep.runner import Runner

METRIC = FrechetMetric("fd", "simulated")


def features(d: int, seed: int) -> np.ndarray:
    """(d, d) mixing matrix with the decaying spectrum of network features."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(d, d)) / np.sqrt(d) * np.exp(-2 * np.arange(d) / d)


def draw(rng: np.random.Generator, n: int, d: int, heavy: bool) -> np.ndarray:
    """(n, d) independent numbers of mean 0 and variance 1."""
    return rng.exponential(size=(n, d)) - 1 if heavy else rng.normal(size=(n, d))


def score(x: np.ndarray, reference: Reference) -> Score:
    stats = GroupedStatistics(len(x), x.shape[1])
    stats.add(x, range(len(x)))
    return METRIC.score(stats, reference)


def one_run(d: int, n: int, heavy: bool, repetitions: int) -> dict[str, float]:
    """A sampler that is off by a few per cent, scored again and again."""
    true = features(d, 1)
    law = law_reference(np.zeros(d), true @ true.T, (1, 1, d), name="law")
    off = true * 1.1 + 0.1 * features(d, 2)
    shift = 0.05 * np.ones(d)
    truth = FrechetReference(law.mean, law.cov).distance(shift, off @ off.T)
    rng = np.random.default_rng(3)
    found, delta = [], []
    for _ in range(repetitions):
        x = draw(rng, n, d, heavy) @ off.T + shift
        found.append(score(x, law))
        try:
            delta.append(influence_se(influence(x, law)))
        except UsageError:
            delta.append(np.nan)
    value, debiased, se = (np.array([getattr(s, k) for s in found]) for k in ("value", "debiased", "se"))
    covered = np.mean([low < truth < high for low, high in map(interval, found)])
    plain = np.mean([abs(s.value - truth) < interval(s)[1] - s.debiased for s in found])
    by_delta = (
        np.mean(np.abs(debiased - truth) < 1.96 * np.array(delta)) if np.isfinite(delta).all() else np.nan
    )
    return {
        "truth": truth,
        "mean FD_N": value.mean(),
        "mean corrected": debiased.mean(),
        "sd FD_N": value.std(ddof=1),
        "sd corrected": debiased.std(ddof=1),
        "SE / sd": np.sqrt(np.mean(se**2)) / debiased.std(ddof=1),
        "coverage": covered,
        "coverage of FD_N +- SE": plain,
        "IF SE / sd": np.sqrt(np.mean(np.square(delta))) / value.std(ddof=1),
        "IF coverage": by_delta,
    }


def pair(d: int, n: int, gap: float, turn: float, repetitions: int) -> dict[str, float]:
    """Two samplers on the same noise; the second's law is ``gap`` wider, its samples rotated by ``turn``."""
    true = features(d, 1)
    law = law_reference(np.zeros(d), true @ true.T, (1, 1, d), name="law")
    skew = np.random.default_rng(4).normal(size=(d, d)) / np.sqrt(d)
    rotation = torch.matrix_exp(torch.from_numpy(turn * (skew - skew.T))).numpy()
    first, second = true * 1.1, true * (1.1 + gap) @ rotation
    truth = law.frechet.distance(np.zeros(d), second @ second.T) - law.frechet.distance(
        np.zeros(d), first @ first.T
    )
    rng = np.random.default_rng(5)
    differences, errors, alone, covered, verdicts = [], [], [], [], []
    for _ in range(repetitions):
        z = rng.normal(size=(n, d))
        a, b = score(z @ second.T, law), score(z @ first.T, law)
        found = compare(a, b)
        differences.append(found.difference)
        errors.append(found.se)
        alone.append(np.hypot(a.se, b.se))
        covered.append(found.low < truth < found.high)
        verdicts.append(found.verdict != "tie")
    return {
        "truth": truth,
        "mean difference": np.mean(differences),
        "sd": np.std(differences, ddof=1),
        "SE / sd": np.sqrt(np.mean(np.square(errors))) / np.std(differences, ddof=1),
        "coverage": np.mean(covered),
        "called different": np.mean(verdicts),
        "unpaired SE / paired": np.mean(alone) / np.mean(errors),
    }


def kid(d: int, n: int, gap: float, repetitions: int) -> dict[str, float]:
    """KID between two samples of n."""
    true = features(d, 1) * 3
    rng = np.random.default_rng(6)
    values, errors = [], []
    for _ in range(repetitions):
        x, y = (torch.from_numpy(rng.normal(size=(n, d)) @ true.T * s) for s in (1 + gap, 1.0))
        found = mmd(x, y, polynomial, [slice(0, n)], kernel_sums(y, polynomial, [slice(0, n)]))
        values.append(found.value)
        errors.append(found.se)
    value, error = np.array(values), np.array(errors)
    truth = value.mean() if gap else 0.0
    return {
        "mean KID": value.mean(),
        "sd": value.std(ddof=1),
        "SE / sd": np.sqrt(np.mean(error**2)) / value.std(ddof=1),
        "coverage": np.mean(np.abs(value - truth) < 1.96 * error),
    }


class Scorer:
    """The score of `score`, all groups at once and many times as fast: for n in groups of equal size.

    The trace of (S^(1/2) S_g S^(1/2))^(1/2) is the sum of the square roots of its eigenvalues.
    """

    def __init__(self, law: Reference) -> None:
        self.law = law
        values, vectors = np.linalg.eigh(law.cov)
        self.root = vectors * np.sqrt(values) @ vectors.T
        x = np.random.default_rng(9).normal(size=(800, len(values)))
        first, second = score(x, law), self(x)
        assert np.allclose(first.leave_one_out, second.leave_one_out, rtol=1e-6)
        assert np.isclose(first.debiased, second.debiased, rtol=1e-6)

    def __call__(self, x: np.ndarray) -> Score:
        n, groups = len(x), 20
        parts = x.reshape(groups, n // groups, -1)
        sums, squares = parts.sum(1), np.einsum("gid,gie->gde", parts, parts, optimize=True)
        rest = np.append(n - np.full(groups, n // groups), n)[:, None]
        mean = np.append(sums.sum(0) - sums, sums.sum(0)[None], axis=0) / rest
        square = np.append(squares.sum(0) - squares, squares.sum(0)[None], axis=0)
        outer = np.einsum("gd,ge->gde", mean, mean)
        cov = (square - rest[..., None] * outer) / (rest[..., None] - 1)
        values = np.linalg.eigvalsh(self.root @ cov @ self.root)
        traces = np.trace(cov, axis1=1, axis2=2) + np.trace(self.law.cov)
        found = traces - 2 * np.sqrt(np.maximum(values, 0)).sum(1)
        found += np.square(mean - self.law.mean).sum(1)
        made = jackknife(float(found[-1]), found[:-1].tolist())
        where = {"space": self.law.space, "reference": self.law.hash}
        return Score("fd", made.value, made.debiased, made.se, made.leave_one_out, n, **where)


def sweeps(gaps: Sequence[float], turn: float, margin: float, repetitions: int) -> dict[str, float]:
    """Sweeps in rounds of samplers on the same noise, the k-th's law ``gaps[k]`` wider, until they tie.

    A claim is false that calls a sampler beaten that is not worse than the one named, or two tied of which
    one is worse by more than the margin.
    """
    d, most = 16, 3200
    true = features(d, 1)
    law = law_reference(np.zeros(d), true @ true.T, (1, 1, d), name="law")
    generator = np.random.default_rng(7)
    mixed = []
    for gap in gaps:
        skew = generator.normal(size=(d, d)) / np.sqrt(d)
        rotation = torch.matrix_exp(torch.from_numpy(turn * (skew - skew.T))).numpy()
        mixed.append(true * 1.3 * (1.0 + gap) @ rotation)
    truth = [law.frechet.distance(np.zeros(d), one @ one.T) for one in mixed]
    numbers = looks(most)
    rule, boundary = Rule(tie=margin), Boundary(len(gaps), len(numbers))
    at_once, scorer = Boundary(len(gaps), 1), Scorer(law)
    rng = np.random.default_rng(8)
    worse = [k for k in range(len(gaps)) if truth[k] > min(truth) * (1 + 1e-9)]
    lost, false, drawn, found, fixed, ended = [], [], [], [], [], []
    for _ in range(repetitions):
        z = rng.normal(size=(most, d))
        outcomes = in_rounds(z, mixed, scorer, rule, boundary, numbers)
        beaten = [(k, by) for k, (_, standing, by) in outcomes.items() if standing == "beaten"]
        tied = [(k, by) for k, (_, standing, by) in outcomes.items() if standing == "tied"]
        lost.append(any(k == int(np.argmin(truth)) for k, _ in beaten))
        wrong = any(truth[k] <= truth[by] * (1 + 1e-9) for k, by in beaten)
        wrong |= any(max(truth[k], truth[by]) > (1 + margin) * min(truth[k], truth[by]) for k, by in tied)
        false.append(wrong)
        drawn.append(sum(n for n, _, _ in outcomes.values()))
        ended.append(any(standing in ("tied", "best") for _, standing, _ in outcomes.values()))
        found.append(sum(k in worse for k, _ in beaten))
        whole = [scorer(z @ one.T) for one in mixed]
        best = whole[int(np.argmin([estimate(one) for one in whole]))]
        fixed.append(sum(at_once.beaten(whole[k], best) for k in worse if whole[k] is not best))
    return {
        "worst / best": max(truth) / min(truth),
        "best dropped": np.mean(lost),
        "a false claim": np.mean(false),
        "ended before N": np.mean(ended),
        "images of K N": np.mean(drawn) / (len(gaps) * most),
        "worse ones dropped": np.sum(found) / (len(worse) * repetitions) if worse else np.nan,
        "with N of all": np.sum(fixed) / (len(worse) * repetitions) if worse else np.nan,
    }


def in_rounds(
    z: np.ndarray,
    mixed: Sequence[np.ndarray],
    scorer: Scorer,
    rule: Rule,
    boundary: Boundary,
    numbers: Sequence[int],
) -> dict[int, tuple[int, str, int]]:
    """(n, outcome, the other sampler) of every sampler, drawn in rounds as ``run`` draws them."""
    trials = [Trial("m", str(k), "uniform", 1, 0, 0, 0, "float32", "cpu", ("fd",)) for k in range(len(mixed))]
    left, outcomes = dict(enumerate(trials)), {}
    for n in numbers:
        scores = {trial: scorer(z[:n] @ mixed[k].T) for k, trial in left.items()}
        for trial, standing in standings(rule, boundary, scores, last=n == numbers[-1]).items():
            k = int(trial.sampler)
            outcomes[k] = (n, standing.outcome, int(standing.by.sampler) if standing.by else k)
            del left[k]
        if not left:
            break
    return outcomes


class Silent:
    """An observer that shows nothing."""

    def planned(self, plan: object) -> None: ...

    def advanced(self, trial: object, samples: int) -> None: ...

    def ended(self, record: object) -> None: ...


def saving(model: str, steps: tuple[int, ...], most: int, rules: Sequence[Rule]) -> list[dict[str, float]]:
    """A shipped model's sweep in rounds, and with N samples of every trial, compared once at that level."""
    sweep = Sweep(model, parse_samplers(["paper"]), steps, n=most)
    with tempfile.TemporaryDirectory() as folder:
        store, found = Store(Path(folder)), []
        for rule in rules:
            rounds = Rounds(Runner(sweep, store), rule)
            records = rounds.run(lambda: nullcontext(Silent()))
            found.append({record.trial.at_any_n: record for record in records})
        whole = Runner(replace(sweep, n=rounds.most), store)
        plain = whole.run(whole.plan(), Silent())
    return [_saved(steps, rounds.most, last, plain) for last in found]


def _saved(
    steps: Sequence[int], most: int, last: Mapping[Trial, Record], plain: Sequence[Record]
) -> dict[str, float]:
    drawn = {r.trial.at_any_n: r.cost.calls for r in plain if r.cost is not None}
    at_once: set[Trial] = set()
    for column in ([r for r in plain if r.trial.steps == s and r.scores] for s in steps):
        scores = {r.trial.at_any_n: next(iter(r.scores.values())) for r in column}
        ended = standings(Rule(tie=0.5), Boundary(len(scores), 1), scores, last=True)
        at_once |= {trial for trial, standing in ended.items() if standing.outcome == "beaten"}
    dropped = {trial for trial, record in last.items() if record.stopping.outcome == "beaten"}
    return {
        "trials": len(drawn),
        "images of trials x N": sum(last[trial].trial.n for trial in drawn) / (len(drawn) * most),
        "network calls": sum(last[trial].trial.n * calls for trial, calls in drawn.items())
        / (most * sum(drawn.values())),
        "dropped": len(dropped),
        "worse with N of all": len(at_once),
        "of both": len(dropped & at_once),
    }


def table(rows: list[tuple[dict[str, str], dict[str, float]]]) -> str:
    heads = [*rows[0][0], *rows[0][1]]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for labels, numbers in rows:
        cells = [f"{v:.3g}" if np.isfinite(v) else "" for v in numbers.values()]
        lines.append("| " + " | ".join([*labels.values(), *cells]) + " |")
    return "\n".join(lines)


def measure_one(n: int) -> str:
    half = max(2, n // 2)
    runs = [(16, 500, n), (64, 1000, n), (128, 1000, n), (128, 5000, n), (256, 2000, n)]
    runs += [(128, 512, half), (128, 384, half), (128, 256, half), (128, 160, half), (128, 100, n)]
    return table(
        [
            (
                {"d": str(d), "N": str(size), "law": "heavy" if heavy else "normal"},
                one_run(d, size, heavy, times),
            )
            for d, size, times in runs
            for heavy in (False, True)
        ]
    )


def measure_pairs(n: int) -> str:
    alike = (("equal laws, similar samples", 0.0, 0.1), ("1% wider, similar samples", 0.011, 0.1))
    pairs = [
        ({"d": str(d), "N": str(size), "case": case}, pair(d, size, gap, turn, n))
        for d, size in ((64, 1000), (128, 2000))
        for case, gap, turn in (
            ("equal laws, similar samples", 0.0, 0.1),
            ("equal laws, unlike samples", 0.0, 3.0),
            ("1% wider, similar samples", 0.011, 0.1),
            ("1% wider, unlike samples", 0.011, 3.0),
        )
    ]
    pairs += [
        ({"d": "128", "N": "100", "case": case}, pair(128, 100, gap, turn, max(2, n // 2)))
        for case, gap, turn in alike
    ]
    return table(pairs)


def measure_kid(n: int) -> str:
    return table(
        [
            ({"d": str(d), "N": str(size), "case": case}, kid(d, size, gap, n))
            for d, size in ((64, 500), (64, 1000))
            for case, gap in (("equal laws", 0.0), ("10% wider", 0.1))
        ]
    )


def measure_rounds(n: int) -> str:
    return table(
        [
            ({"case": case}, sweeps(gaps, turn, 0.1, 5 * n))
            for case, gaps, turn in (
                ("5 equal laws, similar samples", (0.0,) * 5, 0.1),
                ("5 equal laws, unlike samples", (0.0,) * 5, 3.0),
                ("10 equal laws, similar samples", (0.0,) * 10, 0.1),
                ("one of 5 best, others 2% wider", (0.0, *(0.02,) * 4), 0.1),
                ("one of 5 best, others 0.5% wider", (0.0, *(0.005,) * 4), 0.1),
                ("one of 5 best, others 5% wider, unlike samples", (0.0, *(0.05,) * 4), 3.0),
                ("5 in steps of 0.3%, similar samples", (0.0, 0.003, 0.006, 0.009, 0.012), 0.1),
                ("5 in steps of 3%, unlike samples", (0.0, 0.03, 0.06, 0.09, 0.12), 3.0),
            )
        ]
    )


def measure_saving(n: int) -> str:
    rows = []
    for model, steps, most, rules in (
        ("exact-digits", (10, 20), 16_000, (Rule(tie=0.02),)),
        ("digits", (10,), 8000, (Rule(tie=0.1), Rule(se=0.25))),
    ):
        labels = {"model": model, "S": ", ".join(map(str, steps)), "N": f"{most:,}"}
        saved = saving(model, steps, most, rules)
        rows += [({**labels, "asked": f"`{rule}`"}, one) for rule, one in zip(rules, saved, strict=True)]
    return table(rows)


TABLES = {
    "one": measure_one,
    "pairs": measure_pairs,
    "kid": measure_kid,
    "rounds": measure_rounds,
    "saving": measure_saving,
}


def main() -> None:
    torch.set_num_threads(1)
    given = [int(word) for word in sys.argv[1:] if word.isdigit()]
    wanted = [name for name in TABLES if name in sys.argv[1:]] or list(TABLES)
    for name in wanted:
        content = TABLES[name](given[0] if given else 400)
        print(content, flush=True)
        if "--write" in sys.argv:
            write(name, content)


def write(name: str, content: str) -> None:
    page = Path(__file__).with_suffix(".md")
    start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    before, rest = page.read_text().split(start)
    page.write_text(before + start + content + "\n" + end + rest.split(end)[1])


if __name__ == "__main__":
    main()
