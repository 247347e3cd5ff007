"""Statistics and model, matched by name and by shape before anything is merged."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..checkpoints import Weights, unwrapped
from ..errors import InputError, listing
from ..families import Family
from ..names import is_weight, module_of
from ..statistics import Statistics, whole_name

Shape = tuple[int, ...]


def require_matching(
    families: Sequence[Family], statistics: Mapping[str, Statistics | None], kinds: frozenset[str]
) -> None:
    """Raise `InputError` where statistics that a method reads are not those of the family's layers.

    Names that match no layer at all are refused with both lists, and so is a statistic whose shape
    is not that of the layer with its name.  What a file has beside (of heads, of other kinds) is
    left alone.

    families     of the checkpoints' tensors and, where all are (IA)³ adapters, of their vectors
    statistics   of each expert and of the base, by what they are of
    kinds        that the method reads
    """
    if not kinds:
        return
    expected = {name: shape for family in families for name, shape in _expected(family)}
    for whose, own in statistics.items():
        if own is not None:
            _match(whose, own, expected, kinds)


def read_through(statistics: Statistics, on: Weights) -> Statistics:
    """Statistics without the wrappers of training in their names, where these are none of the
    names of the model's tensors and modules."""
    names = {*on.tensors, *map(on.own, on.tensors)}
    stems = _stems(statistics.shapes)
    if {*names, *map(module_of, names)}.isdisjoint(stems):
        return statistics.under(unwrapped(stems))
    return statistics


def warn_of_labels(measured: Iterable[Statistics | None]) -> None:
    """Warn of statistics that were measured in two ways, where some are to be weighed against
    others."""
    kinds = {one.metadata.get("labels", "") for one in measured if one is not None} - {""}
    if len(kinds) > 1:
        warnings.warn(
            f"statistics were measured with labels of two kinds ({listing(sorted(kinds))}): their "
            "Fishers and output Grams are not of one scale",
            stacklevel=2,
        )


def _match(
    whose: str, statistics: Statistics, expected: Mapping[str, Shape], kinds: frozenset[str]
) -> None:
    thing = f"statistics '{statistics.source}' of {whose}"
    held = {n: s for n, s in statistics.shapes.items() if _kind(n) in kinds}
    matched = [name for name in held if whole_name(name) in expected]
    if held and not matched:
        raise InputError(
            thing,
            expected=f"those of its layers: {listing(_stems(expected), 4)}",
            found=f"those of {listing(_stems(held), 4)}",
            remedy="No name is the same: measure them again on this checkpoint.",
        )
    for name in matched:
        shape, wanted = tuple(held[name]), expected[whole_name(name)]
        if not _fits(name, shape, wanted):
            raise InputError(
                thing,
                expected=f"'{name}' with shape {list(wanted)}, as its layer has it",
                found=f"shape {list(shape)}",
                remedy="Measure them again on this checkpoint.",
            )


def _expected(family: Family) -> Iterator[tuple[str, Shape]]:
    """(name, shape) of every statistic that the family's shared tensors can have."""
    for name in family.shared:
        stored = tuple(family.base.tensors[name].shape)
        elements = math.prod(stored)
        yield f"{name}.fisher", stored
        yield f"{name}.block", (elements, elements)
        if len(stored) == 2 and is_weight(name):
            rows, columns = family.shape(name)
            module = module_of(name)
            yield f"{module}.input_gram", (columns, columns)
            yield f"{module}.input_mean", (columns,)
            yield f"{module}.output_gradient_gram", (rows, rows)


def _kind(name: str) -> str:
    return whole_name(name).rpartition(".")[2]


def _fits(name: str, shape: Shape, wanted: Shape) -> bool:
    if name.endswith("_factor"):
        return len(shape) == 2 and shape[1] == wanted[1]
    return name.endswith("_rest") or shape == wanted


def _stems(names: Mapping[str, Shape]) -> list[str]:
    """The layers that statistics speak of, each once."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))
