"""What the study tries: the grids, section by section.

Hyper-parameters are chosen on validation data; the table of methods is the only thing that sees the
test halves.  Every method gets the same number of trials, its defaults among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mats_core.methods import METHODS

from .trials import Bench, Trial

TRIALS = 6
ASKED = 128  # validation examples a task
SEEDS = (0, 1, 2)
# These methods read statistics (or draw masks): other calibration data may change them.
SEEDED = (
    "dare", "fisher", "regmean", "kfac", "essential", "gradient_matching", "kfac_matching",
    "della",
)  # fmt: skip
# A family whose base has no task of its own has no pre-trained Fisher: a number stands in for it.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {"gradient_matching": {"prior": 1e-4}}
Grid = list[dict[str, Any]]


def product(**values: tuple[Any, ...]) -> Grid:
    return [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]


SEARCH: Mapping[str, Grid] = {
    "average": [{}],
    "task_arithmetic": product(scaling=(0.1, 0.2, 0.4, 0.5, 0.6)),
    "ties": product(density=(0.2, 0.5), scaling=(1.5, 2.5)) + product(density=(0.1, 0.5, 0.8)),
    "dare": product(drop=(0.5, 0.9), scaling=(0.2, 0.4, 0.6)) + product(drop=(0.5,)),
    "fisher": product(floor=(0.0, 0.01, 0.3), normalise=(False, True))
    + product(normalise=(True,)),
    "regmean": product(damping=(1e-4, 1e-3, 0.1, 1.0))
    + product(off_diagonal=(0.9,), damping=(0.0, 0.01))
    + product(fold_bias=(True,)),
    "kfac": product(damping=(0.003, 0.01, 0.03, 0.3))
    + product(damping=(0.01, 0.1), fold_bias=(True,), remaining=("fisher",))
    + product(damping=(0.03,), normalise=(False,)),
    "tsv_m": product(scaling=(0.75, 1.0, 1.25, 1.75, 2.0)),
    "iso_c": product(scaling=(0.75, 1.5, 2.5, 3.0, 4.0)),
    "iso_cts": product(scaling=(1.0, 2.5, 3.0, 4.0)) + product(common=(0.5,), scaling=(3.0,)),
    "essential": product(scaling=(1.0, 2.0))
    + product(task_power=(0.0,), scaling=(1.0, 1.5, 2.0))
    + product(task_power=(0.0,), dimension_power=(0.0,), layer_power=(0.0,), scaling=(1.5, 2.0)),
    "gradient_matching": product(prior=(1e-6, 1e-4, 1e-2), scaling=(0.3, 1.0, 3.0))[:7],
    "kfac_matching": product(prior=(0.01, 0.1, 1.0), scaling=(0.3, 1.0, 3.0))[:7],
    "karcher": [{}],
    "model_stock": product(by_row=(True,)),
    "breadcrumbs": product(scaling=(0.3, 0.6)) + product(density=(0.3, 0.6))
    + product(elect=(True,), scaling=(1.0,)),
    "della": product(density=(0.4,), scaling=(0.7, 1.0)) + product(scaling=(0.7, 1.5))
    + product(rescale=("probability",)),
    "sce": product(select=(0.1, 0.3, 0.5, 0.7, 0.9)),
    "consensus": product(scaling=(0.2, 0.4, 0.5)) + product(threshold=(0.1, 0.4)),
    "dc_merge": product(scaling=(2.0, 4.0, 5.0)) + product(density=(0.0003, 0.01)),
}  # fmt: skip
STEPPED = ("task_arithmetic", "tsv_m", "kfac")  # methods after which steps are tried
STEPS: Mapping[str, Grid] = {
    "stretch": product(scale=(0.8, 1.2, 1.4)),
    "svc": product(alpha=(0.1, 0.3, 0.6)),
    "lines": product(first=(0.7,), last=(1.3,)) + product(first=(1.3,), last=(0.7,))
    + product(first=(0.5,), last=(1.5,)),
}  # fmt: skip


def default(method: str) -> Trial:
    return Trial(method, DEFAULTS.get(method, {}), asked=ASKED)


def candidates(method: str) -> list[Trial]:
    """The defaults and what is tried beside them: at most `TRIALS` in all."""
    found = [default(method)]
    for options in SEARCH[method]:
        trial = Trial(method, {**DEFAULTS.get(method, {}), **options}, asked=ASKED)
        if trial not in found:
            found.append(trial)
    return found[:TRIALS]


# Sections -----------------------------------------------------------------------------------------


def search(bench: Bench) -> list[Trial]:
    """Every method, all its candidates, on validation data."""
    return [trial for method in SEARCH for trial in candidates(method)]


def table(bench: Bench) -> list[Trial]:
    """Every method by default and searched, on the test halves."""
    return [trial.on_test() for method in SEARCH for trial in _compared(bench, method)]


def seeds(bench: Bench) -> list[Trial]:
    """The same with other calibration data, for methods that read any."""
    return [
        trial.on_test(seed)
        for seed in SEEDS[1:]
        for method in SEEDED
        for trial in _compared(bench, method)
    ]


def candidates_after(method: str, step: str) -> list[Trial]:
    """A method's merge by default after each of a step's candidates, on validation data."""
    return [Trial(method, asked=ASKED, after=({step: dict(o)},)) for o in STEPS[step]]


def steps(bench: Bench) -> list[Trial]:
    """Every step after some methods by default."""
    return [t for method in STEPPED for step in STEPS for t in candidates_after(method, step)]


def steps_table(bench: Bench) -> list[Trial]:
    """These methods bare, and after the best of each step's candidates, on the test halves."""
    best = [bench.best(candidates_after(m, step)) for m in STEPPED for step in STEPS]
    return [trial.on_test() for trial in [*map(default, STEPPED), *best]]


