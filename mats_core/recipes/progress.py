"""How the parts of a merge share its progress: rounds, measuring between them, and the test."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

from ..system import Event, part

E = TypeVar("E", bound=Event)
R = TypeVar("R")


@dataclass(frozen=True)
class Shares:
    """How long the parts of a merge take, in any unit.

    merging     the layers of one round
    measuring   all experts' statistics at one merge, between two rounds
    testing     every task; 0 where there is none
    refining    the training after the merge; 0 where there is none
    branching   of the branches of a routed merge; 0 where there are none
    factoring   of the merge as one LoRA; 0 where it is a whole checkpoint
    """

    merging: float = 0.6
    measuring: float = 0.6
    testing: float = 0.4
    refining: float = 0.0
    branching: float = 0.0
    factoring: float = 0.0

    def whole(self, rounds: int) -> float:
        """Of a merge in so many rounds."""
        merging = rounds * self.merging + (rounds - 1) * self.measuring
        return merging + self.testing + self.refining + self.branching + self.factoring


class Stages:
    """The parts of merges in so many rounds, one after the other: each begins where the last ended.

    shares   how long the parts take
    whole    one merge, in the same unit
    done     how much of all is done, 0 to 1
    """

    def __init__(self, shares: Shares, rounds: int, merges: int = 1) -> None:
        self.shares, self.whole, self.done = shares, shares.whole(rounds), 0.0
        self._total = merges * self.whole

    def next(
        self, events: Generator[E, Any, R], share: float, said: str = "{}"
    ) -> Generator[E, Any, R]:
        """The events of the next part, which takes `share` of the total."""
        start, self.done = self.done, min(1.0, self.done + share / self._total)
        return part(events, start, self.done, said)
