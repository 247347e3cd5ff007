"""Which scaling a method wants for how many experts: what its default by their number rests on.

W is W₀ plus the scaling times something that does not depend on it, so that two merges tell all.
Tried on validation examples of the sample family, over subsets in which every expert stands about
alike often; the test halves see subsets that were drawn anew, once, with what became the default
for so few and the one for eight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from torch import Tensor

from mats_core.evaluation import examiner, normalised_accuracy
from mats_core.methods import METHODS, describe
from mats_core.tasks import SplitName

from .trials import TEST_ASKED, Bench, Store, Trial

GRIDS: Mapping[str, tuple[float, ...]] = {
    "task_arithmetic": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2),
    "essential": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0),
    "tsv_m": (0.75, 1.0, 1.25, 1.5, 2.0),
    "iso_c": (1.5, 2.0, 3.0, 4.0, 5.0),
    "iso_cts": (1.5, 2.0, 3.0, 4.0, 5.0),
    "consensus": (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.2),
}
COUNTS: Mapping[int, int] = {2: 4, 4: 2, 3: 2}  # experts → subsets on validation
ASKED = 128  # validation examples a task
POINT = 0.01
SPLITS = ("validation", "test")
Encoder = Mapping[str, Tensor]


def file(results: Path, name: str) -> Path:
    """The file of a family's scalings."""
    return results / "scalings" / f"{name}.json"


def subsets(names: tuple[str, ...], count: int, number: int, seed: int) -> list[tuple[str, ...]]:
    """So many subsets of `count` experts, in which each stands as often as any other."""
    order = np.random.default_rng(seed).permutation(len(names))
    steps = np.arange(number) * len(names) // number
    found = [{names[order[(step + i) % len(names)]] for i in range(count)} for step in steps]
    return [tuple(name for name in names if name in one) for one in found]


def run(bench: Bench, results: Path, name: str, asked: SplitName) -> None:
    """Keep what every scaling of every subset reaches on `validation`, or on `test`."""
    store = Store(file(results, name))
    split = store.content.setdefault(asked, {})
    for count, number in COUNTS.items():
        for experts in subsets(bench.names, count, number, 0 if asked == "validation" else 1):
            for method, grid in GRIDS.items():
                part = split.setdefault(method, {}).setdefault(str(count), {})
                key = " ".join(experts)
                tried = grid
                if asked == "test":
                    few = usual(method, count)
                    tried = (usual(method, 8), few) if few != usual(method, 8) else ()
                if missing := [s for s in tried if f"{s:g}" not in part.get(key, {})]:
                    trial = Trial(method, experts=experts, split=asked)
                    part.setdefault(key, {}).update(scored(bench, trial, missing))
                    store.save()
                    print(asked, count, key, method, part[key], flush=True)


def scored(bench: Bench, trial: Trial, scalings: list[float]) -> dict[str, float]:
    """Normalised accuracy by scaling, of merges of one subset."""
    inputs = bench.inputs(trial)
    ends = []
    for scaling in (0.0, 1.0):
        end = Trial(trial.method, {"scaling": scaling}, experts=trial.experts, split=trial.split)
        ends.append(bench.merged(end, inputs))
    none, one = ends
    asked = ASKED if trial.split == "validation" else TEST_ASKED
    exam = examiner.exam(inputs.family, bench.collection.folder, trial.split, asked, bench.device)
    found = {}
    for scaling in scalings:
        encoder = dict(_between(none, one, scaling))
        last = list(exam.take(encoder))[-1].results
        found[f"{scaling:g}"] = round(normalised_accuracy(last), 5)
    return found


def _between(none: Encoder, one: Encoder, scaling: float) -> Iterator[tuple[str, Tensor]]:
    for name, value in none.items():
        first, last = value.double(), one[name].double()
        yield name, (first + scaling * (last - first)).to(value.dtype)


def usual(method: str, experts: int) -> float:
    """The default for so many experts."""
    return next(o.default for o in describe(method, experts) if o.name == "scaling")


def means(store: Store, split: str, method: str, count: int) -> dict[float, float]:
    """Scaling → the mean over subsets."""
    rows: Mapping[str, Mapping[str, float]] = (
        store.content.get(split, {}).get(method, {}).get(str(count), {})
    )
    if not rows:
        return {}
    tried: list[Any] = list(next(iter(rows.values())))
    return {float(one): mean(row[one] for row in rows.values()) for one in tried}


def wanted(store: Store, method: str, count: int) -> float:
    """The smallest scaling within a point of the best on validation examples: means over so few
    subsets tell no less apart, and what is scaled less stays nearer to the base."""
    found = means(store, "validation", method, count)
    return min(scaling for scaling, kept in found.items() if kept >= max(found.values()) - POINT)


def _again(store: Store) -> str:
    """In words, how many of the subsets on the test halves were seen on validation examples too."""
    seen = {split: store.content.get(split, {}).get("task_arithmetic", {}) for split in SPLITS}
    both = {
        count: sum(key in seen["validation"].get(count, {}) for key in rows)
        for count, rows in seen["test"].items()
    }
    told = [f"{n} of {len(seen['test'][count])} of {count}" for count, n in both.items() if n]
    return f"; {', '.join(told)} came out as on validation examples" if told else ""


def table(results: Path, name: str) -> str:
    """What the defaults keep, of eight experts and of as few as are merged, beside the best."""
    store = Store(file(results, name))
    lines = []
    for method in GRIDS:
        for count in sorted(COUNTS):
            tried = means(store, "validation", method, count)
            if tried:
                best = max(tried, key=lambda scaling: tried[scaling])
                cells = [METHODS[method].title, str(count), f"{best:g}: {100 * tried[best]:.1f}"]
                for experts in (8, count):
                    own = usual(method, experts)
                    test = means(store, "test", method, count).get(own)
                    on_test = f" / {100 * test:.1f}" if test is not None else ""
                    cells.append(f"{own:g}: {100 * tried[own]:.1f}{on_test}")
                lines.append("| " + " | ".join(cells) + " |")
    if not lines:
        return ""
    head = "| method | experts | best scaling | default for eight | default for so few |"
    said = (
        "Normalised accuracy by scaling, means over subsets of the sample family "
        f"({', '.join(f'{n} of {count}' for count, n in sorted(COUNTS.items()))}): on {ASKED} "
        "validation examples a task, and behind the stroke on the test halves, with subsets that "
        f"were drawn anew{_again(store)}."
    )
    return "\n".join([head, "|" + " --- |" * 5, *lines]) + "\n\n" + said
