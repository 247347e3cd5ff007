"""The methods and their options in a terminal, and as `docs/methods.md`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .catalogue import Catalogue

AFTER = (
    "`after:` of a recipe is a list of them, applied in its order to the merged update of every "
    "layer ([how](recipes.md#after-the-merge))."
)
TABLE = """| option | default | values | meaning | why this default |
| --- | --- | --- | --- | --- |"""
Told = Mapping[str, Any]  # one method, or one step, of a catalogue


def plain(methods: Iterable[Told], steps: Mapping[str, Told]) -> Iterator[str]:
    """The lines of a terminal on these methods and steps."""
    for method in methods:
        yield f"{method['name']} — {method['title']} (needs {method['needs']})"
        yield from _told(method)
    for name, step in steps.items():
        yield f"after: {name} — {step['title']} (a step after any merge)"
        yield from _told(step)


def _told(one: Told) -> Iterator[str]:
    yield textwrap.indent(textwrap.fill(one["summary"], 94), "  ")
    yield f"  source: {one['source']}"
    for field, values in zip(one["options"], one["values"], strict=True):
        yield f"    {field['name']} = {field['default']}   [{values}]"
        yield textwrap.indent(textwrap.fill(field["help"], 88), "        ")
    yield ""


def markdown(catalogue: Catalogue) -> str:
    """`docs/methods.md`: every method with its formula, source and options."""
    parts = [
        "# Methods and their options",
        "Generated from the declarations in `mats_core/methods/` by "
        "`python -m mats_core methods --markdown`; a test compares the two.",
    ]
    for name, method in catalogue["methods"].items():
        said = f"Needs {method['needed']}. Task weights: {method['weights']}."
        parts += [f"## `{name}`: {method['title']}", method["summary"], f"$${method['formula']}$$"]
        parts += [f"{said} Source: {method['source']}.", *_rows(method)]
    parts += ["# Steps after any merge", AFTER]
    for name, step in catalogue["steps"].items():
        parts += [f"## `{name}`: {step['title']}", step["summary"], f"$${step['formula']}$$"]
        parts += [f"Source: {step['source']}.", *_rows(step)]
    return "\n\n".join(parts) + "\n"


def _rows(one: Told) -> list[str]:
    """The table of some options, where there are any."""
    rows = [
        f"| `{field['name']}` | `{_value(field['default'])}` | {values} | {field['help']} "
        f"| {field['source']} |"
        for field, values in zip(one["options"], one["values"], strict=True)
    ]
    return ["\n".join([TABLE, *rows])] if rows else []


def _value(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
