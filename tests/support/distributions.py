"""Distributions, built as a release builds them and without a network."""

import subprocess
import sys

import pytest


def build(source, out, *options):
    """Build what a folder holds with the build back end that is installed; both kinds without options."""
    for package in ("build", "hatchling"):
        pytest.importorskip(package)
    command = [sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", out, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def install(wheel, target):
    """Put a wheel into a folder of its own, as pip leaves it."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", target, wheel], check=True)
