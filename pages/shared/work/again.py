"""The files of a finished run, opened once more, and its tensors made again."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.errors import InputError, listing
from mats_core.merging import Event, Inputs, Recipe, open_inputs
from mats_core.merging import run as merge_again
from mats_core.system import part

from .prepare import Prepared
from .runs import Run
from .shelf import Looked, Shelf


def _opened(run: Run, prepared: Prepared) -> tuple[Recipe, Inputs]:
    """The run's recipe, silent, and its files; `InputError` where these changed since."""
    options = dict(run.report.options)  # those that were applied: after a search, the best ones
    quiet = {"evaluate": False, "output": None, "search": None, "options": options}
    recipe = run.recipe.model_copy(update=quiet)
    inputs = inputs_of(prepared, recipe)
    now = {"base": inputs.family.base.fingerprint}
    now |= {expert.name: expert.checkpoint.fingerprint for expert in inputs.family.experts}
    changed = [n for n, own in run.report.fingerprints.items() if now.get(n) != own]
    if changed:
        raise InputError(
            f"run {run.label}",
            expected="the checkpoints that it was merged from",
            found=f"others in place of {listing(changed)}",
            remedy="The files changed since this run; merge again.",
        )
    return recipe, inputs


def _looked(
    shelf: Shelf, run: Run, recipe: Recipe, inputs: Inputs
) -> Generator[Event, None, Looked]:
    """The run's tensors from the shelf, or made again."""
    looked = shelf.get(run)
    if looked is not None:
        return looked
    finished = yield from part(merge_again(recipe, inputs=inputs), said="Merging again: {}")
    return shelf.put(run, finished.tensors)


def opened(prepared: Prepared, recipe: Recipe) -> Inputs:
    """The family's open files where the recipe is over all of them, else its own preflight."""
    names = [expert.name for expert in prepared.inputs.family.experts]
    if [entry.name for entry in recipe.experts] == names:
        return prepared.inputs
    return open_inputs(recipe)


def inputs_of(prepared: Prepared, recipe: Recipe) -> Inputs:
    """The family's open files where the recipe is over all of them, else its own preflight."""
    if len(recipe.experts) == len(prepared.inputs.family.experts):
        return prepared.inputs
    return open_inputs(recipe)
