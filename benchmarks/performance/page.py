"""docs/performance.md, from the results."""

from __future__ import annotations


def write() -> None:
    raise NotImplementedError
