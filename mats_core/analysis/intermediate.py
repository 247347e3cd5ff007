"""Intermediate tasks: what a donor's expert adds to a target's, over the weight between the two.

The setting of Fisher merging (arXiv 2111.09832) and of MaTS (arXiv 2312.04339): one target and one
donor are merged with weights λ and 1 − λ, and only the target's task counts.  Here λ is chosen on
validation rows; on the test rows the chosen merge and the expert alone are asked once, after a
press.  At λ = 1 a method that takes a mean leaves the target's expert as it is.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InputError, listing, member
from ..evaluation import Difference, TaskResult, compare
from ..merging import Event
from ..methods import METHODS
from ..recipes import FINAL, Inputs, Recipe, as_tuned, open_inputs
from ..system import Memo, part
from .attempt import attempt, quietly

DONATION_EXAMPLES = 400  # of the target
LAMBDAS = tuple(tenth / 10 for tenth in range(11))  # as in the code of MaTS


@dataclass(frozen=True)
class Donated:
    """One merge of a target with a donor.

    weight   λ of the target; the donor has 1 − λ
    result   on the target's task; None where the merge failed
    reason   why it failed; empty where it did not
    """

    weight: float
    result: TaskResult | None
    reason: str = ""


@dataclass(frozen=True)
class Donation:
    """What one donor does for one target.

    target, donor   names of their experts
    points          the merges, by rising λ
    """

    target: str
    donor: str
    points: tuple[Donated, ...]

    @property
    def best(self) -> Donated | None:
        """The merge with the target's highest validation score, and of equals the one nearest to
        its expert; None where all failed."""
        good = [point for point in self.points if point.result is not None]
        return max(good, key=lambda p: (_value(p), p.weight)) if good else None

    @property
    def gain(self) -> Difference | None:
        """By how much the best merge is above the target's expert on the same validation examples,
        by which it was chosen: it is flattering."""
        best = self.best
        if best is None or best.result is None:
            return None
        return gained(best.result)


@dataclass(frozen=True)
class DonationDone(Event):
    """Event: all weights of one donor for one target were tried.

    donation    what they gave
    """

    donation: Donation


@dataclass(frozen=True)
class Donations:
    """What donors do for targets.

    recipe      of all experts: method, options and files
    donations   of every pair that was asked for
    examples    validation examples of a target that were asked at most; None: all
    """

    recipe: Recipe
    donations: tuple[Donation, ...]
    examples: int | None

    def of(self, target: str, donor: str) -> Donation | None:
        """What a donor does for a target; None where it was not asked."""
        pairs = {(one.target, one.donor): one for one in self.donations}
        return pairs.get((target, donor))

    def best_for(self, target: str) -> Donation | None:
        """The donor with the best merge for a target, on its validation examples; None without."""
        there = [one for one in self.donations if one.target == target and one.best is not None]
        return max(there, key=lambda one: _value(one.best), default=None)

    def recipe_for(self, donation: Donation, weight: float | None = None) -> Recipe:
        """The recipe of a merge of target and donor, by the best weight unless one is given; it
        says how it was chosen."""
        best = donation.best
        if weight is None and best is not None:
            weight = best.weight
        chosen = pair(
            self.recipe, donation.target, donation.donor, 1.0 if weight is None else weight
        )
        return as_tuned(chosen, trials=len(donation.points), examples=self.examples,
                        objectives=(f"accuracy on {donation.target}",))  # fmt: skip


def donating(
    recipe: Recipe,
    *,
    targets: Sequence[str] | None = None,
    donors: Sequence[str] | None = None,
    weights: Sequence[float] = LAMBDAS,
    examples: int | None = DONATION_EXAMPLES,
) -> Generator[Event, None, Donations]:
    """Events of merging every target with every donor at every weight, and a `DonationDone` after
    each pair; returns what came of them.

    recipe     whose method and options are taken, over all experts
    targets    names of experts with tasks; all of them by default
    donors     names of experts; all by default; a target is no donor of itself
    weights    λ of the target, from 0 to 1
    examples   validation examples of the target that are asked at most

    Raises `InputError` before any work for unknown names, weights out of range, a method that does
    not weigh its experts, and where no pair is left.
    """
    chosen = _chosen(recipe, targets, donors, weights)
    found: list[Donation] = []
    steps = sorted(set(weights))
    for index, (target, donor) in enumerate(chosen):
        start, stop = index / len(chosen), (index + 1) / len(chosen)
        said = f"{donor} for {target}: {{}}"
        points = yield from part(_pair(recipe, target, donor, steps, examples), start, stop, said)
        found.append(Donation(target, donor, points))
        text = f"{donor} for {target} is done"
        yield DonationDone(found[-1], fraction=stop, text=text)
    return Donations(recipe, tuple(found), examples)


def finally_asked(recipe: Recipe, target: str) -> Generator[Event, None, TaskResult]:
    """Events of one merge, asked all test examples of the target; returns the result.

    For the recipe that was chosen: the more often test examples are asked the less they say.
    """
    merge = recipe.model_copy(update={"output": None, "search": None, "evaluate": FINAL})
    inputs = _asking(open_inputs(merge, Memo.of_process()), target)
    report, reason = yield from attempt(merge, inputs)
    if report is None or not report.tasks:
        raise InputError(f"test of '{target}'", expected="a merge", found=reason or "no task")
    return report.tasks[0]


def gained(result: TaskResult) -> Difference:
    """By how much a merge is above the target's expert on the same examples."""
    alone = replace(result, merged=result.finetuned)
    return compare([result], [alone], same_examples=True).tasks[result.name]


