"""Search beyond a grid: knobs of a recipe turned by Optuna, judged on validation data.

A trial is a merge like any other.  What it gave is written to a journal before the next one begins,
and the sampler of a trial knows the seed, its number and the trials before it, and nothing else: a
search that was stopped goes on as if it had not been.  Trial 1 is the recipe as it is, so that the
best is never worse than that on the examples by which it is chosen.

Sampler: multivariate tree-structured Parzen estimators (TPE; Bergstra et al., NeurIPS 2011), of
several objectives MOTPE (Ozaki et al., GECCO 2020).  Importance: fANOVA (Hutter et al., ICML 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError, listing, member
from ..merging import Event, reads_of
from ..methods import METHODS
from ..recipes import (
    FamilyFile,
    Inputs,
    Recipe,
    as_tuned,
    dump_recipe,
    load_family,
    load_recipe,
    measure_all,
    open_inputs,
    prepare,
)
from ..system import Memo, watched
from .attempt import quietly
from .search_ray import connecting
from .search_ray import require as require_cluster
from .search_space import Knob, Space, as_it_is, knobs_of, with_values
from .search_study import Study
from .search_trials import OBJECTIVES, Here, Objective, SearchTrial, known_trials, trying
from .sweep import EXAMPLES

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
TRIALS = 40
FAMILY = "family.yaml"


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    start        the recipe that it began with
    knobs        what it turned
    objectives   what it looked for, the first one first
    trials       all merges, in their order
    importance   name of a knob that all trials turned → its share of what decides on the first
                 objective; empty where the trials are too few or alike
    examples     validation examples of each task that were asked at most; None: all
    ended        why it ended: `trials`, `minutes`, or `points` (all were tried)
    """

    start: Recipe
    knobs: tuple[Knob, ...]
    objectives: tuple[Objective, ...]
    trials: tuple[SearchTrial, ...]
    importance: Mapping[str, float] = field(default_factory=dict)
    examples: int | None = None
    ended: str = ""

    @property
    def front(self) -> tuple[SearchTrial, ...]:
        """The trials that no other one beats in one objective without losing in another, the best
        by the first objective first."""
        return pareto(self.trials, self.objectives)

    @property
    def best(self) -> SearchTrial:
        """The best by the first objective, and of equals by the next ones."""
        return self.front[0]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the best trial, which says how it was chosen."""
        return self.recipe_of(self.best)

    def recipe_of(self, trial: SearchTrial) -> Recipe:
        """The recipe of a trial, which says how it was chosen."""
        made = sum(not one.again for one in self.trials)
        chosen = with_values(self.start, self.knobs, trial.values)
        return as_tuned(chosen, trials=made, examples=self.examples, objectives=self.objectives)


def searching(
    recipe: Recipe,
    space: Space | None = None,
    *,
    objectives: Sequence[Objective] = ("mean",),
    trials: int | None = None,
    minutes: float | None = None,
    examples: int | None = EXAMPLES,
    seed: int = 0,
    journal: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    inputs: Inputs | None = None,
    engine: Engine = "local",
    at_once: int | None = None,
) -> Generator[Event, None, Searched]:
    """Events of a search, the merges' and a `SearchTrialDone` after each, those of the journal
    first; returns what it came to.

    space        what is turned; the method's options by default
    objectives   what is looked for: with several the result has a front
    trials       merges at most, those before a resumption included; 40 where nothing is said
    minutes      after which no trial begins; nor does one that is likely to end later
    examples     validation examples of each task that are asked
    seed         of what is drawn
    journal      a file that holds every trial when it is done
    resume       go on with the journal's search
    force        begin anew where the journal has a search
    inputs       files that are open already
    engine       one merge after the other in this process, or trials side by side on a Ray cluster
    at_once      trials that are under way together: each is drawn as those before it are known that
                 ended so many before.  By default 1, on Ray as many as the cluster can merge; of a
                 journal what it was begun with

    Raises `InputError` before any work for what cannot be searched or budgeted, for experts without
    tasks, for a journal that is there already or is of another search, and at the end where no
    trial could be merged.
    """
    space = space or Space()
    wanted = _objectives(objectives)
    most = _budget(trials, minutes)
    member("engine", engine, ENGINES)
    if at_once is not None and at_once < 1:
        raise InputError("trials at once", expected="at least 1", found=str(at_once))
    inputs = inputs or open_inputs(recipe, Memo.of_process())
    if not any(expert.can_be_asked for expert in inputs.family.experts):
        raise InputError("search", expected="experts with tasks, for validation data", found="none")
    knobs = knobs_of(recipe, inputs, space)
    plain = quietly(recipe, examples)
    plan = prepare(plain, inputs)
    if engine == "ray":
        require_cluster(plan)
    about = {
        "recipe": _digest(recipe), "files": dict(inputs.family.fingerprints),
        "knobs": {knob.name: list(knob.values) for knob in knobs},
        "objectives": list(wanted), "examples": examples, "seed": seed,
    }  # fmt: skip
    first = as_it_is(recipe, knobs)
    downwards = [objective == "size" for objective in wanted]
    with ExitStack() as stack:
        merging, most_at_once = Here(inputs), 1
        if engine == "ray":
            merging, most_at_once = yield from connecting(plan)
        stack.callback(merging.close)
        study = Study.open(
            knobs, downwards, about, first, journal,
            resume=resume, force=force, reads=reads_of(recipe), at_once=at_once,
            otherwise=most_at_once,
        )  # fmt: skip
        ended = yield from trying(study, plain, knobs, wanted, most, minutes, merging)
    done = known_trials(study)
    found = Searched(recipe, knobs, wanted, done, study.importance(), examples, ended)
    if not found.front:
        why = next((trial.reason for trial in done), "the budget allowed none")
        raise InputError("search", expected="a trial that can be merged", found=f"none: {why}")
    return found


def search(
    what: Recipe | FamilyFile | str | Path,
    method: str | None = None,
    space: Space | None = None,
    *,
    progress: bool | None = None,
    **settings: Any,
) -> Searched:
    """What a search came to: `.recipe` is the best one, `.trials` are all.

    what       a recipe, its file, or a family, of which `method` is searched; its statistics are
               measured where the method reads some
    method     in the place of the recipe's, with its default options
    space      what is turned; the method's options by default
    settings   objectives, trials, minutes, examples, seed, journal, resume, force, inputs, engine,
               at_once (`searching`)
    progress   whether a bar is shown; by default in notebooks and terminals
    """
    return watched(searching(recipe_of(what, method), space, **settings), progress)


def recipe_of(what: Recipe | FamilyFile | str | Path, method: str | None = None) -> Recipe:
    """The recipe that is searched: a given one, a file's, or one of a method over a family."""
    if isinstance(what, str | Path):
        path = Path(what)
        family = path.name == FAMILY or path.is_dir()
        what = load_family(path) if family else load_recipe(path)
    if isinstance(what, FamilyFile):
        if method is None:
            raise InputError("search over a family", expected="a method", found="none")
        bare = what.recipe(method)
        files = measure_all(what, progress=False) if _reads(bare) else None
        return what.recipe(method, statistics=files)
    if method is not None and method != what.method:
        return what.model_copy(update={"method": method, "options": {}})
    return what


