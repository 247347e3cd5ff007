"""TSV-M, Iso-C and Iso-CTS against plain numpy transcriptions of the formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.layer_cases import SEEDS, close, merged, random_case, value

SHAPES = [(6, 5), (5, 9), (8, 8), (12, 4)]


def procrustes(matrix):
    """`U Vᵀ` of the thin SVD: the nearest matrix with orthonormal rows or columns."""
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def numpy_updates(layer):
    return [w.numpy() - layer.base.numpy() for w in layer.experts]


def tsv_m(updates):
    rank = min(updates[0].shape) // len(updates)
    svds = [np.linalg.svd(u, full_matrices=False) for u in updates]
    u_cat = np.hstack([u[:, :rank] for u, _, _ in svds])
    s_cat = np.concatenate([s[:rank] for _, s, _ in svds])
    v_cat = np.vstack([v[:rank] for _, _, v in svds])
    return procrustes(u_cat) @ np.diag(s_cat) @ procrustes(v_cat)


def iso_c(updates):
    u, s, vt = np.linalg.svd(sum(updates), full_matrices=False)
    return np.mean(s) * u @ vt


def iso_cts(updates, share):
    tasks, rank = len(updates), min(updates[0].shape)
    each = round((rank - int(share * rank)) / tasks)
    common = rank - tasks * each
    u, s, vt = np.linalg.svd(sum(updates), full_matrices=False)
    us, ss, vs = [u[:, :common]], [s[:common]], [vt[:common]]
    for update in updates:
        residual = (np.eye(len(u)) - u[:, :common] @ u[:, :common].T) @ update
        u_t, s_t, v_t = np.linalg.svd(residual, full_matrices=False)
        us.append(u_t[:, :each])
        ss.append(s_t[:each])
        vs.append(v_t[:each])
    return np.mean(np.concatenate(ss)) * procrustes(np.hstack(us)) @ procrustes(np.vstack(vs))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scaling", [0.5, 1.0])
def test_spectral_methods_equal_their_formulas(seed, shape, scaling):
    layer = random_case(seed, d_out=shape[0], d_in=shape[1]).layer
    updates, w0 = numpy_updates(layer), layer.base.numpy()
    close(value(layer, "tsv_m", scaling=scaling), w0 + scaling * tsv_m(updates))
    close(value(layer, "iso_c", scaling=scaling), w0 + scaling * iso_c(updates))
    for share in (0.25, 0.8):
        close(
            value(layer, "iso_cts", scaling=scaling, common=share),
            w0 + scaling * iso_cts(updates, share),
        )


def test_one_task_gets_its_own_update_back_from_tsv_m():
    layer = replace(random_case(0, experts=1).layer)
    close(value(layer, "tsv_m", scaling=1), layer.experts[0])


def test_iso_c_makes_the_spectrum_flat():
    layer = random_case(1).layer
    update = value(layer, "iso_c", scaling=1) - layer.base
    singular = torch.linalg.svdvals(update)
    assert float(singular.max() - singular.min()) < 1e-10
    expected = torch.linalg.svdvals(layer.experts[0] + layer.experts[1] + layer.experts[2]
                                    - 3 * layer.base).mean()  # fmt: skip
    assert float(singular.mean()) == pytest.approx(float(expected))


def test_iso_cts_with_all_directions_common_is_iso_c():
    layer = random_case(2).layer
    close(value(layer, "iso_cts", common=1.0), value(layer, "iso_c"))


def test_more_tasks_than_directions_keep_one_each():
    layer = random_case(3, d_out=3, d_in=2, experts=5).layer
    updates = numpy_updates(layer)
    svds = [np.linalg.svd(u, full_matrices=False) for u in updates]
    u_cat = np.hstack([u[:, :1] for u, _, _ in svds])
    v_cat = np.vstack([v[:1] for _, _, v in svds])
    s_cat = np.array([s[0] for _, s, _ in svds])
    expected = layer.base.numpy() + procrustes(u_cat) * s_cat @ procrustes(v_cat)
    close(value(layer, "tsv_m", scaling=1), expected)


def test_a_rank_deficient_sum_leaves_its_null_space_alone():
    # U Vᵀ is not defined there; the documented choice is the partial isometry.
    case = random_case(4)
    direction = torch.outer(torch.arange(6).double(), torch.ones(5).double())
    base = case.layer.base
    layer = replace(case.layer, experts=tuple(base + k * direction for k in (1.0, 2.0, 3.0)))
    update = value(layer, "iso_c", scaling=1) - base
    assert int(torch.linalg.matrix_rank(update, rtol=1e-8)) == 1
    close(update, 6 * direction / 5)


@pytest.mark.parametrize("method", ["tsv_m", "iso_c", "iso_cts"])
def test_vectors_take_the_mean_task_vector(method):
    layer = replace(random_case(5).layer, is_matrix=False)
    result = merged(layer, method, scaling=0.3)
    assert result.treatment == "averaged"
    close(result.value, torch.stack(layer.experts).mean(0))
