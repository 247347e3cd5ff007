"""Figures of the comparison: they show the numbers they were given, and say them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mats_core import figures
from mats_core.analysis.predicted_loss import Interference
from mats_core.analysis.sweep import Axis, Cell
from mats_core.evaluation.comparison import compare
from mats_core.evaluation.scores import Score, TaskResult

LOOKS = figures.looks(["one <b>", "two", "three"])


def parts(drawn: figures.Figure | None) -> Any:
    """The plotly figure, whose attributes no type checker knows."""
    assert drawn is not None
    return drawn.figure


def results(*accuracies: int, names: str = "abc") -> list[TaskResult]:
    """Of 100 examples each; experts 80 right."""
    return [
        TaskResult(name, Score(right, 100), Score(80, 100), Score(10, 100))
        for name, right in zip(names, accuracies, strict=False)
    ]


def test_a_line_for_each_run_ends_at_its_mean_and_gaps_where_a_task_is_missing():
    runs = {"one <b>": results(40, 80, 60), "two": results(20, 80, names="ab")}
    drawn = figures.run_lines(runs, LOOKS, "two")
    first, second = parts(drawn).data
    assert list(first.y) == pytest.approx([0.5, 1.0, 0.75, 0.75])
    assert list(second.y) == pytest.approx([0.25, 1.0, None, 0.625])
    assert first.name == "one &lt;b&gt;"
    assert second.name == "two (baseline)"
    assert second.line.width > first.line.width
    assert (first.line.dash, first.marker.symbol) != (second.line.dash, second.marker.symbol)
    assert "one <b> keeps most (75.0 %)" in drawn.caption
    assert "differ most on a: by 25.0 points" in drawn.caption


def test_differences_carry_their_intervals_and_are_counted():
    base = results(20, 70, 60)
    found = {"two": compare(results(60, 71, 30), base, same_examples=True)}
    drawn = figures.difference_lines(found, LOOKS, "one <b>")
    (trace,) = parts(drawn).data
    expected: list[Any] = [*found["two"].tasks.values(), found["two"].mean]
    assert list(trace.y) == pytest.approx([part.value for part in expected])
    low = [y - down for y, down in zip(trace.y, trace.error_y.arrayminus, strict=True)]
    assert low == pytest.approx([part.low for part in expected])
    assert "of 3 differences 1 are clearly above zero and 1 clearly below" in drawn.caption
    mean = found["two"].mean
    assert mean is not None
    assert f"two {100 * mean.value:+.1f} points" in drawn.caption


def cost(predicted: list[list[float]], measured: list[float]) -> Interference:
    return Interference(
        tuple(f"encoder.{i}.fc.weight" for i in range(len(predicted))),
        ("one <b>", "two", "three")[: len(measured)],
        np.array(predicted),
        np.array(measured),
        np.full(len(measured), 0.01),
        "test",
        200,
    )


def test_the_map_of_predicted_loss_is_logarithmic_and_names_the_worst():
    found = cost([[1e-4, 1e-2, 0.0], [1e-3, 1e-1, np.nan]], [0.1, 0.2, 0.3])
    drawn = figures.interference_map(found)
    (heat,) = parts(drawn).data
    assert heat.z[0][:2] == pytest.approx((-4, -2))
    assert heat.z[0][2] is None
    assert heat.z[1][2] is None
    assert list(heat.y) == ["0 · fc", "1 · fc"]
    assert heat.x[0] == "one &lt;b&gt;"
    assert "layer 1 · fc for two (0.1 nats an example)" in drawn.caption
    assert "two is predicted to suffer most (0.11 nats)" in drawn.caption


def test_all_costs_zero_or_unknown_is_still_a_map():
    drawn = figures.interference_map(cost([[0.0, 0.0]], [0.0, 0.0]))
    assert "no cost is predicted" in drawn.caption


def test_predicted_against_measured_says_order_and_amount():
    found = cost([[0.01, 0.02, 0.03]], [0.5, 0.7, 0.6])
    drawn = figures.predicted_against_measured(found, LOOKS)
    assert drawn is not None
    points = parts(drawn).data
    assert [(p.x[0], p.y[0]) for p in points] == [(0.01, 0.5), (0.02, 0.7), (0.03, 0.6)]
    assert points[0].error_y.array[0] == pytest.approx(0.0196)
    assert "does not explain their order: rank correlation +0.50" in drawn.caption
    assert "rose 30 times more than predicted" in drawn.caption
    assert {p.textposition for p in points} == {"middle right"}
    near = figures.predicted_against_measured(cost([[0.01, 0.011, 1.0]], [0.5, 0.51, 2.0]), LOOKS)
    assert near is not None
    assert [p.textposition.split()[1] for p in parts(near).data] == ["left", "right", "right"]
    close = figures.predicted_against_measured(cost([[0.1, 0.2, 0.3]], [0.1, 0.2, 0.25]), LOOKS)
    assert close is not None
    assert "0.6 nats were predicted and 0.55 measured" in close.caption
    # Three tasks in the same order are chance once in three.
    assert "does not explain their order: rank correlation +1.00" in close.caption
    assert "p = 0.33 by permutation, 3 tasks" in close.caption


def test_tasks_in_the_predicted_order_are_said_to_be():
    costs = np.linspace(0.1, 0.8, 8)
    names = tuple("abcdefgh")
    known = Interference(("l",), names, costs[None], costs, costs / 10, "test", 200)
    drawn = figures.predicted_against_measured(known, figures.looks(names))
    assert drawn is not None
    assert "The prediction orders the tasks as measured: rank correlation +1.00" in drawn.caption


def test_without_measured_losses_there_is_nothing_to_plot_against():
    assert figures.predicted_against_measured(cost([[0.1, 0.2]], [np.nan, np.nan]), LOOKS) is None


X, Y = Axis("scaling", (0.5, 1.0)), Axis("scope", ("global", "tensor"))
TITLES = {"scaling": "Scaling", "scope": "Scope"}


def cell(x: int, y: int, accuracy: float | None, **more: object) -> Cell:
    options = {"scaling": X.values[x], "scope": Y.values[y]}
    spread = {} if accuracy is None else {"low": accuracy - 0.05, "high": accuracy + 0.05}
    return Cell(x, y, options, accuracy, **{**spread, **more})  # type: ignore[arg-type]


def test_a_sweep_is_drawn_cell_by_cell_with_the_best_framed_and_holes_named():
    cells = [
        cell(0, 0, 0.6),
        cell(0, 1, 0.9),
        cell(1, 0, None, reason="merged tensor <w>: not finite."),
        cell(1, 1, 0.86),
    ]
    drawn = figures.sweep_map(X, Y, cells, TITLES, examples=150)
    heat, points = parts(drawn).data
    (frame,) = parts(drawn).layout.shapes
    assert list(map(list, heat.z)) == [[0.6, None], [0.9, 0.86]]
    assert (frame.x0 < 0 < frame.x1, frame.y0 < 1 < frame.y1) == (True, True)
    assert frame.x1 - frame.x0 < 1 > frame.y1 - frame.y0
    assert list(map(list, heat.text)) == [["60.0", ""], ["<b>90.0</b>", "86.0"]]
    (hole,) = parts(drawn).layout.annotations
    assert (hole.x, hole.y, hole.text) == (1, 0, "failed")
    assert list(points.customdata) == [0, 1, 2, 3]
    head, *rows = figures.to_csv(drawn).splitlines()
    assert head == "scaling,scope,metric,value,low,high,examples a task,split"
    assert [row.split(",")[:4] for row in rows] == [
        ["0.5", "global", "normalised accuracy", "0.6"],
        ["0.5", "tensor", "normalised accuracy", "0.9"],
        ["1", "tensor", "normalised accuracy", "0.86"],
    ]
    assert all(row.endswith(",150,validation") for row in rows)
    assert "&lt;w&gt;" in points.hovertext[2]
    assert "90.0 % of the experts' accuracy with Scaling 0.5 and Scope tensor" in drawn.caption
    assert "one other point inside it" in drawn.caption
    assert "1 point could not be merged; first reason: merged tensor <w>" in drawn.caption
    assert "at most 150 validation examples" in drawn.caption


def test_a_sweep_that_has_begun_shows_how_far_it_is():
    nothing = figures.sweep_map(X, Y, [], TITLES)
    assert "0 of 4 points so far" in nothing.caption
    one = figures.sweep_map(X, Y, [cell(0, 0, 0.6)], TITLES)
    heat = parts(one).data[0]
    assert heat.zmax > heat.zmin
    assert "1 of 4 points so far" in one.caption


def test_a_sweep_without_any_success_frames_nothing():
    drawn = figures.sweep_map(X, Y, [cell(0, 0, None, reason="no.")], TITLES)
    assert not parts(drawn).layout.shapes
    assert parts(drawn).layout.annotations[0].text == "failed"
