"""Published figures, the tables they come from, and the orderings they show."""

from bench.published.values import PublishedValue, published_frame, published_values

__all__ = ["PublishedValue", "published_frame", "published_values"]
