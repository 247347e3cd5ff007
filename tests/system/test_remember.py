"""What is remembered: bounded, and without any influence on what a merge gives."""

from __future__ import annotations

import pytest
import torch

from mats_core.merging.events import Finished
from mats_core.merging.pipeline import run
from mats_core.merging.plan import open_inputs
from mats_core.merging.recipe import parse_recipe
from mats_core.methods.table import METHODS
from mats_core.system.remember import Memo, nbytes
from tests.conftest import family_recipe
from tests.method_cases import CASES


def tensors(recipe, inputs):
    return next(e for e in run(recipe, inputs=inputs) if isinstance(e, Finished)).tensors


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_that_remembers_gives_the_same_bytes(tiny_family, method):
    def recipe(options):
        content = family_recipe(tiny_family, method, options=options)
        return parse_recipe({**content, "evaluate": False}, tiny_family)

    turns = CASES[method].turns
    remembering = open_inputs(recipe(turns[0]), Memo(2**30))
    for options in (*turns, *turns):
        found = tensors(recipe(options), remembering)
        fresh = tensors(recipe(options), open_inputs(recipe(options)))
        assert all(torch.equal(found[name], fresh[name]) for name in fresh), options
    assert remembering.memo.used > 0


def test_the_decomposition_is_not_computed_again_for_a_new_scaling(tiny_family, monkeypatch):
    def recipe(**options):
        content = family_recipe(tiny_family, "essential", options=options)
        return parse_recipe({**content, "evaluate": False}, tiny_family)

    inputs = open_inputs(recipe(), Memo(2**30))
    tensors(recipe(), inputs)

    def never(*arguments):
        raise AssertionError("decomposed again")

    monkeypatch.setattr("mats_core.methods.essential.essential_subspace", never)
    monkeypatch.setattr("mats_core.methods.essential.polar", never)
    tensors(recipe(scaling=0.5, layer_power=1.0), inputs)
    with pytest.raises(AssertionError, match="again"):
        tensors(recipe(rank=2), inputs)


def test_the_least_recently_used_goes_first():
    memo = Memo(3 * 400)
    one = torch.zeros(100)
    for key in "abc":
        memo.get(key, lambda: one)
    memo.get("a", lambda: pytest.fail("a was there"))
    memo.get("d", lambda: one)
    assert memo.used == 1200
    asked = []
    memo.get("b", lambda: asked.append("b") or one)
    assert asked == ["b"], "b had gone"
    memo.get("a", lambda: pytest.fail("a was used again and stays"))


def test_what_is_too_large_is_not_kept_and_without_a_limit_nothing_is():
    memo = Memo(100)
    memo.get("large", lambda: torch.zeros(100))
    assert memo.used == 0
    calls = []
    for _ in range(2):
        Memo().get("x", lambda: calls.append(1))
    assert len(calls) == 2


def test_bytes_are_counted_through_containers():
    value = {"a": (torch.zeros(2), [torch.zeros(3, dtype=torch.float64)]), "b": 1.0}
    assert nbytes(value) == 8 + 24 + 8
