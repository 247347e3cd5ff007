"""Feature errors along the blocks: what a calibration records is what is measured afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from mats_core.merging import pipeline, walking_beside
from mats_core.recipes import FeatureErrors, Report, prepare
from mats_core.recipes.events import Finished
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics import Stream, feature_error, room
from mats_core.system.stream import drain
from tests.conftest import family_recipe
from tests.merging.test_calibration import recipe_of
from tests.text_cases import text_models

BLOCKS = 2
# The inputs as they are, and nothing of the update's Gram: then calibration fits the features best.
PLAIN = {"update_share": 0.0, "augment_to": 0}


def finished(recipe) -> Finished:
    return next(e for e in pipeline.run(recipe) if isinstance(e, Finished))


def beside(recipe, tensors=None) -> tuple[Mapping[str, torch.Tensor], FeatureErrors]:
    there, found = drain(walking_beside(prepare(recipe), tensors), lambda event: None)
    assert found is not None
    return there, found


@pytest.fixture(scope="module")
def made(tiny_family: Path) -> Finished:
    return finished(recipe_of(tiny_family, options=PLAIN))


def recorded(report: Report) -> FeatureErrors:
    found = FeatureErrors.recorded(report)
    assert found is not None
    return found


def test_what_was_recorded_is_what_the_finished_merge_has(tiny_family, made):
    own = recorded(made.report)
    tensors, again = beside(recipe_of(tiny_family, options=PLAIN), made.tensors)
    assert again.experts == own.experts == ("e0", "e1", "e2")
    assert len(own.streams) == BLOCKS + 1
    assert torch.tensor(again.streams) == pytest.approx(torch.tensor(own.streams), rel=1e-5)
    assert all(torch.equal(tensors[name], value) for name, value in made.tensors.items())


def test_the_start_is_further_from_the_experts_and_is_the_average(tiny_family, made):
    own = recorded(made.report)
    tensors, started = beside(recipe_of(tiny_family, options=PLAIN))
    average = finished(parse_recipe(family_recipe(tiny_family, "average", evaluate=False),
                                    tiny_family)).tensors  # fmt: skip
    for name, value in average.items():
        torch.testing.assert_close(tensors[name], value)
    # What lies in front of the first block is not calibrated.
    assert started.streams[0] == pytest.approx(own.streams[0])
    assert started.means[-1] > own.means[-1] > 0


def test_every_stage_of_every_block_is_recorded_with_its_layers(made):
    stages = recorded(made.report).stages
    assert [(s.block, s.stage) for s in stages] == [(b, s) for b in (0, 1) for s in range(4)]
    assert [len(stage.layers) for stage in stages] == [3, 1, 1, 1] * BLOCKS
    assert all(f"layer.{stage.block}." in name for stage in stages for name in stage.layers)
    for stage in stages:
        assert set(stage.errors) == {"e0", "e1", "e2"}
        assert all(0 < error < 2 for error in stage.errors.values())


def test_how_many_directions_the_examples_decide_is_recorded(tiny_family, made):
    layers = [la for la in made.report.layers if "directions" in la.details]
    assert len(layers) == 6 * BLOCKS
    for layer in layers:
        assert len(layer.details["directions"]) == 3
        assert all(0 < n <= layer.details["input_width"] for n in layer.details["directions"])
        assert "steadied_directions" not in layer.details
    few = finished(recipe_of(tiny_family, options={**PLAIN, "examples": 1, "update_share": 0.8}))
    for one, many in zip(few.report.layers, made.report.layers, strict=True):
        if "directions" not in one.details:
            continue
        # One image has fewer tokens than a layer has inputs; the update has all of its rank.
        pairs = zip(one.details["directions"], many.details["directions"], strict=True)
        assert all(a < b for a, b in pairs)
        steadied = one.details["steadied_directions"]
        assert all(a < b for a, b in zip(one.details["directions"], steadied, strict=True))


def test_it_survives_json_and_older_reports_have_none(made):
    there = Report.from_dict(json.loads(made.report.to_json()))
    assert recorded(there) == recorded(made.report)
    bare = tuple(replace(layer, details={}) for layer in made.report.layers)
    assert FeatureErrors.recorded(replace(made.report, layers=bare)) is None


def test_one_that_goes_on_has_all_of_it(tiny_family, tmp_path, monkeypatch, made):
    monkeypatch.setattr("mats_core.merging.journal.INTERVAL", 0.0)
    target = recipe_of(tiny_family, options=PLAIN, output=str(tmp_path / "out"))
    events = pipeline.run(target, resume=True)
    for number, _ in enumerate(e for e in events if getattr(e, "layer", None) is not None):
        if number == 20:
            break
    events.close()
    again = next(e for e in pipeline.run(target, resume=True) if isinstance(e, Finished))
    own, there = recorded(made.report), recorded(again.report)
    assert torch.tensor(there.streams) == pytest.approx(torch.tensor(own.streams), rel=1e-5)
    assert [s.layers for s in there.stages] == [s.layers for s in own.stages]


def test_experts_that_are_all_alike_have_no_error(tiny_family, tmp_path):
    folder = tmp_path / "family"
    shutil.copytree(tiny_family, folder)
    for number in (1, 2):
        for file in (folder / "e0").iterdir():
            shutil.copy(file, folder / f"e{number}" / file.name)
        shutil.copy(folder / "t0.npz", folder / f"t{number}.npz")
    experts = [{"name": f"e{m}", "model": f"e{m}", "task": f"t{m}.npz"} for m in range(3)]
    recipe = recipe_of(folder, experts=experts, base_statistics=None)
    _, started = beside(recipe)
    assert torch.tensor(started.streams) == pytest.approx(torch.zeros(BLOCKS + 1, 3), abs=1e-10)
    own = recorded(finished(recipe).report)
    assert max(own.means) < 1e-8


def test_padding_of_texts_does_not_count(tmp_path):
    folder = text_models(tmp_path, "bert")
    experts = [{"name": f"m{m}", "model": f"m{m}", "task": f"t{m}.yaml"} for m in range(2)]
    content = {"base": "base", "method": "sequential", "options": {"examples": 24},
               "evaluate": False, "experts": experts}  # fmt: skip
    made = finished(parse_recipe(content, folder))
    assert len(recorded(made.report).streams) == 1 + BLOCKS
    assert all(0 < error < 2 for row in recorded(made.report).streams for error in row)


class Doubled(nn.Module):
    """Two blocks in a row, the second of which may double."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Identity(), nn.Linear(3, 3, bias=False)])
        self.blocks[1].weight.data = factor * torch.eye(3)  # type: ignore[union-attr]

    def forward(self, x, attention_mask=None):
        for block in self.blocks:
            x = block(x)
        return x


def test_the_error_is_the_squared_distance_over_real_tokens():
    x = torch.tensor([[[1.0, 2, 3], [4, 5, 6], [100, 100, 100]]])
    batch = {"x": x, "attention_mask": torch.tensor([[1, 1, 0]])}
    with room(1e9) as kept:
        merge = Stream(Doubled(1.5), "blocks.0", [batch], kept)
        expert = Stream(Doubled(1.0), "blocks.0", [batch], kept)
        assert feature_error(merge, expert) == 0
        for stream in (merge, expert):
            stream.go_on("blocks.0")
        assert feature_error(merge, expert) == 0
        merge.calls[0][0][0][0, 2] = 7.0  # padding
        for stream in (merge, expert):
            stream.go_on("blocks.1")
        assert feature_error(merge, expert) == pytest.approx(0.25)
        whole = Stream(Doubled(1.0), "", [batch], kept)
        assert feature_error(whole, whole) is None
