"""One layer stage by stage: what is shown is what the merge computed, for every method."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mats_core.analysis.stages import (
    WINDOW,
    LayerSteps,
    Seen,
    as_seen,
    stepping,
    task_matrices,
)
from mats_core.errors import InputError
from mats_core.merging.pipeline import run
from mats_core.methods.stages import PLAIN, Stage
from mats_core.methods.table import METHODS
from mats_core.recipes.family_file import load_family
from mats_core.recipes.plan import Inputs, open_inputs
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.statistics.store import Statistics
from mats_core.system.stream import Event, drain
from tests.conftest import family_recipe
from tests.text_cases import text_family

NAME = "vit.encoder.layer.1.intermediate.dense.weight"  # (40, 24)
NOT_TOLD = {stage.key for stage in PLAIN} | {"iterate", "layer weight"}  # what the analysis adds


def opened(folder: Path, method: str, **settings: Any) -> tuple[Recipe, Inputs, Any]:
    recipe = parse_recipe(family_recipe(folder, method, evaluate=False, **settings), folder)
    inputs = open_inputs(recipe)
    return recipe, inputs, drain(run(recipe, inputs=inputs))


def stepped(folder: Path, method: str, **settings: Any) -> tuple[LayerSteps, Any, Inputs]:
    recipe, inputs, finished = opened(folder, method, **settings)
    return drain(stepping(recipe, finished.report, inputs, NAME)), finished, inputs


def total(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum(0)


def rows_of(names: tuple[str, ...]) -> list[int]:
    return [int(name) for name in names]


def expect(seen: Seen, value: Tensor, rel: float = 1e-5) -> None:
    """Every window of what was seen against the matrix that it should be."""
    value = torch.atleast_2d(value)
    assert seen.shape == tuple(value.shape)
    assert seen.norm == pytest.approx(float(value.norm()), rel=1e-5)
    near: dict[str, Any] = {"rtol": rel, "atol": rel * float(value.abs().max())}
    for view in ("first", "moved"):
        window = seen.windows[view]
        cut = value[rows_of(window.rows)][:, rows_of(window.columns)]
        torch.testing.assert_close(window.values, cut.float(), **near)
    window = seen.windows["means"]
    heights, widths = (
        [slice(int(one.split("–")[0]), int(one.split("–")[-1]) + 1) for one in names]
        for names in (window.rows, window.columns)
    )
    means = [[float(value[h, w].double().mean()) for w in widths] for h in heights]
    torch.testing.assert_close(window.values, torch.tensor(means), **near)


def known(inputs: Inputs) -> tuple[Tensor, list[Tensor], list[Mapping[str, Tensor]]]:
    """The base's weight, the task matrices and the Grams, as the files have them."""
    base = inputs.family.base.read(NAME)
    updates = [e.checkpoint.read(NAME) - base for e in inputs.family.experts]
    module, grams = NAME.removesuffix(".weight"), []
    for own in inputs.statistics:
        assert own is not None
        sizes = {"input_gram": 24, "output_gradient_gram": 40}
        grams.append({k: own.read(f"{module}.{k}", (d, d)) for k, d in sizes.items()})
    return base, updates, grams


def test_a_layer_that_is_measured_at_the_merge_before_it_is_not_stepped_through(tiny_family: Path):
    with pytest.raises(InputError, match="one that measures each layer at the merge of all before"):
        stepped(tiny_family, "sequential")


CALIBRATED: list[dict[str, Any]] = [
    {}, {"curvature": "identity"}, {"start": "kfac", "expert_inputs": 0.5, "update_share": 0.3},
]  # fmt: skip


@pytest.mark.parametrize("options", CALIBRATED)
@pytest.mark.parametrize(
    "name",
    [
        NAME,
        NAME.replace("layer.1", "layer.0"),
        "vit.encoder.layer.1.attention.attention.key.weight",
    ],
)
def test_a_calibrated_layer_is_solved_again_where_it_stands(
    tiny_family: Path, options: dict[str, Any], name: str
):
    settings = {"examples": 12, "augment_to": 0, "tolerance": 1e-5, **options}
    recipe, inputs, finished = opened(tiny_family, "sequential", options=settings)
    found = drain(stepping(recipe, finished.report, inputs, name, finished.tensors))
    told = next(layer for layer in finished.report.layers if layer.name == name)
    merged = finished.tensors[name]
    window = found.seen["merged"][0].windows["first"]
    assert torch.equal(window.values, merged[:WINDOW, :WINDOW]), "bit for bit"
    expect(found.seen["merged"][0], merged)
    assert (found.method, found.status) == ("sequential", told.status)
    assert found.residuals == told.residuals, "the same solve"
    solved = options.get("curvature") != "identity"
    left_out = set() if solved else {"iterate", "output gram", "right side"}
    declared = [stage.key for stage in METHODS["sequential"].stages]
    assert [one.key for one in found.stages] == [key for key in declared if key not in left_out]
    for stage in found.stages:
        count = len(found.experts) if stage.each else 1
        assert stage.key == "iterate" or len(found.seen[stage.key]) == count, stage.key
    if solved:
        expect(found.seen["iterate"][-1], _with_bias(finished.tensors, name))
        assert all(one != one for one in found.kept), "not on the inputs of the experts"
    width = merged.shape[1] + 1
    assert [one.shape for one in found.seen["input gram"]] == [(width, width)] * 3
    assert [one.shape for one in found.seen["target"]] == [(len(merged), width)] * 3


