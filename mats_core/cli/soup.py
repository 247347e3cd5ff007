"""`soup`: which experts an average should have, chosen greedily on validation data."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..system import uncollected
from .shared import noted, require_recipe_file, write_recipe


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "soup",
        help="choose the experts of an average on validation data",
        description="Greedy soup: the recipe's experts are added to an average one after the "
        "other, the best alone first, and stay if the mean validation accuracy over all tasks does "
        "not fall. What comes out is a recipe for `merge`.",
    )
    command.add_argument("recipe", type=Path, help="YAML file; its method is not looked at")
    command.add_argument("--output", type=Path, help="YAML file to write, instead of printing it")
    command.add_argument("--examples", type=int, metavar="N", help="of each task (default: 150)")
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    command.set_defaults(run=_soup)


def _soup(arguments: argparse.Namespace) -> None:
    with uncollected():
        from ..analysis import EXAMPLES, greedy_soup
    from ..recipes import load_recipe
    from ..system import bar, drain

    with noted():
        recipe = load_recipe(arguments.recipe)
    require_recipe_file(arguments, recipe, replace=arguments.force)
    with noted(), bar() as show:
        found = drain(greedy_soup(recipe, examples=arguments.examples or EXAMPLES), show)
    width = max(len(one.name) for one in found.ingredients)
    print(f"{'expert':<{width}}    alone  together")
    for one in found.ingredients:
        kept = "stays" if one.kept else "left out"
        print(f"{one.name:<{width}} {100 * one.alone:>7.1f}% {100 * one.together:>8.1f}%  {kept}")
    write_recipe(arguments.output, found.recipe, "written")
