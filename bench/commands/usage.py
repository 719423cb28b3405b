"""What every verb takes: its options, declared apart from the work, so that help and usage errors come at
once.

Nothing here imports torch, pandas or matplotlib: what can be chosen is told by name below, and a test holds
the names to what there is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "sampler-bench"
"""The command: what is installed under this name works in any folder."""

DEFAULT_MODEL = "digits"

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
MODES = ("eager", "compile", "cuda-graph", "auto")
PRESETS = (
    "ddim-table1-cifar10",
    "ddim-table1-celeba64",
    "iddpm-steps",
    "edm-cifar10-uncond",
    "edm-ffhq64",
    "edm-imagenet64",
    "edm-lsun-bedroom",
    "edm-heun-cifar10",
    "dpm-solver-cifar10",
    "ldm-celebahq",
    "ldm-ffhq",
    "ldm-lsun-church",
    "ldm-lsun-bedroom",
    "lsun-bedroom",
    "adm-imagenet64",
)

APART = ("digits-classifier", "cifar-classifier", "digits-autoencoder")

RECIPES = (
    "digits",
    "digits-quick",
    "digits-conditional",
    "digits-latent",
    "cifar10-ddpm",
    "cifar10-iddpm",
    "cifar10-small",
    "celeba64-ddpm",
    "celeba64-small",
)
VARIANCES = ("fixedsmall", "fixedlarge", "learned")
THEMES = ("light", "dark")
PLOT_FORMATS = ("png", "svg", "pdf")
TABLE_FORMATS = ("text", "markdown", "latex", "csv", "html")
EXPORT_FORMATS = ("csv", "parquet", "json", "latex")
KINDS = ("samplers", "sets", "models", "spacings", "metrics", "executors", "observers")
WEIGHT_FILES = ("inception", "dinov2", "clip")
SHELLS = ("bash", "zsh", "fish", "tcsh")
AFFORDABLE = 50_000
"""The most images that a question is asked of where nobody says how many: as many as papers take."""
BOUND_IMAGES = 1000
"""Images that a bound takes where nobody says how many."""
MOMENT_IMAGES = 1000
"""Images that second moments are estimated from where nobody says how many."""


def run_options(parser: argparse.ArgumentParser) -> None:
    """Sweep samplers over numbers of steps: draw, score, record; then print the table and draw the plots.

    What is done already is not done again: the same command goes on where it was stopped.

    --until-tie draws at n = 250, 500, 1000, ... up to --n, drops the samplers of a column that are beaten and
    ends when those left differ by less than 2%. At 95% nothing that it says of a column is false.

    Runs in one results folder share the work, also those that `torchrun -m bench run --samples 1000` starts,
    which would take --n and --log for its own: --tracker is --log. Machines without a common folder take
    --shard 1/4 to 4/4, and `merge` puts their results together.
    """
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help=f"the protocol of a published table, which options below may change: {', '.join(PRESETS)}",
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the preset's samples, for a look")
    parser.add_argument(
        "--samplers",
        nargs="+",
        metavar="NAME[:k=v,...]",
        help="all, a set as in paper or fast, or samplers with parameters, as in ddim:eta=0.35 [all]",
    )
    parser.add_argument(
        "--clip",
        metavar="MODE",
        help="how every sampler that can clip the predicted x_0 does it, as in none or x0 [each its own]",
    )
    columns = parser.add_mutually_exclusive_group()
    columns.add_argument("--steps", metavar="S,S,...", help="[10,20,50,100,1000]")
    columns.add_argument(
        "--calls",
        metavar="N,N,...",
        help="network calls: each sampler takes the most steps within them",
    )
    parser.add_argument(
        "--n",
        "--samples",
        dest="n",
        type=int,
        help="samples a trial, with the next three the most [1000, with --budget 50000]",
    )
    parser.add_argument(
        "--until-tie",
        type=float,
        metavar="PART",
        help="draw in rounds, drop samplers that are beaten, end when the others differ by less, as in 0.02",
    )
    parser.add_argument(
        "--until-se",
        type=float,
        metavar="SE",
        help="likewise, and end a trial when its score's standard error is at most this",
    )
    parser.add_argument(
        "--budget",
        metavar="TIME",
        help="draw in rounds, and begin none that would end after this time, as in 30m, 2h or 90s",
    )
    parser.add_argument(
        "--spacings",
        "--spacing",
        dest="spacing",
        metavar="RULE,...",
        help="rules that choose the times, as in logsnr,edm:rho=7; times as in 999,500,0; or files [uniform]",
    )
    add_model(parser, default=None)
    parser.add_argument(
        "--guidance",
        nargs="+",
        type=float,
        metavar="W",
        help="guidance scales of a conditional model, a table each; 1 is none [the model's]",
    )
    parser.add_argument(
        "--reference", metavar="IMAGES", help="image folder, .npz or name to score against [the model's]"
    )
    parser.add_argument(
        "--held-out",
        metavar="IMAGES",
        help="real images for the row of real images [the model's, or else a part of the reference]",
    )
    parser.add_argument(
        "--metrics", metavar="NAME,...", help="scores, the first is the table's [the model's]"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, or several as in cuda:0,cuda:1 [auto]"
    )
    parser.add_argument(
        "--executor",
        help="serial, processes, ray, submitit or a plugin's [serial; processes where --isolate holds]",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="of the Ray cluster [this machine's, else a new one of it alone]",
    )
    parser.add_argument(
        "--gpus-per-worker", metavar="G", help="with ray, as in 2, or 0.5 where two share one [1]"
    )
    parser.add_argument(
        "--slurm",
        metavar="KEY=VALUE,...",
        help="with submitit: options of sbatch, as in partition=gpu,time=2:00:00, and jobs, blocks, folder",
    )
    parser.add_argument(
        "--isolate",
        action=argparse.BooleanOptionalAction,
        help="draw in a process of its own: a crash costs one trial [where --plugin or --model FILE.py is]",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="longest that a step of a block may take there [20 times the longest so far, at least 300]",
    )
    add_drawing(parser, "samples", auto=True)
    add_modes(parser)
    parser.add_argument("--strict", action="store_true", help="stop at the first failure")
    parser.add_argument(
        "--log",
        "--tracker",
        dest="log",
        action="append",
        default=[],
        metavar="NAME[:WHERE]",
        help="tell every trial to csv, tensorboard, mlflow, wandb or a plugin's observer; repeatable",
    )
    parser.add_argument(
        "--shard", metavar="I/N", help="every N-th trial from the I-th, for machines that share no folder"
    )
    parser.add_argument(
        "--keep-features", action="store_true", help="keep features and influence values in RESULTS/features"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would be computed and how long it takes"
    )
    add_results(parser)
    add_plugins(parser)
    add_config(parser)
    add_quiet(parser)
    add_json(parser)


def table_options(parser: argparse.ArgumentParser) -> None:
    """Print the table of a results folder: samplers down, numbers of steps across.

    With --preset, the cells of a published table beside ours; with --claims, the orderings that the papers
    show, each tested on ours. Results that no published cell can be compared with are compared by shape. With
    --seeds, the mean and the standard deviation of every trial that was made with several seeds. With
    --stability, how often each row is the best of its column when the groups of samples are drawn again, and
    whether the winners survive fewer samples, other scores and the folder's other models. Where the rows
    differ in what a step costs, network calls head the columns; --by steps has S, --by calls the latencies
    too.
    """
    add_records(parser)
    parser.add_argument("--metric", help="score to show [each record's first]")
    parser.add_argument("--format", choices=TABLE_FORMATS, default="text", help="[text]")
    parser.add_argument(
        "--by", choices=("steps", "calls"), help="what heads the columns [calls where rows differ in them]"
    )
    parser.add_argument("--preset", metavar="NAME", help=f"beside the published table: {', '.join(PRESETS)}")
    parser.add_argument("--claims", action="store_true", help="the papers' orderings, tested")
    parser.add_argument(
        "--seeds", action="store_true", help="mean and sd over seeds, where there are several"
    )
    parser.add_argument(
        "--stability", action="store_true", help="how sure the ranks are, and whether the winners survive"
    )
    add_choice(parser)
    parser.add_argument("--caption", metavar="TEXT", help="of LaTeX, which then stands in a table of its own")
    parser.add_argument("--label-id", metavar="ID", help="likewise its label, as in tab:samplers")
    parser.add_argument("--siunitx", action="store_true", help="LaTeX with the points below each other")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="EXPR",
        help="only trials where a column of `export` is so, as in steps<=20 or sampler=ddim; repeatable",
    )
    parser.add_argument(
        "--sort",
        metavar="KEY",
        help="rows by label, score, a column's heading or a column of `export`; =-KEY: greatest first",
    )
    add_fail_if(parser, "a trial is so, as in 'fd_digits>20' or status=failed")
    add_json(parser)


def plot_options(parser: argparse.ArgumentParser) -> None:
    """Draw the plots and the picture grid of a results folder."""
    add_records(parser)
    parser.add_argument("--metric", help="score to show [each record's first]")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to [RESULTS/plots]")
    parser.add_argument("--format", choices=PLOT_FORMATS, default="png", help="of the plots [png]")
    parser.add_argument("--theme", choices=THEMES, default="light", help="of the plots [light]")
    add_choice(parser)
    parser.add_argument("--width", type=float, metavar="INCHES", help="of the plots [each its own]")
    parser.add_argument(
        "--colour",
        "--color",
        action="append",
        default=[],
        metavar="ROW=COLOUR",
        help="colour of a row by its shown label, as in 'DDIM=#476DFE'; repeatable",
    )
    parser.add_argument("--style", metavar="FILE", help="an .mplstyle file, or a style of matplotlib by name")


def report_options(parser: argparse.ArgumentParser) -> None:
    """Write one HTML page with everything a results folder holds; it needs no network and no other file."""
    add_records(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to [RESULTS/report.html]")
    parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME",
        help=f"a published table beside ours, comparable or not; repeatable: {', '.join(PRESETS)}",
    )


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Compare two trials, paired through their common noise, or all of one number of steps with their best.

    `compare ddim:eta=0@10 ddim:eta=1@10` gives the difference, its standard error and a verdict at 95%;
    `compare --column 10` gives the rank of a column with ties, corrected for their number by Holm's method: a
    column for each table that `table` prints. `compare --calls 20` ranks what each row gets for at most 20
    network calls. Where both trials kept their features (`run --keep-features`) a
    pair also gets the error by influence values.

    `compare A/ B/` takes two results folders: every trial that both have, the second against the first, with
    the stars of its p-value: * below 5%, ** below 1%, *** below 0.1%, corrected by Holm's method.
    """
    parser.add_argument(
        "trials", nargs="*", metavar="TRIAL", help="two of SAMPLER@STEPS or keys, or two results folders"
    )
    columns = parser.add_mutually_exclusive_group()
    columns.add_argument(
        "--column", type=int, metavar="S", help="all trials of S steps with the best of them"
    )
    columns.add_argument("--calls", type=int, metavar="N", help="the best of each row within N network calls")
    parser.add_argument("--metric", help="score to compare [each record's first]")
    add_fail_if(parser, "a verdict is worse, better or tie, or a number is so, as in 'difference>0.5'")
    add_records(parser)
    add_plugins(parser)
    add_json(parser)


