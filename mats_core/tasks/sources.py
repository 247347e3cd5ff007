"""Named sources of tasks: `load("NAME:REST")` asks the source NAME for its task REST.

A source is a function from a name to a `Task`.  It is registered by a call, or advertised by a
package under the entry points `mats_core.tasks`; nothing is imported before it is asked for.  A
checkout that is not installed has no entry points, so the `pyproject.toml` beside the library is
read for them.
"""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from ..errors import member
from .task import Task

Source = Callable[[str], Task]
GROUP = "mats_core.tasks"
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_REGISTERED: dict[str, Source] = {}


def register(name: str, source: Source) -> None:
    """Make `load("NAME:REST")` return `source(REST)`; a later call replaces an earlier one."""
    _REGISTERED[name] = source


def of_source(name: str, rest: str) -> Task:
    """The task `rest` of the source `name`; raises `InputError` where it has none."""
    if name not in _REGISTERED:
        advertised = _advertised()
        member("source of tasks", name, [*_REGISTERED, *advertised])
        register(name, advertised[name].load())
    return _REGISTERED[name](rest)


def _advertised() -> Mapping[str, EntryPoint]:
    """Sources by name; those of the checkout come before those of an installed copy."""
    installed = {point.name: point for point in entry_points(group=GROUP)}
    content: dict = {}
    with contextlib.suppress(OSError, tomllib.TOMLDecodeError):
        content = tomllib.loads(PROJECT.read_text("utf-8"))
    beside = content.get("tool", {}).get("mats_core", {}).get("tasks", {})
    return {**installed, **{name: EntryPoint(name, at, GROUP) for name, at in beside.items()}}
