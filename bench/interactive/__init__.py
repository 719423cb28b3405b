"""Sweeps from Python: what a script or a notebook calls, made of what the verbs of the command line do."""
