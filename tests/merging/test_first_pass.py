"""Routed merges whose expert is chosen in a first pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import mats_core as mats
from mats_core import models, tasks
from mats_core.estimating import estimate
from mats_core.evaluation import evaluate
from mats_core.merging import Merge, evaluate_output
from mats_core.merging.first_pass import as_matrix, readable
from mats_core.recipes import parse_recipe
from tests import routed_cases, text_cases
from tests.conftest import family_recipe

CHOSEN = {"by": "first_pass", "examples": 24, "rank": "full", "calibrated": False}


def merged(folder, routed: object = CHOSEN, **settings) -> Merge:
    content = family_recipe(folder, "average", evaluate=False, routed=routed, **settings)
    return mats.merge(parse_recipe(content, folder), progress=False)


@pytest.fixture(scope="module")
def chosen(tiny_family) -> Merge:
    return merged(tiny_family)


def test_at_full_rank_the_branches_are_the_experts(chosen, tiny_family):
    """Whatever the method below: all that an expert has changed, norms and embeddings included."""
    for number in range(3):
        own = load_file(tiny_family / f"e{number}" / "model.safetensors")
        for name, value in chosen.tensors.items():
            if not name.startswith("classifier"):
                part = chosen.branches.get(f"{name}@right")
                found = value if part is None else value + part[number].reshape(value.shape)
                torch.testing.assert_close(found, own[name], rtol=1e-5, atol=1e-6)


def test_routed_rightly_at_full_rank_it_answers_as_the_expert(chosen, tiny_family):
    one = chosen.inputs.family.experts[1]
    state = chosen.routed_state("e1")
    for name in [n for n in state if n.endswith("@offsets")]:
        state[name] = torch.tensor([1e6, -1e6, 1e6])  # only expert 1 is left
    split = tasks.load("t1.npz", root=tiny_family).test.first(12)
    found = evaluate.asked(one.checkpoint.directory, state, split)
    expected = evaluate.asked(one.checkpoint.directory, models.tensors_of(one.checkpoint), split)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_order_of_a_batch_changes_no_answer(tiny_family):
    merge = merged(tiny_family, {**CHOSEN, "rank": 4, "calibrated": True})
    each = [tasks.load(f"t{m}.npz", root=tiny_family).test.inputs[:6] for m in range(3)]
    pixels = models.pixel_values(np.concatenate(each), tiny_family / "e0")
    model, order = merge.model("e0"), torch.from_numpy(np.random.default_rng(0).permutation(18))
    with torch.inference_mode():
        whole = model(pixel_values=pixels).logits
        torch.testing.assert_close(model(pixel_values=pixels[order]).logits, whole[order])
        alone = torch.cat([model(pixel_values=one[None]).logits for one in pixels])
    torch.testing.assert_close(alone, whole)


def test_a_folder_is_asked_as_the_merge_in_memory(tiny_family, tmp_path):
    routed = {**CHOSEN, "rank": 4, "calibrated": True}
    target = tmp_path / "out"
    written = merged(tiny_family, routed, output=str(target))
    assert written.report.routed["by"] == "first_pass"
    results = evaluate_output(target, "test")
    again = mats.evaluate(merged(tiny_family, routed), progress=False)
    assert [r.merged.answers for r in results] == [r.merged.answers for r in again]
    card = (target / "README.md").read_text()
    assert "first pass" in card
    assert f"{written.report.size:.2f} × the size of the base" in card


def test_calibrated_branches_of_one_expert_are_the_experts(tiny_family):
    """Nothing is lost on the way at full rank: nothing is left to correct."""
    content = family_recipe(tiny_family, "average", evaluate=False, dtype="float64")
    content |= {"experts": content["experts"][:1]}  # type: ignore[index]
    content |= {"routed": {**CHOSEN, "calibrated": True}}
    merge = mats.merge(parse_recipe(content, tiny_family), progress=False)
    own = load_file(tiny_family / "e0" / "model.safetensors")
    for name in [n for n in merge.branches if n.endswith("@right")]:
        weight = name.partition("@")[0]
        found = merge.tensors[weight] + merge.branches[name][0].reshape(own[weight].shape)
        torch.testing.assert_close(found, own[weight], rtol=0, atol=2e-4)


def test_calibrated_branches_of_low_rank_come_nearer_to_the_experts(tiny_family):
    own = [evaluate.asked(e.checkpoint.directory, models.tensors_of(e.checkpoint),
                          tasks.load(str(e.task), root=tiny_family).test.first(12))
           for e in merged(tiny_family).inputs.family.experts]  # fmt: skip

    def apart(**settings) -> float:
        merge = merged(tiny_family, {**CHOSEN, "examples": 100, "rank": 2} | settings)
        sums = []
        for number, expert in enumerate(merge.inputs.family.experts):
            state = merge.routed_state(expert.name)
            for name in [n for n in state if n.endswith("@offsets")]:
                state[name] = 1e6 * (torch.arange(3) != number).float()
            split = tasks.load(str(expert.task), root=tiny_family).test.first(12)
            found = evaluate.asked(expert.checkpoint.directory, state, split)
            sums.append(float((found - own[number]).square().mean()))
        return sum(sums)

    assert apart(calibrated=True) < apart()


@pytest.mark.parametrize("deviations", [True, False])
def test_routers_read_deviations_where_these_alone_tell_experts_apart(deviations):
    """Of two layers, 3 and 2 wide; the other half of the numbers is alike for all experts."""
    draw = torch.Generator().manual_seed(0)
    telling = torch.zeros(10)
    telling[[3, 4, 5, 8, 9] if deviations else [0, 1, 2]] = 3
    groups = [torch.randn(60, 10, generator=draw) + expert * telling for expert in range(3)]
    seen, widths = readable(groups, [3, 2])
    assert widths == ([6, 4] if deviations else [3, 2])
    columns = list(range(10)) if deviations else [0, 1, 2, 6, 7]
    for one, group in zip(seen, groups, strict=True):
        assert torch.equal(one, group[:, columns])


def test_its_size_is_estimated_and_never_too_low(tiny_family, tmp_path, chosen):
    def disk(routed: object, name: str) -> float:
        content = family_recipe(tiny_family, "average", evaluate=False, routed=routed)
        content["output"] = str(tmp_path / name)
        return estimate(chosen.inputs, parse_recipe(content, tiny_family)).disk_bytes

    for routed in (CHOSEN, {**CHOSEN, "rank": 4}):
        beside = merged(tiny_family, routed).report.routed["bytes"]
        assert beside <= disk(routed, "a") - disk(None, "b") < 4 * beside


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_padded_texts_are_answered_as_each_by_itself(tmp_path, kind):
    folder = text_cases.text_models(tmp_path, kind)
    merge = routed_cases.of_texts(folder, {**CHOSEN, "rank": 2, "calibrated": True})
    routed_cases.answers_each_by_itself(merge, folder)


def test_weights_stored_the_other_way_round_have_their_branches_the_same_way(tmp_path):
    folder = text_cases.text_models(tmp_path, "gpt2")
    merge = routed_cases.of_texts(folder, CHOSEN)
    own = load_file(folder / "m1" / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    torch.testing.assert_close(merge.tensors[name] + merge.branches[f"{name}@right"][1], own[name])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6,), (1, 6)), ((4, 6), (4, 6)), ((8, 3, 2, 2), (8, 12)), ((1, 5, 6), (5, 6)), ((), (1, 1))],
)
def test_tensors_are_factored_along_their_most_even_cut(shape, expected):
    assert as_matrix(shape) == expected
