"""`search`: options, weights and steps of a recipe, searched on validation data by Optuna."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ..system import uncollected
from .shared import noted, require_recipe_file, write_recipe

JOURNAL = ".journal"  # beside the recipe that is written


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "search",
        help="search options, weights and steps of a merge on validation data",
        description="Merges again and again with other settings, which Optuna draws, and tests "
        "each on validation data. What comes out is a recipe for `merge`. Every trial is kept in "
        "a journal beside it, from which a search that was stopped goes on.",
    )
    command.add_argument("recipe", type=Path, help="YAML file, or the folder of a family")
    command.add_argument(
        "--method", help="that is searched: of a family, or in place of a recipe's"
    )
    command.add_argument("--output", type=Path, help="YAML file to write, instead of printing it")
    command.add_argument(
        "--options", metavar="NAME,…",
        help="of the method (default: those on the page at first sight; none: '')",
    )  # fmt: skip
    command.add_argument("--weights", action="store_true", help="search the experts' weights")
    command.add_argument(
        "--depths", type=int, default=0, metavar="N",
        help="search a factor for each of N parts of the depth",
    )  # fmt: skip
    command.add_argument("--after", default="", metavar="STEP,…", help="search steps after it")
    command.add_argument(
        "--rank", action="store_true", help="search the rank of `routed` or `lora`"
    )
    command.add_argument(
        "--values", action="append", default=[], metavar="KNOB=[…]",
        help="values to choose from, such as damping=[0.01,0.1,1]; may be repeated",
    )  # fmt: skip
    command.add_argument(
        "--objectives", default="mean", metavar="NAME,…", help="of mean, worst, size"
    )
    command.add_argument("--trials", type=int, metavar="N", help="merges at most (default: 40)")
    command.add_argument("--minutes", type=float, metavar="M", help="after which none begins")
    command.add_argument("--examples", type=int, metavar="N", help="of each task (default: 150)")
    command.add_argument("--seed", type=int, default=0, help="of what is drawn")
    command.add_argument(
        "--engine", choices=("local", "ray"), default="local",
        help="trials one after the other in this process (default), or side by side on Ray",
    )  # fmt: skip
    command.add_argument(
        "--at-once", type=int, metavar="N",
        help="trials under way together (default: 1; on Ray, as many as it can merge)",
    )  # fmt: skip
    command.add_argument("--pick", type=int, metavar="TRIAL", help="write this trial's recipe")
    command.add_argument("--resume", action="store_true", help="go on with the journal's search")
    command.add_argument("--force", action="store_true", help="replace recipe and journal")
    command.set_defaults(run=_search)


def _search(arguments: argparse.Namespace) -> None:
    with uncollected():
        from ..analysis import EXAMPLES, SearchTrialDone, Space, recipe_of, searching
    from ..errors import InputError
    from ..statistics import ClusterReady
    from ..system import bar, drain

    replace = arguments.force or arguments.resume  # a search that goes on writes it again
    journal = _journal(arguments)
    require_recipe_file(arguments, replace=replace)  # before statistics are measured
    space = Space(
        options=None if arguments.options is None else _names(arguments.options),
        weights=arguments.weights, depths=arguments.depths, after=_names(arguments.after),
        rank=arguments.rank, values=dict(map(_values, arguments.values)),
    )  # fmt: skip
    objectives: Any = _names(arguments.objectives)
    with noted(), bar() as show:
        recipe = recipe_of(arguments.recipe, arguments.method)
        require_recipe_file(arguments, recipe, replace=replace)
        events = searching(
            recipe, space, objectives=objectives, trials=arguments.trials,
            minutes=arguments.minutes, examples=arguments.examples or EXAMPLES,
            seed=arguments.seed, journal=journal, resume=arguments.resume, force=arguments.force,
            engine=arguments.engine, at_once=arguments.at_once,
        )  # fmt: skip
        begun, start = time.perf_counter(), 0.0
        before = set[int]()

        def see(event: Any) -> None:
            nonlocal start
            if show is not None:
                show(event)
            if isinstance(event, ClusterReady):
                start = event.seconds
            if isinstance(event, SearchTrialDone) and event.before:
                before.add(event.trial.number)

        found = drain(events, see)
    if arguments.engine == "ray":
        took = time.perf_counter() - begun
        mine = [one for one in found.trials if one.number not in before and not one.again]
        work = sum(one.seconds for one in mine)
        print(f"{took:.1f} s, {start:.1f} s of them until the cluster was there; "
              f"{work:.1f} s of work in its workers")  # fmt: skip
    print("\n".join(_table(found)))
    chosen = found.best
    if arguments.pick is not None:
        good = {trial.number: trial for trial in found.trials if trial.accuracy is not None}
        if arguments.pick not in good:
            raise InputError(
                "trial to write", expected="the number of one that was merged",
                found=str(arguments.pick),
            )  # fmt: skip
        chosen = good[arguments.pick]
    told = f"trial {chosen.number} is written"
    write_recipe(arguments.output, found.recipe_of(chosen), told)


def _journal(arguments: argparse.Namespace) -> Path | None:
    """The journal beside the output; none where nothing is written."""
    from ..errors import InputError

    if arguments.output is None:
        if arguments.resume:
            raise InputError(
                "--resume", expected="--output, beside which the journal lies", found="none"
            )
        return None
    journal = arguments.output.with_name(arguments.output.name + JOURNAL)
    if journal.exists() and not arguments.resume and not arguments.force:
        raise InputError(
            f"output '{arguments.output}'", expected="no search that was begun",
            found="its journal",
            remedy="Go on with it by --resume, or begin again by --force.",
        )  # fmt: skip
    return journal


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _values(text: str) -> tuple[str, tuple[Any, ...]]:
    """`damping=[0.01, 0.1]` as a name and its values."""
    from ..errors import InputError, plain_yaml

    name, _, told = text.partition("=")
    try:
        values = plain_yaml(f"--values '{name}'", told)
    except InputError:
        values = None
    if not isinstance(values, list) or not values:
        raise InputError(
            f"--values '{text}'", expected="a knob and a list, such as damping=[0.01,0.1,1]",
            found=f"'{told}'",
        )  # fmt: skip
    return name.strip(), tuple(values)


def _table(found: Any) -> list[str]:
    """The front, and what the knobs decide."""
    from ..analysis import OBJECTIVES

    failed = [trial for trial in found.trials if trial.accuracy is None]
    merged = len(found.trials) - len(failed)
    several = len(found.objectives) > 1
    rows = [
        f"{merged} trials" + (f", {len(failed)} more failed: {failed[0].reason}" if failed else "")
    ]
    rows.append("those that none beats in every objective:" if several else "the best:")
    for trial in found.front if several else found.front[:1]:
        marks = [f"{OBJECTIVES[one]} {_mark(one, trial)}" for one in found.objectives]
        values = ", ".join(f"{name} {value}" for name, value in trial.values.items())
        rows.append(f"  trial {trial.number}: {'; '.join(marks)}; {values}")
    if found.importance:
        shares = ", ".join(
            f"{name} {100 * share:.0f} %" for name, share in found.importance.items()
        )
        rows.append(f"what decides: {shares}")
    return rows


def _mark(objective: str, trial: Any) -> str:
    value = trial.value(objective)
    if objective == "size":
        return f"{value:.2f} ×"
    if objective == "mean":
        return f"{100 * value:.1f} % ({100 * trial.low:.1f} – {100 * trial.high:.1f})"
    return f"{100 * value:.1f} % ({trial.task})"
