"""The files of a finished run, opened once more, and its tensors made again.

A run on disk is settings, numbers and fingerprints.  Whoever solves it again gets its files from
`opened`, which compares the fingerprints: a family may have got other files since, under the same
names.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor

from mats_core.errors import InputError, listing
from mats_core.merging import Event
from mats_core.merging import run as merge_again
from mats_core.methods import METHODS
from mats_core.recipes import Inputs, Recipe, Report, open_inputs
from mats_core.system import nbytes, part, recall

from .prepare import Prepared
from .runs import Run
from .shelf import Looked, Shelf

LARGE = 1 << 27  # bytes of tensors that are not remembered: they would push out all else


class Made(Protocol):
    """A finished merge: a `Run`, or an outcome that is not kept yet."""

    @property
    def recipe(self) -> Recipe: ...
    @property
    def report(self) -> Report: ...
    @property
    def label(self) -> str: ...


def opened(run: Made, prepared: Prepared) -> tuple[Recipe, Inputs]:
    """The recipe that makes a run again, silently, and its open files.

    The recipe has the options that were applied (after a search, the best ones) and statistics
    where they lie now.  Raises `InputError` where the base, an expert or statistics that the method
    reads are not those of the run any more.
    """
    _expect(run, prepared.inputs.family.fingerprints, wherever=False)
    recipe = run.recipe.model_copy(
        update={
            "evaluate": False,
            "output": None,
            "keep_sums": False,
            "search": None,
            "options": dict(run.report.options),
        }
    )
    recipe = _with_statistics(run, recipe, prepared)
    inputs = of_family(prepared, recipe)
    _expect(run, inputs.family.fingerprints, wherever=True)
    return recipe, inputs


def of_family(prepared: Prepared, recipe: Recipe) -> Inputs:
    """The family's open files where a recipe is over all of them, else its own preflight.

    For a recipe that was just written over this family; that of a finished run goes through
    `opened`.
    """
    names = [expert.name for expert in prepared.inputs.family.experts]
    known = _statistics(prepared)
    same = all(_same(entry.statistics, known.get(entry.name)) for entry in recipe.experts)
    if same and [entry.name for entry in recipe.experts] == names:
        return prepared.inputs
    return open_inputs(recipe)


def _statistics(prepared: Prepared) -> dict[str, str]:
    """The statistics files that the family is prepared with, by name."""
    named = {e.name: e.statistics for e in prepared.collection.experts if e.statistics}
    return named | {name: str(file) for name, file in prepared.files.items()}


def _same(recorded: str | None, file: str | None) -> bool:
    """Whether a run's statistics are those of a file.

    A file of the machine's cache is named by what was measured and on what; the cache itself may
    lie elsewhere by now.
    """
    return recorded is None or (file is not None and Path(recorded).name == Path(file).name)


def _expect(run: Made, now: dict[str, str], *, wherever: bool) -> None:
    """Raise `InputError` for other checkpoints; `wherever`: also for those that are missing."""
    then = run.report.fingerprints
    changed = [
        name for name, print in then.items() if (name in now or wherever) and now.get(name) != print
    ]
    if changed:
        raise _other(run, "checkpoints", changed)


def _other(run: Made, what: str, names: list[str]) -> InputError:
    return InputError(
        f"run {run.label}",
        expected=f"the {what} that it was merged from",
        found=f"others in place of {listing(names)}",
        remedy="The files changed since this run; merge again.",
    )


def _with_statistics(run: Made, recipe: Recipe, prepared: Prepared) -> Recipe:
    """The recipe with every statistics file where it lies now; `InputError` where one is gone."""
    known = _statistics(prepared)
    recorded = {"base": recipe.base_statistics, **{e.name: e.statistics for e in recipe.experts}}
    if METHODS[recipe.method].reads(recipe.parsed_options()):
        other = [name for name, file in recorded.items() if not _same(file, known.get(name))]
        gone = [name for name in other if not recipe.path(str(recorded[name])).is_file()]
        if gone:
            raise _other(run, "statistics", gone)
        known |= {name: str(recorded[name]) for name in other}  # the run's files are still here
    entries = (e.model_copy(update={"statistics": known.get(e.name)}) for e in recipe.experts)
    update = {"experts": tuple(entries), "base_statistics": known.get("base")}
    return recipe.model_copy(update=update)


def looked(
    shelf: Shelf, run: Run, recipe: Recipe, inputs: Inputs
) -> Generator[Event, None, Looked]:
    """The run's tensors from the shelf, or made again; of a routed merge its branches among them,
    by their names beside the weights."""
    known = shelf.get(run)
    if known is not None and known.made is not None:
        return known
    tensors = remembered(run, {})
    if not tensors:
        finished = yield from part(merge_again(recipe, inputs=inputs), said="Once more: {}")
        tensors = remembered(run, {**finished.tensors, **finished.branches})
    return shelf.put(run, tensors)


def remembered(run: Run, made: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The tensors of a run that this process has merged, unless they are large; else `made`, which
    is remembered where it holds any."""
    files = tuple(expert.statistics for expert in run.recipe.experts)

    def room(tensors: Mapping[str, Tensor]) -> int | None:
        size = nbytes(tensors)
        return size if 0 < size <= LARGE else None

    return recall(("tensors of a run", run.id, files), lambda: made, room)


def remade(
    shelf: Shelf, run: Run, prepared: Prepared, start: float = 0.0, *, stop: float
) -> Generator[Event, None, tuple[Recipe, Inputs, Looked]]:
    """Events of a run that is opened and made again, from `start` to `stop` of the whole; returns
    its recipe, its open files, and its tensors."""
    recipe, inputs = opened(run, prepared)
    made = looked(shelf, run, recipe, inputs)
    return recipe, inputs, (yield from part(made, start, stop))
