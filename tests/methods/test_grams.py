"""Merging from the weights alone: Grams of the updates, by their formulas in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.linear import LowRank, matrix, update_gram
from mats_core.merging.pipeline import run
from mats_core.methods import METHODS
from mats_core.methods.grams import largest
from mats_core.recipes.events import Finished
from tests.layer_cases import SEEDS, close, merged, random_case, raw_recipe, value

ACTMAT = {"gram": "update", "damping": 0.0}
SOLVED = {"iterations": 2000, "tolerance": 0.0, "damping": 0.2}


def bare(layer):
    """The layer as it is without any statistics."""
    return replace(layer, statistics=())


def with_updates(layer, updates):
    experts = tuple(layer.base + update for update in updates)
    count = len(experts)
    labels = tuple(f"e{m}" for m in range(count))
    return replace(bare(layer), experts=experts, weights=(1.0,) * count, labels=labels)


def updates(layer):
    return [(expert - layer.base).numpy() for expert in layer.experts]


def normed(gram, damping):
    gram = gram / np.trace(gram)
    return gram + damping * np.trace(gram) / len(gram) * np.eye(len(gram))


# One formula in numpy for each way ----------------------------------------------------------------


def actmat(deltas):
    """`(Σ Δ A)(Σ A)⁺` with A = ΔᵀΔ."""
    grams = [d.T @ d for d in deltas]
    above = sum(d @ a for d, a in zip(deltas, grams, strict=True))
    return above @ np.linalg.pinv(sum(grams), rcond=1e-12)


def powered(update, power):
    """`(ΔᵀΔ)^power` by the singular values of Δ: the eigenvalues of ΔᵀΔ that should be zero are
    1e-17 of either sign, and their roots are not small."""
    _, values, rows = np.linalg.svd(update, full_matrices=False)
    return (rows.T * values ** (2 * power)) @ rows


def by_curvature(deltas, damping, inputs=None, power=1):
    """The solution X of `Σ B X A = Σ B Δ A` by its dense matrix."""
    sides = [
        (normed(powered(d.T, power), damping),
         normed(powered(d, power) if inputs is None else inputs[m], damping))
        for m, d in enumerate(deltas)
    ]  # fmt: skip
    left = sum(np.kron(b, a) for b, a in sides)
    right = np.sum([b @ d @ a for (b, a), d in zip(sides, deltas, strict=True)], axis=0)
    return np.linalg.solve(left, right.reshape(-1)).reshape(right.shape)


@pytest.mark.parametrize("seed", SEEDS)
def test_regmean_of_updates_is_actmat(seed):
    layer = bare(random_case(seed).layer)
    close(value(layer, "regmean", **ACTMAT) - layer.base, actmat(updates(layer)), 1e-8)


@pytest.mark.parametrize("experts", [2, 3])
def test_kfac_of_updates_solves_its_dense_system(experts):
    layer = bare(random_case(1, experts=experts).layer)
    found = value(layer, "kfac", gram="update", **SOLVED) - layer.base
    close(found, by_curvature(updates(layer), 0.2), 1e-8)


@pytest.mark.parametrize("power", [0.25, 0.5])
def test_grams_of_updates_to_a_power_are_those_by_their_eigenvalues(power):
    layer = bare(random_case(6).layer)
    found = value(layer, "kfac", gram="update", gram_power=power, **SOLVED) - layer.base
    close(found, by_curvature(updates(layer), 0.2, power=power), 1e-8)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (24, 20)])
def test_a_power_of_a_gram_is_the_same_in_factors_and_of_wide_and_tall_updates(shape):
    random = torch.Generator().manual_seed(7)
    thin = [torch.randn(size, 2, dtype=torch.float64, generator=random) for size in shape]
    full = torch.randn(*shape, dtype=torch.float64, generator=random)
    for update, exactly in ((thin[0] @ thin[1].T, 1e-6), (full, 1e-8)):
        found = matrix(update_gram(update, 1, 1e-9, 0.5))
        close(found @ found, update.T @ update, exactly)


def test_measured_inputs_go_with_output_grams_of_updates():
    case = random_case(2)
    layer = replace(
        case.layer,
        statistics=tuple(replace(s, output_gradient_gram=None) for s in case.layer.statistics),
    )
    found = value(layer, "kfac", gram="update-output", **SOLVED) - layer.base
    expected = by_curvature(updates(layer), 0.2, [a.numpy() for a in case.grams])
    close(found, expected, 1e-8)


def test_essential_directions_of_updates_are_their_singular_vectors():
    layer = bare(random_case(3, experts=1).layer)
    off = {"task_power": 0, "dimension_power": 0, "layer_power": 0, "eigenvalue_power": 0}
    found = value(layer, "essential", gram="update", rank=2, orthogonal=False, **off)
    left = np.linalg.svd(updates(layer)[0])[0][:, :2]
    close(found - layer.base, left @ left.T @ updates(layer)[0], 1e-8)


# Identities ---------------------------------------------------------------------------------------


WAYS = [
    ("regmean", ACTMAT), ("regmean", {"gram": "update", "normalise": True, "damping": 0.1}),
    ("kfac", {"gram": "update", **SOLVED}),
    ("kfac_matching", {"gram": "update", "prior": 0.1, **SOLVED}),
]  # fmt: skip


@pytest.mark.parametrize(("method", "options"), WAYS)
def test_one_expert_comes_back(method, options):
    layer = bare(random_case(4, experts=1).layer)
    # Both sides of gradient matching's prior: 2 H Δ against (1 + share) H Δ are not equal.
    if method == "kfac_matching":
        options = {**options, "prior": 1e-9}
    close(value(layer, method, **options), layer.experts[0], 1e-7)


@pytest.mark.parametrize(("method", "options"), WAYS[:3])
def test_equal_experts_come_back(method, options):
    layer = random_case(5).layer
    same = with_updates(layer, [layer.updates[0]] * 3)
    close(value(same, method, **options), same.experts[0], 1e-7)


@pytest.mark.parametrize("normalise", [False, True])
def test_updates_of_inputs_at_right_angles_add_up(normalise):
    """`Δ_s Δ_tᵀ = 0`: no update touches another one's inputs."""
    layer = random_case(6, d_in=8).layer
    basis = np.linalg.qr(np.random.default_rng(6).normal(size=(8, 8)))[0]
    random = np.random.default_rng(7)
    parts = [(1 + m) * random.normal(size=(6, 2)) @ basis[2 * m : 2 * m + 2] for m in range(3)]
    apart = with_updates(layer, [torch.from_numpy(part) for part in parts])
    found = value(apart, "regmean", **ACTMAT, normalise=normalise) - layer.base
    close(found, sum(parts), 1e-8)


