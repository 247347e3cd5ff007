"""Task subspaces as linear operators on a weight's natural shape.

A merging method of the MaTS family is a choice of one positive semi-definite operator `C_m` a task
(arXiv 2312.04339): minimise `Σ_m α_m (W − W_m) · C_m (W − W_m)`.  Here X is a weight (d_out, d_in),
never flattened by hand.

    Identity       X ↦ X
    Diagonal       X ↦ F ∘ X                          diagonal Fisher, Adam's second moment
    InputGram      X ↦ X A                            RegMean
    Kronecker      X ↦ B X A                          K-FAC block; of a wide layer in factors
    Spectral       X ↦ Q_B (Λ ∘ (Q_Bᵀ X Q_A)) Q_Aᵀ    its truncation
    Dense          vec X ↦ C vec X                    full block of a small parameter
    WeightedSum    X ↦ Σ_m α_m C_m X
    Stacked        X ↦ Σ_m (α_m B_m) X A_m            K-FAC blocks in two products, for a GPU

All are frozen, one level deep; `dense()` is for tests and small parameters (row-major `vec`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .apart import is_apart
from .decompositions import eigh_descending
from .lowrank import Gram, LowRank, matrix
from .updates import weighted_sum

STACKED = 1 << 27  # elements of matrices that are copied side by side: 512 MB in float32


class Operator(ABC):
    """A symmetric positive semi-definite linear operator C on weights of one shape."""

    @abstractmethod
    def apply(self, x: Tensor) -> Tensor:
        """The product `C x`, in the shape of x."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal of C, in the shape of a weight (or broadcastable to it)."""

    @abstractmethod
    def spectrum(self) -> Tensor:
        """All eigenvalues, largest first (at small sizes: their number is that of the weight)."""

    @abstractmethod
    def dense(self) -> Tensor:
        """C as a matrix (numel, numel) that acts on row-major `vec(X)`."""


@dataclass(frozen=True)
class Identity(Operator):
    """X ↦ X on weights of `shape`: averaging."""

    shape: tuple[int, ...]

    def apply(self, x: Tensor) -> Tensor:
        return x

    def diagonal(self) -> Tensor:
        return torch.ones(self.shape)

    def spectrum(self) -> Tensor:
        return torch.ones(self.shape).reshape(-1)

    def dense(self) -> Tensor:
        return torch.diag(self.spectrum())


@dataclass(frozen=True)
class Diagonal(Operator):
    """X ↦ F ∘ X: Fisher merging, L2M.  `values` are F ≥ 0, of the weight's shape."""

    values: Tensor

    def apply(self, x: Tensor) -> Tensor:
        return self.values * x

    def diagonal(self) -> Tensor:
        return self.values

    def spectrum(self) -> Tensor:
        return self.values.reshape(-1).sort(descending=True).values

    def dense(self) -> Tensor:
        return torch.diag(self.values.reshape(-1))


@dataclass(frozen=True)
class InputGram(Operator):
    """X ↦ X A: RegMean.  `a` is A (d_in, d_in), `rows` is d_out."""

    a: Tensor
    rows: int

    def apply(self, x: Tensor) -> Tensor:
        return x @ self.a

    def diagonal(self) -> Tensor:
        return self.a.diagonal().expand(self.rows, -1)

    def spectrum(self) -> Tensor:
        return eigh_descending(self.a)[0].repeat_interleave(self.rows)

    def dense(self) -> Tensor:
        return torch.kron(torch.eye(self.rows, dtype=self.a.dtype), self.a)


@dataclass(frozen=True)
class Kronecker(Operator):
    """X ↦ B X A: the K-FAC block `B ⊗ A`.  `b` is B (d_out, d_out), `a` is A (d_in, d_in).

    Either may be in factors (`LowRank`); neither is multiplied out for a product.
    """

    b: Gram
    a: Gram

    @property
    def in_factors(self) -> bool:
        """Whether A or B is in factors."""
        return isinstance(self.a, LowRank) or isinstance(self.b, LowRank)

    def apply(self, x: Tensor) -> Tensor:
        return self.b @ x @ self.a

    def diagonal(self) -> Tensor:
        return torch.outer(self.b.diagonal(), self.a.diagonal())

    def spectrum(self) -> Tensor:
        b, a = (eigh_descending(matrix(gram))[0] for gram in (self.b, self.a))
        return torch.outer(b, a).reshape(-1).sort(descending=True).values

    def dense(self) -> Tensor:
        return torch.kron(matrix(self.b), matrix(self.a))


