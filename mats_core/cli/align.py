"""`align`: an expert with its units in the order of another model's, written as a checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "align",
        help="put an expert's units in the order of another model's",
        description="An expert of another start numbers its units in its own way. This finds which "
        "of them can change places (units of MLPs, heads and their dimensions, the residual "
        "stream) and the order that is most like another model's, by weight matching. The expert "
        "answers as before. In a recipe `align: true` of an expert does the same.",
    )
    command.add_argument("model", help="the expert's directory, or a hub id")
    command.add_argument("--to", required=True, help="the model whose order is wanted: the base")
    command.add_argument("--output", type=Path, required=True, help="directory to write")
    command.add_argument(
        "--keep-stream", action="store_true", help="leave the residual stream's dimensions alone"
    )
    command.set_defaults(run=_align)


def _align(arguments: argparse.Namespace) -> None:
    from ..aligning import align, save

    found = align(arguments.model, arguments.to, stream=not arguments.keep_stream)
    save(found, arguments.output)
    for note in found.notes:
        print(f"note: {note}")
    print(f"{arguments.output}: aligned to {arguments.to}")