@pytest.mark.parametrize("iterations", [None, 2])
def test_a_common_factor_of_all_updates_is_one_of_the_merge(iterations):
    layer = bare(random_case(7).layer)
    small = with_updates(layer, [0.01 * d for d in layer.updates])
    options = {**ACTMAT, "iterations": iterations}
    one, other = (value(each, "regmean", **options) - layer.base for each in (layer, small))
    close(other, 0.01 * one, 1e-8)


def test_few_iterations_stay_near_the_sum_and_many_reach_the_closed_form():
    layer = bare(random_case(8).layer)
    closed = value(layer, "regmean", gram="update", damping=0.05)
    total = torch.stack(list(layer.updates)).sum(0) + layer.base
    gaps = [
        float((value(layer, "regmean", gram="update", damping=0.05, iterations=k) - total).norm())
        for k in (0, 1, 3)
    ]
    assert gaps[0] < 1e-12 < gaps[1] < gaps[2]
    close(value(layer, "regmean", gram="update", damping=0.05, iterations=200), closed, 1e-8)


# Shares and factors -------------------------------------------------------------------------------


def test_a_share_keeps_the_largest_entries():
    update = torch.tensor([[3.0, -1.0], [0.5, -2.0]])
    assert largest(update, 0.5).tolist() == [[3.0, 0.0], [0.0, -2.0]]


def test_a_share_enters_the_gram_and_not_the_update():
    layer = bare(random_case(9).layer)
    deltas = updates(layer)
    kept = [largest(torch.from_numpy(d), 0.5).numpy() for d in deltas]
    grams = [k.T @ k for k in kept]
    above = sum(d @ a for d, a in zip(deltas, grams, strict=True))
    found = value(layer, "regmean", **ACTMAT, gram_share=0.5) - layer.base
    close(found, above @ np.linalg.pinv(sum(grams)), 1e-7)


