"""Examples of every verb, as ``--help`` prints them; a test parses each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Examples = Sequence[tuple[str, str]]
"""(what follows ``sampler-bench``, what it does)."""

EXAMPLES: Mapping[str, Examples] = {
    "run": [
        ("run --samplers ddim dpmpp-2m --steps 10,20 --n 2000", "two samplers on the model that ships"),
        ("run --samplers fast --steps 10,20 --n 8000 --until-tie 0.02", "no longer than the ranking takes"),
        ("run --samplers fast --steps 10,20 --budget 30m", "as many samples as half an hour allows"),
        ("run --model mine.py:make --reference photos/ --steps 20", "your own model and images"),
        (
            "run --samplers paper --steps 10,20 --save-config sweep.toml --dry-run",
            "keep the options in a file",
        ),
        ("run --config sweep.toml --n 5000", "the same again, with other options here and there"),
    ],
    "table": [
        ("table", "the scores of results/"),
        ("table --filter 'steps<=20' --filter sampler=ddim", "some of the trials"),
        ("table --sort score", "the best row first"),
        ("table --fail-if 'fd_digits>20'", "exit status 1 where a score is too high, for CI"),
        ("table --metric kid_digits --format markdown", "another score, for a page"),
    ],
    "plot": [
        ("plot", "draw into results/plots"),
        ("plot --format pdf --out figures/", "vector graphics for a paper"),
    ],
    "report": [
        ("report --results results/", "one HTML page beside the records"),
        ("report --out report.html", "the page elsewhere"),
    ],
    "compare": [
        ("compare ddim:eta=0@10 ddim:eta=1@10", "two trials, paired through their noise"),
        ("compare --column 10", "all trials of 10 steps with the best of them"),
        ("compare before/ after/", "two results folders, cell by cell"),
        ("compare before/ after/ --fail-if worse", "exit status 1 where the second is worse, for CI"),
    ],
    "decompose": [
        (
            "decompose --model digits --samplers ddim dpmpp-2m heun --steps 10,20",
            "how much of the error each sampler has to answer for",
        ),
    ],
    "power": [
        ("power ddim:eta=0 ddim:eta=0.2 --steps 10", "how many images tell two samplers apart"),
    ],
    "show": [
        ("show ddim:eta=0@20", "one trial: scores, cost, provenance, command"),
        ("show ddim:eta=0@20 --json", "the same for a program"),
    ],
    "status": [("status --results results/", "what is done, under way, failed or damaged")],
    "export": [
        ("export --out results.csv", "one row a trial"),
        ("export --format json --model digits", "some of them, to standard output"),
    ],
    "merge": [("merge machine-a/ machine-b/ --results all/", "the records of two machines in one folder")],
    "verify": [
        ("verify results/", "make every table and plot again and compare"),
        ("verify results/ --redo 3", "draw three parts of its trials again too"),
    ],
    "submit": [
        ("submit results/mine", "a pack with the digest of every file"),
    ],
    "publish": [
        (
            "publish results/mine results/theirs --out site",
            "a leaderboard of two folders, drawn again in part",
        ),
        ("publish mine.zip --out site --no-redo", "of a pack, without drawing anything again"),
    ],
    "equivalent": [
        ("equivalent dpmpp:order=1 ddim", "are these one rule?"),
        ("equivalent heun dpm2 --steps 5 --each", "and after every step?"),
    ],
    "list": [("list", "everything there is"), ("list samplers --json", "one kind, for a program")],
    "stats": [
        ("stats cifar10 --metric fid", "measure reference statistics once"),
        ("stats theirs.npz --metric fid --n 50000", "import mu and sigma of others"),
    ],
    "score": [
        ("score samples/ --reference cifar10 --metrics fid,kid", "images that something else drew"),
        ("score samples.npz --reference digits --name theirs --steps 10", "keep them as a row"),
    ],
    "fetch": [
        ("fetch inception", "the FID network"),
        ("fetch cifar10 --out data/", "the images of CIFAR-10"),
    ],
    "check": [
        ("check mine.py", "every sampler that a file registers"),
        ("check ddim:eta=0.5 --json", "a sampler by name, for a program"),
    ],
    "new": [
        ("new sampler my-rule", "a file to begin with"),
        ("new metric my-score --package", "a package that can be installed"),
    ],
    "cite": [("cite --results results/", "BibTeX of all that was used")],
    "train": [
        ("train digits", "a recipe by name"),
        ("train --list", "the recipes there are"),
        ("train mine.toml --out results/train/mine --device cuda", "a recipe of your own"),
    ],
    "check-model": [
        ("check-model mine.py:make --reference photos/", "is it wired right?"),
        ("check-model digits --n 16", "a quick look at the model that ships"),
    ],
    "speed": [
        ("speed --model mine.py:make --samplers ddim dpmpp-2m", "calls a second, and each sampler's share"),
        ("speed --batch 1,32,256 --device cuda --json", "three batches on a GPU, for a program"),
    ],
    "moments": [
        ("moments --model digits --steps 10,50 --out digits-moments.json", "measure them once"),
    ],
    "completion": [
        ("completion --install", "for the shell that you use"),
        ("completion zsh --install", "for another one"),
        ("completion bash", "print the script"),
    ],
    "doctor": [
        ("doctor", "is everything there, and if not, which command gets it?"),
        ("doctor --json", "the same for a program"),
    ],
    "nll": [
        ("nll", "every variance of the model, all T steps"),
        ("nll --steps 10,25,50,100 --variance fixedsmall,fixedlarge", "fewer steps"),
    ],
}
"""The examples by verb."""