# What is measured again at the merge, and how often.
AGAIN: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("kfac", {"damping": 0.03, "fold_bias": True, "remaining": "fisher"}),
    ("kfac_matching", {}),
)
ROUNDS = (1, 2, 3)


def again(bench: Bench) -> list[Trial]:
    """Statistics measured once, twice, three times, on the test halves, over the seeds."""
    return [
        Trial(method, options, rounds=rounds).on_test(seed)
        for seed in SEEDS
        for rounds in ROUNDS
        for method, options in AGAIN
    ]


def _compared(bench: Bench, method: str) -> list[Trial]:
    own, best = default(method), bench.best(candidates(method))
    return [own] if best == own else [own, best]


def damping(bench: Bench) -> list[Trial]:
    """Tikhonov, proximal, off-diagonal, and how many iterations."""
    grid = product(damping=(0.0, 0.1, 1.0, 0.01), iterations=(2, 5, 15, 50))
    grid += product(damping=(0.0, 0.1), iterations=(5, 50), start=("regmean",))
    grid += product(damping=(0.0,), anchor=(0.001, 0.01, 0.1), iterations=(50,))
    grid += product(damping=(0.0,), off_diagonal=(0.5, 0.9), iterations=(50,))
    return [Trial("kfac", {"tolerance": 0.0, **options}, asked=ASKED) for options in grid]


