"""Estimates before a run, held against real runs wherever they can be exact."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mats_core import models
from mats_core.errors import InputError, duration, size
from mats_core.estimating import merge_cost as estimates
from mats_core.estimating.fitting import fits, require
from mats_core.estimating.forward import measuring, statistics_bytes
from mats_core.estimating.merge_cost import Estimate, estimate
from mats_core.linear import decompositions as linalg
from mats_core.merging import engine
from mats_core.merging.pipeline import merge
from mats_core.merging.rounds import measured_at
from mats_core.methods import cost
from mats_core.methods.cost import Shape
from mats_core.methods.essential import EssentialOptions
from mats_core.methods.iso import IsoOptions
from mats_core.methods.kfac_cost import iterations
from mats_core.methods.kfac_options import KfacOptions
from mats_core.methods.table import METHODS
from mats_core.recipes.plan import Inputs, open_inputs, prepare, units
from mats_core.recipes.recipe import parse_recipe
from mats_core.statistics.store import Statistics
from mats_core.system import memory, speeds
from mats_core.system.remember import Memo
from mats_core.system.speeds import Rates, Work
from tests.conftest import family_recipe

# A machine of round numbers: nothing here depends on the one that the tests run on.
ROUND = Rates(device="cpu", products=1e10, decompositions=5e9, moved=1e10, call=2e-6)


def tiny_recipe(method: str = "average", **settings) -> dict:
    return family_recipe(Path(), method, **settings)


def raw_recipe(method: str) -> dict:
    experts = [{"name": f"e{m}", "model": f"e{m}.safetensors"} for m in range(3)]
    return {"base": "base.safetensors", "experts": experts, "method": method}


@pytest.fixture(scope="module")
def inputs(tiny_family: Path) -> Inputs:
    return open_inputs(parse_recipe(tiny_recipe("average"), tiny_family))


def of(inputs: Inputs, family: Path, method: str = "average", **settings) -> Estimate:
    recipe = parse_recipe(tiny_recipe(method, **settings), family)
    return estimate(inputs, recipe, examples={f"e{m}": 60 for m in range(3)}, speeds=ROUND)


@pytest.mark.parametrize("method", METHODS)
def test_coverage_is_that_of_the_run(tiny_family, inputs, method):
    recipe = parse_recipe(tiny_recipe(method, evaluate=False), tiny_family)
    own = inputs if METHODS[method].experts is None else open_inputs(recipe)
    found = estimate(own, recipe, speeds=ROUND)
    assert dict(found.coverage) == merge(recipe, inputs=own).coverage


@pytest.mark.parametrize("method", ["regmean", "kfac"])
@pytest.mark.parametrize("options", [{"fold_bias": True}, {"remaining": "fisher"}])
def test_coverage_with_folded_biases_and_other_remainders(tiny_family, inputs, method, options):
    recipe = parse_recipe(tiny_recipe(method, evaluate=False, options=options), tiny_family)
    found = estimate(inputs, recipe, speeds=ROUND)
    assert dict(found.coverage) == merge(recipe, inputs=inputs).coverage


def test_coverage_of_bare_files_adds_up_to_the_checkpoint(raw_family):
    recipe = parse_recipe(raw_recipe("tsv_m"), raw_family)
    opened = open_inputs(recipe)
    found = estimate(opened, recipe, speeds=ROUND)
    assert sum(found.coverage.values()) == len(opened.family.base.tensors)
    assert found.coverage == {"merged": 2, "averaged": 3, "head": 0, "copied": 1, "tied": 0}
    assert found.parts["testing"] == 0  # no task, no test


class Counted(TorchDispatchMode):
    """Counts the matrix work of whatever runs inside it, by PyTorch's own dispatcher."""

    def __init__(self) -> None:
        super().__init__()
        self.products, self.decompositions = 0.0, 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in OPERATIONS:
            shapes = [tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor)]
            double = 2 if args[0].dtype == torch.float64 else 1
            self.products += double * OPERATIONS[name](*shapes)
        elif name == "_linalg_eigh":
            self.decompositions += speeds.eigh_flops(args[0].shape[0])
        elif name == "_linalg_svd":
            self.decompositions += speeds.svd_flops(*args[0].shape)
        return func(*args, **(kwargs or {}))


