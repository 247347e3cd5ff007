"""RegMean against least squares on the stacked data, and its options against the dense system."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.linear import weighted_sum
from mats_core.merging.pipeline import run
from mats_core.methods.fisher import FisherOptions, fisher_average
from mats_core.methods.regmean import RegMeanOptions, regmean_reads
from mats_core.recipes.events import Finished
from tests.layer_cases import SEEDS, close, merged, random_case, raw_recipe, value, with_statistics


def stacked_least_squares(inputs, targets):
    """W that minimises Σ_m ‖X_m Wᵀ − Y_m‖² / N_m, on the data and not on Grams."""
    x = np.vstack([x / len(x) ** 0.5 for x in inputs])
    y = np.vstack([y / len(y) ** 0.5 for y in targets])
    return np.linalg.lstsq(x, y, rcond=None)[0].T


@pytest.mark.parametrize("seed", SEEDS)
def test_regmean_minimises_the_outputs_squared_differences(seed):
    case = random_case(seed)
    xs = [x.numpy() for x in case.inputs]
    ys = [x @ w.numpy().T for x, w in zip(xs, case.layer.experts, strict=True)]
    result = merged(case.layer, "regmean", damping=0)
    close(result.value, stacked_least_squares(xs, ys))
    assert result.status == "closed form"


def test_regmean_weights_multiply_the_grams():
    case = random_case(3).with_weights(1.0, 4.0, 0.5)
    xs = [a**0.5 * x.numpy() for a, x in zip((1, 4, 0.5), case.inputs, strict=True)]
    ys = [x @ w.numpy().T for x, w in zip(xs, case.layer.experts, strict=True)]
    close(value(case.layer, "regmean", damping=0), stacked_least_squares(xs, ys))


def formed(gram, off_diagonal, damping):
    gram = off_diagonal * gram + (1 - off_diagonal) * np.diag(np.diag(gram))
    return gram + damping * np.trace(gram) / len(gram) * np.eye(len(gram))


@pytest.mark.parametrize(
    ("off_diagonal", "damping"), [(0.9, 0.0), (0.0, 0.0), (1.0, 0.3), (0.5, 2)]
)
def test_regmean_options(off_diagonal, damping):
    case = random_case(4)
    grams = [formed(a.numpy(), off_diagonal, damping) for a in case.grams]
    above = sum(w.numpy() @ a for w, a in zip(case.layer.experts, grams, strict=True))
    expected = above @ np.linalg.inv(sum(grams))
    close(value(case.layer, "regmean", off_diagonal=off_diagonal, damping=damping), expected)


def test_a_singular_sum_lands_on_the_solution_nearest_to_the_average():
    case = random_case(5, d_in=9, tokens=2)  # six tokens for nine input dimensions
    xs = np.vstack([x.numpy() for x in case.inputs])
    ys = np.vstack(
        [(x @ w.T).numpy() for x, w in zip(case.inputs, case.layer.experts, strict=True)]
    )
    mean = torch.stack(case.layer.experts).mean(0).numpy()
    # The minimum-norm change of the average that solves the least-squares problem.
    expected = mean + np.linalg.lstsq(xs, ys - xs @ mean.T, rcond=1e-10)[0].T
    result = merged(case.layer, "regmean", damping=0)
    close(result.value, expected, 1e-8)
    assert "singular" in result.status


@pytest.mark.parametrize("method", ["regmean", "kfac"])
@pytest.mark.parametrize("experts", [2, 3])
def test_too_few_tokens_in_float32_land_there_too(method, experts):
    case = random_case(5, d_in=40, d_out=12, tokens=8, experts=experts)
    layer = case.layer
    single = replace(
        layer,
        base=layer.base.float(),
        experts=tuple(w.float() for w in layer.experts),
        statistics=tuple(
            type(own)(**{k: None if v is None else v.float() for k, v in vars(own).items()})
            for own in layer.statistics
        ),
    )
    options = {"damping": 0} | ({"iterations": 200} if method == "kfac" else {})
    close(value(single, method, **options), value(layer, method, **options), 0.01)


@pytest.mark.parametrize("method", ["regmean", "kfac"])
def test_a_folded_bias_is_least_squares_with_a_bias(tmp_path, method):
    case = random_case(6)
    generator = torch.Generator().manual_seed(6)
    biases = [torch.randn(6, dtype=torch.float64, generator=generator) for _ in range(4)]
    names = ("enc.fc.weight", "enc.fc.bias")
    identity = torch.eye(6, dtype=torch.float64)
    statistics = [
        {
            "enc.fc.input_gram": a,
            "enc.fc.input_mean": x.mean(0),
            "enc.fc.output_gradient_gram": identity,
        }
        for a, x in zip(case.grams, case.inputs, strict=True)
    ]
    options = {"damping": 0, "fold_bias": True}
    if method == "kfac":  # with B = I it is RegMean
        options |= {"iterations": 500, "tolerance": 0, "normalise": False}
    recipe = raw_recipe(
        tmp_path,
        dict(zip(names, (case.layer.base, biases[3]), strict=True)),
        [
            dict(zip(names, pair, strict=True))
            for pair in zip(case.layer.experts, biases, strict=False)
        ],
        method,
        options,
        statistics=statistics,
    )
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    xs = [np.hstack([x.numpy(), np.ones((len(x), 1))]) for x in case.inputs]
    ys = [
        x @ np.vstack([w.T.numpy(), b[None].numpy()])
        for x, w, b in zip(xs, case.layer.experts, biases[:3], strict=True)
    ]
    expected = stacked_least_squares(xs, ys)
    close(last.tensors[names[0]], expected[:, :-1])
    close(last.tensors[names[1]], expected[:, -1])
    assert last.report.coverage["merged"] == 2
    treatments = {layer.name: layer.status for layer in last.report.layers}
    assert treatments["enc.fc.bias"] == "folded into enc.fc.weight"


# Parameters without a block -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["regmean", "kfac"])
def test_remaining_parameters(method):
    case = random_case(7)
    layer = replace(case.layer, is_matrix=False)
    mean = torch.stack(layer.experts).mean(0)
    close(value(layer, method), mean)
    assert merged(layer, method, remaining="mean").treatment == "averaged"
    floor = FisherOptions().floor  # that of Fisher merging by itself
    fishers = tuple(f.clamp_min(floor * float(f.mean())) for f in case.fishers)
    total = weighted_sum(fishers, layer.shares)
    above = weighted_sum(map(torch.mul, fishers, layer.experts), layer.shares)
    by_fisher = fisher_average(total, above, weighted_sum(layer.experts, layer.shares))
    close(value(layer, method, remaining="fisher"), by_fisher)
    # No block was measured: the Fisher is next best.
    close(value(layer, method, remaining="block"), by_fisher)
    bare = replace(layer, statistics=())
    close(value(bare, method, remaining="block"), mean)


def blocks_of(case, rank):
    generator = torch.Generator().manual_seed(99)
    rows = [torch.randn(rank, 30, dtype=torch.float64, generator=generator) for _ in range(3)]
    return [r.T @ r / rank for r in rows]


@pytest.mark.parametrize("method", ["regmean", "kfac"])
@pytest.mark.parametrize("damping", [0.0, 0.2])
def test_the_full_block_of_a_small_parameter_equals_the_dense_solve(method, damping):
    case = random_case(8).with_weights(1.0, 2.0, 0.5)
    blocks = blocks_of(case, 45)
    layer = replace(with_statistics(case, block=blocks), is_matrix=False)
    dense = [
        (b + damping * torch.trace(b) / 30 * torch.eye(30, dtype=torch.float64)).numpy()
        for b in blocks
    ]
    alphas = (1, 2, 0.5)
    matrix = sum(a * c for a, c in zip(alphas, dense, strict=True))
    right = sum(
        a * c @ w.numpy().ravel() for a, c, w in zip(alphas, dense, layer.experts, strict=True)
    )
    result = merged(layer, method, remaining="block", damping=damping)
    assert result.method == "block"
    close(result.value, np.linalg.solve(matrix, right).reshape(6, 5), 1e-8)


def test_a_singular_full_block_stays_near_the_mean():
    case = random_case(9)
    blocks = blocks_of(case, 4)  # twelve directions for thirty parameters
    layer = replace(with_statistics(case, block=blocks), is_matrix=False)
    dense = [b.numpy() for b in blocks]
    mean = torch.stack(layer.experts).mean(0).numpy().ravel()
    right = sum(c @ w.numpy().ravel() for c, w in zip(dense, layer.experts, strict=True))
    expected = mean + np.linalg.pinv(sum(dense), rcond=1e-10) @ (right - sum(dense) @ mean)
    result = value(layer, "regmean", remaining="block", damping=0)
    close(result, expected.reshape(6, 5), 1e-7)


def test_what_is_read_follows_the_options():
    assert regmean_reads(RegMeanOptions()) == {"input_gram"}
    assert regmean_reads(RegMeanOptions(fold_bias=True, remaining="block")) == {
        "input_gram", "input_mean", "fisher", "block",
    }  # fmt: skip