def one_solve(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Groups of trials that differ in the number of iterations alone and run all of them."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if "iterations" in trial.options and trial.options.get("tolerance") == 0.0:
            rest = {k: v for k, v in trial.options.items() if k != "iterations"}
            groups.setdefault(replace(trial, options=rest).key, []).append(trial)
    return [group for group in groups.values() if len(group) > 1]


def rank(bench: Bench) -> list[Trial]:
    """How many directions of each task are kept."""
    found = [
        Trial("essential", {"rank": r, **free}, asked=ASKED)
        for r in (1, 2, 4, 8, 16, 32, 64)
        for free in ({}, {"task_power": 0.0, "dimension_power": 0.0, "layer_power": 0.0})
    ]
    return found + [
        Trial("kfac", {"rank": r, "iterations": 20}, asked=ASKED) for r in (30, 300, 3000, 30_000)
    ]


def calibration(bench: Bench) -> list[Trial]:
    """How many examples are measured, with which labels, and what is done to the statistics."""
    found = []
    for method in ("essential", "regmean", "kfac"):
        found += [Trial(method, examples=n, asked=ASKED) for n in (8, 32, 128, 512)]
    for method in ("kfac", "fisher"):
        found += [Trial(method, labels="true", asked=ASKED)]
        found += [Trial(method, {"normalise": on}, asked=ASKED) for on in (True, False)]
    for method in ("kfac", "regmean"):
        found += [Trial(method, {"fold_bias": True}, asked=ASKED)]
        found += [Trial(method, {"remaining": "fisher"}, asked=ASKED)]
    return found


LEVELS = ("task_power", "dimension_power", "layer_power")


def levels(bench: Bench) -> list[Trial]:
    """Polarized scaling: each level on and off, and over its power."""
    off = dict.fromkeys(LEVELS, 0.0)
    found = [off, dict.fromkeys(LEVELS, 2.0)]
    for level in LEVELS:
        found += [{**off, level: power} for power in (0.5, 1.0, 2.0, 4.0)]
        found.append({**dict.fromkeys(LEVELS, 2.0), level: 0.0})
    return [Trial("essential", options, asked=ASKED) for options in found]


COUNTS = (2, 8, 12, 11, 4, 6, 10, 3, 5, 7, 9)  # tasks that are merged, in the order of the runs
STARTS = (0, 3, 6)  # places of one drawn order of tasks at which an order begins


@dataclass(frozen=True)
class Numbered:
    """A way of merging whose curve over the number of tasks is drawn.

    Its options are the defaults, which for some methods depend on the number of experts.
    """

    title: str
    method: str
    routed: Mapping[str, Any] = field(default_factory=dict)

    def of(self, experts: tuple[str, ...]) -> Trial:
        """The trial that merges these experts; all of them for an empty tuple."""
        return Trial(self.method, experts=experts, asked=ASKED, routed=self.routed)


NUMBERED = (
    *(
        Numbered(METHODS[method].title, method)
        for method in ("average", "task_arithmetic", "tsv_m", "regmean", "kfac", "sequential")
    ),
    Numbered("TSV-M, routed, rank 32", "tsv_m", {"by": "first_pass", "rank": 32, "examples": 256}),
)


def added(names: Iterable[str], count: int) -> list[tuple[str, ...]]:
    """The first so many tasks of each order; one empty tuple for all of them, none for more.

    The orders go round the same circle, which is drawn with a seed, from other places: no two of
    them begin with the same tasks.
    """
    known = sorted(names)
    if count > len(known):
        return []
    if count == len(known):
        return [()]
    circle = np.random.default_rng(0).permutation(known)
    firsts = (np.roll(circle, -start)[:count] for start in STARTS)
    return [tuple(sorted(map(str, first))) for first in firsts]


def number(bench: Bench) -> list[Trial]:
    """From two tasks to all, in several orders."""
    return [
        one.of(experts)
        for count in COUNTS
        for one in NUMBERED
        for experts in added(bench.names, count)
    ]


def pairs(bench: Bench) -> list[Trial]:
    """Every pair of experts averaged: who interferes with whom."""
    return [
        Trial("average", experts=pair, asked=ASKED)
        for pair in itertools.combinations(bench.names, 2)
    ]


DONORS = (0.0, 0.1, 0.25, 0.5, 1.0)


def donor(bench: Bench) -> list[Trial]:
    """Target plus donor, over the donor's weight: the target's accuracy is the score."""
    order = np.random.default_rng(0).permutation(len(bench.names))
    found = []
    for target, giver in itertools.pairwise(order[:5]):
        pair = (bench.names[target], bench.names[giver])
        for method in ("average", "regmean"):
            found += [
                Trial(method, experts=pair, weights=(1.0, weight), asked=512) for weight in DONORS
            ]
    return found


SECTIONS: Mapping[str, Callable[[Bench], list[Trial]]] = {
    "search": search,
    "table": table,
    "seeds": seeds,
    "steps": steps,
    "steps_table": steps_table,
    "again": again,
    "damping": damping,
    "levels": levels,
    "calibration": calibration,
    "rank": rank,
    "pairs": pairs,
    "number": number,
    "donor": donor,
}
