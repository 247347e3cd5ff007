"""`methods`: the merging methods and their options."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("methods", help="the merging methods and their options")
    command.add_argument("name", nargs="?", help="one method only")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--markdown", action="store_true", help="print docs/methods.md")
    command.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> None:
    from ..errors import member
    from ..methods import METHODS, STEPS, describe, fields_of, reference

    if arguments.markdown:
        print(reference.markdown(), end="")
        return
    names = [member("method", arguments.name, METHODS)] if arguments.name else list(METHODS)
    if arguments.json:
        content = [reference.as_dict(name) for name in names]
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    for name in names:
        method = METHODS[name]
        print(f"{name} — {method.title} (needs {method.group})")
        _told(method.summary, method.source, describe(name))
    for name, step in ({} if arguments.name else STEPS).items():
        print(f"after: {name} — {step.title} (a step after any merge)")
        _told(step.summary, step.source, fields_of(step.options))


def _told(summary: str, source: str, fields: Sequence[Any]) -> None:
    from ..methods import reference

    print(textwrap.indent(textwrap.fill(summary, 94), "  "))
    print(f"  source: {source}")
    for field in fields:
        few = "".join(f", {value} of {count} experts" for count, value in field.by_experts)
        print(f"    {field.name} = {field.default}{few}   [{reference.bounds(field)}]")
        print(textwrap.indent(textwrap.fill(field.help, 88), "        "))
    print()
