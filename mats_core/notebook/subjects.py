"""What a panel explores: a family of files with tasks, or models in memory with their loaders.

Both answer the same questions: open, measure once, merge with a first test, test the rest.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..analysis import Trajectory, convergence
from ..api import evaluate, judge
from ..errors import InputError, member
from ..evaluation import QUICK, Score, TaskResult, going_on
from ..merging import Event, Merge, planned, run_plan
from ..methods import METHODS
from ..recipes import (
    TRIED,
    FamilyFile,
    Inputs,
    Recipe,
    Source,
    by_text,
    inputs_of,
    load_family,
    measuring_all,
    named,
    open_inputs,
    open_source,
    patterns,
    recipe_of,
    with_statistics,
)
from ..statistics import (
    MeasureSettings,
    Statistics,
    measuring_loader,
    measuring_task,
)
from ..system import Memo, nbytes, part
from ..tasks import Task, load

FOLLOWED = 200  # examples a task that iterates are tested on: validation ones, of a task
LOADER = "loader"  # as a split: whatever a loader gives
HELD = 256 * 2**20  # bytes of a loader's batches that are held
TESTED = 0.4  # of a merge of models in memory, the last of it


@dataclass(frozen=True)
class Request:
    """What the knobs of a panel say.

    method    its name
    options   (name, value) of each option
    experts   names of those that are merged
    weights   (name, α) of each of them
    device    `auto`, `cpu`, `cuda` or `mps`
    rounds    how often statistics are measured
    layer     whose spectra are looked at; "" for none
    seed      of what is random
    dtype     of the arithmetic
    after     steps after the merge, and
    by        rules by layer, as in a recipe
    """

    method: str
    options: tuple[tuple[str, Any], ...]
    experts: tuple[str, ...]
    weights: tuple[tuple[str, float], ...] = ()
    device: str = "auto"
    rounds: int = 1
    layer: str = ""
    seed: int = 0
    dtype: str = "float32"
    after: tuple[Any, ...] = ()
    by: tuple[Any, ...] = ()

    @property
    def merge(self) -> Request:
        """What decides the merge: the same without what is only looked at."""
        return replace(self, layer="")

    @property
    def average(self) -> Request:
        """The plain average of the same experts with the same weights."""
        return replace(self.merge, method="average", options=(), rounds=1, after=(), by=())


class Subject(Protocol):
    """What a panel explores.

    names      of the experts
    measures   whether there are data to measure statistics on
    tests      whether there are data to test on
    folder     of the family's file; None for models in memory
    """

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def measures(self) -> bool: ...
    @property
    def tests(self) -> bool: ...
    @property
    def folder(self) -> Path | None: ...
    def opening(self) -> Generator[Event, None, None]: ...
    def measuring(self) -> Generator[Event, None, None]: ...
    def recipe(self, request: Request) -> Recipe: ...
    def inputs(self, experts: tuple[str, ...]) -> Inputs: ...
    def merging(self, request: Request) -> Generator[Event, None, Merge]: ...
    def testing(self, merge: Merge) -> Generator[Event, None, Merge]: ...
    def following(self, request: Request, merge: Merge) -> Generator[Event, None, Trajectory]: ...


def chosen(request: Request) -> tuple[str, ...]:
    """The experts of a request; raises `InputError` where there are none."""
    if request.experts:
        return request.experts
    raise InputError(
        "experts", expected="at least one to merge", found="none", remedy="Choose some."
    )


def repeats(explored: Subject, method: str) -> bool:
    """Whether statistics can be measured again where a merge landed: of files, if it reads any."""
    one = METHODS[method]
    return bool(one.reads(one.options())) and explored.folder is not None


class OfFamily:
    """A `FamilyFile`, its checkpoints and its tasks."""

    def __init__(self, family: FamilyFile, settings: MeasureSettings) -> None:
        self.family, self.settings = family, settings
        self.names = tuple(expert.name for expert in family.experts)
        with_tasks = [expert for expert in family.experts if expert.task]
        self.measures = len(with_tasks) == len(family.experts) or any(
            expert.statistics for expert in family.experts
        )
        self.tests = bool(with_tasks)
        self.folder: Path | None = family.folder
        self._files: dict[str, Path] = {}
        self._opened: dict[tuple[str, ...], Inputs] = {}

    def opening(self) -> Generator[Event, None, None]:
        yield Event(text="Checking that the experts fit their base")
        self.inputs(self.names)

    def measuring(self) -> Generator[Event, None, None]:
        if self.family.members():
            self._files = yield from measuring_all(self.family, self.settings, with_base=False)
        for experts, inputs in list(self._opened.items()):
            self._opened[experts] = with_statistics(inputs, self._plain(experts))

    def _plain(self, experts: tuple[str, ...]) -> Recipe:
        return self.family.recipe("average", statistics=self._files, experts=experts)

    def recipe(self, request: Request) -> Recipe:
        return self.family.recipe(
            request.method, dict(request.options), statistics=self._files,
            experts=chosen(request), weights=dict(request.weights), device=request.device,
            rounds=request.rounds, seed=request.seed, dtype=request.dtype, after=request.after,
            by=request.by,
        )  # fmt: skip

    def inputs(self, experts: tuple[str, ...]) -> Inputs:
        if experts not in self._opened:
            self._opened[experts] = open_inputs(self._plain(experts), Memo.of_process())
        return self._opened[experts]

    def merging(self, request: Request) -> Generator[Event, None, Merge]:
        recipe = self.recipe(request)
        quick = recipe.model_copy(
            update={"evaluate": TRIED.model_copy(update={"precision": QUICK})}
        )
        plan = planned(quick, self.inputs(request.experts))
        judge(plan)
        return Merge.of((yield from run_plan(plan)), recipe)

    def testing(self, merge: Merge) -> Generator[Event, None, Merge]:
        report = merge.report
        if not report.left:
            return merge
        family, folder = merge.inputs.family, merge.recipe.folder
        results = yield from going_on(
            family, folder, merge.tensors, report.tasks, TRIED.split, device=report.device
        )
        return replace(merge, report=replace(merge.report, tasks=results))

    def following(self, request: Request, merge: Merge) -> Generator[Event, None, Trajectory]:
        inputs = self.inputs(request.experts)
        return convergence.follow(merge.recipe, inputs=inputs, examples=FOLLOWED)


class OfModels:
    """Models in memory (or paths), with a loader or a task for each expert that has data."""

    def __init__(
        self,
        base: Source,
        experts: Mapping[Any, Source] | Sequence[Source],
        loaders: Mapping[Any, Any] | None,
        settings: MeasureSettings,
        heads: Sequence[str] | str | None = None,
    ) -> None:
        self.base, self.sources, self.settings = base, named(experts), settings
        self.names = tuple(self.sources)
        self.loaders = by_text("loaders", loaders or {})
        for name in self.loaders:
            member("loader of an expert", name, self.names)
        self.measures = self.tests = bool(self.loaders)
        self.folder: Path | None = None
        self._heads = patterns(heads)
        # What the experts are called is judged here, not in the worker.
        recipe_of(base, self.sources, "average", {}, weights=dict.fromkeys(self.names, 1.0))
        self._weights: dict[str, Any] = {}
        self._statistics: dict[str, Statistics] = {}
        self._opened: dict[tuple[str, ...], Inputs] = {}
        self._references: dict[tuple[str, int | None], list[Score]] = {}
        self._batches: dict[str, Any] = {}

    def opening(self) -> Generator[Event, None, None]:
        yield Event(text="Opening the models")
        base = open_source(self.base, "base")
        self._weights = {name: open_source(one, name, base) for name, one in self.sources.items()}
        self._weights[""] = base
        self.inputs(self.names)

    def measuring(self) -> Generator[Event, None, None]:
        for index, (name, data) in enumerate(self.loaders.items()):
            start, stop = index / len(self.loaders), (index + 1) / len(self.loaders)
            said = f"Measuring statistics of {name} ({index + 1} of {len(self.loaders)}), once"
            yield Event(fraction=start, text=said)
            self._statistics[name] = yield from part(self._steps(name, data), start, stop, said)
        self._opened = {}

    def _steps(self, name: str, data: Any) -> Any:
        if isinstance(data, Task | str):
            task = load(data) if isinstance(data, str) else data
            return measuring_task(self._weights[name], task, self.settings)
        model: Any = self.sources[name]
        return measuring_loader(model, data, self.settings)

    def recipe(self, request: Request) -> Recipe:
        sources = {name: self.sources[name] for name in chosen(request)}
        weights = dict.fromkeys(sources, 1.0) | dict(request.weights)
        return recipe_of(
            self.base, sources, request.method, dict(request.options), weights=weights,
            device=request.device, heads=self._heads, seed=request.seed, dtype=request.dtype,
            after=request.after, by=request.by,
        )  # fmt: skip

    def inputs(self, experts: tuple[str, ...]) -> Inputs:
        if experts not in self._opened:
            opened = {name: self._weights[name] for name in experts}
            measured = {n: s for n, s in self._statistics.items() if n in opened}
            self._opened[experts] = inputs_of(
                self._weights[""], opened, measured, None, self._heads
            )
        return self._opened[experts]

    def merging(self, request: Request) -> Generator[Event, None, Merge]:
        recipe = self.recipe(request)
        plan = planned(recipe, self.inputs(request.experts))
        judge(plan)
        share = 1 - TESTED if self.tests else 1.0
        merge = Merge.of((yield from part(run_plan(plan), stop=share)), recipe)
        results = yield from part(self._results(merge), start=share)
        report = replace(merge.report, tasks=results, split=self._split(TRIED.split))
        return replace(merge, report=report)

    def testing(self, merge: Merge) -> Generator[Event, None, Merge]:
        yield from ()
        return merge

    def following(self, request: Request, merge: Merge) -> Generator[Event, None, Trajectory]:
        def take(encoder: Mapping[str, Tensor]) -> Generator[Event, None, tuple[TaskResult, ...]]:
            iterate = replace(merge, tensors={**merge.tensors, **encoder})
            return self._results(iterate, FOLLOWED)

        asking = convergence.Asking(take, self._split(TRIED.split))
        return convergence.follow(
            merge.recipe, inputs=merge.inputs, examples=FOLLOWED, asking=asking
        )

    def _split(self, of_tasks: str) -> str:
        """What is asked, in a word: what a loader gives, or a split of a task."""
        kinds = {isinstance(data, Task | str) for data in self.loaders.values()}
        return " and ".join(([LOADER] if False in kinds else []) + [of_tasks] * (True in kinds))

    def _results(
        self, merge: Merge, examples: int | None = None
    ) -> Generator[Event, None, tuple[TaskResult, ...]]:
        """What a merge reaches with each expert's head on its data; `examples`: at most so many."""
        found = []
        asked = [e for e in merge.inputs.family.experts if e.name in self.loaders]
        for index, expert in enumerate(asked):
            name = expert.name
            yield Event(fraction=index / len(asked), text=f"Testing on {name}")
            score = self._score(merge, name, examples)
            if (name, examples) not in self._references:
                held = [expert.checkpoint, merge.inputs.family.base]
                self._references[name, examples] = [
                    self._of(merge, one, name, examples) for one in held
                ]
            found.append(TaskResult(name, score, *self._references[name, examples]))
        return tuple(found)

    def _of(self, merge: Merge, weights: Any, name: str, examples: int | None) -> Score:
        """The score of an expert, or of the base, asked as the merge is."""
        tensors = {one: weights.read(one) for one in merge.tensors if one in weights.tensors}
        return self._score(replace(merge, tensors={**merge.tensors, **tensors}), name, examples)

    def _score(self, merge: Merge, name: str, examples: int | None) -> Score:
        data = self.loaders[name]
        if not isinstance(data, Task | str):
            if name not in self._batches:
                self._batches[name] = held(data)
            data = self._batches[name]
        how = {"split": TRIED.split, "examples": examples, "progress": False}
        return evaluate(merge, data, expert=name, **how)


