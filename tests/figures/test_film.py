"""Feature errors and accuracy by block, as they are drawn and said."""

from __future__ import annotations

from typing import Any

import pytest

from mats_core.analysis import Film, Frame
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.figures import feature_errors, film_lines, looks, to_csv
from mats_core.recipes import FeatureErrors, StageErrors

TASKS = looks(["e0", "<b>"])
FOUND = FeatureErrors(
    ("e0", "<b>"),
    ((0.0, 0.0), (0.1, 0.3), (0.2, 0.4)),
    (
        StageErrors(0, 0, ("q", "k"), {"e0": 0.0, "<b>": 0.2}),
        StageErrors(0, 1, ("o",), {"e0": 0.2, "<b>": 0.2}),
        StageErrors(1, 0, ("<i>",), {"e0": 0.1, "<b>": 0.3}),
    ),
)
STARTED = FeatureErrors(("e0", "<b>"), ((0.0, 0.0), (0.5, 0.7), (0.8, 1.0)))


def traces(drawn) -> dict[str, Any]:
    return {trace.name: trace for trace in drawn.figure.data}


def frame(block: int, right: int) -> Frame:
    scores = [Score(n, 400, "1" * n + "0" * (400 - n)) for n in (right, 400, 100)]
    return Frame(block, (TaskResult("e0", *scores), TaskResult("<b>", *scores)))


def test_errors_are_drawn_by_task_with_their_mean_and_the_stages_between_the_blocks():
    drawn = feature_errors(FOUND, TASKS)
    there = traces(drawn)
    assert set(there) == {"e0", "&lt;b&gt;", "<b>all tasks</b>", "stage inputs"}
    assert list(there["<b>all tasks</b>"].y) == pytest.approx([0, 0.2, 0.3])
    stages = there["stage inputs"]
    assert list(stages.x) == [0.25, 0.75, 1.5]
    assert list(stages.y) == pytest.approx([0.1, 0.2, 0.2])
    assert list(stages.customdata) == ["q, k", "o", "&lt;i&gt;"]
    assert (
        "30.0 % of their square from the experts' on average, least on e0 (20.0 %), most on "
        in (drawn.caption)
    )
    assert "It grows most in block 1 (+20.0 points)" in drawn.caption
    assert "Without calibration" not in drawn.caption


def test_the_start_stands_beside_it():
    drawn = feature_errors(FOUND, TASKS, STARTED)
    assert list(traces(drawn)["<b>start merge</b>"].y) == pytest.approx([0, 0.6, 0.9])
    assert "Without calibration they are 90.0 % from them, 3.0 times as much." in drawn.caption
    closer = FeatureErrors(("e0", "<b>"), ((0.0, 0.0), (0.1, 0.1), (0.8, 1.0)))
    assert "; the start is nearer behind block 1." in feature_errors(FOUND, TASKS, closer).caption
    rows = to_csv(drawn).splitlines()
    assert rows[0] == "merge,blocks,stage,task,error"
    assert len(rows) == 1 + 6 + 6 + 6


def test_nothing_is_divided_by_no_error():
    none = FeatureErrors(("e0",), ((0.0,), (0.0,)))
    drawn = feature_errors(none, TASKS, none)
    assert "0.0 % from them. " in drawn.caption
    assert "grows" not in drawn.caption


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ([200, 300, 380], "From 50.0 % of the experts' accuracy, which the start merge keeps, to "
         "95.0 % with all 2 blocks calibrated. Block 1 adds most (+25.0 points)."),
        ([200, 120, 380], "After 1 of them it is -20.0 points from the start"),
        ([200, 200, 200], "to 50.0 % with all 2 blocks calibrated. Whiskers"),
    ],
)  # fmt: skip
def test_the_film_says_where_the_accuracy_comes_from(right: list[int], said: str):
    frames = tuple(frame(block, n) for block, n in enumerate(right))
    drawn = film_lines(Film(frames, FOUND, STARTED, "validation", 200), TASKS)
    assert said in drawn.caption
    assert "at most 200 validation examples a task" in drawn.caption
    mean = traces(drawn)["<b>all tasks</b>"]
    assert list(mean.y) == pytest.approx([n / 400 for n in right])
    assert len(mean.error_y.array) == 3
    layout: Any = drawn.figure.layout
    assert layout.shapes[0].y0 == 1, "the experts' line"
