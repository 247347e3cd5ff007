"""A layer of sequential calibration: its equation on the tokens of both streams, in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mats_core.linear import matrix
from mats_core.methods import LayerStatistics
from tests.layer_cases import SEEDS, close, merged, random_case, value

SOLVED = {"iterations": 2000, "tolerance": 0.0, "damping": 0.0}
FIT = {**SOLVED, "curvature": "identity"}


def streams(seed, *, experts=3, tokens=60, apart=1.0, d_out=6):
    """A case, and each task's tokens (x_s, x_e, r_e − r_s), measured into the layer."""
    case = random_case(seed, experts=experts, tokens=tokens, d_out=d_out)
    random = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    seen = [
        (x + apart * 0.3 * noise(*x.shape), x, apart * noise(len(x), d_out)) for x in case.inputs
    ]
    statistics = tuple(
        LayerStatistics(
            input_gram=x_s.T @ x_s / len(x_s), cross_gram=x_e.T @ x_s / len(x_s),
            lost=lost.T @ x_s / len(x_s), output_gradient_gram=b,
        )
        for (x_s, x_e, lost), b in zip(seen, case.output_grams, strict=True)
    )  # fmt: skip
    return replace(case.layer, statistics=statistics), [[v.numpy() for v in s] for s in seen]


def targets(layer, seen, share=1.0, residual=True):
    """y of every token."""
    return [
        (share * x_e + (1 - share) * x_s) @ w.numpy().T + residual * lost
        for (x_s, x_e, lost), w in zip(seen, layer.experts, strict=True)
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("share", "residual"), [(1.0, True), (0.3, True), (0.0, False)])
def test_without_curvature_it_is_least_squares_on_the_tokens(seed, share, residual):
    layer, seen = streams(seed)
    ys = targets(layer, seen, share, residual)
    # Each task by the root of its trace, as its Gram is divided by it.
    roots = [np.sqrt((x**2).sum()) for x, _, _ in seen]
    x = np.vstack([s[0] / root for s, root in zip(seen, roots, strict=True)])
    y = np.vstack([y / root for y, root in zip(ys, roots, strict=True)])
    expected = np.linalg.lstsq(x, y, rcond=None)[0].T
    found = value(layer, "sequential", **FIT, expert_inputs=share, residual=residual)
    close(found, expected, 1e-8)


def measured_of(own):
    assert own.output_gradient_gram is not None
    return matrix(own.output_gradient_gram)


@pytest.mark.parametrize("curvature", ["measured", "update", "answers"])
def test_with_curvature_the_gradient_of_the_objective_vanishes(curvature):
    """Σ_t tr(B_t E[(W x_s − y)(W x_s − y)ᵀ]) by the traces, differentiated by autograd."""
    layer, seen = streams(3)
    found = value(layer, "sequential", **SOLVED, curvature=curvature)
    w = found.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    size = torch.zeros((), dtype=torch.float64)
    for (x_s, _, _), y, own, update in zip(
        seen, targets(layer, seen), layer.statistics, layer.updates, strict=True
    ):
        b = update @ update.T
        if curvature == "measured":
            b = measured_of(own)
        if curvature == "answers":
            b = b / b.diagonal().sum() + measured_of(own) / measured_of(own).diagonal().sum()
        error = torch.from_numpy(x_s) @ w.T - torch.from_numpy(y)
        scale = float((x_s**2).sum()) * b.diagonal().sum()
        total = total + ((error @ b) * error).sum() / scale
        size = size + float((np.abs(y) ** 2).sum()) / float((x_s**2).sum())
    (gradient,) = torch.autograd.grad(total, w)
    assert float(gradient.norm()) < 1e-7 * float(size)


def test_a_target_that_is_measured_at_once_is_the_same():
    layer, seen = streams(12)
    at_once = [
        replace(own, cross_gram=None, lost=None, target=torch.from_numpy(y.T @ s[0] / len(y)))
        for own, y, s in zip(layer.statistics, targets(layer, seen), seen, strict=True)
    ]
    other = merged(replace(layer, statistics=tuple(at_once)), "sequential", damping=0.03)
    one = merged(layer, "sequential", damping=0.03)
    close(other.value, one.value, 1e-9)
    assert other.status == one.status


def test_more_outputs_than_inputs_give_the_solution_of_the_whole_system():
    """B = Δ Δᵀ of rank 5 among 14, damped, is never formed; here it is."""
    layer, seen = streams(13, d_out=14)
    delta = 0.05
    system, right = np.zeros((70, 70)), np.zeros(70)
    for (x, _, _), y, own, expert in zip(
        seen, targets(layer, seen), layer.updates, layer.experts, strict=True
    ):
        b = own.numpy() @ own.numpy().T
        b = b / np.trace(b) + delta / 14 * np.eye(14)
        a, c = x.T @ x / (x**2).sum(), y.T @ x / (x**2).sum()
        damped, c = a + delta / 5 * np.eye(5), c + delta / 5 * expert.numpy()
        system += np.kron(b, damped)
        right += (b @ c).reshape(-1)
    expected = np.linalg.solve(system, right).reshape(14, 5)
    close(value(layer, "sequential", **{**SOLVED, "damping": delta}), expected, 1e-8)


