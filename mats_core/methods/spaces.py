"""Spaces in which task matrices are merged: as they are, or in a basis that all experts share.

A rule that looks at entries (TIES, DARE, …) or at how many singular values there are does something
else in another basis.  Two bases are known for low-rank updates, and both lose nothing:

    knots   KnOTS (arXiv 2410.19735): [Δ_1 … Δ_T] = U Σ [V_1 … V_T]ᵀ.  The rule merges the blocks
            Σ V_tᵀ = Uᵀ Δ_t (k, d_in) to X, and W = W₀ + U X.
    core    Core Space (arXiv 2509.17786): Δ_t = B_t A_t, U an orthonormal basis of [B_1 … B_T], V
            of [A_1; …; A_T].  The rule merges the cores (Uᵀ B_t)(A_t V) to M, and W = W₀ + U M Vᵀ.

The text of KnOTS merges the V_t, its code the Σ V_t, as is done here: without Σ directions that
hardly matter would be trimmed like the strongest.  A sum or a mean is the same in every space, so
that methods which are one have no such choice.  A core needs the updates' factors, which adapters
have; a layer in which one expert has none is merged as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from ..linear import core_bases, knots_basis, knots_basis_of_factors, like, norms
from .cost import Cost, Shape, eigenbasis, gemm, operations, svd_bytes, thin_svd
from .layer import Layer, Merged
from .method import Counterpart, Method
from .options import Options, option

Space = Literal["full", "knots", "core"]
InSpace = Annotated[
    Space,
    option(
        help="where the task matrices of linear layers are merged: as they are; in the left "
        "singular vectors of all of them side by side (KnOTS); or in the bases of the experts' "
        "LoRA factors (Core Space), which takes adapters",
        label="Merge in the space",
        more=True,
    ),
]
NO_FACTORS = "in full space: an expert has no low-rank factors here"
OTHER_SPACE = (
    "mergekit merges the task vectors as they are, and knows neither KnOTS nor Core Space. With "
    "the option space: full it may have the same."
)


@dataclass(frozen=True)
class Inside:
    """A layer in another space.

    layer   base zero, and of each expert its update in the space
    left    U (d_out, k)
    right   Vᵀ (l, d_in); None: the space has the layer's inputs
    """

    layer: Layer
    left: Tensor
    right: Tensor | None

    def back(self, value: Tensor) -> Tensor:
        """A merged update of the space as one of the layer (d_out, d_in)."""
        return self.left @ (value if self.right is None else value @ self.right)

    @property
    def said(self) -> str:
        """The size of the space, for the status of the layer."""
        rows, columns = self.layer.base.shape
        return f"in a space of {rows} × {columns}"


def space_of(options: Options) -> Space:
    """The space that a method's options name; `full` where they have no such option."""
    return getattr(options, "space", "full")


def rounding(layer: Layer, terms: int = 1) -> float:
    """More than the largest singular value that float32 rounding gives a sum of `W_m − W0`.

    A matrix of independent entries, each `ε |w|` at most, has about `ε ‖W‖ (1/√m + 1/√n)`; the
    error of one rounding is a fifth of ε in the mean square, and half of ε is asked for here.
    Errors of several terms add up in squares.
    """
    m, n = layer.base.shape
    largest = max(layer.rounded_at, *norms((layer.base, *layer.experts)))
    each = torch.finfo(torch.float32).eps / 2 * largest * (m**-0.5 + n**-0.5)
    return each * terms**0.5


def inside(layer: Layer, space: Space) -> Inside | None:
    """The layer in a space; None for the full one, for what is no matrix, and for a core without
    factors."""
    if space == "full" or not layer.is_matrix or (space == "core" and layer.factors is None):
        return None
    left, updates, right, rounded = layer.remember(("space", space), lambda: _found(layer, space))

    def remember(what: Hashable, compute: Callable[[], Any]) -> Any:
        return layer.remember((space, what), compute)

    small = replace(
        layer,
        base=torch.zeros_like(updates[0]),
        experts=updates,
        statistics=(),
        remember=remember,
        factors=None,
        rounded_at=rounded,
    )
    return Inside(small, left, right)


