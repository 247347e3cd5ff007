"""Figures: the numbers drawn are those of the result, and so are the words beside them."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import pytest
import torch

from mats_core import figures
from mats_core.analysis.convergence import Point, Trajectory
from mats_core.analysis.loading import Loading, Step
from mats_core.analysis.spectra import Spectrum
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.recipes.report import LayerReport, Report

RESULTS = (
    TaskResult("cats", Score(40, 100), Score(80, 100), Score(20, 100)),
    TaskResult("dogs", Score(90, 100), Score(90, 100), Score(50, 100)),
)
LOOKS = figures.looks(["cats", "dogs"])


def report(*layers: LayerReport) -> Report:
    return Report("kfac", {}, 0, "cpu", "", "float32", 1.0, tuple(layers), RESULTS)


def solved(name: str, *residuals: float, status: str = "converged", **details: object):
    iterations = max(0, len(residuals) - 1)
    return LayerReport(
        name, "merged", "kfac", status, iterations, tuple(residuals), details=details
    )


def traces(drawn: figures.Figure) -> Any:
    return drawn.figure.data


def layout(drawn: figures.Figure) -> Any:
    return drawn.figure.layout


def bars(figure: figures.Figure, name: str):
    return next(t for t in traces(figure) if t.type == "bar" and t.hovertemplate.startswith(name))


def test_accuracy_bars_draw_values_intervals_and_levels():
    drawn = figures.accuracy_bars(RESULTS, LOOKS, label="run 1")
    assert list(bars(drawn, "run 1").y) == [0.4, 0.9]
    expert, merged = (t for t in traces(drawn) if t.type == "bar")
    assert list(expert.y) == [0.8, 0.9]
    assert list(merged.marker.color) == [LOOKS["cats"].colour, LOOKS["dogs"].colour]
    whiskers = next(t for t in traces(drawn) if t.error_y.array is not None)
    low, high = RESULTS[0].merged.interval
    assert whiskers.error_y.array[0] == pytest.approx(high - 0.4)
    assert whiskers.error_y.arrayminus[0] == pytest.approx(0.4 - low)
    assert "75.0 %" in drawn.caption
    assert "most on dogs (100.0 %)" in drawn.caption
    assert "least on cats (50.0 %)" in drawn.caption
    assert "from 50.0 % on cats" in drawn.alt


def test_run_beside_is_hatched_and_its_difference_said():
    worse = tuple(
        TaskResult(r.name, Score(r.merged.correct - 10, 100), r.finetuned, r.pretrained)
        for r in RESULTS
    )
    drawn = figures.accuracy_bars(RESULTS, LOOKS, beside=worse, beside_label="run 0")
    assert bars(drawn, "run 0").marker.pattern.shape == "/"
    gain = 100 * (0.1 / 0.8 + 0.1 / 0.9) / 2
    assert f"{gain:+.1f} points against run 0" in drawn.caption


def test_baselines_name_the_gap_or_its_absence():
    assert "gap of 50.0 points" in figures.baseline_bars(RESULTS, LOOKS).caption
    same = [TaskResult("cats", Score(1, 2), Score(1, 2), Score(1, 2))]
    assert "no gap" in figures.baseline_bars(same, LOOKS).caption


def test_names_are_text_and_never_html():
    odd = TaskResult("<b>x</b>", Score(1, 2), Score(1, 2), Score(0, 2))
    drawn = figures.accuracy_bars([odd], figures.looks(["<b>x</b>"]))
    assert layout(drawn).xaxis.ticktext == ("&lt;b&gt;x&lt;/b&gt;",)


def test_looks_of_eight_tasks_differ_and_later_ones_still_do():
    found = [figures.look(i) for i in range(16)]
    assert len({look.colour for look in found[:8]}) == 8
    assert len({(look.colour, look.dash, look.marker) for look in found}) == 16
    assert "#000000" not in figures.PALETTE


def test_short_names_drop_what_all_share():
    names = ["vit.layer.0.attention.attention.query.weight", "vit.layer.1.mlp.weight"]
    assert list(figures.short_names(names).values()) == ["0 · attention · query", "1 · mlp"]
    assert figures.short_names(["only.weight"]) == {"only.weight": "only"}


def test_residuals_of_layers_with_median_and_largest():
    layers = (
        solved("block.0.fc.weight", 1.0, 0.1, 0.01),
        solved("block.1.fc.weight", 1.0, 0.5, status="iteration limit"),
        LayerReport("norm.weight", "averaged"),
    )
    drawn = figures.residual_curves(layers)
    assert drawn is not None
    median, largest = traces(drawn)[-2:]
    assert list(median.y) == pytest.approx([1.0, 0.3, 0.255])
    assert list(largest.y) == [1.0, 0.5, 0.5], "a layer that stopped keeps its last residual"
    assert layout(drawn).yaxis.dtick == 1
    assert "1 of 2 layers converged" in drawn.caption
    assert figures.residual_curves(layers[2:]) is None


def test_trajectory_says_where_it_was_best():
    def at(iteration: int, correct: int) -> Point:
        result = TaskResult("cats", Score(correct, 100), Score(100, 100), Score(0, 100))
        return Point(iteration, (result,))

    worse = Trajectory({}, (at(0, 70), at(20, 79), at(200, 70)), report(), "validation", 100)
    better = Trajectory({}, (at(0, 70), at(20, 79), at(200, 81)), report(), "validation", 100)
    drawn = figures.trajectory_curves({"damped": better, "undamped": worse})
    assert [list(t.y) for t in traces(drawn)] == [[0.7, 0.79, 0.81], [0.7, 0.79, 0.7]]
    assert "Undamped: best after 20 iterations (79.0 %), 9.0 points lower after 200" in drawn.alt
    assert "still the best at the end" in drawn.caption
    by_task = figures.trajectory_tasks(worse, LOOKS)
    assert "cats falls furthest below its best: 9.0 points" in by_task.caption
    assert "No task" in figures.trajectory_tasks(better, LOOKS).caption


def test_polarized_scaling_weights_as_they_were():
    layer = solved("a.0.fc.weight", task_weights=[0.5, 2.0], layer_weight=1.5)
    other = solved("a.1.fc.weight", task_weights=[1.0, 1.0], layer_weight=0.5)
    drawn = figures.task_weights(report(layer, other), ["cats", "dogs"])
    assert drawn is not None
    assert list(traces(drawn)[0].text[0]) == ["0.50", "2.00", "1.50"]
    assert "dogs most (× 1.50 on average)" in drawn.caption
    assert figures.task_weights(report(), ["cats"]) is None
    dimensions = figures.dimension_weights(solved("a", dimension_weights=[0.5, 3.0, 1.0]))
    assert dimensions is not None
    assert list(traces(dimensions)[0].y) == [3.0, 1.0, 0.5]
    assert "1 of 3 input dimensions" in dimensions.caption
    assert figures.dimension_weights(layer) is None


def test_spectra_are_logarithmic_thinned_and_show_singular_values_as_such():
    found = {
        "cats": Spectrum(torch.tensor([4.0, 1.0, 0.0])),
        "dogs": Spectrum(torch.linspace(1, 0.1, 5000)),
    }
    drawn = figures.spectra(found, "task matrix", LOOKS)
    assert drawn is not None
    cats, dogs = traces(drawn)
    assert list(cats.y) == [2.0, 1.0, None]
    assert len(dogs.x) <= 2001
    assert dogs.x[-1] == 5000
    assert layout(drawn).yaxis.type == "log"
    assert "cats uses about 2" in drawn.caption
    assert figures.spectra({}, "input", LOOKS) is None


def test_energy_at_a_rank():
    found = {"cats": Spectrum(torch.tensor([3.0, 1.0])), "dogs": Spectrum(torch.tensor([1.0, 1.0]))}
    drawn = figures.energy_curves(found, LOOKS, 1)
    assert list(traces(drawn)[0].y) == [0.0, 0.75, 1.0]
    assert "cats keeps 75.0 %" in drawn.caption
    assert "dogs 50.0 %" in drawn.caption
    alike = figures.energy_curves(found, LOOKS, 2)
    assert alike.caption == "With 2 directions a task, each keeps 100.0 % of its energy."


def test_the_csv_of_accuracies_can_be_read_elsewhere():
    worse = (TaskResult("cats", Score(30, 100), Score(80, 100), Score(20, 100)),)
    drawn = figures.accuracy_bars(
        RESULTS, LOOKS, label="3 · K-FAC, <b>", beside=worse, beside_label="1", split="validation"
    )
    rows = list(csv.DictReader(io.StringIO(figures.to_csv(drawn))))
    assert [(row["task"], row["model"], row["value"]) for row in rows] == [
        ("cats", "3 · K-FAC, <b>", "0.4"), ("dogs", "3 · K-FAC, <b>", "0.9"), ("cats", "1", "0.3"),
        ("cats", "expert", "0.8"), ("cats", "pre-trained", "0.2"),
        ("dogs", "expert", "0.9"), ("dogs", "pre-trained", "0.5"),
    ]  # fmt: skip
    assert {(row["examples"], row["split"], row["metric"]) for row in rows} == {
        ("100", "validation", "accuracy")
    }
    assert (float(rows[0]["low"]), float(rows[0]["high"])) == Score(40, 100).interval
    before = csv.DictReader(io.StringIO(figures.to_csv(figures.baseline_bars(RESULTS, LOOKS))))
    assert [row["model"] for row in before] == ["expert", "pre-trained"] * 2


def read(drawn: figures.Figure) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(figures.to_csv(drawn))))


def test_every_csv_of_accuracies_has_a_row_for_each_number():
    looks = {"one": figures.look(0), "two": figures.look(1)}
    lines = read(figures.run_lines({"one": RESULTS, "two": RESULTS[:1]}, looks, "one"))
    assert [(row["task"], row["model"]) for row in lines] == [
        ("cats", "one"), ("dogs", "one"), ("cats", "two")
    ]  # fmt: skip
    points = (Point(0, RESULTS), Point(5, RESULTS))
    solve = Trajectory({}, points, report(), "validation", 100)
    traced = read(figures.trajectory_curves({"undamped": solve}))
    assert [(row["iteration"], row["task"]) for row in traced] == [
        ("0", "cats"), ("0", "dogs"), ("5", "cats"), ("5", "dogs")
    ]  # fmt: skip
    assert read(figures.trajectory_tasks(solve, LOOKS))[0]["split"] == "validation"
    steps = (Step(None, RESULTS), Step("head", RESULTS))
    loaded = read(
        figures.loading_curves(
            Loading(("head",), {"head": 1.0}, {"input first": steps}, "validation")
        )
    )
    assert [(row["parts"], row["last"]) for row in loaded] == [
        ("0", ""), ("0", ""), ("1", "head"), ("1", "head")
    ]  # fmt: skip
    for row in (*lines, *traced, *loaded):
        assert {"task", "model", "metric", "value", "low", "high", "examples", "split"} <= set(row)
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_headline_numbers():
    numbers = figures.headline(report())
    assert numbers["normalised"] == pytest.approx(0.75)
    assert numbers["gap"] == pytest.approx((1.3 - 0.7) / (1.7 - 0.7))
    assert numbers["accuracy"] == pytest.approx(0.65)
    empty = Report("average", {}, 0, "cpu", "", "float32", 1.0, ())
    assert set(figures.headline(empty).values()) == {None}


def test_a_headline_changes_on_the_same_tasks_examples_and_split_alone():
    def one(*rows: tuple[str, str]) -> Report:
        tasks = tuple(
            TaskResult(
                name,
                Score(row.count("1"), len(row) - row.count("-"), row),
                Score(4, 4, "1111"),
                Score(0, 4, "0000"),
            )
            for name, row in rows
        )
        return Report("average", {}, 0, "cpu", "", "float32", 1.0, (), tasks)

    fine, coarse = one(("a", "1101"), ("b", "1000")), one(("a", "1-1-"), ("b", "10--"))
    # On the first and third of a: 1 and 0 against 1 and 1; on the first two of b: no difference.
    assert figures.headline_changes(fine, coarse)["normalised"] == pytest.approx(-0.25)
    assert figures.headline_changes(coarse, fine)["accuracy"] == pytest.approx(0.25)
    assert figures.headline_changes(fine, one(("a", "1111"))) == {}
    assert figures.headline_changes(fine, replace(coarse, split="validation")) == {}
