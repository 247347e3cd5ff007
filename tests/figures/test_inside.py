"""Figures of the inside of a merge: cells, colours, numbers and the words beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mats_core import figures
from mats_core.analysis.loading import Loading, Ordering, Step
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.figures.loading import enough_after, gains

CLASSES = ("cat", "dog", "<b>cow</b>")
BEFORE = np.array([[9, 1, 0], [0, 10, 0], [0, 0, 5]])
AFTER = np.array([[4, 6, 0], [0, 10, 0], [1, 0, 4]])


def traces(drawn: figures.Figure) -> Any:
    return drawn.figure.data


def layout(drawn: figures.Figure) -> Any:
    return drawn.figure.layout


def test_confusion_draws_shares_and_counts_of_filled_cells_only():
    drawn = figures.confusion(AFTER, CLASSES, who="merge", noun="image")
    right, mistaken, handles = traces(drawn)
    assert [list(row) for row in right.z] == [[0.4, None, None], [None, 1, None], [None, None, 0.8]]
    assert [list(row) for row in mistaken.z] == [[None, 0.6, None], [None] * 3, [0.2, None, None]]
    assert [list(row) for row in mistaken.text] == [["", "6", ""], ["", "", ""], ["1", "", ""]]
    assert mistaken.zmax == pytest.approx(0.6)
    assert [list(pair) for pair in handles.customdata] == [[0, 0], [0, 1], [1, 1], [2, 0], [2, 2]]
    assert "right on 18 of 25 images (72.0 %)" in drawn.caption
    assert "6 of 10 images of cat are taken for dog" in drawn.caption


def test_class_names_are_text_and_rows_run_downwards():
    drawn = figures.confusion(BEFORE, CLASSES, who="expert", chosen=(0, 1))
    assert traces(drawn)[0].y[2] == "&lt;b&gt;cow&lt;/b&gt;"
    assert layout(drawn).yaxis.range == (2.5, -0.5)
    frame = layout(drawn).shapes[0]
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (0.5, 1.5, -0.5, 0.5)
    assert not layout(figures.confusion(BEFORE, CLASSES, who="expert")).shapes


def test_a_perfect_model_has_no_commonest_mistake():
    drawn = figures.confusion(np.diag([3, 4, 5]), CLASSES, who="expert")
    assert "mistake" not in drawn.caption
    assert "12 of 12" in drawn.caption


def test_change_is_signed_and_names_the_mistake_that_grew():
    drawn = figures.confusion_change(BEFORE, AFTER, CLASSES)
    assert "image" not in drawn.alt, "examples need not be images"
    cells, handles = traces(drawn)
    assert list(cells.z[0]) == [-5, 5, None]
    assert list(cells.text[0]) == ["-5", "+5", ""]
    assert (cells.zmin, cells.zmax) == (-5, 5)
    assert len(handles.x) == 4
    assert "6 fewer right answers" in drawn.caption
    assert "cat taken for dog, from 1 to 6" in drawn.caption
    assert (
        "No mistake became more frequent" in figures.confusion_change(AFTER, AFTER, CLASSES).caption
    )


def test_a_long_name_is_shortened_by_its_letters_and_stays_escaped():
    drawn = figures.confusion(BEFORE, ("fish & chips", "twelve <&> fifteen", "c"), who="expert")
    shown = ("fish &amp; chips", "twelve &lt;&amp;&gt; fi…", "c")
    assert tuple(layout(drawn).xaxis.ticktext) == shown


def test_many_classes_are_narrowed_down_to_those_with_mistakes():
    counts = np.diag(np.full(100, 7))
    counts[90, 3] = 2
    shown = figures.worth_showing(counts)
    assert len(shown) == 40
    assert {3, 90} <= set(shown)
    drawn = figures.confusion(counts, [f"k{i}" for i in range(100)], who="merge")
    assert len(traces(drawn)[0].z) == 40
    assert traces(drawn)[0].texttemplate is None
    assert "Of 100 classes the 40 with the most mistakes are shown" in drawn.caption
    assert "700 of 702" in drawn.caption


def test_classes_of_one_name_stay_apart():
    drawn = figures.confusion(BEFORE, ("a", "a", "b"), who="expert")
    assert list(traces(drawn)[0].x) == ["a (0)", "a (1)", "b (2)"]


def test_the_table_has_the_cells_and_not_the_handles():
    rows = figures.to_csv(figures.confusion(AFTER, CLASSES, who="merge")).splitlines()
    assert "mistaken, share of the true class" in rows[-1]
    assert any(row.endswith(",dog,cat,0.6") for row in rows)
    assert len(rows) == 1 + 2 * 9


# Layer by layer -----------------------------------------------------------------------------------


def step(part: str | None, cats: int, dogs: int) -> Step:
    def result(name: str, correct: int) -> TaskResult:
        return TaskResult(name, Score(correct, 100), Score(100, 100), Score(40, 100))

    return Step(part, (result("cats", cats), result("dogs", dogs)))


def loading(*middle: int, last: int = 80) -> Loading:
    """Two orderings of the parts a, b and c from 40 % to `last`."""
    ends = step(None, 40, 40), {"c": step("c", last, last), "a": step("a", last, last)}
    first, second, third, fourth = (step(p, v, v) for p, v in zip("abcb", middle, strict=True))
    curves: dict[Ordering, tuple[Step, ...]] = {
        "input first": (ends[0], first, second, ends[1]["c"]),
        "output first": (ends[0], third, fourth, ends[1]["a"]),
    }
    return Loading(("a", "b", "c"), {"a": 1.0, "b": 3.0, "c": 2.0}, curves, "validation", 100)


def test_loading_curves_draw_every_state_and_say_where_the_gain_is():
    drawn = figures.loading_curves(loading(50, 76, 60, 70))
    assert [list(t.y) for t in traces(drawn)] == [[0.4, 0.5, 0.76, 0.8], [0.4, 0.6, 0.7, 0.8]]
    assert traces(drawn)[0].customdata == ("nothing yet: the base", "+ a", "+ b", "+ c")
    assert "from 40.0 % with the base to 80.0 % with the whole merge" in drawn.caption
    assert "C alone brings 50 % of that gain" in drawn.caption
    assert "of 3: 2 (from the input to the output), 3 (from the output to the input)" in (
        drawn.caption
    )
    assert "100 validation examples a task" in drawn.caption
    assert "better than with all" not in drawn.caption


def test_a_half_loaded_merge_can_be_the_better_one():
    drawn = figures.loading_curves(loading(50, 76, 60, 85))
    assert "With only 2 parts (from the output to the input) it is 5.0 points better" in (
        drawn.caption
    )


def test_no_gain_is_no_division():
    drawn = figures.loading_curves(loading(30, 35, 30, 40, last=40))
    assert "gains nothing here" in drawn.caption


def test_one_task_alone():
    drawn = figures.loading_curves(loading(50, 76, 60, 70), "dogs")
    assert drawn.caption.startswith("dogs: from 40.0 %")


def test_steps_are_the_differences_of_the_curves():
    found = loading(50, 76, 60, 70)
    drawn = figures.loading_steps(found)
    cells = traces(drawn)[0]
    assert np.array(cells.z) == pytest.approx(np.array([[10, 10], [26, 10], [4, 20]]))
    assert list(cells.text[1]) == ["+26.0", "+10.0"]
    assert "b brings most (+18.0 points on average)" in drawn.caption
    assert "The largest update is that of b: size and use agree" in drawn.caption
    still = figures.loading_steps(loading(40, 76, 60, 80))
    assert traces(still)[0].text[0] == ["0", "0"], "a part that changes nothing has no sign"
    worse = figures.loading_steps(loading(30, 76, 60, 85))
    assert "a costs most (-7.5)" in worse.caption


def test_gains_and_how_soon_there_is_enough():
    found = loading(50, 76, 60, 70)

    def value(one: Step) -> float:
        return one.normalised_accuracy

    steps = found.curves["input first"]
    assert gains(steps, value) == pytest.approx({"a": 0.1, "b": 0.26, "c": 0.04})
    assert enough_after(steps, value) == 2, "0.76 is 90 % of the way from 0.4 to 0.8"
