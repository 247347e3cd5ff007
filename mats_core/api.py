"""The library's front door: what `import mats_core` hands out beyond its records.

A merge is opened and judged here, and then run (`merging.run`): the page, the command line and
Python come in by the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .checkpoints import SHARD_BYTES, refuse_existing
from .estimating import estimate, require
from .merging import Event, Finished, Inputs, Recipe, Report, open_inputs
from .merging import run as _run
from .system import UNMEASURED


def run(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    check_fit: bool = True,
    inputs: Inputs | None = None,
    keep: Sequence[int] = (),
    shard_bytes: int = SHARD_BYTES,
) -> Iterator[Event]:
    """Events of a merge, the last of which is `Finished`; ending the iteration cancels the merge.

    `check_fit`: refuse what finds neither memory nor disk, from the files' headers alone; files
    that were opened before (`inputs`) are not judged again.  The other arguments are those of
    `merging.run`.  Raises `InputError` before any work for bad input.
    """
    if check_fit and inputs is None:
        if recipe.output:
            refuse_existing(recipe.path(recipe.output), force)
        require(estimate(open_inputs(recipe, contents=False), recipe, speeds=UNMEASURED))
    yield from _run(
        recipe,
        force=force,
        resume=resume,
        inputs=inputs,
        keep=keep,
        shard_bytes=shard_bytes,
    )


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
    for event in events:
        if isinstance(event, Finished):
            return event.report
    raise RuntimeError("the merge ended without a report")
