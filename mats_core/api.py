"""The library's front door: what `import mats_core` hands out beyond its records.

A merge is opened once, judged here, and then run (`merging.run_plan`): the page, the command line
and Python come in by the same way.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from .checkpoints import SHARD_BYTES, partial_of, refuse_existing
from .errors import InputError
from .estimating import Estimate, estimate_plan, require
from .merging import (
    Event,
    Finished,
    Inputs,
    Plan,
    Recipe,
    Report,
    layers_done,
    planned,
    run_plan,
)
from .system import UNMEASURED, Rates, drain


def run(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    check_fit: bool = True,
    inputs: Inputs | None = None,
    keep: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
) -> Generator[Event, None, Finished]:
    """Events of a merge, the last of which is `Finished`; ending the iteration cancels the merge.

    `force`: replace an output that exists, or one that an unfinished merge has begun.  `resume`: go
    on with an unfinished one.  `check_fit`: refuse what finds neither memory nor disk, from the
    files' headers alone.  `inputs`: files that are open already, which are not judged again.
    `keep`: CG iterations whose iterates the `LayerDone` events carry.  Raises `InputError` before
    any work for bad input.
    """
    refuse(recipe, force=force, resume=resume)
    plan = planned(recipe, inputs, keep)
    if check_fit and inputs is None:
        judge(plan)
    return (yield from run_plan(plan, force=force, resume=resume, shard_bytes=shard_bytes))


def merge(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    check_fit: bool = True,
    inputs: Inputs | None = None,
) -> Report:
    """The report of a recipe that was run to its end; the arguments are those of `run`."""
    events = run(recipe, force=force, resume=resume, check_fit=check_fit, inputs=inputs)
    return drain(events).report


# Judging ------------------------------------------------------------------------------------------


def refuse(recipe: Recipe, *, force: bool = False, resume: bool = False) -> None:
    """Raise `InputError` where an output exists, or an unfinished merge lies beside it.

    No hours of work are thrown away without being asked for.
    """
    if recipe.output is None:
        return
    target = recipe.path(recipe.output)
    refuse_existing(target, force)
    done = 0 if resume or force else layers_done(partial_of(target))
    if done:
        raise InputError(
            f"output '{target}'",
            expected="no unfinished merge beside it",
            found=f"one that has done {done} layers",
            remedy="Pass --resume to go on with it, or --force to start again.",
        )


def judge(
    plan: Plan, *, examples: Mapping[str, int] | None = None, speeds: Rates | None = UNMEASURED
) -> Estimate:
    """The estimate of a merge that finds memory and disk; raises `InputError` for another one.

    `examples`: how many there are to test on, by expert.  `speeds`: None for those of this machine,
    where seconds are asked for.
    """
    found = estimate_plan(plan, examples=examples, speeds=speeds)
    require(found)
    return found
