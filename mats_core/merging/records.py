"""What a recipe or a model's tensors are, as plain values: what `inspect` returns and prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from ..checkpoints import Weights, left_over, quantisation
from ..recipes import Inputs, Rule, load_family, load_recipe, prepare
from . import rounds


def weights_record(weights: Weights, path: str) -> dict[str, Any]:
    """Tensors, dtypes, classes and fingerprint of named tensors."""
    kinds = Counter(str(e.dtype).removeprefix("torch.") for e in weights.tensors.values())
    quantised, left = quantisation(weights), left_over(weights)
    notes = [*weights.notes]
    if left:
        notes.append(f"'{left}' in config.json is left over: the weights are not quantised")
    return {
        "path": path,
        **(
            {"quantised": f"{quantised}: refused by merge, until it is dequantised"}
            if quantised
            else {}
        ),
        **({"adapter": weights.form} if weights.form else {}),
        **({"notes": notes} if notes else {}),
        "fingerprint": weights.fingerprint,
        "tensors": len(weights.tensors),
        "parameters": sum(entry.elements for entry in weights.tensors.values()),
        "bytes": weights.nbytes,
        "dtypes": dict(kinds),
        "classes": list(weights.class_names),
        "metadata": dict(weights.metadata),
        "shapes": {name: list(entry.shape) for name, entry in weights.tensors.items()},
    }


def recipe_record(path: Path) -> dict[str, Any]:
    """The preflight of a recipe: settings, notes, and the role of every tensor."""
    plan = prepare(load_recipe(path))
    rounds.require(plan.recipe, plan.inputs)
    return {
        "recipe": str(path),
        "method": plan.method.name,
        "options": plan.options.model_dump(),
        **({"rounds": plan.recipe.rounds} if plan.recipe.rounds > 1 else {}),
        **({"after": [one.content for one in plan.recipe.steps()]} if plan.recipe.after else {}),
        **({"by": [_rule(rule) for rule in plan.recipe.by]} if plan.recipe.by else {}),
        "device": f"{plan.device} ({plan.reason})",
        **_preflight(plan.inputs),
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return rule.model_dump(mode="json", exclude_defaults=True)


def family_record(path: Path) -> dict[str, Any]:
    """The preflight of a family, of its `family.yaml` or the folder that holds it."""
    collection = load_family(path)
    inputs = prepare(collection.recipe("average")).inputs
    named = {"family": str(path), "name": collection.name, "base": collection.base}
    return {**named, **_preflight(inputs)}


def _preflight(inputs: Inputs) -> dict[str, Any]:
    family = inputs.family
    return {
        "experts": {e.name: e.checkpoint.fingerprint[:12] for e in family.experts},
        "notes": list(inputs.notes),
        "roles": dict(Counter(family.roles.values())),
        "tensors": dict(family.roles),
    }
