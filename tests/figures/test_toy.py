"""Figures of the two-parameter merge: what is drawn and said is what was computed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mats_core import figures
from mats_core.analysis.toy import Task, essential_step, solutions, walk

CROSSED = [Task("A", (-2, 0), 15, (2.4, 0.5)), Task("B", (0.6, -1.6), 65, (2.2, 0.5))]
LOOKS = figures.looks("AB")


def bars(drawn: figures.Figure) -> list[Any]:
    data: Any = drawn.figure.data
    return [trace for trace in data if trace.type == "bar"]


def test_losses_are_stacked_and_the_caption_compares_the_best_with_the_worst():
    found = solutions(CROSSED)
    drawn = figures.toy_losses(found, LOOKS)
    first, second = bars(drawn)
    assert list(first.x) == ["average", "Fisher", "full"]
    assert list(first.y) == [one.losses[0] for one in found]
    assert list(second.y) == [one.losses[1] for one in found]
    assert first.marker.color == LOOKS["A"].colour
    for one in found:
        assert f"{one.total:.2f}" in drawn.caption
    less = 100 * (1 - found[2].total / found[0].total)
    assert f"{less:.0f} % less" in drawn.caption
    assert drawn.caption in drawn.alt


def test_losses_that_do_not_differ_are_said_not_to():
    round_ones = [Task("A", (1, 0), 0, (1, 1)), Task("B", (-1, 0), 0, (1, 1))]
    assert "the same place" in figures.toy_losses(solutions(round_ones), LOOKS).caption


def test_progress_is_relative_to_the_minimum():
    start, best = (-3.2, 1.6), solutions(CROSSED)[2]
    found = walk(CROSSED, start)
    drawn = figures.toy_progress(found, best)
    gained, gone = bars(drawn)
    assert list(gained.x) == ["start", "iteration 1", "iteration 2"]
    assert gained.y[0] == gone.y[0] == 0
    assert gained.y[2] == pytest.approx(1)
    assert gone.y[2] == pytest.approx(1)
    expected = (found.losses[0] - found.losses[1]) / (found.losses[0] - best.total)
    assert gained.y[1] == pytest.approx(expected)
    assert gone.y[1] == pytest.approx(
        math.dist(start, found.points[1]) / math.dist(start, best.point)
    )
    assert f"gains {100 * expected:.0f} %" in drawn.caption


def test_progress_without_iterations_or_without_anything_to_gain():
    best = solutions(CROSSED)[2]
    assert (
        "No iteration yet"
        in figures.toy_progress(walk(CROSSED, (3, 3), iterations=0), best).caption
    )
    assert "nothing to gain" in figures.toy_progress(walk(CROSSED, best.point), best).caption


def test_the_polar_figure_shows_an_ellipse_become_a_circle():
    step = essential_step(CROSSED, origin=(-3.2, -2.0))
    drawn = figures.toy_polar(step, LOOKS)
    data: Any = drawn.figure.data
    outlines = [trace for trace in data if trace.mode == "lines"]
    before, after = (np.hypot(t.x, t.y) for t in outlines)
    assert before.max() == pytest.approx(step.spread[0], rel=1e-2)
    assert before.min() == pytest.approx(step.spread[1], rel=1e-2)
    assert after == pytest.approx(sum(step.spread) / 2)
    first, second = (np.array(u) / np.linalg.norm(u) for u in step.updates)
    degrees = math.degrees(math.acos(first @ second))
    assert f"{degrees:.0f}° apart" in drawn.caption
    assert f"× {step.spread[0]:.2f}" in drawn.caption


def test_the_polar_figure_of_one_direction_and_of_none():
    alike = [Task("A", (1, 1), 0, (1, 1)), Task("B", (2, 2), 0, (1, 1))]
    assert "averages their moves" in figures.toy_polar(essential_step(alike), LOOKS).caption
    still = [Task("A", (0, 0), 0, (1, 1)), Task("B", (2, 2), 0, (1, 1))]
    assert "no direction" in figures.toy_polar(essential_step(still), LOOKS).caption


def test_scaling_draws_lengths_before_and_after():
    step = essential_step(CROSSED, task_power=2.0, origin=(-3.2, -2.0))
    drawn = figures.toy_scaling(step, LOOKS, 2.0)
    lengths = [math.hypot(*update) for update in step.updates]
    for bar, length, weight in zip(bars(drawn), lengths, step.weights, strict=True):
        assert list(bar.y) == pytest.approx([length, length * weight])
    after = [n * w for n, w in zip(lengths, step.weights, strict=True)]
    assert "Task B moved furthest" in drawn.caption
    assert f"{100 * after[1] / sum(after):.0f} %" in drawn.caption


@pytest.mark.parametrize(
    ("centres", "power", "words"),
    [
        (((1, 0), (0, 3)), 0.0, "Power 0"),
        (((1, 0), (0, 1)), 2.0, "equally far"),
        (((0, 0), (0, 0)), 2.0, "No task has moved"),
    ],
)
def test_scaling_says_when_it_does_nothing(centres, power, words):
    tasks = [Task(name, c, 0, (1, 1)) for name, c in zip("AB", centres, strict=True)]
    step = essential_step(tasks, task_power=power)
    assert words in figures.toy_scaling(step, LOOKS, power).caption