@dataclass(frozen=True)
class Spectral(Operator):
    """X ↦ Q_B (Λ ∘ (Q_Bᵀ X Q_A)) Q_Aᵀ: given in the eigenbasis of a Kronecker product.

    q_b      eigenvectors Q_B (d_out, d_out)
    q_a      eigenvectors Q_A (d_in, d_in)
    values   eigenvalues Λ (d_out, d_in)
    """

    q_b: Tensor  # (d_out, d_out)
    q_a: Tensor  # (d_in, d_in)
    values: Tensor  # Λ (d_out, d_in)

    def apply(self, x: Tensor) -> Tensor:
        return self.q_b @ (self.values * (self.q_b.mT @ x @ self.q_a)) @ self.q_a.mT

    def diagonal(self) -> Tensor:
        return self.q_b**2 @ self.values @ (self.q_a**2).mT

    def spectrum(self) -> Tensor:
        return self.values.reshape(-1).sort(descending=True).values

    def dense(self) -> Tensor:
        # kron takes no flipped views, which eigenvectors in descending order are.
        basis = torch.kron(self.q_b.contiguous(), self.q_a.contiguous())
        return basis @ torch.diag(self.values.reshape(-1)) @ basis.mT


@dataclass(frozen=True)
class Dense(Operator):
    """vec X ↦ C vec X: the full block of a small parameter.  `matrix` is C (numel, numel)."""

    matrix: Tensor

    def apply(self, x: Tensor) -> Tensor:
        return (self.matrix @ x.reshape(-1)).reshape(x.shape)

    def diagonal(self) -> Tensor:
        return self.matrix.diagonal()

    def spectrum(self) -> Tensor:
        return eigh_descending(self.matrix)[0]

    def dense(self) -> Tensor:
        return self.matrix


@dataclass(frozen=True)
class WeightedSum(Operator):
    """X ↦ Σ_m α_m C_m X: the left-hand side of the merge's normal equations.

    terms     the operators C_m
    weights   the task weights α_m
    """

    terms: tuple[Operator, ...]
    weights: tuple[float, ...]

    def apply(self, x: Tensor) -> Tensor:
        return weighted_sum((term.apply(x) for term in self.terms), self.weights)

    def apply_each(self, xs: Sequence[Tensor]) -> Tensor:
        """`Σ_m α_m C_m X_m`: with the experts, the right-hand side of the normal equations."""
        applied = (term.apply(x) for term, x in zip(self.terms, xs, strict=True))
        return weighted_sum(applied, self.weights)

    def diagonal(self) -> Tensor:
        return torch.stack(
            [w * term.diagonal() for w, term in zip(self.weights, self.terms, strict=True)]
        ).sum(0)

    def spectrum(self) -> Tensor:
        return eigh_descending(self.dense())[0]

    def dense(self) -> Tensor:
        return torch.stack(
            [w * term.dense() for w, term in zip(self.weights, self.terms, strict=True)]
        ).sum(0)


@dataclass(frozen=True)
class Stacked(Operator):
    """X ↦ Σ_m (α_m B_m) X A_m: the sum of K-FAC blocks as one batch of products and one product.

    b   the matrices α_m B_m side by side (d_out, M d_out)
    a   the matrices A_m (M, d_in, d_in)

    A GPU begins two kernels an application where `WeightedSum` begins 3 M; the order of the sums is
    another one.
    """

    b: Tensor
    a: Tensor

    def apply(self, x: Tensor) -> Tensor:
        right = torch.bmm(x.expand(len(self.a), *x.shape), self.a)
        return self.b @ right.reshape(-1, right.shape[-1])

    def diagonal(self) -> Tensor:
        return self._of_tasks().diagonal(dim1=1, dim2=2).mT @ self.a.diagonal(dim1=1, dim2=2)

    def spectrum(self) -> Tensor:
        return eigh_descending(self.dense())[0]

    def dense(self) -> Tensor:
        pairs = zip(self._of_tasks(), self.a, strict=True)
        return torch.stack([torch.kron(b.contiguous(), a) for b, a in pairs]).sum(0)

    def _of_tasks(self) -> Tensor:
        return self.b.reshape(len(self.b), len(self.a), -1).transpose(0, 1)


