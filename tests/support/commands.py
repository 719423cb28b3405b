"""The command line as a user starts it: in a process of its own."""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

PATIENCE = 300
"""Seconds that a command may take."""

EARLY = ("HOME", "LANG", "LC_", "MPL", "OMP_", "PYTHON", "XDG_")
"""How the variables begin that are read when a command is imported, before it runs, and set by no import."""


def _early(environment):
    """Those variables, but for PYTHONPATH, which the fork sees to."""
    names = [name for name in environment if name.startswith(EARLY) and name != "PYTHONPATH"]
    return {name: environment[name] for name in names}


_FORKS = multiprocessing.get_context("forkserver") if hasattr(os, "fork") else None
if _FORKS:
    _FORKS.set_forkserver_preload(["bench.commands.run", "bench.report.plots.gallery"])
_AT_FIRST = _early(os.environ)


def bench(*arguments, site=None, **variables):
    """Run ``python -m bench``; ``site`` is a folder of packages that it finds besides the installed ones.

    ``variables`` are set in its environment. The process is forked by one that has imported what commands
    import, which takes most of their time. Where a variable is another that is read at import, Python is
    started anew.
    """
    paths = [str(site)] if site else []
    paths += filter(None, [os.environ.get("PYTHONPATH")])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **variables}
    given = [str(argument) for argument in arguments]
    if _FORKS and _early(environment) == _AT_FIRST:
        return _forked(given, site, environment)
    command = [sys.executable, "-m", "bench", *given]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def _forked(arguments, site, environment):
    """Run a command in a fork of the process that has imported it."""
    with TemporaryDirectory() as folder:
        told = [Path(folder, name) for name in ("out", "err")]
        process = _FORKS.Process(target=_run, args=(arguments, site and str(site), environment, told))
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(arguments, PATIENCE)
        out, err = (file.read_text() for file in told)
    return subprocess.CompletedProcess(arguments, process.exitcode, out, err)


def _run(arguments, site, environment, told):
    """Be ``python -m bench`` from here on."""
    for number, file in enumerate(told, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    os.environ.clear()
    os.environ.update(environment)
    if site:
        sys.path.insert(0, site)
    sys.argv[1:] = arguments
    try:
        runpy.run_module("bench", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # a process of multiprocessing leaves them out
