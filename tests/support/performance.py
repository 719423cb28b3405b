"""The tables of docs/performance.md, measured on a machine that does nothing else: --write puts them in."""

import sys
from pathlib import Path
from statistics import median

from bench.commands.estimate import span
from bench.commands.parser import command_parser
from bench.commands.speed import measured

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated, measured_on

ASKED = ("--model", "digits", "--batch", "1,32,256,1024")
NETWORK = "| batch | ms a call | ms an image | images a second | spread |\n|--:|--:|--:|--:|--:|"
SAMPLERS = "| sampler | calls | ms a trajectory | overhead | least | greatest |\n|---|--:|--:|--:|--:|--:|"


def command(asked):
    """The command as a reader types it."""
    return " ".join(["sampler-bench speed", *asked])


def network_rows(report):
    """A row for every batch that could be had."""
    for pace in report.measured:
        numbers = (f"{one:.3g}" for one in (pace.latency, pace.milliseconds))
        yield [str(pace.batch), *numbers, f"{pace.throughput:,.0f}", f"{pace.spread:.0%}"]


def sampler_rows(report):
    """A row for every sampler that fits the model."""
    for one in report.overheads:
        if one.ratios:
            ratios = (f"{ratio:.3f}" for ratio in (one.ratio, min(one.ratios), max(one.ratios)))
            yield [one.sampler.label, str(one.calls), f"{1000 * median(one.seconds):.3g}", *ratios]


def text(report, asked):
    """Machine, versions, command, the two tables and the sweep's cost, as Markdown."""
    machine = report.environment
    seconds = sum(one.seconds for one in report.estimates)
    calls = sum(one.evaluations for one in report.estimates)
    parts = [
        f"`{command(asked)}`, {measured_on(machine)}",
        "\n".join([NETWORK, *(f"| {' | '.join(row)} |" for row in network_rows(report))]),
        f"Samplers at batch {report.batch}, {report.steps} steps, {report.turns} turns:",
        "\n".join([SAMPLERS, *(f"| {' | '.join(row)} |" for row in sampler_rows(report))]),
        f"The default sweep: {len(report.estimates)} trials, {calls:,} network evaluations, about"
        f" {span(seconds)} of sampling.",
    ]
    return "\n\n".join(parts) + "\n"


def tables(asked=ASKED):
    """Measure, and return what stands in the document."""
    return text(measured(command_parser("speed").parse_args(list(asked))), asked)


TABLES = Generated(DOCS / "performance.md", "performance of digits", tables)

if __name__ == "__main__":
    TABLES.main()
