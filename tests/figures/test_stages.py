"""Matrices of a layer and the map of examples, as they are drawn: numbers, units, frames."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mats_core.analysis import FeatureMap, LayerSteps, Seen, Window
from mats_core.figures import looks, to_csv
from mats_core.figures.feature_map import feature_map
from mats_core.figures.stages import stage_matrix, stages_words
from mats_core.methods.stages import INPUT_GRAM, TASK_MATRIX
from mats_core.tasks import Form, Split


def seen(values: Any, shape: tuple[int, int], rows: str, columns: str) -> Seen:
    window = Window(tuple(rows.split()), tuple(columns.split()), torch.tensor(values))
    return Seen(shape, 3.0, {"moved": window, "first": window, "means": window})


@pytest.mark.parametrize(
    ("view", "stage", "shape", "said"),
    [
        ("moved", TASK_MATRIX, (90, 40), "90 × 40, norm 3. 2 rows and 2 columns, those that the "),
        ("first", TASK_MATRIX, (90, 40), "2 rows and 2 columns, the first"),
        ("means", INPUT_GRAM, (40, 40), "Means of 2 × 2 blocks"),
        ("moved", TASK_MATRIX, (2, 2), "2 × 2, norm 3, all of it"),
    ],
)
def test_a_matrix_says_what_of_it_is_shown(view: Any, stage: Any, shape: Any, said: str):
    drawn = stage_matrix(stage, seen([[0.012, -0.004], [0.0, 0.0351]], shape, "3 17", "5 6"), view)
    assert said in drawn.caption
    assert drawn.caption.endswith("cells in units of 10⁻².")
    trace: Any = drawn.figure.data[0]
    assert [list(row) for row in trace.text] == [["1.2", "-0.4"], ["0.0", "3.5"]]
    assert trace.zmax == -trace.zmin == pytest.approx(0.0351)
    assert to_csv(drawn).splitlines()[:2] == ["row,column,value", "3,5,0.012000000104308128"]


def test_empty_cells_and_zeros_are_drawn():
    drawn = stage_matrix(TASK_MATRIX, seen([[math.nan, 0.0]], (1, 2), "0", "0 1"), "first")
    trace: Any = drawn.figure.data[0]
    assert list(trace.text[0]) == ["", "0.0"]
    assert "units" not in drawn.caption


def test_words_name_the_step_that_keeps_most():
    found = LayerSteps(
        "w", "kfac", "converged", ("a",), (), {}, True, (0.5, 0.1, 0.02), (0, 1, 2), (0.1, 0.4, 0.3)
    )
    said = stages_words(found)
    assert "falls from 0.5 to 0.02 in 2 steps" in said
    assert "the start has 10 %, the end 30 % (mean over the tasks); most, 40 %, has step 1" in said
    assert said.endswith("The bias is the last column.")
    assert stages_words(LayerSteps("w", "average", "exact", (), (), {})) == (
        "Applied here: average (exact)."
    )


def drawn_by_hand() -> FeatureMap:
    texts = np.array([["a red fox"], ["a cat"], ["two birds"], ["no bird"]], dtype=object)
    form = Form("text")
    splits = (
        Split(texts[:2], np.array([0, 1]), form), Split(texts[2:], np.array([0, 0]), form)
    )  # fmt: skip
    rng = np.random.default_rng(0)
    way, features = rng.normal(size=(3, 4, 2)), rng.normal(size=(2, 4, 5))
    return FeatureMap(
        ("pets", "birds"), (("fox", "cat"), ("yes",)), np.array([0, 0, 1, 1]),
        np.array([0, 1, 0, 0]), splits, (0.0, 1.0, 1.5), way, rng.normal(size=(4, 2)),
        (0.5, 0.25), features[0], features[1],
    )  # fmt: skip


def test_frames_hold_the_places_of_every_station():
    found = drawn_by_hand()
    drawn = feature_map(found, looks(found.tasks), chosen=2)
    figure: Any = drawn.figure
    assert [frame.name for frame in figure.frames] == ["0", "1", "1.5"]
    for frame, places in zip(figure.frames, found.way, strict=True):
        for number, (trace, rows) in enumerate(zip(frame.data, ([0, 1], [2, 3], [2]), strict=True)):
            assert list(trace.x) == pytest.approx(places[rows, 0])
            assert list(trace.y) == pytest.approx(places[rows, 1])
            target = figure.data[frame.traces[number]]
            assert len(target.x) == len(rows)
    ring = figure.data[figure.frames[0].traces[-1]]
    assert ring.marker.symbol == "circle-open"
    assert [step.label for step in figure.layout.sliders[0].steps] == ["0", "1", "1.5"]
    assert figure.layout.sliders[0].active == 1
    assert "the plane shows 75 % of the variance" in drawn.caption
    assert len(drawn.rows) == 4 * 4


def test_search_dims_what_does_not_match_and_classes_have_colours():
    found = drawn_by_hand()
    assert found.search("bird").tolist() == [False, False, True, True]
    assert found.search("A pets CAT").tolist() == [False, True, False, False]
    figure: Any = feature_map(found, looks(found.tasks), shown=found.search("cat")).figure
    low, high = figure.data[0].marker.opacity
    assert low < 0.2 < high
    figure = feature_map(found, looks(found.tasks), by="class", task="pets").figure
    assert [trace.name for trace in figure.data[:3]] == ["fox", "cat", "other tasks"]
    assert [list(trace.customdata) for trace in figure.data[:3]] == [[0], [1], [2, 3]]
