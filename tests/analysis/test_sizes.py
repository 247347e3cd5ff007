"""Accuracy against size: every point is the merge that it says; the figure tells its numbers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mats_core import figures
from mats_core.analysis import Sized, SizeDone, sizing
from mats_core.errors import InputError
from mats_core.evaluation import Score, TaskResult
from mats_core.merging import merge
from mats_core.recipes import Evaluation, Routed, parse_recipe
from mats_core.system import drain
from tests.conftest import family_recipe


def test_every_point_is_the_merge_of_its_rank_on_validation_data(tiny_family: Path):
    few = {"examples": 16, "by": "updates"}
    content = family_recipe(tiny_family, "average", routed=few)
    recipe = parse_recipe(content, tiny_family)
    told: list[Sized] = []

    def see(event) -> None:
        if isinstance(event, SizeDone):
            told.append(event.point)

    points = drain(sizing(recipe, (0, 4), examples=15), see)
    assert tuple(told) == points[:-1]
    assert [point.title for point in points] == ["static merge", "rank 4", "all experts"]
    still = {"evaluate": Evaluation(split="validation", examples=15)}
    static = merge(recipe.model_copy(update={**still, "routed": None}))
    routed = merge(recipe.model_copy(update={**still, "routed": Routed(**few, rank=4)}))
    assert points[0].results == static.tasks
    assert points[1].results == routed.tasks
    assert [point.size for point in points] == [1, routed.size, 3]
    assert all(result.merged == result.finetuned for result in points[2].results)


def test_without_tasks_there_is_nothing_to_measure(tiny_family: Path):
    content = family_recipe(tiny_family, "average")
    for entry in content["experts"]:  # type: ignore[attr-defined]
        entry.pop("task")
    with pytest.raises(InputError, match="experts with tasks"):
        drain(sizing(parse_recipe(content, tiny_family), examples=15))


# The figure ---------------------------------------------------------------------------------------


def point(rank, size: float, *right: int, reason: str = "") -> Sized:
    results = tuple(
        TaskResult(f"t{i}", Score(n, 20, "1" * n + "0" * (20 - n)), Score(20, 20), Score(5, 20))
        for i, n in enumerate(right)
    )
    return Sized(rank, size, results, reason)


def drawn(*points: Sized):
    looks = figures.looks(["t0", "t1"])
    return figures.accuracy_by_size(points, looks, examples=20)


def test_the_figure_has_a_line_a_task_and_the_mean_over_sizes():
    found = drawn(point(0, 1, 10, 14), point(8, 1.5, 18, 20), point(None, 2, 20, 20))
    assert found is not None
    traces: Any = found.figure.data
    assert [trace.name for trace in traces[:2]] == ["t0", "t1"]
    assert list(traces[2].x) == [1, 1.5, 2]
    assert list(traces[2].y) == pytest.approx([0.6, 0.95, 1.0])
    assert "rank 8 at 1.50 × the base keeps 95.0 %" in found.caption
    assert "None closes 99.0 % of the gap to the experts: rank 8 closes 93.3 %." in found.caption
    assert len(found.rows) == 6


def test_the_caption_says_which_size_is_nearly_all_and_what_failed():
    whole = drawn(point(0, 1, 10, 14), point(8, 1.5, 20, 20), point(None, 2, 20, 20))
    assert whole is not None
    assert "Rank 8 closes 99.0 % of the gap" in whole.caption
    failed = drawn(point(0, 1, 10, 14), point(8, math.nan, reason="No layer has a branch."))
    assert failed is not None
    assert "Rank 8 could not be merged: No layer has a branch." in failed.caption
    assert drawn(point(8, math.nan, reason="none")) is None
