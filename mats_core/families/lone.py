"""What a tensor is that some file has and another has not: head, part, relic, buffer, or a misfit.

The classes of the models say, where they are known: what the base model's class does not reach is a
head; what an expert's class does not have is a part of the base; what no class has is a relic.
Without them a module at the top, of which the other side has nothing and that holds no blocks, is a
head.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..checkpoints import Weights
from ..errors import listing
from ..names import is_table, running_statistics
from .anatomy import Anatomy, Ask
from .expert import Expert
from .renaming import numbered

Kind = Literal["head", "part", "relic", "buffer", ""]
NORM = re.compile(r"(^|_)(layer_?norm|norm|ln|bn)(_|\d|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Lone:
    """The tensors of which it was found out what they are, by kind, with sentences about them."""

    names: Mapping[str, Kind] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of(self, kind: Kind) -> frozenset[str]:
        """Names of one kind."""
        return frozenset(name for name, found in self.names.items() if found == kind)


def sort_out(
    base: Weights, experts: Sequence[Expert], left: Collection[str], ask: Ask, *, heads: bool
) -> Lone:
    """What `left` are, which some file lacks or has in another shape; `heads`: whether any may be
    a head."""
    if not left:
        return Lone()
    family = _Classes(base, experts, ask)
    found: dict[str, Kind] = {name: family.kind(name) for name in sorted(left)}
    lone = _lone_modules(base, experts, {name for name in left if not found[name]})
    found |= dict.fromkeys((name for name in lone if not family.decides(name)), "head")
    rest = {name for name in left if not found[name]}
    rows = _other_outputs(base, experts, rest)
    if rest == {name for name in rows if not family.decides(name)}:  # else a layer is wider
        found |= dict.fromkeys(rows, "head")
    if not heads:
        found = {name: "" if kind == "head" else kind for name, kind in found.items()}
    return Lone(found, tuple(_notes(base, experts, found)))


class _Classes:
    """The classes of a base and its experts, asked once each."""

    def __init__(self, base: Weights, experts: Sequence[Expert], ask: Ask) -> None:
        self.weights, self.base = base, ask(base)
        self.experts = [(expert.checkpoint, ask(expert.checkpoint)) for expert in experts]
        names = base.tensors.keys() | {n for own, _ in self.experts for n in own.tensors}
        self.running = running_statistics(names)

    def _with(self, name: str) -> list[Anatomy | None]:
        return [anatomy for own, anatomy in self.experts if name in own.tensors]

    def _without(self, name: str) -> list[Anatomy | None]:
        return [anatomy for own, anatomy in self.experts if name not in own.tensors]

    def decides(self, name: str) -> bool:
        """Whether the class is known of a model that has this tensor."""
        if name in self.weights.tensors:
            return self.base is not None
        return None not in self._with(name)

    def kind(self, name: str) -> Kind:
        """What a tensor is by the classes; empty where they say nothing, or that it must fit."""
        known = [one for one in (self.base, *(own for _, own in self.experts)) if one is not None]
        if name not in self.running and any(one.buffer(name) for one in known):
            return "buffer"
        if not self.decides(name):
            return ""
        if name in self.weights.tensors:
            return self._of_the_base(name) if self._without(name) else self._reshaped(name, known)
        return self._of_an_expert(name)

    def _reshaped(self, name: str, known: Sequence[Anatomy]) -> Kind:
        return "" if any(one.reaches(name) for one in known) else "head"

    def _of_the_base(self, name: str) -> Kind:
        assert self.base is not None
        without = self._without(name)
        readers = [one for one in (self.base, *without) if one is not None]
        if not any(one.reaches(name) for one in readers):
            if self.base.holds(name):
                return "head"
            passed = numbered(name) or any(one.ignores(name) for one in readers)
            return "relic" if passed else "head"
        # Reached by the base's class: what an expert's class does not have is a part.
        return "part" if all(one is not None and not one.holds(name) for one in without) else ""

    def _of_an_expert(self, name: str) -> Kind:
        own = [one for one in self._with(name) if one is not None]
        if any(one.reaches(name) for one in (*own, self.base) if one is not None):
            return ""
        if any(one.holds(name) for one in own):
            return "head"
        if all(one.ignores(name) for one in own):
            return "relic"
        # In a block: trained, and of no class that is known.
        return "" if numbered(name) else "head"


# By the files alone -------------------------------------------------------------------------------


def _lone_modules(
    base: Weights, experts: Sequence[Expert], left: Collection[str]
) -> frozenset[str]:
    """Of `left`, the tensors of modules at the top that are heads by what the files hold."""
    found = frozenset(
        name
        for names in _at_the_top(base, experts)
        if _is_head(names, base, experts, left)
        for name in names
        if name in left
    )
    shared = set(base.tensors).intersection(*(e.checkpoint.tensors for e in experts)) - found
    return found if len(shared) >= len(found) else frozenset()  # else the two are strangers


def _other_outputs(
    base: Weights, experts: Sequence[Expert], left: Collection[str]
) -> frozenset[str]:
    """Of `left`, the tensors of layers at the top that differ by their number of outputs."""
    chosen = (names for names in _at_the_top(base, experts) if _by_rows(names, base, experts, left))
    return frozenset(name for names in chosen for name in names if name in left)


def _at_the_top(base: Weights, experts: Sequence[Expert]) -> list[set[str]]:
    """The tensors of each module at the top that is no norm, no table, and holds no blocks."""
    everything = {*base.tensors, *(n for e in experts for n in e.checkpoint.tensors)}
    depth = _shared_depth(everything)
    found: dict[str, set[str]] = {}
    for name in everything:
        parts = name.split(".")
        if len(parts) > depth + 1:
            found.setdefault(parts[depth], set()).add(name)
    return [
        names
        for top, names in found.items()
        if not NORM.search(top) and not any(numbered(n) or is_table(n) for n in names)
    ]


def _shared_depth(names: Collection[str]) -> int:
    """Components that all names begin with."""
    first, last = min(names).split("."), max(names).split(".")
    depth = 0
    while depth < min(len(first), len(last)) - 1 and first[depth] == last[depth]:
        depth += 1
    return depth


def _is_head(
    names: set[str], base: Weights, experts: Sequence[Expert], left: Collection[str]
) -> bool:
    """Whether one side has nothing of a module; what only some experts lack is damage."""
    has = [any(name in e.checkpoint.tensors for name in names) for e in experts]
    in_base = any(name in base.tensors for name in names)
    return in_base != any(has) and (in_base or names <= set(left))


def _by_rows(
    names: set[str], base: Weights, experts: Sequence[Expert], left: Collection[str]
) -> bool:
    """Whether a layer with a bias has other outputs in each file: an embedding has no bias."""
    checkpoints, differing = [base, *(e.checkpoint for e in experts)], names & set(left)
    if not any(name.endswith("bias") for name in differing):
        return False
    if any(name not in c.tensors for name in names for c in checkpoints):
        return False
    inputs = {(n, c.tensors[n].shape[1:]) for n in differing for c in checkpoints}
    return len(inputs) == len(differing)


# In words -----------------------------------------------------------------------------------------


def _notes(base: Weights, experts: Sequence[Expert], found: Mapping[str, Kind]) -> list[str]:
    notes: list[str] = []
    everything = {*base.tensors, *(n for e in experts for n in e.checkpoint.tensors)}
    of = {
        kind: [n for n, one in found.items() if one == kind] for kind in ("head", "part", "relic")
    }
    if ours := [n for n in of["head"] if n in base.tensors]:
        notes.append(f"taken for a head, and not merged: {modules(ours, everything)} of the base")
    if theirs := [n for n in of["head"] if n not in base.tensors]:
        notes.append(
            f"taken for a head, and kept apart: {modules(theirs, everything)} of the experts"
        )
    for expert in experts:
        lacking = [n for n in of["part"] if n not in expert.checkpoint.tensors]
        if lacking:
            notes.append(
                f"expert '{expert.name}' is a part of the base: {len(lacking)} tensors that it "
                f"lacks ({modules(lacking, everything)}) are copied from the base"
            )
    if of["relic"]:
        notes.append(f"left out, for no model of this kind reads it: {listing(of['relic'], 4)}")
    return notes


def modules(names: Collection[str], others: Collection[str] = ()) -> str:
    """The modules that some names belong to, as far from the top as `others` are in them too."""
    return listing(dict.fromkeys(_module(name, set(others) - set(names)) for name in sorted(names)))


def _module(name: str, others: Collection[str]) -> str:
    parts = name.split(".")
    for depth in range(1, len(parts)):
        module = ".".join(parts[:depth])
        if not any(other.startswith(f"{module}.") for other in others):
            return module
    return name
