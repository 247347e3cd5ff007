"""What several commands share: the base of an adapter, the recipe that is written, lines beside a
bar, the table of tasks."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ADAPTERS_BASE = "the base of a PEFT adapter: its directory, or a hub id"


def base_of(arguments: argparse.Namespace) -> Path | None:
    """The base of an adapter, where one was named."""
    from ..checkpoints import hub

    return hub.locate(arguments.base) if arguments.base else None


def require_recipe_file(
    arguments: argparse.Namespace, recipe: Any = None, *, replace: bool
) -> None:
    """Raise `InputError` where --output, a recipe's file, cannot be written without a loss: over
    what is read, as far as the `recipe` is known, or over what is no recipe."""
    from ..checkpoints import require_file
    from ..errors import InputError
    from ..merging import reads_of
    from ..recipes import load_recipe

    target = arguments.output
    if target is None:
        return
    try:
        ours = load_recipe(target) is not None
    except InputError:
        ours = False
    reads = [("the recipe", arguments.recipe), *(reads_of(recipe) if recipe else ())]
    require_file(target, reads, force=replace, kind="recipe", ours=ours)


def write_recipe(target: Path | None, recipe: Any, told: str) -> None:
    """Write a recipe with the places of its files, and say so; print it where no file is named."""
    from ..checkpoints import write_atomically
    from ..recipes import dump_recipe

    text = dump_recipe(recipe, absolute=True)
    if target is None:
        print(f"\n{text}", end="")
        return
    write_atomically(target.resolve(), text.encode())
    print(f"{told} to {target}")


def note(text: str) -> None:
    """Print a line on the standard error, above the bar where there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stderr)


def line(text: str) -> None:
    """Print a line of the result, above the bar where there is one."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """A context that prints the library's warnings as lines `note: …` when it ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for text in dict.fromkeys(str(one.message) for one in caught if one.category is UserWarning):
        note(f"note: {text}")


def task_table(results: Sequence[Any]) -> list[str]:
    if not results:
        return []
    rows = [f"{'task':<16} {'merged':>8} {'95 % interval':>15} {'expert':>8} {'pre-trained':>12}"]
    for result in results:
        low, high = result.merged.interval
        rows.append(
            f"{result.name:<16} {100 * result.merged.value:>7.1f}% "
            f"{100 * low:>6.1f} – {100 * high:<6.1f} {100 * result.finetuned.value:>7.1f}% "
            f"{100 * result.pretrained.value:>11.1f}%"
            + (f"  {result.merged.metric}" if result.merged.metric != "accuracy" else "")
        )
    return rows
