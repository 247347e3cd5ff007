"""`inspect`: what a checkpoint, a statistics file, a recipe or a family holds."""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..system import uncollected
from .shared import ADAPTERS_BASE, base_of


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "inspect",
        help="what a checkpoint, a statistics file, a recipe or a family holds",
        description="For a recipe or a family: the whole preflight and the role of every tensor, "
        "without merging. For a checkpoint: tensors, dtypes, classes, fingerprint.",
    )
    command.add_argument("path", help="a file, a directory, or a hub id")
    command.add_argument("--base", help=ADAPTERS_BASE)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    with uncollected():
        from ..api import inspect

    content = inspect(arguments.path, base=base_of(arguments))
    if arguments.json:
        print(json.dumps(content, indent=2, ensure_ascii=False))
        return
    for key, value in content.items():
        if isinstance(value, dict) and value:
            print(f"{key}:")
            width = max(len(str(name)) for name in value)
            for name, item in value.items():
                print(f"  {name!s:<{width}}  {item}")
        elif value not in ([], {}):
            print(f"{key}: {value}")
