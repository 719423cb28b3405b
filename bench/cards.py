"""Old home of `bench.load_model`, kept for one release."""

from bench.plugins.lookup import load_model

__all__ = ["load_model"]
