"""Sign conflict, cosines and overlaps against counts by hand and against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mats_core.analysis.overlap import (
    chance_conflict,
    cosines,
    others_mean,
    overlaps,
    sign_conflict,
    unrelated_angles,
)
from mats_core.analysis.spectra import principal_angles
from mats_core.errors import InputError


def test_sign_conflict_counted_by_hand():
    # Sums are 3, -1, -2, 0: the elected signs are +, -, -, none.
    first = torch.tensor([[1.0, 2.0], [-2.0, 1.0]])
    second = torch.tensor([[2.0, -3.0], [0.0, -1.0]])
    entries, mass = sign_conflict([first, second])
    # first: against in the entries 2 and 1 (where nothing was elected) of 4; mass 3 of 6.
    # second: only -1, where nothing was elected, of 3 entries that are not zero; mass 1 of 6.
    assert entries.tolist() == pytest.approx([2 / 4, 1 / 3])
    assert mass.tolist() == pytest.approx([3 / 6, 1 / 6])


def test_tasks_that_agree_have_no_conflict_and_opposite_ones_lose_to_the_larger():
    update = torch.tensor([[0.5, -1.0, 2.0]])
    for found in sign_conflict([update, 3 * update]):
        assert found.tolist() == [0, 0]
    for found in sign_conflict([update, -3 * update]):
        assert found.tolist() == [1, 0]
    for found in sign_conflict([update, torch.zeros(1, 3)]):
        assert found.tolist() == [0, 0]


@pytest.mark.parametrize("tasks", [2, 3, 8])
def test_unrelated_tasks_conflict_as_often_as_chance_says(tasks):
    generator = torch.Generator().manual_seed(tasks)
    updates = [torch.randn(300, 300, generator=generator) for _ in range(tasks)]
    expected = chance_conflict(tasks)
    for found, chance in zip(sign_conflict(updates), expected, strict=True):
        assert found.tolist() == pytest.approx([chance] * tasks, abs=0.006)
    assert expected[0] > expected[1], "small entries lose more often"


def test_one_task_has_nobody_to_disagree_with():
    assert chance_conflict(1) == (0, 0)
    assert sign_conflict([torch.tensor([[1.0, -2.0]])])[0].tolist() == [0]


def test_cosines():
    x, y = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    found = cosines([x, y, -2 * x, torch.zeros(1, 2)])
    root = 1 / math.sqrt(2)
    expected = [[1, root, -1, 0], [root, 1, -root, 0], [-1, -root, 1, 0], [0, 0, 0, 0]]
    assert found.numpy() == pytest.approx(np.array(expected), abs=1e-12)


def test_overlaps_of_the_first_directions_only():
    eye = torch.eye(4)
    bases = {"a": eye, "b": eye[:, [0, 2, 1, 3]], "c": eye[:, [3, 2, 1, 0]]}
    assert overlaps(bases, 1).tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert overlaps(bases, 2).tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
    assert overlaps(bases, 4).tolist() == [[1] * 3] * 3
    with pytest.raises(InputError, match="at least 1"):
        overlaps(bases, 0)


def test_mean_over_the_others_leaves_oneself_out():
    pairs = torch.tensor([[1.0, 0.2, 0.4], [0.2, 1.0, 0.6], [0.4, 0.6, 1.0]])
    assert others_mean(pairs).tolist() == pytest.approx([0.3, 0.4, 0.5])
    assert others_mean(torch.stack([pairs, 2 * pairs]))[1].tolist() == pytest.approx([0.6, 0.8, 1])
    assert others_mean(torch.ones(1, 1)).tolist() == [0]


def test_unrelated_angles_are_those_of_random_subspaces():
    found = unrelated_angles(60, 6)
    assert found.tolist() == sorted(found.tolist())
    assert torch.equal(found, unrelated_angles(60, 6)), "the same draw every time"
    # The mean squared cosine of random subspaces is r / d; here of other draws than its own.
    draws = [unrelated_angles(60, 6, seed).cos().square().mean() for seed in range(100)]
    assert float(torch.stack(draws).mean()) == pytest.approx(6 / 60, abs=0.01)
    assert principal_angles(torch.eye(5)[:, :2], torch.eye(5)[:, :2]).tolist() == [0, 0]
