"""Where calibration inputs come from: own examples, a pile for all experts, a pool of no task."""

from __future__ import annotations

import filecmp
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from mats_core.errors import InputError
from mats_core.merging import calibration_inputs, journal, planned, require_output, run, source_of
from mats_core.merging.calibration_inputs import Candidates, choose, chosen_inputs, margins
from mats_core.recipes import InputsChosen, Report, dump_recipe, parse_recipe
from mats_core.recipes.events import Finished, LayerDone
from mats_core.tasks import Form, Split
from tests import text_cases
from tests.conftest import family_recipe

OPTIONS = {"examples": 12, "candidates": 60, "augment_to": 0}


def content_of(folder, tasks=True, **options) -> dict[str, Any]:
    content: dict[str, Any] = family_recipe(
        folder, "sequential", options={**OPTIONS, **options}, evaluate=False
    )
    for expert in content["experts"]:
        if not tasks:
            expert.pop("task")
    return content


def finished(content, folder, **settings) -> Finished:
    events = run(parse_recipe(content, folder), **settings)
    return next(event for event in events if isinstance(event, Finished))


def merged(folder, tasks=True, **options) -> Finished:
    return finished(content_of(folder, tasks, **options), folder)


# Own examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "augment_to", "augmented", "share"),
    [(8, 0, 8, 0.8), (8, 30, 30, 0.8), (12, 8, 12, 0.8 * np.log2(256 / 12) / 5)],
)
def test_few_pictures_get_copies_and_a_share_of_the_update(
    tiny_family, examples, augment_to, augmented, share
):
    report = merged(tiny_family, examples=examples, augment_to=augment_to).report
    assert [one.expert for one in report.inputs] == ["e0", "e1", "e2"]
    for one, m in zip(report.inputs, range(3), strict=True):
        assert (one.inputs, one.examples, one.augmented) == ("own", examples, augmented)
        assert one.update_share == pytest.approx(share, abs=1e-4)
        assert (one.sources, one.margin) == ({f"t{m}.npz": 1.0}, None)
        assert len(one.first) == min(examples, 16)
    statuses = {la.status for la in report.layers if la.method == "sequential" and la.iterations}
    assert all(f"w {share:.2g}" in status for status in statuses)


def test_a_number_is_taken_as_the_share(tiny_family):
    report = merged(tiny_family, update_share=0.25).report
    assert {one.update_share for one in report.inputs} == {0.25}


# A pile -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def piled(tiny_family) -> Finished:
    return merged(tiny_family, inputs="pile")


def test_the_record_names_rows_of_its_sources_and_survives_the_file(tiny_family, piled):
    plan = planned(parse_recipe(content_of(tiny_family, inputs="pile"), tiny_family))
    for index, one in enumerate(piled.report.inputs):
        assert (one.candidates, one.examples, one.augmented) == (60, 12, 12)
        assert sum(one.sources.values()) == pytest.approx(1)
        own = [picked.scores[index] for picked in one.first]
        assert own == sorted(own, reverse=True)
        assert len({(picked.source, picked.row) for picked in one.first}) == 12
        for picked in one.first:
            assert len(source_of(plan, picked.source)) > picked.row
            assert sum(picked.scores) == pytest.approx(0, abs=1e-3)
        assert one.margin is not None
        assert one.margin.least <= one.margin.median
        assert 0 <= one.margin.ahead <= 1
    again = Report.from_dict(json.loads(piled.report.to_json()))
    assert again.inputs == piled.report.inputs


def test_each_choice_is_told_before_the_first_block(tiny_family, piled):
    events = list(run(parse_recipe(content_of(tiny_family, inputs="pile"), tiny_family)))
    told = [event for event in events if isinstance(event, InputsChosen)]
    assert [event.chosen for event in told] == list(piled.report.inputs)
    texts = [event.text for event in events]
    blocks = next(at for at, text in enumerate(texts) if "Block 1" in text)
    assert events.index(told[-1]) < blocks
    assert any("e2 looks at input 1 of 60" in text for text in texts)


def test_the_order_of_experts_makes_no_difference_to_what_each_takes(tiny_family, piled):
    turned = content_of(tiny_family, inputs="pile")
    turned["experts"] = turned["experts"][::-1]
    found = finished(turned, tiny_family)
    by = {one.expert: one for one in found.report.inputs}
    for one in piled.report.inputs:
        rows = [Counter((p.source, p.row) for p in of.first) for of in (one, by[one.expert])]
        assert rows[0] == rows[1]
    for name, value in piled.tensors.items():
        torch.testing.assert_close(found.tensors[name], value, rtol=2e-3, atol=2e-3)