def decompose_options(parser: argparse.ArgumentParser) -> None:
    """Tell where the error is: in the solver, in the network, or in too few samples; and in which steps.

    score = sampling + network + solver: the sampler against its own fine limit from the same noise, the limit
    against real images, and what real images get. The limit of a sampler without noise is the probability
    flow, solved by --solver in --limit steps; of one with noise it is the sampler itself in --limit steps,
    compared as a distribution. Steps are then held one by one to the exact path. The same command goes on
    where it was stopped.
    """
    add_model(parser)
    parser.add_argument(
        "--samplers",
        nargs="+",
        default=["ddim", "dpmpp-2m", "heun", "ddim:eta=1"],
        metavar="NAME[:k=v,...]",
        help="as in `run` [ddim dpmpp-2m heun ddim:eta=1]",
    )
    parser.add_argument("--steps", default="10,20", metavar="S,S,...", help="[10,20]")
    parser.add_argument("--n", type=int, default=1000, help="samples a trial [1000]")
    parser.add_argument("--spacing", default="uniform", help="rule that chooses the times [uniform]")
    parser.add_argument("--metrics", metavar="NAME", help="a Frechet distance [the model's first]")
    parser.add_argument("--solver", default="dpmpp-3m", help="rule of the exact solution [dpmpp-3m]")
    parser.add_argument("--limit", type=int, default=500, metavar="S", help="steps of fine limits [500]")
    parser.add_argument(
        "--reference", metavar="IMAGES", help="image folder, .npz or name to score against [the model's]"
    )
    parser.add_argument("--held-out", metavar="IMAGES", help="real images [as in `run`]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    add_drawing(parser, "samples")
    add_results(parser, "results/decompose")
    add_plugins(parser)
    add_config(parser)
    add_quiet(parser)
    add_json(parser)


def power_options(parser: argparse.ArgumentParser) -> None:
    """Tell from a pilot how many images separate two samplers, or that no affordable number does.

    ``power ddim:eta=0 ddim:eta=0.2 --steps 10`` takes the two trials of a results folder, however few images
    they have, and their paired difference with its error. It prints with how many images `compare` tells them
    apart with a chance of 80%, and with how many at the ends of the difference's 95% interval.
    """
    parser.add_argument("trials", nargs=2, metavar="SAMPLER", help="two of SAMPLER or SAMPLER@STEPS")
    parser.add_argument("--steps", metavar="S,S,...", help="[every S that both have]")
    parser.add_argument("--power", type=float, default=0.8, help="chance of telling them apart [0.8]")
    parser.add_argument(
        "--most", type=int, default=AFFORDABLE, metavar="N", help=f"most images there can be [{AFFORDABLE}]"
    )
    parser.add_argument("--metric", help="score to compare [each record's first]")
    add_records(parser)
    add_plugins(parser)
    add_json(parser)


def show_options(parser: argparse.ArgumentParser) -> None:
    """Tell everything known about a trial: ``show ddim:eta=0@20``, or a part of its key."""
    parser.add_argument("trial", help="SAMPLER@STEPS, as in ddim:eta=0@20, or the beginning of a key")
    add_records(parser)
    add_plugins(parser)
    add_json(parser)


def status_options(parser: argparse.ArgumentParser) -> None:
    """Tell what a results folder holds: trials done, failed, skipped, under way, and damaged files."""
    add_results(parser)
    add_json(parser)


def export_options(parser: argparse.ArgumentParser) -> None:
    """Write the records of a results folder as one table: CSV, Parquet, JSON or LaTeX, as the file ends."""
    add_records(parser)
    parser.add_argument("--metric", help="score of a LaTeX table [each record's first]")
    parser.add_argument("--format", choices=EXPORT_FORMATS, help="[the ending of --out, else csv]")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to [standard output]")


def merge_options(parser: argparse.ArgumentParser) -> None:
    """Put the results of several machines into one folder.

    Records that agree are copied once; two records of one trial that differ are named with the fields that
    do, and the one that is there already stays. Exit status 1 where there are such conflicts.
    """
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="results folders")
    parser.add_argument("--results", type=Path, required=True, metavar="OUT", help="folder they go into")
    add_json(parser)


