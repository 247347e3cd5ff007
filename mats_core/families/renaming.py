"""Names of one architecture under two conventions: several prefixes that changed, or a table.

Since transformers 4.52 a Qwen2-VL is saved with `model.visual.` and `model.language_model.` in
place of `visual.` and `model.`.  Where one prefix does not bring an expert's names to the base's, a
few of them together may: each substitution is judged by what it makes of names and shapes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping

from ..errors import InputError
from ..names import group_of

MOST = 4  # substitutions
Shapes = Mapping[str, tuple[int, ...]]
Move = tuple[str, str]  # a prefix, and what stands in its place; each empty or with its dot


def numbered(name: str) -> bool:
    """Whether a tensor is in a numbered block, deeper than a plain sequence of layers."""
    return re.search(r"(^|\.)\d+\.[^.]+\.", name) is not None


def left_over(base: Shapes, own: Mapping[str, str]) -> tuple[set[str], set[str]]:
    """Names in blocks that one side's file alone has: the base's, and the expert's own.

    own   an expert's name → the base's name that was found for it
    """
    met = set(own.values())
    return (
        {name for name in base if name not in met and numbered(name)},
        {name for name, ours in own.items() if ours not in base and numbered(name)},
    )


def by_table(
    base: Shapes, own: Shapes, of_base: Callable[[str], str], of_own: Callable[[str], str]
) -> dict[str, str]:
    """An expert's name → the base's, where both have one name today; empty where names collide.

    of_base, of_own   a name → the one that the class gives this tensor today
    """
    modern = {of_base(name): name for name in base}
    if len(modern) != len(base):
        return {}
    named = {name: of_own(name) for name in own}
    found = {name: modern[today] for name, today in named.items() if today in modern}
    fits = all(base[ours] == own[name] for name, ours in found.items())
    return found if fits and len(set(found.values())) == len(found) else {}


def by_prefixes(base: Shapes, own: Shapes, thing: str) -> dict[str, str]:
    """An expert's name → the base's, by at most `MOST` prefixes that others stand for.

    Only what gets a counterpart of its shape is there.  Raises `InputError` where two prefixes fit
    equally well.
    """
    moves = _moves(base, own)
    before: set[str] = set()
    left, free = set(own), set(base)
    found: dict[str, str] = {}
    while moves and len(before) < MOST:
        made = {move: _made(move, left, base, own, free) for move in moves}
        most = max(len(pairs) for pairs in made.values())
        if not most:
            break
        first, *others = sorted(move for move, pairs in made.items() if len(pairs) == most)
        _require_one(first, [move for move in others if move[0] == first[0]], thing)
        before.add(first[0])
        found |= made[first]
        left -= made[first].keys()
        free -= set(made[first].values())
        moves.remove(first)
    return found


def _moves(base: Shapes, own: Shapes) -> set[Move]:
    """What may stand for what, by the longest ends that names share; no block has a prefix of its
    own, so that one name of each group of like layers is enough."""
    alike: dict[tuple[str, tuple[int, ...]], set[str]] = defaultdict(set)
    for ours, shape in base.items():
        alike[ours.rpartition(".")[2], shape].add(group_of(ours))
    found: set[Move] = set()
    for name, shape in {(group_of(name), shape) for name, shape in own.items()}:
        ends: dict[int, set[Move]] = defaultdict(set)
        for ours in alike.get((name.rpartition(".")[2], shape), ()):
            length = _shared_end(name, ours)
            move = name[: len(name) - length], ours[: len(ours) - length]
            if "*" not in "".join(move):
                ends[length].add(move)
        found |= ends[max(ends)] if ends else set()
    return found


def _shared_end(first: str, second: str) -> int:
    """Characters of the dotted end that two names share."""
    mine, theirs = first.split("."), second.split(".")
    count = 0
    while count < min(len(mine), len(theirs)) and mine[-1 - count] == theirs[-1 - count]:
        count += 1
    return len(".".join(mine[len(mine) - count :])) if count else 0


def _made(move: Move, names: set[str], base: Shapes, own: Shapes, free: set[str]) -> dict[str, str]:
    """What a substitution brings to a tensor of the base that is free."""
    before, after = move
    pairs = {n: after + n[len(before) :] for n in names if n.startswith(before)}
    return {n: ours for n, ours in pairs.items() if ours in free and base[ours] == own[n]}


def _require_one(first: Move, others: list[Move], thing: str) -> None:
    if others:
        raise InputError(
            thing,
            expected="names that match the base's by a few prefixes",
            found=f"two prefixes that match equally well, '{first[1]}' and '{others[0][1]}'",
            remedy="Save it with the same class of model as the base.",
        )