def pareto(
    trials: Sequence[SearchTrial], objectives: Sequence[Objective]
) -> tuple[SearchTrial, ...]:
    """The trials that no other one beats in one objective without losing in another: each point
    once, by its first trial, sorted from the best by the first objective."""
    good = [trial for trial in trials if trial.accuracy is not None]
    marks = {trial.number: _marks(trial, objectives) for trial in good}
    front: dict[tuple[float, ...], SearchTrial] = {}
    for trial in good:
        mine = marks[trial.number]
        beaten = any(
            other != mine and all(o >= m for o, m in zip(other, mine, strict=True))
            for other in marks.values()
        )
        if not beaten:
            front.setdefault(mine, trial)
    return tuple(front[mark] for mark in sorted(front, reverse=True))


def _marks(trial: SearchTrial, objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Its objectives, each the better the higher."""
    values = [(objective, trial.value(objective)) for objective in objectives]
    return tuple((-1 if o == "size" else 1) * (0.0 if v is None else v) for o, v in values)


# What is asked ------------------------------------------------------------------------------------


def _objectives(wanted: Sequence[Objective]) -> tuple[Objective, ...]:
    for one in wanted:
        member("objective of a search", one, OBJECTIVES)
    found = tuple(dict.fromkeys(wanted))
    if not found or found == ("size",):
        raise InputError(
            "objectives of a search",
            expected="'mean' or 'worst', besides which 'size' may stand",
            found=listing(found) or "none",
        )
    return found


def _budget(trials: int | None, minutes: float | None) -> int | None:
    """Trials at most; None where only the minutes count."""
    if trials is not None and trials < 1:
        raise InputError("trials of a search", expected="at least 1", found=str(trials))
    if minutes is not None and not minutes > 0:
        raise InputError("minutes of a search", expected="more than 0", found=f"{minutes:g}")
    return TRIALS if trials is None and minutes is None else trials


def _digest(recipe: Recipe) -> str:
    """Of all that the recipe says of the merge, wherever it is written and tested."""
    still = {"output": None, "evaluate": False, "search": None, "tuned": None}
    text = dump_recipe(recipe.model_copy(update=still), absolute=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _reads(recipe: Recipe) -> bool:
    method, options = METHODS[recipe.method], recipe.parsed_options()
    return bool(method.reads(options) or method.requires(options))
