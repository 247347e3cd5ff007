"""How far a merge is, from the events of `run`: over all of its rounds, and never backwards."""

from __future__ import annotations

from typing import Any

from .events import LayerDone, RoundDone
from .rounds import Measuring


class Progress:
    """Watches one merge up to its last layer; what comes after (its test) is the caller's.

    verb        what the last round does with a layer, at the head of the text
    measuring   how long measuring again takes, in units of one round's merging
    fraction    done so far, in [0, 1]
    text        what is being done
    """

    def __init__(self, rounds: int = 1, verb: str = "Merging", measuring: float = 1.0) -> None:
        self.rounds, self.verb, self.measuring = rounds, verb, measuring
        self.round, self.fraction = 1, 0.0
        self.text = self._said(f"{verb} the first layer")

    def see(self, event: Any) -> bool:
        """Whether an event moved it."""
        if isinstance(event, LayerDone):
            done = (event.index + 1) / event.total
            verb = self.verb if self.round == self.rounds else "Merging"
            text = f"{verb} layer {event.index + 1} of {event.total}"
        elif isinstance(event, RoundDone):
            done, text = 1.0, "Measuring statistics at the merge"
        elif isinstance(event, Measuring):
            done = 1.0 + self.measuring * event.fraction
            place = f"{event.name} ({event.index + 1} of {event.total})"
            text = f"Measuring statistics of {place} at the merge"
        else:
            return False
        whole = self.rounds + self.measuring * (self.rounds - 1)
        now = ((self.round - 1) * (1 + self.measuring) + done) / whole
        self.fraction = min(1.0, max(self.fraction, now))
        self.text = self._said(text)
        if isinstance(event, Measuring) and event.last:
            self.round = min(self.round + 1, self.rounds)
        return True

    def _said(self, text: str) -> str:
        if self.rounds == 1:
            return text
        return f"Round {self.round} of {self.rounds}: {text[:1].lower()}{text[1:]}"
