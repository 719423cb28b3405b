"""The tables of docs/decompose.md, made by the command itself: --write puts them there, with the plots.

    python tests/support/decompositions.py [--write]

Trials are kept in results/decompose: what is there is not drawn again. A quarter of an hour on two cores.
"""

import contextlib
import io
import re
import shutil
import sys
from functools import partial
from pathlib import Path

from bench.commands.main import main

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated

MODELS = ("exact-digits", "digits", "digits-conditional")
FOLDER = Path("results/decompose")
SAMPLERS = ("ddim", "dpmpp-2m", "heun", "ddim:eta=1")
DOCUMENT = DOCS / "decompose.md"
STEPS = 20
"""The grid whose steps are shown."""


def arguments(model, n=1000):
    """What the document says to type."""
    return ["decompose", "--model", model, "--samplers", *SAMPLERS, "--steps", "10,20", "--n", str(n)]


def printed(model):
    """What the command prints of a model: the parts, and the steps of one grid."""
    heard = io.StringIO()
    with contextlib.redirect_stdout(heard):
        status = main([*arguments(model), "--results", str(FOLDER)])
    assert status == 0
    parts, *steps = re.split(r"\n\n(?=\S)", heard.getvalue())
    (shown,) = (one for one in steps if f"S={STEPS}," in one.partition("\n")[0])
    table = "\n".join(line.rstrip() for line in shown.partition("\n\n")[0].splitlines())
    return f"```\n{parts.rstrip()}\n\n{table}\n```\n"


PARTS = {model: Generated(DOCUMENT, model, partial(printed, model)) for model in MODELS}

if __name__ == "__main__":
    for model, part in PARTS.items():
        part.main()
        if "--write" in sys.argv:
            (plot,) = FOLDER.glob(f"decompose-{model}-fd_*-S{STEPS}.png")
            shutil.copy(plot, DOCS / f"decompose-{model}.png")
