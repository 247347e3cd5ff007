"""Steps after any merge: their formulas in numpy, and what leaves a merge as it was."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mats_core as mats
from mats_core.checkpoints.files import Checkpoint
from mats_core.cli import main
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.merging import merge_one, planned, run
from mats_core.merging.pipeline import merge
from mats_core.methods import METHODS, STEPS, fields_of
from mats_core.names import depths
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import load_recipe, parse_recipe
from mats_core.system import drain
from tests.conftest import family_recipe
from tests.merging.test_resume import killed_after

CHAIN = [{"stretch": {"scale": 1.5}}, {"svc": {"alpha": 0.2}}, {"lines": {"first": 0.5, "last": 2}}]
# One of each way through the engine: whole, in pieces, a second pass, a solve, a folded bias.
# Orthogonal factors have equal singular values, whose directions are any basis of their space.
WAYS = [
    ("average", {}), ("ties", {"density": 0.4}), ("essential", {"orthogonal": False}),
    ("kfac", {"iterations": 3}), ("regmean", {"fold_bias": True}),
]  # fmt: skip


def recipe_of(folder, method="average", **settings):
    content = family_recipe(folder, method, evaluate=False, dtype="float64", output_dtype="float64")
    return parse_recipe({**content, **settings}, folder)


def merged(folder, method="average", options=None, **settings):
    """(report, tensors as arrays) of a merge in memory."""
    finished = drain(run(recipe_of(folder, method, options=options or {}, **settings)))
    return finished.report, {n: t.numpy() for n, t in finished.tensors.items()}


@pytest.fixture(scope="module")
def weights(tiny_family):
    """(base, experts) of the tiny family, in float64."""
    files = (tiny_family / f"{one}/model.safetensors" for one in ("base", "e0", "e1", "e2"))
    base, *experts = (
        {name: value.double().numpy() for name, value in load_file(file).items()} for file in files
    )
    return base, experts


def calibrated(update, updates, floor):
    """SVC by the paper, direction by direction, for experts of one weight."""
    left, values, right = np.linalg.svd(update, full_matrices=False)
    total = np.zeros_like(update)
    for u, sigma, v in zip(left.T, values, right, strict=True):
        along = [u @ one for one in updates]
        s = [sigma * v @ a / (a @ a) if a @ a > 0 else 0.0 for a in along]
        total += sigma * len(updates) / sum(max(floor, one) for one in s) * np.outer(u, v)
    return total


def by_hand(name, update, updates, steps):
    """The update after the steps; the tiny family has two blocks, called vit.encoder.layer.N (or
    vit.layers.N), embeddings before and a norm behind."""
    block = next((int(part) for part in name.split(".") if part.isdigit()), None)
    depth = block if block is not None else float("embed" not in name)
    for step in steps:
        ((kind, options),) = step.items()
        if kind == "stretch":
            update = options["scale"] * update
        elif kind == "lines":
            update = (options["first"] * (1 - depth) + options["last"] * depth) * update
        elif update.ndim == 2 and "embed" not in name:
            update = calibrated(update, updates, options["alpha"])
    return update


@pytest.mark.parametrize("steps", [CHAIN, CHAIN[::-1], CHAIN[1:2]], ids=["chain", "back", "svc"])
@pytest.mark.parametrize(("method", "options"), WAYS)
def test_every_layer_is_moved_as_the_formulas_say(tiny_family, weights, method, options, steps):
    base, experts = weights
    report, plain = merged(tiny_family, method, options)
    after, found = merged(tiny_family, method, options, after=steps)
    told = {layer.name: layer for layer in after.layers}
    folded = {layer.name for layer in report.layers if layer.status.startswith("folded")}
    for layer in report.layers:
        name = layer.name
        if layer.treatment not in ("merged", "averaged"):
            assert np.array_equal(found[name], plain[name])
            continue
        bias = name.removesuffix("weight") + "bias"
        if name in folded:
            continue
        update, updates = plain[name] - base[name], [one[name] - base[name] for one in experts]
        if bias in folded:  # [W b] is one matrix
            update, *updates = (
                np.concatenate([x[name] - base[name], (x[bias] - base[bias])[:, None]], 1)
                for x in (plain, *experts)
            )
        expected = by_hand(name, update, updates, steps)
        near = 1e-9 * max(1e-3, np.abs(expected).max())
        moved = found[name] - base[name]
        expected = expected[:, :-1] if bias in folded else expected
        np.testing.assert_allclose(moved, expected, rtol=0, atol=near)
        assert ("singular values calibrated" in told[name].status) == (
            update.ndim == 2 and "embed" not in name
        )


@pytest.mark.parametrize(("method", "options"), WAYS)
def test_steps_that_change_nothing_give_the_same_bytes(tiny_family, method, options):
    _, plain = merged(tiny_family, method, options)
    nothing = [{"stretch": {"scale": 1}}, {"lines": {"first": 1.0, "last": 1.0}}]
    report, found = merged(tiny_family, method, options, after=nothing)
    assert all(np.array_equal(found[name], value) for name, value in plain.items())
    assert not any("update ×" in layer.status for layer in report.layers)


def test_lines_with_a_constant_are_a_stretch_and_zero_is_the_base(tiny_family, weights):
    _, line = merged(tiny_family, "tsv_m", after=[{"lines": {"first": 1.3, "last": 1.3}}])
    _, stretch = merged(tiny_family, "tsv_m", after=[{"stretch": {"scale": 1.3}}])
    assert all(np.array_equal(line[name], value) for name, value in stretch.items())
    report, base = merged(tiny_family, "tsv_m", after=[{"stretch": {"scale": 0}}])
    shared = [one.name for one in report.layers if one.treatment in ("merged", "averaged")]
    assert all(np.array_equal(base[name], weights[0][name]) for name in shared)


def test_calibrating_one_expert_gives_it_back(tiny_family, weights):
    content: Any = family_recipe(tiny_family, "average", evaluate=False, dtype="float64")
    content["experts"] = content["experts"][:1]
    recipe = parse_recipe({**content, "output_dtype": "float64", "after": ["svc"]}, tiny_family)
    found = drain(run(recipe)).tensors
    for layer in (name for name in found if "encoder" in name or "layers" in name):
        np.testing.assert_allclose(found[layer].numpy(), weights[1][0][layer], atol=1e-12)


@pytest.mark.parametrize("method", ["kfac", "kfac_matching"])
def test_the_option_of_two_methods_is_the_same_step(tiny_family, method):
    _, option = merged(tiny_family, method, {"iterations": 3, "svc": 0.3})
    _, step = merged(tiny_family, method, {"iterations": 3}, after=[{"svc": {"alpha": 0.3}}])
    assert all(np.array_equal(step[name], value) for name, value in option.items())


def test_a_negative_weight_and_weights_that_add_up_to_nothing(tiny_family, weights):
    content: Any = family_recipe(tiny_family, "task_arithmetic", evaluate=False, dtype="float64")
    for entry, weight in zip(content["experts"], (1, -1, 0), strict=True):
        entry["weight"] = weight
    recipe = parse_recipe({**content, "output_dtype": "float64"}, tiny_family)
    plain = drain(run(recipe)).tensors
    found = drain(run(recipe.model_copy(update={"after": ({"svc": {"alpha": 0.4}},)}))).tensors
    name = next(n for n in plain if n.endswith(("query.weight", "q_proj.weight")))
    base, (first, second, _) = weights
    signed = [first[name] - base[name], base[name] - second[name]]
    expected = calibrated(plain[name].numpy() - base[name], signed, 0.4)
    np.testing.assert_allclose(found[name].numpy() - base[name], expected, atol=1e-10)


@pytest.mark.parametrize("method", ["ties", "essential", "kfac"])
def test_a_killed_merge_goes_on_to_the_same_bytes(tiny_family, tmp_path, monkeypatch, method):
    options = dict(WAYS)[method]
    settings = {"options": options, "after": CHAIN, "by": [{"depth": [1, 1], "weight": 0.5}]}
    whole = recipe_of(tiny_family, method, output=str(tmp_path / "whole"), **settings)
    merge(whole)
    recipe = recipe_of(tiny_family, method, output=str(tmp_path / "again"), **settings)
    killed_after(20, recipe, monkeypatch)
    other = recipe.model_copy(update={"after": whole.after[1:]})
    with pytest.raises(InputError, match="after"):
        merge(other, resume=True)
    merge(recipe, resume=True)
    files = [tmp_path / one / "model.safetensors" for one in ("whole", "again")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_it_is_told_written_and_repeated(tiny_family, tmp_path, capsys):
    content: Any = family_recipe(tiny_family, "task_arithmetic", evaluate=False)
    file = tiny_family / "steps.yaml"
    file.write_text(json.dumps(content), "utf-8")
    out = str(tmp_path / "out")
    steps = ["--after", "svc:alpha=0.2", "--after", "stretch:scale=1.4"]
    assert main(["merge", str(file), "--output", out, *steps]) == 0
    assert "then svc (alpha 0.2), stretch (scale 1.4)" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert report["after"] == [{"svc": {"alpha": 0.2}}, {"stretch": {"scale": 1.4}}]
    card = (tmp_path / "out/README.md").read_text("utf-8")
    assert "svc (alpha 0.2), stretch (scale 1.4)" in card
    again = load_recipe(tmp_path / "out/recipe.yaml")
    assert [one.step.name for one in again.steps()] == ["svc", "stretch"]
    merge(again.model_copy(update={"output": str(tmp_path / "again")}))
    one, other = (Checkpoint.open(tmp_path / name) for name in ("out", "again"))
    assert one.fingerprint == other.fingerprint
    assert main(["merge", str(file), "--output", out, "--after", "svc:alpha"]) == 2
    assert "--after svc:alpha" in capsys.readouterr().err


def test_the_way_of_a_solve_takes_the_steps_too(tiny_family):
    recipe = recipe_of(tiny_family, "kfac", options={"iterations": 3}, after=CHAIN)
    plan = replace(planned(recipe), keep=(0, 3))
    ends = ("fc1.weight", "intermediate.dense.weight")
    name = next(name for name in plan.inputs.family.shared if name.endswith(ends))
    done, tensors = drain(merge_one(plan, name))
    assert torch.equal(done.iterates[3], tensors[name])
    assert not torch.equal(done.iterates[0], done.iterates[3])


BAD = [["svx"], ["svc", {"stretch": {"scal": 1}}], [{"svc": {"alpha": 0}}], "svc"]


@pytest.mark.parametrize("steps", [*BAD, [{"svc": {}, "lines": {}}]])
def test_a_bad_step_is_told_at_the_door(tiny_family, steps):
    with pytest.raises(InputError, match=r"svx|scal|alpha|svc, lines|after"):
        recipe_of(tiny_family, after=steps)


def test_where_a_step_cannot_be_applied(tiny_family, tmp_path):
    with pytest.raises(InputError, match="'after' with method 'sequential'"):
        planned(recipe_of(tiny_family, "sequential", after=["svc"]))
    out = str(tmp_path / "kept")
    merge(recipe_of(tiny_family, output=out, keep_sums=True, after=["svc"]))
    adding = recipe_of(tiny_family, adds_to=out, after=["svc"])
    entries = (adding.experts[0].model_copy(update={"name": "more"}),)
    adding = adding.model_copy(update={"experts": entries})
    with pytest.raises(InputError, match="adds to another"):
        planned(adding)
    stretched = adding.model_copy(update={"after": ({"stretch": {"scale": 0.5}},)})
    assert "update × 0.5" in drain(run(stretched)).report.layers[0].status


@pytest.mark.parametrize("method", [*METHODS])
def test_the_estimate_counts_them(tiny_family, method):
    if METHODS[method].calibrates:
        return
    recipe = recipe_of(tiny_family, method)
    inputs = open_inputs(recipe)
    plain, found = (
        estimate(inputs, recipe.model_copy(update={"after": after}))
        for after in ((), ({"svc": {}},))
    )
    assert found.flops > plain.flops
    assert found.memory_bytes >= plain.memory_bytes
    assert found.coverage == plain.coverage


def test_options_are_declared_as_those_of_methods_are():
    for step in STEPS.values():
        assert all(field.help and field.high is not None for field in fields_of(step.options))
        assert step.options()  # every option has a default


def test_models_in_memory_take_steps(tiny_family):
    base = {"layers.0.w.weight": torch.zeros(3, 3), "layers.1.w.weight": torch.zeros(3, 3)}
    expert = {name: torch.ones(3, 3) for name in base}
    found = mats.merge_models(base, [expert], after=[{"lines": {"first": 0.5, "last": 2}}],
                              progress=False)  # fmt: skip
    assert float(found.tensors["layers.0.w.weight"][0, 0]) == 0.5
    assert float(found.tensors["layers.1.w.weight"][0, 0]) == 2.0


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["embeddings.word.weight", "layer.0.a", "layer.1.a", "layer.2.a", "norm.weight"],
         [0, 0, 0.5, 1, 1]),
        (["encoder.block.0.a", "encoder.block.1.a", "decoder.block.0.a"], [0, 0.5, 1]),
        (["vision.layers.0.a", "vision.layers.2.a", "text.layers.0.a", "text.layers.4.a",
          "text.layers.2.a"], [0, 1, 0, 1, 0.5]),
        (["layer1.0.conv", "layer2.0.conv", "layer2.1.conv", "fc.weight"], [0, 0.5, 1, 1]),
        (["blocks.0.a", "blocks.1.a", "pooler.0.a"], [0, 1, 1]),
        (["0.weight", "2.weight"], [0, 1]),
    ],
)  # fmt: skip
def test_depths_count_blocks_within_their_stack(names, expected):
    assert list(depths(names).values()) == expected


def test_nothing_of_it_in_an_old_report(tiny_family):
    report, _ = merged(tiny_family)
    assert "after" not in report.to_dict()
    assert "by" not in report.to_dict()
    assert Path(tiny_family).is_dir()
