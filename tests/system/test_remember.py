"""What is remembered: bounded, and without any influence on what a merge gives."""

from __future__ import annotations

import functools
import gc
import threading

import numpy as np
import pytest
import torch

from mats_core.errors import InputError
from mats_core.estimating.merge_cost import estimate
from mats_core.merging.pipeline import run
from mats_core.methods.table import METHODS
from mats_core.recipes.events import Finished
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.system import UNMEASURED, remember
from mats_core.system.remember import Memo, Memory, nbytes
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

    monkeypatch.setattr("mats_core.methods.essential_directions.essential_subspace", never)
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


# The memory of the process ------------------------------------------------------------------------


@pytest.fixture
def memory(monkeypatch) -> Memory:
    """A memory of its own for the process."""
    own = Memory(2**30)
    monkeypatch.setattr(remember, "memory", lambda: own)
    return own


def test_the_bound_holds_under_load():
    memory, failures = Memory(10_000), list[str]()

    def work(seed: int) -> None:
        order = torch.randperm(200, generator=torch.Generator().manual_seed(seed)).tolist()
        for key in order * 5:
            value = memory.get(key, lambda key=key: torch.full((1 + key % 40,), float(key)))
            if not bool((value == key).all()):
                failures.append(f"{key}: {value}")
            if memory.held > memory.limit:
                failures.append(f"{memory.held} bytes")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert 0 < memory.held <= memory.limit
    held = memory.held
    assert memory.get("unwanted", lambda: 7, lambda _: None) == 7
    assert memory.get("unwanted", lambda: 8, lambda _: None) == 8, "kept against its will"
    assert memory.held == held
    memory.clear()
    assert memory.held == 0


def _same(own: Memory) -> Memory:
    return own


def test_values_are_the_same_with_and_without(tiny_family, monkeypatch):
    content = family_recipe(tiny_family, "average")
    recipe = parse_recipe({**content, "evaluate": {"examples": 20}}, tiny_family)
    found = []
    for limit in (0, 100, 2**30):
        own = Memory(limit)
        monkeypatch.setattr(remember, "memory", functools.partial(_same, own))
        for _ in range(2):
            finished = [e for e in run(recipe) if isinstance(e, Finished)]
            found.append(finished[0].report.tasks)
        assert own.held <= limit
    assert all(tasks == found[0] for tasks in found)
    assert remember.remembered() > 0


def test_a_part_is_bounded_with_the_rest_and_goes_with_its_owner(memory):
    memory.limit = 1000
    memo = Memo.of_process()
    memo.get("mine", lambda: torch.zeros(100))
    remember.recall("other", lambda: torch.zeros(100))
    assert (memo.limit, memo.used, remember.remembered()) == (1000, 800, 800)
    again = memo.fresh()
    assert again.get("mine", lambda: 7) == 7, "another part has keys of its own"
    memo.get("large", lambda: torch.zeros(100))
    assert memory.held <= 1000
    del memo
    gc.collect()
    assert memory.held == 408  # what the other part and nobody's part hold


@pytest.mark.parametrize(("said", "limit"), [("500MB", 500_000_000), ("0", 0)])
def test_how_much_is_remembered_can_be_set(monkeypatch, said, limit):
    monkeypatch.setenv("MATS_REMEMBER", said)
    assert remember._limit() == limit
    monkeypatch.setenv("MATS_REMEMBER", "much")
    with pytest.raises(InputError, match="number of bytes"):
        remember._limit()
    monkeypatch.delenv("MATS_REMEMBER")
    assert 0 < remember._limit() <= 2**31


def test_arrays_texts_and_tokens_are_counted():
    texts = np.array(["a" * 1000, "b"], dtype=object)
    assert nbytes(texts) > 1000
    assert nbytes(np.zeros(10)) == 80
    assert nbytes([5] * 1000) == 36_000
    assert nbytes(torch.zeros(10, device="meta")) == 0


def test_an_estimate_tells_what_is_remembered(tiny_family, memory):
    recipe = parse_recipe(family_recipe(tiny_family, "average"), tiny_family)
    inputs = open_inputs(recipe, Memo.of_process())
    opened = memory.held  # digests of the files
    assert estimate(inputs, recipe, speeds=UNMEASURED).held == opened < 2**20
    tensors(recipe, inputs)
    found = estimate(inputs, recipe, speeds=UNMEASURED)
    assert found.held == memory.held > opened
    memory.limit = memory.held + 1000
    assert estimate(inputs, recipe, speeds=UNMEASURED).memory["remembered"] == 1000
