"""Inputs that a caller hands over: modules, state dicts, opened weights, or paths, mixed.

What a recipe names by paths is opened by `plan.open_inputs`; both end in the same `Inputs`, so that
everything after is one way.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import models
from ..adapters import Adapted, open_expert
from ..aligning import aligned_statistics
from ..checkpoints import Checkpoint, InMemory, Renamed, Weights, hub, inside, original, unwrapped
from ..errors import InputError, listing, member
from ..families import Expert, examine
from ..statistics import OF_PARAMETERS, Statistics, origins
from ..system import Memo, state_of
from .matching import read_through, warn_of_labels
from .plan import Inputs, notes_on
from .recipe import IN_MEMORY, Recipe, parse_recipe

Source = nn.Module | Mapping[str, Tensor] | Weights | str | Path


def inputs_of(
    base: Weights,
    experts: Mapping[str, Weights],
    statistics: Mapping[str, Statistics],
    base_statistics: Statistics | None = None,
    heads: Sequence[str] | None = None,
    *,
    strangers: bool = False,
) -> Inputs:
    """Inputs of a merge from what a caller hands over, opened.

    experts          by name, in their order
    statistics       by the experts' names; missing: not measured
    base_statistics  those of the base, where a method asks for them
    heads            patterns of head tensors, instead of recognising them
    strangers        whether experts may have nothing in common with the base

    Raises `InputError` for experts or statistics that do not fit.
    """
    for name in statistics:
        member("statistics of an expert", name, experts)
    if any(isinstance(weights, Checkpoint | Adapted) for weights in (base, *experts.values())):
        base = under_saved_names(base)
        experts = {name: under_saved_names(weights) for name, weights in experts.items()}
    family = examine(
        base,
        [Expert(name, one) for name, one in experts.items()],
        heads=heads,
        anatomy=models.anatomy,
        strangers=strangers,
    )
    prints = {name: weights.fingerprint for name, weights in experts.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fitted = tuple(
            _fitted(statistics.get(e.name), e.checkpoint, e.name, prints) for e in family.experts
        )
        prior = _fitted(base_statistics, base, "base", prints)
        warn_of_labels((*fitted, prior))
    # Opened again for each merge, and found again by what they hold.
    memo = Memo.of_content(
        (
            "merges of models",
            base.fingerprint,
            tuple(prints.items()),
            tuple(sorted(family.roles.items())),
            tuple(map(_identity, (*(statistics.get(name) for name in prints), base_statistics))),
        )
    )
    said = origins(dict(zip((expert.name for expert in family.experts), fitted, strict=True)))
    return Inputs(family, fitted, prior, (*notes_on(family, caught), *said), memo)


def _identity(statistics: Statistics | None) -> Hashable:
    """What tells statistics from others: the name of those in memory, or the file as it is now."""
    if statistics is None:
        return None
    if not Path(statistics.source).is_file():
        return statistics.source
    return state_of(statistics.source)


def recipe_of(
    base: Source,
    experts: Mapping[str, Source],
    method: str,
    options: Mapping[str, Any],
    *,
    weights: Mapping[str, float],
    **settings: Any,
) -> Recipe:
    """The recipe of a merge of what a caller hands over, in memory and not evaluated.

    experts    by name, in their order
    weights    of each expert, by its name
    settings   the recipe's other keys

    Raises `InputError` for unknown methods or options.
    """
    return parse_recipe(
        {
            "base": reference(base, "base"),
            "experts": [
                {"name": name, "model": reference(source, name), "weight": weights[name]}
                for name, source in experts.items()
            ],
            "method": method,
            "options": dict(options),
            "evaluate": False,
            **settings,
        }
    )


def open_source(source: Source, label: str, base: Weights | None = None) -> Weights:
    """A source as weights: modules and state dicts where they lie, paths and hub ids opened.

    `label` is what sentences call it where it has no path; an adapter's directory is opened over
    `base`.  Raises `InputError` for what is none of these.
    """
    if isinstance(source, nn.Module | Mapping):
        return _plain(InMemory.of(source, label))
    if isinstance(source, str | Path):
        path = hub.locate(source)
        return Checkpoint.open(path) if base is None else open_expert(path, base)
    if isinstance(source, Weights):
        return source
    raise InputError(
        f"'{label}'",
        expected="a module, a state dict, or the path of a checkpoint",
        found=type(source).__name__,
    )


def _plain(weights: InMemory) -> Weights:
    """The weights under their names without the wrappers of training; others as they are."""
    names = unwrapped(weights.tensors)
    if all(plain == own for own, plain in names.items()):
        return weights
    return Renamed.of(weights, {plain: own for own, plain in names.items()})


def under_saved_names(weights: Weights) -> Weights:
    """A module of transformers under the names that its files would have; others as they are."""
    found = {saved: name for name, saved in saved_names_of(weights).items()}
    changed = any(saved != own for saved, own in found.items())
    return Renamed.of(weights, found) if changed else weights


def saved_names_of(weights: Weights) -> dict[str, str]:
    """The name that each tensor has in a file: of a module of transformers, what `save_pretrained`
    would call it."""
    source = original(weights)
    module = source.module if isinstance(source, InMemory) else None
    names = {} if module is None else models.saved_names(inside(module))
    return {name: names.get(name, name) for name in weights.tensors}


def reference(source: Source, label: str) -> str:
    """How a recipe names a source: its path, or that it was given in memory."""
    if isinstance(source, str | Path):
        return str(source)
    held = isinstance(source, nn.Module | Mapping | InMemory)
    return f"{IN_MEMORY}{label}" if held else str(source.path)


def named(experts: Any) -> dict[str, Source]:
    """Experts by name; those of a sequence are called `expert 1`, `expert 2` and so on."""
    by_name = isinstance(experts, Mapping)
    if by_name:
        one = bool(experts) and all(isinstance(value, Tensor) for value in experts.values())
    else:
        one = isinstance(experts, str) or not isinstance(experts, Sequence)
    if one:
        raise InputError(
            "experts",
            expected="a mapping from names to models, or a list of models",
            found="one state dict" if by_name else type(experts).__name__,
            remedy="Put it in a list, also where it is the only one.",
        )
    if not by_name:
        return {f"expert {number}": source for number, source in enumerate(experts, 1)}
    found = by_text("experts", experts)
    for name in found:
        if name.strip() in ("", ".", ".."):  # a folder for its head
            raise InputError(
                "name of an expert",
                expected="a name that a folder can have",
                found=f"'{name}'",
                remedy="Give it another name.",
            )
    return found


def by_text(thing: str, given: Mapping[Any, Any]) -> dict[str, Any]:
    """A mapping by the text of its keys; raises `InputError` where two of them read the same."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        if str(key) in found:
            raise InputError(
                thing,
                expected="names that differ as text",
                found=f"'{key}' twice",
                remedy="Rename one of the two.",
            )
        found[str(key)] = value
    return found