def pair(recipe: Recipe, target: str, donor: str, weight: float) -> Recipe:
    """The recipe of two experts, with weight λ of the target and 1 − λ of the donor."""
    shares = {target: weight, donor: round(1 - weight, 12)}
    entries = {entry.name: entry for entry in recipe.experts}
    experts = [entries[n].model_copy(update={"weight": shares[n]}) for n in (target, donor)]
    update: dict[str, Any] = {"experts": tuple(experts), "weighting": "weights", "by": ()}
    return recipe.model_copy(update=update)


def _pair(
    recipe: Recipe, target: str, donor: str, weights: Sequence[float], examples: int | None
) -> Generator[Event, None, tuple[Donated, ...]]:
    plain = quietly(pair(recipe, target, donor, 0.5), examples)
    inputs = _asking(open_inputs(plain, Memo.of_process()), target)
    points: list[Donated] = []
    for index, weight in enumerate(weights):
        trial = quietly(pair(recipe, target, donor, weight), examples)
        start, stop = index / len(weights), (index + 1) / len(weights)
        merging = part(attempt(trial, inputs), start, stop, f"λ {weight:g}: {{}}")
        report, reason = yield from merging
        points.append(Donated(weight, report.tasks[0] if report else None, reason))
    return tuple(points)


def _asking(inputs: Inputs, target: str) -> Inputs:
    """The same open files, of which the target's task alone is asked."""
    experts = tuple(
        expert if expert.name == target else replace(expert, task="")
        for expert in inputs.family.experts
    )
    return replace(inputs, family=replace(inputs.family, experts=experts))


def _value(point: Donated | None) -> float:
    return point.result.merged.value if point is not None and point.result is not None else 0.0


def _chosen(
    recipe: Recipe,
    targets: Sequence[str] | None,
    donors: Sequence[str] | None,
    weights: Sequence[float],
) -> list[tuple[str, str]]:
    """The pairs (target, donor) that are asked for."""
    method = METHODS[recipe.method]
    if not method.weighted or method.calibrates:
        raise InputError(
            f"intermediate tasks by '{method.name}'",
            expected="a method that weighs its experts",
            found="one that calibrates on their tasks"
            if method.calibrates
            else "one that treats them alike",
            remedy="Choose one such as 'average', 'fisher', 'regmean' or 'kfac'.",
        )
    names = [entry.name for entry in recipe.experts]
    asked = [entry.name for entry in recipe.experts if entry.task]
    for name in targets or ():
        member("target with a task", name, asked)
    for name in donors or ():
        member("donor", name, names)
    if not weights or not all(0 <= weight <= 1 for weight in weights):
        found = listing(f"{weight:g}" for weight in weights) or "none"
        raise InputError("weights of the target", expected="from 0 to 1", found=found)
    pairs = [(t, d) for t in targets or asked for d in donors or names if t != d]
    if not pairs:
        raise InputError(
            "intermediate tasks", expected="a target with a task, and another expert as its donor",
            found=listing(names),
        )  # fmt: skip
    return pairs
