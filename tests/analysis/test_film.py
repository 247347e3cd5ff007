"""A calibration block by block: it begins with the start merge and ends with the finished one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mats_core.analysis import Film, FrameDone, filming
from mats_core.analysis.film import assemble
from mats_core.errors import InputError
from mats_core.evaluation import exam
from mats_core.merging import run
from mats_core.recipes import Evaluation, FeatureErrors, Finished
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.stream import drain
from tests.conftest import family_recipe

PLAIN = {"update_share": 0.0, "augment_to": 0}  # the inputs as they are
ASKED = Evaluation(split="validation", examples=15)


def recipe_of(folder: Path, method: str = "sequential", **options):
    content = family_recipe(folder, method, options=options)
    return parse_recipe(content, folder).model_copy(update={"evaluate": ASKED})


def finished(recipe) -> Finished:
    return next(e for e in run(recipe) if isinstance(e, Finished))


@pytest.fixture(scope="module")
def made(tiny_family: Path) -> tuple[Finished, Film, list[FrameDone]]:
    recipe = recipe_of(tiny_family, examples=24, **PLAIN)
    merge = finished(recipe)
    events = filming(recipe, merge.report, merge.tensors, inputs=merge.inputs, examples=15)
    said: list = []
    film = drain(events, said.append)
    return merge, film, [event for event in said if isinstance(event, FrameDone)]


def test_the_first_frame_is_the_start_and_the_last_the_merge(tiny_family, made):
    merge, film, said = made
    assert [frame.block for frame in film.frames] == [0, 1, 2]
    assert tuple(event.frame for event in said) == film.frames
    assert film.frames[0].results == finished(recipe_of(tiny_family, "average")).report.tasks
    assert film.frames[-1].results == merge.report.tasks
    assert (film.split, film.examples) == ("validation", 15)
    assert film.calibrated == FeatureErrors.recorded(merge.report)
    assert film.started.streams[0] == pytest.approx(film.calibrated.streams[0])
    assert film.started.means[-1] > film.calibrated.means[-1]


def test_from_another_start_the_first_frame_is_another(tiny_family, made):
    recipe = recipe_of(tiny_family, examples=24, start="kfac", **PLAIN)
    merge = finished(recipe)
    events = filming(recipe, merge.report, merge.tensors, inputs=merge.inputs, examples=15)
    film = drain(events, lambda event: None)
    assert film.frames[-1].results == merge.report.tasks
    _, average, _ = made
    assert film.started.means[-1] != pytest.approx(average.started.means[-1], rel=1e-3)


def test_a_frame_has_the_calibrated_blocks_and_the_start_behind(tiny_family, made):
    merge, film, _ = made
    start = finished(recipe_of(tiny_family, "average")).tensors
    for blocks in (0, 1, 2):
        found = assemble(start, merge.tensors, film.calibrated, blocks)
        for name, value in found.items():
            block = next((b for b in (0, 1) if f"layer.{b}." in name), None)
            matrix = "dense" in name or "query" in name or "key" in name or "value" in name
            taken = block is not None and block < blocks and matrix
            expected = merge.tensors if taken else start
            assert torch.equal(value, expected[name]), (name, blocks)
    whole = assemble(start, merge.tensors, film.calibrated, 2)
    assert all(torch.equal(whole[name], value) for name, value in merge.tensors.items())


def test_a_frame_is_that_of_a_merge_of_which_nothing_is_kept(tiny_family, made):
    merge, film, _ = made
    start = finished(recipe_of(tiny_family, "average")).tensors
    asked = exam(merge.inputs.family, tiny_family, "validation", 15)
    for frame in film.frames:
        tensors = assemble(start, merge.tensors, film.calibrated, frame.block)
        assert drain(asked.take(tensors), lambda event: None) == frame.results


def test_what_was_not_calibrated_has_no_film(tiny_family, made):
    merge, _, _ = made
    average = recipe_of(tiny_family, "average")
    report = finished(average).report
    for recipe, told in ((average, report), (average, merge.report)):
        with pytest.raises(InputError, match="a merge by 'sequential'"):
            next(filming(recipe, told, merge.tensors, inputs=merge.inputs))
