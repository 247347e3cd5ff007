"""The published methods as their papers describe them: what ours is measured against.

Written from the descriptions, for the comparison only; `tests/benchmarks` holds them against
oracles, so that a ratio is between two ways to one answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor


class Reached(Exception):
    """CG is where it should be."""


def mats_cg(
    blocks: Sequence[tuple[Tensor, Tensor]],
    experts: Sequence[Tensor],
    start: Tensor,
    *,
    residual: float,
    iterations: int,
) -> tuple[Tensor, int]:
    """MaTS (arXiv 2312.04339): SciPy's unpreconditioned CG in float32 on the normal equations.

    They are `Σ B_m X A_m = Σ B_m W_m A_m`; `blocks` are (B_m, A_m).  Each iteration goes to the
    host's vector and back, as a `LinearOperator` does.  Returns X and the iterations until
    ‖b − K X‖ ≤ residual · ‖b‖.
    """
    shape, device = start.shape, start.device

    def product(flat: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(np.ascontiguousarray(flat, dtype=np.float32)).reshape(shape).to(device)
        total = torch.zeros_like(x)
        for b, a in blocks:
            total += b @ x @ a
        return total.cpu().numpy().reshape(-1)

    right = torch.zeros_like(start)
    for (b, a), expert in zip(blocks, experts, strict=True):
        right += b @ expert @ a
    size = start.numel()
    operator = scipy.sparse.linalg.LinearOperator((size, size), matvec=product, dtype=np.float32)
    done = 0

    def count(_: np.ndarray) -> None:
        nonlocal done
        done += 1

    value, _ = scipy.sparse.linalg.cg(
        operator,
        right.cpu().numpy().reshape(-1),
        x0=start.cpu().numpy().reshape(-1),
        rtol=residual,
        atol=0.0,
        maxiter=iterations,
        callback=count,
    )
    return torch.from_numpy(value).reshape(shape).to(device), done


def essential_subspace(update: Tensor, inputs: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """ESM (arXiv 2602.20208), step 1: E (d_out, r) and λ (r,) from an SVD of all shifts `X Δᵀ`."""
    _, values, right = torch.linalg.svd(inputs @ update.T, full_matrices=False)
    return right[:rank].T, values[:rank] ** 2 / (len(inputs) - 1)


def essential_update(updates: Sequence[Tensor], inputs: Sequence[Tensor]) -> Tensor:
    """ESM, steps 1–6 with the published powers, SVD by SVD; the merged update of one layer."""
    rank = updates[0].shape[0] // len(updates)
    norms = torch.stack([update.norm() for update in updates])
    task_weights = (norms / norms.mean()) ** 2
    directions, coordinates = [], []
    for update, x, weight in zip(updates, inputs, task_weights, strict=True):
        e, values = essential_subspace(update, x, rank)
        s = (values / values.mean()) ** 0.15
        s = s / s.mean()
        directions.append(e * s)
        coordinates.append((e.T @ update) * weight * s[:, None])
    e_cat, c_cat = torch.cat(directions, 1), torch.cat(coordinates)
    lengths = c_cat.norm(dim=0)
    c_cat = c_cat * (lengths / lengths.mean()) ** 2
    return 2 * _orthogonal(e_cat) @ _orthogonal(c_cat)


def _orthogonal(matrix: Tensor) -> Tensor:
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    return left @ right * values.mean()