def test_the_first_stage_needs_no_merge(tiny_family: Path):
    recipe, inputs, finished = opened(tiny_family, "kfac")
    first = task_matrices(recipe, inputs, NAME)
    whole = drain(stepping(recipe, finished.report, inputs, NAME))
    assert [stage.key for stage in first.stages] == ["task matrix"]
    assert first.stages == whole.stages[:1]
    assert first.experts == whole.experts
    _, updates, _ = known(inputs)
    for seen, update in zip(first.seen["task matrix"], updates, strict=True):
        expect(seen, update)
    with pytest.raises(InputError, match="a matrix that the run merged"):
        task_matrices(recipe, inputs, NAME.replace("weight", "bias"))


def _with_bias(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    bias = tensors[name.replace("weight", "bias")]
    return torch.cat([tensors[name], bias[:, None]], 1)


def test_what_no_block_holds_is_as_in_the_start(tmp_path: Path):
    """The pooler of a BERT, which stands behind its blocks."""
    recipe = load_family(text_family(tmp_path)).recipe("sequential", {"examples": 12})
    recipe = recipe.model_copy(update={"evaluate": False})
    inputs = open_inputs(recipe)
    finished = drain(run(recipe, inputs=inputs))
    (name,) = (n for n in inputs.family.roles if n.endswith("pooler.dense.weight"))
    found = drain(stepping(recipe, finished.report, inputs, name, finished.tensors))
    expect(found.seen["merged"][0], finished.tensors[name])
    assert [stage.key for stage in found.stages] == [stage.key for stage in PLAIN]


@pytest.mark.parametrize("method", [n for n, method in METHODS.items() if not method.calibrates])
def test_the_last_stage_is_the_merge_and_every_stage_was_told(tiny_family: Path, method: str):
    found, finished, inputs = stepped(tiny_family, method)
    merged = finished.tensors[NAME]
    window = found.seen["merged"][0].windows["first"]
    assert torch.equal(window.values, merged[:WINDOW, :WINDOW]), "bit for bit"
    expect(found.seen["merged"][0], merged)
    expect(found.seen["update"][0], merged - inputs.family.base.read(NAME))
    _, updates, _ = known(inputs)
    for seen, update in zip(found.seen["task matrix"], updates, strict=True):
        expect(seen, update)
    assert set(found.seen) - NOT_TOLD <= {stage.key for stage in METHODS[method].stages}
    declared = {stage.key for stage in METHODS[method].stages} - {"iterate"}
    assert declared <= set(found.seen)
    assert [stage.key for stage in found.stages] == [
        stage.key for stage in METHODS[method].stages if stage.key in found.seen
    ]
    for stage in found.stages:
        count = len(found.experts) if stage.each else 1
        assert stage.key == "iterate" or len(found.seen[stage.key]) == count, stage.key


@pytest.mark.parametrize("method", ["kfac", "kfac_matching"])
def test_the_solve_is_that_of_the_run_step_by_step(tiny_family: Path, method: str):
    found, finished, inputs = stepped(tiny_family, method)
    own = next(layer for layer in finished.report.layers if layer.name == NAME)
    assert len(own.residuals) > 3
    assert found.residuals == own.residuals, "the same solve, residual by residual"
    assert found.steps == tuple(range(own.iterations + 1))
    base, updates, _ = known(inputs)
    mean = base + total(updates) / 3
    expect(found.seen["iterate"][0], mean)
    expect(found.seen["start"][0], mean)
    expect(found.seen["iterate"][-1], finished.tensors[NAME])
    assert len(found.kept) == len(found.steps)


def test_the_residual_is_that_of_the_matrices_that_are_shown(tiny_family: Path):
    """Σ Bₜ (Wₜ − X) Aₜ, put together from the stages, against the residual of every step."""
    found, _, inputs = stepped(
        tiny_family, "kfac", options={"damping": 0.3, "normalise": False, "tolerance": 0}
    )
    base, updates, grams = known(inputs)
    eyes = {"input_gram": torch.eye(24), "output_gradient_gram": torch.eye(40)}
    blocks = [
        {k: v.double() + 0.3 * v.diagonal().double().mean() * eyes[k] for k, v in own.items()}
        for own in grams
    ]
    for index, (block, update) in enumerate(zip(blocks, updates, strict=True)):
        a, b = block["input_gram"], block["output_gradient_gram"]
        expect(found.seen["input gram"][index], a)
        expect(found.seen["output gram"][index], b)
        expect(found.seen["product"][index], b @ update.double() @ a, 1e-4)
    experts = [base + update for update in updates]
    apply = lambda x: total(  # noqa: E731
        one["output_gradient_gram"] @ x(w) @ one["input_gram"] / 3
        for one, w in zip(blocks, experts, strict=True)
    )
    right = apply(lambda w: w.double())
    start = base.double() + total(updates).double() / 3
    first = float((right - apply(lambda w: start)).norm() / right.norm())
    assert found.residuals[0] == pytest.approx(first, rel=1e-4)


def test_regmean_shows_what_it_solves(tiny_family: Path):
    found, finished, inputs = stepped(tiny_family, "regmean", options={"damping": 0.5})
    base, updates, grams = known(inputs)
    mats = [g["input_gram"] for g in grams]
    ready = [a + 0.5 * a.diagonal().mean() * torch.eye(24) for a in mats]
    for index, (a, update) in enumerate(zip(ready, updates, strict=True)):
        expect(found.seen["input gram"][index], a)
        expect(found.seen["weighed"][index], update @ a, 1e-4)
    expect(found.seen["mean gram"][0], total(ready) / 3)
    left = finished.tensors[NAME] @ (total(ready) / 3)
    right = total((base + u) @ a for u, a in zip(updates, ready, strict=True)) / 3
    torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)