def stacked(operator: WeightedSum) -> Operator:
    """The operator as `Stacked` where all its terms are K-FAC blocks of matrices on a device apart
    from this processor, for a copy of the matrices; else as it is.

    Also where they have more than `STACKED` elements: such products keep a GPU busy one by one.
    """
    grams: list[tuple[Tensor, Tensor]] = []
    for term in operator.terms:
        if not isinstance(term, Kronecker):
            return operator
        if isinstance(term.a, LowRank) or isinstance(term.b, LowRank):
            return operator
        grams.append((term.b, term.a))
    elements = sum(b.numel() + a.numel() for b, a in grams)
    if not grams or elements > STACKED or not is_apart(grams[0][0]):
        return operator
    scaled = [b * weight for (b, _), weight in zip(grams, operator.weights, strict=True)]
    return Stacked(torch.cat(scaled, 1), torch.stack([a for _, a in grams]))


# Regularised forms: of the factors, separately for A and B ----------------------------------------


def damped(factor: Tensor, damping: float) -> Tensor:
    """`C + δ (tr C / d) I`: Tikhonov damping relative to the mean eigenvalue."""
    if not damping:
        return factor
    moved = factor.clone()
    moved.diagonal().add_(damping * factor.diagonal().mean())
    return moved


def damped_products(
    blocks: Iterable[Kronecker], weights: Sequence[float], xs: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The coefficients of 1, δ and δ² in `Σ_m α_m B_m X_m A_m` with every factor damped by δ.

    For one and a half products with the undamped blocks, those with damped ones at every δ.  The
    blocks are asked for one after the other.
    """
    constant, linear, square = (torch.zeros_like(xs[0]) for _ in range(3))
    for block, weight, x in zip(blocks, weights, xs, strict=True):
        a, b = (float(factor.diagonal().mean()) for factor in (block.a, block.b))
        right = x @ block.a
        constant.add_(block.b @ right, alpha=weight)
        linear.add_(right, alpha=weight * b).add_(block.b @ x, alpha=weight * a)
        square.add_(x, alpha=weight * a * b)
    return constant, linear, square


def off_diagonal_scaled(factor: Tensor, scale: float) -> Tensor:
    """`λ C + (1 − λ) diag(C)`: RegMean's α, MaTS's λ."""
    if scale == 1:
        return factor
    return scale * factor + (1 - scale) * torch.diag(factor.diagonal())


def trace_normalised(factor: Tensor) -> Tensor:
    """`C / tr C`; a zero factor stays zero."""
    trace = factor.diagonal().sum()
    return factor / trace if float(trace) > 0 else factor


def regularised(block: Kronecker, **form: Any) -> Kronecker:
    """The block with each factor regularised by itself; the arguments are `regularised_gram`'s."""
    return Kronecker(regularised_gram(block.b, **form), regularised_gram(block.a, **form))


def regularised_gram(
    gram: Gram, *, off_diagonal: float = 1.0, damping: float = 0.0, normalise: bool = False
) -> Gram:
    """The Gram, trace-normalised, off-diagonal-scaled and damped, in this order.

    One in factors stays in factors.
    """
    if isinstance(gram, LowRank):
        gram = gram.trace_normalised() if normalise else gram
        return gram.off_diagonal_scaled(off_diagonal).damped(damping)
    gram = trace_normalised(gram) if normalise else gram
    return damped(off_diagonal_scaled(gram, off_diagonal), damping)


def effective_dimension(gram: Tensor, damping: float) -> float:
    """How many directions of a Gram stand above its damping: Σ λ / (λ + δ λ̄), with λ̄ the mean
    eigenvalue and δ the damping (degrees of freedom of ridge regression; Hastie, Tibshirani and
    Friedman, The Elements of Statistical Learning, equation 3.50); without damping, its rank.

    gram   (d, d), damped already: λ + δ λ̄ are its eigenvalues
    """
    mean = float(gram.diagonal().mean())
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not damping or int(failed) or mean <= 0:
        return float(torch.linalg.matrix_rank(gram, hermitian=True))
    inverse = float(torch.cholesky_inverse(factor).diagonal().sum())
    return min(max(len(gram) - damping / (1 + damping) * mean * inverse, 0.0), float(len(gram)))


def truncated(block: Kronecker, rank: int, damping: float = 0.0) -> Spectral:
    """The block cut to its `rank` largest eigen-directions, which are pairs of its factors'.

    They are damped after, not before, the cut.
    """
    (values_b, q_b), (values_a, q_a) = (eigh_descending(matrix(c)) for c in (block.b, block.a))
    values = torch.outer(values_b, values_a).clamp_min(0)
    flat = values.reshape(-1)
    kept = torch.zeros_like(flat)
    top = flat.topk(min(rank, len(flat))).indices
    kept[top] = flat[top]
    return Spectral(q_b, q_a, (kept + damping * kept.mean()).reshape(values.shape))
