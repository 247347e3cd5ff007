"""`methods`: the merging methods and their options."""

from __future__ import annotations

import argparse
import json
from typing import Any

JSON = ("name", "title", "needs", "summary", "formula", "source", "weighted", "options", "schema")


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("methods", help="the merging methods and their options")
    command.add_argument("name", nargs="?", help="one method only")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument("--markdown", action="store_true", help="print docs/methods.md")
    command.set_defaults(run=_methods)


def _methods(arguments: argparse.Namespace) -> None:
    from ..errors import member
    from . import catalogue, listing

    known = catalogue.known()
    methods = known["methods"]
    if arguments.markdown:
        print(listing.markdown(known), end="")
        return
    names = [member("method", arguments.name, methods)] if arguments.name else list(methods)
    if arguments.json:
        content = [{key: methods[name][key] for key in JSON} for name in names]
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    steps = {} if arguments.name else known["steps"]
    print("\n".join(listing.plain([methods[name] for name in names], steps)))
