"""Merges of models remember what depends on the models alone; results are the same without."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import mats_core as mats
from mats_core.system import Memo
from mats_core.system import remember as remembering
from tests.module_cases import family, loader

# Per method: where its decompositions are computed, an option that they do not depend on, two of
# its values.
CASES = {
    "kfac": (
        "kfac",
        "eigh_descending",
        {"damping": 0.1, "anchor": 0.1},
        {"damping": 1.0, "anchor": 0.2},
    ),
    "tsv_m": ("tsv_m", "tsv_update", {"scaling": 1.0}, {"scaling": 0.5}),
    "iso_c": ("iso", "polar", {"scaling": 1.0}, {"scaling": 0.5}),
    "essential": ("essential", "essential_update", {"scaling": 1.0}, {"scaling": 0.5}),
}


@pytest.fixture(autouse=True)
def memory(monkeypatch) -> remembering.Memory:
    """An empty memory of this process."""
    found = remembering.Memory(1 << 28)
    monkeypatch.setattr(remembering, "memory", lambda: found)
    return found


@pytest.fixture
def models() -> tuple[Any, dict[str, Any], dict[str, mats.Statistics]]:
    base, experts = family("mlp")
    return base, experts, {name: mats.measure(one, loader()) for name, one in experts.items()}


def counted(monkeypatch, module: Any, name: str) -> list[str]:
    """A list that grows with each call of a function."""
    calls, function = [], getattr(module, name)

    def recorded(*given: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*given, **options)

    monkeypatch.setattr(module, name, recorded)
    return calls


def same(one: mats.Merge, other: mats.Merge) -> bool:
    return all(torch.equal(value, other.tensors[name]) for name, value in one.tensors.items())


@pytest.mark.parametrize("method", CASES)
def test_the_second_merge_decomposes_nothing_again(method, models, monkeypatch):
    base, experts, statistics = models
    module, name, first, second = CASES[method]
    calls = counted(monkeypatch, importlib.import_module(f"mats_core.methods.{module}"), name)

    def merge(**options: Any) -> mats.Merge:
        return mats.merge_models(base, experts, method, statistics=statistics, **options)

    one = merge(**first)
    once = len(calls)
    assert once > 0
    again, other = merge(**first), merge(**second)
    assert len(calls) == once
    assert same(one, again)
    monkeypatch.setattr(remembering, "memory", lambda: remembering.Memory(0))
    assert same(merge(**first), one)
    assert same(merge(**second), other)
    assert len(calls) == 3 * once


CHANGES: dict[str, Callable[[Any, dict[str, Any]], None]] = {
    "an expert's weights": lambda base, experts: experts["e1"].fc2.weight.data.mul_(1.5),
    "the base's weights": lambda base, experts: base.fc1.weight.data.add_(0.1),
    "the order of experts": lambda base, experts: experts.update(e0=experts.pop("e0")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_has_changed_is_computed_anew(change, models, monkeypatch):
    base, experts, _ = models
    before = mats.merge_models(base, experts, "tsv_m")
    change(base, experts)
    after = mats.merge_models(base, experts, "tsv_m")
    monkeypatch.setattr(remembering, "memory", lambda: remembering.Memory(0))
    assert same(after, mats.merge_models(base, experts, "tsv_m"))
    if change is not CHANGES["the order of experts"]:
        assert not same(before, after)


def test_what_was_given_is_read_where_it_lies_and_not_held(models, memory):
    """Equal weights in another module that changes later: what is remembered is no view of it."""
    base, experts, _ = models
    twin = copy.deepcopy(base)
    first = mats.merge_models(twin, experts, "tsv_m")
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert same(mats.merge_models(base, experts, "tsv_m"), first)
    weights = sum(p.nbytes for one in (base, *experts.values()) for p in one.parameters())
    assert 0 < memory.held < weights


def test_measuring_again_is_another_merge(models):
    base, experts, statistics = models
    how = {"method": "essential", "statistics": statistics}
    first = mats.merge_models(base, experts, **how)
    statistics["e0"] = mats.measure(experts["e0"], loader(seed=9))
    assert not same(mats.merge_models(base, experts, **how), first)


def test_a_file_that_is_measured_anew_is_another_merge(models, tmp_path):
    base, experts, statistics = models
    file = tmp_path / "e0.stats.safetensors"
    statistics["e0"].save(file)
    how = {"method": "essential", "statistics": {**statistics, "e0": file}}
    first = mats.merge_models(base, experts, **how)
    assert same(mats.merge_models(base, experts, **how), first)
    mats.measure(experts["e0"], loader(48, seed=9)).save(file)
    assert not same(mats.merge_models(base, experts, **how), first)


def test_a_part_by_content_is_found_again_and_one_of_an_object_is_not(memory):
    assert Memo.of_content("a").get("key", lambda: 1) == 1
    assert Memo.of_content("a").get("key", lambda: 2) == 1
    assert Memo.of_content("b").get("key", lambda: 3) == 3
    assert Memo.of_process().get("key", lambda: 4) == 4
    assert Memo.of_process().get("key", lambda: 5) == 5
