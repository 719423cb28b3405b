"""Published figures, the tables they come from, and the orderings they show."""

from bench.published.values import Figure, figures, published_frame

__all__ = ["Figure", "figures", "published_frame"]