def statistics_of(given: Any, names: Sequence[str]) -> dict[str, Statistics]:
    """The statistics of each expert that has some, opened."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(
            "statistics",
            expected="a mapping from the experts' names to their statistics",
            found=type(given).__name__,
            remedy=f"Name the expert of each, as in statistics={{'{next(iter(names), 'a')}': …}}.",
        )
    by_name = by_text("statistics", given)
    return {name: measured_of(found, name) for name, found in by_name.items()}


def measured_of(given: Any, whose: str) -> Statistics:
    """Statistics as they are, or those of a file."""
    if isinstance(given, Statistics):
        return given
    if not isinstance(given, str | Path):
        raise InputError(
            f"statistics of '{whose}'",
            expected="what `measure` returned, or the path of its file",
            found=type(given).__name__,
            remedy="Leave it out where nothing was measured." if given is None else "",
        )
    return Statistics.open(given)


def weights_of(given: Any, names: Sequence[str]) -> dict[str, float]:
    """The weight of each expert; those that a mapping leaves out have 1."""
    if given is None:
        return dict.fromkeys(names, 1.0)
    if isinstance(given, Mapping):
        by_name = by_text("weights", given)
        for name in by_name:
            member("weight of an expert", name, names)
        return {name: by_name.get(name, 1.0) for name in names}
    values = given.tolist() if hasattr(given, "tolist") else given  # arrays and tensors
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise InputError(
            "weights",
            expected="a list of numbers, or a mapping from the experts' names to numbers",
            found=repr(values) if isinstance(values, str | int | float) else type(given).__name__,
            remedy=f"Give {len(names)}, one an expert.",
        )
    if len(values) != len(names):
        raise InputError("weights", expected=f"{len(names)}, one an expert", found=f"{len(values)}")
    return dict(zip(names, values, strict=True))


def patterns(heads: Any) -> list[str] | None:
    """Patterns of head tensors; one of them may be given as it is."""
    if heads is None or isinstance(heads, str):
        return None if heads is None else [heads]
    found = list(heads) if isinstance(heads, Iterable) else [heads]
    other = next((one for one in found if not isinstance(one, str)), None)
    if other is not None or isinstance(heads, Mapping):
        raise InputError(
            "heads",
            expected="patterns of tensors' names, such as ['classifier.*']",
            found=type(heads if other is heads or other is None else other).__name__,
            remedy="Pass names or patterns, or leave it out to have heads recognised.",
        )
    return found


def _fitted(
    statistics: Statistics | None, on: Weights, whose: str, prints: Mapping[str, str]
) -> Statistics | None:
    """Statistics under the base's names, where they are of this model."""
    if statistics is None:
        return None
    statistics = aligned_statistics(statistics, on)
    source = original(on)
    if isinstance(source, InMemory) or statistics.source.startswith("memory:"):
        _same_model(statistics, on, whose, prints)
        statistics.warn()
    else:
        statistics.check(on.fingerprint)
    statistics = read_through(statistics, on)
    _require_names(statistics, on, whose)
    renamed = statistics.shared(source.aliases).under({on.own(name): name for name in on.tensors})
    return renamed.shared(on.aliases)


