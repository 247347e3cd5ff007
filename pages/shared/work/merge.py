"""A merge that a person asked for, run in the worker, and the finer test after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from mats_core.api import judge
from mats_core.errors import InputError, listing
from mats_core.estimating import Estimate, estimate
from mats_core.evaluation import going_on
from mats_core.merging import planned, run_plan
from mats_core.methods import METHODS, describe
from mats_core.recipes import (
    TRIED,
    Evaluation,
    FamilyFile,
    Iteration,
    LayerDone,
    Recipe,
    Report,
    RoundDone,
    Shares,
    Tuned,
    parse_options,
    still_tuned,
    taking_part,
)

from .. import policy
from ..policy import Act
from . import again, runs, tested
from .following import told
from .further import STATIC, Further, in_memory
from .jobs import Job, Tell
from .prepare import Prepared
from .several import counts


@dataclass(frozen=True)
class Request:
    """What a person asked for, before the worker knows the statistics' files."""

    collection: FamilyFile
    method: str
    options: dict[str, Any]
    experts: tuple[str, ...]
    weights: tuple[tuple[str, float], ...] = ()
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"
    precision: float | None = None
    rounds: int = 1
    after: tuple[Mapping[str, Mapping[str, Any]], ...] = ()
    by: tuple[Mapping[str, Any], ...] = ()
    draft: bool = False  # whether it was Live that asked
    further: Further = STATIC
    tuned: Tuned | None = None  # of settings that a search chose, as long as they are these

    @property
    def count(self) -> int:
        """How many experts take part, as `Recipe.count`."""
        return taking_part(self.experts, dict(self.weights))

    def recipe(self, files: dict[str, Path] | None = None) -> Recipe:
        """The recipe; raises `InputError` for anything wrong with method and options, and for what
        may not be merged here."""
        policy.current().require_family(self.collection.folder)
        require_no_paths(self.method, self.options, *(rule.get("options", {}) for rule in self.by))
        if not self.experts:
            raise InputError(
                "experts",
                expected="at least one expert to merge",
                found="none",
                remedy="Choose some under 'Experts'.",
            )
        recipe = self.collection.recipe(
            self.method,
            self.options,
            statistics=files,
            experts=self.experts,
            weights=dict(self.weights),
            evaluate=TRIED.model_copy(update={"precision": self.precision}),
            seed=self.seed,
            dtype=self.dtype,
            device=self.device,
            rounds=self.rounds,
            after=self.after,
            by=self.by,
            **self.further.settings,
        )
        noted = recipe.model_copy(update={"tuned": self.tuned})
        return noted if still_tuned(noted) else recipe


@dataclass(frozen=True)
class Outcome:
    """A finished merge and the run that it is kept as; `tensors`, branches among them, wait for the
    examples that were not asked yet."""

    recipe: Recipe
    report: Report
    run: runs.Run
    tensors: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        return METHODS[self.recipe.method].title


@dataclass(frozen=True)
class Residuals:
    """What can be watched while a merge solves: each layer's relative residuals so far."""

    layers: Mapping[str, tuple[float, ...]]
    current: tuple[float, ...] = ()


def lacking(collection: FamilyFile, experts: Sequence[str] | None = None) -> str:
    """Why no statistics can be measured for some of the experts (all by default); empty where they
    can."""
    names = [one.name for one in collection.experts if experts is None or one.name in experts]
    bare = [e.name for e in collection.experts if e.name in names and not e.task]
    if not bare:
        return ""
    whose = f"{listing(bare)} {'names' if len(bare) == 1 else 'name'} no task"
    whose = "no expert names a task" if bare == names else whose
    return (
        f"statistics are measured on each expert's own task, and {whose}: name them on the page "
        "Family, or choose a method of the other groups"
    )


def require_no_paths(method: str, *options: Any) -> None:
    """Raise `InputError` for options that name a checkpoint by its path, where none is opened."""
    if policy.current().permits(Act.TYPED_PATHS) or method not in METHODS:
        return
    known = {field.name: field.checkpoint for field in describe(method) if field.checkpoint}
    for own in options:
        for name in own if isinstance(own, Mapping) else ():
            if name in known and own[name] not in known[name]:
                policy.current().require(Act.TYPED_PATHS)


def require_statistics(request: Request) -> None:
    """Raise `InputError` for a method that needs statistics of experts that name no task."""
    why = lacking(request.collection, request.experts)
    options = parse_options(
        request.method, request.options, request.collection.folder, request.count
    )
    if why and METHODS[request.method].requires(options):
        raise InputError(
            f"method '{request.method}'",
            expected="statistics for every expert",
            found="none for some",
            remedy=f"{why[0].upper()}{why[1:]}.",
        )


