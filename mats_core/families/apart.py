"""What is not merged with its like: heads, and what need not be in every file."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..checkpoints import Renamed, Weights
from ..errors import listing
from ..names import is_buffer
from .anatomy import Anatomy, Ask, unknown
from .expert import Expert, aligned
from .heads import head_names
from .lone import Lone, sort_out
from .spare import Spare, spare
from .untied import untied


@dataclass(frozen=True)
class Apart:
    """A base and its experts, under one set of names, with what is kept apart in them.

    base      without what no model reads, and with an output layer that experts trained apart
    experts   under the base's names
    heads     names of the tensors that belong to a task's head
    spares    tensors that need not be in every file
    untied    such an output layer → the embedding that the base ties it to
    notes     what was decided, a sentence each
    """

    base: Weights
    experts: tuple[Expert, ...]
    heads: frozenset[str]
    spares: Spare
    untied: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Names of all that is kept apart."""
        return self.heads | self.spares.names


def set_apart(
    base: Weights, experts: Sequence[Expert], heads: Sequence[str] | None, ask: Ask = unknown
) -> Apart:
    """Base and experts under one set of names, and what is kept apart in them.

    heads   patterns of head tensors; None: they are recognised
    ask     what the classes of a model hold; it is asked only where files leave something open
    """
    ask = _once(ask)
    experts = aligned(base, experts, ask)
    base, experts, ties = untied(base, experts, ask)
    spares = spare(base, experts)
    names = head_names(base, experts, heads, spares.names)
    left = _left_open(base, experts) - names - spares.names
    lone = sort_out(base, experts, left, ask, heads=heads is None)
    spares = _with(spares, lone)
    if relics := spares.relics & base.tensors.keys():
        base = Renamed.of(base, {name: name for name in base.tensors if name not in relics})
    notes = [
        f"experts trained '{name}' apart from '{table}', to which the base ties it: both are "
        "merged, and the written configuration ties them no longer"
        for name, table in ties.items()
    ]
    found = frozenset(names | lone.of("head"))
    told = {name for name, kind in lone.names.items() if kind != "buffer"}
    by_name = frozenset(names) - told if heads is None else frozenset()
    few = _of_few(base, experts, by_name, spares.buffers - told)
    return Apart(base, experts, found, spares, ties, (*notes, *lone.notes, *few))


def _of_few(
    base: Weights, experts: Sequence[Expert], heads: frozenset[str], buffers: frozenset[str]
) -> list[str]:
    """Sentences on what is set apart in some experts, while the others and the base have none.

    What a name calls a buffer is left out: versions of one library differ by these.
    """
    notes = []
    for expert in experts:
        entries = expert.checkpoint.tensors
        lone = {
            name
            for name in (heads | buffers) & entries.keys() - base.tensors.keys()
            if any(name not in other.checkpoint.tensors for other in experts)
            and not is_buffer(name, entries[name].shape)
        }
        for some, said in (
            (lone & heads, "taken for its head, and kept apart"),
            (lone & buffers, "taken for what the model computes itself, and left out"),
        ):
            if some:
                what = f"{listing(sorted(some), 4)} of expert '{expert.name}'"
                notes.append(f"{what}, not in every file: {said}")
    return notes


def _once(ask: Ask) -> Ask:
    """The same, asked once for each of the weights."""
    held: dict[int, tuple[Weights, Anatomy | None]] = {}

    @functools.wraps(ask)
    def asked(weights: Weights) -> Anatomy | None:
        if id(weights) not in held:
            held[id(weights)] = weights, ask(weights)
        return held[id(weights)][1]

    return asked


def _left_open(base: Weights, experts: Sequence[Expert]) -> set[str]:
    """Names that some file lacks, or has in another shape."""
    checkpoints = [base, *(expert.checkpoint for expert in experts)]
    everything = {name for c in checkpoints for name in c.tensors}
    return {
        name
        for name in everything
        if any(name not in c.tensors for c in checkpoints)
        or len({c.tensors[name].shape for c in checkpoints}) > 1
    }


def _with(spares: Spare, lone: Lone) -> Spare:
    return replace(
        spares,
        buffers=spares.buffers | lone.of("buffer"),
        beyond=lone.of("part"),
        relics=lone.of("relic"),
    )
