"""Decompositions that do not give up: another routine where the first one fails, and a note of it.

LAPACK's divide-and-conquer routines fail on a few finite matrices which the older ones can
decompose.  Which one it was is noted for the status of the layer under way (`noted`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

T = TypeVar("T")
Way = tuple[str, Callable[[Tensor], T]]
JITTER = 1e-14  # of the largest entry: what float64 rounds away in a sum of a hundred

_NOTES: ContextVar[list[str] | None] = ContextVar("notes of decompositions", default=None)


@contextlib.contextmanager
def noted() -> Iterator[list[str]]:
    """The ways that decompositions inside of the block had to take, each told once."""
    notes: list[str] = []
    before = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(before)


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d,), ascending, and eigenvectors (d, d) of a symmetric matrix (d, d), or of each
    of a batch (M, d, d), which is looked at once.

    Raises `InputError` for NaN and infinity, and where every routine gives up.
    """
    ways: list[Way[tuple[Tensor, Tensor]]] = [
        ("eigh", torch.linalg.eigh),
        ("eigh by MRRR", lambda a: _scipy_eigh(a, "evr")),
        ("eigh by QR iterations", lambda a: _scipy_eigh(a, "ev")),
        ("eigh with jitter", lambda a: torch.linalg.eigh(_jittered(a))),
    ]
    if matrix.ndim > 2:
        ways[1:] = [("eigh of each matrix by itself", _each_eigh)]
    values, vectors = _first("eigenvalues", matrix, ways)
    return values, vectors


def _each_eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    found = [eigh(matrix) for matrix in matrices]
    return torch.stack([values for values, _ in found]), torch.stack([own for _, own in found])


def thin_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U (m, k), σ (k,) descending and Vᵀ (k, n) of a matrix (m, n); raises as `eigh` does."""
    ways: list[Way[tuple[Tensor, Tensor, Tensor]]] = [
        ("SVD", lambda a: torch.linalg.svd(a, full_matrices=False)),
        ("SVD by QR iterations", _scipy_svd),
        ("SVD with jitter", lambda a: torch.linalg.svd(_jittered(a), full_matrices=False)),
    ]
    left, values, right = _first("singular values", matrix, ways)
    return left, values, right


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues (d,), ascending, of a symmetric matrix (d, d); raises as `eigh` does."""
    ways: list[Way[Tensor]] = [
        ("eigenvalues", torch.linalg.eigvalsh),
        ("eigenvalues of eigh", lambda a: eigh(a)[0]),
    ]
    return _first("eigenvalues", matrix, ways)


def singular_values(matrix: Tensor) -> Tensor:
    """σ (k,), descending, of a matrix (m, n); raises as `eigh` does."""
    ways: list[Way[Tensor]] = [
        ("singular values", torch.linalg.svdvals),
        ("singular values of a whole SVD", lambda a: thin_svd(a)[1]),
    ]
    return _first("singular values", matrix, ways)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """`matrix⁻¹ right`, or the least-squares solution where the matrix is singular; raises as
    `eigh` does."""
    ways: list[Way[Tensor]] = [
        ("solve", lambda a: torch.linalg.solve(a, right)),
        ("least squares", lambda a: torch.linalg.pinv(a) @ right),
    ]
    return _first("the solution of a system", matrix, ways)


def _first(what: str, matrix: Tensor, ways: Sequence[Way[T]]) -> T:
    """What the first way gives that does not fail; a note where it is not the first of all."""
    if not bool(torch.isfinite(matrix).all()):
        raise InputError(
            f"{what} of a matrix",
            expected="finite numbers",
            found="NaN or infinity",
            remedy="Weights or statistics are too large for the arithmetic: use dtype float64, "
            "or look for the expert whose weights are.",
        )
    for number, (name, way) in enumerate(ways):
        try:
            found = way(matrix)
        except (RuntimeError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
            last = error
            continue
        notes = _NOTES.get()
        if number and notes is not None and name not in notes:
            notes.append(name)
        return found
    raise InputError(
        f"{what} of a matrix", expected="a decomposition", found=f"none: {last}",
        remedy="Raise the damping, or use dtype float64.",
    )  # fmt: skip


def _scipy_eigh(matrix: Tensor, driver: str) -> tuple[Tensor, Tensor]:
    import scipy.linalg

    values, vectors = scipy.linalg.eigh(matrix.cpu().numpy(), driver=driver)
    return torch.from_numpy(values).to(matrix), torch.from_numpy(vectors).to(matrix)


def _scipy_svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    import scipy.linalg

    found = scipy.linalg.svd(matrix.cpu().numpy(), full_matrices=False, lapack_driver="gesvd")
    left, values, right = (torch.from_numpy(np.ascontiguousarray(one)).to(matrix) for one in found)
    return left, values, right


def _jittered(matrix: Tensor) -> Tensor:
    """The matrix with noise below its rounding, symmetric where the matrix is square."""
    noise = torch.Generator().manual_seed(0)
    added = torch.randn(matrix.shape, generator=noise, dtype=torch.float64).to(matrix)
    if matrix.shape[0] == matrix.shape[1]:
        added = (added + added.mT) / 2
    return matrix + JITTER * float(matrix.abs().max()) * added
