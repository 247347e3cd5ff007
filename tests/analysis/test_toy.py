"""The two-parameter merge against numpy and scipy, and against the methods that it stands for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mats_core.analysis.toy import Task, essential_step, solutions, summed_curvature, walk
from mats_core.errors import InputError
from mats_core.methods.essential import EssentialOptions, essential_update

SEEDS = (0, 1, 2)


def some_tasks(seed: int, count: int = 2) -> list[Task]:
    rng = np.random.default_rng(seed)
    return [
        Task(
            f"t{i}",
            tuple(rng.uniform(-3, 3, 2).tolist()),
            float(rng.uniform(0, 180)),
            tuple(rng.uniform(0.3, 2.5, 2).tolist()),
        )
        for i in range(count)
    ]


def matrix(task: Task) -> np.ndarray:
    """C from its eigenvectors, by numpy."""
    angle = np.deg2rad(task.angle)
    long, across = (
        np.array([np.cos(angle), np.sin(angle)]),
        np.array([-np.sin(angle), np.cos(angle)]),
    )
    a, b = task.axes
    return np.outer(long, long) / a**2 + np.outer(across, across) / b**2


def loss(task: Task, point) -> float:
    step = np.asarray(point) - task.centre
    return float(step @ matrix(task) @ step / 2)


def total(tasks, point) -> float:
    return sum(loss(task, point) for task in tasks)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_ellipse_is_where_the_loss_is_a_half(seed):
    (task,) = some_tasks(seed, 1)
    turn = np.deg2rad(task.angle)
    for t in np.linspace(0, 2 * np.pi, 7):
        along, across = task.axes[0] * np.cos(t), task.axes[1] * np.sin(t)
        point = (
            task.centre[0] + along * np.cos(turn) - across * np.sin(turn),
            task.centre[1] + along * np.sin(turn) + across * np.cos(turn),
        )
        assert task.loss(point) == pytest.approx(0.5, rel=1e-12)
    assert task.loss(task.centre) == 0


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_full_solution_minimises_the_summed_loss(seed, count):
    tasks = some_tasks(seed, count)
    full = solutions(tasks)[2]
    found = minimize(lambda w: total(tasks, w), np.zeros(2), method="BFGS", options={"gtol": 1e-10})
    assert full.point == pytest.approx(found.x, abs=1e-6)
    assert full.losses == pytest.approx([loss(task, found.x) for task in tasks], abs=1e-6)
    assert summed_curvature(tasks).numpy() == pytest.approx(sum(matrix(t) for t in tasks))


@pytest.mark.parametrize("seed", SEEDS)
def test_average_and_fisher_are_their_elementwise_formulas(seed):
    tasks = some_tasks(seed, 3)
    average, fisher, full = solutions(tasks)
    centres = np.array([task.centre for task in tasks])
    diagonals = np.array([np.diag(matrix(task)) for task in tasks])
    assert average.point == pytest.approx(centres.mean(0), rel=1e-12)
    assert fisher.point == pytest.approx((diagonals * centres).sum(0) / diagonals.sum(0))
    assert full.total == min(average.total, fisher.total, full.total)


def test_round_ellipses_of_one_size_make_all_three_the_same():
    tasks = [Task("a", (1, 2), 30, (0.7, 0.7)), Task("b", (-2, 0), 75, (0.7, 0.7))]
    for merged in solutions(tasks):
        assert merged.point == pytest.approx((-0.5, 1.0))


def test_upright_ellipses_need_no_more_than_the_diagonal_and_turned_ones_do():
    upright = [Task("a", (1, 2), 0, (2, 0.5)), Task("b", (-2, 0), 90, (2, 0.5))]
    _, fisher, full = solutions(upright)
    assert fisher.point == pytest.approx(full.point)
    turned = [Task("a", (1, 2), 45, (2, 0.5)), Task("b", (-2, 0), 135, (2, 0.5))]
    average, fisher, full = solutions(turned)
    assert fisher.point == pytest.approx(average.point)  # equal diagonals: it sees nothing
    assert full.total < 0.5 * fisher.total


# Conjugate gradients ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("preconditioner", ["none", "jacobi"])
def test_two_steps_reach_the_solution_and_each_minimises_along_its_way(seed, preconditioner):
    tasks, start = some_tasks(seed), (2.5, -2.0)
    found = walk(tasks, start, iterations=2, preconditioner=preconditioner)
    assert found.points[0] == start
    assert found.points[2] == pytest.approx(solutions(tasks)[2].point, abs=1e-9)
    assert found.target == pytest.approx(found.points[2], abs=1e-9)
    k = np.sum([matrix(task) for task in tasks], axis=0)
    gradient = np.sum([matrix(t) @ (np.array(start) - t.centre) for t in tasks], axis=0)
    way = gradient / np.diag(k) if preconditioner == "jacobi" else gradient
    best = np.array(start) - way * (gradient @ way) / (way @ k @ way)
    assert found.points[1] == pytest.approx(best, abs=1e-9)
    assert found.losses == pytest.approx([total(tasks, p) for p in found.points])
    assert found.distances == pytest.approx([math.dist(start, p) for p in found.points], abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_damping_and_anchor_solve_the_systems_that_they_say(seed):
    tasks, start = some_tasks(seed), (1.5, 2.0)
    damped = [matrix(t) + 0.3 * np.trace(matrix(t)) / 2 * np.eye(2) for t in tasks]
    k = sum(damped) / 2
    right = sum(c @ t.centre for c, t in zip(damped, tasks, strict=True)) / 2
    found = walk(tasks, start, iterations=2, damping=0.3)
    assert found.points[-1] == pytest.approx(np.linalg.solve(k, right), abs=1e-9)
    pull = 0.7 * np.trace(k) / 2
    expected = np.linalg.solve(k + pull * np.eye(2), right + pull * np.array(start))
    found = walk(tasks, start, iterations=2, damping=0.3, anchor=0.7)
    assert found.target == pytest.approx(expected)
    assert found.points[-1] == pytest.approx(expected, abs=1e-9)


def test_a_strong_anchor_stays_at_the_start_and_iterations_stop_the_walk():
    tasks, start = some_tasks(4), (1.0, -1.0)
    assert walk(tasks, start, anchor=1e9).points[-1] == pytest.approx(start, abs=1e-6)
    assert walk(tasks, start, iterations=0).points == (start,)
    assert len(walk(tasks, start, iterations=1).points) == 2
    assert len(walk(tasks, start, iterations=9).points) <= 4


# Essential Subspace Merging -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_essential_step_is_half_of_the_methods_update(seed, power):
    tasks, origin = some_tasks(seed), (0.3, -0.2)
    updates = tuple(torch.tensor(np.subtract(task.centre, origin)[:, None]) for task in tasks)
    options = EssentialOptions(task_power=power, dimension_power=0.0, eigenvalue_power=0.0)
    grams = tuple(torch.ones(1, 1, dtype=torch.float64) for _ in tasks)
    update, details, _ = essential_update(updates, grams, None, options)
    found = essential_step(tasks, task_power=power, origin=origin)
    assert np.sum(found.moves, axis=0) == pytest.approx(update[:, 0].numpy() / 2)
    assert found.weights == pytest.approx(details["task_weights"])
    assert found.updates == tuple(pytest.approx(u[:, 0].tolist()) for u in updates)


@pytest.mark.parametrize("degrees", [5.0, 40.0, 90.0, 150.0])
def test_the_polar_step_spreads_directions_evenly_and_symmetrically(degrees):
    angle = math.radians(degrees)
    tasks = [
        Task("a", (2.0, 0.0), 0, (1, 1)),
        Task("b", (3 * math.cos(angle), 3 * math.sin(angle)), 0, (1, 1)),
    ]
    found = essential_step(tasks)
    assert found.directions[0] == pytest.approx((1, 0))
    assert found.directions[1] == pytest.approx((math.cos(angle), math.sin(angle)))
    # Singular values of two unit vectors, by hand.
    cosine = abs(math.cos(angle))
    assert found.spread == pytest.approx((math.sqrt(1 + cosine), math.sqrt(1 - cosine)))
    a, b = (np.array(column) for column in found.freed)
    assert a @ b == pytest.approx(0, abs=1e-12)
    size = (math.sqrt(1 + cosine) + math.sqrt(1 - cosine)) / 2
    assert np.linalg.norm(a) == pytest.approx(size)
    assert np.linalg.norm(b) == pytest.approx(size)
    # Each direction turns by as much as the other.
    assert a @ np.array(found.directions[0]) == pytest.approx(b @ np.array(found.directions[1]))


def test_orthogonal_moves_are_added_and_equal_directions_averaged():
    orthogonal = [Task("a", (2, 0), 0, (1, 1)), Task("b", (0, 1), 0, (1, 1))]
    assert np.sum(essential_step(orthogonal).moves, axis=0) == pytest.approx((2, 1))
    alike = [Task("a", (2, 2), 0, (1, 1)), Task("b", (1, 1), 0, (1, 1))]
    assert np.sum(essential_step(alike).moves, axis=0) == pytest.approx((1.5, 1.5))


def test_polarized_scaling_makes_the_loud_louder():
    tasks = [Task("a", (3, 0), 0, (1, 1)), Task("b", (0, 1), 0, (1, 1))]
    found = essential_step(tasks, task_power=2.0)
    assert found.weights == pytest.approx((1.5**2, 0.5**2))
    assert np.sum(found.moves, axis=0) == pytest.approx((3 * 2.25, 0.25))
    assert essential_step(tasks).weights == (1, 1)


def test_a_task_that_did_not_move_adds_nothing():
    tasks = [Task("a", (0, 0), 0, (1, 1)), Task("b", (0, 1), 0, (1, 1))]
    found = essential_step(tasks)
    assert found.directions[0] == (0, 0)
    assert found.moves[0] == pytest.approx((0, 0))
    assert found.kept[0] == 0
    still = [Task("a", (1, 2), 0, (1, 1)), Task("b", (1, 2), 0, (1, 1))]
    assert essential_step(still, task_power=2.0, origin=(1, 2)).point == (1, 2)
    assert all(math.isfinite(v) for v in found.point)


@pytest.mark.parametrize("degrees", [0.0, 30.0, 60.0, 90.0, 120.0, 170.0])
def test_what_is_kept_of_two_equally_long_moves_follows_their_angle(degrees):
    """Task arithmetic keeps 1 + cos θ of each; after the polar step it is (1 + cos θ + sin θ)/2."""
    angle = math.radians(degrees)
    tasks = [
        Task("a", (2.5, 0.5), 0, (1, 1)),
        Task("b", (0.5 + 2 * math.cos(angle), 0.5 + 2 * math.sin(angle)), 0, (1, 1)),
    ]
    found = essential_step(tasks, origin=(0.5, 0.5))
    cosine, sine = math.cos(angle), math.sin(angle)
    assert found.plain_kept == pytest.approx((1 + cosine, 1 + cosine))
    assert found.kept == pytest.approx(((1 + cosine + sine) / 2,) * 2)
    assert found.plain == pytest.approx((2.5 + 2 * cosine, 0.5 + 2 * sine))


# What can be wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("centre", "angle", "axes", "words"),
    [
        ((float("nan"), 0), 0, (1, 1), "five finite numbers"),
        ((0, 0), float("inf"), (1, 1), "five finite numbers"),
        ((0, 0, 0), 0, (1, 1), "five finite numbers"),
        ((0, 0), 0, (0, 1), "positive"),
        ((0, 0), 0, (1, -1), "positive"),
        ((0, 0), 0, (1e4, 1), "at most 1000 times"),
    ],
)
def test_an_impossible_ellipse_is_refused(centre, angle, axes, words):
    with pytest.raises(InputError, match=words):
        Task("a", centre, angle, axes)


def test_an_impossible_walk_is_refused():
    tasks = some_tasks(0)
    with pytest.raises(InputError, match="start"):
        walk(tasks, (float("nan"), 0))
    with pytest.raises(InputError, match="damping"):
        walk(tasks, (0, 0), damping=-1)
    with pytest.raises(InputError, match="iterations"):
        walk(tasks, (0, 0), iterations=-1)
    for call in (solutions, essential_step):
        with pytest.raises(InputError, match="at least one"):
            call([])
    with pytest.raises(InputError, match="at least one"):
        walk([], (0, 0))
