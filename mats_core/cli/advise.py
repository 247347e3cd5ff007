"""`advise`: which method to take for a family, why, and what would make more possible."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterable
from typing import Any

from ..system import uncollected

WIDTH = 100


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "advise",
        help="which method to take for a family, and why",
        description="The way of merging that did best in the study of what a family has: weights, "
        "inputs, labels. Nothing is merged; headers, a glance at the matrices and the tables of "
        "the tasks are read.",
    )
    command.add_argument("family", help="a family.yaml, its folder, or a recipe")
    command.add_argument(
        "--examples", type=int, metavar="N",
        help="of each task that may be used at most; 0: none [all that are there]",
    )  # fmt: skip
    command.add_argument("--no-labels", action="store_true", help="do not use their labels")
    command.add_argument(
        "--pile", metavar="TASK", help="a task that is an unsorted pile of all tasks' inputs"
    )
    command.add_argument(
        "--larger", action="store_true", help="the output may be larger than a static merge"
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_advise)


def _advise(arguments: argparse.Namespace) -> None:
    with uncollected():
        from ..estimating import advise

    found = advise(
        arguments.family, examples=arguments.examples, labels=not arguments.no_labels,
        pile=arguments.pile, larger=arguments.larger,
    )  # fmt: skip
    if arguments.json:
        print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
        return
    print(found.title)
    _paragraphs(found.reasons)
    if found.recipe:
        print(f"\nin a recipe:\n{textwrap.indent(_yaml(found.recipe), '  ')}")
    if found.alternatives:
        print("\nafter it:")
        _paragraphs(f"{one.title}. {one.sentence}" for one in found.alternatives)
    if found.more:
        print("\nwhat would make more possible:")
        _paragraphs(found.more)
    _paragraphs(f"note: {said}" for said in found.notes)


def _paragraphs(said: Iterable[str]) -> None:
    for one in said:
        print(textwrap.fill(one, WIDTH, initial_indent="  ", subsequent_indent="    "))


def _yaml(content: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(content, sort_keys=False).rstrip()
