"""`methods`: the merging methods and their options."""

from __future__ import annotations

import argparse
import json
import textwrap
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
    from ..methods import METHODS, describe, reference

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
        print(textwrap.indent(textwrap.fill(method.summary, 94), "  "))
        print(f"  source: {method.source}")
        for field in describe(name):
            print(f"    {field.name} = {field.default}   [{reference.bounds(field)}]")
            print(textwrap.indent(textwrap.fill(field.help, 88), "        "))
        print()
