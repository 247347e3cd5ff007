"""The study's bookkeeping: nothing runs twice, nothing sees test data too early."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.study import beside, cells, frontier, numbered, questions, scalings
from benchmarks.study.trials import Bench, Store, Trial
from benchmarks.study.way import coefficient
from mats_core.errors import validated
from mats_core.evaluation import evaluate, examiner
from mats_core.merging import pipeline
from mats_core.methods import STEPS
from mats_core.models import tensors_of
from mats_core.recipes.recipe import parse_options
from mats_core.tasks import Split
from tests.layer_cases import random_case
from tests.method_cases import CASES

QUICK = Trial("task_arithmetic", {"scaling": 0.5}, examples=16, asked=20)


@pytest.fixture
def bench(tiny_family, tmp_path):
    return Bench(tiny_family, Store(tmp_path / "results.json"))


def test_a_result_is_kept_and_not_computed_twice(bench, tiny_family, tmp_path, monkeypatch):
    first = bench.score(QUICK)
    assert first["tasks"].keys() == {"e0", "e1", "e2"}
    assert all(values[3] == 20 for values in first["tasks"].values())
    monkeypatch.setattr(pipeline, "run", lambda *a, **k: pytest.fail("it was run again"))
    again = Bench(tiny_family, Store(tmp_path / "results.json"))
    assert again.score(QUICK) == json.loads(json.dumps(first))


def test_iterates_of_one_solve_score_as_solves_of_their_own(bench, tiny_family, tmp_path):
    trials = [
        Trial("kfac", {"tolerance": 0.0, "damping": 0.1, "iterations": n}, examples=16, asked=20)
        for n in (2, 5)
    ]
    (solve,) = questions.one_solve([*trials, Trial("kfac", {"iterations": 5})])
    assert solve == trials
    bench.along(solve)
    apart = Bench(tiny_family, Store(tmp_path / "apart.json"))
    for trial in trials:
        found, expected = bench.store.get(trial), apart.score(trial)
        assert found["tasks"] == json.loads(json.dumps(expected["tasks"]))
        assert found["residual"] == pytest.approx(expected["residual"], rel=1e-3)
    assert found["residual"] < bench.store.get(trials[0])["residual"]


def test_trials_that_differ_in_anything_are_kept_apart():
    others = [
        Trial("task_arithmetic", {"scaling": 0.6}, examples=16, asked=20),
        Trial("task_arithmetic", {"scaling": 0.5}, examples=8, asked=20),
        Trial("task_arithmetic", {"scaling": 0.5}, examples=16, asked=20, seed=1),
        Trial("task_arithmetic", {"scaling": 0.5}, examples=16, asked=20, experts=("e0", "e1")),
        Trial("task_arithmetic", {"scaling": 0.5}, examples=16, asked=20, rounds=2),
        replace(QUICK, after=({"stretch": {"scale": 1.2}},)),
        QUICK.on_test(),
    ]
    assert len({trial.key for trial in [QUICK, *others]}) == 8


@pytest.mark.parametrize("method", [name for name, case in CASES.items() if case.grids])
def test_every_method_gets_the_same_number_of_trials_defaults_first(method):
    found = questions.candidates(method)
    assert found[0] == questions.default(method)
    few = {"average": 1, "karcher": 1, "model_stock": 2}  # ways there are
    assert len(found) == few.get(method, questions.TRIALS)
    assert len({trial.key for trial in found}) == len(found)
    for trial in found:
        parse_options(method, trial.options)
        assert trial.split == "validation"


def test_a_trial_merges_with_its_steps(bench):
    """The stretch by nothing is the base itself."""
    nothing = bench.score(replace(QUICK, after=({"stretch": {"scale": 0.0}},)))
    assert nothing["gap"] == pytest.approx(0)
    assert bench.score(QUICK)["gap"] != pytest.approx(0)


@pytest.mark.parametrize("step", questions.STEPS)
def test_every_step_gets_as_many_trials_of_options_that_it_has(step):
    found = questions.candidates_after("tsv_m", step)
    assert len({trial.key for trial in found}) == 3
    for trial in found:
        validated(step, STEPS[step].options, trial.after[0][step])


def test_only_the_table_sees_test_data(bench, monkeypatch):
    monkeypatch.setattr(Bench, "best", lambda self, trials: trials[-1])
    tables = ("table", "seeds", "steps_table", "again")
    for name, section in questions.SECTIONS.items():
        splits = {trial.split for trial in section(bench)}
        assert splits == ({"test"} if name in tables else {"validation"}), name


def test_the_frontier_chooses_on_validation_data_and_then_sees_test_data(bench, monkeypatch):
    monkeypatch.setattr(Bench, "best", lambda self, trials: trials[-1])
    trials = frontier.section(bench)
    tried = [trial for row in frontier.ROWS for trial in row.trials]
    assert trials[: len(tried)] == tried
    assert {trial.split for trial in tried} == {"validation"}
    assert {trial.split for trial in trials[len(tried) :]} == {"test"}
    for trial in trials:
        parse_options(trial.method, trial.options)


def test_statistics_are_measured_for_those_alone_that_read_them(bench, monkeypatch):
    monkeypatch.setattr("benchmarks.study.trials.measure_all", lambda *a, **k: {"e0": "file"})
    assert bench.statistics(Trial("kfac")) == {"e0": "file"}
    assert bench.statistics(Trial("kfac", {"gram": "update"})) == {}
    assert bench.statistics(Trial("sequential")) == {}


def test_a_row_shows_the_best_of_validation_and_nothing_half_done(tmp_path):
    row = frontier.Row("data", {"sequential": [{"damping": 0.1}, {"damping": 0.2}]}, {"text": 90})
    store = Store(tmp_path / "text.json")

    def put(trial: Trial, value: float) -> None:
        kept = {"normalised": value, "gap": value - 0.1, "half_width": 0.01, "tasks": {}}
        store.put(trial, {**kept, "cpu": 7.2})

    first, second = row.trials
    put(first, 0.7)
    assert frontier.chosen(row, store) is None
    assert frontier.cells(row, "text", store) == ("–", "–")
    put(second, 0.8)
    assert frontier.chosen(row, store) == second
    put(first.on_test(), 0.99)  # what is not chosen is not shown
    for seed, value in ((0, 0.8), (1, 0.9)):
        put(second.on_test(seed), value)
    assert frontier.cells(row, "text", store) == ("85.0 ± 1.0 (7.1)", "75.0 % (goal 90)")
    assert frontier.cost(row, store) == "7"


def test_rows_of_another_build_are_said_to_be(tmp_path):
    stores = [Store(tmp_path / f"{place}.json") for place in range(3)]
    for store, accuracy in zip(stores, (0.8, 0.8, 0.9), strict=True):
        tasks = {"a": [0.5, accuracy, 0.3, 400], "b": [0.5, 1.0, 0.3, 400]}
        store.put(Trial("average").on_test(), {"normalised": 0.5, "tasks": tasks})
    first, same, other = stores
    assert cells.of_other_build("vision", same, first) == ""
    said = cells.of_other_build("vision", other, first)
    assert "right about 95.0 % of" in said
    assert "methods about 90.0 %," in said


def test_a_section_that_was_not_run_again_shows_the_earlier_build(tmp_path):
    later, earlier = Store(tmp_path / "vision.json"), Store(tmp_path / "earlier/vision.json")
    for store, accuracy in ((later, 0.8), (earlier, 0.9)):
        tasks = {"a": [0.5, accuracy, 0.3, 400]}
        store.put(Trial("average").on_test(), {"normalised": 0.5, "tasks": tasks})
    earlier.content["sections"] = ["way"]
    earlier.save()
    for section, build in (("way", 0.9), ("rank", 0.8)):
        used, said = cells.latest(tmp_path, section, {"vision": later, "text": later})
        assert cells.builds(used["vision"]) == {(("a", build),)}
        assert ("another build" in said) == (section == "way")
        assert used["text"] is later


def test_the_coefficient_is_where_the_predicted_loss_is_least():
    layer = random_case(0).layer
    update = layer.mean_update
    found = coefficient(layer, update)
    assert found is not None

    def loss(factor: float) -> float:
        total = 0.0
        for own, task in zip(layer.statistics, layer.updates, strict=True):
            a, b = own.input_gram, own.output_gradient_gram
            assert isinstance(a, torch.Tensor)
            assert isinstance(b, torch.Tensor)
            a, b = a / a.trace(), b / b.trace()
            a = a + 0.1 * a.trace() / len(a) * torch.eye(len(a), dtype=a.dtype)
            b = b + 0.1 * b.trace() / len(b) * torch.eye(len(b), dtype=b.dtype)
            away = factor * update - task
            total += float((away * (b @ away @ a)).sum())
        return total

    assert loss(found) < min(loss(found - 0.01), loss(found + 0.01))


@pytest.mark.parametrize("method", ["task_arithmetic", "essential", "consensus"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_scaling_of_few_experts_is_what_validation_examples_want(method, count):
    results = Path(scalings.__file__).parent / "results"
    store = Store(scalings.file(results, "sample"))
    assert scalings.usual(method, count) == scalings.wanted(store, method, count)
    tried = scalings.means(store, "validation", method, count)
    assert tried[scalings.usual(method, count)] > tried[scalings.usual(method, 8)]


def test_subsets_hold_every_expert_equally_often():
    names = tuple("abcdefgh")
    for count, number in ((2, 4), (4, 2), (3, 8)):
        found = scalings.subsets(names, count, number, seed=0)
        assert len(set(found)) == number
        times = [sum(name in one for one in found) for name in names]
        assert set(times) == {count * number // len(names)}


# The number of tasks ------------------------------------------------------------------------------


def test_each_order_adds_a_task_to_those_before_and_all_are_merged_once():
    names = tuple("abcdefgh")
    assert questions.added(names, 8) == [()]
    assert questions.added(names, 11) == []
    counts = [count for count in sorted(questions.COUNTS) if count < 8]
    orders = [questions.added(names, count) for count in counts]
    for few, more in itertools.pairwise(orders):
        assert all(set(a) < set(b) for a, b in zip(few, more, strict=True))
    assert all(len(set(one)) == len(questions.STARTS) for one in orders)
    assert all(list(experts) == sorted(experts) for one in orders for experts in one)


def test_a_point_of_the_curve_is_the_mean_of_all_orders_or_missing(tmp_path):
    store, (way, *_) = Store(tmp_path / "sample.json"), questions.NUMBERED
    names = tuple("abcdefgh")

    def put(experts: tuple[str, ...], value: float) -> None:
        store.put(way.of(experts), {"normalised": value, "tasks": dict.fromkeys(experts or names)})

    put((), 0.7)
    for experts, value in zip(questions.added(names, 2), (0.8, 0.9, 1.0), strict=True):
        put(experts, value)
    put(questions.added(names, 4)[0], 0.5)
    ((found, curve),) = numbered.curves(store)
    assert found == way
    assert curve == {2: (pytest.approx(90), None), 8: (pytest.approx(70), None)}
    assert "| Average | 90.0 | 70.0 |" in numbered.table("sample", [(way, curve)])


# Corrupted inputs, and the base's task ------------------------------------------------------------


def test_noise_and_blur_are_those_of_their_formulas():
    flat = np.full((40, 24, 24, 3), 128, np.uint8)
    noisy = beside.noise(flat, np.random.default_rng(0)).astype(float) - 128
    assert noisy.std() == pytest.approx(255 * beside.NOISE, rel=0.02)
    assert abs(noisy.mean()) < 0.5
    point = np.zeros((1, 25, 25, 1), np.uint8)
    point[0, 12, 12] = 250
    places = np.arange(25) - 12.0
    bell = np.exp(-(places**2) / (2 * beside.BLUR**2))
    bell = np.where(abs(places) <= 4 * beside.BLUR, bell, 0)  # where the library cuts it
    bell /= bell.sum()
    expected = 250 * bell[:, None] * bell[None]
    found = beside.blur(point, np.random.default_rng(0))[0, :, :, 0]
    assert abs(found - expected).max() <= 0.51  # rounded to whole numbers
    assert found.dtype == np.uint8


def test_typing_errors_change_some_long_words_by_one_slip():
    text = "the quick brown foxes jumped over a lazy dog " * 40
    (found,) = beside.typos(np.array([[text]], dtype=object), np.random.default_rng(0))[0]
    pairs = list(zip(text.split(" "), found.split(" "), strict=True))
    assert all(a == b for a, b in pairs if len(a) < beside.LEAST)
    longer = [(a, b) for a, b in pairs if len(a) >= beside.LEAST]
    changed = [(a, b) for a, b in longer if a != b]
    assert 0.2 < len(changed) / len(longer) < 0.4
    for before, after in changed:
        assert abs(len(before) - len(after)) <= 1
        head = next(k for k in range(len(before)) if before[k : k + 1] != after[k : k + 1])
        assert before[head + 2 :] == after[head + 2 + len(after) - len(before) :]


def test_the_shares_are_of_the_experts_on_clean_inputs_and_of_the_base(bench, monkeypatch):
    monkeypatch.setattr(beside, "TEST_ASKED", 30)
    asking = beside.Asking.of(bench)
    exam = examiner.exam(asking.family, bench.collection.folder, "test", 30)
    encoder = tensors_of(asking.family.base)
    shares = asking.shares(encoder)
    assert set(shares) == {"noise", "blur"}
    for one, (expert, _) in zip(exam.examiners, exam.baselines, strict=True):
        changed = beside.corrupted(one.split, "noise")
        score = evaluate.evaluate_expert(encoder, asking.family, one.expert, changed)
        assert shares["noise"][one.expert.name] == score.accuracy / expert.accuracy
        again = beside.corrupted(one.split, "noise")
        assert isinstance(again, Split)
        assert (again.inputs == changed.inputs).all()
        assert (changed.inputs != one.split.inputs).any()
    assert asking.remembered(encoder) == (1.0 if bench.collection.base_task else None)
