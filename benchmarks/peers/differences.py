"""How far two checkpoints are apart, by kind of tensor, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError, listing

KINDS = {"embed_tokens": "embeddings", "lm_head": "head", "norm": "norms", "mlp": "MLP",
         "self_attn": "attention"}  # fmt: skip
OFF = 1e-5  # share of a tensor's largest number above which an entry counts as another one


@dataclass(frozen=True)
class Difference:
    """How far the tensors of one kind are apart.

    largest   max |a − b|
    relative  the largest ‖a − b‖ / ‖a‖ of any tensor
    off       entries that differ by more than `OFF` of their tensor's largest magnitude
    """

    kind: str
    tensors: int
    entries: int
    largest: float
    relative: float
    off: int


def kind_of(name: str) -> str:
    """`attention` of `model.layers.3.self_attn.q_proj.weight`."""
    return next((kind for part, kind in KINDS.items() if part in name), "other")


def compare(
    ours: str | Path, theirs: str | Path, kind: Callable[[str], str] = kind_of
) -> list[Difference]:
    """The differences of two checkpoints with the same tensors, by `kind` of a tensor's name.

    Raises `InputError` where names or shapes differ; dtypes may.
    """
    a, b = Checkpoint.open(ours), Checkpoint.open(theirs)
    odd = [
        name
        for name in sorted(a.tensors.keys() | b.tensors.keys())
        if _shape(a, name) != _shape(b, name)
    ]
    if odd:
        raise InputError(
            f"'{theirs}'", expected=f"the tensors of '{ours}'", found=f"others: {listing(odd)}"
        )
    found: dict[str, list[Difference]] = {}
    for name in a.tensors:
        found.setdefault(kind(name), []).append(_difference(kind(name), a, b, name))
    return [_together(own) for own in found.values()]


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...] | None:
    entry = checkpoint.tensors.get(name)
    return entry.shape if entry else None


def _difference(kind: str, a: Checkpoint, b: Checkpoint, name: str) -> Difference:
    first, second = (c.read(name).double() for c in (a, b))
    apart = (first - second).abs()
    top, length = float(first.abs().max()), float(first.norm())
    return Difference(
        kind,
        tensors=1,
        entries=first.numel(),
        largest=float(apart.max()),
        relative=float(apart.norm()) / length if length else float(apart.norm()),
        off=int((apart > OFF * top).sum()),
    )


def _together(own: Iterable[Difference]) -> Difference:
    own = list(own)
    return Difference(
        own[0].kind,
        tensors=len(own),
        entries=sum(d.entries for d in own),
        largest=max(d.largest for d in own),
        relative=max(d.relative for d in own),
        off=sum(d.off for d in own),
    )
