"""Every option of every method does something, and zero does what its help says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import mats_core as mats
from mats_core.methods import METHODS, describe
from mats_core.names import is_weight
from tests.method_cases import BARE


@dataclass(frozen=True)
class Try:
    """A value of an option that changes the merge.

    value    to try
    beside   options that it needs to matter, on both sides of the comparison
    experts  how many are merged
    low      whether of updates that have a low rank, and a direction in common
    """

    value: Any
    beside: Mapping[str, Any] = field(default_factory=dict)
    experts: int = 3
    low: bool = False


GRAMS = {"gram": Try("update")}
POWERS = {"gram_power": Try(0.5, {"gram": "update"})}
SPACE = {"space": Try("knots", low=True)}
SOLVED = {"preconditioner": "none"}  # CG alone: where it starts and ends is seen
TRIES: dict[str, dict[str, Try]] = {
    "average": {},
    "slerp": {"t": Try(0.25, experts=2), "parallel": Try(0.0, {"t": 0.2}, experts=2)},
    "task_arithmetic": {"scaling": Try(-0.5)},
    "ties": {"density": Try(0.6), "scaling": Try(-0.5), "scope": Try("tensor"), **SPACE},
    "dare": {
        "drop": Try(0.5), "scaling": Try(-0.5), "seed": Try(5),
        "then": Try("ties", {"drop": 0.2}), **SPACE,
    },
    "karcher": {"iterations": Try(0), "tolerance": Try(1.0)},
    "della": {
        "density": Try(0.8), "epsilon": Try(0.0), "scaling": Try(-0.5), "seed": Try(5),
        "rescale": Try("probability"), "elect": Try(False), "normalise": Try(False), **SPACE,
    },
    "breadcrumbs": {
        "density": Try(0.5), "gamma": Try(0.05), "scaling": Try(-0.5), "elect": Try(True),
        "normalise": Try(True), **SPACE,
    },
    "consensus": {"threshold": Try(2.0), "tasks": Try(3), "scaling": Try(-0.5), **SPACE},
    "model_stock": {"by_row": Try(True)},
    "sce": {"select": Try(0.5), "floor": Try(1.0), **SPACE},
    "fisher": {"floor": Try(0.9), "normalise": Try(False)},
    "regmean": {
        "off_diagonal": Try(0.3), "damping": Try(0.5), "fold_bias": Try(True),
        "remaining": Try("fisher"), "normalise": Try(True), "iterations": Try(2), **GRAMS,
        "gram_share": Try(0.5, {"gram": "update"}),
    },
    "kfac": {
        "iterations": Try(1, SOLVED), "tolerance": Try(0.5, SOLVED), "off_diagonal": Try(0.3),
        "error": Try(0.5),
        "damping": Try(0.9), "anchor": Try(1.0), "start": Try("zero", {"iterations": 1}),
        "preconditioner": Try("jacobi", {"iterations": 1}), "normalise": Try(False),
        "fold_bias": Try(True), "rank": Try(2), "remaining": Try("block"), "svc": Try(0.3),
        **GRAMS, **POWERS,
    },
    "tsv_m": {"scaling": Try(-0.5), **SPACE},
    "dc_merge": {"scaling": Try(-0.5), "density": Try(0.5), "smoothing": Try(1.0), **SPACE},
    "iso_c": {"scaling": Try(-0.5), **SPACE},
    "iso_cts": {"scaling": Try(-0.5), "common": Try(0.2), **SPACE},
    "essential": {
        "scaling": Try(-0.5), "task_power": Try(0.0), "dimension_power": Try(0.0),
        "layer_power": Try(0.0), "eigenvalue_power": Try(0.0), "rank": Try(3),
        "centre": Try(True), "orthogonal": Try(False), **GRAMS,
    },
    "gradient_matching": {"scaling": Try(0.3), "prior": Try(0.5)},
    "kfac_matching": {
        "scaling": Try(0.3), "prior": Try("pretrained"), "damping": Try(0.9),
        "iterations": Try(1), "tolerance": Try(0.9), "error": Try(0.9), "normalise": Try(False),
        "remaining": Try("fisher"), "svc": Try(0.3), **GRAMS, **POWERS,
    },
}  # fmt: skip


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm = nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        return x + torch.relu(self.norm(self.fc1(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.out = nn.ModuleList([Block(), Block()]), nn.Linear(8, 3)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.out(x)


@pytest.fixture(scope="module")
def family():
    """(base, experts, statistics, those of the base) of a small network, measured."""
    torch.manual_seed(0)
    base, experts, measured = Net(), {}, {}

    def batches(seed):
        random = torch.Generator().manual_seed(seed)
        mixed = torch.randn(8, 8, generator=random)
        x = torch.randn(40, 8, generator=random) @ mixed + 0.5
        return [(x, torch.randint(0, 3, (40,), generator=random))]

    for number in range(3):
        one, random = Net(), torch.Generator().manual_seed(number)
        one.load_state_dict(base.state_dict())
        with torch.no_grad():
            for place, value in enumerate(one.parameters()):
                size = 0.1 * (1 + number) * (1 + place % 3)
                value.add_(size * torch.randn(value.shape, generator=random))
        experts[f"e{number}"] = one
        measured[f"e{number}"] = mats.measure(one, batches(number), blocks=8, progress=False)
    return base, experts, measured, mats.measure(base, batches(9), progress=False)


@pytest.fixture(scope="module")
def low(family):
    """The same family with experts whose matrices moved in two directions, one of them shared."""
    base, _, *measured = family
    experts, shared = {}, torch.randn(8, generator=torch.Generator().manual_seed(9))
    for number in range(3):
        one, random = Net(), torch.Generator().manual_seed(number)
        one.load_state_dict(base.state_dict())
        with torch.no_grad():
            for value in one.parameters():
                if value.ndim == 2:
                    left, right = shared[: len(value)], torch.randn(8, generator=random)
                    own = torch.randn(len(value), 8, generator=random)[:, :1] * right.flip(0)
                    value.add_(0.2 * (left[:, None] * right + own))
        experts[f"e{number}"] = one
    return base, experts, *measured


def merged(family, method, count=3, weights=None, names=None, **options):
    base, experts, measured, prior = family
    names = names or list(experts)[:count]
    given = {} if not METHODS[method].reads(METHODS[method].options(**options)) else {
        "statistics": {name: measured[name] for name in names},
        "base_statistics": prior if method.endswith("matching") else None,
    }  # fmt: skip
    chosen = {name: experts[name] for name in names}
    found = mats.merge_models(
        base, chosen, method, heads=[], device="cpu", dtype="float64", output_dtype="float64",
        weights=weights, progress=False, **given, **options,
    )  # fmt: skip
    return {name: value.clone() for name, value in found.state_dict().items()}


def apart(one, other):
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_the_table_holds_every_option():
    declared = {name: {option.name for option in describe(name)} for name in BARE}
    assert {name: set(tried) for name, tried in TRIES.items()} == declared


@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method, tried in TRIES.items() for name in tried]
)
def test_every_option_changes_the_merge(family, low, method, name):
    tried = TRIES[method][name]
    family = low if tried.low else family
    before = merged(family, method, tried.experts, **tried.beside)
    after = merged(family, method, tried.experts, **{**tried.beside, name: tried.value})
    assert apart(before, after) > 1e-6


# What zero does -----------------------------------------------------------------------------------


def matrices(tensors):
    return {name: v for name, v in tensors.items() if v.ndim == 2 and is_weight(name)}


ZEROS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    # a method with an option at its end, and what that is
    ("slerp", {"t": 0.0}, "e0", {}),
    ("slerp", {"t": 1.0}, "e1", {}),
    ("task_arithmetic", {"scaling": 0.0}, "base", {}),
    ("ties", {"scaling": 0.0}, "base", {}),
    ("dare", {"scaling": 0.0}, "base", {}),
    ("dare", {"drop": 0.0}, "task_arithmetic", {"scaling": 0.3}),
    ("della", {"scaling": 0.0}, "base", {}),
    ("della", {"density": 0.0}, "base", {}),
    ("breadcrumbs", {"scaling": 0.0}, "base", {}),
    ("breadcrumbs", {"density": 1.0, "scaling": 0.3}, "task_arithmetic", {"scaling": 0.3}),
    ("consensus", {"scaling": 0.0}, "base", {}),
    ("consensus", {"tasks": 0, "scaling": 0.3}, "task_arithmetic", {"scaling": 0.3}),
    ("dc_merge", {"scaling": 0.0}, "base", {}),
    ("kfac", {"iterations": 0, "start": "pretrained"}, "base", {}),
    ("kfac", {"iterations": 0}, "average", {}),
    ("tsv_m", {"scaling": 0.0}, "base", {}),
    ("iso_c", {"scaling": 0.0}, "base", {}),
    ("iso_cts", {"scaling": 0.0}, "base", {}),
    ("essential", {"scaling": 0.0}, "base", {}),
    ("gradient_matching", {"scaling": 0.0}, "base", {}),
    ("kfac_matching", {"scaling": 0.0}, "base", {}),
]


@pytest.mark.parametrize(("method", "options", "other", "more"), ZEROS)
def test_an_option_at_its_end_gives_what_its_help_says(family, method, options, other, more):
    base, experts, *_ = family
    count = METHODS[method].experts or 3
    found = merged(family, method, count, **options)
    if other in METHODS:
        wanted = merged(family, other, count, **more)
    else:
        model = base if other == "base" else experts[other]
        wanted = {name: value.double() for name, value in model.state_dict().items()}
    # Methods of matrices, and those with statistics of matrices, give the rest the mean.
    wanted = matrices(wanted)
    assert apart(wanted, found) < 1e-12


@pytest.mark.parametrize("name", ["task_power", "dimension_power", "layer_power"])
def test_a_level_of_polarized_scaling_that_is_off_weighs_all_alike(family, name):
    off: dict[str, Any] = {name: 0.0}
    base, experts, measured, _ = family
    report = mats.merge_models(
        base, experts, "essential", heads=[], statistics=measured, progress=False, **off
    ).report
    seen = {"task_power": "task_weights", "dimension_power": "dimension_weights"}.get(name)
    details = [layer.details for layer in report.layers if layer.method == "essential"]
    assert details
    for one in details:
        held = one.get(seen, ()) if seen else [v for k, v in one.items() if "factor" in k]
        assert all(value == 1.0 for value in held)


@pytest.mark.parametrize(
    "method", [name for name in BARE if METHODS[name].weighted and name != "ties"]
)
def test_a_weight_of_zero_leaves_an_expert_out(family, method):
    options: dict[str, Any] = {"drop": 0.0} if method == "dare" else {}
    without = merged(family, method, names=["e0", "e1"], **options)
    weighed = merged(family, method, weights={"e0": 1.0, "e1": 1.0, "e2": 0.0}, **options)
    assert apart(without, weighed) < (1e-2 if method.startswith("kfac") else 1e-12)


# What a sign does ---------------------------------------------------------------------------------


SIGNED = [name for name in BARE if not METHODS[name].normalises(METHODS[name].options())]


def test_minus_one_takes_a_task_vector_away(family):
    base, experts, *_ = family
    found = merged(family, "task_arithmetic", 1, weights={"e0": -1.0}, scaling=0.5)
    theirs = experts["e0"].state_dict()
    for name, value in base.state_dict().items():
        expected = value.double() - 0.5 * (theirs[name].double() - value.double())
        assert torch.allclose(found[name], expected, atol=1e-15)


@pytest.mark.parametrize("method", SIGNED)
def test_negating_weights_and_scaling_gives_back(family, method):
    scaling = 0.7
    plain = merged(family, method, scaling=scaling)
    names = ("e0", "e1", "e2")
    twice = merged(family, method, weights=dict.fromkeys(names, -1.0), scaling=-scaling)
    once = merged(family, method, weights=dict.fromkeys(names, -1.0), scaling=scaling)
    assert apart(plain, twice) < 1e-12
    base = family[0].state_dict()
    for name, value in once.items():  # the same way from the base, backwards
        assert torch.allclose(value + plain[name], 2 * base[name].double(), atol=1e-12), name


@pytest.mark.parametrize("method", SIGNED)
def test_one_sign_is_that_of_a_mirrored_expert(family, method):
    """Weight −1 is the expert whose every step from the base was made backwards."""
    base, experts, measured, prior = family
    mirrored, start = Net(), base.state_dict()
    theirs = experts["e1"].state_dict()
    mirrored.load_state_dict({name: 2 * value - theirs[name] for name, value in start.items()})
    turned = base, {**experts, "e1": mirrored}, measured, prior
    options: dict[str, Any] = {"density": 1.0} if method in ("ties", "breadcrumbs") else {}
    found = merged(family, method, weights={"e0": 1.0, "e1": -1.0, "e2": 1.0}, **options)
    assert apart(found, merged(turned, method, **options)) < 1e-5


def test_a_mean_with_a_negative_weight_reaches_beyond(family):
    _, experts, *_ = family
    found = merged(family, "average", 2, weights={"e0": 1.5, "e1": -0.5})
    one, two = (experts[name].state_dict() for name in ("e0", "e1"))
    for name, value in found.items():
        assert torch.allclose(value, 1.5 * one[name].double() - 0.5 * two[name].double())


@pytest.mark.parametrize("method", ["average", "fisher", "regmean", "kfac", "gradient_matching"])
def test_a_mean_of_weights_that_cancel_is_refused(family, method):
    with pytest.raises(mats.InputError, match=r"a sum above zero.*task_arithmetic"):
        merged(family, method, weights={"e0": 1.0, "e1": -1.0, "e2": 0.0})


@pytest.mark.parametrize("method", ["fisher", "regmean", "kfac"])
def test_curvature_that_turns_negative_is_refused_by_name(family, method):
    options: dict[str, Any] = {} if method == "fisher" else {"damping": 0.0}
    with pytest.raises(mats.InputError, match=r"negative weights \(e0 1, e1 -0\.9.*task_arithmeti"):
        merged(family, method, weights={"e0": 1.0, "e1": -0.9, "e2": 0.1}, **options)


@pytest.mark.parametrize("method", ["fisher", "regmean", "kfac", "gradient_matching"])
def test_a_small_negative_weight_leaves_the_system_definite(family, method):
    own = {"fisher": {"floor": 1.0}, "gradient_matching": {"prior": 5.0}}
    options: dict[str, Any] = own.get(method, {"damping": 1.0})
    weights = {"e0": 1.0, "e1": 1.0, "e2": -0.01}
    found = merged(family, method, weights=weights, **options)
    near = merged(family, method, weights={**weights, "e2": 0.0}, **options)
    assert 0 < apart(found, near) < 0.5


def test_equal_sizes_are_asked_of_methods_that_treat_experts_alike(family):
    with pytest.raises(mats.InputError, match="equal ones but for their signs"):
        merged(family, "tsv_m", weights={"e0": 1.0, "e1": -2.0, "e2": 1.0})
    with pytest.raises(mats.InputError, match="a sum above zero"):
        merged(family, "slerp", 2, weights={"e0": -1.0, "e1": -1.0})