def held(loader: Iterable[Any]) -> Iterable[Any]:
    """The batches of a loader, to be asked again in this order: one that shuffles would ask each
    merge in another.  Of more than `HELD` bytes it is the loader itself."""
    batches, size = [], 0
    for batch in loader:
        batches.append(batch)
        size += nbytes(batch)
        if size > HELD:
            return loader
    return batches


def subject(
    family: Any,
    experts: Any = None,
    *,
    loaders: Mapping[Any, Any] | None = None,
    heads: Sequence[str] | str | None = None,
    examples: int | None = None,
) -> Subject:
    """What is explored: a family (a `FamilyFile`, its file or its folder), or a base with experts.

    Raises `InputError` for what is neither, and for loaders of a family, which has tasks.
    """
    settings = MeasureSettings() if examples is None else MeasureSettings(examples=examples)
    if experts is not None:
        return OfModels(family, experts, loaders, settings, heads)
    if loaders is not None or not isinstance(family, FamilyFile | str | Path):
        raise InputError(
            "what to explore",
            expected="a family (a FamilyFile, or its folder), or a base and its experts",
            found="loaders without experts" if loaders is not None else type(family).__name__,
            remedy="Call explore(base, experts, loaders=…) with models.",
        )
    return OfFamily(family if isinstance(family, FamilyFile) else load_family(family), settings)