@pytest.mark.parametrize("curvature", ["measured", "update", "answers", "identity"])
def test_one_task_on_the_merges_inputs_gives_its_expert(curvature):
    layer, _ = streams(4, experts=1)
    options = {**SOLVED, "curvature": curvature, "expert_inputs": 0.0, "residual": False}
    close(value(layer, "sequential", **options), layer.experts[0], 1e-7)


@pytest.mark.parametrize("curvature", ["measured", "identity"])
def test_equal_experts_on_equal_streams_give_the_expert(curvature):
    layer, _ = streams(5, apart=0.0)
    same = replace(layer, experts=(layer.experts[0],) * 3)
    found = value(same, "sequential", curvature=curvature, damping=0.1)
    close(found, layer.experts[0], 1e-7)


def test_the_order_of_tasks_makes_no_difference():
    layer, _ = streams(6)
    turned = replace(
        layer, experts=layer.experts[::-1], statistics=layer.statistics[::-1],
        labels=layer.labels[::-1],
    )  # fmt: skip
    options = {"iterations": 500, "tolerance": 0.0, "curvature": "measured"}
    one, other = (value(each, "sequential", **options) for each in (layer, turned))
    close(one, other, 1e-9)


def test_equal_streams_without_curvature_are_regmean_by_the_traces():
    case = random_case(7)
    found = value(case.layer, "sequential", curvature="identity", damping=0.05)
    close(found, value(case.layer, "regmean", normalise=True, damping=0.05), 1e-9)


def test_equal_streams_with_curvature_are_kfac():
    case = random_case(8)
    options = {"iterations": 1000, "tolerance": 0.0, "damping": 0.05}
    found = value(case.layer, "sequential", curvature="measured", **options)
    close(found, value(case.layer, "kfac", **options), 1e-8)


def test_regmean_plus_plus_is_a_special_case():
    layer, seen = streams(9)
    grams = [x.T @ x / (x**2).sum() for x, _, _ in seen]
    scaled = [0.9 * g + 0.1 * np.diag(np.diag(g)) for g in grams]
    above = sum(w.numpy() @ g for w, g in zip(layer.experts, scaled, strict=True))
    options = {**FIT, "expert_inputs": 0.0, "residual": False, "off_diagonal": 0.9}
    close(value(layer, "sequential", **options), above @ np.linalg.inv(sum(scaled)), 1e-8)


def test_a_share_of_the_updates_gram_is_that_of_further_tokens():
    """The rows of each update are tokens that both streams have alike."""
    layer, seen = streams(12)
    share, xs, ys = 0.6, [], []
    for (x_s, _, _), y, w, update in zip(
        seen, targets(layer, seen), layer.experts, layer.updates, strict=True
    ):
        rows = update.numpy()
        for x, out, part in ((x_s, y, 1 - share), (rows, rows @ w.numpy().T, share)):
            root = np.sqrt(part / (x**2).sum())
            xs.append(x * root)
            ys.append(out * root)
    expected = np.linalg.lstsq(np.vstack(xs), np.vstack(ys), rcond=None)[0].T
    close(value(layer, "sequential", **FIT, update_share=share), expected, 1e-8)


@pytest.mark.parametrize(
    ("examples", "share"),
    [(None, 0.0), (256, 0.0), (5000, 0.0), (8, 0.8), (2, 0.8), (32, 0.8 * 3 / 5), (128, 0.8 / 5),
     (0, 0.9)],
)  # fmt: skip
def test_by_itself_the_share_goes_by_how_many_and_how_foreign_the_inputs_are(examples, share):
    layer, _ = streams(13)
    told = [replace(own, examples=examples) for own in layer.statistics]
    known = replace(layer, statistics=tuple(told))
    found = merged(known, "sequential", **FIT)
    close(found.value, value(layer, "sequential", **FIT, update_share=share), 1e-10)
    assert (f"w {share:.2g}" in found.status) == (share > 0)
    fixed = value(known, "sequential", **FIT, update_share=0.5)  # a number is taken as it is
    close(fixed, value(layer, "sequential", **FIT, update_share=0.5), 1e-10)


def test_each_expert_has_its_share_and_the_report_says_from_which_to_which():
    layer, _ = streams(14)
    own = layer.statistics
    told = (replace(own[0], examples=8), replace(own[1], examples=300), own[2])
    assert "w 0 to 0.8" in merged(replace(layer, statistics=told), "sequential").status


def test_damping_draws_towards_the_expert():
    layer, _ = streams(10, experts=1)
    far = [
        float((value(layer, "sequential", damping=d) - layer.experts[0]).norm())
        for d in (0.01, 1.0, 10.0)
    ]
    assert far[0] > far[1] > far[2]


def test_without_moments_a_layer_is_as_in_the_start():
    layer = replace(random_case(0).layer, statistics=())
    assert merged(layer, "sequential").method == "mean"
    assert merged(layer, "sequential", start="kfac").method == "kfac"
    given = replace(layer, starts=lambda name: layer.base)
    found = merged(given, "sequential", start="some/folder")
    assert found.method == "start"
    close(found.value, layer.base)


def test_the_report_says_whether_the_stream_is_corrected():
    layer, _ = streams(11)
    assert "residual stream corrected" in merged(layer, "sequential").status
    assert "residual" not in merged(layer, "sequential", residual=False).status
    assert "residual" not in merged(random_case(0).layer, "sequential").status