def test_esm_shows_directions_energy_and_levels(tiny_family: Path):
    found, finished, inputs = stepped(tiny_family, "essential", options={"eigenvalue_power": 0})
    base, updates, grams = known(inputs)
    layer = next(la for la in finished.report.layers if la.name == NAME)
    for index, (update, own) in enumerate(zip(updates, grams, strict=True)):
        shift = (update @ own["input_gram"] @ update.T).double()
        expect(found.seen["shift"][index], shift, 1e-4)
        values = np.linalg.eigvalsh(shift.numpy())[::-1][: 40 // 3].copy()
        share = found.seen["energy"][index].number
        assert share == pytest.approx(values.sum() / float(shift.trace()), rel=1e-4)
        expect(found.seen["eigenvalues"][index], torch.from_numpy(values), 1e-3)
        weight = found.seen["task weight"][index].number
        assert weight == pytest.approx(layer.details["task_weights"][index])
        assert found.seen["directions"][index].shape == (40, 13)
    expect(found.seen["dimension weights"][0], torch.tensor(layer.details["dimension_weights"]))
    factor = found.seen["layer weight"][0].number or 0.0
    assert factor == pytest.approx(layer.details["layer_weight"])
    update = (finished.tensors[NAME] - base) / (finished.report.options["scaling"] * factor)
    expect(found.seen["sum"][0], update, 1e-4)


def test_ties_shows_what_it_trims_and_elects(tiny_family: Path):
    found, finished, inputs = stepped(
        tiny_family, "ties", options={"scope": "tensor", "density": 0.3}
    )
    base, updates, _ = known(inputs)
    layer = next(la for la in finished.report.layers if la.name == NAME)
    trimmed = []
    for index, update in enumerate(updates):
        kept = round(layer.details["kept"][index] * update.numel())
        limit = update.abs().flatten().sort(descending=True).values[kept - 1]
        trimmed.append(update * (update.abs() >= limit))
        expect(found.seen["trimmed"][index], trimmed[-1])
    signs = total(trimmed).sign()
    expect(found.seen["signs"][0], signs)
    agreeing = [t * (t.sign() == signs) for t in trimmed]
    count = total((t != 0).float() for t in agreeing).clamp_min(1)
    expect(found.seen["agreed"][0], total(agreeing) / count)
    expect(found.seen["agreed"][0], finished.tensors[NAME] - base, 1e-4)


def test_a_tensor_that_comes_in_pieces_is_seen_whole(
    tiny_family: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, _, _ = stepped(tiny_family, "dare")
    monkeypatch.setattr("mats_core.merging.reading.WHOLE", 0)
    monkeypatch.setattr("mats_core.merging.reading.PIECE", 7 * 24 + 5)
    monkeypatch.setattr("mats_core.analysis.stages.AT_ONCE", 50)
    found, finished, inputs = stepped(tiny_family, "dare")
    base, updates, _ = known(inputs)
    merged = finished.tensors[NAME]
    assert torch.equal(found.seen["merged"][0].windows["first"].values, merged[:WINDOW, :WINDOW])
    expect(found.seen["sum"][0], (merged - base) / 0.3, 1e-4)
    for seen, before, update in zip(
        found.seen["rescaled"], whole.seen["rescaled"], updates, strict=True
    ):
        assert seen.shape == before.shape
        ratio = seen.windows["first"].values / update[:WINDOW, :WINDOW]
        is_kept = torch.isclose(ratio, torch.tensor(10.0), rtol=1e-4)
        assert bool((is_kept | (ratio == 0)).all())
    expect(found.seen["task matrix"][1], updates[1])


def test_rows_and_columns_are_those_that_move_most(tiny_family: Path):
    found, _, inputs = stepped(tiny_family, "average")
    _, updates, _ = known(inputs)
    squares = total(update.square() for update in updates)
    window = found.seen["task matrix"][2].windows["moved"]
    assert rows_of(window.rows) == sorted(squares.sum(1).argsort(descending=True)[:12].tolist())
    assert rows_of(window.columns) == sorted(squares.sum(0).argsort(descending=True)[:12].tolist())


def test_what_a_fallback_did_is_told_by_its_own_stages(tiny_family: Path):
    recipe = parse_recipe(family_recipe(tiny_family, "essential", evaluate=False), tiny_family)
    inputs = open_inputs(recipe)
    without = []
    for own in inputs.statistics:
        assert own is not None
        left = {name: own.stored(name) for name in own.shapes if "1.intermediate" not in name}
        without.append(Statistics.of(left, own.metadata))
    inputs = replace(inputs, statistics=tuple(without))
    finished = drain(run(recipe, inputs=inputs))
    found = drain(stepping(recipe, finished.report, inputs, NAME))
    assert found.method == "tsv_m"
    assert {"kept", "left", "right"} <= {stage.key for stage in found.stages}
    expect(found.seen["merged"][0], finished.tensors[NAME])
    other = drain(stepping(recipe, finished.report, inputs, NAME.replace("layer.1", "layer.0")))
    assert other.method == "essential"


def test_folded_biases_are_the_last_column(tiny_family: Path):
    found, finished, _ = stepped(tiny_family, "kfac", options={"fold_bias": True})
    assert found.folded
    assert found.seen["iterate"][-1].shape == (40, 25)
    assert found.seen["input gram"][0].shape == (25, 25)
    expect(found.seen["merged"][0], finished.tensors[NAME])
    own = next(layer for layer in finished.report.layers if layer.name == NAME)
    assert found.residuals == own.residuals


def test_later_rounds_step_through_the_statistics_that_they_merge_with(tiny_family: Path):
    found, finished, inputs = stepped(tiny_family, "regmean", rounds=2)
    merged = finished.tensors[NAME]
    assert torch.equal(found.seen["merged"][0].windows["first"].values, merged[:WINDOW, :WINDOW])
    _, _, grams = known(inputs)
    first = grams[0]["input_gram"]
    assert found.seen["input gram"][0].norm != pytest.approx(float(first.norm()), rel=1e-3)


def test_progress_goes_forward_and_other_tensors_are_refused(tiny_family: Path):
    recipe, inputs, finished = opened(tiny_family, "kfac")
    said: list[Event] = []
    drain(stepping(recipe, finished.report, inputs, NAME), said.append)
    assert [e.fraction for e in said] == sorted(e.fraction for e in said)
    for name in ("vit.layernorm.weight", "classifier.weight", "nothing"):
        with pytest.raises(InputError, match="expected a matrix that the run merged"):
            drain(stepping(recipe, finished.report, inputs, name))


def test_a_long_solve_is_kept_at_a_few_steps():
    from mats_core.analysis.stages import _steps

    assert _steps(5, (4, 4)) == (0, 1, 2, 3, 4, 5)
    assert _steps(0, (4, 4)) == ()
    long = _steps(1000, (4, 4))
    assert len(long) <= 51
    assert (long[0], long[-1]) == (0, 1000)
    assert _steps(50, (8192, 8192)) == (0, 50), "a large matrix is kept at its ends"


def test_in_another_space_the_axes_are_directions():
    stage = Stage("kept", "Kept", "X")
    for shape, axes in {
        (40, 24): ("output", "input"), (6, 24): ("direction", "input"),
        (6, 5): ("direction", "direction"),
    }.items():  # fmt: skip
        assert as_seen(stage, Seen(shape, 1.0, {}), (40, 24)).axes == axes
