"""Intervals against scipy, and the two summaries of a merge by hand."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from mats_core.checkpoints.files import Checkpoint
from mats_core.errors import InputError
from mats_core.evaluation.evaluate import (
    baselines,
    check_task,
    evaluate_expert,
    probabilities,
    score,
    with_head,
)
from mats_core.evaluation.metrics import wilson
from mats_core.evaluation.scores import Score, TaskResult, gap_recovered, normalised_accuracy
from mats_core.families.examine import examine
from mats_core.families.expert import Expert
from mats_core.models.modules import tensors_of
from mats_core.tasks.loading import load


@pytest.mark.parametrize(
    ("correct", "examples"), [(0, 1), (1, 1), (0, 500), (500, 500), (7, 13), (301, 500), (1, 10**6)]
)
def test_wilson_interval(correct, examples):
    expected = binomtest(correct, examples).proportion_ci(0.95, method="wilson")
    low, high = wilson(correct, examples)
    assert low == pytest.approx(expected.low, abs=1e-6)
    assert high == pytest.approx(expected.high, abs=1e-6)
    assert Score(correct, examples).interval == (low, high)
    assert low <= correct / examples <= high


def test_an_interval_needs_examples():
    with pytest.raises(InputError, match="at least one"):
        wilson(0, 0)


def result(merged, finetuned, pretrained):
    return TaskResult("t", Score(merged, 100), Score(finetuned, 100), Score(pretrained, 100))


def test_normalised_accuracy_and_gap():
    results = [result(80, 90, 50), result(30, 60, 20)]
    assert normalised_accuracy(results) == pytest.approx((80 / 90 + 30 / 60) / 2)
    # Of the means: (55 − 35) / (75 − 35).
    assert gap_recovered(results) == pytest.approx(0.5)
    assert gap_recovered([result(70, 50, 50)]) is None


@pytest.fixture
def family(tiny_family):
    experts = [Expert(f"e{m}", Checkpoint.open(tiny_family / f"e{m}")) for m in range(3)]
    return examine(Checkpoint.open(tiny_family / "base"), experts)


def test_experts_evaluate_as_themselves(family, tiny_family):
    expert, task = family.experts[2], load(tiny_family / "t2.npz")
    check_task(expert, task)
    own = tensors_of(expert.checkpoint)
    directory = expert.checkpoint.directory
    direct = score(directory, own, task.test)
    assert evaluate_expert(own, family, expert, task.test) == direct
    finetuned, pretrained = baselines(family, expert, task, "test", None, "cpu")
    assert finetuned == direct
    mixed = with_head(tensors_of(family.base), family, expert)
    assert mixed["classifier.weight"].equal(own["classifier.weight"])
    assert score(directory, mixed, task.test) == pretrained
    assert baselines(family, expert, task, "validation", 7, "cpu")[0].examples == 7


def test_a_task_of_other_classes_is_refused(family, tiny_family):
    with pytest.raises(InputError, match="5 classes"):
        check_task(family.experts[2], load(tiny_family / "t0.npz"))


def test_predictions_are_those_that_the_score_counts(family, tiny_family):
    expert, task = family.experts[1], load(tiny_family / "t1.npz")
    encoder = tensors_of(family.base)
    said = probabilities(encoder, family, expert, task.test)
    assert said.shape == (60, 4)
    assert said.sum(1) == pytest.approx(1, abs=1e-5)
    taken = said.argmax(1)
    counted = evaluate_expert(encoder, family, expert, task.test)
    assert (taken == task.test.labels).sum() == counted.correct
