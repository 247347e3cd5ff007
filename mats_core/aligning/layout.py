"""What the answers of a layer's inputs say of the units before it; tensors alone, no model.

`answers` are (layer, (outputs, inputs) which inputs answer to each of its outputs).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

Answers = Sequence[tuple[str, Tensor]]
# What the units are, (layer, letters, its outputs by these), (letters, inputs by these).
Placed = tuple[str, list[tuple[str, str, Tensor]], tuple[str, Tensor]]


def layout(answers: Answers) -> Placed | None:
    """Units that can change places: of an MLP, or heads of an attention; None where neither."""
    return _units(answers) or _heads(answers)


def _units(answers: Answers) -> Placed | None:
    """Units of an MLP: every output decides one input, and as many outputs of a layer each."""
    placed: list[tuple[str, str, Tensor]] = []
    for layer, heard in answers:
        each = heard.sum(0)
        if not bool((heard.sum(1) == 1).all()) or not bool((each == each[0]).all()):
            return None
        by_input = heard.mT.nonzero()[:, 1].view(heard.shape[1], -1)
        placed += [(layer, "G", by_input[:, slot]) for slot in range(by_input.shape[1])]
    inputs = torch.arange(answers[0][1].shape[1])
    return "units of the MLP", placed, ("G", inputs)


def _heads(answers: Answers) -> Placed | None:
    """Heads of an attention, in groups with keys and values of their own."""
    rows = [(layer, unit, frozenset(row.nonzero()[:, 0].tolist()))
            for layer, heard in answers for unit, row in enumerate(heard)]  # fmt: skip
    count = answers[0][1].shape[1]
    heads = _blocks([own for _, _, own in rows], count)
    if heads is None:
        return None
    of_input = {c: h for h, own in enumerate(heads) for c in own}
    queries: dict[tuple[str, frozenset[int]], list[int]] = {}  # of whole heads, and whole groups
    values: list[tuple[str, int, frozenset[int]]] = []
    for layer, unit, own in rows:
        touched = {of_input[c] for c in own}
        if len(own) == sum(len(heads[h]) for h in touched):
            queries.setdefault((layer, frozenset(touched)), []).append(unit)
        elif len(own) == len(touched):
            values.append((layer, unit, own))
        else:
            return None
    together = {own for _, own in queries if len(own) > 1}
    groups = sorted(map(sorted, together)) if together else [[h] for h in range(len(heads))]
    if sorted(h for own in groups for h in own) != list(range(len(heads))):
        return None
    if len({len(own) for own in groups}) != 1:
        return None
    columns = torch.tensor([[heads[h] for h in own] for own in groups])  # (G, H, V)
    placed = [
        *_query_parts(queries, groups, alone=not together),
        *_value_parts(values, groups, columns),
    ]
    return ("heads of the attention", placed, ("GHV", columns)) if placed else None


def _blocks(rows: Sequence[frozenset[int]], count: int) -> list[list[int]] | None:
    """The inputs of each head: the smallest sets that neighbouring outputs have in common, if
    these are all inputs, once each and equally many."""
    pairs = itertools.pairwise(rows)
    repeated = {one for one, two in pairs if one == two and len(one) > 1}
    smallest = [own for own in repeated if not any(other < own for other in repeated)]
    blocks = sorted(map(sorted, smallest))
    whole = sorted(c for own in blocks for c in own) == list(range(count))
    return blocks if whole and len({len(own) for own in blocks}) == 1 else None


def _query_parts(
    queries: Mapping[tuple[str, frozenset[int]], list[int]],
    groups: Sequence[Sequence[int]],
    *,
    alone: bool,
) -> Iterator[tuple[str, str, Tensor]]:
    """Queries, and keys: of a head where every head has its own, of a group else."""
    layers = dict.fromkeys(layer for layer, _ in queries)
    of_head = {
        layer: [[queries.get((layer, frozenset({h})), []) for h in own] for own in groups]
        for layer in layers
    }
    each = sum(len(own[0][0]) for own in of_head.values())
    size = each // 2 if alone else each
    for layer, index in of_head.items():
        lengths = {len(units) for own in index for units in own}
        for slot in range(max(lengths) // size if size and len(lengths) == 1 else 0):
            part = slice(slot * size, (slot + 1) * size)
            yield layer, "GHQ", torch.tensor([[units[part] for units in own] for own in index])
    if alone:
        return
    for layer in layers:
        keys = [queries.get((layer, frozenset(own)), []) for own in groups]
        if all(len(units) == size for units in keys):
            yield layer, "GQ", torch.tensor(keys)


def _value_parts(
    values: Sequence[tuple[str, int, frozenset[int]]],
    groups: Sequence[Sequence[int]],
    columns: Tensor,
) -> Iterator[tuple[str, str, Tensor]]:
    """Values: the output that decides one place in every head of its group."""
    wanted = {
        frozenset(columns[g, :, v].tolist()): (g, v)
        for g in range(len(groups))
        for v in range(columns.shape[2])
    }
    for layer in dict.fromkeys(layer for layer, _, _ in values):
        index = torch.full((columns.shape[0], columns.shape[2]), -1)
        for _, unit, own in (one for one in values if one[0] == layer):
            if own in wanted:
                index[wanted[own]] = unit
        if bool((index >= 0).all()):
            yield layer, "GV", index
