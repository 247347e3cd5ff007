"""A progress bar where it is read: HTML in a notebook, tqdm in a terminal, else nothing.

`watched(job)` runs any long job under it: what is done now, how far it is, and the time left.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Generator, Iterator
from html import escape
from typing import Any, TypeVar

from ..errors import duration
from .stream import Event, drain

R = TypeVar("R")
EVERY = 0.1  # seconds between two updates in a notebook
SOON = 0.3  # seconds after which a notebook's bar appears: work that is done by then needs none
SURE = 0.02  # of the work has to be done before the rest of it is told in seconds
Tell = Callable[[Event], None]  # called with each event of a stream


def bar(wanted: bool | None = None) -> contextlib.AbstractContextManager[Tell | None]:
    """A context with the function to call with each event (`drain`'s `on_event`), or None: no bar.

    `wanted`: False for silence, True for a bar even where the output is no terminal; by default
    one in notebooks and terminals.
    """
    if wanted is not False and in_notebook():
        return _display()
    shown = sys.stderr.isatty() if wanted is None else wanted
    return _terminal() if shown else contextlib.nullcontext()


def watched(events: Generator[Any, Any, R], progress: bool | None = None) -> R:
    """The result of a job, which is run to its end here under a bar.

    `progress`: False for silence, True for a bar even where the output is no terminal; by default
    one in notebooks and terminals.
    """
    with bar(progress) as tell:
        return drain(events, tell)


def in_notebook() -> bool:
    """Whether a kernel runs this; IPython is never imported to find out."""
    ipython: Any = sys.modules.get("IPython")
    return ipython is not None and type(ipython.get_ipython()).__name__ == "ZMQInteractiveShell"


def fraction_of(event: Event, before: float = 0.0) -> float:
    """How much of the work is done, never less than before."""
    return min(1.0, max(before, event.fraction))


def time_left(fraction: float, elapsed: float) -> str:
    """`about 12 s left`, if the rest goes on as what was done; empty where that says too little."""
    if not SURE <= fraction < 1 or elapsed < 1:
        return ""
    return f"about {duration(elapsed * (1 - fraction) / fraction)} left"


@contextlib.contextmanager
def _terminal() -> Iterator[Tell]:
    from tqdm import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
    with tqdm(total=100, leave=False, file=sys.stderr, bar_format=form) as line:

        def tell(event: Event) -> None:
            line.set_description_str(event.text, refresh=False)
            line.update(round(100 * fraction_of(event, line.n / 100)) - line.n)

        yield tell


@contextlib.contextmanager
def _display() -> Iterator[Tell]:
    screen: Any = importlib.import_module("IPython.display")
    handle: Any = None
    start = time.monotonic()
    done, last = 0.0, start + SOON - EVERY

    def show(html: str, text: str) -> None:
        nonlocal handle
        bundle = {"text/html": html, "text/plain": text}  # and no name of a class in a saved file
        if handle is None:
            handle = screen.display(bundle, raw=True, display_id=True)
        else:
            handle.update(bundle, raw=True)

    def tell(event: Event) -> None:
        nonlocal done, last
        done = fraction_of(event, done)
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            text = " · ".join(filter(None, [event.text, time_left(done, last - start)]))
            show(f'<progress value="{done:.3f}"></progress> {escape(text)}', text)

    try:
        yield tell
    finally:
        if handle is not None:
            show("", "")
