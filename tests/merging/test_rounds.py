"""A second round: statistics measured again at the merge."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import pytest
import torch
from safetensors.torch import load_file, save_file

from mats_core import models
from mats_core.errors import InputError
from mats_core.merging import rounds
from mats_core.merging.pipeline import run
from mats_core.merging.reading import read_layer
from mats_core.merging.rounds import mean_of, measured_at
from mats_core.recipes.events import Finished, LayerDone, RoundDone
from mats_core.recipes.plan import Inputs, open_inputs, prepare, units
from mats_core.recipes.progress import Shares
from mats_core.recipes.recipe import parse_recipe
from mats_core.recipes.report import Report
from mats_core.statistics import BatchDone
from mats_core.statistics.store import Statistics
from mats_core.system.remember import Memo
from tests.conftest import family_recipe


@pytest.fixture(scope="module")
def recipe(tiny_family):
    content = {**family_recipe(tiny_family, "kfac"), "evaluate": False}
    return parse_recipe(content, tiny_family)


@pytest.fixture(scope="module")
def inputs(recipe):
    return open_inputs(recipe)


def value(statistics: Statistics | None, name: str) -> torch.Tensor:
    assert statistics is not None
    found = statistics.read(name, statistics.shapes[name])
    assert found is not None
    return found


def merged(recipe, inputs: Inputs) -> Mapping[str, torch.Tensor]:
    return next(e.tensors for e in run(recipe, inputs=inputs) if isinstance(e, Finished))


def test_at_an_expert_itself_its_own_statistics_come_back(recipe, inputs, tiny_family):
    """With expert 1's encoder in every model, expert 1's statistics are those of its file."""
    encoder = models.tensors_of(inputs.family.experts[1].checkpoint)
    again = measured_at(inputs, encoder, tiny_family)
    own, found = inputs.statistics[1], again.statistics[1]
    assert own is not None
    assert found is not None
    assert found.shapes == own.shapes  # full Fisher blocks as well
    assert found.metadata["examples"] == own.metadata["examples"] == "48"
    for name in found.shapes:
        torch.testing.assert_close(value(found, name), value(own, name), rtol=1e-5, atol=1e-9)
    other = "vit.encoder.layer.1.output.dense.output_gradient_gram"
    assert not torch.allclose(
        value(again.statistics[0], other), value(inputs.statistics[0], other), rtol=0.01
    )


def test_a_second_round_merges_with_what_was_measured_at_the_first(recipe, inputs, tiny_family):
    first = merged(recipe, inputs)
    again = measured_at(inputs, first, tiny_family)
    second = merged(recipe, again)
    job = prepare(recipe, again)
    unit = next(u for u in units(job) if u.name.endswith("1.output.dense.weight"))
    layer = read_layer(job, unit)
    gram = layer.measured("input_gram")
    assert gram is not None
    module = unit.name.removesuffix(".weight")
    torch.testing.assert_close(gram[2], value(again.statistics[2], f"{module}.input_gram"))
    assert not torch.equal(first[unit.name], second[unit.name])


def test_the_mean_of_two_rounds(recipe, inputs, tiny_family):
    again = measured_at(inputs, models.tensors_of(inputs.family.base), tiny_family, labels="true")
    both = mean_of([inputs, again])
    name = "vit.encoder.layer.0.intermediate.dense.input_gram"
    for index in range(3):
        expected = (
            value(inputs.statistics[index], name) + value(again.statistics[index], name)
        ) / 2
        torch.testing.assert_close(value(both.statistics[index], name), expected)


def test_statistics_in_memory_are_not_mistaken_for_one_another(recipe, inputs, tiny_family):
    """Every expert's layer is read with its own statistics, though none of them has a file."""
    remembering = open_inputs(recipe, Memo(2**28))
    again = measured_at(remembering, models.tensors_of(inputs.family.base), tiny_family)
    job = prepare(recipe, again)
    unit = next(u for u in units(job) if u.name.endswith("0.output.dense.weight"))
    grams = read_layer(job, unit).measured("output_gradient_gram")
    assert grams is not None
    module = unit.name.removesuffix(".weight")
    for gram, own in zip(grams, again.statistics, strict=True):
        torch.testing.assert_close(gram, value(own, f"{module}.output_gradient_gram"))
    assert not torch.equal(grams[0], grams[1])


def test_what_a_further_round_needs_is_said(tiny_family):
    content = {**family_recipe(tiny_family, "average"), "evaluate": False}
    experts = [dict(entry) for entry in content["experts"]]  # type: ignore[union-attr]
    for missing, sentence in (("task", "no task"), ("statistics", "no statistics")):
        changed = [{k: v for k, v in experts[0].items() if k != missing}, *experts[1:]]
        bare = open_inputs(parse_recipe({**content, "experts": changed}, tiny_family))
        with pytest.raises(InputError, match=f"e0.*{sentence}"):
            measured_at(bare, {}, tiny_family)
        again = parse_recipe(
            {**content, "method": "regmean", "experts": changed, "rounds": 2}, tiny_family
        )
        with pytest.raises(InputError, match=f"e0.*{sentence}"):
            next(iter(run(again, inputs=bare)))  # before any work