def verify_options(parser: argparse.ArgumentParser) -> None:
    """Make every table, plot and report of results folders again from their records, and compare.

    Tables and reports must be equal to the bit, plots to the eye. `--redo 3` also draws three parts of the
    folder's trials again, chosen at random, and compares them with what the records hold. Exit status 1 with
    what differs named.
    """
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="results, or what holds them")
    parser.add_argument(
        "--redo", type=int, metavar="K", help="draw K blocks, or whole trials of under a minute, again"
    )
    parser.add_argument(
        "--whole", action="store_true", help="draw whole trials again, however long they took"
    )
    parser.add_argument("--seed", type=int, help="of the choice of what is drawn again [a new one each time]")
    add_plugins(parser)
    add_json(parser)


def submit_options(parser: argparse.ArgumentParser) -> None:
    """Pack a results folder into one file for somebody's leaderboard, once everything in it is verified.

        sampler-bench submit results/mine --out mine.zip

    Equal folders give equal packs. The pack's manifest has the SHA-256 of every file: records, pictures,
    tables, plots, report. Blocks under way and kept features stay out. What `verify` does not pass is
    refused.
    """
    parser.add_argument("results", type=Path, metavar="RESULTS", help="results folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to [RESULTS.zip, here]")
    add_json(parser)


