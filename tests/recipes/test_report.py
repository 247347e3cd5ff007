"""Reports: counts, plain values, and JSON that any reader takes."""

from __future__ import annotations

import json
import math

import pytest
from scipy.stats import binomtest

from mats_core.evaluation.scores import Score, TaskResult
from mats_core.recipes.report import TREATMENTS, LayerReport, Report, Trial, task_dict


def report(**settings) -> Report:
    layers = tuple(
        LayerReport(f"{kind}.{i}", kind)
        for kind, count in zip(TREATMENTS, (3, 2, 1, 0, 1), strict=True)
        for i in range(count)
    )
    values = {
        "method": "average", "options": {}, "seed": 1, "device": "cpu", "device_reason": "x",
        "dtype": "float32", "seconds": 1.5, "layers": layers,
    }  # fmt: skip
    return Report(**{**values, **settings})


def test_coverage_counts_every_layer_once():
    assert report().coverage == {"merged": 3, "averaged": 2, "head": 1, "copied": 0, "tied": 1}


def test_what_was_not_evaluated_is_none():
    plain = report().to_dict()
    assert plain["normalised_accuracy"] is None
    assert plain["gap_recovered"] is None
    assert plain["tasks"] == []


def test_json():
    wilson_low = binomtest(60, 80).proportion_ci(0.95, method="wilson").low
    result = TaskResult("t", Score(60, 80), Score(70, 80), Score(40, 80))
    content = json.loads(
        report(
            tasks=(result,),
            search=(Trial({"scaling": 0.3}, 0.9),),
            layers=(
                LayerReport(
                    "w", "merged", "kfac", "converged", 1, (1.0, 0.5), details={"layer_weight": 2.0}
                ),
            ),
        ).to_json()
    )
    assert content["tasks"][0] == {**task_dict(result)}
    assert content["tasks"][0]["accuracy"] == 0.75
    assert content["tasks"][0]["interval"][0] == pytest.approx(wilson_low, abs=1e-6)
    assert content["gap_recovered"] == pytest.approx(20 / 30)
    assert content["search"] == [{"options": {"scaling": 0.3}, "normalised_accuracy": 0.9}]
    assert content["layers"][0]["residuals"] == [1.0, 0.5]
    assert content["layers"][0]["details"] == {"layer_weight": 2.0}
    assert content["versions"]["mats_core"]


def test_json_has_null_for_numbers_that_it_has_no_words_for():
    layer = LayerReport("w", "merged", residuals=(1.0, float("nan"), float("inf")))
    text = report(seconds=float("nan"), layers=(layer,)).to_json()
    assert json.loads(text, parse_constant=pytest.fail)["seconds"] is None
    back = Report.from_dict(json.loads(text)).layers[0].residuals
    assert back[0] == 1.0
    assert all(math.isnan(value) for value in back[1:])


def test_a_report_comes_back_from_its_json():
    scores = [Score(2, 3, "101"), Score(3, 3, "111"), Score(0, 3)]
    layer = LayerReport(
        "w", "merged", "kfac", "converged", 1, (1.0, 0.5), 0.25, (-1.0, -2.0), (0.0, 3.0),
        {"task_weights": [1.0, 2.0]},
    )  # fmt: skip
    whole = report(
        tasks=(TaskResult("t", *scores),), layers=(layer,), warnings=("careful",),
        search=(Trial({"scaling": 0.3}, 0.9),), fingerprints={"base": "ab"},
    )  # fmt: skip
    assert Report.from_dict(json.loads(whole.to_json())) == whole
    with pytest.raises(KeyError):
        Report.from_dict({"method": "average"})
