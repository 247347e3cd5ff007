"""Two real families, built outside the repository: `python -m benchmarks.families text|vision`."""