def publish_options(parser: argparse.ArgumentParser) -> None:
    """Make a leaderboard of results folders and of packs: a static page that needs no network.

        sampler-bench publish results/mine theirs.zip --out site

    Every folder must pass `verify`, and three parts of its trials, chosen at random, are drawn again and must
    be what its records hold. Otherwise nothing is written and exit status is 1. Where a model or its data is
    not at hand, --trust DIR publishes a folder as it was told, and the page says so.
    """
    parser.add_argument(
        "results", nargs="*", type=Path, metavar="RESULTS", help="results, what holds them, packs"
    )
    parser.add_argument("--out", type=Path, default=Path("site"), metavar="DIR", help="where to [site]")
    parser.add_argument("--title", default="Leaderboard", help="heads the page [Leaderboard]")
    parser.add_argument(
        "--redo", type=int, metavar="K", help="draw K blocks, or trials of under a minute, of each again [3]"
    )
    parser.add_argument(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="results or a pack to verify and publish, but not to draw again; the page says so; repeatable",
    )
    parser.add_argument(
        "--no-redo", action="store_true", help="draw nothing again, for large collections; the page says so"
    )
    parser.add_argument("--seed", type=int, help="of the choice of what is drawn again [a new one each time]")
    add_plugins(parser)


def list_options(parser: argparse.ArgumentParser) -> None:
    """List what can be used: samplers, sets, models, spacings, metrics, executors, observers, with origin."""
    parser.add_argument("kind", nargs="?", choices=KINDS, help="only this kind")
    add_plugins(parser)
    add_json(parser)


