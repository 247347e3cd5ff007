"""(IA)³ experts merged as what was trained: their vectors, as in MaTS (arXiv 2312.04339).

Where every expert is an (IA)³ adapter of the same modules, the parameters of the merge are the
vectors l themselves: the base's are all ones, and each may have the full block of its Fisher matrix
(d × d).  The merged vectors are multiplied into the base afterwards, which is exact because the
base's weights are common to all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..checkpoints import Entry, Shaped, TensorFileWriter, Weights
from ..errors import read_json
from ..families import Family
from .changes import Replaced, Scaled
from .settings import CONFIG, WEIGHTS
from .view import Adapted, Vector


@dataclass(frozen=True)
class VectorFamily:
    """The vectors of a family of (IA)³ experts, and the family that they belong to.

    family    what is merged: a base of ones, the vectors of each expert, and the tensors that all
              adapters hold whole
    whole     the same experts as whole models
    vectors   name → what it scales; the same for every expert
    """

    family: Family
    whole: Family
    vectors: Mapping[str, Vector]

    def fold(self, name: str, merged: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """A tensor of the base with the merged vectors multiplied in."""
        if name in merged:
            return merged[name]
        value = self.whole.base.read(name, dtype=dtype)
        for vector in self.scaling(name):
            value = Scaled(vector, self.vectors[vector].scales[name]).apply(
                value, lambda key: merged[key].to(dtype)
            )
        return value

    def scaling(self, name: str) -> tuple[str, ...]:
        """Names of the vectors that scale a tensor of the base."""
        return tuple(vector for vector, own in self.vectors.items() if name in own.scales)

    def save(self, folder: Path, merged: Mapping[str, Tensor]) -> None:
        """Write the merged vectors as an adapter directory that peft opens on the same base."""
        first = _adapted(self.whole)[0]
        keys = {name: vector.key for name, vector in first.vectors.items()}
        keys |= {
            name: change.key
            for name, changes in first.changes.items()
            for change in changes
            if isinstance(change, Replaced) and name in merged
        }
        shapes = {name: first.source.tensors[key].shape for name, key in keys.items()}
        folder.mkdir(parents=True, exist_ok=True)  # a merge that is resumed left one
        specs = {key: (merged[name].dtype, shapes[name]) for name, key in keys.items()}
        with TensorFileWriter(folder / WEIGHTS, specs) as writer:
            for name, key in keys.items():
                writer.add(key, merged[name].reshape(shapes[name]))
        settings = read_json(first.path / CONFIG)
        saved = [m for m in first.settings.saved if any(f".{m}." in key for key in keys.values())]
        # A task type would make peft add a head of its own; heads are one a task, kept apart.
        settings |= {"modules_to_save": saved or None, "task_type": None, "inference_mode": True}
        (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def vector_family(family: Family) -> VectorFamily | None:
    """The family of vectors if every expert is an (IA)³ adapter of the same modules, else None."""
    adapted = _adapted(family)
    if len(adapted) < len(family.experts) or len({_targets(one) for one in adapted}) != 1:
        return None
    vectors = adapted[0].vectors
    others = {
        name
        for one in adapted
        for name, changes in one.changes.items()
        if isinstance(changes[0], Replaced) and family.roles.get(name) in ("matrix", "vector")
    }
    experts = tuple(
        replace(expert, checkpoint=_Vectors.of(one, vectors, others, one))
        for expert, one in zip(family.experts, adapted, strict=True)
    )
    roles = {name: family.roles[name] for name in others} | dict.fromkeys(vectors, "vector")
    base = _Vectors.of(family.base, vectors, others)
    own = replace(family, base=base, experts=experts, roles=roles, tied_to={})
    return VectorFamily(own, family, vectors)


def why_not(family: Family) -> tuple[str, ...]:
    """A note on why (IA)³ experts are merged as whole models; empty where no expert is one."""
    adapted = _adapted(family)
    if len(adapted) < len(family.experts) or len({_targets(one) for one in adapted}) == 1:
        return ()
    return (
        "the (IA)³ experts do not scale the same modules; they are merged as whole models, without "
        "the block Fisher of their vectors",
    )


def _adapted(family: Family) -> Sequence[Adapted]:
    checkpoints = [expert.checkpoint for expert in family.experts]
    return [c for c in checkpoints if isinstance(c, Adapted) and c.settings.kind == "ia3"]


def _targets(checkpoint: Adapted) -> tuple[tuple[str, int, str], ...]:
    return tuple((name, v.size, v.side) for name, v in checkpoint.vectors.items())


@final
@dataclass(frozen=True)
class _Vectors(Weights):
    """The vectors of one adapter, or ones for the base, and the tensors that are merged whole."""

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    source: Weights
    adapter: Adapted | None

    @classmethod
    def of(
        cls,
        source: Weights,
        vectors: Mapping[str, Vector],
        others: set[str],
        adapter: Adapted | None = None,
    ) -> _Vectors:
        tensors: dict[str, Entry] = {
            name: Shaped(torch.float32, (vector.size,)) for name, vector in vectors.items()
        }
        tensors |= {name: source.tensors[name] for name in others}
        return cls(source.path, dict(sorted(tensors.items())), {}, source, adapter)

    def read(
        self,
        name: str,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        if name in self.source.tensors:
            return self.source.read(name, dtype=dtype, device=device)
        entry = self.tensors[name]
        if self.adapter is None:
            return torch.ones(entry.shape, dtype=dtype or entry.dtype, device=device)
        key, source = self.adapter.vectors[name].key, self.adapter.source
        return source.read(key, dtype=dtype or entry.dtype, device=device).reshape(-1)

    def reads_parts(self, name: str) -> bool:
        return False

    def fill(self, name: str, start: int, value: Tensor) -> None:
        value.copy_(self.read(name).reshape(-1)[start : start + len(value)])

    def digest(self, name: str) -> str:
        if name in self.source.tensors:
            return self.source.digest(name)
        if self.adapter is None:
            return hashlib.sha256(f"ones {self.tensors[name].shape}".encode()).hexdigest()
        return self.adapter.source.digest(self.adapter.vectors[name].key)
