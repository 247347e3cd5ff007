"""Every layer in numbers, each against its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mats_core.analysis.layers import tabulating
from mats_core.merging.pipeline import run
from mats_core.models.modules import tensors_of
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.stream import Event, drain
from tests.conftest import family_recipe


def opened(folder: Path, *, measured: bool = True):
    content = family_recipe(folder, "average", evaluate=False)
    if not measured:
        for expert in content["experts"]:  # type: ignore[attr-defined]
            del expert["statistics"]
    recipe = parse_recipe(content, folder)
    inputs = open_inputs(recipe)
    return inputs, drain(run(recipe, inputs=inputs)).tensors


def test_every_number_is_what_it_says(tiny_family: Path):
    inputs, average = opened(tiny_family)
    said: list[Event] = []
    rows = drain(tabulating(inputs, average), said.append)
    family = inputs.family
    matrices = [name for name, role in family.roles.items() if role == "matrix"]
    assert [row.name for row in rows] == matrices
    assert [e.fraction for e in said] == sorted(e.fraction for e in said)
    for row in rows[::4]:
        base = family.base.read(row.name).double()
        updates = [e.checkpoint.read(row.name).double() - base for e in family.experts]
        own = average[row.name].double() - base
        singular = np.linalg.svd(own.numpy(), compute_uv=False)
        assert row.moved == pytest.approx(float(own.norm() / base.norm()), rel=1e-4)
        assert row.stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-3)
        left = sum(float((own - u).square().sum()) for u in updates)
        moved = sum(float(u.square().sum()) for u in updates)
        assert row.to_experts == pytest.approx((left / moved) ** 0.5, rel=1e-4)
        cosine = lambda a, b: float((a * b).sum() / a.norm() / b.norm())  # noqa: E731
        assert row.along == pytest.approx(np.mean([cosine(own, u) for u in updates]), abs=1e-4)
        pairs = [cosine(updates[i], updates[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        assert row.between == pytest.approx(np.mean(pairs), abs=1e-4)
        for expert, update, known in zip(family.experts, updates, inputs.statistics, strict=True):
            assert known is not None
            a = known.read(f"{row.name.removesuffix('.weight')}.input_gram", (base.shape[1],) * 2)
            assert a is not None
            whole = torch.trace(update @ a.double() @ update.T)
            lost = torch.trace((own - update) @ a.double() @ (own - update).T)
            assert row.kept[expert.name] == pytest.approx(float(1 - lost / whole), rel=1e-3)


def test_an_expert_keeps_itself_and_the_base_keeps_nothing(tiny_family: Path):
    inputs, _ = opened(tiny_family)
    own = drain(tabulating(inputs, tensors_of(inputs.family.experts[0].checkpoint)))
    base = drain(tabulating(inputs, tensors_of(inputs.family.base)))
    for row in own:
        assert row.kept["e0"] == pytest.approx(1)
        assert row.to_experts > 0
    for row in base:
        assert row.moved == row.stable_rank == 0
        assert row.to_experts == pytest.approx(1)
        assert list(row.kept.values()) == pytest.approx([0, 0, 0], abs=1e-6)
        assert row.mean_kept == pytest.approx(0, abs=1e-6)


def test_without_statistics_what_is_kept_is_unknown(tiny_family: Path):
    rows = drain(tabulating(*opened(tiny_family, measured=False)))
    assert np.isnan([row.mean_kept for row in rows]).all()
    assert all(row.to_experts > 0 for row in rows)
