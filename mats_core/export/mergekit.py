"""A mergekit configuration of a merge where one exists, and an honest sentence where none does.

Checked against mergekit 0.1.5: `linear`, `slerp`, `task_arithmetic` and `ties` are the same
arithmetic (`docs/peers.md`); its DARE rescales by the L1 norm; nothing of it reads curvature or
subspaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import yaml

from ..methods import METHODS
from .portable import OUTPUT, Finished

Agreement = Literal["same", "passthrough"]
_PARALLEL = 0.9995  # the cosine above which mergekit's SLERP turns linear: no setting of it


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
    reason = _no_counterpart(merge)
    if reason:
        config = _passthrough(merge, written or f"{OUTPUT}/{merge.stem}")
        return Mergekit(config, "passthrough", reason)
    content, sentence = {
        "average": _linear, "slerp": _slerp, "task_arithmetic": _task_arithmetic, "ties": _ties,
    }[merge.recipe.method](merge)  # fmt: skip
    content["dtype"] = "float32"
    if merge.recipe.output_dtype:
        content["out_dtype"] = merge.recipe.output_dtype
    return Mergekit(_dump(content), "same", sentence, _notes(merge))


def _no_counterpart(merge: Finished) -> str:
    """Why no configuration gives this merge; empty where one does."""
    method, options = merge.recipe.method, merge.report.options
    then = (
        " The configuration below passes the merged model on unchanged, so that a mergekit "
        "pipeline can go on from it. Write the model first."
    )
    if merge.recipe.dtype == "float64":
        return "mergekit computes in at most float32; this merge was computed in float64." + then
    if merge.recipe.output_dtype == "float64":
        return "mergekit writes at most float32; this merge is stored in float64." + then
    if method == "ties" and options["scope"] != "tensor":
        return (
            "mergekit trims within each tensor; this TIES trims over the whole model, as "
            "published. With the option scope: tensor both are the same." + then
        )
    if method == "dare":
        return (
            "mergekit has a DARE, but not this one: it rescales what is kept so that the L1 norm "
            "stays, where the paper divides by 1 − p, and it draws other masks." + then
        )
    if method == "slerp" and options["parallel"] != _PARALLEL:
        return (
            f"mergekit interpolates linearly above a cosine of {_PARALLEL}, always; this merge has "
            f"its limit at {options['parallel']:g}." + then
        )
    if method not in ("average", "slerp", "task_arithmetic", "ties"):
        title = METHODS[method].title
        if METHODS[method].group == "statistics":
            return f"mergekit has no {title}: none of its methods reads statistics of a layer." + (
                then
            )
        return f"mergekit has no {title}." + then
    return ""


def _linear(merge: Finished) -> tuple[dict[str, Any], str]:
    models = [
        {"model": model, "parameters": {"weight": weight}} for model, weight in _experts(merge)
    ]
    content = {"merge_method": "linear", "models": models, "parameters": {"normalize": True}}
    return content, "The same arithmetic: mergekit's linear is the weighted average."


def _slerp(merge: Finished) -> tuple[dict[str, Any], str]:
    (first, _), (second, _) = _experts(merge)
    content = {
        "merge_method": "slerp",
        "base_model": first,
        "models": [{"model": first}, {"model": second}],
        "parameters": {"t": float(merge.report.options["t"])},
    }
    return content, (
        "The same arithmetic: the arc from the first expert, which mergekit calls the base model, "
        "to the second."
    )


def _task_arithmetic(merge: Finished) -> tuple[dict[str, Any], str]:
    scaling = float(merge.report.options["scaling"])
    models = [
        {"model": model, "parameters": {"weight": scaling * weight}}
        for model, weight in _experts(merge)
    ]
    content = {
        "merge_method": "task_arithmetic",
        "base_model": merge.portable.base,
        "models": models,
        "parameters": {"normalize": False},
    }
    return content, "The same arithmetic: each weight is λ times the expert's own."


def _ties(merge: Finished) -> tuple[dict[str, Any], str]:
    options = merge.report.options
    models = [
        {
            "model": model,
            "parameters": {"weight": weight, "density": float(options["density"])},
        }
        for model, weight in _experts(merge)
    ]
    content = {
        "merge_method": "ties",
        "base_model": merge.portable.base,
        "models": models,
        "parameters": {"normalize": True, "lambda": float(options["scaling"])},
    }
    return content, "The same arithmetic: density is the share that is kept within each tensor."


def _experts(merge: Finished) -> list[tuple[str, float]]:
    """(path, weight) of each expert; examples multiply the weight where the recipe says so."""
    by_examples = merge.recipe.weighting == "examples"
    return [
        (entry.model, float(entry.weight) * (entry.examples or 0 if by_examples else 1))
        for entry in merge.portable.experts
    ]


def _notes(merge: Finished) -> tuple[str, ...]:
    heads = [layer.name for layer in merge.report.layers if layer.treatment == "head"]
    notes: list[str] = []
    if heads:
        what = "stops where their shapes differ" if merge.recipe.method == "average" else (
            "leaves out those whose shape differs from the base's, and merges the others"
        )  # fmt: skip
        notes.append(
            f"mergekit knows no heads: it {what}. Compare the encoder only, or give it copies of "
            f"the checkpoints without {', '.join(heads)}."
        )
    if any(c in path for path, _ in _experts(merge) for c in "+@"):
        notes.append("mergekit reads + and @ in a path in its own way: rename such folders first.")
    return tuple(notes)


def _passthrough(merge: Finished, model: str) -> str:
    content: dict[str, Any] = {"merge_method": "passthrough", "models": [{"model": model}]}
    if merge.recipe.output_dtype in ("float32", "bfloat16", "float16"):
        content["dtype"] = merge.recipe.output_dtype
    return _dump(content)


def _dump(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
