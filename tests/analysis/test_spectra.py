"""Ranks of known spectra, overlaps of known subspaces, and the predicted loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mats_core.analysis.spectra import (
    KINDS,
    Spectrum,
    TaskLayer,
    layer_spectra,
    measures,
    overlap,
    predicted_loss,
    principal_angles,
    spectrum,
    subspace,
)
from mats_core.checkpoints.files import Checkpoint
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.statistics.store import Statistics
from tests.layer_cases import random_case


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_ranks_of_a_flat_spectrum(rank):
    flat = Spectrum(torch.tensor([2.5] * rank + [0.0] * 4))
    assert flat.stable_rank == pytest.approx(rank)
    assert flat.effective_rank == pytest.approx(rank)
    assert flat.energy(rank) == pytest.approx(1)
    assert flat.energy(1) == pytest.approx(1 / rank)


def test_ranks_of_another_spectrum():
    some = Spectrum(torch.tensor([4.0, 2.0, 2.0]))
    assert some.stable_rank == pytest.approx(2)
    # Entropy of (1/2, 1/4, 1/4) is 1.5 bits.
    assert some.effective_rank == pytest.approx(2**1.5)
    assert some.energy(2) == pytest.approx(0.75)


def test_ranks_of_nothing():
    for empty in (Spectrum(torch.zeros(3)), Spectrum(torch.zeros(0))):
        assert empty.stable_rank == empty.effective_rank == empty.energy(1) == 0


def test_overlap_and_principal_angles():
    eye = torch.eye(4).double()
    assert overlap(eye[:, :2], eye[:, :2]) == pytest.approx(1)
    assert overlap(eye[:, :2], eye[:, 2:]) == pytest.approx(0)
    turned = torch.stack([torch.tensor([np.cos(0.3), 0, np.sin(0.3), 0]), eye[1]], 1)
    angles = principal_angles(eye[:, :2], turned)
    assert angles.tolist() == pytest.approx([0, 0.3], abs=1e-7)
    # The overlap is the mean of the squared cosines.
    assert overlap(eye[:, :2], turned) == pytest.approx((1 + np.cos(0.3) ** 2) / 2)


def test_overlap_of_random_subspaces_is_their_share_of_the_space():
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(200):
        a, b = (
            torch.linalg.qr(torch.randn(20, 5, dtype=torch.float64, generator=generator))[0]
            for _ in range(2)
        )
        found.append(overlap(a, b))
    assert np.mean(found) == pytest.approx(5 / 20, abs=0.02)


def test_spectra_of_one_task():
    case = random_case(1)
    delta, a, b = case.layer.updates[0], case.grams[0], case.output_grams[0]
    expected = {
        "input": np.linalg.eigvalsh(a),
        "output gradient": np.linalg.eigvalsh(b),
        "essential": np.linalg.eigvalsh(delta @ a @ delta.T),
        "task matrix": np.linalg.svd(delta, compute_uv=False)[::-1] ** 2,
    }
    assert set(expected) == set(KINDS)
    for kind in KINDS:
        values = expected[kind]
        found = spectrum(kind, delta, a, b)
        assert found is not None
        assert found.values.tolist() == pytest.approx(values[::-1].clip(0), abs=1e-10)
    assert spectrum("essential", delta, None, b) is None
    assert spectrum("output gradient", delta, a, None) is None
    assert spectrum("task matrix", delta, None, None) is not None


def test_layer_spectra_of_a_family(tiny_family):
    experts = [Expert(f"e{m}", Checkpoint.open(tiny_family / f"e{m}")) for m in range(3)]
    family = examine(Checkpoint.open(tiny_family / "base"), experts)
    statistics = {
        f"e{m}": Statistics.open(tiny_family / f"e{m}.stats.safetensors") for m in range(2)
    }
    name = next(n for n in family.shared if n.endswith("query.weight"))
    for kind in KINDS:
        found = layer_spectra(family, statistics, name, kind)
        assert list(found) == (["e0", "e1", "e2"] if kind == "task matrix" else ["e0", "e1"])
        assert all(len(s.values) == 24 for s in found.values())
        assert all(bool((s.values >= 0).all()) for s in found.values())


def test_predicted_loss_is_the_quadratic_form():
    case = random_case(2)
    a, b, merge = case.grams[0], case.output_grams[0], case.layer.base
    difference = (merge - case.layer.experts[0]).reshape(-1)
    expected = 0.5 * difference @ torch.kron(b, a) @ difference
    assert predicted_loss(merge, case.layer.experts[0], a, b) == pytest.approx(float(expected))
    assert predicted_loss(merge, merge, a, b) == 0


def test_predicted_loss_is_the_loss_of_a_linear_layer_to_second_order():
    # Squared loss ½‖y − W x‖² has B = I: the excess over the fitted expert is exact.
    case = random_case(3)
    x = case.inputs[0]
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(60, 6, dtype=torch.float64, generator=generator)
    fitted = torch.linalg.lstsq(x, y).solution.T

    def loss(w):
        return 0.5 * ((y - x @ w.T) ** 2).sum(1).mean()

    excess = loss(case.layer.base) - loss(fitted)
    predicted = predicted_loss(
        case.layer.base, fitted, case.grams[0], torch.eye(6, dtype=torch.float64)
    )
    assert predicted == pytest.approx(float(excess), rel=1e-9)


@pytest.mark.parametrize("shape", [(6, 5), (4, 7), (5, 5)])
@pytest.mark.parametrize("kind", KINDS)
def test_spectra_and_directions_on_either_side(kind, shape):
    case = random_case(4, d_out=shape[0], d_in=shape[1])
    delta, a, b = case.layer.updates[0], case.grams[0], case.output_grams[0]
    whole = {
        "input": a,
        "output gradient": b,
        "essential": delta @ a @ delta.T,
        "task matrix": delta @ delta.T,
    }[kind]
    values, vectors = np.linalg.eigh(whole.numpy())
    found = spectrum(kind, delta, a, b)
    assert found is not None
    expected = np.sort(values)[::-1].clip(0)
    assert found.values.tolist() == pytest.approx(expected[: len(found.values)], abs=1e-9)
    assert expected[len(found.values) :] == pytest.approx(0, abs=1e-9)
    basis = subspace(kind, delta, a, b, 3)
    assert basis is not None
    # The projector onto the three strongest directions does not depend on signs.
    top = vectors[:, ::-1][:, :3]
    assert (basis @ basis.T).numpy() == pytest.approx(top @ top.T, abs=1e-7)


def test_directions_without_statistics():
    case = random_case(5)
    delta, a, b = case.layer.updates[0], case.grams[0], case.output_grams[0]
    assert subspace("essential", delta, None, b, 2) is None
    assert subspace("input", delta, None, b, 2) is None
    assert subspace("output gradient", delta, a, None, 2) is None
    assert subspace("task matrix", delta, None, None, 2) is not None


def test_measures_are_all_spectra_and_the_essential_directions():
    case = random_case(6)
    delta, a, b = case.layer.updates[0], case.grams[0], case.output_grams[0]
    expert = Expert("one", None)  # type: ignore[arg-type]
    own, basis = measures(TaskLayer(expert, delta, a, b), 2)
    for kind in KINDS:
        found, single = own[kind], spectrum(kind, delta, a, b)
        assert found is not None
        assert single is not None
        assert found.values.tolist() == pytest.approx(single.values.tolist())
    assert basis is not None
    assert overlap(basis, subspace("essential", delta, a, b, 2)) == pytest.approx(1)  # type: ignore
    own, basis = measures(TaskLayer(expert, delta, None, None), 2)
    assert basis is None
    assert [kind for kind, found in own.items() if found is not None] == ["task matrix"]
