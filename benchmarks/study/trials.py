"""One trial of the study: a merge, scored; every result is kept and never computed twice."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from mats_core.analysis import follow
from mats_core.evaluation import TaskResult, gap_recovered, half_width, normalised_accuracy
from mats_core.merging import pipeline
from mats_core.methods import METHODS
from mats_core.recipes import (
    Evaluation,
    FamilyFile,
    Finished,
    Inputs,
    LayerReport,
    Recipe,
    load_family,
    measure_all,
    open_inputs,
    parse_options,
)
from mats_core.system import Memo, drain
from mats_core.tasks import SplitName

TEST_ASKED = 400  # test examples a task
MEMO = 6 * 2**30  # bytes that are remembered between merges over the same files


@dataclass(frozen=True)
class Trial:
    """What is merged and how, in names that mean the same on any machine.

    examples, labels, seed   what the statistics are measured on
    experts                  those that are merged; all for an empty tuple
    asked                    examples a task that the merge is tested on; all for None
    rounds                   how often statistics are measured (`merging.rounds`)
    routed                   branches beside the merge (`merging.Routed`); empty: a static merge
    after                    steps on the merged update (`after` of a recipe)
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    examples: int = 256
    labels: str = "empirical"
    experts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    split: SplitName = "validation"
    asked: int | None = None
    rounds: int = 1
    routed: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Mapping[str, Mapping[str, Any]], ...] = ()

    @property
    def key(self) -> str:
        told = dataclasses.asdict(self)
        if self.rounds == 1:
            del told["rounds"]
        if not self.routed:
            del told["routed"]
        if not self.after:
            del told["after"]
        content = json.dumps(told, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def reads(self) -> frozenset[str]:
        """Kinds of statistics that the merge reads."""
        return METHODS[self.method].reads(parse_options(self.method, self.options))

    def on_test(self, seed: int = 0) -> Trial:
        """The same merge, on the test halves."""
        return dataclasses.replace(self, split="test", asked=TEST_ASKED, seed=seed)


class Store:
    """Results by trial, in one JSON file: readable, and a difference shows what changed."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.content: dict[str, Any] = (
            json.loads(file.read_text("utf-8")) if file.is_file() else {"results": {}}
        )

    @classmethod
    def of(cls, folder: Path, name: str) -> Store:
        """Everything that is kept of a family, from all parts that were run side by side."""
        store = cls(folder / f"{name}.json")
        for file in sorted(folder.glob(f"{name}.*.json")):
            part = json.loads(file.read_text("utf-8"))
            results = {**part["results"], **store.content["results"]}
            store.content = {**part, **store.content, "results": results}
        return store

    def get(self, trial: Trial) -> dict[str, Any] | None:
        return self.content["results"].get(trial.key)

    def put(self, trial: Trial, result: Mapping[str, Any]) -> None:
        self.content["results"][trial.key] = {"trial": dataclasses.asdict(trial), **result}
        self.save()

    def save(self) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_suffix(".partial")
        beside.write_text(json.dumps(self.content, indent=0, sort_keys=True) + "\n", "utf-8")
        beside.replace(self.file)


class Bench:
    """A family on which trials are run; opened files are kept from one trial to the next."""

    def __init__(self, folder: Path, store: Store, *, device: str = "cpu") -> None:
        self.collection: FamilyFile = load_family(folder)
        self.store, self.device = store, device
        self._opened: tuple[object, Inputs] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(expert.name for expert in self.collection.experts)

    def statistics(self, trial: Trial) -> dict[str, Path]:
        """Statistics of every member, measured now where there are none; none if none are read."""
        if not trial.reads:
            return {}
        return measure_all(
            self.collection,
            examples=trial.examples,
            labels=trial.labels,
            seed=trial.seed,
            device=self.device,
        )

    def recipe(self, trial: Trial) -> Recipe:
        chosen = trial.experts or self.names
        weights = dict(zip(chosen, trial.weights, strict=True)) if trial.weights else None
        recipe = self.collection.recipe(
            trial.method,
            trial.options,
            statistics=self.statistics(trial),
            experts=chosen,
            weights=weights,
            seed=trial.seed,
            device=self.device,
            after=trial.after,
            evaluate=Evaluation(split=trial.split, examples=trial.asked),
            # What is kept of trials that do not say how they are routed is of this router.
            **({"routed": {"by": "discriminant", **trial.routed}} if trial.routed else {}),
        )
        return recipe.model_copy(update={"rounds": trial.rounds})

    def inputs(self, trial: Trial) -> Inputs:
        """The files of a trial, opened; remembered while the next trial reads the same."""
        key = (trial.seed, trial.examples, trial.labels, trial.experts, bool(trial.reads))
        if self._opened is None or self._opened[0] != key:
            self._opened = None  # before the next ones are opened: both would not fit
            self._opened = key, open_inputs(self.recipe(trial), Memo(MEMO))
        return self._opened[1]

    def score(self, trial: Trial) -> dict[str, Any]:
        """The result of a trial, from the store or by running it."""
        known = self.store.get(trial)
        if known is None:
            inputs = self.inputs(trial)
            started, worked = time.perf_counter(), time.process_time()
            finished = drain(pipeline.run(self.recipe(trial), inputs=inputs))
            worked = time.process_time() - worked
            result = summary(finished, time.perf_counter() - started)
            self.store.put(trial, {**result, "cpu": round(worked, 2)})
            known = self.store.get(trial)
            assert known is not None
        return known

    def merged(self, trial: Trial, inputs: Inputs | None = None) -> Mapping[str, Tensor]:
        """The tensors of a trial's merge, which is not tested; `inputs`: other files than its."""
        recipe = self.recipe(trial).model_copy(update={"evaluate": False})
        return drain(pipeline.run(recipe, inputs=inputs or self.inputs(trial))).tensors

    def along(self, trials: Sequence[Trial]) -> None:
        """Score trials that differ in `iterations` alone, as iterates of one solve.

        Exactly what each by itself would give, where nothing ends the solve early (`tolerance` 0).
        """
        missing = {
            int(trial.options["iterations"]): trial
            for trial in trials
            if self.store.get(trial) is None
        }
        if not missing:
            return
        started = time.perf_counter()
        longest = missing[max(missing)]
        solving = follow(
            self.recipe(longest),
            inputs=self.inputs(longest),
            keep=sorted(missing),
            split=longest.split,
            examples=longest.asked,
        )
        trajectory = drain(solving)
        seconds = (time.perf_counter() - started) / len(missing)
        for point in trajectory.points:
            self.store.put(
                missing[point.iteration],
                {
                    **scores(point.results),
                    "seconds": round(seconds, 2),
                    "residual": _residual(trajectory.report.layers, point.iteration),
                },
            )

    def best(self, trials: Iterable[Trial]) -> Trial:
        """The trial with the highest normalised accuracy; the first of equals."""
        return max(trials, key=lambda trial: self.score(trial)["normalised"])


def summary(finished: Finished, seconds: float) -> dict[str, Any]:
    """What the page needs of a run."""
    report = finished.report
    return {
        **scores(report.tasks),
        "seconds": round(seconds, 2),
        "residual": _residual(report.layers),
        **({"size": round(report.size, 3)} if report.routed else {}),
    }


def _residual(layers: Iterable[LayerReport], iteration: int | None = None) -> float | None:
    """The largest residual of any layer, in the end or after an iteration."""
    found = [
        layer.residuals[-1 if iteration is None else min(iteration, len(layer.residuals) - 1)]
        for layer in layers
        if layer.residuals
    ]
    return max(found, default=None)


def scores(results: tuple[TaskResult, ...]) -> dict[str, Any]:
    """Normalised accuracy, gap recovered, half of the interval, and the accuracies by task."""
    return {
        "normalised": normalised_accuracy(results),
        "gap": gap_recovered(results),
        "half_width": half_width(results),
        "tasks": {
            r.name: [
                r.merged.accuracy,
                r.finetuned.accuracy,
                r.pretrained.accuracy,
                r.merged.examples,
            ]
            for r in results
        },
    }
