"""Every slider that reaches zero, at zero: what its help says, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mats_core.methods import METHODS, describe
from tests.layer_cases import Case, close, enough, random_case, value
from tests.methods.test_by_name import crumbs, karcher, sce, thinned
from tests.methods.test_essential import OFF, POWERS, esm
from tests.methods.test_kfac import solved
from tests.methods.test_kfac_matching import kron, updates
from tests.methods.test_tsv_m import iso_cts, numpy_updates

Oracle = Callable[[Case], Any]
ITERATED = {"iterations": 1000, "tolerance": 0.0, "damping": 0.3, "normalise": False}
UNDAMPED = {**ITERATED, "damping": 0.0}
FITTED = {"curvature": "identity", "off_diagonal": 0.5}
ITERATED_IN_PLACE = {"curvature": "measured", "iterations": 1000, "tolerance": 0.0, "damping": 0.2}
SHARE = 0.1  # H_0 of gradient matching, as a share of the mean diagonal


def base(case: Case) -> Any:
    return case.layer.base.numpy()


def first(case: Case) -> Any:
    return case.layer.experts[0].numpy()


def mean(case: Case, *shares: float) -> Any:
    shares = shares or (1 / 3,) * 3
    return sum(a * w.numpy() for a, w in zip(shares, case.layer.experts, strict=False))


def arithmetic(case: Case) -> Any:
    return base(case) + 0.3 * sum(numpy_updates(case.layer))


def weighed(case: Case, values: Any) -> Any:
    """`Σ F_m ∘ W_m / Σ F_m`."""
    each = [f.numpy() for f in values]
    above = sum(f * w.numpy() for f, w in zip(each, case.layer.experts, strict=True))
    return above / sum(each)


def regmean(case: Case, off_diagonal: float, damping: float) -> Any:
    grams = [_formed(a.numpy(), off_diagonal, damping) for a in case.grams]
    above = sum(w.numpy() @ a for w, a in zip(case.layer.experts, grams, strict=True))
    return above @ np.linalg.inv(sum(grams))


def _formed(gram: Any, off_diagonal: float, damping: float) -> Any:
    gram = off_diagonal * gram + (1 - off_diagonal) * np.diag(np.diag(gram))
    return gram + damping * np.trace(gram) / len(gram) * np.eye(len(gram))


def matched(case: Case, damping: float) -> Any:
    """K-FAC gradient matching as a dense system."""
    grams = zip(case.output_grams, case.grams, strict=True)
    hs = [np.kron(_formed(b.numpy(), 1, damping), _formed(a.numpy(), 1, damping)) for b, a in grams]
    assert damping or np.allclose(hs[0], kron(case, 0))
    prior = SHARE * np.trace(sum(hs)) / len(hs[0]) * np.eye(len(hs[0]))
    right = sum((prior + h) @ d for h, d in zip(hs, updates(case), strict=True))
    found = np.linalg.solve(prior + sum(hs), right)
    return base(case) + found.reshape(base(case).shape)


def fitted(case: Case, off_diagonal: float, damping: float) -> Any:
    """Least squares on each task's inputs, of trace one."""
    grams = [_formed(a.numpy() / np.trace(a.numpy()), off_diagonal, damping) for a in case.grams]
    above = sum(w.numpy() @ a for w, a in zip(case.layer.experts, grams, strict=True))
    return above @ np.linalg.inv(sum(grams))


def placed(case: Case) -> Any:
    """The system of both streams alike, with curvature, by its dense matrix."""
    pairs = zip(case.output_grams, case.grams, strict=True)
    formed = [[_formed(c.numpy() / np.trace(c.numpy()), 1, 0.2) for c in pair] for pair in pairs]
    left = np.sum([np.kron(b, a) for b, a in formed], axis=0)
    each = zip(formed, case.layer.experts, strict=True)
    right = np.sum([b @ w.numpy() @ a for (b, a), w in each], axis=0)
    return np.linalg.solve(left, right.reshape(-1)).reshape(right.shape)


def essential(**changed: float) -> Oracle:
    return lambda case: base(case) + esm(case, **{**POWERS, **changed})


