"""Output layers that experts trained apart from the embedding to which the base ties its own.

An adapter with `modules_to_save=["embed_tokens", "lm_head"]` over a tied base has two matrices
where the base's file has one.  The base is then read as if it had both: what an output layer was
before it was trained is the embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..checkpoints import Renamed, Weights
from ..names import is_table
from .anatomy import Anatomy, Ask
from .expert import Expert


def untied(
    base: Weights, experts: Sequence[Expert], ask: Ask
) -> tuple[Weights, tuple[Expert, ...], dict[str, str]]:
    """Base and experts with a tensor for every output layer that an expert trained apart, and each
    of these names → the embedding that it was tied to."""
    tables = {entry.shape for name, entry in base.tensors.items() if is_table(name)}
    more = {
        name
        for expert in experts
        for name, entry in expert.checkpoint.tensors.items()
        if name not in base.tensors and entry.shape in tables
    }
    anatomy = ask(base) if more else None
    ties = {} if anatomy is None else _ties(base, more, anatomy)
    ties = {name: table for name, table in ties.items() if _trained_apart(experts, name, table)}
    if not ties:
        return base, tuple(experts), {}
    found = tuple(replace(e, checkpoint=_with_copies(e.checkpoint, ties)) for e in experts)
    return _with_copies(base, ties), found, ties


def _ties(base: Weights, names: set[str], anatomy: Anatomy) -> dict[str, str]:
    """The embedding in the base's file that its class ties each of these names to."""
    found: dict[str, str] = {}
    for name in names:
        table = anatomy.ties.get(anatomy.loaded(name), "")
        spoken = {anatomy.loaded(own): own for own in base.tensors}
        for said in anatomy.forms(table):
            if said in spoken:
                found[name] = spoken[said]
    return found


def _trained_apart(experts: Sequence[Expert], name: str, table: str) -> bool:
    held = [expert.checkpoint for expert in experts if name in expert.checkpoint.tensors]
    fits = all(table in e.checkpoint.tensors for e in experts)
    return fits and any(own.digest(name) != own.digest(table) for own in held)


def _with_copies(weights: Weights, ties: Mapping[str, str]) -> Weights:
    missing = {name: table for name, table in ties.items() if name not in weights.tensors}
    own = {name: name for name in weights.tensors}
    return Renamed.of(weights, own, missing) if missing else weights
