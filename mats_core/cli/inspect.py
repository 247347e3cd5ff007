"""`inspect`: what a checkpoint, a statistics file or a recipe holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .shared import ADAPTERS_BASE, base_of


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "inspect",
        help="what a checkpoint, a statistics file or a recipe holds",
        description="For a recipe: the whole preflight and the role of every tensor, without "
        "merging. For a checkpoint: tensors, dtypes, classes, fingerprint.",
    )
    command.add_argument("path", help="a file, a directory, or a hub id")
    command.add_argument("--base", help=ADAPTERS_BASE)
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    from ..adapters import open_expert
    from ..checkpoints import hub

    path = Path(arguments.path)
    if path.suffix in (".yaml", ".yml"):
        content = _inspect_recipe(path)
    else:
        checkpoint = open_expert(hub.locate(arguments.path), base_of(arguments))
        dtypes: dict[str, int] = {}
        for entry in checkpoint.tensors.values():
            kind = str(entry.dtype).removeprefix("torch.")
            dtypes[kind] = dtypes.get(kind, 0) + 1
        content = {
            "path": str(path),
            **({"adapter": checkpoint.form} if checkpoint.form else {}),
            **({"notes": list(checkpoint.notes)} if checkpoint.notes else {}),
            "fingerprint": checkpoint.fingerprint,
            "tensors": len(checkpoint.tensors),
            "parameters": sum(entry.elements for entry in checkpoint.tensors.values()),
            "bytes": checkpoint.nbytes,
            "dtypes": dtypes,
            "classes": list(checkpoint.class_names),
            "metadata": dict(checkpoint.metadata),
            "shapes": {name: list(entry.shape) for name, entry in checkpoint.tensors.items()},
        }
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


def _inspect_recipe(path: Path) -> dict[str, Any]:
    from collections import Counter

    from ..merging import load_recipe, prepare, rounds

    plan = prepare(load_recipe(path))
    rounds.require(plan.recipe, plan.inputs)
    family = plan.inputs.family
    return {
        "recipe": str(path),
        "method": plan.method.name,
        "options": plan.options.model_dump(),
        **({"rounds": plan.recipe.rounds} if plan.recipe.rounds > 1 else {}),
        "device": f"{plan.device} ({plan.reason})",
        "experts": {e.name: e.checkpoint.fingerprint[:12] for e in family.experts},
        "notes": list(plan.inputs.notes),
        "roles": dict(Counter(family.roles.values())),
        "tensors": dict(family.roles),
    }
