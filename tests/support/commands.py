"""The command line as a user starts it: in a process of its own."""

import os
import subprocess
import sys


def bench(*arguments, site=None, **variables):
    """Run ``python -m bench``; ``site`` is a folder of packages that it finds besides the installed ones.

    ``variables`` are set in its environment.
    """
    paths = [str(site)] if site else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    return subprocess.run(
        [sys.executable, "-m", "bench", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
