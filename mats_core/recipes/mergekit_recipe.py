"""A mergekit configuration read as a recipe.

What decides the merged weights is mapped or refused with a sentence that says why; what does not
(a mask's storage, the template of a chat) is told as a note.  Where mergekit takes no notice of a
name that nothing knows, this does: a slip of the pen is an error with the nearest name.

Of several filters the first that matches wins there, and of the recipe's rules the last: they come
in the opposite order.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, listing, member
from .mergekit_file import Condition, File, blocks_of, conditions_of, mapping, opened
from .mergekit_names import DTYPES, EACH, KEYS, PARAMETERS, THERE


def is_mergekit(content: Mapping[str, Any]) -> bool:
    """Whether a file of YAML is a mergekit configuration."""
    return "merge_method" in content


def from_mergekit(
    content: Mapping[str, Any], folder: Path = Path()
) -> tuple[dict[str, Any], list[str]]:
    """The content of the recipe that a mergekit configuration describes, and notes, a sentence
    each.

    Raises `InputError` for what has no counterpart.
    """
    for key in content:
        member("key of the mergekit configuration", str(key), KEYS)
    name = member("merge_method", str(content["merge_method"]), THERE)
    there = THERE[name]
    if not there.ours:
        raise InputError(
            f"mergekit's '{name}'",
            expected="a method with a counterpart here",
            found=there.sentence,
        )
    file = opened(content, name, there, folder)
    notes = [f"read as a mergekit configuration: {name} is {there.ours} here. {there.sentence}"]
    if "base_model" not in content and file.base == file.models[0].path:
        notes.append(f"no base_model: {file.base} gives names, configuration and tokenizer")
    notes += _unused(file)
    recipe: dict[str, Any] = {"base": file.base, **_mapped(file)}
    recipe |= _dtype(content, notes)
    _tokenizer(content, notes)
    return recipe, notes


def _unused(file: File) -> list[str]:
    """Notes on parameters that mergekit takes no notice of here; an error for unknown names."""
    layers = [*file.settings, *(own for model in file.models for own in model.settings)]
    names = list(dict.fromkeys(str(key) for own in layers for key in own))
    known = {*file.there.defaults, *(("weight",) if file.there.weights else ())}
    # What is one for all models is not looked for at one of them.
    common = {key for own in file.settings for key in own}
    known = {name for name in known if name in EACH or name in common}
    for name in names:
        member(f"parameter of {file.thing}", name, PARAMETERS)
    idle = [name for name in names if name not in known and name != "int8_mask"]
    return [f"without effect in {file.name}, in mergekit too: {listing(idle)}"] if idle else []


def _mapped(file: File) -> dict[str, Any]:
    """Method, options, experts and rules of the recipe."""
    method, options, varying = _options(file)
    weights = [conditions_of(file, model, "weight") for model in file.models]
    if file.name == "nuslerp":
        pair = [_constant(file, "weight", own) for own in weights]
        total = sum(pair)
        options["t"] = pair[1] / total if abs(total) >= 1e-6 else 0.5
    own_weights = file.there.weights and file.name != "nuslerp"
    _require_sum(file, method, weights)
    experts: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    for model, own in zip(file.models, weights, strict=True):
        label = _label(model.path, [one["name"] for one in experts])
        entry: dict[str, Any] = {"name": label, "model": model.path}
        if own_weights and len(own) == 1 and not isinstance(own[0][1], list):
            entry["weight"] = own[0][1]
        elif own_weights:
            rules += [{**where, "weight": {label: value}} for where, value in _rules(file, own)]
        experts.append(entry)
    for name, conditions in varying.items():
        rules += [{**where, "options": {name: v}} for where, v in _rules(file, conditions)]
    found = {"method": method, "options": options, "experts": experts}
    return {**found, "by": rules} if rules else found


def _options(file: File) -> tuple[str, dict[str, Any], dict[str, list[Condition]]]:
    """(method, options of all layers, options by layer)."""
    method, names, options = file.there.ours, dict(file.there.options), dict(file.there.fixed)
    if "normalize" in file.there.defaults and file.name in ("ties", "task_arithmetic"):
        normalize = bool(_constant(file, "normalize"))
        if file.name == "ties" and not normalize:
            method, options = "breadcrumbs", {"gamma": 0.0, "elect": True, "normalise": False}
        if file.name == "task_arithmetic" and normalize:
            plain = _same_of_all(file, "lambda") == [(None, 1.0)]
            method = "average" if plain else "breadcrumbs"
            names = {} if plain else names
            options = {} if plain else {"density": 1.0, "elect": False, "normalise": True}
    if "rescale" in file.there.defaults:
        rescale = bool(_constant(file, "rescale"))
        if method == "della":
            options["rescale"] = "l1" if rescale else "none"
        elif rescale:
            raise InputError(
                f"rescale of {file.thing}", expected="false: nothing here restores the L1 norm but "
                "`della`", found="true",
            )  # fmt: skip
    for name, wanted in (
        ("nuslerp_flatten", True), ("nuslerp_row_wise", False), ("normalize_weights", True),
    ):  # fmt: skip
        if name in file.there.defaults and bool(_constant(file, name)) is not wanted:
            raise InputError(f"{name} of {file.thing}", expected=str(wanted).lower(),
                             found=str(not wanted).lower(), remedy=PARAMETERS[name])  # fmt: skip
    varying: dict[str, list[Condition]] = {}
    for theirs, ours in names.items():
        conditions = _same_of_all(file, theirs)
        if len(conditions) == 1 and not isinstance(conditions[0][1], list):
            value = conditions[0][1]
            options[ours] = min(value, 1.0) if theirs == "density" else value
        else:
            varying[ours] = conditions
    return method, options, varying


def _require_sum(file: File, method: str, weights: Sequence[list[Condition]]) -> None:
    """Raise `InputError` for a linear merge that is no mean."""
    if file.name != "linear" or bool(_constant(file, "normalize")):
        return
    total = sum(_constant(file, "weight", own) for own in weights)
    if abs(total - 1) > 1e-6:
        raise InputError(
            f"normalize of {file.thing}", expected="true, or weights that sum to 1: a multiple of "
            "whole models has no counterpart here", found=f"false, and a sum of {total:g}",
        )  # fmt: skip


def _same_of_all(file: File, name: str) -> list[Condition]:
    """The conditions of a parameter that is one for all models here."""
    each = [conditions_of(file, model, name) for model in file.models]
    if any(own != each[0] for own in each):
        raise InputError(
            f"{name} of {file.thing}", expected="the same for every model: here it is one option "
            "of the merge", found="different ones",
        )  # fmt: skip
    return each[0]


def _constant(file: File, name: str, conditions: list[Condition] | None = None) -> Any:
    """A parameter that may differ neither by model nor by layer."""
    found = _same_of_all(file, name) if conditions is None else conditions
    if len(found) > 1 or isinstance(found[0][1], list):
        raise InputError(f"{name} of {file.thing}", expected="one value for all layers",
                         found="a filter or a gradient")  # fmt: skip
    return found[0][1]


def _rules(file: File, conditions: Sequence[Condition]) -> Iterator[tuple[dict[str, Any], Any]]:
    """(where, value) of each rule that says the same as the conditions, the last wins."""
    for where, value in reversed(conditions):
        match = {} if where is None else {"match": f"*{glob.escape(where)}*"}
        if not isinstance(value, list):
            yield ({"depth": [0.0, 1.0]} if where is None else match), value
            continue
        count = blocks_of(file)
        for block in range(count):
            depth = block / (count - 1) if count > 1 else 0.0
            place = (depth if count > 1 else 1.0) * (len(value) - 1)
            low = min(int(place), len(value) - 1)
            high = min(low + 1, len(value) - 1)
            now = (1 - place + low) * value[low] + (place - low) * value[high]
            at = round(depth, 6)
            yield {**match, "depth": [at, at]}, now


def _label(path: str, taken: Sequence[str]) -> str:
    """A name for an expert: the last part of its path, with a number where that is taken."""
    plain = re.sub(r"[^\w.-]+", "-", path.rstrip("/").split("/")[-1].partition("@")[0]).strip("-.")
    name, number = plain or "expert", 2
    while name in taken:
        name, number = f"{plain}-{number}", number + 1
    return name


def _dtype(content: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    arithmetic, stored = content.get("dtype"), content.get("out_dtype") or content.get("dtype")
    if stored is None:
        return {}
    plain = str(stored).removeprefix("torch.")
    member("dtype of the mergekit configuration", plain, DTYPES)
    if arithmetic is not None and str(arithmetic).removeprefix("torch.") in ("bfloat16", "float16"):
        notes.append(f"computed in float32, where mergekit computes in {arithmetic}")
    return {"output_dtype": plain}


def _tokenizer(content: Mapping[str, Any], notes: list[str]) -> None:
    """Notes on the tokenizer and the chat template; an error for tokens that are made or moved."""
    tokenizer = mapping(content.get("tokenizer"), "tokenizer")
    more = [key for key in tokenizer if key != "source"]
    if more:
        raise InputError(
            "tokenizer of the mergekit configuration", expected="no more than 'source': tokens are "
            "neither made nor moved here", found=listing(more),
        )  # fmt: skip
    source = content.get("tokenizer_source") or tokenizer.get("source")
    if source not in (None, "base"):
        notes.append(
            f"tokenizer_source {source} has no counterpart: the tokenizer of the base is copied, "
            "and models with another vocabulary are refused"
        )
    if content.get("chat_template") is not None:
        notes.append(
            "chat_template has no counterpart: the files of the base are copied as they are"
        )
