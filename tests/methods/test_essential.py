"""ESM against an independent transcription of its eight steps, on data and not on Grams."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mats_core.merging.pipeline import run
from mats_core.methods.essential import (
    EssentialOptions,
    layer_factors,
    reads,
    relative_power,
)
from mats_core.methods.essential_directions import essential_subspace, shift_covariance
from mats_core.recipes.events import Finished
from tests.layer_cases import SEEDS, close, merged, random_case, raw_recipe, value
from tests.methods.test_tsv_m import tsv_m

POWERS: dict[str, Any] = {
    "task_power": 2.0,
    "dimension_power": 2.0,
    "layer_power": 2.0,
    "eigenvalue_power": 0.15,
}
OFF: dict[str, Any] = dict.fromkeys(POWERS, 0.0)


def polar(matrix):
    u, _, vt = np.linalg.svd(matrix, full_matrices=False)
    return u @ vt


def esm(
    case, *, task_power, dimension_power, eigenvalue_power, rank=None, centre=False,
    orthogonal=True, **_,
):  # fmt: skip
    """Steps 1–6 for one layer: the update before level 3 and α."""
    deltas = [w.numpy() - case.layer.base.numpy() for w in case.layer.experts]
    tasks, d_out = len(deltas), len(deltas[0])
    r = rank or d_out // tasks
    strength = np.array([np.sqrt((d**2).sum()) for d in deltas])
    e_cat, c_cat = [], []
    for t, (delta, x) in enumerate(zip(deltas, case.inputs, strict=True)):
        shift = x.numpy() @ delta.T  # 1
        if centre:
            shift = shift - shift.mean(0)
        _, singular, directions = np.linalg.svd(shift, full_matrices=False)
        e, lam = directions[:r].T, singular[:r] ** 2 / (len(shift) - 1)
        lam = np.where(singular[:r] > 1e-9 * singular[0], lam, 0)  # zero in exact arithmetic
        c = e.T @ delta
        c = c * (strength[t] / strength.mean()) ** task_power  # 2
        s = (lam / lam.mean()) ** eigenvalue_power  # 3
        s = s / s.mean()
        e_cat.append(e @ np.diag(s))
        c_cat.append(np.diag(s) @ c)
    e_cat, c_cat = np.concatenate(e_cat, 1), np.concatenate(c_cat, 0)  # 4
    columns = np.sqrt((c_cat**2).sum(0))
    c_cat = c_cat @ np.diag((columns / columns.mean()) ** dimension_power)  # 5
    if not orthogonal:
        return e_cat @ c_cat
    e_o = polar(e_cat) * np.linalg.svd(e_cat, compute_uv=False).mean()  # 6
    c_o = polar(c_cat) * np.linalg.svd(c_cat, compute_uv=False).mean()
    return 2 * e_o @ c_o


def test_the_defaults_are_the_published_ones():
    options = EssentialOptions()
    assert {name: getattr(options, name) for name in POWERS} == POWERS
    assert options.rank is None
    assert options.centre is False


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(6, 5), (9, 12), (8, 8), (24, 5)])
def test_steps_one_to_six(seed, shape):
    case = random_case(seed, d_out=shape[0], d_in=shape[1])
    expected = case.layer.base.numpy() + 0.7 * esm(case, **POWERS)
    close(value(case.layer, "essential", scaling=0.7), expected, 1e-8)


def single(layer):
    """The layer in float32, statistics and all."""
    statistics = tuple(replace(own, input_gram=own.input_gram.float()) for own in layer.statistics)
    return replace(layer, base=layer.base.float(), experts=tuple(w.float() for w in layer.experts),
                   statistics=statistics)  # fmt: skip


@pytest.mark.parametrize("shape", [(6, 5), (24, 5)])
def test_float32_agrees_with_float64(shape):
    layer = random_case(0, d_out=shape[0], d_in=shape[1]).layer
    close(value(single(layer), "essential"), value(layer, "essential"), 1e-4)


def test_directions_in_which_nothing_moves_do_not_count():
    # Five inputs cannot move twenty-four outputs in more than five directions, though r is 8.
    layer = random_case(1, d_out=24, d_in=5).layer
    gram = random_case(1, d_out=24, d_in=5).grams[0]
    e, eigenvalues = essential_subspace(layer.updates[0], gram, 8)
    assert int((eigenvalues > 0).sum()) == 5
    assert float(e[:, 5:].abs().max()) == 0
    off = {**OFF, "rank": 8}
    close(value(single(layer), "essential", **off), value(layer, "essential", **off), 1e-4)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("on", ["task_power", "dimension_power", "eigenvalue_power", None])
def test_each_level_alone_and_none(seed, on):
    case = random_case(seed)
    powers = {**OFF, on: POWERS[on] * 1.5} if on else OFF
    expected = case.layer.base.numpy() + esm(case, **powers)
    close(value(case.layer, "essential", scaling=1, **powers), expected, 1e-8)


@pytest.mark.parametrize("rank", [1, 3, 6])
@pytest.mark.parametrize("centre", [False, True])
def test_rank_and_centring(rank, centre):
    # With r = d_out and T r > d_out the concatenation is wide; its polar factor is still U Vᵀ.
    case = random_case(3, d_in=7)
    powers = {**POWERS, "rank": rank, "centre": centre}
    expected = case.layer.base.numpy() + esm(case, **powers)
    close(value(case.layer, "essential", scaling=1, **powers), expected, 1e-7)


@pytest.mark.parametrize("powers", [OFF, POWERS])
def test_without_right_angles_what_is_kept_of_each_task_is_added_up(powers):
    case = random_case(4)
    given = {**powers, "orthogonal": False}
    expected = case.layer.base.numpy() + esm(case, **given)
    close(value(case.layer, "essential", scaling=1, **given), expected, 1e-8)


def test_all_directions_of_each_task_are_the_sum_of_task_vectors():
    case = random_case(5)
    whole = {**OFF, "orthogonal": False, "rank": case.layer.base.shape[0]}
    expected = case.layer.base + sum(case.layer.updates)
    close(value(case.layer, "essential", scaling=1, **whole), expected.numpy(), 1e-7)


def test_the_default_rank_shares_the_outputs_among_the_tasks():
    case = random_case(4, d_out=11, experts=3)
    close(value(case.layer, "essential", rank=3), value(case.layer, "essential"))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("centre", [False, True])
def test_discarded_eigenvalues_are_the_truncation_error_on_the_data(seed, rank, centre):
    case = random_case(seed)
    x, delta = case.inputs[0], case.layer.updates[0]
    mean = x.mean(0) if centre else None
    e, _ = essential_subspace(delta, case.grams[0], rank, mean)
    every = essential_subspace(delta, case.grams[0], 6, mean)[1]
    shift = (x - x.mean(0) if centre else x) @ delta.T
    error = ((shift - shift @ e @ e.T) ** 2).sum(1).mean()
    assert float(every[rank:].sum()) == pytest.approx(float(error), rel=1e-9)
    covariance = shift.T @ shift / len(shift)
    close(shift_covariance(delta, case.grams[0], mean), covariance)


# Level 3 and the whole pipeline -------------------------------------------------------------------


def model_of(cases, names):
    base = {n: c.layer.base for n, c in zip(names, cases, strict=True)}
    experts = [{n: c.layer.experts[m] for n, c in zip(names, cases, strict=True)} for m in range(3)]
    statistics = [
        {n.replace("weight", "input_gram"): c.grams[m] for n, c in zip(names, cases, strict=True)}
        for m in range(3)
    ]
    return base, experts, statistics


NAMES = ["block.0.fc1.weight", "block.1.fc1.weight", "block.2.fc1.weight", "block.0.fc2.weight"]


@pytest.mark.parametrize("output", [None, "out"])
@pytest.mark.parametrize("layer_power", [0.0, 1.0, 2.0])
def test_level_three_compares_like_layers_through_the_whole_pipeline(tmp_path, layer_power, output):
    cases = [random_case(seed) for seed in (10, 11, 12, 13)]
    base, experts, statistics = model_of(cases, NAMES)
    settings = {"output": output} if output else {}
    recipe = raw_recipe(
        tmp_path, base, experts, "essential", {"layer_power": layer_power, "scaling": 0.6},
        statistics=statistics, **settings,
    )  # fmt: skip
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    if output:
        from mats_core.checkpoints.files import Checkpoint

        written = Checkpoint.open(tmp_path / output)
        tensors = {name: written.read(name) for name in written.tensors}
    else:
        tensors = last.tensors
    updates = [esm(case, **POWERS) for case in cases]
    sizes = [np.sqrt((u**2).sum()) for u in updates]
    for index, name in enumerate(NAMES):
        group = sizes[:3] if "fc1" in name else sizes[3:]
        factor = (sizes[index] / np.mean(group)) ** layer_power
        expected = base[name].numpy() + 0.6 * factor * updates[index]
        close(tensors[name], expected, 1e-8)
    factors = {r.name: r.details["layer_weight"] for r in last.report.layers}
    assert factors["block.0.fc2.weight"] == pytest.approx(1.0)  # alone in its group


def test_layer_factors_by_hand():
    norms = {"block.0.fc1.weight": 1.0, "block.1.fc1.weight": 3.0, "block.0.fc2.weight": 7.0}
    factors = layer_factors(norms, EssentialOptions())
    assert factors == pytest.approx(
        {"block.0.fc1.weight": 0.25, "block.1.fc1.weight": 2.25, "block.0.fc2.weight": 1.0}
    )
    assert set(layer_factors(norms, EssentialOptions(layer_power=0)).values()) == {1.0}


def test_relative_power_of_nothing_is_one():
    zeros = torch.zeros(3)
    assert relative_power(zeros, 2).tolist() == [1, 1, 1]
    assert relative_power(torch.tensor([1.0, 3.0]), 2).tolist() == [0.25, 2.25]
    assert relative_power(torch.tensor([0.0, 2.0]), 0).tolist() == [1, 1]


def test_layers_without_statistics_fall_back_to_tsv_m(tmp_path):
    cases = [random_case(seed) for seed in (10, 11)]
    names = NAMES[:2]
    base, experts, statistics = model_of(cases, names)
    statistics = [{k: v for k, v in own.items() if ".1." not in k} for own in statistics]
    recipe = raw_recipe(tmp_path, base, experts, "essential", {"scaling": 1}, statistics=statistics)
    *_, last = run(recipe)
    assert isinstance(last, Finished)
    deltas = [w.numpy() - cases[1].layer.base.numpy() for w in cases[1].layer.experts]
    close(last.tensors[names[1]], base[names[1]].numpy() + tsv_m(deltas))
    # The fallback is in no group, so the other layer's factor is 1.
    close(last.tensors[names[0]], base[names[0]].numpy() + esm(cases[0], **POWERS), 1e-8)
    assert [r.method for r in last.report.layers] == ["essential", "tsv_m"]
    assert any("TSV-M" in warning for warning in last.report.warnings)


def test_vectors_take_the_mean_and_nothing_is_scaled():
    layer = replace(random_case(5).layer, is_matrix=False)
    result = merged(layer, "essential", scaling=2)
    assert result.treatment == "averaged"
    close(result.value, torch.stack(layer.experts).mean(0))


def test_experts_that_did_not_move_leave_the_base():
    case = random_case(6)
    layer = replace(case.layer, experts=(case.layer.base,) * 3)
    close(value(layer, "essential"), layer.base)


def test_reads_means_only_to_centre():
    assert reads(EssentialOptions()) == {"input_gram"}
    assert reads(EssentialOptions(centre=True)) == {"input_gram", "input_mean"}