# (method, option) → the other options of the merge, and what it is with that option at zero.
AT_ZERO: dict[tuple[str, str], tuple[dict[str, Any], Oracle]] = {
    ("slerp", "t"): ({}, first),
    ("slerp", "parallel"): ({"t": 0.3}, lambda case: mean(case, 0.7, 0.3)),
    ("task_arithmetic", "scaling"): ({}, base),
    ("ties", "scaling"): ({}, base),
    ("dare", "drop"): ({"scaling": 0.3}, arithmetic),
    ("dare", "scaling"): ({"drop": 0.5}, base),
    ("karcher", "iterations"): ({}, lambda case: karcher(case, 0)),
    ("karcher", "tolerance"): ({"iterations": 60}, lambda case: karcher(case, 60)),
    ("della", "density"): ({}, base),
    ("della", "epsilon"): (
        {"density": 0.5, "elect": False, "normalise": False, "rescale": "none", "scaling": 1.0},
        lambda case: thinned(case, 0.5),
    ),
    ("della", "scaling"): ({}, base),
    ("breadcrumbs", "gamma"): (
        {"density": 0.6, "scaling": 0.7}, lambda case: crumbs(case, 0.6, 0.0, 0.7),
    ),
    ("breadcrumbs", "scaling"): ({}, base),
    ("consensus", "threshold"): ({"scaling": 0.3}, arithmetic),
    ("consensus", "tasks"): ({"scaling": 0.3, "threshold": 2.0}, arithmetic),
    ("consensus", "scaling"): ({}, base),
    ("sce", "select"): ({}, base),
    ("sce", "floor"): ({"select": 0.6}, lambda case: sce(case, 0.6)),
    ("fisher", "floor"): ({"normalise": False}, lambda case: weighed(case, case.fishers)),
    ("regmean", "off_diagonal"): ({"damping": 0.2}, lambda case: regmean(case, 0.0, 0.2)),
    ("regmean", "damping"): ({"off_diagonal": 0.5}, lambda case: regmean(case, 0.5, 0.0)),
    ("regmean", "iterations"): ({}, lambda case: base(case) + sum(numpy_updates(case.layer))),
    ("kfac", "iterations"): (ITERATED, mean),
    ("kfac", "tolerance"): (ITERATED, lambda case: solved(case, damping=0.3)),
    ("kfac", "off_diagonal"): (ITERATED, lambda c: solved(c, damping=0.3, off_diagonal=0.0)),
    ("kfac", "damping"): (ITERATED, solved),
    ("kfac", "anchor"): (ITERATED, lambda case: solved(case, damping=0.3)),
    ("tsv_m", "scaling"): ({}, base),
    ("dc_merge", "scaling"): ({}, base),
    ("iso_c", "scaling"): ({}, base),
    ("iso_cts", "scaling"): ({}, base),
    ("iso_cts", "common"): (
        {"scaling": 1.0}, lambda case: base(case) + iso_cts(numpy_updates(case.layer), 0.0),
    ),
    ("essential", "scaling"): ({}, base),
    ("essential", "task_power"): ({**POWERS, "scaling": 1.0}, essential(task_power=0.0)),
    ("essential", "dimension_power"): ({**POWERS, "scaling": 1.0}, essential(dimension_power=0.0)),
    # Level 3 compares layers: alone in a model a layer weighs 1 whatever the power.
    ("essential", "layer_power"): ({**OFF, "scaling": 1.0}, essential(**OFF)),
    ("essential", "eigenvalue_power"): (
        {**POWERS, "scaling": 1.0}, essential(eigenvalue_power=0.0),
    ),
    ("gradient_matching", "scaling"): ({"prior": 0.5}, base),
    ("kfac_matching", "scaling"): ({"prior": SHARE, **ITERATED}, base),
    ("kfac_matching", "damping"): ({"prior": SHARE, **ITERATED}, lambda c: matched(c, 0.0)),
    ("kfac_matching", "iterations"): ({"prior": SHARE, **ITERATED}, mean),
    ("sequential", "damping"): (FITTED, lambda case: fitted(case, 0.5, 0.0)),
    ("sequential", "off_diagonal"): (
        FITTED | {"damping": 0.2}, lambda case: fitted(case, 0.0, 0.2),
    ),
    ("sequential", "update_share"): (FITTED | {"damping": 0.2}, lambda c: fitted(c, 0.5, 0.2)),
    ("sequential", "iterations"): ({"curvature": "measured"}, mean),
    ("sequential", "tolerance"): (ITERATED_IN_PLACE, placed),
    ("kfac_matching", "tolerance"): ({"prior": SHARE, **ITERATED}, lambda c: matched(c, 0.3)),
}  # fmt: skip
# Zero is a seed like any other; TIES keeps something, and so do Grams of updates.
NEVER = {("dare", "seed"), ("della", "seed")}
NEVER |= {(name, "density") for name in ("ties", "breadcrumbs", "dc_merge")}
NEVER |= {("sequential", "expert_inputs")}  # two streams that differ: `test_sequential`
NEVER |= {("regmean", "gram_share"), ("kfac", "gram_power"), ("kfac_matching", "gram_power")}
NEVER |= {("sequential", "augment_to")}  # of inputs, not of a layer: `test_calibration_inputs`
NEVER |= {(name, "prior") for name in ("gradient_matching", "kfac_matching")}  # above zero
NEVER |= {(name, "error") for name in ("kfac", "kfac_matching", "sequential")}  # likewise


def test_the_table_holds_every_slider_that_reaches_zero():
    reach = {
        (name, option.name)
        for name in METHODS
        for option in describe(name)
        if option.kind in ("int", "float") or option.numeric
        if option.low is None or option.low <= 0
    }
    assert set(AT_ZERO) == reach - NEVER
    with pytest.raises(ValueError, match="density"):
        METHODS["ties"].options.model_validate({"density": 0})


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(("method", "option"), AT_ZERO)
def test_a_slider_at_zero_gives_what_its_help_says(method, option, seed):
    beside, oracle = AT_ZERO[method, option]
    case = random_case(seed, d_in=6)  # a rank that three tasks divide
    found = value(enough(case.layer, method), method, **{**beside, option: 0})
    close(found, oracle(case), 1e-7)


@pytest.mark.parametrize(("method", "option"), [k for k in AT_ZERO if k[1] != "layer_power"])
def test_away_from_zero_it_is_another_merge(method, option):
    """So that no row of the table holds whatever the option is."""
    beside, oracle = AT_ZERO[method, option]
    case = random_case(0, d_in=6)
    most = {
        "tolerance": 0.9, "iterations": 3, "parallel": 0.99999, "epsilon": 0.5, "tasks": 2,
    }.get(option, 0.7)  # fmt: skip
    found = value(enough(case.layer, method), method, **{**beside, option: most})
    with pytest.raises(AssertionError, match="relative error"):
        close(found, oracle(case), 1e-7)
