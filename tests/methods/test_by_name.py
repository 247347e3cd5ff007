"""The methods that the field knows by name, by oracles in float64 numpy and by identities."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from mats_core.errors import InputError
from mats_core.methods.breadcrumbs import BreadcrumbsOptions, magnitudes
from mats_core.methods.dare import drawn
from mats_core.methods.dc_merge import smoothed
from mats_core.methods.della import kept_share
from mats_core.methods.sce import SceOptions, surveyed
from tests.layer_cases import SEEDS, Case, close, merged, random_case, value
from tests.methods.test_tsv_m import numpy_updates, procrustes

WEIGHTS = (1.0, 2.5, 0.5)


def base(case: Case) -> Any:
    return case.layer.base.numpy()


def flat(case: Case) -> list[Any]:
    return [update.reshape(-1) for update in numpy_updates(case.layer)]


def put_together(left: list[Any], weights: Any, elect: bool, normalise: bool) -> Any:
    """Signs and sums entry by entry, in plain loops."""
    found = np.zeros(len(left[0]))
    for place in range(len(found)):
        terms = [(w * row[place], w) for w, row in zip(weights, left, strict=True)]
        if elect:
            total = sum(term for term, _ in terms)
            terms = [(term, w) for term, w in terms if term * total > 0]
        found[place] = sum(term for term, _ in terms)
        if normalise and terms:
            found[place] /= sum(w for _, w in terms)
    return found


# Karcher mean -------------------------------------------------------------------------------------


def karcher(case: Case, steps: int) -> Any:
    """The mean on the sphere by its definition, on whole vectors."""
    vectors = [w.numpy().reshape(-1) for w in case.layer.experts]
    shares = np.array(case.layer.weights) / sum(case.layer.weights)
    lengths = np.array([np.linalg.norm(v) for v in vectors])
    units = [v / size for v, size in zip(vectors, lengths, strict=True)]
    mean = sum(a * u for a, u in zip(shares, units, strict=True))
    mean = mean / np.linalg.norm(mean)
    for _ in range(steps):
        step = np.zeros_like(mean)
        for share, unit in zip(shares, units, strict=True):
            across = unit - (unit @ mean) * mean
            angle = np.arctan2(np.linalg.norm(across), unit @ mean)
            step += share * angle * across / np.linalg.norm(across)
        way = np.linalg.norm(step)
        if way > 1e-15:
            mean = np.cos(way) * mean + np.sin(way) * step / way
    return (float(shares @ lengths) * mean).reshape(base(case).shape)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("steps", [0, 1, 3, 40])
def test_karcher(seed, steps):
    case = random_case(seed).with_weights(*WEIGHTS)
    found = value(case.layer, "karcher", iterations=steps, tolerance=0.0)
    close(found, karcher(case, steps), 1e-9)


def test_the_karcher_mean_sums_the_squared_arcs_to_the_least():
    case = random_case(5).with_weights(*WEIGHTS)
    experts = [w.numpy().reshape(-1) for w in case.layer.experts]

    def cost(point: Any) -> float:
        cosines = [w @ point / np.linalg.norm(w) / np.linalg.norm(point) for w in experts]
        return sum(a * np.arccos(c) ** 2 for a, c in zip(WEIGHTS, cosines, strict=True))

    best = value(case.layer, "karcher", iterations=100, tolerance=0.0).numpy().reshape(-1)
    random = np.random.default_rng(0)
    for _ in range(20):
        assert cost(best) < cost(best + 1e-3 * random.standard_normal(len(best)))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_equal_experts_of_one_length_meet_where_slerp_has_its_middle(seed):
    layer = random_case(seed, experts=2).layer
    first, second = layer.experts
    layer = replace(layer, experts=(first, second * first.norm() / second.norm()))
    close(value(layer, "karcher"), value(layer, "slerp"))


def test_a_tensor_of_zeros_has_no_direction_but_a_length():
    layer = random_case(1).layer
    none = torch.zeros_like(layer.base)
    found = value(replace(layer, experts=(layer.experts[0], none, none)), "karcher")
    close(found, layer.experts[0] / 3)
    assert not value(replace(layer, experts=(none,) * 3), "karcher").any()


def test_directions_that_cancel_have_no_mean_but_the_linear_one():
    layer = random_case(1, experts=2).layer
    found = merged(replace(layer, experts=(layer.base, -3 * layer.base)), "karcher")
    close(found.value, -layer.base)
    assert (found.method, found.status) == ("mean", "directions that cancel")
    with pytest.raises(InputError, match=r"none below zero.*task_arithmetic"):
        value(replace(layer, weights=(2.0, -1.0)), "karcher")


def test_a_step_below_the_tolerance_is_the_last():
    layer = random_case(2).layer
    assert merged(layer, "karcher", iterations=500).status != "500 steps"
    assert merged(layer, "karcher", tolerance=1.0).status == "0 steps"


# Model stock --------------------------------------------------------------------------------------


def ratio(updates: list[Any]) -> float:
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in combinations(updates, 2)]
    cosine, count = float(np.mean(cosines)), len(updates)
    return count * cosine / (1 + (count - 1) * cosine)


def alike(case: Case) -> Case:
    """With task vectors that have something in common."""
    layer = case.layer
    shared = random_case(77).layer.base
    return replace(case, layer=replace(layer, experts=tuple(w + shared for w in layer.experts)))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("experts", [2, 3, 4])
def test_model_stock(seed, experts):
    case = alike(random_case(seed, experts=experts))
    mean = sum(flat(case)) / experts
    expected = base(case) + ratio(flat(case)) * mean.reshape(base(case).shape)
    close(value(case.layer, "model_stock"), expected)
    rows = [
        row + ratio([update[i] for update in numpy_updates(case.layer)])
        * np.mean([update[i] for update in numpy_updates(case.layer)], axis=0)
        for i, row in enumerate(base(case))
    ]  # fmt: skip
    close(value(case.layer, "model_stock", by_row=True), np.array(rows))


def test_the_ends_of_model_stock():
    layer = random_case(3, experts=2).layer
    across = torch.zeros_like(layer.base), torch.zeros_like(layer.base)
    across[0][0], across[1][1] = 1.0, 2.0
    apart = replace(layer, experts=tuple(layer.base + own for own in across))
    close(value(apart, "model_stock"), layer.base)  # right angles: the base
    opposite = replace(layer, experts=(layer.base + across[0], layer.base - across[0]))
    close(value(opposite, "model_stock"), layer.base)  # where the formula has no value
    alone = replace(layer, experts=layer.experts[:1], weights=(1.0,), labels=("a",))
    close(value(alone, "model_stock"), layer.experts[0])
    close(value(replace(layer, experts=(layer.base,) * 2), "model_stock"), layer.base)


# Breadcrumbs --------------------------------------------------------------------------------------


def crumbs(
    case: Case, density: float, gamma: float, scaling: float,
    elect: bool = False, normalise: bool = False,
) -> Any:  # fmt: skip
    """By sorting."""
    left = []
    for update in flat(case):
        order = np.argsort(-np.abs(update))
        kept = int(density * len(update))
        first = min(int(gamma * len(update)), len(update) - kept)
        thinned = np.zeros_like(update)
        thinned[order[first : first + kept]] = update[order[first : first + kept]]
        left.append(thinned)
    found = put_together(left, case.layer.weights, elect, normalise)
    return base(case) + scaling * found.reshape(base(case).shape)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("density", "gamma"), [(0.5, 0.1), (0.9, 0.2), (1.0, 0.3), (0.03, 0.0)])
@pytest.mark.parametrize(("elect", "normalise"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_breadcrumbs(seed, density, gamma, elect, normalise):
    case = random_case(seed).with_weights(*WEIGHTS)
    said = {"elect": bool(elect), "normalise": bool(normalise)}
    found = value(case.layer, "breadcrumbs", density=density, gamma=gamma, scaling=0.7, **said)
    close(found, crumbs(case, density, gamma, 0.7, **said))


def test_the_magnitudes_of_pieces_are_those_of_the_tensor():
    layer = random_case(4, d_out=12, d_in=11).layer
    options = BreadcrumbsOptions(density=0.4, gamma=0.2)
    whole = magnitudes(lambda: [layer], options)
    base, *experts = (one.reshape(-1).split(17) for one in (layer.base, *layer.experts))
    pieces = [
        replace(layer, base=ours, experts=tuple(theirs), offset=17 * turn)
        for turn, (ours, *theirs) in enumerate(zip(base, *experts, strict=True))
    ]
    assert magnitudes(lambda: pieces, options) == whole
    chosen = SceOptions(select=0.3)
    assert surveyed(lambda: pieces, chosen) == pytest.approx(surveyed(lambda: [layer], chosen))


# DELLA --------------------------------------------------------------------------------------------


def thinned(case: Case, density: float) -> Any:
    """The sum of what is left where every entry is kept with one probability."""
    found = base(case)
    for update, label in zip(numpy_updates(case.layer), case.layer.labels, strict=True):
        found = found + update * (drawn(update.shape, 0, case.layer.name, label).numpy() < density)
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rescale", ["l1", "probability", "none"])
@pytest.mark.parametrize(("elect", "normalise"), [(True, True), (True, False), (False, False)])
def test_della(seed, rescale, elect, normalise):
    case = random_case(seed).with_weights(*WEIGHTS)
    density, epsilon, left = 0.6, 0.3, []
    for update, label in zip(numpy_updates(case.layer), case.layer.labels, strict=True):
        rows, columns = update.shape
        uniform = drawn((rows, columns), 9, case.layer.name, label).numpy()
        thinned = np.zeros_like(update)
        for i in range(rows):
            for j in range(columns):
                below = sum(abs(update[i, k]) < abs(update[i, j]) for k in range(columns))
                share = density - epsilon + 2 * epsilon * below / (columns - 1)
                if uniform[i, j] < share:
                    thinned[i, j] = update[i, j] / (share if rescale == "probability" else 1)
        if rescale == "l1":
            thinned *= np.abs(update).sum() / np.abs(thinned).sum()
        left.append(thinned.reshape(-1))
    found = put_together(left, WEIGHTS, elect, normalise)
    expected = base(case) + 0.8 * found.reshape(base(case).shape)
    said = {"elect": elect, "normalise": normalise, "rescale": rescale, "seed": 9}
    got = value(case.layer, "della", density=density, epsilon=epsilon, scaling=0.8, **said)
    close(got, expected, 1e-6)  # probabilities are float32


def test_what_is_kept_is_as_much_as_said_and_more_of_the_large():
    update = random_case(0, d_out=200, d_in=100).layer.base
    share = kept_share(update, 0.4, 0.2)
    assert float(share.mean()) == pytest.approx(0.4, abs=1e-6)
    assert float(share.min()) == pytest.approx(0.2)
    assert float(share.max()) == pytest.approx(0.6)
    row = share[3][update[3].abs().argsort()]
    assert torch.equal(row, row.sort().values)
    vector = kept_share(update[:, 0], 0.4, 0.2)  # a vector is one row
    assert float(vector.min()) == pytest.approx(0.2)
    # The window is no wider than there is room for.
    assert float(kept_share(update, 0.9, 0.4).max()) == pytest.approx(1.0)
    assert torch.equal(kept_share(update, 1.0, 0.4), torch.ones_like(share))
    assert torch.equal(kept_share(update[:, :1], 0.3, 0.1), torch.full((200, 1), 0.3))


# SCE ----------------------------------------------------------------------------------------------


def sce(case: Case, select: float, floor: float = 0.0) -> Any:
    updates = np.stack(flat(case))
    variance = ((updates - updates.mean(0)) ** 2).mean(0)
    kept = int(select * (variance > 0).sum())
    chosen = np.zeros(len(variance), dtype=bool)
    chosen[np.argsort(-variance)[:kept]] = True
    updates = updates * chosen
    squares = (updates**2).mean(1)
    even = squares.sum() < floor or not squares.any()
    shares = np.full(3, 1 / 3) if even else squares / squares.sum()
    found = np.zeros(len(variance))
    for place in range(len(found)):
        total = updates[:, place].sum()
        agree = updates[:, place] * total > 0
        if agree.any():
            found[place] = updates[agree, place] @ shares[agree] / shares[agree].sum()
    return base(case) + found.reshape(base(case).shape)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("select", [1.0, 0.5, 0.1, 0.01])
@pytest.mark.parametrize("floor", [0.0, 1.0])
def test_sce(seed, select, floor):
    case = random_case(seed)
    close(value(case.layer, "sce", select=select, floor=floor), sce(case, select, floor))


def test_experts_that_agree_in_everything_vary_in_nothing():
    layer = random_case(2).layer
    same = replace(layer, experts=layer.experts[:1] * 3)
    close(value(same, "sce"), layer.experts[0])
    close(value(same, "sce", select=0.9), layer.base)


# Consensus ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 9])
def test_consensus(seed, tasks):
    case = random_case(seed).with_weights(1.0, 2.0, -0.5)
    own = np.stack([w * u for w, u in zip((1.0, 2.0, -0.5), flat(case), strict=True)])
    masks = np.abs(own) >= 0.6 * np.abs(own.sum(0) - own)
    kept = own.sum(0) * (masks.sum(0) >= min(tasks, 3))
    expected = base(case) + 0.4 * kept.reshape(base(case).shape)
    close(value(case.layer, "consensus", threshold=0.6, tasks=tasks, scaling=0.4), expected)


def test_one_expert_needs_all_of_itself():
    layer = random_case(1, experts=1).layer
    close(value(layer, "consensus", scaling=1.0), layer.experts[0])


# DC-Merge -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [None, 1.0, 1.4, 90.0])
def test_dc_merge(seed, density, smoothing):
    case = random_case(seed, d_out=9, d_in=8)
    updates = numpy_updates(case.layer)
    rank = 8 // 3
    svds = [np.linalg.svd(update, full_matrices=False) for update in updates]
    if smoothing is not None:
        svds = [(u, on_a_line(s[:rank], smoothing), v) for u, s, v in svds]
    p = procrustes(np.hstack([u[:, :rank] for u, _, _ in svds]))
    q = procrustes(np.vstack([v[:rank] for _, _, v in svds])).T
    inside = []
    for u, s, v in svds:
        matrix = p.T @ (u[:, :rank] * s[:rank]) @ v[:rank] @ q
        order = np.argsort(-np.abs(matrix), axis=None)
        kept = np.zeros(matrix.size)
        most = order[: max(1, int(density * matrix.size))]
        kept[most] = matrix.reshape(-1)[most]
        inside.append(kept)
    met = put_together(inside, np.ones(3), True, True).reshape(3 * rank, 3 * rank)
    blocks = np.kron(np.eye(3), np.ones((rank, rank)))
    expected = base(case) + 1.3 * p @ (met * blocks) @ q.T
    options = {"density": density, "scaling": 1.3, "smoothing": smoothing}
    close(value(case.layer, "dc_merge", **options), expected)


def on_a_line(values: np.ndarray, steepest: float) -> np.ndarray:
    line = np.linspace(min(steepest, values[0] / values[-1]), 1, len(values))
    return values.sum() * line / line.sum()


def test_smoothing_keeps_the_sum_and_never_steepens():
    values = torch.tensor([8.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    close(smoothed(values, 1.0), torch.full((4,), 3.5, dtype=torch.float64))
    line = torch.tensor([5.0, 11 / 3, 7 / 3, 1.0], dtype=torch.float64)
    close(smoothed(values, 5.0), 14 * line / 12)
    close(smoothed(values, 100.0), smoothed(values, 8.0))
    close(smoothed(values[:1], 5.0), values[:1])
    assert not smoothed(values[:0], 5.0).numel()


def test_dc_merge_of_one_task_is_that_task():
    layer = random_case(6, experts=1).layer
    close(value(layer, "dc_merge", density=1.0), layer.experts[0])


def test_tasks_without_a_common_direction_keep_their_strongest():
    """Bases that need no turning: each task's block is what it was."""
    layer = random_case(7, d_out=6, d_in=6).layer
    updates = [torch.zeros(6, 6, dtype=torch.float64) for _ in range(3)]
    for task, update in enumerate(updates):
        update[2 * task, 2 * task], update[2 * task + 1, 2 * task + 1] = 3.0, -2.0
    layer = replace(layer, experts=tuple(layer.base + own for own in updates))
    close(value(layer, "dc_merge", density=1.0), layer.base + sum(updates))


def test_experts_that_changed_nothing_are_the_base():
    layer = random_case(7).layer
    layer = replace(layer, experts=(layer.base,) * 3)
    close(value(layer, "dc_merge"), layer.base)
