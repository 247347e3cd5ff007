"""What the study has measured, and which of its rows serves a family best.

`evidence.json` is made of the study's results (`benchmarks/study/evidence.py`): how much of eight
experts' accuracy each way of merging kept, on families of texts and of images, and what it needs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

FILE = Path(__file__).with_name("evidence.json")
MEASURED = 8  # experts that the rows merge which the choice is made from
FEWEST = 8  # examples of a task in the study's least rows


@dataclass(frozen=True)
class Kept:
    """What merges kept, in percent.

    normalised   the mean over tasks of merged / expert accuracy
    gap          the share of the way from the base to the experts
    half_width   half of a 95 % interval of the first, over the examples
    merges       how many this is the mean of
    """

    normalised: float
    gap: float
    half_width: float
    merges: int


@dataclass(frozen=True)
class Evidence:
    """One row of the study.

    family       of the study
    kind         of its inputs: `image` or `text`
    experts      that were merged
    method       by its name
    options      those that are not the method's defaults
    rounds       how often statistics were measured
    routed       branches beside the merge, as in a recipe; empty: a static merge
    data         where inputs come from: `none`, a `pool` of no task, an unsorted `pile` of all
                 tasks, or each expert's `own`
    examples     of each task, where they are its own
    labels       whether these need labels
    validation   what it kept of validation examples, on which options are chosen
    test         what it kept on the test halves; None where it was not run there
    cpu          seconds of a processor for the merge and its test
    size         of the model, as a multiple of a static merge
    after        steps after the merge, as in a recipe
    """

    family: str
    kind: str
    experts: int
    method: str
    options: Mapping[str, Any]
    rounds: int
    routed: Mapping[str, Any]
    data: str
    examples: int
    labels: bool
    validation: Kept | None
    test: Kept | None
    cpu: float | None
    size: float
    after: tuple[Mapping[str, Any], ...] = ()

    @property
    def recipe(self) -> str:
        """Everything of the merge that a recipe says, as one text: rows with the same are alike."""
        parts = [self.method, dict(self.options), self.rounds, dict(self.routed), [*self.after]]
        return json.dumps(parts, sort_keys=True)

    def on(self, split: str) -> Kept | None:
        """What it kept on `validation` or `test`; None where it was not run there."""
        return self.test if split == "test" else self.validation

    @property
    def kept(self) -> Kept:
        """What it kept on the test halves, else of the validation examples."""
        found = self.test or self.validation
        assert found is not None
        return found


@dataclass(frozen=True)
class Needs:
    """What a merge may use.

    examples   of each expert's task, the fewest of them all; 0: none
    labels     whether these may be used with their labels
    walkable   whether inputs can pass through the models, layer by layer
    pile       whether there is an unsorted pile of the inputs of all tasks
    larger     whether the output may be larger than a static merge, with branches
    measured   whether statistics of every expert are there
    """

    examples: int = 0
    labels: bool = False
    walkable: bool = True
    pile: bool = False
    larger: bool = False
    measured: bool = False

    def allow(self, row: Evidence) -> bool:
        """Whether a row takes no more than that."""
        if row.routed and not (self.larger and self.walkable):
            return False
        if row.data == "none":
            return True
        if self.measured and row.data == "own" and not row.routed and row.method != "sequential":
            return row.rounds == 1 or self.labels
        if row.labels and not self.labels:
            return False
        if row.method == "sequential" and not self.walkable:
            return False
        if row.data == "own":
            return row.examples <= self.examples
        return row.data == "pool" or self.pile


@dataclass(frozen=True)
class Choice:
    """A way of merging, with the rows of the study that speak for it.

    rows   one for each family
    lost   points behind the best of each family that the same data allow, on validation examples,
           the mean over these families
    """

    rows: tuple[Evidence, ...]
    lost: float

    @property
    def recipe(self) -> str:
        """What its rows have in common (see `Evidence.recipe`)."""
        return self.rows[0].recipe

    @property
    def cpu(self) -> float:
        """Seconds of a processor, the mean over the families."""
        known = [row.cpu for row in self.rows if row.cpu is not None]
        return mean(known) if known else 0.0


@functools.cache
def evidence() -> tuple[Evidence, ...]:
    """All rows of the study that come with the library."""
    return tuple(map(_row, json.loads(FILE.read_text("utf-8"))))


def _row(content: dict[str, Any]) -> Evidence:
    scores = {
        split: Kept(**content[split]) if content[split] else None
        for split in ("validation", "test")
    }
    return Evidence(**{**content, **scores, "after": tuple(content.get("after", ()))})


def choose(rows: Iterable[Evidence], kind: str, needs: Needs) -> list[Choice]:
    """Ways of merging that need no more than there is, the best first.

    Ways with a step after the merge are none of them: their figures are of the test halves alone.
    Judged on validation examples by the families whose inputs are of this kind, by all families
    where none is: of the ways that were tried on each of them, the one that stays least behind the
    best of each, in tenths of a point; of equal ones the quicker.
    """
    tried = [r for r in rows if r.validation and r.experts == MEASURED and not r.after]
    own = [row for row in tried if row.kind == kind] or tried
    allowed = [row for row in own if needs.allow(row)]
    families = list(dict.fromkeys(row.family for row in own))
    best = {
        family: max(_normalised(row) for row in allowed if row.family == family)
        for family in families
    }
    ways: dict[str, list[Evidence]] = {}
    for row in allowed:
        ways.setdefault(row.recipe, []).append(row)
    choices = [
        Choice(tuple(group), mean(best[row.family] - _normalised(row) for row in group))
        for group in ways.values()
        if len(group) == len(families)
    ]
    return sorted(choices, key=lambda choice: (round(choice.lost, 1), choice.cpu))


def _normalised(row: Evidence) -> float:
    assert row.validation is not None
    return row.validation.normalised


def of_number(rows: Iterable[Evidence], experts: int, kind: str) -> Sequence[Evidence]:
    """Rows that merge so many experts on inputs of this kind, the best first."""
    found = [row for row in rows if row.experts == experts and row.kind == kind]
    return sorted(found, key=lambda row: -row.kept.normalised)
