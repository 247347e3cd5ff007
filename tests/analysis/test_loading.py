"""Layer-by-layer loading: its ends are the base and the merge, its steps are single swaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mats_core import tasks
from mats_core.analysis.loading import (
    GRAINS,
    ORDERINGS,
    THREE,
    Loading,
    Part,
    assemble,
    load,
    order,
    parts,
    states,
    update_norm,
)
from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.evaluation import evaluate
from mats_core.evaluation.examiner import Asked
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.merging.pipeline import run
from mats_core.models.modules import tensors_of
from mats_core.recipes.events import Finished
from mats_core.recipes.plan import Inputs, open_inputs
from mats_core.recipes.recipe import Recipe, parse_recipe
from mats_core.system import drain
from tests.conftest import family_recipe
from tests.layer_cases import write_raw


@pytest.fixture(scope="module")
def merged(tiny_family: Path) -> tuple[Recipe, Inputs, Finished]:
    content = family_recipe(tiny_family, "tsv_m", evaluate={"split": "validation"})
    recipe = parse_recipe(content, tiny_family)
    inputs = open_inputs(recipe)
    finished = next(e for e in run(recipe, inputs=inputs) if isinstance(e, Finished))
    return recipe, inputs, finished


@pytest.fixture(scope="module")
def loaded(merged: tuple[Recipe, Inputs, Finished]) -> tuple[list[Any], Loading]:
    recipe, inputs, finished = merged
    told: list[Any] = []
    return told, drain(load(recipe, finished.tensors, inputs=inputs, examples=None), told.append)


def test_every_curve_goes_from_the_base_to_the_merge_itself(merged, loaded):
    _, _, finished = merged
    _, loading = loaded
    assert tuple(loading.curves) == THREE
    for steps in loading.curves.values():
        assert steps[0].part is None
        assert [r.merged for r in steps[0].results] == [r.pretrained for r in steps[0].results]
        theirs = [(r.name, r.merged.correct) for r in finished.report.tasks]
        assert [(r.name, r.merged.correct) for r in steps[-1].results] == theirs
        assert sorted(str(step.part) for step in steps[1:]) == sorted(loading.parts)
    assert loading.split == "validation"


def test_a_step_is_the_base_with_the_parts_up_to_it(merged, loaded):
    recipe, inputs, finished = merged
    _, loading = loaded
    first = loading.curves["output first"][2]  # the final norm, and the last MLP
    encoder = tensors_of(inputs.family.base)
    for name in encoder:
        last_mlp = ".layer.1." in name and ("attention" not in name and "before" not in name)
        if last_mlp or name.startswith("vit.layernorm"):
            encoder[name] = finished.tensors[name]
    assert first.part == "block 1 · MLP"
    for result, expert in zip(first.results, inputs.family.experts, strict=True):
        task = tasks.load(expert.task, root=recipe.folder)
        again = evaluate.evaluate_expert(encoder, inputs.family, expert, task.validation)
        assert again.correct == result.merged.correct
    mean = sum(r.merged.accuracy / r.finetuned.accuracy for r in first.results) / 3
    assert first.normalised_accuracy == pytest.approx(mean)


def test_states_that_orderings_share_are_evaluated_once(merged, loaded):
    _, _, _ = merged
    events, loading = loaded
    evaluated = sum(" of " in e.text and e.text.endswith(" is tested") for e in events)
    seen = set()
    for steps in loading.curves.values():
        for k in range(len(steps)):
            seen.add(frozenset(step.part for step in steps[1 : k + 1]))
    assert evaluated == len(seen) <= states(len(loading.parts), 3)
    told = [event.fraction for event in events if isinstance(event, Asked)]
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def test_stopping_to_iterate_cancels(merged):
    recipe, inputs, finished = merged
    events = load(recipe, finished.tensors, inputs=inputs, examples=5)
    assert any(isinstance(event, Asked) for event in events)
    events.close()  # type: ignore[attr-defined]
    assert list(events) == []


def test_largest_first_goes_by_the_norm_of_the_update(merged, loaded):
    _, inputs, finished = merged
    _, loading = loaded
    norms = {}
    for part in parts(inputs.family, "half"):
        flat = [
            (finished.tensors[n] - inputs.family.base.read(n)).double().flatten()
            for n in part.tensors
        ]
        norms[part.name] = float(torch.cat(flat).norm())
    assert dict(loading.norms) == pytest.approx(norms)
    names = [step.part for step in loading.curves["largest first"][1:]]
    assert names == sorted(norms, key=lambda name: -norms[name])


def test_orders():
    norms = [1.0, 3.0, 2.0]
    assert [order(norms, ordering) for ordering in ORDERINGS] == [
        (0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1),
    ]  # fmt: skip


@pytest.mark.parametrize("grain", GRAINS)
def test_parts_hold_every_merged_tensor_once(merged, grain):
    _, inputs, _ = merged
    found = parts(inputs.family, grain)
    names = [name for part in found for name in part.tensors]
    assert sorted(names) == sorted(inputs.family.shared)
    assert len({part.name for part in found}) == len(found)


def test_parts_stand_from_input_to_output(merged):
    _, inputs, _ = merged
    assert [part.name for part in parts(inputs.family, "block")] == [
        "embeddings", "block 0", "block 1", "final norm",
    ]  # fmt: skip
    assert [part.name for part in parts(inputs.family, "half")] == [
        "embeddings", "block 0 · attention", "block 0 · MLP", "block 1 · attention",
        "block 1 · MLP", "final norm",
    ]  # fmt: skip
    matrices = [part for part in parts(inputs.family, "matrix") if "query" in part.name]
    assert matrices[0] == Part(
        "block 0 · attention · query",
        tuple(f"vit.encoder.layer.0.attention.attention.query.{k}" for k in ("bias", "weight")),
    )  # fmt: skip


def test_blocks_are_counted_and_a_decoder_follows_its_encoder(tmp_path: Path):
    names = [f"decoder.block.{i}.fc.weight" for i in (0, 1)]
    names += [f"encoder.block.{i}.fc.weight" for i in (2, 10)] + ["embed.weight", "pooler.weight"]
    for file in ("base", "expert"):
        write_raw(tmp_path, f"{file}.safetensors", {n: torch.randn(3, 3) for n in names})
    expert = Expert("e", Checkpoint.open(tmp_path / "expert.safetensors"))
    family = examine(Checkpoint.open(tmp_path / "base.safetensors"), [expert])
    assert [part.name for part in parts(family, "half")] == [
        "embeddings", "encoder block 2", "encoder block 10", "decoder block 0", "decoder block 1",
        "after the blocks",
    ]  # fmt: skip


def test_assembling_leaves_both_models_alone():
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    merged = {"a": torch.ones(2), "b": torch.full((2,), 2.0)}
    found = assemble(base, merged, [Part("second", ("b", "tied and written once"))])
    assert found["a"].tolist() == [0, 0]
    assert found["b"].tolist() == [2, 2]
    assert base["b"].tolist() == [0, 0]
    assert update_norm(Part("both", ("a", "b")), base, merged) == pytest.approx(10**0.5)


def test_what_cannot_be_loaded_is_said(merged):
    recipe, inputs, finished = merged
    with pytest.raises(InputError, match="Did you mean 'input first'"):
        next(load(recipe, finished.tensors, inputs=inputs, orderings=("inputs first",)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one of block, half, matrix"):
        parts(inputs.family, "tensor")  # type: ignore[arg-type]
    experts = tuple(Expert(e.name, e.checkpoint) for e in inputs.family.experts)
    without = Inputs(examine(inputs.family.base, experts), inputs.statistics, None)
    with pytest.raises(InputError, match="expected tasks, found none"):
        next(load(recipe, finished.tensors, inputs=without))
