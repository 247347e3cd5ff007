"""The record of an advice: what is proposed, why, and what else there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..methods import METHODS
from ..system import Shown
from .evidence import Choice, Evidence
from .merge_cost import Estimate
from .situation import Situation


@dataclass(frozen=True)
class Suggestion:
    """A way of merging.

    method     by its name
    options    those that differ from its defaults
    sentence   why it is proposed, or why it comes after the first
    rows       of the study, on which it rests: one for each family; none where the study has none
    rounds     how often statistics are measured
    routed     branches beside the merge, as in a recipe; empty: a static merge
    cost       its estimate; None where it cannot be made before statistics are measured
    """

    method: str
    options: Mapping[str, Any]
    sentence: str
    rows: tuple[Evidence, ...] = ()
    rounds: int = 1
    routed: Mapping[str, Any] = field(default_factory=dict)
    cost: Estimate | None = None

    @classmethod
    def of(
        cls, choice: Choice, options: Mapping[str, Any], sentence: str, cost: Estimate | None
    ) -> Suggestion:
        """That of a choice among the study's rows, with these options."""
        row = choice.rows[0]
        return cls(row.method, options, sentence, choice.rows, row.rounds, row.routed, cost)

    @property
    def title(self) -> str:
        """The method's title, with the options that differ from its defaults."""
        told = {**self.options}
        if self.rounds > 1:
            told["rounds"] = self.rounds
        shown = ", ".join(f"{name} {value}" for name, value in told.items())
        branches = f", routed by {self.routed['by']}" if self.routed else ""
        return f"{METHODS[self.method].title}{f' ({shown})' if shown else ''}{branches}"

    @property
    def recipe(self) -> dict[str, Any]:
        """What a recipe says of it: method and options, rounds and branches where it has any."""
        found: dict[str, Any] = {"method": self.method, "options": dict(self.options)}
        if self.rounds > 1:
            found["rounds"] = self.rounds
        return found | ({"routed": dict(self.routed)} if self.routed else {})


@dataclass(frozen=True, repr=False)
class Advice(Shown):
    """Which method to take for a family.

    suggestion    the first; None where a merge makes no sense
    situation     what the family is, and what a merge of it may use
    reasons       why, a sentence each: what is there, the study's figures, and what they cannot say
    alternatives  what comes after, the best first
    more          what further data would make possible
    notes         what else to know before the merge
    """

    suggestion: Suggestion | None
    situation: Situation
    reasons: tuple[str, ...]
    alternatives: tuple[Suggestion, ...] = ()
    more: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Advice({self.title})"

    @property
    def title(self) -> str:
        """What to do, in a few words."""
        return "do not merge these" if self.suggestion is None else self.suggestion.title

    @property
    def recipe(self) -> dict[str, Any]:
        """What a recipe says of the first suggestion; empty where there is none."""
        return {} if self.suggestion is None else self.suggestion.recipe

    def to_dict(self) -> dict[str, Any]:
        """The advice as plain values, for JSON."""
        known = self.situation
        return {
            "advice": self.title,
            "recipe": self.recipe,
            "reasons": list(self.reasons),
            "rows": _rows(self.suggestion),
            "memory_bytes": _bytes(self.suggestion),
            "alternatives": [
                {"title": one.title, "recipe": one.recipe, "why": one.sentence, "rows": _rows(one)}
                for one in self.alternatives
            ],
            "more": list(self.more),
            "notes": list(self.notes),
            "family": {
                "experts": known.experts, "form": known.form, "kind": known.kind,
                "examples": dict(known.examples), "cosines": dict(known.cosines),
                "barrier": known.barrier,
            },
        }  # fmt: skip


def _bytes(suggestion: Suggestion | None) -> int | None:
    return suggestion.cost.memory_bytes if suggestion and suggestion.cost else None


def _rows(suggestion: Suggestion | None) -> list[dict[str, Any]]:
    """The rows of the study, as plain values."""
    return [
        {
            "family": row.family, "experts": row.experts, "normalised": row.kept.normalised,
            "gap": row.kept.gap, "half_width": row.kept.half_width,
            "split": "test" if row.test else "validation", "cpu_seconds": row.cpu,
            "size": row.size,
        }
        for row in (suggestion.rows if suggestion else ())
    ]  # fmt: skip
