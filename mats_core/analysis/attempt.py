"""One merge of many that are tried: its report, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Generator

from ..errors import InputError
from ..merging import Event, run
from ..recipes import TRIED, Finished, Inputs, Recipe, Report
from ..system import changed

# What a merge takes, in any unit: how far a job of many merges is goes by it.
MergeCost = Callable[[Recipe], float]


def alike(recipe: Recipe) -> float:
    """The cost of a merge where nothing is known of it: that of any other."""
    return 1.0


def quietly(recipe: Recipe, examples: int | None) -> Recipe:
    """The recipe of a merge that is only tried: nothing is written, and test examples are not
    asked."""
    still = TRIED.model_copy(update={"examples": examples})
    update = {"output": None, "keep_sums": False, "search": None, "evaluate": still}
    return recipe.model_copy(update=update)


def attempt(recipe: Recipe, inputs: Inputs) -> Generator[Event, None, tuple[Report | None, str]]:
    """The events of one merge; returns its report, or None and a sentence on why it failed."""
    try:
        merge = run(recipe, inputs=inputs)
        finished = yield from changed(merge, lambda e: None if isinstance(e, Finished) else e)
        return finished.report, ""
    except InputError as error:
        return None, str(error)
    except (ArithmeticError, RuntimeError) as error:  # torch's own numerical errors are the latter
        lines = str(error).strip().splitlines() or ["no reason given"]
        return None, f"{type(error).__name__}: {lines[0]}"
