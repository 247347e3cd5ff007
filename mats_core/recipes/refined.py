"""What a report says of a merge that was trained further."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import typed
from .sections import Refine


@dataclass(frozen=True)
class Epoch:
    """One epoch of refining; number 0 is the merge before it.

    number        of the epoch
    losses        task → mean divergence from its expert over the rows that were learned from
    divergences   task → the same on validation rows
    scores        task → score on validation rows, which decides nothing
    """

    number: int
    losses: Mapping[str, float]
    divergences: Mapping[str, float]
    scores: Mapping[str, float]

    @property
    def divergence(self) -> float:
        """The sum over the tasks on validation rows: what the best epoch is chosen by."""
        return sum(self.divergences.values())


@dataclass(frozen=True)
class Refined:
    """How a merge was trained further.

    epochs     that were run
    best       the epoch whose weights were kept; 0: the merge as it was
    examples   a task, at most
    rate       of AdamW at the beginning
    batch      examples of a task in a step
    history    every epoch, the merge before the first included
    """

    epochs: int
    best: int
    examples: int
    rate: float
    batch: int
    history: tuple[Epoch, ...]

    @classmethod
    def of(cls, settings: Refine, history: Sequence[Epoch], best: int) -> Refined:
        """The record of a training that has ended."""
        how = settings.model_dump(include={"examples", "rate", "batch"})
        return cls(history[-1].number, best, history=tuple(history), **how)

    @property
    def sentence(self) -> str:
        """How it was trained, in a few words."""
        if not self.best:
            return "not trained: no epoch came nearer to the experts on validation rows"
        epochs = f"{self.best} epoch{'s' if self.best > 1 else ''}"
        return f"trained: {epochs} of distillation on {self.examples} unlabelled examples a task"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Refined:
        """The record that `to_dict` made; raises `KeyError` or `TypeError` for anything else."""
        history = tuple(typed(Epoch, epoch) for epoch in content["history"])
        return typed(cls, {**content, "history": history})

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values, as in `report.json`."""
        return asdict(self)