def _same_model(statistics: Statistics, on: Weights, whose: str, prints: Mapping[str, str]) -> None:
    """Refuse statistics of another expert; say where they are of other numbers than these.

    A module may be cast, wrapped or trained on after it was measured, which its caller may want.
    """
    said, ours = statistics.metadata.get("fingerprint", ""), on.fingerprint
    if said == ours:
        return
    others = [name for name, fingerprint in prints.items() if said == fingerprint]
    if others and whose not in others:
        raise InputError(
            f"statistics of '{whose}'",
            expected="those that were measured on it",
            found=f"those of '{others[0]}'",
            remedy="Give each expert its own.",
        )
    if said:
        warnings.warn(
            f"the statistics of '{whose}' were measured on other numbers than the model has now "
            "(cast or trained since?); taken as they are",
            stacklevel=2,
        )


def _require_names(statistics: Statistics, on: Weights, whose: str) -> None:
    """Raise `InputError` where no statistic has its parameter, or one has another shape."""
    known = False
    by_own = {name: name for name in on.tensors} | {on.own(name): name for name in on.tensors}
    for name, shape in statistics.shapes.items():
        stem, _, kind = name.rpartition(".")
        parameter = _parameter(stem, kind, by_own)
        if parameter is None:
            continue
        known = True
        ours = on.tensors[parameter].shape
        if not _fits(kind, shape, ours):
            raise InputError(
                f"'{name}' of the statistics of '{whose}'",
                expected=f"a shape that belongs to '{on.own(parameter)}' {list(ours)}",
                found=f"{list(shape)}",
                remedy="They were measured on another model; measure this one.",
            )
    if not known:
        raise InputError(
            f"statistics of '{whose}'",
            expected=f"the names of its tensors: {listing(map(on.own, on.tensors))}",
            found=listing(dict.fromkeys(n.rpartition(".")[0] for n in statistics.shapes)),
            remedy="They were measured on another model, or on this one inside a wrapper; "
            "measure the module whose state dict is merged, or rename with `Statistics.under`.",
        )


def _parameter(stem: str, kind: str, by_own: Mapping[str, str]) -> str | None:
    """The parameter that a statistic belongs to, by the base's name."""
    names = (stem,) if kind in OF_PARAMETERS else (f"{stem}.weight", f"{stem}.in_proj_weight")
    return next((by_own[name] for name in names if name in by_own), None)


def _fits(kind: str, shape: tuple[int, ...], parameter: tuple[int, ...]) -> bool:
    if kind == "fisher":
        return shape == parameter
    if kind == "block":
        return shape == (math.prod(parameter),) * 2
    # A weight may be stored as (d_in, d_out): which side is meant, its reader knows.
    return not shape or shape[-1] in parameter