# Textbook operations of a call, from the shapes of its tensors.
OPERATIONS = {
    "mm": lambda a, b: 2.0 * a[0] * a[1] * b[1],
    "bmm": lambda a, b: 2.0 * a[0] * a[1] * a[2] * b[2],
    "_linalg_solve_ex": lambda a, b: 2.0 * a[0] ** 3 / 3 + 2.0 * a[0] ** 2 * b[1],
    "linalg_cholesky_ex": lambda a: a[0] ** 3 / 3,
    "cholesky_solve": lambda b, a: 2.0 * b[1] * a[0] ** 2,
    "cholesky_inverse": lambda a: 2.0 * a[0] ** 3 / 3,
}


FIXED = {"iterations": 7, "tolerance": 0.0}
EXACT: list[tuple[str, dict]] = [
    ("tsv_m", {}), ("iso_c", {}), ("iso_cts", {}), ("essential", {}), ("regmean", {}),
    ("kfac", FIXED), ("regmean", {"gram": "update"}), ("essential", {"gram": "update"}),
    ("regmean", {"gram": "update", "iterations": 4}), ("kfac", {**FIXED, "gram": "update"}),
    ("kfac", {**FIXED, "gram": "update", "svc": 0.3}),
    ("kfac", {**FIXED, "preconditioner": "joint"}),
]  # fmt: skip


def in_this_thread(works, at_once):
    """`beside` without threads and ticks."""

    def job(work):
        return work(lambda tick: None)
        yield

    for work in works:
        yield job(work)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("method", "options"), EXACT)
def test_products_and_decompositions_are_those_of_the_run(
    tiny_family, inputs, method, options, dtype, monkeypatch
):
    # In float32 a Gram is tried first; here each of them is good enough.
    monkeypatch.setattr(linalg, "GRAM_CONDITION", 1e30)
    monkeypatch.setattr(linalg, "POLAR_CONDITION", 1e30)
    monkeypatch.setattr(cost, "FALLS_BACK", 0.0)
    recipe = parse_recipe(
        tiny_recipe(method, evaluate=False, options=options, dtype=dtype), tiny_family
    )
    # What is read is checked; that is estimated with the reading.
    monkeypatch.setattr("mats_core.statistics.possible._is_positive", lambda value, shift: True)
    # What counts sees its own thread only; a matrix is merged in another one.
    monkeypatch.setattr(engine, "beside", in_this_thread)
    with Counted() as counted:
        merge(recipe, inputs=inputs)
    costs = METHODS[method].cost
    work = Work()
    for unit_shape, count in _shapes(inputs, recipe).items():
        work += costs(unit_shape, recipe.parsed_options()).work * count
    assert work.decompositions == pytest.approx(counted.decompositions)
    assert work.products == pytest.approx(counted.products, rel=0.1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_and_rules_are_counted_as_they_run(tiny_family, inputs, dtype):
    settings = {
        "after": ["svc", {"stretch": {"scale": 1.2}}], "dtype": dtype, "options": FIXED,
        "by": [{"depth": [1, 1], "options": {"iterations": 2}}],
    }  # fmt: skip
    recipe = parse_recipe(tiny_recipe("kfac", evaluate=False, **settings), tiny_family)
    plan = prepare(recipe, inputs)
    with Counted() as counted, pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "beside", in_this_thread)
        merge(recipe, inputs=inputs)
    work = Work()
    for unit in units(plan):
        work += estimates.cost_of(plan, unit, estimates.shape_of(plan, unit)).work
    assert work.decompositions == pytest.approx(counted.decompositions)
    assert work.products == pytest.approx(counted.products, rel=0.1)


def _shapes(inputs, recipe) -> Counter[Shape]:
    from mats_core.recipes.plan import prepare, units

    job = prepare(recipe, inputs)
    return Counter(estimates.shape_of(job, unit) for unit in units(job))


def test_iterations_of_the_preconditioned_solve_are_near_the_estimate(tiny_family, inputs):
    recipe = parse_recipe(tiny_recipe("kfac", evaluate=False), tiny_family)
    report = merge(recipe, inputs=inputs)
    needed = max(layer.iterations for layer in report.layers)
    options = recipe.parsed_options()
    assert isinstance(options, KfacOptions)
    assert needed / 3 <= iterations(options, 3) <= 3 * needed