def test_a_recipe_with_two_rounds_is_merged_measured_and_merged_again(recipe, inputs, tiny_family):
    first = merged(recipe, inputs)
    expected = merged(recipe, measured_at(inputs, first, tiny_family))
    events = list(run(recipe.model_copy(update={"rounds": 2}), inputs=inputs))
    assert [(e.index, e.total) for e in events if isinstance(e, RoundDone)] == [(1, 2)]
    found = events[-1]
    assert isinstance(found, Finished)
    assert found.tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found.tensors[name], tensor), name
    content = found.report.to_dict()
    assert (found.report.rounds, content["rounds"]) == (2, 2)
    assert Report.from_dict(content).rounds == 2


def test_the_report_of_one_round_is_as_it_was(recipe, inputs):
    report = next(e.report for e in run(recipe, inputs=inputs) if isinstance(e, Finished))
    assert "rounds" not in report.to_dict()
    assert Report.from_dict(report.to_dict()).rounds == 1


def test_measuring_says_whose_and_how_much_of_it_is_done(recipe, inputs):
    events = list(run(recipe.model_copy(update={"rounds": 3}), inputs=inputs))
    kinds = [type(e) for e in events if isinstance(e, LayerDone | RoundDone | BatchDone)]
    said = [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if kind != before]
    assert said == [LayerDone, *[RoundDone, BatchDone, LayerDone] * 2]
    measured = [e for e in events if "measuring statistics of" in e.text]
    once = [(e.text, getattr(e, "examples", 0)) for e in measured[: len(measured) // 2]]
    # 48 calibration examples each, which is one batch.
    assert once == [
        (f"Round 1 of 3: measuring statistics of e{m} ({m + 1} of 3) at the merge", examples)
        for m in range(3)
        for examples in (0, 48)
    ]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_progress_goes_forwards_to_its_end_and_names_the_round(recipe, inputs, rounds):
    shares = Shares(measuring=0.7)
    events = list(run(recipe.model_copy(update={"rounds": rounds}), inputs=inputs, shares=shares))
    seen = [(event.fraction, event.text) for event in events]
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    head = f"Round {rounds} of {rounds}: merging" if rounds > 1 else "Merging"
    assert [e for e in events if isinstance(e, LayerDone)][-1].text.startswith(f"{head} layer ")
    assert any("Round 1 of 2: merging layer 1 of" in text for _, text in seen) == (rounds == 2)
    place = "Round 1 of 2: measuring statistics of e1 (2 of 3) at the merge"
    assert (place in [text for _, text in seen]) == (rounds == 2)


def test_whoever_stops_iterating_stops_the_measuring(recipe, inputs, monkeypatch):
    begun = []
    real = rounds.with_head
    monkeypatch.setattr(
        "mats_core.merging.rounds.with_head",
        lambda *given: begun.append(given[2].name) or real(*given),
    )
    events = run(recipe.model_copy(update={"rounds": 2}), inputs=inputs)
    for event in events:
        if isinstance(event, BatchDone) and "of e1 " in event.text and event.examples == 48:
            break
    events.close()  # type: ignore[attr-defined]
    assert begun == ["e0", "e1"]


def test_rounds_of_a_method_without_statistics_are_refused(tiny_family):
    content = {**family_recipe(tiny_family, "ties"), "rounds": 2}
    with pytest.raises(InputError, match=r"'rounds' 2 with method 'ties'.*reads statistics"):
        list(run(parse_recipe(content, tiny_family)))


SEQUENTIAL = {"examples": 12, "candidates": 60, "augment_to": 0}


@pytest.mark.parametrize("source", ["own", "pool"])
def test_sequential_calibration_in_two_rounds_takes_the_curvature_of_the_first(
    tiny_family, inputs, source
):
    """As merging by what was measured where a merge of one round landed; the walk is another."""
    options = {**SEQUENTIAL, "curvature": "measured", "inputs": source}
    content = family_recipe(tiny_family, "sequential", options=options, evaluate=False)
    one, two = (parse_recipe({**content, "rounds": n}, tiny_family) for n in (1, 2))
    first = merged(one, inputs)
    expected = merged(one, measured_at(inputs, first, tiny_family))
    found = merged(two, inputs)
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert any(not torch.equal(value, first[name]) for name, value in found.items())


@pytest.mark.parametrize("curvature", ["update", "answers", "identity"])
def test_rounds_of_a_calibration_without_statistics_are_refused(tiny_family, curvature):
    options = {**SEQUENTIAL, "curvature": curvature}
    content = family_recipe(tiny_family, "sequential", options=options, rounds=2)
    with pytest.raises(InputError, match="options with which it reads statistics"):
        next(run(parse_recipe(content, tiny_family)))


def test_a_base_under_other_names_changes_no_round(tiny_family, tmp_path):
    """The experts' files have a prefix that the base's lacks: `ViTModel` under a classifier."""
    bare = tmp_path / "family"
    shutil.copytree(tiny_family, bare)
    weights = load_file(bare / "base" / "model.safetensors")
    kept = {name.removeprefix("vit."): v for name, v in weights.items() if name.startswith("vit.")}
    save_file(kept, bare / "base" / "model.safetensors", {"format": "pt"})
    found = []
    for folder in (tiny_family, bare):
        content = {**family_recipe(folder, "kfac"), "evaluate": False, "rounds": 2}
        content.pop("base_statistics", None)
        events = run(parse_recipe(content, folder))
        found.append(next(e for e in events if isinstance(e, Finished)))
    prefixed, renamed = found
    assert prefixed.report.coverage["merged"] == renamed.report.coverage["merged"] > 0
    for name, tensor in renamed.tensors.items():
        torch.testing.assert_close(tensor, prefixed.tensors[f"vit.{name}"])
