"""How statistics are measured: one record, from every caller down to the passes over batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from ..errors import InputError, member
from ..system import Device

Labels = Literal["empirical", "true"]
EXAMPLES = 256  # a task, by default
LEAST = {"examples": 1, "batch_size": 1, "blocks": 0, "rank": 0}


@dataclass(frozen=True)
class MeasureSettings:
    """How statistics are measured.

    examples    at most so many; None: all
    batch_size  examples of a task that are measured at once; the result is the same.  A loader has
                batches already
    labels      `empirical`: the data's own; `true`: drawn from the model's predictions
    seed        of what is drawn
    blocks      parameters of at most so many elements also get their full Fisher block
    rank        Grams of at least `WORTH · rank` columns are kept as at most `rank` rows
                (`sketch.py`); 0: none
    device      where to measure: where a module lies, or the CPU, by default
    dtype       of a checkpoint's arithmetic; a module's is its own

    Raises `InputError` for unknown labels and for numbers that are too small.
    """

    examples: int | None = EXAMPLES
    batch_size: int = 64
    labels: Labels = "empirical"
    seed: int = 0
    blocks: int = 0
    rank: int = 0
    device: Device | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        member("labels", self.labels, get_args(Labels))
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(name, expected=f"a number from {least} on", found=str(value))

    @property
    def key(self) -> tuple[str, ...]:
        """What two measurements with the same numbers have in common, beside model and data."""
        # What is left at its default is not named: files keep the names that they have.
        names = ("blocks", "rank", "dtype")
        more = [f"{n} {getattr(self, n)}" for n in names if getattr(self, n) != getattr(DEFAULT, n)]
        return str(self.examples), self.labels, str(self.seed), *more


DEFAULT = MeasureSettings()