def test_without_a_tolerance_cg_runs_to_its_limit():
    assert iterations(KfacOptions(iterations=123, tolerance=0.0), 8) == 123
    assert iterations(KfacOptions(iterations=123, preconditioner="none"), 8) == 123


def test_memory_holds_at_least_what_certainly_is_held(tiny_family, inputs):
    found = of(inputs, tiny_family, "essential", evaluate=False)
    widest = 4 * 24 * 40  # bytes of the largest matrix
    grams = 3 * 4 * 40 * 40
    assert found.memory["largest layer"] > 4 * widest + grams
    merged = sum(e.nbytes for e in inputs.family.base.tensors.values())
    assert found.memory["merged model"] >= 0.8 * merged
    assert found.memory_bytes == sum(found.memory.values())


def test_more_experts_float64_and_statistics_need_more(tiny_family, inputs):
    one = tiny_recipe("average", evaluate=False)
    one["experts"] = one["experts"][:1]
    few = estimate(inputs, parse_recipe(one, tiny_family), speeds=ROUND)
    average = of(inputs, tiny_family, evaluate=False)
    double = of(inputs, tiny_family, evaluate=False, dtype="float64")
    kfac = of(inputs, tiny_family, "kfac", evaluate=False)
    assert few.memory_bytes < average.memory_bytes < double.memory_bytes
    assert average.memory_bytes < kfac.memory_bytes
    assert few.seconds < average.seconds < kfac.seconds


def test_written_to_disk_the_model_is_not_held(tiny_family, inputs, tmp_path):
    held = of(inputs, tiny_family, evaluate=False)
    written = of(inputs, tiny_family, evaluate=False, output=str(tmp_path / "out"))
    merged = held.memory["merged model"]
    assert held.memory_bytes - written.memory_bytes == merged
    assert held.disk_bytes == 0
    heads = [inputs.family.head_of(expert) for expert in inputs.family.experts]
    own = [e.checkpoint.tensors for e in inputs.family.experts]
    kept = sum(t[n].nbytes for names, t in zip(heads, own, strict=True) for n in names)
    beside = (tiny_family / "base" / "config.json").stat().st_size
    assert written.disk_bytes == merged + kept + beside > merged


def test_what_is_remembered_counts_and_has_its_limit(tiny_family, inputs):
    from dataclasses import replace

    forgetful = of(inputs, tiny_family, "regmean")
    free, tight = (replace(inputs, memo=Memo(limit)) for limit in (10**9, 1000))
    assert of(free, tiny_family, "regmean").memory_bytes > forgetful.memory_bytes
    assert of(tight, tiny_family, "regmean").memory["remembered"] == 1000


def test_a_search_costs_a_merge_for_each_point(tiny_family, inputs):
    once = of(inputs, tiny_family, "task_arithmetic")
    search = of(inputs, tiny_family, "task_arithmetic", search={"scaling": [0.1, 0.2, 0.3]})
    assert search.seconds == pytest.approx(4 * once.seconds)
    assert search.flops == pytest.approx(4 * once.flops)


def test_rounds_cost_merges_and_measuring_between_them(tiny_family, inputs):
    one, two, three = (of(inputs, tiny_family, "kfac", rounds=rounds) for rounds in (1, 2, 3))
    assert one.parts["measuring"] == 0
    assert two.parts["measuring"] > 0
    assert three.parts["measuring"] == pytest.approx(2 * two.parts["measuring"])
    assert three.parts["merging"] == pytest.approx(3 * one.parts["merging"])
    assert three.parts["testing"] == one.parts["testing"]
    assert two.measuring_share == pytest.approx(two.parts["measuring"] / one.parts["merging"])
    searched = of(inputs, tiny_family, "kfac", rounds=2, search={"damping": [0.1, 0.3]})
    assert searched.seconds == pytest.approx(3 * two.seconds)
    with pytest.raises(InputError, match="reads statistics"):
        of(inputs, tiny_family, "ties", rounds=2)