def test_a_pile_may_be_a_task_that_is_no_experts(tiny_family):
    found = merged(tiny_family, tasks=False, inputs="pile", pile="t1.npz", candidates=40)
    for one in found.report.inputs:
        assert one.sources == {"t1.npz": 1.0}
        assert (one.candidates, one.update_share) == (40, 0.9)
    known = merged(tiny_family, inputs="pile", pile="t1.npz", candidates=40).report.inputs
    assert [one.update_share > 0.89 for one in known] == [True, False, True]


def test_the_task_of_a_pile_is_found_from_another_folder(tiny_family, tmp_path):
    content = content_of(tiny_family, False, inputs="pile", pile="t1.npz")
    recipe = parse_recipe(content, tiny_family)
    moved = parse_recipe(yaml.safe_load(dump_recipe(recipe, absolute=True)), tmp_path)
    assert moved.options["pile"] == str((tiny_family / "t1.npz").resolve())
    assert len(source_of(planned(moved), moved.options["pile"])) > 0
    with pytest.raises(InputError, match="option 'pile'"):
        require_output(tiny_family / "t1.npz", recipe, force=True)


def test_one_that_was_stopped_goes_on_to_the_same_bytes(tiny_family, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "INTERVAL", 0.0)
    content, folders = content_of(tiny_family, inputs="pile"), (tmp_path / "a", tmp_path / "b")
    finished({**content, "output": str(folders[0])}, tiny_family)
    recipe = parse_recipe({**content, "output": str(folders[1])}, tiny_family)
    events, seen = run(recipe, resume=True), 0
    for event in events:
        seen += isinstance(event, LayerDone)
        if seen == 20:
            break
    events.close()
    last = next(event for event in run(recipe, resume=True) if isinstance(event, Finished))
    one, other = (folder / "model.safetensors" for folder in folders)
    assert filecmp.cmp(one, other, shallow=False)
    assert len(last.report.inputs) == 3


# A pool -------------------------------------------------------------------------------------------


def test_a_pool_needs_no_task_and_is_the_same_for_the_same_seed(tiny_family):
    one, again = (merged(tiny_family, tasks=False, inputs="pool") for _ in range(2))
    assert all(torch.equal(value, again.tensors[name]) for name, value in one.tensors.items())
    assert one.report.inputs == again.report.inputs
    for own in one.report.inputs:
        assert (own.inputs, own.sources, own.update_share) == ("pool", {"pool": 1.0}, 0.9)
    other = finished({**content_of(tiny_family, False, inputs="pool"), "seed": 3}, tiny_family)
    assert other.report.inputs != one.report.inputs
    plan = planned(parse_recipe(content_of(tiny_family, False, inputs="pool"), tiny_family))
    assert source_of(plan, "pool").inputs.shape == (60, 48, 48, 3)


def test_equal_experts_give_the_expert_from_a_pool(tiny_family):
    content = content_of(tiny_family, False, inputs="pool")
    for expert in content["experts"]:
        expert.update(model="e0", statistics=None)
    found = finished(content, tiny_family).tensors
    alone = finished({**content, "experts": content["experts"][:1]}, tiny_family).tensors
    for name, value in found.items():
        torch.testing.assert_close(value, alone[name], rtol=1e-3, atol=1e-3)


def test_one_expert_comes_back_from_a_pool_of_no_task(tiny_family):
    from safetensors.torch import load_file

    content = content_of(tiny_family, False, inputs="pool", examples=60)
    found = finished({**content, "experts": content["experts"][:1]}, tiny_family)
    assert found.report.inputs[0].margin is None  # of a lone expert
    own = load_file(tiny_family / "e0" / "model.safetensors")
    for name, value in found.tensors.items():
        if not name.startswith("classifier"):
            torch.testing.assert_close(value, own[name], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "t5"])
