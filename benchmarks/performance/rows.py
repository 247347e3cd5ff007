"""The rows of the table, in its order; each module of this package that has some says `ROWS`."""

from __future__ import annotations

from . import (
    calibrating,
    cluster,
    disk,
    distributed,
    equal_error,
    essential,
    explorer,
    gpu,
    iterations,
    kfac,
    measuring,
    scaling,
    startup,
    visitor,
    wide,
)
from .base import Row

ROWS: tuple[Row, ...] = (
    *iterations.ROWS,
    *equal_error.ROWS,
    *kfac.ROWS,
    *essential.ROWS,
    *measuring.ROWS,
    *calibrating.ROWS,
    *disk.ROWS,
    *startup.ROWS,
    *gpu.ROWS,
    *scaling.ROWS,
    *wide.ROWS,
    *distributed.ROWS,
    *cluster.ROWS,
    *explorer.ROWS,
    *visitor.ROWS,
)


def chosen(names: list[str]) -> list[Row]:
    """The rows of these names, all for none; raises `KeyError` with the name that there is not."""
    known = {row.name: row for row in ROWS}
    return [known[name] for name in names] if names else list(ROWS)
