"""Built-in ways to spread blocks over processes and devices."""
