"""Measures how far the error bars of scores can be trusted, by repetition with known truth.

    python docs/uncertainty.py [REPETITIONS] [--write]

Prints the tables of uncertainty.md; --write puts them there. Samples are x = A z with z normal, or skewed
and heavy-tailed (unit exponentials, excess kurtosis 6), so that mean and covariance, all that the Frechet
distance knows, are exact, and so is the distance at infinite N. Cases of few samples for their dimension get
half as many repetitions. One thread, a quarter of an hour at 400 repetitions.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from bench.errors import UsageError
from bench.metrics import FrechetMetric, FrechetReference, GroupedStatistics, Score
from bench.metrics.influence import influence
from bench.metrics.mmd import kernel_sums, mmd, polynomial
from bench.metrics.reference import Reference
from bench.metrics.samples import law_reference
from bench.stats.comparison import compare, interval
from bench.stats.resampling import influence_se

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


def table(rows: list[tuple[dict[str, str], dict[str, float]]]) -> str:
    heads = [*rows[0][0], *rows[0][1]]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for labels, numbers in rows:
        cells = [f"{v:.3g}" if np.isfinite(v) else "" for v in numbers.values()]
        lines.append("| " + " | ".join([*labels.values(), *cells]) + " |")
    return "\n".join(lines)


def main() -> None:
    torch.set_num_threads(1)
    given = [int(word) for word in sys.argv[1:] if word.isdigit()]
    n = given[0] if given else 400
    half = max(2, n // 2)
    runs = [(16, 500, n), (64, 1000, n), (128, 1000, n), (128, 5000, n), (256, 2000, n)]
    runs += [(128, 512, half), (128, 384, half), (128, 256, half), (128, 160, half), (128, 100, n)]
    one = [
        ({"d": str(d), "N": str(size), "law": "heavy" if heavy else "normal"}, one_run(d, size, heavy, times))
        for d, size, times in runs
        for heavy in (False, True)
    ]
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
        ({"d": "128", "N": "100", "case": case}, pair(128, 100, gap, turn, half)) for case, gap, turn in alike
    ]
    kids = [
        ({"d": str(d), "N": str(size), "case": case}, kid(d, size, gap, n))
        for d, size in ((64, 500), (64, 1000))
        for case, gap in (("equal laws", 0.0), ("10% wider", 0.1))
    ]
    tables = {"one": table(one), "pairs": table(pairs), "kid": table(kids)}
    print("\n\n".join(tables.values()))
    if "--write" in sys.argv:
        page = Path(__file__).with_suffix(".md")
        text = page.read_text()
        for name, content in tables.items():
            start, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
            before, rest = text.split(start)
            text = before + start + content + "\n" + end + rest.split(end)[1]
        page.write_text(text)


if __name__ == "__main__":
    main()