def _found(layer: Layer, space: Space) -> tuple[Tensor, tuple[Tensor, ...], Tensor | None, float]:
    """U, the updates in the space, Vᵀ, and the norm of the weights whose rounding they hold."""
    right, rounded = None, 0.0
    if space == "core":
        assert layer.factors is not None
        left, updates, right = core_bases(layer.factors)
    elif layer.factors is not None:
        left, updates = knots_basis_of_factors(layer.factors)
    else:
        # Of updates in dense form, what rounding left beside their rank is no direction.
        left, updates = knots_basis(layer.updates, rounding(layer, len(layer.experts)))
        rounded = max(norms((layer.base, *layer.experts)))
    inner = tuple(like(update, layer.base) for update in updates)
    outer = None if right is None else like(right, layer.base)
    return like(left, layer.base), inner, outer, rounded


def in_spaces(method: Method) -> Method:
    """The method with its option `space` heeded, where it has one: in another space than the full
    one it is run on the updates there, and its result multiplied back."""
    if "space" not in method.options.model_fields:
        return method

    def merge(layer: Layer, options: Any, survey: Any = None) -> Merged:
        found = inside(layer, space_of(options))
        if found is None:
            merged = method.merge(layer, options, survey)
            asked = layer.is_matrix and space_of(options) != "full"
            return _with_status(merged, NO_FACTORS) if asked else merged
        if not found.layer.base.numel():  # no expert has changed this layer
            return Merged(layer.base.clone(), method.name, status=f"exact, {found.said}")
        merged = method.merge(found.layer, options, survey)
        value = layer.base + found.back(merged.value)
        return replace(_with_status(merged, found.said), value=value)

    def survey(layers: Callable[[], Iterable[Layer]], options: Any) -> Any:
        assert method.survey is not None
        return method.survey(lambda: _seen(layers(), space_of(options)), options)

    def pieces(options: Any, is_matrix: bool) -> bool:
        if is_matrix and space_of(options) != "full":
            return False
        return method.pieces(options, is_matrix)

    def cost(s: Shape, options: Any) -> Cost:
        space = space_of(options)
        if not s.is_matrix or space == "full" or (space == "core" and s.low_rank is None):
            return method.cost(s, options)
        return _cost(s, space, lambda small: method.cost(small, options))

    def mergekit(options: Any) -> Counterpart | str:
        assert method.mergekit is not None
        return OTHER_SPACE if space_of(options) != "full" else method.mergekit(options)

    return replace(
        method,
        merge=merge,
        cost=cost,
        pieces=pieces,
        survey=survey if method.survey is not None else None,
        mergekit=mergekit if method.mergekit is not None else None,
    )


def _seen(layers: Iterable[Layer], space: Space) -> Iterable[Layer]:
    """The layers as they are merged in a space; without those that no expert has changed."""
    for layer in layers:
        found = inside(layer, space)
        if found is None:
            yield layer
        elif found.layer.base.numel():
            yield found.layer


def _with_status(merged: Merged, said: str) -> Merged:
    return replace(merged, status=f"{merged.status}, {said}")


def _cost(s: Shape, space: Space, inner: Callable[[Shape], Cost]) -> Cost:
    """What a layer costs in a space: its bases, the method there, and the way back."""
    m, n, t = s.rows, s.columns, s.experts
    total = m * t if s.low_rank is None else s.low_rank  # columns of all left factors
    rows = min(m, n * t) if s.low_rank is None else min(m, total)
    columns = min(n, total) if space == "core" else n
    small = inner(replace(s, size=(max(1, rows), max(1, columns)), low_rank=None))
    work = small.work + thin_svd(m, rows) + gemm(m, n, rows, s.dtype) + s.passes(3)
    if s.low_rank is None:
        work += operations(4.0 * n * t * m * rows) + gemm(rows, n, m, s.dtype) * t
        held = 8.0 * (2 * m * n * t + m * m)
    elif space == "core":
        work += thin_svd(columns, total) + gemm(rows, columns, total, s.dtype)
        work += gemm(rows, total, m, s.dtype) + gemm(total, columns, n, s.dtype)
        held = 8.0 * 2 * total * (m + n)
    else:
        work += operations(4.0 * m * total * rows + 4.0 * n * t * rows * rows) + eigenbasis(rows)
        held = 8.0 * (m * total + 2 * rows * n * t)
    kept = s.width * ((t + 1) * rows * columns + rows * m + columns * n)
    nbytes = max(held + svd_bytes(m, rows), kept + small.nbytes) + 3 * s.nbytes
    return replace(small, work=work, nbytes=nbytes)