def test_sentences_calibrate_models_of_texts(tmp_path, kind):
    from tests.text_cases import text_models

    folder = text_models(tmp_path, kind)
    experts = [{"name": f"m{m}", "model": f"m{m}"} for m in range(2)]
    content = {"base": "base", "method": "sequential", "experts": experts, "evaluate": False}
    options = {"inputs": "pool", "candidates": 40, "examples": 10}
    report = finished({**content, "options": options}, folder).report
    assert [one.candidates for one in report.inputs] == [40, 40]
    assert [one.augmented for one in report.inputs] == [10, 10]  # texts have no copies
    assert sum(layer.method == "sequential" for layer in report.layers) > 8


# What an expert takes -----------------------------------------------------------------------------


def test_experts_take_what_they_answer_to_more_than_others():
    scores = torch.tensor([[5.0, 1.0, 4.0, 0.0], [0.0, 3.0, 3.5, 1.5]]).double()
    # Less the mean of each row, and half of what is left in both.
    apart = (scores - scores.mean(1, keepdim=True)).numpy()
    apart = apart - apart.mean(0)
    first, second = choose(scores, 2)
    assert first.tolist() == np.argsort(-apart[0])[:2].tolist() == [0, 2]
    assert second.tolist() == [1, 3]
    margin = margins(scores, 0, np.array([0, 1]))
    assert margin is not None
    assert margin.least == pytest.approx(apart[0, 1] - apart[1, 1])
    assert margin.ahead == 0.5


@pytest.mark.parametrize(("experts", "inputs", "count", "taken"), [
    (2, 10, 3, 3), (2, 10, 256, 5), (3, 10, 256, 4), (1, 10, 256, 10), (8, 2048, 256, 256),
])  # fmt: skip
def test_an_expert_takes_no_more_than_its_share(experts, inputs, count, taken):
    scores = torch.rand(experts, inputs, generator=torch.Generator().manual_seed(1)).double()
    assert [len(set(row)) for row in choose(scores, count)] == [taken] * experts


def test_equal_answers_are_taken_in_their_order():
    assert [row.tolist() for row in choose(torch.zeros(1, 5).double(), 3)] == [[0, 1, 2]]


def test_places_become_rows_of_their_sources(tiny_family):
    plan = planned(parse_recipe(content_of(tiny_family, inputs="pile"), tiny_family))
    split = Split(np.arange(4)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8), np.arange(4))
    there = [Candidates("t0.npz", np.array([9, 8, 7]), split.first(3)),
             Candidates("t1.npz", np.array([6, 5, 4, 3]), split)]  # fmt: skip
    scores = torch.rand(3, 7, generator=torch.Generator().manual_seed(0)).double()
    taken = chosen_inputs(plan, 1, there, scores, np.array([5, 0, 3]))
    rows = [(picked.source, picked.row) for picked in taken.chosen.first]
    assert rows == [("t1.npz", 4), ("t0.npz", 9), ("t1.npz", 6)]
    assert taken.chosen.sources == {"t0.npz": pytest.approx(1 / 3), "t1.npz": pytest.approx(2 / 3)}
    assert [part.labels.tolist() for part in taken.parts] == [[0], [2, 0]]


# At the door --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tasks", "options", "says"),
    [
        (False, {}, "a task and a model's directory for every expert"),
        (False, {"inputs": "pile"}, "an expert with a task, or the task of the pile"),
        (True, {"inputs": "anything"}, "inputs"),
        (True, {"update_share": 1.5}, "update_share"),
        (True, {"update_share": "some"}, "update_share"),
    ],
)
def test_inputs_that_cannot_be_are_refused_at_the_door(tiny_family, tasks, options, says):
    with pytest.raises(InputError, match=says):
        planned(parse_recipe(content_of(tiny_family, tasks, **options), tiny_family))


def test_a_pool_is_of_pictures_or_texts(tiny_family, monkeypatch):
    from dataclasses import replace

    facts = calibration_inputs.models.facts_of
    monkeypatch.setattr(
        calibration_inputs.models, "facts_of", lambda *a: replace(facts(*a), takes="audio")
    )
    with pytest.raises(InputError, match="a model of images or texts"):
        merged(tiny_family, tasks=False, inputs="pool")


def test_the_forms_of_pools_are_those_of_the_models(tmp_path):
    folder = text_cases.text_family(tmp_path)
    content = {"base": "base", "method": "sequential", "options": {"inputs": "pool"}}
    content = {**content, "experts": [{"name": "m0", "model": "m0"}], "evaluate": False}
    plan = planned(parse_recipe(content, folder))
    assert source_of(plan, "pool").form == Form("text")
