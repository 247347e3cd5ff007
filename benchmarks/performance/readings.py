"""The sentences of docs/performance.md: what a row means, and why a goal is missed."""

HEAD = """# Performance

Written by `make bench` (`python -m benchmarks.performance run`, then `write`), which measures what
is missing from `benchmarks/performance/results.json`. Every row runs in a process of its own; ours
and theirs take turns in it, set-up included, and both answers are compared. Ratios are of medians.
Baselines are ours, written from the papers' descriptions (`benchmarks/performance/published.py`),
and tests hold them to the published method's answer. Two commits are compared with
`python -m benchmarks.performance compare OLD NEW ROW …`, which runs the rows of both in turns and
ends with 1 where one got slower."""

READINGS: dict[str, str] = {
    "kfac-iterations": """Statistics measured on real families, square layers. *Default*: traces
normalised, δ = 0.1. The Kronecker preconditioner is the inverse of the mean factors.""",
}

TAIL = ""
