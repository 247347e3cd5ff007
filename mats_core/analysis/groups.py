"""Which experts are merged with one another to see what each does to each other one.

pairs         the merge of tasks t and s, against the expert t alone
leave one out the merge of all tasks, against the merge of all but s
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import Literal

import numpy as np

from ..errors import InputError
from ..recipes import Recipe

Way = Literal["pairs", "leave one out"]
WAYS: dict[Way, str] = {
    "pairs": "two tasks merged, against the expert alone",
    "leave one out": "all tasks merged, against all but one",
}
Group = tuple[str, ...]


def named(recipe: Recipe, way: Way) -> Group:
    """The names of a recipe's experts with tasks; `InputError` for fewer than a way needs: two, or
    three to leave one out."""
    names = tuple(entry.name for entry in recipe.experts if entry.task)
    least = 2 if way == "pairs" else 3
    if len(names) < least:
        raise InputError(
            "conflicts", expected=f"at least {least} experts with tasks", found=str(len(names))
        )
    return names


def groups(names: Group, way: Way) -> list[Group]:
    """The experts of every merge that a way takes."""
    if way == "pairs":
        return list(combinations(names, 2))
    return [names, *(without(names, left) for left in names)]


def merges(tasks: int, way: Way) -> int:
    """The number of merges that a way takes."""
    return tasks * (tasks - 1) // 2 if way == "pairs" else tasks + 1


def without(names: Group, left: str) -> Group:
    """All names but one."""
    return tuple(name for name in names if name != left)


def compared(names: Group, way: Way) -> Iterator[tuple[str, str, Group, Group]]:
    """(t, s, experts of the merge with s, experts of the one without) for all ordered pairs; of a
    pair the one without s is the expert t alone."""
    for t in names:
        for s in names:
            if t != s and way == "pairs":
                yield t, s, tuple(name for name in names if name in (t, s)), (t,)
            elif t != s:
                yield t, s, names, without(names, s)


def matrix(names: Sequence[str], value: Callable[[str, str], float]) -> np.ndarray:
    """(T, T) of a value for (t, s), row t by column s; NaN on the diagonal."""
    rows = [[value(t, s) if t != s else np.nan for s in names] for t in names]
    return np.array(rows, dtype=float)


def only(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """A recipe of these experts alone."""
    experts = tuple(entry for entry in recipe.experts if entry.name in names)
    return recipe.model_copy(update={"experts": experts})