def test_measuring_again_costs_what_it_does(tiny_family, inputs, monkeypatch):
    """Products by PyTorch's own counter, and the bytes of what comes back."""
    recipe = parse_recipe(tiny_recipe("kfac", rounds=2), tiny_family)
    job = prepare(recipe, inputs)
    # Attention is counted as slower than it is in operations.
    monkeypatch.setattr("mats_core.estimating.forward._attention", lambda config, tokens: 0)
    with FlopCounterMode(display=False) as counter:
        again = measured_at(inputs, models.tensors_of(inputs.family.base), tiny_family)
    found = measuring(job)
    assert found.work.flops == pytest.approx(counter.get_total_flops(), rel=0.25)
    held = sum(value.nbytes for own in again.statistics if own for value in tensors_in(own))
    assert statistics_bytes(job) == held
    two, three = (of(inputs, tiny_family, "kfac", rounds=rounds) for rounds in (2, 3))
    assert two.memory["statistics of the merge"] == held
    assert three.memory["statistics of the merge"] == 2 * held
    assert two.memory_bytes > of(inputs, tiny_family, "kfac").memory_bytes


def tensors_in(own: Statistics) -> list[torch.Tensor]:
    found = [own.read(name, shape) for name, shape in own.shapes.items()]
    return [value for value in found if value is not None]


def test_a_coarse_interval_needs_fewer_examples(tiny_family, inputs):
    whole = of(inputs, tiny_family, evaluate={"examples": None})
    recipe = parse_recipe(tiny_recipe(evaluate={"precision": 0.2}), tiny_family)
    coarse = estimate(inputs, recipe, examples={f"e{m}": 6000 for m in range(3)}, speeds=ROUND)
    assert coarse.parts["testing"] < 3 * whole.parts["testing"]


def test_a_method_that_lacks_its_statistics_cannot_be_estimated(raw_family):
    recipe = parse_recipe(raw_recipe("fisher"), raw_family)
    with pytest.raises(InputError, match="statistics for every expert"):
        estimate(open_inputs(recipe), recipe, speeds=ROUND)


def test_it_is_quick_and_reads_no_tensor(tiny_family, inputs, monkeypatch):
    monkeypatch.setattr("mats_core.checkpoints.files.Checkpoint.read", None)
    of(inputs, tiny_family, "essential")
    started = time.process_time()
    for method in METHODS:
        of(inputs, tiny_family, method)
    assert time.process_time() - started < 12 * 0.05


# Refusing -----------------------------------------------------------------------------------------


def test_a_run_that_cannot_fit_is_refused_with_what_would(tiny_family, inputs, monkeypatch):
    monkeypatch.setattr(estimates, "WORKSPACE", 0)  # it would hide so small a family
    found = of(inputs, tiny_family, "kfac", dtype="float64", evaluate=False)
    monkeypatch.setattr(memory, "available_memory", lambda: found.memory_bytes)
    assert not fits(found)  # a tenth of the free memory is left alone
    with pytest.raises(InputError) as caught:
        require(found)
    text = str(caught.value)
    assert f"expected {size(found.memory_bytes)}" in text
    assert f"found {size(found.memory_bytes)} free" in text
    for advice in ("float32", "merge at most 2 experts", "needs no statistics"):
        assert advice in text


def test_where_the_model_itself_is_too_large_it_can_be_written(tiny_family, inputs, monkeypatch):
    monkeypatch.setattr(estimates, "WORKSPACE", 0)
    found = of(inputs, tiny_family, "average")
    monkeypatch.setattr(memory, "available_memory", lambda: found.memory_bytes // 2)
    with pytest.raises(InputError, match=r"recipe\.yaml --output FOLDER --no-evaluate") as caught:
        require(found)
    assert "needs no statistics" not in str(caught.value)  # it is the average already


def test_advice_is_only_what_would_fit(tiny_family, inputs, monkeypatch):
    found = of(inputs, tiny_family, "kfac")
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match="Free some memory") as caught:
        require(found)
    assert "merge at most" not in str(caught.value)
    assert "float32" not in str(caught.value)


def test_what_fits_is_let_through(tiny_family, inputs, monkeypatch):
    found = of(inputs, tiny_family, "kfac")
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * found.memory_bytes)
    require(found)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    require(found)  # a system that does not tell


# The machine --------------------------------------------------------------------------------------


