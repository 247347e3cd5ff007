"""One basis in which many Grams are nearly diagonal, and the preconditioner of K-FAC that it makes.

The Kronecker preconditioner takes `ΣB ⊗ ΣA` for `Σ B_m ⊗ A_m`.  In a basis in which all A_m, and
one in which all B_m, are nearly diagonal, the operator itself is nearly diagonal: its own diagonal
there is divided by, and half the iterations are left.  Damping adds a multiple of the identity to
every Gram, so a basis made at one damping serves at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cg import Apply
from .decompositions import exact, like, symmetric
from .fallbacks import eigh, solve
from .preconditioners import floored
from .updates import weighted_sum

# Measured on layers of the sample family, in products with the operator of eight tasks: half the
# directions in six steps cost 6 to 10 and leave 7 of 13 iterations to 1e-3 and 14 of 30 to 1e-4;
# all of them cost 30 to 50 and leave one or two less.
JOINT_SHARE = 0.5  # of the directions of the mean, the largest, are turned further
JOINT_STEPS = 6
DAMPING = 0.1  # at which the mean is whitened
LARGEST = 1.0  # root mean square over the rows of the angles of a step


@dataclass(frozen=True)
class JointBasis:
    """A basis T in which Grams are nearly diagonal.

    vectors    T (n, n) as columns, not orthogonal
    diagonals  the diagonal of `Tᵀ C_m T` (M, n)
    lengths    that of `Tᵀ T` (n,)
    means      the mean diagonal entry of each C_m (M,)
    """

    vectors: Tensor
    diagonals: Tensor
    lengths: Tensor
    means: Tensor

    def damped(self, damping: float) -> Tensor:
        """The diagonals (M, n) of the Grams damped by `C + δ (tr C / n) I`."""
        return self.diagonals + damping * self.means[:, None] * self.lengths


def joint_basis(
    grams: Sequence[Tensor],
    weights: Sequence[float],
    *,
    share: float = JOINT_SHARE,
    steps: int = JOINT_STEPS,
) -> JointBasis:
    """A basis in which symmetric positive semi-definite matrices (n, n) are nearly diagonal.

    The eigenbasis of their weighted sum, whitened, whose leading `share` of directions is turned by
    `steps` of simultaneous least-squares rotations (orthogonal joint diagonalisation; the angle of
    every pair is Jacobi's, of Cardoso and Souloumiac, SIAM J. Matrix Anal. Appl. 17, 1996, all
    taken at once by Cayley's map, in products of matrices only).
    """
    whitened = _whitened(weighted_sum(grams, weights))
    leading = whitened[:, : max(1, round(share * whitened.shape[1]))].contiguous()
    inner = torch.stack([leading.mT @ (gram @ leading) for gram in grams])
    turned = leading @ _rotation(inner, steps)
    vectors = torch.cat([turned, whitened[:, leading.shape[1] :]], 1).contiguous()
    return JointBasis(
        vectors,
        torch.stack([(vectors * (gram @ vectors)).sum(0) for gram in grams]),
        (vectors * vectors).sum(0),
        torch.stack([gram.diagonal().mean() for gram in grams]),
    )


def _whitened(total: Tensor) -> Tensor:
    """Eigenvectors of the damped sum as columns, largest first, each over the root of its value."""
    wide = symmetric(exact(total))
    mean = wide.diagonal().mean()
    if not float(mean) > 0:  # nothing to whiten
        return torch.eye(len(total), dtype=total.dtype, device=total.device)
    values, vectors = eigh(wide)
    values = (values + DAMPING * mean).clamp_min(1e-14 * mean)
    return like((vectors / values.sqrt()).flip(1), total).contiguous()


def _rotation(grams: Tensor, steps: int) -> Tensor:
    """V (k, k), orthogonal, such that `Vᵀ C_m V` are nearly diagonal for `grams` (M, k, k)."""
    size = grams.shape[-1]
    unit = torch.eye(size, dtype=grams.dtype, device=grams.device)
    rotation = unit
    for _ in range(steps):
        half = _angles(grams) / 2
        turn = solve(unit - half, unit + half)
        grams = turn @ grams @ turn.mT
        rotation = rotation @ turn.mT
    return rotation


def _angles(grams: Tensor) -> Tensor:
    """The angle by which every pair of directions is turned, antisymmetric (k, k)."""
    values = grams.diagonal(dim1=1, dim2=2)
    apart = values[:, :, None] - values[:, None, :]
    off = 4 * (grams * apart).sum(0)
    on = (apart**2 - 4 * grams**2).sum(0)
    angles = 0.5 * torch.atan2(off, on + (on**2 + off**2).sqrt())
    angles = (angles - angles.mT) / 2  # a pair's two are opposite, but for rounding and for zeros
    root = float(angles.norm()) / len(angles) ** 0.5
    return angles * min(1.0, LARGEST / root) if root else angles


def joint(
    a: JointBasis,
    b: JointBasis,
    weights: Sequence[float],
    *,
    damping: float = 0.0,
    shift: float = 0.0,
) -> Apply:
    """A preconditioner `P⁻¹R = T_B((T_Bᵀ R T_A) ⊘ D) T_Aᵀ`.

    D is the diagonal of `Σ w_m B_m ⊗ A_m + shift` in the bases of all A_m and of all B_m, each
    Gram damped by `damping`.
    """
    sides = b.damped(damping), a.damped(damping)
    values = torch.einsum("m,mi,mj->ij", sides[0].new_tensor(weights), *sides)
    values = floored(values + shift * torch.outer(b.lengths, a.lengths))
    return lambda r: b.vectors @ ((b.vectors.mT @ r @ a.vectors) / values) @ a.vectors.mT