SIZES = [(40, 64, 3, True), (40, 64, 30, False), (8, 40, 8, None), (40, 8, 8, None)]


@pytest.mark.parametrize(("d_out", "d_in", "rank", "both"), SIZES)
def test_grams_of_updates_are_in_factors_where_that_pays(d_out, d_in, rank, both):
    random = np.random.default_rng(0)
    delta = random.normal(size=(d_out, rank)) @ random.normal(size=(rank, d_in))
    update = torch.from_numpy(delta)
    a, b = (update_gram(side, 2, 1e-9) for side in (update, update.mT))
    close(matrix(a), delta.T @ delta, 1e-12)
    close(matrix(b), delta @ delta.T, 1e-12)
    expected = (2 * d_out <= d_in, 2 * d_in <= d_out) if both is None else (both, both)
    assert (isinstance(a, LowRank), isinstance(b, LowRank)) == expected
    if both:
        assert isinstance(a, LowRank)
        assert a.rank == rank


@pytest.mark.parametrize("method", ["regmean", "kfac", "kfac_matching", "essential"])
def test_a_lora_merges_in_factors_as_it_does_by_matrices(method, monkeypatch):
    layer = random_case(0, d_out=40, d_in=40).layer
    random = torch.Generator().manual_seed(0)
    low = [
        torch.randn(40, 2, dtype=torch.float64, generator=random)
        @ torch.randn(2, 40, dtype=torch.float64, generator=random)
        for _ in range(3)
    ]
    lora = with_updates(layer, low)
    options = {"gram": "update", **({} if method in ("essential",) else {"damping": 0.1})}
    if method.startswith("kfac"):
        options |= {"iterations": 500, "tolerance": 0.0}
    factored = value(lora, method, **options)
    monkeypatch.setattr("mats_core.methods.grams.update_gram", lambda d, *_: d.mT @ d)
    close(factored, value(lora, method, **options), 1e-7)


# What a recipe needs ------------------------------------------------------------------------------

REQUIRED = [
    ("regmean", "update", set()), ("regmean", "measured", {"input_gram"}),
    ("kfac", "update", set()), ("kfac", "update-output", {"input_gram"}),
    ("kfac", "measured", {"input_gram", "output_gradient_gram"}),
    ("kfac_matching", "update", set()), ("kfac_matching", "update-output", {"input_gram"}),
    ("essential", "update", set()),
]  # fmt: skip


@pytest.mark.parametrize(("method", "gram", "kinds"), REQUIRED)
def test_what_is_required_depends_on_where_grams_come_from(method, gram, kinds):
    row = METHODS[method]
    options = row.options.model_validate({"gram": gram})
    assert row.requires(options) == kinds
    assert row.reads(options) >= kinds
    assert bool(row.reads(options)) == (gram != "update")


@pytest.mark.parametrize("method", ["regmean", "kfac"])
@pytest.mark.parametrize("fold", [False, True])
def test_bare_files_merge_without_statistics(method, fold, tmp_path):
    random = torch.Generator().manual_seed(0)

    def tensors():
        shapes = {"fc.weight": (6, 4), "fc.bias": (6,)}
        return {k: torch.randn(s, dtype=torch.float64, generator=random) for k, s in shapes.items()}

    base, experts = tensors(), [tensors() for _ in range(3)]
    recipe = raw_recipe(
        tmp_path, base, experts, method, {"gram": "update", "fold_bias": fold}, evaluate=False
    )
    (found,) = [event for event in run(recipe) if isinstance(event, Finished)]
    layer = next(one for one in found.report.layers if one.name == "fc.weight")
    assert layer.method == method
    assert "Grams of the updates" in layer.status
    mean = torch.stack([e["fc.bias"] for e in experts]).mean(0)
    assert bool(torch.allclose(found.tensors["fc.bias"], mean)) != fold


def test_the_report_says_where_grams_come_from():
    layer = random_case(0).layer
    assert "updates" not in merged(layer, "kfac").status
    assert merged(layer, "kfac", gram="update-output").status.endswith("B of the updates")
