"""What several commands share: the base of an adapter, and the table of tasks."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..system import Event

ADAPTERS_BASE = "the base of a PEFT adapter: its directory, or a hub id"


def base_of(arguments: argparse.Namespace) -> Path | None:
    """The base of an adapter, where one was named."""
    from ..checkpoints import hub

    return hub.locate(arguments.base) if arguments.base else None


PERCENT = 100


class _Bar:
    """A bar on a terminal that follows a job's events, and lines above it."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar

    def __call__(self, event: Event) -> None:
        self.bar.set_description_str(event.text, refresh=False)
        self.bar.update(PERCENT * event.fraction - self.bar.n)

    def line(self, text: str) -> None:
        self.bar.write(text, file=sys.stderr)


@contextlib.contextmanager
def progress_bar() -> Iterator[_Bar]:
    """What shows the events of a job (`drain`) while the block lasts; nothing in a file or pipe."""
    from tqdm import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=PERCENT, bar_format=form, disable=None, leave=False) as bar:
        yield _Bar(bar)


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
