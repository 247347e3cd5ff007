"""A mergekit configuration of a merge where one exists, and an honest sentence where none does.

Checked against mergekit 0.1.5: `linear`, `slerp`, `karcher`, `task_arithmetic`, `ties`,
`breadcrumbs`, `breadcrumbs_ties`, `model_stock` and `sce` are the same arithmetic
(`docs/mergekit.md`); its DARE rescales by the L1 norm; nothing of it reads curvature or subspaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

from ..methods import METHODS, Counterpart
from .portable import OUTPUT, Finished

Agreement = Literal["same", "passthrough"]


@dataclass(frozen=True)
class Mergekit:
    """A configuration for mergekit.

    config      its YAML
    agreement   whether it repeats the merge or only passes its result on
    sentence    why
    notes       what to know before it is run, a sentence each
    """

    config: str
    agreement: Agreement
    sentence: str
    notes: tuple[str, ...] = ()


def mergekit(merge: Finished, written: str = "") -> Mergekit:
    """The mergekit configuration of a merge.

    Its paths start at the family's folder.  Where mergekit has no such method it passes the merged
    model on instead: `written` is its directory (by default where the recipe's output goes).
    """
    found = _counterpart(merge)
    if isinstance(found, str):
        config = _passthrough(merge, written or f"{OUTPUT}/{merge.stem}")
        then = (
            " The configuration below passes the merged model on unchanged, so that a mergekit "
            "pipeline can go on from it. Write the model first."
        )
        return Mergekit(config, "passthrough", found + then, _without(merge))
    content = _content(merge, found)
    content["dtype"] = "float32"
    if merge.recipe.output_dtype:
        content["out_dtype"] = merge.recipe.output_dtype
    return Mergekit(_dump(content), "same", found.sentence, _notes(merge, found))


def _counterpart(merge: Finished) -> Counterpart | str:
    """The same merge for mergekit, or why there is none."""
    method = METHODS[merge.recipe.method]
    if merge.recipe.dtype == "float64":
        return "mergekit computes in at most float32; this merge was computed in float64."
    if merge.recipe.output_dtype == "float64":
        return "mergekit writes at most float32; this merge is stored in float64."
    if merge.recipe.after or merge.recipe.by:
        what = "steps after a merge" if merge.recipe.after else "rules by layer as these"
        return f"mergekit has no {what}."
    if any(expert.align for expert in merge.recipe.experts):
        return "mergekit aligns no expert: write the aligned ones by `align`, and merge those."
    if merge.report.trained:
        return "mergekit trains nothing after a merge."
    if method.mergekit is not None:
        found = method.mergekit(method.options.model_validate(dict(merge.report.options)))
        return found if isinstance(found, str) else _for_weights(merge, method.title, found)
    if method.group == "statistics":
        return f"mergekit has no {method.title}: none of its methods reads statistics of a layer."
    return f"mergekit has no {method.title}."


def _for_weights(merge: Finished, title: str, found: Counterpart) -> Counterpart | str:
    """The counterpart, or why the weights of the experts make it another merge."""
    weights = [weight for _, weight in _experts(merge)]
    if found.weights == "positive" and min(weights) < 0:
        return (
            f"mergekit's {title} divides by the sum of the signed weights, this one by their sizes."
        )
    if found.weights == "equal" and len(set(weights)) > 1:
        return f"mergekit's {title} takes no weights: there all experts count the same."
    return found


def _content(merge: Finished, found: Counterpart) -> dict[str, Any]:
    """The configuration as a mapping, in the order in which mergekit's own examples have it."""
    experts = _experts(merge)
    models: list[dict[str, Any]] = []
    for model, weight in experts:
        weighted = {} if found.scaling is None else {"weight": found.scaling * weight}
        parameters = {**weighted, **found.each}
        models.append({"model": model, **({"parameters": parameters} if parameters else {})})
    bases = {"base": merge.portable.base, "first expert": experts[0][0], "": None}
    base = bases[found.base]
    return {
        "merge_method": found.method,
        **({"base_model": base} if base is not None else {}),
        "models": models,
        "parameters": dict(found.parameters),
    }


def _experts(merge: Finished) -> list[tuple[str, float]]:
    """(path, weight) of each expert; examples multiply the weight where the recipe says so."""
    by_examples = merge.recipe.weighting == "examples"
    return [
        (entry.model, float(entry.weight) * (entry.examples or 0 if by_examples else 1))
        for entry in merge.portable.experts
    ]


def _notes(merge: Finished, found: Counterpart) -> tuple[str, ...]:
    heads = [layer.name for layer in merge.report.layers if layer.treatment == "head"]
    notes = [*_without(merge)]
    if heads:
        what = "stops where their shapes differ" if not found.base else (
            "leaves out those whose shape differs from the base's, and merges the others"
        )  # fmt: skip
        notes.append(
            f"mergekit knows no heads: it {what}. Compare the encoder only, or give it copies of "
            f"the checkpoints without {', '.join(heads)}."
        )
    if any(c in path for path, _ in _experts(merge) for c in "+@"):
        notes.append("mergekit reads + and @ in a path in its own way: rename such folders first.")
    return tuple(notes)


def _without(merge: Finished) -> tuple[str, ...]:
    """What every configuration leaves behind."""
    if merge.recipe.routed is None:
        return ()
    return ("mergekit has no branches: what it makes is the static merge that they lie beside.",)


def _passthrough(merge: Finished, model: str) -> str:
    content: dict[str, Any] = {"merge_method": "passthrough", "models": [{"model": model}]}
    if merge.recipe.output_dtype in ("float32", "bfloat16", "float16"):
        content["dtype"] = merge.recipe.output_dtype
    return _dump(content)


def _dump(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
