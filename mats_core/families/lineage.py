"""Whether an expert comes from its base at all, by a sample of the matrices that both have.

The cosine of two models' weights, taken as one long vector: a fine-tuned model stays near the one
that it began as, and models that were trained apart have nothing in common.  Embeddings, norms,
positions and heads are left out: these agree, or differ, for other reasons.

    above 0.9     fine-tuned from this base
    0.2 to 0.9    of one start, and trained far from it: a note
    0.05 to 0.2   hardly: a warning
    below 0.05    strangers: refused, unless a recipe allows it
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checkpoints import Weights
from ..errors import InputError
from ..names import is_table, is_weight
from .expert import Expert
from .family import Family
from .heads import head_module

NEAR, FAR, STRANGE = 0.9, 0.2, 0.05
MATRICES = 16  # that are read
ELEMENTS = 1 << 18  # of each
GLANCE = 1 << 13  # of each, where many models are compared before one is chosen
ENOUGH = 1 << 11  # elements, below which chance alone may give a cosine of `STRANGE`
POSITION = re.compile(r"pos(ition|_|$)|rel(ative|_)", re.IGNORECASE)


def lineage(family: Family, *, strangers: bool = False) -> list[str]:
    """Sentences on experts that are far from the base, or equal to it.

    Raises `InputError` for one that has nothing in common with it, unless `strangers` are allowed.
    Adapters are never far: they have no other weights than the base's.
    """
    names = sample(family)
    base = [part(family.base, name) for name in names]
    notes: list[str] = []
    for expert in family.experts:
        if _equal(family, expert):
            notes.append(
                f"expert '{expert.name}' equals the base in all tensors that they share: it adds "
                "nothing but its head"
            )
            continue
        if expert.checkpoint.form:
            continue
        found = _cosine(base, [part(expert.checkpoint, name) for name in names])
        if found is not None and (said := _said(family.base, expert, found, strangers)):
            notes.append(said)
    return notes + _twins(family)


def _twins(family: Family) -> list[str]:
    """A sentence on every two experts that are one model, which counts twice."""
    first: dict[str, str] = {}
    notes: list[str] = []
    for expert in family.experts:
        other = first.setdefault(expert.checkpoint.fingerprint, expert.name)
        if other != expert.name:
            notes.append(
                f"experts '{other}' and '{expert.name}' are one model, tensor by tensor: it counts "
                "twice"
            )
    return notes


def kinship(family: Family) -> tuple[float | None, ...]:
    """The cosine of each expert with the base, from -1 to 1, over a small sample of their matrices.

    None where they share too little to tell, and for an adapter, which has no other weights than
    the base's.  The family may have been examined by its headers alone.
    """
    names = sample(family)
    base = [part(family.base, name, GLANCE) for name in names]
    checkpoints = [expert.checkpoint for expert in family.experts]
    return tuple(
        None if one.form else _cosine(base, [part(one, name, GLANCE) for name in names])
        for one in checkpoints
    )


def middle(family: Family) -> int | None:
    """Which model lies between all the others: 0 for the base, 1 for the first expert, and so on.

    Experts are nearer to the model that they began as than to each other.  None for fewer than
    three models, for adapters, and where the models share too little to tell.
    """
    names = sample(family)
    models = [family.base, *(expert.checkpoint for expert in family.experts)]
    if len(models) < 3 or not names or any(one.form for one in models):
        return None
    rows = [torch.cat([part(one, name, GLANCE) for name in names]).double() for one in models]
    vectors = torch.stack(rows)
    if vectors.shape[1] < ENOUGH or not bool(vectors.any(1).all()):
        return None
    vectors /= vectors.norm(dim=1, keepdim=True)
    return int((vectors @ vectors.mT).sum(1).argmax())


def related(cosine: float | None) -> str:
    """What a cosine says about an expert and its base, in words; empty where it is not known."""
    if cosine is None:
        return ""
    if cosine >= NEAR:
        return "fine-tuned from this base"
    if cosine >= FAR:
        return "of one start with this base, and trained far from it"
    return "hardly related to this base" if cosine >= STRANGE else "a stranger to this base"


def sample(family: Family) -> list[str]:
    """Names of the matrices that are compared, from the whole depth of the model."""
    names = [
        name
        for name in family.shared
        if len(family.base.tensors[name].shape) > 1
        and is_weight(name)
        and not is_table(name)
        and not POSITION.search(name)
        and head_module(name) is None
    ]
    count = min(MATRICES, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def part(weights: Weights, name: str, most: int | None = None) -> Tensor:
    """The first elements of a tensor, in float32: `ELEMENTS` of them unless it is said."""
    elements = min(most or ELEMENTS, weights.tensors[name].elements)
    if weights.reads_parts(name):
        return weights.part(name, 0, elements, dtype=torch.float32)
    return weights.read(name, dtype=torch.float32).reshape(-1)[:elements]


def _cosine(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float | None:
    """The cosine of all parts as one vector; None where there is too little to tell."""
    if sum(part.numel() for part in ours) < ENOUGH:
        return None
    product = sum(float(a.double() @ b.double()) for a, b in zip(ours, theirs, strict=True))
    squares = [sum(float(part.double().square().sum()) for part in one) for one in (ours, theirs)]
    return product / (squares[0] * squares[1]) ** 0.5 if all(squares) else None


def _equal(family: Family, expert: Expert) -> bool:
    own, base = expert.checkpoint, family.base

    def same(name: str) -> bool:
        if own.digest(name) == base.digest(name):
            return True
        # An adapter's digest is that of its factors, whatever their product comes to.
        return bool(own.form) and own.read(name).equal(base.read(name))

    return bool(family.shared) and all(map(same, family.shared))


def _said(base: Weights, expert: Expert, cosine: float, strangers: bool) -> str:
    """What a cosine says about an expert; empty where it is near the base."""
    shown, whose = f"cosine {cosine:.3f} of their matrices", f"expert '{expert.name}'"
    if cosine >= NEAR:
        return ""
    if cosine >= FAR:
        return f"{whose} was trained far from the base ({shown})"
    if cosine >= STRANGE:
        return (
            f"{whose} has little in common with the base ({shown}): was it fine-tuned from another "
            "model?"
        )
    if strangers:
        return (
            f"{whose} and the base have nothing in common ({shown}); merged all the same, as "
            "'strangers: allow' says"
        )
    raise InputError(
        f"{whose} ('{expert.checkpoint.path}') and the base '{base.path}' have nothing in common",
        expected="a model that was fine-tuned from this base",
        found=shown,
        remedy="Was it fine-tuned from another model? Then name that one as the base. Of the same "
        "architecture, but another start? Then write 'align: true' at this expert. To merge "
        "strangers all the same, write 'strangers: allow' in the recipe (--strangers on the "
        "command line, strangers=True in Python).",
    )
