"""What several commands share: the base of an adapter, lines beside a bar, the table of tasks."""

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
