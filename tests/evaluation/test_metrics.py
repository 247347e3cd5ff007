"""Metrics against scikit-learn, their intervals against simulation, and scores through JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as reference

from mats_core.errors import InputError
from mats_core.evaluation import metrics, scores
from mats_core.evaluation.comparison import difference, normalised_interval
from mats_core.evaluation.evaluate import marks
from mats_core.evaluation.scores import (
    Score,
    TaskResult,
    half_width,
    normalised_accuracy,
    score,
    share,
)
from mats_core.recipes.report import Report
from mats_core.tasks.task import Form, Split

NOTHING: Any = {"zero_division": 0}  # the declared type knows only "warn"
SCIKIT = {
    "f1": lambda y, p: reference.f1_score(y, p, **NOTHING),
    "macro": lambda y, p: reference.f1_score(y, p, average="macro", **NOTHING),
    "matthews": reference.matthews_corrcoef,
}


def answers(rng, n, classes, right=0.7):
    labels = rng.integers(0, classes, n)
    return labels, np.where(rng.random(n) < right, labels, rng.integers(0, classes, n))


@pytest.mark.parametrize("metric", SCIKIT)
@pytest.mark.parametrize("n", [3, 40, 500])
def test_values_are_those_of_scikit_learn(metric, n):
    rng = np.random.default_rng(n)
    for classes in (2,) if metric == "f1" else (2, 7):
        for right in (0.0, 0.6, 1.0):
            labels, predicted = answers(rng, n, classes, right)
            found = metrics.value(metric, labels, predicted)
            assert found == pytest.approx(SCIKIT[metric](labels, predicted), abs=1e-12)
    constant = np.zeros(n, dtype=int)
    assert metrics.value(metric, constant, constant) == pytest.approx(
        SCIKIT[metric](constant, constant)
    )


@pytest.mark.parametrize("metric", SCIKIT)
def test_intervals_cover_the_truth(metric):
    rng = np.random.default_rng(8)
    truth = metrics.value(metric, *answers(rng, 400_000, 2))
    covered = 0
    for _ in range(300):
        labels, predicted = answers(rng, 150, 2)
        low, high = metrics.interval(metric, labels, predicted)
        covered += low <= truth <= high
    assert 0.91 <= covered / 300 <= 0.985


@pytest.mark.parametrize("metric", SCIKIT)
def test_nothing_is_certain(metric):
    labels = np.arange(100) % 2
    low, high = metrics.interval(metric, labels, labels)
    assert high == 1
    assert 0.9 < low < 0.995
    low, high = metrics.interval(metric, labels, 1 - labels)
    assert low < high
    assert metrics.interval(metric, labels, labels) == metrics.interval(metric, labels, labels)
    with pytest.raises(InputError, match="at least one example"):
        metrics.value(metric, labels[:0], labels[:0])


def test_likelihood_is_one_over_the_perplexity_and_its_interval_covers():
    rng = np.random.default_rng(2)
    assert metrics.likelihood(np.array([2.0, 4.0]), np.array([1, 3]))[0] == math.exp(-6 / 4)
    covered, truth = 0, math.exp(-1.5)
    for _ in range(400):
        tokens = rng.integers(1, 30, 100)
        losses = rng.gamma(1.5 * tokens, 1.0)  # a mean of 1.5 nats a token
        _, (low, high) = metrics.likelihood(losses, tokens)
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.98
    assert metrics.likelihood(np.array([1.0]), np.array([2]))[1] == (0.0, 1.0)


def test_accuracy_by_class():
    found = metrics.per_class(np.array([0, 0, 1]), np.array([True, False, True]), 3)
    assert found[:2].tolist() == [0.5, 1.0]
    assert math.isnan(found[2])


# Scores -------------------------------------------------------------------------------------------


def split(n=40, classes=3, **form):
    rng = np.random.default_rng(1)
    return Split(np.empty((n, 1), object), rng.integers(0, classes, n), Form("text", **form))


@pytest.mark.parametrize("metric", ["accuracy", "macro", "matthews", "likelihood"])
def test_a_score_goes_on_from_what_is_known(metric):
    rng = np.random.default_rng(5)
    kind = "language" if metric == "likelihood" else "text"
    whole = Split(np.empty((40, 1), object), rng.integers(0, 3, 40), Form(kind, metric))
    full = rng.integers(0, 3, 40)
    if kind == "language":
        full = np.stack([rng.random(40).round(4), rng.integers(1, 9, 40)], 1)
    expected = scores.score(whole, full.copy())
    nothing = scores.marks(whole)
    assert not scores.asked(nothing).any()
    nothing[:25] = full[:25]
    some = scores.score(whole, nothing)
    assert some.examples == 25
    # Through JSON, as a kept run has it.
    some = Score.from_dict(json.loads(json.dumps(some.to_dict())))
    marks = scores.marks(whole, some)
    assert scores.asked(marks).sum() == 25
    marks[25:] = full[25:]
    again = scores.score(whole, marks)
    assert again.value == pytest.approx(expected.value)
    assert again.answers == expected.answers
    assert again.interval == pytest.approx(expected.interval)


def test_a_score_of_accuracy_is_written_as_before():
    found = scores.score(split(4, 2), np.array([0, 1, 0, -1]))
    assert set(found.to_dict()) == {"correct", "examples", "answers"}
    assert found.answers[3] == "-"
    assert Score.from_dict({"correct": 1, "examples": 3, "answers": ""}) == Score(1, 3)


def test_metrics_are_normalised_and_compared():
    whole = split(metric="macro")
    rng = np.random.default_rng(3)
    expert = scores.score(whole, whole.labels.copy())
    merged = scores.score(whole, np.where(rng.random(40) < 0.8, whole.labels, 0))
    other = scores.score(whole, np.where(rng.random(40) < 0.5, whole.labels, 0))
    result = TaskResult("t", merged, expert, other)
    assert expert.value == 1
    assert share(result) == normalised_accuracy([result]) == merged.value != merged.accuracy
    low, high = merged.interval
    assert half_width([result]) == pytest.approx((high - low) / 2)
    assert normalised_interval([result]) == pytest.approx((low, high))
    found = difference(merged, other, same_examples=True)
    assert found.value == merged.value - other.value
    assert not found.paired, "pairs of answers make up an accuracy, not a mean F1"


def test_an_expert_without_any_skill_is_no_measure():
    nothing, better = Score(1, 2, "", "matthews", -0.1, (-1, 1)), Score(1, 2, "", "matthews", 0.2)
    assert share(TaskResult("t", better, nothing, nothing)) == 1
    assert share(TaskResult("t", Score(1, 2, "", "matthews", -0.5), nothing, nothing)) == 0


def test_reports_hold_the_metric():
    found = scores.score(split(metric="matthews"), split().labels)
    report = Report("average", {}, 0, "cpu", "", "float32", 1.0, (),
                    (TaskResult("t", found, found, found),))  # fmt: skip
    content = json.loads(report.to_json())
    assert content["tasks"][0]["metric"] == "matthews"
    assert content["tasks"][0]["value"] == found.value
    assert "accuracy" not in content["tasks"][0]
    assert Report.from_dict(content).tasks == report.tasks


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro", "matthews"])
def test_answers_that_are_no_numbers_are_wrong(metric):
    labels = np.array([0, 1, 0, 1])
    split = Split(np.zeros((4, 1)), labels, Form("image", metric))
    right = torch.eye(2)[torch.from_numpy(labels)]
    assert score(split, marks(right, split)).value == 1
    with pytest.warns(UserWarning, match="are NaN"):
        said = marks(torch.where(torch.arange(4)[:, None] < 2, math.nan, right), split)
    assert said[2:].tolist() == [0, 1]
    found = score(split, said)
    assert found.correct == 2
    assert 0 <= found.value < 1
    with pytest.warns(UserWarning, match="are NaN"):  # the first class is not guessed by that
        nothing = score(split, marks(torch.full((4, 2), math.nan), split))
    assert (nothing.correct, nothing.value) == (0, 0)


def test_a_loss_that_is_no_number_has_no_likelihood():
    split = Split(
        np.full((3, 2), "", dtype=object), np.zeros(3, int), Form("language", "likelihood")
    )
    said = torch.tensor([[1.0, 2.0], [math.nan, 3.0], [2.0, 2.0]])
    with pytest.warns(UserWarning, match="are NaN"):
        found = score(split, marks(said, split))
    assert (found.examples, found.value) == (3, 0)
