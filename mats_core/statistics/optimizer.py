"""A diagonal Fisher that a training has left behind: the second moments of its AdamW.

Adam's v is a decaying mean of the squared gradient of a batch, v_t = β₂ v_{t−1} + (1 − β₂) g_t²,
without its bias v̂ = v / (1 − β₂^t): the diagonal Fisher along the last 1 / (1 − β₂) updates, up to
a common factor (a batch's mean gradient stands in place of an example's).  Perone, Silveira and
Paula take it so for Laplace's approximation (L2M, arXiv 2107.04695).  No data and no pass over the
model is needed; there are no Grams.

An optimiser's file numbers its parameters instead of naming them.  Whose each moment is follows
from the model: within each group they stand in the order of its parameters, and have their shapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from .. import models
from ..checkpoints import (
    Checkpoint,
    InMemory,
    Moment,
    SecondMoments,
    Weights,
    hub,
    inside,
    original,
    unwrapped,
)
from ..errors import InputError, listing
from .store import FORMAT, Statistics

ORIGIN = "optimiser state"
BEGINNING = "the diagonal Fisher is from the optimiser's state"
MOST_STATES = 20_000  # places in all groups that are followed at once
NAMED = (
    "Name the parameters: torch.optim.AdamW(model.named_parameters(), …) keeps their names in its "
    "state; or write them as safetensors, `<parameter>.exp_avg_sq` with 'step' and 'beta2' in the "
    "metadata."
)
# Of Hugging Face's Trainer: what has no weight decay, in its present rule and in an older one.
PRESENT = re.compile(r"bias|layernorm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)", re.IGNORECASE)
OLDER = re.compile(r"bias")
SCRIPTS = re.compile(r"bias|LayerNorm")  # of transformers' examples before the Trainer


@dataclass(frozen=True)
class _Parameter:
    """One parameter of a model, in the order in which an optimiser is given them."""

    module: str  # its name in the module
    tensor: str | None  # its name in the checkpoint; None where that holds it in parts
    shape: tuple[int, ...]
    in_norm: bool
    in_head: bool


Order = tuple[tuple[int, ...], ...]  # of each group: which parameter each entry is of


def optimizer_statistics(model: nn.Module | Weights | str | Path, path: str | Path) -> Statistics:
    """The diagonal Fisher of every parameter that a training has updated, from the second moments
    in the file of its AdamW.

    model   a module as it was trained, or a checkpoint (its path, hub id or weights); frozen
            parameters of a module are none of the optimiser's
    path    `optimizer.pt` of the Trainer, a saved `state_dict()`, or safetensors (`SecondMoments`)

    Raises `InputError` for a file that needs code, for the state of another optimiser or model, and
    where its entries fit the parameters in more than one way.
    """
    weights = _opened(model)
    if weights.form:
        raise InputError(
            f"optimiser state '{path}' of '{weights.path}'",
            expected="that of a whole model",
            found=f"that of {weights.form}: moments of its factors, and not of the matrices that "
            "are merged",
            remedy="Measure the expert on its task instead.",
        )
    found = SecondMoments.open(path)
    thing = f"optimiser state '{found.path}'"
    if found.names is not None:
        moments = _by_name(thing, found, weights)
    else:
        moments = _by_order(thing, found, weights)
    steps = sorted({moment.step for moment in moments.values()})
    shapes = {f"{name}.fisher": moment.shape for name, moment in moments.items()}
    said = f"{steps[-1]:,}" if len(steps) == 1 else f"{steps[0]:,} to {steps[-1]:,}"
    metadata = {
        "format": FORMAT,
        "origin": ORIGIN,
        "optimizer": found.digest,
        "steps": str(steps[-1]),
        "fingerprint": weights.fingerprint,
        "notes": f"{BEGINNING} after {said} updates "
        f"('{found.path.name}'), and was not measured on data",
    }
    return Statistics(shapes, metadata, partial(_fisher, moments), str(found.path))


def _opened(model: nn.Module | Weights | str | Path) -> Weights:
    if isinstance(model, nn.Module):
        return InMemory.of(model, "model")
    return Checkpoint.open(hub.locate(model)) if isinstance(model, str | Path) else model


def with_optimizer(measured: Statistics | None, of_optimizer: Statistics) -> Statistics:
    """Statistics whose diagonal Fishers are those of an optimiser's state, in place of measured
    ones; other kinds stay."""
    if measured is None:
        return of_optimizer
    kept = {n: s for n, s in measured.shapes.items() if not n.endswith(".fisher")}
    notes = "\n".join(
        filter(None, (one.metadata.get("notes", "") for one in (measured, of_optimizer)))
    )
    # Each says what it is of; the measured ones are then compared with the checkpoint.
    metadata = {**of_optimizer.metadata, **measured.metadata, "notes": notes}
    return replace(
        measured,
        shapes={**kept, **of_optimizer.shapes},
        metadata=metadata,
        _read=partial(_either, measured, of_optimizer),
    )


def origins(measured: Mapping[str, Statistics | None]) -> list[str]:
    """A sentence on each expert, by its name, whose statistics are not all measured on data."""
    told = {
        name: own.metadata.get("notes", "") for name, own in measured.items() if own is not None
    }
    return [
        f"expert '{name}': {line}"
        for name, text in told.items()
        for line in text.splitlines()
        if line.startswith(BEGINNING)
    ]


def _either(measured: Statistics, of_optimizer: Statistics, name: str) -> Tensor:
    return (of_optimizer if name in of_optimizer.shapes else measured).stored(name)


def _fisher(moments: Mapping[str, Moment], name: str) -> Tensor:
    return moments[name.removesuffix(".fisher")].corrected


# Whose each moment is -----------------------------------------------------------------------------


def _by_name(thing: str, found: SecondMoments, weights: Weights) -> dict[str, Moment]:
    """Moments by the checkpoint's names, where the file has the parameters' names."""
    assert found.names is not None
    given: dict[str, Moment] = {}
    for names, moments in zip(found.names, found.groups, strict=True):
        given |= {n: m for n, m in zip(names, moments, strict=True) if m is not None}
    plain = unwrapped(given)
    known = {name: name for name in weights.tensors}
    if not known.keys() >= set(plain.values()) and weights.directory is not None:
        shapes = models.shapes_of(weights.tensors)
        known = models.with_names(weights.directory, shapes)[1] | known
    matched = {known[plain[name]]: name for name in given if plain[name] in known}
    if not matched:
        raise InputError(
            thing,
            expected=f"the names of the model's parameters: {listing(weights.tensors)}",
            found=listing(given),
            remedy="Is this the state of another model's training?",
        )
    for own, name in matched.items():
        shape = tuple(weights.tensors[own].shape)
        if given[name].shape != shape:
            raise _other_shape(thing, name, shape, given[name].shape)
    return {own: given[name] for own, name in matched.items()}


def _by_order(thing: str, found: SecondMoments, weights: Weights) -> dict[str, Moment]:
    """Moments by the checkpoint's names, from the order of the model's parameters."""
    parameters = _parameters(thing, weights)
    groups = [group for group in found.groups if group]
    count = sum(map(len, groups))
    if count > len(parameters):
        raise InputError(
            thing,
            expected=f"at most the model's {len(parameters)} parameters",
            found=f"{count} entries",
            remedy="Is this the state of another model's training, or was the model saved without "
            "a part of it?",
        )
    orders = _orders(parameters, groups)
    if not orders:
        _refuse_shapes(thing, parameters, groups)
    if len(orders) != 1:
        how = f"in more than one way ({len(groups)} groups, {count} entries)"
        raise InputError(
            f"{thing} of '{weights.path}'",
            expected=f"entries that fit the model's {len(parameters)} parameters in one way, by "
            "their order and shapes",
            found=how if orders else "several ways, none of which is that of a known training",
            remedy=NAMED,
        )
    pairs = (
        (parameters[index].tensor, moment)
        for order, group in zip(orders[0], groups, strict=True)
        for index, moment in zip(order, group, strict=True)
    )
    return {name: moment for name, moment in pairs if name is not None and moment is not None}


def _parameters(thing: str, weights: Weights) -> list[_Parameter]:
    """The parameters that a training of the model updates, in its own order."""
    source = original(weights)
    if isinstance(source, InMemory) and source.module is not None:
        module, names = source.module, {name: name for name in source.tensors}
    elif weights.directory is not None:
        module, names = models.with_names(weights.directory, models.shapes_of(weights.tensors))
    else:
        raise InputError(
            thing,
            expected="the parameters' names, or a model whose modules say their order",
            found=f"numbers alone, and tensors without a configuration ('{weights.path}')",
            remedy=f"Pass the module, or a folder with its config.json. {NAMED}",
        )
    encoder = str(getattr(inside(module), "base_model_prefix", "") or "")
    parts = dict(module.named_children())
    known = encoder in parts and len(parts) > 1
    norms = {name for name, own in module.named_modules() if isinstance(own, nn.LayerNorm)}
    return [
        _Parameter(
            module=name,
            tensor=names.get(name),
            shape=tuple(value.shape),
            in_norm=name.rpartition(".")[0] in norms,
            in_head=known and not name.startswith(f"{encoder}."),
        )
        for name, value in module.named_parameters()
        if value.requires_grad
    ]


Group = Sequence[Moment | None]


def _orders(parameters: Sequence[_Parameter], groups: Sequence[Group]) -> list[Order]:
    """Ways in which the groups' entries are parameters: the one that shapes leave, or those of
    known trainings where shapes leave several; two are enough to be ambiguous."""
    by_shape = _by_shape(parameters, groups)
    if len(by_shape) <= 1:
        return by_shape
    if sum(map(len, groups)) < len(parameters):
        return by_shape
    known = dict.fromkeys(filter(None, (_by_rule(parameters, groups, r) for r in _rules())))
    return list(known) or by_shape


def _by_shape(parameters: Sequence[_Parameter], groups: Sequence[Group]) -> list[Order]:
    """Up to two ways to deal the parameters out to the groups, in their order and with the shapes
    of the entries; some may be left out where there are more of them."""
    spare = len(parameters) - sum(map(len, groups))
    # Places in all groups → the ways that lead there, as linked lists of (group, way before).
    ways: dict[tuple[int, ...], list[Any]] = {(0,) * len(groups): [()]}
    for number, parameter in enumerate(parameters):
        after: dict[tuple[int, ...], list[Any]] = {}
        for places, known in ways.items():
            for index, group in enumerate(groups):
                if places[index] < len(group) and _fits(group[places[index]], parameter):
                    nearer = (*places[:index], places[index] + 1, *places[index + 1 :])
                    _add(after, nearer, known, index)
            if number + 1 - sum(places) <= spare:
                _add(after, places, known, -1)
        ways = after
        if len(ways) > MOST_STATES:
            return [(), ()]  # too many to tell
    ends = ways.get(tuple(map(len, groups)), [])
    return [_dealt(way, len(groups), len(parameters)) for way in ends]


def _add(
    ways: dict[tuple[int, ...], list[Any]], places: tuple[int, ...], known: list[Any], group: int
) -> None:
    held = ways.setdefault(places, [])
    held += [(group, way) for way in known[: 2 - len(held)]]


def _dealt(way: Any, groups: int, parameters: int) -> Order:
    """The parameters of each group, from a way that was followed backwards."""
    found: list[list[int]] = [[] for _ in range(groups)]
    for number in reversed(range(parameters)):
        group, way = way
        if group >= 0:
            found[group].append(number)
    return tuple(tuple(reversed(own)) for own in found)


def _fits(moment: Moment | None, parameter: _Parameter) -> bool:
    return moment is None or moment.shape == parameter.shape


Rule = Callable[[_Parameter], tuple[bool, ...]]


def _rules() -> Iterator[Rule]:
    """What trainings sort parameters by: weight decay or none, encoder or head, or both."""
    decay: list[Callable[[_Parameter], bool]] = [
        lambda own: not own.in_norm and not PRESENT.search(own.module),
        lambda own: not own.in_norm and not OLDER.search(own.module),
        lambda own: not SCRIPTS.search(own.module),
        lambda own: len(own.shape) >= 2,
    ]
    yield lambda own: ()
    yield lambda own: (own.in_head,)
    for one in decay:
        yield lambda own, one=one: (one(own),)
        yield lambda own, one=one: (one(own), own.in_head)


def _by_rule(parameters: Sequence[_Parameter], groups: Sequence[Group], rule: Rule) -> Order | None:
    """The order in which a rule deals the parameters out; None where the groups do not fit it, or
    fit it twice."""
    classes: dict[tuple[bool, ...], list[int]] = {}
    for number, parameter in enumerate(parameters):
        classes.setdefault(rule(parameter), []).append(number)
    if len(classes) != len(groups):
        return None
    order: list[tuple[int, ...]] = []
    for group in groups:
        fitting = [
            own
            for own in classes.values()
            if len(own) == len(group)
            and all(_fits(m, parameters[n]) for m, n in zip(group, own, strict=True))
        ]
        if len(fitting) != 1:
            return None
        order.append(tuple(fitting[0]))
    return tuple(order) if len(set(order)) == len(order) else None


def _refuse_shapes(
    thing: str, parameters: Sequence[_Parameter], groups: Sequence[Group]
) -> NoReturn:
    """Raise `InputError` for entries that are none of the model's, with a shape that tells it."""
    ours = Counter(parameter.shape for parameter in parameters)
    theirs = Counter(m.shape for group in groups for m in group if m is not None)
    more = theirs - ours
    if more:
        shape = next(iter(more))
        raise InputError(
            thing,
            expected=f"{ours[shape]} parameters of shape {list(shape)}, as the model has",
            found=str(theirs[shape]),
            remedy="Is this the state of another model's training?",
        )
    raise InputError(
        thing,
        expected="entries in the order of the model's parameters within each group",
        found="another order",
        remedy=NAMED,
    )


def _other_shape(
    thing: str, name: str, ours: tuple[int, ...], theirs: tuple[int, ...]
) -> InputError:
    return InputError(
        f"'{name}' of {thing}",
        expected=f"the shape of the model's parameter, {list(ours)}",
        found=str(list(theirs)),
        remedy="Is this the state of another model's training?",
    )