def stats_options(parser: argparse.ArgumentParser) -> None:
    """Measure the reference statistics of an image set, or import others' from an .npz with mu and sigma.

    They are kept in the cache by a hash of the images and of the feature space, so a run finds them, and a
    changed image or weight file never gets an old answer. A run's records hold the reference hash printed
    here.
    """
    parser.add_argument("data", help="image set by name, folder, .npz of images, or .npz with mu and sigma")
    parser.add_argument("--metric", required=True, help="whose feature space is used, from `list metrics`")
    parser.add_argument(
        "--n", type=int, help="number of images behind an imported mu and sigma, to be printed [0: unknown]"
    )
    parser.add_argument(
        "--shape", metavar="C,H,W", help="of an image behind an imported mu and sigma [3,32,32]"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write mu and sigma there as well, as .npz")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    add_plugins(parser)
    add_quiet(parser)
    add_json(parser)


def score_options(parser: argparse.ArgumentParser) -> None:
    """Score images from anywhere: a folder, an .npz or .npy file, whatever drew them, each score with its
    error.

    `score samples/ --reference cifar10 --metrics fid,kid` prints the scores. With --name they become a record
    of --results, a row of its tables: beside the samples of a model with --model, which must be there with as
    many images.
    """
    parser.add_argument("images", help="image folder, .npz, .npy, or the name of an image set")
    parser.add_argument(
        "--reference", required=True, metavar="IMAGES", help="likewise, or an .npz with mu and sigma"
    )
    parser.add_argument(
        "--metrics", metavar="NAME,...", help="scores, from `list metrics` [chosen by the images' shape]"
    )
    parser.add_argument("--held-out", metavar="IMAGES", help="real images that nothing was trained on")
    parser.add_argument("--n", type=int, help="the first so many images [all]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    parser.add_argument("--name", help="keep the scores as a row of this name")
    parser.add_argument("--model", help="the row stands in this model's table [in one of its own]")
    parser.add_argument("--steps", type=int, metavar="S", help="number of steps: the row's column")
    parser.add_argument("--calls", type=float, metavar="N", help="network calls of one image")
    add_results(parser)
    add_plugins(parser)
    add_quiet(parser)
    add_json(parser)


def fetch_options(parser: argparse.ArgumentParser) -> None:
    """Download a file on request, check it, and put it where it is looked for.

    ``fetch inception`` gets the FID network, ``dinov2`` and ``clip`` other feature spaces' networks,
    ``cifar10`` the images, and the name of a checkpoint that ``list models`` shows that checkpoint. Nothing
    else here uses the network. Where the connection breaks the download goes on from there, after a pause.
    """
    parser.add_argument(
        "name", help=f"{', '.join(WEIGHT_FILES)}, cifar10, or a checkpoint's name from `list models`"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to [where it is looked for]")
    add_quiet(parser)


def check_options(parser: argparse.ArgumentParser) -> None:
    """Test whether samplers keep the contract, and measure their true order on data whose answer is known.

    ``check mine.py`` takes every sampler the file registers, ``check ddim:eta=0.5`` a sampler by name.
    """
    parser.add_argument("what", nargs="+", metavar="FILE|SAMPLER", help="plugin files or samplers by name")
    parser.add_argument("--badge", action="store_true", help="print a badge in Markdown instead")
    add_plugins(parser)
    add_json(parser)


def equivalent_options(parser: argparse.ArgumentParser) -> None:
    """Tell whether samplers are one rule: their trajectories from the same start and noise, step by step.

    ``equivalent dpmpp:order=1 ddim`` says "same to 2e-15"; rules may also be the same but for the last step.
    The model is exact: a mixture of Gaussians, in float64. The status is 1 where two of them differ.
    """
    parser.add_argument("samplers", nargs="+", metavar="SAMPLER", help="two or more by name")
    parser.add_argument("--steps", default="10,20", metavar="S,S,...", help="[10,20]")
    parser.add_argument("--spacing", default="linspace", help="rule that chooses the times [linspace]")
    parser.add_argument("--each", action="store_true", help="print the difference after every step too")
    add_plugins(parser)
    add_json(parser)


def new_options(parser: argparse.ArgumentParser) -> None:
    """Write a file to begin with: a sampler, a model or a score that works and passes its check as it is.

    ``new sampler my-rule`` writes my_rule.py here; with --package a folder that can be installed, with its
    entry point, its test and a workflow. Nothing that is there is written over.
    """
    parser.add_argument("kind", choices=("sampler", "model", "metric"), help="what to write")
    parser.add_argument("name", help="its name, as in my-rule")
    parser.add_argument("--package", action="store_true", help="a package that can be installed")


def cite_options(parser: argparse.ArgumentParser) -> None:
    """Print BibTeX of what a results folder used: the benchmark, samplers, time grids and scores.

    ``cite --results DIR > used.bib``.
    """
    add_results(parser)


def train_options(parser: argparse.ArgumentParser) -> None:
    """Train a model: a preset by name, or a TOML file with the fields of a training config.

    A stopped run goes on where it was: the same command, the same weights to the last bit. Under torchrun
    every process takes its share of each batch: torchrun --nproc-per-node 8 -m bench train cifar10-ddpm.
    """
    known = ", ".join((*RECIPES, *APART))
    parser.add_argument("what", nargs="?", metavar="PRESET|CONFIG.toml", help=f"one of {known}, or a file")
    parser.add_argument("--list", action="store_true", help="print the presets, and train nothing")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to [results/train/NAME]")
    parser.add_argument("--data", metavar="IMAGES", help="name[:FOLDER], folder or .npz [the preset's]")
    parser.add_argument("--steps", type=int, help="optimiser steps [the preset's]")
    parser.add_argument("--seed", type=int, help="of everything random [the preset's]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda [auto]")
    parser.add_argument("--strict", action="store_true", help="stop at an image that cannot be decoded")
    parser.add_argument("--fresh", action="store_true", help="refuse to go on from a checkpoint in DIR")
    add_quiet(parser)


def nll_options(parser: argparse.ArgumentParser) -> None:
    """Evaluate the variational bound on the likelihood of images, in bits per dimension, with its terms
    apart.

    The bound is that of Ho et al. 2020, eq. 5: a prior term, a Kullback-Leibler term for each step, and the
    discretised Gaussian decoder. What is done already is not done again.

    A bound holds for one number of steps and one variance of the reverse steps: fixedsmall is beta~,
    fixedlarge beta', learned what the model predicts. Of several the least is the tightest.
    """
    add_model(parser)
    parser.add_argument(
        "--data",
        metavar="IMAGES",
        help="image folder, .npz or name [the model's held-out images, else its data]",
    )
    parser.add_argument(
        "--n", type=int, help=f"images, the first of the set [{BOUND_IMAGES}, or as many as there are]"
    )
    parser.add_argument(
        "--variance",
        metavar="NAME,...",
        help=f"of the reverse steps, a row each: {', '.join(VARIANCES)} [all the model has]",
    )
    parser.add_argument("--steps", metavar="S,S,...", help="[all time steps of the model]")
    parser.add_argument(
        "--spacing",
        default="openai",
        help="rule that chooses the time steps; openai holds both ends [openai]",
    )
    parser.add_argument(
        "--clip",
        choices=("x0", "none"),
        default="x0",
        help="clamp the predicted x_0 to [-1, 1], as published [x0]",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    add_drawing(parser, "images")
    add_results(parser)
    add_plugins(parser)
    add_config(parser)
    add_quiet(parser)
    add_json(parser)


def moments_options(parser: argparse.ArgumentParser) -> None:
    """Estimate the second moment of a model's noise on its data, for the samplers with analytic variances.

    A run takes the file as `--samplers analytic-ddpm:moments=FILE`. One number a time. Those that the file
    holds already are kept, the others are added to it; it says how many network evaluations all of them took.
    """
    add_model(parser)
    parser.add_argument(
        "--reference",
        metavar="IMAGES",
        help="images of the model's data [what the model's samples should resemble]",
    )
    parser.add_argument("--n", type=int, default=MOMENT_IMAGES, help=f"images, the first [{MOMENT_IMAGES}]")
    parser.add_argument("--steps", default="10,20,50,100", metavar="S,S,...", help="[10,20,50,100]")
    parser.add_argument("--spacing", default="uniform", help="rule of the grids, as in `run` [uniform]")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="JSON file, to be made or added to"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    add_plugins(parser)
    add_quiet(parser)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add ``--rows``, ``--label`` and the title: what `read_choice` takes."""
    parser.add_argument(
        "--rows",
        nargs="+",
        default=[],
        metavar="ROW",
        help="only these, in this order: labels, ddim:eta=0, or patterns as 'ddim*' [all]",
    )
    parser.add_argument(
        "--label", action="append", default=[], metavar="OLD=NEW", help="another label of a row; repeatable"
    )
    titles = parser.add_mutually_exclusive_group()
    titles.add_argument("--title", metavar="TEXT", help="text above [what the results are]")
    titles.add_argument("--no-title", action="store_true", help="no text above")


def add_results(parser: argparse.ArgumentParser, default: str = "results") -> None:
    """Add ``--results``."""
    parser.add_argument(
        "--results", type=Path, default=Path(default), metavar="DIR", help=f"results folder [{default}]"
    )


def add_records(parser: argparse.ArgumentParser) -> None:
    """Add ``--results`` and ``--model``: what `read_records` takes."""
    add_results(parser)
    parser.add_argument("--model", action="append", default=[], help="only this model; repeatable")


def add_model(parser: argparse.ArgumentParser, default: str | None = DEFAULT_MODEL) -> None:
    """Add the ``--model`` to run; the default that the help names where ``default`` leaves it open."""
    where = "a name from `list models`, FILE.py:FUNCTION or a checkpoint"
    parser.add_argument("--model", default=default, help=f"{where} [{DEFAULT_MODEL}]")


def add_drawing(parser: argparse.ArgumentParser, what: str, *, auto: bool = False) -> None:
    """Add ``--seed``, ``--batch`` of what a network is given at a time, and ``--precision``.

    Args:
        parser: gets them.
        what: a network is given.
        auto: whether the batch may be left to the program, and with the mode the precision.
    """
    parser.add_argument("--seed", type=int, default=0, help="of the noise [0]")
    if auto:
        told = f"{what} at a time; auto: the largest that pays, less where memory runs out [the model's]"
        parser.add_argument("--batch", type=batch_size, metavar="B|auto", help=told)
        parser.add_argument(
            "--precision", choices=PRECISIONS, help="of the network [float32; with --mode auto, the fastest]"
        )
        return
    parser.add_argument("--batch", type=int, help=f"{what} at a time [the model's]")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network [float32]")


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads``."""
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of the processor [the cores this process may use]"
    )


def batch_size(text: str) -> int | str:
    """Return the number that ``--batch`` was given, or ``auto``."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it takes a whole number, or auto, got {text!r}") from None


def add_modes(parser: argparse.ArgumentParser) -> None:
    """Add ``--mode`` and ``--channels-last``: how a network is run."""
    parser.add_argument(
        "--mode",
        choices=MODES,
        default="eager",
        help="how the network is run; auto: the fastest whose images agree with eager float32 [eager]",
    )
    parser.add_argument(
        "--channels-last",
        action="store_true",
        help="weights of convolutions with the channels last in memory",
    )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    """Add ``--plugin``."""
    parser.add_argument(
        "--plugin", type=Path, action="append", default=[], metavar="FILE", help="plugin file; repeatable"
    )


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet`` to a verb that tells its progress."""
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress and no remarks")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--save-config``."""
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of options; those given here win over it"
    )
    parser.add_argument(
        "--save-config", type=Path, metavar="FILE", help="write the options in effect there, for --config"
    )


def add_fail_if(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--fail-if``."""
    parser.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="CONDITION",
        help=f"exit with 1 where {what}; repeatable",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def check_model_options(parser: argparse.ArgumentParser) -> None:
    """Tell whether a model is wired right, on images of what it was trained on.

    Real noise is added to real images and the model is asked for it, as it is and under the usual mistakes:
    the sign, times that are shifted or reversed, another range of images, another schedule, another
    parametrisation. Exit status 1 where one of them explains the model better.
    """
    parser.add_argument("model", help="a name from `list models`, FILE.py:FUNCTION or a checkpoint")
    parser.add_argument(
        "--reference", metavar="IMAGES", help="images of what it was trained on [the model's]"
    )
    parser.add_argument("--n", type=int, default=64, help="images [64]")
    parser.add_argument("--seed", type=int, default=0, help="of the noise [0]")
    add_plugins(parser)
    add_json(parser)


def speed_options(parser: argparse.ArgumentParser) -> None:
    """Measure how fast a model answers, what each sampler adds to it, and what a sweep would cost.

    The network alone at each batch, then each sampler's trajectories in turn with as many bare calls: their
    ratio is its overhead. The default sweep of these samplers is estimated of both. No image is scored.
    """
    add_model(parser)
    parser.add_argument(
        "--samplers", nargs="+", metavar="NAME[:k=v,...]", help="as in `run`, whose default is theirs [all]"
    )
    parser.add_argument("--batch", default="1,32,256", metavar="B,B,...", help="images a call [1,32,256]")
    parser.add_argument("--steps", type=int, default=10, metavar="S", help="steps of a trajectory [10]")
    parser.add_argument("--turns", type=int, default=5, help="times that each thing is measured [5]")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network [float32]")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N [auto]")
    add_plugins(parser)
    add_quiet(parser)
    add_json(parser)


def completion_options(parser: argparse.ArgumentParser) -> None:
    """Print a script that lets a shell complete verbs and options of the command ``sampler-bench``.

    With --install the script is put where the shell finds it, and a line is added to the shell's own file
    where it looks nowhere by itself.
    """
    parser.add_argument("shell", nargs="?", choices=SHELLS, help="whose script [the shell that $SHELL names]")
    parser.add_argument("--install", action="store_true", help="put it where the shell finds it")


def doctor_options(parser: argparse.ArgumentParser) -> None:
    """Tell what is here and what is missing: versions, devices, caches, scores, extras.

    What is missing comes with the command that gets it. Exit status 1 where something is broken: a package
    that is needed, a plugin, a folder that cannot be written, a file that is there and is not what it should
    be. What nobody has to have is no fault.
    """
    add_json(parser)


@dataclass(frozen=True)
class Verb:
    """A verb of the command line; `bench.commands.NAME.execute` does its work.

    Attributes:
        summary: what it does, in a line.
        declare: adds its options to a parser; the docstring is the description that ``--help`` prints.
        computes: whether it draws or measures images, and so takes ``--threads``.
    """

    summary: str
    declare: Callable[[argparse.ArgumentParser], None]
    computes: bool = False


VERBS: Mapping[str, Verb] = {
    "run": Verb("sweep samplers over numbers of steps and score them", run_options, computes=True),
    "table": Verb("print the table of a results folder", table_options),
    "plot": Verb("draw the plots and the picture grid of a results folder", plot_options),
    "report": Verb("write one HTML page with everything a results folder holds", report_options),
    "compare": Verb("tell whether two trials differ, paired through their common noise", compare_options),
    "decompose": Verb(
        "tell where the error is: solver, network, samples, and which steps", decompose_options, computes=True
    ),
    "power": Verb("tell from a pilot how many images separate two samplers", power_options),
    "show": Verb("tell everything known about one trial", show_options),
    "status": Verb("tell what is done, under way, failed or damaged", status_options),
    "export": Verb("write the records as CSV, Parquet, JSON or LaTeX", export_options),
    "merge": Verb("put the results of several machines into one folder", merge_options),
    "verify": Verb("make tables and plots again from the records and compare", verify_options, computes=True),
    "submit": Verb("pack a results folder for somebody's leaderboard", submit_options),
    "publish": Verb("make a leaderboard of results folders: a static page", publish_options, computes=True),
    "equivalent": Verb("tell whether samplers are one rule, step by step", equivalent_options),
    "list": Verb("list samplers, sets, models, spacings, metrics, executors and observers", list_options),
    "stats": Verb("measure the reference statistics of an image set", stats_options, computes=True),
    "score": Verb("score images from anywhere, each score with its error", score_options, computes=True),
    "fetch": Verb("download the FID network or a known checkpoint", fetch_options),
    "check": Verb(
        "test whether a sampler plugin keeps the contract, and measure its order",
        check_options,
        computes=True,
    ),
    "new": Verb("write a sampler, a model or a score to begin with", new_options),
    "cite": Verb("print BibTeX of what a results folder used", cite_options),
    "train": Verb("train a model", train_options, computes=True),
    "check-model": Verb(
        "tell whether a model is wired right, on real images", check_model_options, computes=True
    ),
    "speed": Verb("tell how fast a model answers, and what samplers add to it", speed_options, computes=True),
    "moments": Verb(
        "estimate the second moments that analytic variances need", moments_options, computes=True
    ),
    "completion": Verb("print a script that completes commands in a shell", completion_options),
    "doctor": Verb("tell what is here, and what is missing for which score", doctor_options),
    "nll": Verb("bound the likelihood of images, in bits per dimension", nll_options, computes=True),
}
