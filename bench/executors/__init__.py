"""Executors: ways to spread blocks over processes, devices or machines, one file each."""
