"""Weight matching: the order of a model's units in which its weights are most like another's.

Git Re-Basin (arXiv 2209.04836): for one set of units the inner product of all weights that touch
them is a sum over pairs (place, unit), which `scipy.optimize.linear_sum_assignment` maximises
exactly; sets that share a weight are matched in turn until nothing is gained.  Heads are matched by
the best that their own dimensions allow, groups of heads by the best of their heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from .symmetry import Order, Part, Placement, Symmetry, put

ROUNDS = 50  # over all sets of units; a few are enough
INNER = 10  # over heads and their dimensions
GAIN = 1e-9  # of the norms, below which nothing was gained

State = dict[str, Tensor]


def match(
    symmetries: Sequence[Symmetry],
    model: Mapping[str, Tensor],
    to: Mapping[str, Tensor],
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Placement:
    """Where each axis's entries come from, so that the model's weights are most like the other's.

    symmetries   of the model, whose free letters are permuted
    model, to    tensors by the names that the symmetries use; those that only one has, or in
                 another shape, follow and decide nothing
    shapes       of all tensors that the symmetries name; the model's by default
    """
    known = shapes or {name: tuple(value.shape) for name, value in model.items()}
    shared = {n: v.double() for n, v in model.items() if n in to and to[n].shape == v.shape}
    goal = {name: to[name].double() for name in shared}
    placement = Placement(known)
    scale = sum(float(v.norm()) * float(goal[n].norm()) for n, v in shared.items())
    for _ in range(ROUNDS):
        gained = 0.0
        for symmetry in symmetries:
            order = _best(symmetry, shared, goal)
            names = {part.tensor for part in symmetry.parts} & shared.keys()
            before = sum(float((shared[n] * goal[n]).sum()) for n in names)
            trial = Placement(known).follow(symmetry, order)
            moved = {n: put(shared[n], trial[n]) for n in names}
            gain = sum(float((moved[n] * goal[n]).sum()) for n in names) - before
            if gain > GAIN * scale:
                placement.follow(symmetry, order)
                shared |= moved
                gained += gain
        if gained <= 0:
            break
    return placement


def _best(symmetry: Symmetry, model: State, to: State) -> Order:
    """The order of one symmetry's units with the largest inner product, others staying."""
    sizes = {"H": 1, "V": 1, "Q": 1, **symmetry.sizes}
    tables = _tables(symmetry.parts, model, to)
    if symmetry.sizes.keys() == {"G"}:
        order = Order.same(sizes)
        return Order(_assigned(tables["G"]), order.heads, order.values, order.queries)
    count, heads = sizes["G"], sizes["H"]
    gains = np.full((count, count), -np.inf)
    inner: dict[tuple[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    for here in range(count):
        for there in range(count):
            if "G" not in symmetry.free and here != there:
                continue
            own = {dims: _pair(table, dims, here, there) for dims, table in tables.items()}
            found = _within(own, sizes, symmetry.free)
            inner[here, there], gains[here, there] = found[:3], found[3]
    groups = _assigned(gains) if "G" in symmetry.free else torch.arange(count)
    rows = [inner[here, int(there)] for here, there in enumerate(groups)]
    assert all(len(row[0]) == heads for row in rows)
    stacked = (torch.from_numpy(np.stack([row[k] for row in rows])) for k in range(3))
    return Order(groups, *stacked)


def _pair(table: np.ndarray, dims: str, here: int, there: int) -> np.ndarray:
    """The part of a table that is about one group of each model."""
    return table[here][(slice(None),) * (len(dims) - 1) + (there,)]


def _tables(parts: Sequence[Part], model: State, to: State) -> dict[str, np.ndarray]:
    """Inner products of all entries, by the letters that they are counted by: (places, entries)."""
    found: dict[str, np.ndarray] = {}
    for part in parts:
        if part.tensor not in model:
            continue
        entries = part.index.numel()
        ours, theirs = (
            one[part.tensor].movedim(part.axis, 0)[part.index.reshape(-1)].reshape(entries, -1)
            for one in (to, model)
        )
        shape = tuple(part.index.shape)
        table = (ours @ theirs.mT).numpy().reshape(shape + shape)
        found[part.dims] = found[part.dims] + table if part.dims in found else table
    return found


def _within(
    tables: Mapping[str, np.ndarray], sizes: Mapping[str, int], free: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(heads, values, queries, gain) of one group put into another's place."""
    h, v, q = sizes["H"], sizes["V"], sizes["Q"]
    zero = np.zeros
    each_q = tables.get("GHQ", zero((h, q, h, q)))
    each_v = tables.get("GHV", zero((h, v, h, v)))
    all_q, all_v = tables.get("GQ", zero((q, q))), tables.get("GV", zero((v, v)))

    def dims(table: np.ndarray, whole: np.ndarray, heads: np.ndarray, letter: str) -> np.ndarray:
        summed = whole + sum(table[i, :, int(j), :] for i, j in enumerate(heads))
        return _assigned(summed).numpy() if letter in free else np.arange(len(summed))

    def gain(heads: np.ndarray, values: np.ndarray, queries: np.ndarray) -> float:
        total = float(all_q[np.arange(q), queries].sum() + all_v[np.arange(v), values].sum())
        for i, j in enumerate(heads):
            total += float(each_q[i, np.arange(q), int(j), queries].sum())
            total += float(each_v[i, np.arange(v), int(j), values].sum())
        return total

    heads = _first_heads(each_q, each_v, all_q, all_v, free)
    best = (heads, np.arange(v), np.arange(q), -np.inf)
    for _ in range(INNER):
        values = dims(each_v, all_v, heads, "V")
        queries = dims(each_q, all_q, heads, "Q")
        reached = gain(heads, values, queries)
        if reached <= best[3]:
            break
        best = (heads, values, queries, reached)
        if "H" not in free or h == 1:
            break
        table = each_q[:, np.arange(q), :, queries].sum(0) + each_v[:, np.arange(v), :, values].sum(
            0
        )
        heads = _assigned(table).numpy()
    return best


def _first_heads(
    each_q: np.ndarray, each_v: np.ndarray, all_q: np.ndarray, all_v: np.ndarray, free: str
) -> np.ndarray:
    """Heads matched by the best that their own dimensions allow, each pair by itself."""
    count = len(each_q)
    if "H" not in free or count == 1:
        return np.arange(count)
    table = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            for each, whole, letter in ((each_q, all_q, "Q"), (each_v, all_v, "V")):
                own = each[i, :, j, :] + whole / count
                order = _assigned(own).numpy() if letter in free else np.arange(len(own))
                table[i, j] += own[np.arange(len(own)), order].sum()
    return _assigned(table).numpy()


def _assigned(gains: np.ndarray) -> Tensor:
    """For each row the column, one each, with the largest sum."""
    from scipy.optimize import linear_sum_assignment  # slow to load, and seldom needed

    return torch.from_numpy(linear_sum_assignment(gains, maximize=True)[1].astype(np.int64))
