"""Which directions a task subspace protects: what C_m charges for moving along each.

A method of the MaTS family minimises `Σ_m (W − W_m) · C_m (W − W_m)`: to leave an expert's weight
along a unit direction D costs `D · C D`.  Costs here are relative to the operator's mean
eigenvalue, `tr C / (d_out d_in)`, so that operators of different units can be compared: 1 is what
the identity charges for every direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..families import Family
from ..linear import Diagonal, Gram, Identity, InputGram, Kronecker, Operator, svd
from ..statistics import Statistics
from .spectra import task_layer

Subspace = Literal["identity", "diagonal Fisher", "input Gram", "K-FAC"]
SUBSPACES: dict[Subspace, str] = {
    "identity": "averaging",
    "diagonal Fisher": "Fisher merging",
    "input Gram": "RegMean",
    "K-FAC": "MaTS",
}


@dataclass(frozen=True)
class Protection:
    """An operator C in the basis of the expert's update `Δ = Σ σ_k u_k v_kᵀ`, k = min(d_out, d_in).

    subspace     which operator: the statistics that it is made of
    costs        (k, k) relative cost of moving along `u_i v_jᵀ`; the diagonal is that of Δ
    change       relative cost of undoing the whole change: `Δ · C Δ / ‖Δ‖²`
    strengths    (k,) share of `‖Δ‖²` that each direction of the change holds
    eigenvalues  (d_out d_in,) of C, largest first, summing to one
    """

    subspace: Subspace
    costs: Tensor
    change: float
    strengths: Tensor
    eigenvalues: Tensor

    @property
    def along(self) -> Tensor:
        """The relative cost (k,) along the directions of the change, strongest first."""
        return self.costs.diagonal()

    def needed(self, share: float = 0.9) -> int:
        """The number of eigenvectors of C that hold `share` of its trace."""
        below = int((self.eigenvalues.cumsum(0) < share * (1 - 1e-9)).sum())
        return min(below + 1, len(self.eigenvalues))


def operator(
    subspace: Subspace,
    shape: tuple[int, ...],
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    fisher: Tensor | None = None,
) -> Operator | None:
    """The operator C_m in float64; None where its statistics were not measured."""
    if subspace == "identity":
        return Identity(shape)
    if subspace == "diagonal Fisher":
        return None if fisher is None else Diagonal(fisher.double())
    if subspace == "K-FAC":
        return None if a is None or b is None else Kronecker(b.double(), a.double())
    return None if a is None else InputGram(a.double(), shape[0])


def protection(subspace: Subspace, c: Operator, update: Tensor) -> Protection:
    """What `c` protects of the change `update` (d_out, d_in).

    Raises `InputError` if the expert changed nothing or the operator is zero.
    """
    delta = update.double()
    energy = float(delta.square().sum())
    eigenvalues = c.spectrum().double().clamp_min(0)
    trace = float(eigenvalues.sum())
    if not energy > 0:
        raise InputError("task matrix", expected="an expert that changed this layer", found="zeros")
    if not trace > 0:
        raise InputError(f"the {subspace} subspace", expected="a trace above zero", found="zero")
    left, values, right = svd(delta)
    mean = trace / delta.numel()
    return Protection(
        subspace,
        pair_costs(c, left, right.mT) / mean,
        float((delta * c.apply(delta)).sum()) / energy / mean,
        values**2 / energy,
        eigenvalues / trace,
    )


def pair_costs(c: Operator, left: Tensor, right: Tensor) -> Tensor:
    """`D · C D` for every `D = u_i v_jᵀ`: (p, q) from left (d_out, p) and right (d_in, q)."""
    if isinstance(c, Identity):
        return torch.ones(left.shape[1], right.shape[1], dtype=left.dtype)
    if isinstance(c, Diagonal):
        return (left**2).mT @ c.values @ right**2
    if isinstance(c, InputGram):
        return _quadratic(c.a, right).expand(left.shape[1], -1)
    if isinstance(c, Kronecker):
        return torch.outer(_quadratic(c.b, left), _quadratic(c.a, right))
    raise TypeError(f"no costs of pairs for {type(c).__name__}")


def _quadratic(matrix: Gram, vectors: Tensor) -> Tensor:
    """`vᵀ M v` for every column."""
    return (vectors * (matrix @ vectors)).sum(0)


def layer_protection(
    family: Family, statistics: Mapping[str, Statistics], name: str, task: str
) -> dict[Subspace, Protection]:
    """The protection of one weight of one task by every subspace that its statistics allow.

    Raises `InputError` for an unknown task and for a layer that the expert did not change.
    """
    experts = {expert.name: expert for expert in family.experts}
    if task not in experts:
        raise InputError("task", expected=f"one of {', '.join(experts)}", found=repr(task))
    base = family.weight(family.base, name, dtype=torch.float32)
    own = statistics.get(task)
    layer = task_layer(family, own, name, experts[task], base)
    fisher = own.read(f"{name}.fisher", family.base.tensors[name].shape) if own else None
    fisher = None if fisher is None else family.oriented(name, fisher)
    found: dict[Subspace, Protection] = {}
    for subspace in SUBSPACES:
        c = operator(subspace, base.shape, a=layer.a, b=layer.b, fisher=fisher)
        if c is not None:
            found[subspace] = protection(subspace, c, layer.update)
    return found
