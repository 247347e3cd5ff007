"""Scores estimated from the answers of the run before, and what their intervals are worth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mats_core.evaluation import Before, Score, TaskResult, half_width, normalised_accuracy
from mats_core.evaluation.carried import DRAWN, carry
from mats_core.evaluation.metrics import Z
from mats_core.evaluation.scores import NOT_ASKED

TASKS, WHOLE = 8, 500
EXPERT = Score(WHOLE, WHOLE, "1" * WHOLE)
BASE = Score(0, WHOLE, "0" * WHOLE)


def results(rows: np.ndarray, places: np.ndarray | None = None) -> tuple[TaskResult, ...]:
    """The results of answers (tasks, examples), of which those at `places` (tasks, n) are known."""
    found = []
    for index, row in enumerate(rows):
        answers = np.where(row, "1", "0")
        if places is not None:
            known = np.full(len(row), NOT_ASKED)
            known[places[index]] = answers[places[index]]
            answers = known
        text = "".join(answers)
        score = Score(text.count("1"), len(text) - text.count(NOT_ASKED), text)
        found.append(TaskResult(f"t{index}", score, EXPERT, BASE))
    return tuple(found)


def drawn(random: np.random.Generator, changed: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a merge and of another one that differ on a share of the examples."""
    old = random.random((TASKS, WHOLE)) < random.uniform(0.5, 0.95, (TASKS, 1))
    return old ^ (random.random(old.shape) < changed), old


def sample(random: np.random.Generator, n: int) -> np.ndarray:
    return np.stack([random.permutation(WHOLE)[:n] for _ in range(TASKS)])


def test_the_estimate_is_the_earlier_score_plus_the_difference_on_what_both_were_asked():
    random = np.random.default_rng(0)
    new, old = drawn(random, 0.04)
    places = sample(random, 40)
    found = carry(results(new, places), Before("1 · TIES", results(old)))
    changes = np.array([(new[t] != old[t])[places[t]].sum() for t in range(TASKS)])
    rate = (changes.sum() + 2) / (TASKS * 40 + 4)
    for t, result in enumerate(found):
        difference = (new[t].astype(float) - old[t])[places[t]].mean()
        value = old[t].mean() + difference
        smooth = (value * WHOLE + 1) / (WHOLE + 2)
        own = (changes[t] + DRAWN * rate) / (40 + DRAWN)
        variance = own * (1 / 40 - 1 / WHOLE) + smooth * (1 - smooth) / WHOLE
        assert result.merged.value == pytest.approx(value, abs=1e-12)
        assert result.merged.variance == pytest.approx(variance, rel=1e-12)
        assert result.merged.examples == 40, "answers and counts stay the merge's"
        assert result.merged.carried is not None
        assert result.merged.carried.label == "1 · TIES"
    # Σ_t 1/T² of the variances, for every expert is right about everything.
    spread = sum(r.merged.variance for r in found)
    assert half_width(found) == pytest.approx(Z * math.sqrt(spread) / TASKS)


@pytest.mark.parametrize("changed", [0.005, 0.02, 0.06])
def test_the_interval_covers_what_all_examples_say_and_what_they_are_drawn_from(changed):
    # The part of the width that comes from asking few covers the score of the whole split; with the
    # other part it covers the share that the split itself was drawn from.
    random = np.random.default_rng(int(1000 * changed))
    split, drawn_from = [], []
    for _ in range(150):
        truth = random.uniform(0.5, 0.95, (TASKS, 1))
        old = random.random((TASKS, WHOLE)) < truth
        # Half of those that change, change to right: the new share follows from both.
        flips = random.random(old.shape) < changed
        new = np.where(flips, ~old, old)
        shares = truth * (1 - changed) + (1 - truth) * changed
        found = carry(results(new, sample(random, 32)), Before("b", results(old)))
        assert all(r.merged.carried for r in found)
        value, half = normalised_accuracy(found), half_width(found)
        of_split = sum(
            r.merged.variance - (s := (r.merged.value * WHOLE + 1) / (WHOLE + 2)) * (1 - s) / WHOLE
            for r in found
        )
        split.append(abs(value - new.mean()) <= Z * math.sqrt(of_split) / TASKS)
        drawn_from.append(abs(value - shares.mean()) <= half)
    assert np.mean(split) >= 0.92
    assert np.mean(drawn_from) >= 0.92


def test_where_answers_do_not_compare_the_merge_stands_for_itself():
    random = np.random.default_rng(3)
    new, old = drawn(random, 0.02)
    some = results(new, sample(random, 32))
    whole = results(old)
    carried = carry(some, Before("b", whole))
    assert half_width(carried) < half_width(some) / 1.5
    unlike = [
        results(old, sample(random, 400)),  # not asked everything
        whole[:-1],  # another task is missing
        tuple(replace(r, pretrained=replace(BASE, answers="1" * WHOLE)) for r in whole),
        tuple(replace(r, merged=replace(r.merged, metric="f1", measured=0.5)) for r in whole),
    ]
    assert all(carry(some, Before("b", other)) == some for other in unlike)
    assert carry(some, None) == some
    # A merge that answers otherwise altogether is known better by itself.
    other = results(random.random((TASKS, WHOLE)) < 0.5)
    assert carry(some, Before("b", other)) == some
    # With every example asked nothing is left to estimate.
    assert carry(results(new), Before("b", whole)) == results(new)


def test_an_estimate_is_not_written_into_files():
    random = np.random.default_rng(4)
    new, old = drawn(random, 0.02)
    some = results(new, sample(random, 32))
    for plain, result in zip(some, carry(some, Before("b", results(old))), strict=True):
        assert result.merged.to_dict() == plain.merged.to_dict()
        assert Score.from_dict(result.merged.to_dict()) == plain.merged
