"""Reasons why a task keeps much: every trait from its definition, and no reason without numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mats_core import figures
from mats_core.analysis import survey
from mats_core.analysis.correlation import Correlation, correlate
from mats_core.analysis.reasons import TRAITS, reasons, traits
from mats_core.evaluation.scores import Score, TaskResult
from mats_core.recipes.plan import Inputs, open_inputs
from mats_core.recipes.recipe import parse_recipe
from tests.conftest import family_recipe

NAMES = ["e0", "e1", "e2"]


@pytest.fixture(scope="module")
def inputs(tiny_family: Path) -> Inputs:
    return open_inputs(parse_recipe(family_recipe(tiny_family, "average"), tiny_family))


@pytest.fixture(scope="module")
def layers(inputs: Inputs) -> list[str]:
    return [name for name, role in inputs.family.roles.items() if role == "matrix"][:3]


@pytest.fixture(scope="module")
def found(inputs: Inputs, layers: list[str]):
    measured = dict(zip(NAMES, inputs.statistics, strict=True))
    return survey(inputs.family, measured, layers)  # type: ignore[arg-type]


def results() -> list[TaskResult]:
    pairs = [(80, 20), (90, 90), (50, 25)]
    return [
        TaskResult(name, Score(0, 100), Score(tuned, 100), Score(base, 100))
        for name, (tuned, base) in zip(NAMES, pairs, strict=True)
    ]


def test_traits_are_what_they_say(inputs: Inputs, layers: list[str], found):
    known = traits(found, results())
    assert list(known) == list(TRAITS)
    assert known["base"] == pytest.approx({"e0": 0.25, "e1": 1.0, "e2": 0.5})
    family, total = inputs.family, 0.0
    moved, steep = dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 0.0)
    for name in layers:
        base = family.base.read(name).double()
        total += float(base.square().sum())
        for expert, own in zip(family.experts, inputs.statistics, strict=True):
            assert own is not None
            moved[expert.name] += float((expert.checkpoint.read(name) - base).square().sum())
            module, (d_out, d_in) = name.removesuffix(".weight"), base.shape
            a = own.read(f"{module}.input_gram", (d_in, d_in))
            b = own.read(f"{module}.output_gradient_gram", (d_out, d_out))
            assert a is not None
            assert b is not None
            steep[expert.name] += float(a.double().trace() * b.double().trace())
    assert known["move"] == pytest.approx({n: (moved[n] / total) ** 0.5 for n in NAMES}, rel=1e-4)
    assert known["curvature"] == pytest.approx(steep, rel=1e-4)
    pairs = torch.stack([layer.cosines for layer in found.layers]).mean(0)
    assert known["cosine"]["e0"] == pytest.approx(float(pairs[0, 1] + pairs[0, 2]) / 2)


def test_a_family_without_scores_or_statistics_has_unknown_traits(inputs: Inputs, layers):
    bare = survey(inputs.family, {}, layers)
    known = traits(bare, results()[:2])
    assert np.isnan([*known["curvature"].values(), *known["overlap"].values()]).all()
    assert np.isnan(known["base"]["e2"])
    assert set(reasons(known, {"e0": 1.0, "e1": 2.0, "e2": 3.0})) == {"move", "cosine"}


def test_a_reason_is_the_rank_correlation_with_the_outcome():
    known = {"move": dict(zip("abcd", [1.0, 2, 3, 4], strict=True)), "base": {"a": 1.0, "b": 2.0}}
    outcome = {"d": 1.0, "c": 3.0, "b": 2.0, "a": 4.0}
    found = reasons(known, outcome)  # type: ignore[arg-type]
    assert found == {"move": correlate([4, 3, 2, 1], list(outcome.values()))}


def one(value: float, chance: float) -> Correlation:
    return Correlation(value, value - 0.1, value + 0.1, chance, 8)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (  # the first lesson's, as walk.md measured it
            {"move": one(0.10, 0.82), "base": one(0.5, 0.2)},
            "Nothing here correlates with what a task keeps beyond chance (2 traits looked at, "
            "Holm's correction). Nearest: how good the base already was, rank correlation +0.50",
        ),
        (
            {"move": one(-0.95, 0.001), "base": one(0.5, 0.2)},
            "With what a task keeps goes how far fine-tuning went (the more, the less: rank "
            "correlation −0.95",
        ),
        # one in five traits is below 0.05 by luck: not a reason
        ({t: one(0.7, 0.04) for t in TRAITS}, "Nothing here correlates"),
        ({}, "Nothing can be said about what a task keeps"),
    ],
)
def test_the_verdict_is_that_of_the_numbers(found, said: str):
    assert figures.reasons_verdict(found, "what a task keeps").startswith(said)
    drawn = figures.reasons_figure(found, "what a task keeps", "80 test examples of 8 tasks")
    assert (drawn is None) == (not found)
    if drawn is not None:
        assert drawn.caption.endswith("Measured on 80 test examples of 8 tasks.")
        assert [row["trait"] for row in drawn.rows] == list(found)
        assert [row["chance"] for row in drawn.rows] == [c.chance for c in found.values()]