def test_available_memory_respects_the_limit_of_a_container(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable: 4000 kB\n")
    (tmp_path / "own").write_text("0::/outer/inner\n")
    group = tmp_path / "group" / "outer"
    (group / "inner").mkdir(parents=True)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "group")
    assert memory.available_memory() == 4_096_000
    (group / "inner" / "memory.max").write_text("max\n")
    (group / "inner" / "memory.current").write_text("5\n")
    assert memory.available_memory() == 4_096_000
    (group / "memory.max").write_text("3000000\n")  # of the group above
    (group / "memory.current").write_text("1000000\n")
    assert memory.available_memory() == 2_000_000
    (group / "memory.stat").write_text("anon 5\ninactive_file 600000\n")
    assert memory.available_memory() == 2_600_000


def test_available_memory_of_this_machine_is_plausible():
    free = memory.available_memory()
    assert free is None or 10**7 < free < 10**14


def test_rates_are_measured_once_and_in_seconds_of_work():
    rates = speeds.rates()
    assert speeds.rates() is rates
    assert all(1e8 < speed < 1e14 for speed in (rates.products, rates.decompositions, rates.moved))
    assert 1e-8 < rates.call < 1e-3
    small, large = (rates.seconds(cost.eigenbasis(n)) for n in (48, 400))
    assert 0 < small < large


def test_seconds_add_up_over_the_kinds_of_work():
    work = cost.operations(5e9) + cost.operations(1e9, "float32")  # 1 s in float64, 0.1 s
    work += Work(decompositions=1e9, calls=1000.0) * 2  # 0.4 s and 4 ms
    work += cost.passes(speeds.CACHE + 1000, 1e6)  # what a cache does not hold: 0.1 s, and calls
    assert ROUND.seconds(work) == pytest.approx(1.1 + 0.404 + 0.1 + 1e6 / 3 * 2e-6)
    assert work.flops == 2 * 5e9 + 1e9 + 2e9
    assert cost.passes(speeds.CACHE, 10).moved == 0


def test_a_long_matrix_costs_its_share_of_a_square_one():
    square, long = (speeds.svd_flops(m, 256) for m in (256, 1024))
    assert long / square == pytest.approx((6 * 4 + 11) / 17)
    assert speeds.svd_flops(256, 1024) == long


def test_an_estimate_has_the_order_of_magnitude_of_the_run(tiny_family, inputs):
    """By this machine's rates, in time of one thread; a wide bound, for others may use it too."""
    for method in ("average", "kfac", "essential"):
        recipe = parse_recipe(tiny_recipe(method, evaluate=False), tiny_family)
        merge(recipe, inputs=inputs)
        started = time.process_time()
        merge(recipe, inputs=inputs)
        took = time.process_time() - started
        found = estimate(inputs, recipe)
        assert took / 10 < found.seconds < 10 * took, method


def test_taller_layers_decompose_on_their_smaller_side(monkeypatch):
    monkeypatch.setattr(cost, "FALLS_BACK", 0.0)
    wide = METHODS["essential"].cost(_layer(64, 256), EssentialOptions()).work
    tall = METHODS["essential"].cost(_layer(256, 64), EssentialOptions()).work
    small, large = speeds.eigh_flops(64), speeds.eigh_flops(256)
    assert wide.decompositions == (8 + 2) * small  # eight subspaces, two polar factors
    assert tall.decompositions == (16 + 1) * small + large  # the other polar factor: 256 × 256
    assert METHODS["iso_c"].cost(_layer(256, 64), IsoOptions()).work.decompositions == small


def _layer(rows: int, columns: int) -> Shape:
    return Shape((rows, columns), 8, "float32", True, frozenset({"input_gram"}))


def test_words():
    assert [size(n) for n in (12, 3400, 1.2e6, 123e6, 2.5e9)] == [
        "12 bytes", "3 kB", "1.2 MB", "123 MB", "2.5 GB",
    ]  # fmt: skip
    assert [duration(s) for s in (0.01, 0.44, 3.21, 42, 240, 9000)] == [
        "0.1 s", "0.4 s", "3.2 s", "42 s", "4 min", "2.5 h",
    ]  # fmt: skip


def test_the_sentence_names_time_and_memory(tiny_family, inputs):
    found = of(inputs, tiny_family)
    assert found.sentence == (
        f"About {duration(found.seconds)} and {size(found.memory_bytes)} of memory"
    )
