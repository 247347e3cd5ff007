"""The study of `docs/study.md`: which method wins on real families, and the questions papers leave.

`python -m benchmarks.study run FAMILY` measures what is missing and keeps every result in
`benchmarks/study/results/`; `python -m benchmarks.study write` makes the page from what is there.
"""
