"""`donors`: what other experts do for a target, over the weight between the two."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..system import uncollected
from .shared import noted, require_recipe_file, write_recipe


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "donors",
        help="find donors for a target: intermediate tasks",
        description="Merges a target's expert with each donor's, with weights λ and 1 − λ, and "
        "tests the target's task on validation data.",
    )
    command.add_argument("recipe", type=Path, help="YAML file, or the folder of a family")
    command.add_argument("--method", help="of a family, or in place of the recipe's")
    command.add_argument("--targets", metavar="NAME,…", help="experts with tasks (default: all)")
    command.add_argument("--donors", metavar="NAME,…", help="experts (default: all)")
    command.add_argument("--weights", metavar="λ,…", help="of the target (default: 0,0.1,…,1)")
    command.add_argument("--examples", type=int, metavar="N", help="of the target (default: 400)")
    command.add_argument("--output", type=Path, help="YAML file for the recipe of the best pair")
    command.add_argument("--test", action="store_true", help="ask its test examples, once")
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    command.set_defaults(run=_donors)


def _donors(arguments: argparse.Namespace) -> None:
    with uncollected():
        from ..analysis import (
            DONATION_EXAMPLES,
            LAMBDAS,
            donating,
            finally_asked,
            gained,
            recipe_of,
        )
    from ..errors import InputError
    from ..system import bar, drain

    require_recipe_file(arguments, replace=arguments.force)  # before statistics are measured
    weights = _numbers(arguments.weights) if arguments.weights else LAMBDAS
    with noted(), bar() as show:
        recipe = recipe_of(arguments.recipe, arguments.method)
        require_recipe_file(arguments, recipe, replace=arguments.force)
        found = drain(
            donating(
                recipe, targets=_names(arguments.targets), donors=_names(arguments.donors),
                weights=weights, examples=arguments.examples or DONATION_EXAMPLES,
            ),
            show,
        )  # fmt: skip
    width = max(len(f"{one.target} with {one.donor}") for one in found.donations)
    print(f"{'target with donor':<{width}}     λ  accuracy   expert   difference (95 %)")
    for one in found.donations:
        name = f"{one.target} with {one.donor}"
        if one.best is None or one.best.result is None or one.gain is None:
            print(f"{name:<{width}}  {one.points[0].reason}")
            continue
        result = one.best.result
        print(
            f"{name:<{width}}  {one.best.weight:>4g}  {100 * result.merged.value:>7.1f}%"
            f" {100 * result.finetuned.value:>7.1f}%   {_points(one.gain)}"
        )
    good = [one for one in found.donations if one.gain is not None]
    if not good:
        raise InputError("donors", expected="a pair that can be merged", found="none")
    best = max(good, key=lambda one: one.gain.value if one.gain else 0.0)
    if arguments.test:
        with noted(), bar() as show:
            result = drain(finally_asked(found.recipe_for(best), best.target), show)
        print(
            f"{best.target} with {best.donor} on {result.merged.examples} test examples, asked "
            f"once: {100 * result.merged.value:.1f}%, its expert {100 * result.finetuned.value:.1f}"
            f"%, difference {_points(gained(result))}"
        )
    if arguments.output:
        told = f"{best.target} with {best.donor} is written"
        write_recipe(arguments.output, found.recipe_for(best), told)


def _points(gain: Any) -> str:
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def _names(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(one.strip() for one in text.split(",") if one.strip())


def _numbers(text: str) -> tuple[float, ...]:
    from ..errors import InputError

    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise InputError(
            "--weights", expected="numbers, such as 0,0.5,1", found=f"'{text}'"
        ) from None
