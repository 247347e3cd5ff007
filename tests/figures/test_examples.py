"""Accuracy by the number of examples, and what these decide, as they are drawn and said."""

from __future__ import annotations

from typing import Any

import pytest

from mats_core.analysis import Decided, Stand, decided, usual_share
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.figures import decided_lines, decided_words, example_lines, to_csv
from mats_core.methods import LADDERS, Rung
from mats_core.recipes import LayerReport, Report

BY_EXAMPLES = next(ladder for ladder in LADDERS if ladder.counts)


def stand(rung: Rung, right: int | None) -> Stand:
    if right is None:
        return Stand(rung, (), "no room")
    scores = [Score(n, 400, "1" * n + "0" * (400 - n)) for n in (right, 400, 100)]
    return Stand(rung, tuple(TaskResult(name, *scores) for name in ("e0", "e1")))


def stands(*right: int | None) -> list[Stand]:
    return [stand(rung, n) for rung, n in zip(BY_EXAMPLES.rungs, right, strict=False)]


def traces(drawn) -> dict[str, Any]:
    return {trace.name: trace for trace in drawn.figure.data}


ALL = (200, 180, 260, 200, 280, 240, 340, 320, 322, 380)  # none; 1, 2, 8 and 32 twice; 256


def test_its_steps_count_examples_alone_and_steadied():
    assert [rung.options.get("examples", 0) for rung in BY_EXAMPLES.rungs] == [
        0, 1, 1, 2, 2, 8, 8, 32, 32, 256,
    ]  # fmt: skip
    assert BY_EXAMPLES.rungs[0].method == "kfac"
    assert ["w = 0.8" in rung.change for rung in BY_EXAMPLES.rungs] == [
        False, False, True, False, True, False, True, False, False, False,
    ]  # fmt: skip
    assert "w = 0.48" in BY_EXAMPLES.rungs[8].change


def test_both_lines_begin_without_examples():
    drawn = example_lines(stands(*ALL), examples=200, of=10)
    assert drawn is not None
    alone, steadied = traces(drawn).values()
    assert list(alone.x) == list(steadied.x) == ["0", "1", "2", "8", "32", "256"]
    assert list(alone.y) == pytest.approx([n / 400 for n in (200, 180, 200, 240, 320, 380)])
    assert list(steadied.y) == pytest.approx([n / 400 for n in (200, 260, 280, 340, 322, 380)])
    said = drawn.caption
    assert "Without any example the merge keeps 50.0 %" in said
    assert "256 a task keep 95.0 %" in said
    assert "Of that gain 8 a task have 22 % (examples alone) and 78 % (steadied)" in said
    assert "makes a clear difference with 1 (+20.0" in said
    assert "32 (" not in said, "half a point may be chance"
    assert len(to_csv(drawn).splitlines()) == 1 + 2 * 10


@pytest.mark.parametrize(
    ("right", "said"),
    [
        ((200,), "1 of 10 steps so far. Without any example the merge keeps 50.0 %"),
        ((None, 180), "2 of 10 steps so far. 1 a task keep 45.0 % of"),
        ((200, None, 260), "1 could not be merged: no room"),
        ((380, *[200] * 9), "Without any example the merge keeps 95.0 %"),
    ],
)
def test_as_far_as_it_is_known(right, said):
    drawn = example_lines(stands(*right), examples=200, of=10)
    assert drawn is not None
    assert said.removesuffix(" of") in drawn.caption
    assert "Of that gain" not in drawn.caption


def test_before_a_step_there_is_nothing():
    assert example_lines(stands(None), examples=200, of=10) is None
    assert example_lines([], examples=200, of=10) is None


# What examples decide -----------------------------------------------------------------------------


def layer(name: str, block: int, stage: int, alone: list[float], **more: Any) -> LayerReport:
    details = {"block": block, "stage": stage, "input_width": 10, "directions": alone, **more}
    return LayerReport(name, "merged", details=details)


def test_shares_are_of_the_width_in_the_order_of_the_walk():
    layers = (
        layer("b.weight", 1, 0, [2.0, 4.0], steadied_directions=[8.0, 9.0]),
        LayerReport("norm.weight", "averaged"),
        layer("a.weight", 0, 1, [1.0, 3.0]),
    )
    report = Report("sequential", {}, 0, "cpu", "", "float32", 1.0, layers)
    found = decided(report)
    assert [one.name for one in found] == ["a.weight", "b.weight"]
    assert found[0].alone == (0.1, 0.3)
    assert found[1].steadied == (0.8, 0.9)
    assert usual_share(found) == pytest.approx(0.25)
    assert usual_share(found, steadied=True) == pytest.approx(0.85)
    assert usual_share(()) is None


def test_lines_of_all_runs_and_what_they_say():
    many = [Decided("x.a.weight", 10, (0.9, 0.7)), Decided("x.b.weight", 40, (0.5, 0.5))]
    few = [
        Decided("x.a.weight", 10, (0.2, 0.4), (0.6, 0.8)),
        Decided("x.b.weight", 40, (0.1, 0.1), (0.5, 0.7)),
    ]
    drawn = decided_lines({"256 <i>": many, "8": few, "old": []}, "Begun.")
    assert drawn is not None
    there = traces(drawn)
    assert list(there) == ["256 &lt;i&gt;", "8", "8, with the update's share"]
    assert list(there["8"].y) == pytest.approx([0.3, 0.1])
    assert list(there["8, with the update's share"].y) == pytest.approx([0.7, 0.6])
    assert there["8"].customdata[1] == "b, 40 inputs"
    assert drawn.caption == (
        "Begun. Of the 10 to 40 input directions of a layer these decide, in the median over "
        "layers and tasks: 256 <i> 60 %; 8 15 %, steadied 65 %."
    )
    assert decided_lines({"old": []}) is None
    assert decided_words({"old": []}) == ""
