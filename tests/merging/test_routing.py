"""Routed merges through the one way: recipe, branches, files, and asking them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mats_core as mats
from mats_core import models, tasks
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.evaluation import evaluate
from mats_core.merging import Merge, evaluate_output
from mats_core.merging.branching import calibrated
from mats_core.models import noting
from mats_core.recipes import parse_recipe
from mats_core.statistics import Moments
from tests import routed_cases, text_cases
from tests.conftest import family_recipe

FEW = {"examples": 24, "by": "prototypes", "calibrated": False}
FULL = {**FEW, "rank": "full", "layers": "all"}


def recipe_of(folder: Path, routed: object, method: str = "average", **settings):
    content = family_recipe(folder, method, evaluate=False, routed=routed, **settings)
    return parse_recipe(content, folder)


def merged(folder: Path, routed: object, method: str = "average", **settings) -> Merge:
    return mats.merge(recipe_of(folder, routed, method, **settings), progress=False)


def logits(merge: Merge, expert: int, count: int = 12) -> torch.Tensor:
    one = merge.inputs.family.experts[expert]
    split = tasks.load(str(one.task), root=merge.recipe.folder).test.first(count)
    return evaluate.asked(one.checkpoint.directory, merge.routed_state(one.name), split)


@pytest.fixture(scope="module")
def routed(tiny_family) -> Merge:
    return merged(tiny_family, FEW)


def test_the_layers_that_read_the_stream_have_branches(routed):
    found = {name.partition("@")[0].split("layer.")[1] for name in routed.branches}
    inside = {"attention.attention.query", "attention.attention.key", "attention.attention.value"}
    expected = {f"{n}.{name}.weight" for n in (0, 1) for name in {*inside, "intermediate.dense"}}
    assert found == expected
    assert routed.report.routed["layers"] == 8
    assert set(routed.report.routed["rightly"]) == {"e0", "e1", "e2"}


def test_its_size_is_that_of_merge_and_branches(routed):
    held = sum(value.nbytes for value in routed.tensors.values())
    beside = sum(value.nbytes for value in routed.branches.values())
    assert routed.report.size == pytest.approx((held + beside) / held)
    assert f"{routed.report.size:.2f} × the base" in repr(routed.report)


def test_without_rank_it_is_the_static_merge(tiny_family):
    static = mats.merge(recipe_of(tiny_family, None), progress=False)
    none = merged(tiny_family, {**FEW, "rank": 0})
    assert none.report.size == static.report.size == 1
    assert not none.branches
    assert all(torch.equal(value, static.tensors[n]) for n, value in none.tensors.items())


@pytest.mark.parametrize("by", ["prototypes", "updates", "smile"])
def test_of_one_expert_at_full_rank_every_routed_layer_is_the_experts(tiny_family, by):
    content = family_recipe(tiny_family, "average", evaluate=False, dtype="float64")
    content |= {"routed": {**FULL, "by": by}, "experts": content["experts"][:1]}  # type: ignore[index]
    content |= {"method": "task_arithmetic", "options": {"scaling": 0.4}}
    merge = mats.merge(parse_recipe(content, tiny_family), progress=False)
    own = load_file(tiny_family / "e0" / "model.safetensors")
    for name in {name.partition("@")[0] for name in merge.branches}:
        branch = merge.branches[f"{name}@right"][0]
        torch.testing.assert_close(merge.tensors[name] + branch, own[name], rtol=0, atol=1e-6)
        bias = name.removesuffix("weight") + "bias"
        found = merge.tensors[bias] + merge.branches[f"{name}@bias"][0]
        torch.testing.assert_close(found, own[bias], rtol=0, atol=1e-6)


def test_routed_rightly_at_full_rank_it_answers_as_the_expert(tiny_family):
    """Norms and embeddings are the experts' own here, so that nothing but the branches differs."""
    merge = merged(tiny_family, FULL)
    one = merge.inputs.family.experts[1]
    own = models.tensors_of(one.checkpoint)
    state = {n: merge.routed_state("e1")[n] if "@" in n or "encoder" in n else own[n]
             for n in merge.routed_state("e1")}  # fmt: skip
    state |= {n: v for n, v in own.items() if "layernorm" in n or "position" in n}
    for name in [n for n in state if n.endswith("@prototypes")]:
        aside = torch.zeros_like(state[name])  # no input is like it: only expert 1 is left
        state[name] = torch.where(torch.arange(3)[:, None] == 1, state[name], aside - state[name])
    split = tasks.load("t1.npz", root=tiny_family).test.first(12)
    found = evaluate.asked(one.checkpoint.directory, state, split)
    expected = evaluate.asked(one.checkpoint.directory, own, split)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_smile_of_several_experts_at_full_rank_gives_each_tokens_expert_on_its_layers(tiny_family):
    """Oracle: a linear layer's output for a token is that of the expert that the token chooses."""
    merge = merged(tiny_family, {"by": "smile", "rank": "full", "layers": "all"})
    experts = merge.inputs.family.experts
    images = tasks.load("t0.npz", root=tiny_family).test.inputs[:6]
    pixels = models.pixel_values(images, tiny_family / "e0")
    model, checked = merge.model("e0"), set[int]()
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    names = models.parameter_names(tiny_family / "e0", merge.state_dict("e0"))
    named = {module: name for name, module in model.named_modules()}
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    shares: dict[str, torch.Tensor] = {}

    def note(module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen[named[module]] = (args[0], output)

    for module in layers:
        module.register_forward_hook(note)
    with torch.inference_mode(), noting(shares.__setitem__):
        model(pixel_values=pixels)
    assert len(shares) == 12
    for name, share in shares.items():
        x, output = seen[name]
        chosen = share.argmax(-1)
        for number in chosen.unique().tolist():
            checkpoint, tokens = experts[number].checkpoint, chosen == number
            weight, bias = (checkpoint.read(names[f"{name}.{kind}"]) for kind in ("weight", "bias"))
            expected = torch.nn.functional.linear(x[tokens], weight, bias)
            torch.testing.assert_close(output[tokens], expected, rtol=1e-4, atol=1e-4)
            checked.add(number)
    assert checked == {0, 1, 2}


@pytest.mark.parametrize("by", ["prototypes", "discriminant", "updates", "smile"])
def test_the_order_of_a_batch_changes_no_answer(tiny_family, by):
    merge = merged(tiny_family, {**FEW, "by": by, "rank": 4})
    images = np.concatenate(
        [tasks.load(f"t{m}.npz", root=tiny_family).test.inputs[:6] for m in range(3)]
    )
    pixels = models.pixel_values(images, tiny_family / "e0")
    model, order = merge.model("e0"), torch.from_numpy(np.random.default_rng(0).permutation(18))
    with torch.inference_mode():
        whole = model(pixel_values=pixels).logits
        torch.testing.assert_close(model(pixel_values=pixels[order]).logits, whole[order])
        alone = torch.cat([model(pixel_values=one[None]).logits for one in pixels])
    torch.testing.assert_close(alone, whole)


def test_module_and_evaluation_answer_alike(routed, tiny_family):
    images = tasks.load("t0.npz", root=tiny_family).test.inputs[:12]
    with torch.inference_mode():
        found = routed.model("e0")(pixel_values=models.pixel_values(images, tiny_family / "e0"))
    torch.testing.assert_close(found.logits, logits(routed, 0))
    static = routed.state_dict("e0")
    plain = models.build(tiny_family / "e0", static)
    assert set(static) == set(Checkpoint.open(tiny_family / "e0").tensors)
    with torch.inference_mode():
        base = plain(pixel_values=models.pixel_values(images, tiny_family / "e0")).logits
    assert not torch.allclose(base, found.logits)


def test_a_folder_is_asked_as_the_merge_in_memory(tiny_family, tmp_path, routed):
    target = tmp_path / "out"
    written = mats.merge(recipe_of(tiny_family, FEW, output=str(target)), progress=False)
    assert set(load_file(target / "routed" / "branches.safetensors")) == set(routed.branches)
    manifest = json.loads((target / "routed" / "manifest.json").read_text())
    assert manifest["experts"] == ["e0", "e1", "e2"]
    assert manifest["rank"] == 8
    assert manifest["bytes"] == sum(value.nbytes for value in routed.branches.values())
    plain = load_file(target / "model.safetensors")  # a checkpoint of the base's own kind
    assert set(plain) == set(load_file(tiny_family / "base" / "model.safetensors"))
    results = evaluate_output(target, "test")
    again = mats.evaluate(routed, progress=False)
    assert [r.merged.answers for r in results] == [r.merged.answers for r in again]
    static = mats.evaluate(mats.merge(recipe_of(tiny_family, None), progress=False), progress=False)
    assert [r.merged.answers for r in results] != [r.merged.answers for r in static]
    card = (target / "README.md").read_text()
    assert f"{written.report.size:.2f} × the size of the base" in card
    saved = routed.save(tmp_path / "saved")
    same = load_file(saved / "routed" / "branches.safetensors")
    assert all(torch.equal(value, same[name]) for name, value in routed.branches.items())


def test_folders_that_do_not_belong_together_are_told(tiny_family, tmp_path, routed):
    target = routed.save(tmp_path / "out")
    file = target / "routed" / "manifest.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "layers": {"other.weight": ["right"]}}))
    with pytest.raises(InputError, match=r"no 'other.weight@right'"):
        evaluate_output(target, "test")
    file.write_text(json.dumps({**content, "format": 9}))
    with pytest.raises(InputError, match="format 1"):
        evaluate_output(target, "test")


def test_a_router_without_data_needs_no_task(tiny_family):
    def without(routed: object) -> Merge:
        content = family_recipe(tiny_family, "average", evaluate=False, routed=routed)
        for entry in content["experts"]:  # type: ignore[attr-defined]
            for key in ("task", "statistics"):
                entry.pop(key)
        return mats.merge(parse_recipe(content, tiny_family), progress=False)

    for routed in ({"by": "smile"}, {"by": "updates", "examples": 0}):
        merge = without(routed)
        assert merge.report.routed["layers"] == 8
        assert not merge.report.routed["rightly"]
    with pytest.raises(InputError, match="a task and a model's directory for every expert"):
        without({"by": "updates"})
    with pytest.raises(InputError, match="it is fitted to inputs"):
        without({"examples": 0})


def test_the_shares_are_told_of_every_routed_layer(routed):
    seen: dict[str, int] = {}
    with noting(lambda name, shares: seen.__setitem__(name, shares.shape[-1])):
        logits(routed, 0)
    assert len(seen) == 8
    assert set(seen.values()) == {3}


@pytest.mark.parametrize(
    ("routed", "says"),
    [({"by": "luck"}, "prototypes"), ({"rank": -1}, "rank"), ({"ranks": 8}, "rank"),
     ({"rank": "whole"}, "full")],
)  # fmt: skip
def test_what_a_recipe_may_say(tiny_family, routed, says):
    with pytest.raises(InputError, match=says):
        recipe_of(tiny_family, routed)


def test_its_size_is_estimated_and_never_too_low(tiny_family, tmp_path, routed):
    static = estimate(routed.inputs, recipe_of(tiny_family, None, output=str(tmp_path / "a")))
    found = estimate(routed.inputs, recipe_of(tiny_family, FEW, output=str(tmp_path / "b")))
    beside = routed.report.routed["bytes"]
    # Twice: whole, and in the pieces that a merge which is stopped goes on from.
    assert 2 * beside <= found.disk_bytes - static.disk_bytes < 6 * beside
    assert found.memory["merged model"] - static.memory["merged model"] >= beside


def test_calibrated_branches_of_one_expert_are_the_experts_where_streams_agree(tiny_family):
    """All layers are one expert's and nothing is lost on the way: nothing is left to correct."""
    content = family_recipe(tiny_family, "average", evaluate=False, dtype="float64")
    content |= {"experts": content["experts"][:1]}  # type: ignore[index]
    content |= {"routed": {**FULL, "calibrated": True}}
    merge = mats.merge(parse_recipe(content, tiny_family), progress=False)
    own = load_file(tiny_family / "e0" / "model.safetensors")
    for name in {name.partition("@")[0] for name in merge.branches}:
        found = merge.tensors[name] + merge.branches[f"{name}@right"][0]
        torch.testing.assert_close(found, own[name], rtol=0, atol=2e-4)


def test_calibrated_branches_come_nearer_to_the_experts(tiny_family):
    own = [evaluate.asked(e.checkpoint.directory, models.tensors_of(e.checkpoint),
                          tasks.load(str(e.task), root=tiny_family).test.first(12))
           for e in merged(tiny_family, FEW).inputs.family.experts]  # fmt: skip

    def apart(**settings) -> float:
        routed = {**FULL, "examples": 100, "by": "discriminant"} | settings
        merge = merged(tiny_family, routed)
        return sum(float((logits(merge, m) - own[m]).square().mean()) for m in range(3))

    assert apart(calibrated=True) < apart()


def test_without_examples_nothing_is_calibrated(tiny_family):
    found = merged(tiny_family, {"by": "smile"})
    plain = merged(tiny_family, {"by": "smile", "calibrated": False})
    assert all(torch.equal(value, plain.branches[n]) for n, value in found.branches.items())


def test_branches_are_calibrated_to_the_least_squares_solution():
    """Against the normal equations of all tokens in float64, the damping's rows included."""
    generator = torch.Generator().manual_seed(0)
    x_s, x_e = (torch.randn(40, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    bias = torch.randn(3, generator=generator, dtype=torch.float64)
    lost = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    one = [torch.cat([x, torch.ones(40, 1, dtype=torch.float64)], 1) for x in (x_s, x_e)]
    gram, cross, rest = one[0].T @ one[0] / 40, one[1].T @ one[0] / 40, lost.T @ one[0] / 40
    seen = Moments(gram, cross, {"layer": rest}, 40, 0.0)
    found = torch.cat([*_columns(*calibrated(weight, bias, seen, "layer", 0.1))], 1)
    whole = torch.cat([weight, bias[:, None]], 1)
    ridge = (0.1 * gram.diagonal().mean() * 40).sqrt() * torch.eye(6, dtype=torch.float64)
    rows = torch.cat([one[0], ridge])
    targets = torch.cat([one[1] @ whole.T + lost, ridge @ whole.T])
    torch.testing.assert_close(found, torch.linalg.lstsq(rows, targets).solution.T)


def _columns(weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    assert bias is not None
    return weight, bias[:, None]


# Texts: padding, causal models, weights that are stored as (d_in, d_out) -------------------------


@pytest.mark.parametrize(("kind", "layers"), [("bert", 8), ("gpt2", 4), ("llama", 10)])
@pytest.mark.parametrize("by", ["discriminant", "updates"])
def test_padded_texts_are_answered_as_each_by_itself(tmp_path, kind, layers, by):
    folder = text_cases.text_models(tmp_path, kind)
    merge = routed_cases.of_texts(folder, {"by": by, "rank": "full", "examples": 24})
    assert merge.report.routed["layers"] == layers
    routed_cases.answers_each_by_itself(merge, folder)


def test_a_matrix_stored_the_other_way_round_has_its_branch_the_same_way(tmp_path):
    folder = text_cases.text_models(tmp_path, "gpt2")
    merge = routed_cases.of_texts(folder, FULL)
    own = load_file(folder / "m1" / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    found = merge.tensors[name] + merge.branches[f"{name}@right"][1].T
    torch.testing.assert_close(found, own[name])


# Models that are handed over ----------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"by": "smile"}, {"by": "updates", "examples": 0}])
def test_models_given_by_their_directories_are_routed_from_their_weights(tiny_family, how):
    """As by a recipe that names the same."""
    folders = {f"e{m}": tiny_family / f"e{m}" for m in range(3)}
    found = mats.merge_models(tiny_family / "base", folders, routed=how, progress=False)
    same = merged(tiny_family, how)
    assert set(found.branches) == set(same.branches)
    assert all(torch.equal(value, same.branches[n]) for n, value in found.branches.items())
    assert found.report.size > 1
    images = tasks.load("t0.npz", root=tiny_family).test.inputs[:4]
    pixels = models.pixel_values(images, tiny_family / "e0")
    with torch.inference_mode():
        answers = found.model("e0")(pixel_values=pixels).logits
        expected = same.model("e0")(pixel_values=pixels).logits
    torch.testing.assert_close(answers, expected)


def test_models_in_memory_are_told_how_they_are_routed(tiny_family):
    def module(name: str) -> torch.nn.Module:
        folder = tiny_family / name
        return models.build(folder, models.tensors_of(Checkpoint.open(folder)))

    base, experts = module("e0"), {"e1": module("e1")}
    for routed in ({"by": "smile"}, {}):
        with pytest.raises(InputError, match=r"models in memory: the base, e1\. Save each"):
            mats.merge_models(base, experts, routed=routed, progress=False)
    with pytest.raises(InputError, match="prototypes"):
        mats.merge_models(base, experts, routed={"by": "luck"}, progress=False)
    with pytest.raises(InputError, match="Name tasks in a recipe"):
        mats.merge_models(tiny_family / "base", {"e1": tiny_family / "e1"}, routed={})