def estimated(request: Request, prepared: Prepared) -> Estimate:
    """What a request will cost; raises `InputError` as the merge itself would."""
    recipe = in_memory(request.recipe(prepared.files))
    return estimate(prepared.inputs, recipe, examples=counts(prepared))


def job(request: Request, preparing: Job, name: str = "") -> Job:
    """The job that merges, keeps the run, and is followed by the finer test."""
    preparing = _enough(request, preparing)
    ready = preparing.outcome
    title = f"Merging by {METHODS[request.method].title}"

    def then(outcome: Outcome) -> Job | None:
        if not outcome.run.report.left:
            return None
        todo = partial(refine, request, outcome, ready)
        title, name = "Testing on the remaining examples", finer(outcome.run)
        return Job(request, title, todo, background=True, lasting=True, after=preparing, name=name)

    work = partial(merge, request, ready, carried=True)
    return Job(request, title, work, lasting=True, after=preparing, then=then, name=name)


def _enough(request: Request, preparing: Job) -> Job:
    """The job that a merge waits for: that the family is open is enough for a plain merge by a
    method that reads no statistics."""
    opening = preparing.after
    if opening is None or not preparing.active or request.further != STATIC:
        return preparing
    more = request.rounds > 1 or request.after or request.by
    reads = METHODS[request.method].reads(request.recipe().parsed_options())
    return preparing if more or reads else opening


def finer(run: runs.Run) -> str:
    """The name of the job that tests a run on the examples that are left."""
    return f"{run.id} finer"


def identity(request: Request, prepared: Prepared) -> str:
    """The id of the run that a request will be kept as; `InputError` as in `Request.recipe`."""
    return runs.identity(request.recipe(prepared.files), prepared.inputs.family.fingerprints)


def _kept(request: Request, recipe: Recipe, report: Report) -> runs.Run:
    home = request.collection
    return runs.add(home.name, len(home.experts), recipe, report, draft=request.draft)


def merge(
    request: Request, ready: Callable[[], Prepared], tell: Tell, *, carried: bool = False
) -> Outcome:
    """Run the request's recipe to its end; `ready` is asked when the merge's turn has come.

    carried   whether a quick test may estimate the scores from those of the run before
    """
    prepared = ready()
    recipe = request.recipe(prepared.files)
    plan = planned(in_memory(recipe), again.of_family(prepared, recipe))
    if carried:
        known = tested.before(request.collection.name, request.method, request.experts)
        plan = replace(plan, before=known)
    expected = judge(plan, examples=counts(prepared), speeds=None)
    shares = Shares()
    said = {part: shares.merging * expected.share_of(part) for part in ("refining", "branching")}
    shares = replace(shares, measuring=shares.merging * expected.measuring_share, **said)
    solving = _Solving()
    finished = told(run_plan(plan, shares=shares), tell, solving.see)
    run = _kept(request, recipe, finished.report)
    tested.hold(run, finished.report)
    tensors = again.remembered(run, {**finished.tensors, **finished.branches})
    return Outcome(recipe, finished.report, run, tensors)


class _Solving:
    """The residuals of a merge's layers, and of the solve under way, from its events."""

    def __init__(self) -> None:
        self.layers: dict[str, tuple[float, ...]] = {}
        self.current: list[float] = []

    def see(self, event: Any) -> Residuals | None:
        """What can be drawn after an event, where there is anything."""
        if isinstance(event, Iteration):
            self.current.append(event.residual)
        elif isinstance(event, LayerDone):
            if len(event.layer.residuals) > 1:
                self.layers[event.layer.name] = event.layer.residuals
            self.current = []
        elif isinstance(event, RoundDone):
            self.layers = {}
        else:
            return None
        return Residuals(dict(self.layers), tuple(self.current)) if self else None

    def __bool__(self) -> bool:
        return bool(self.layers or self.current)


def refine(
    request: Request, outcome: Outcome, ready: Callable[[], Prepared], tell: Tell
) -> runs.Run:
    """Ask the examples that the first, quick test left out, and keep the run with them."""
    recipe = outcome.recipe
    _, inputs = again.opened(outcome, ready())
    settings = recipe.evaluate
    assert isinstance(settings, Evaluation)
    asked = settings.split, settings.examples
    known = outcome.report.tasks
    steps = going_on(inputs.family, recipe.folder, outcome.tensors, known, *asked)
    results = told(steps, tell)
    whole = recipe.model_copy(update={"evaluate": settings.model_copy(update={"precision": None})})
    return _kept(request, whole, replace(outcome.report, tasks=results))
