"""Examiners: the same answers as asking one by one, fewer questions where that is enough."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from mats_core.evaluation import examiner
from mats_core.evaluation.evaluate import score, with_head
from mats_core.evaluation.examiner import Asked, Examiner, exam, examining
from mats_core.evaluation.scores import Score, TaskResult, half_width
from mats_core.merging.pipeline import merge, run
from mats_core.models.images import pixel_values
from mats_core.models.modules import build, forward, tensors_of
from mats_core.recipes.events import Finished
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_recipe
from mats_core.tasks.loading import load
from tests.conftest import family_recipe


@pytest.fixture
def inputs(tiny_family):
    return open_inputs(parse_recipe(family_recipe(tiny_family, "average"), tiny_family))


@pytest.fixture
def encoder(inputs):
    return tensors_of(inputs.family.experts[1].checkpoint)


def test_the_shared_module_gives_the_logits_of_the_built_one(inputs, tiny_family):
    for expert in inputs.family.experts:  # heads of three sizes
        own = tensors_of(expert.checkpoint)
        images = load(tiny_family / expert.task).test.inputs[:7]
        pixels = pixel_values(images, expert.checkpoint.directory)
        with torch.inference_mode():
            slow = build(expert.checkpoint.directory, own)(pixel_values=pixels).logits
            fast = forward(expert.checkpoint.directory, own)(own, {"pixel_values": pixels})
        assert torch.equal(slow, fast)


def test_two_threads_may_ask_the_shared_module(inputs, tiny_family):
    """As a panel does beside the cells of its notebook."""
    expert = inputs.family.experts[1]
    own = tensors_of(expert.checkpoint)
    images = load(tiny_family / expert.task).test.inputs[:7]
    pixels = {"pixel_values": pixel_values(images, expert.checkpoint.directory)}
    asked = forward(expert.checkpoint.directory, own)
    others = [own, {name: value + 0.05 for name, value in own.items()}]

    def ask(tensors):
        with torch.inference_mode():
            return asked(tensors, pixels)

    right = [ask(tensors) for tensors in others]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # threads take turns within a call
    try:
        with ThreadPoolExecutor(2) as pool:
            told = list(pool.map(ask, others * 10))
    finally:
        sys.setswitchinterval(before)
    for number, logits in enumerate(told):
        assert torch.equal(logits, right[number % 2])


def test_all_examples_are_asked_once_and_agree_with_a_model_of_its_own(
    inputs, encoder, tiny_family
):
    found = exam(inputs.family, tiny_family, "test")
    *_, last = found.take(encoder)
    assert last.done
    assert last.fraction == 1
    for expert, result in zip(inputs.family.experts, last.results, strict=True):
        split = load(tiny_family / expert.task).test
        tensors = with_head(encoder, inputs.family, expert)
        model = build(expert.checkpoint.directory, tensors)
        with torch.inference_mode():
            pixels = pixel_values(split.inputs, expert.checkpoint.directory)
            right = model(pixel_values=pixels).logits.argmax(-1).numpy() == split.labels
        assert result.merged.answers == "".join("1" if r else "0" for r in right)
        assert result.merged == score(expert.checkpoint.directory, tensors, split)
        assert result.merged.correct == right.sum()


def test_stopping_early_asks_fewer_and_going_on_asks_the_rest(
    inputs, encoder, tiny_family, monkeypatch
):
    monkeypatch.setattr(examiner, "ROUND", 8)
    found = exam(inputs.family, tiny_family, "test")
    *_, whole = found.take(encoder)
    *_, early = found.take(encoder, precision=2 * whole.half_width)
    asked = sum(r.merged.examples for r in early.results)
    assert asked < sum(r.merged.examples for r in whole.results)
    assert early.half_width <= 2 * whole.half_width
    for some, everything in zip(early.results, whole.results, strict=True):
        pairs = zip(some.merged.answers, everything.merged.answers, strict=True)
        assert all(a == b for a, b in pairs if a != "-")
        assert some.merged.examples == len(some.merged.answers) - some.merged.answers.count("-")
    *_, rest = found.take(encoder, known=early.results)
    assert rest.results == whole.results


def test_a_known_answer_is_not_asked_again(inputs, encoder, tiny_family, monkeypatch):
    found = exam(inputs.family, tiny_family, "test")
    *_, whole = found.take(encoder)

    def never(*arguments):
        raise AssertionError("asked again")

    monkeypatch.setattr(Examiner, "logits", never)
    *_, again = found.take(encoder, known=whole.results)
    assert again.results == whole.results


def test_the_width_of_the_interval_covers_the_truth():
    # 2,000 examinations of three tasks whose true accuracies are known: about 95 % cover.
    random = np.random.default_rng(4)
    truth, tuned, n = np.array([0.6, 0.8, 0.97]), np.array([0.9, 0.9, 1.0]), 100
    covered = 0
    for _ in range(2000):
        counts = random.binomial(n, truth)
        results = [
            TaskResult("t", Score(int(k), n), Score(int(1000 * f), 1000), Score(0, 1000))
            for k, f in zip(counts, tuned, strict=True)
        ]
        estimate = float((counts / n / tuned).mean())
        covered += abs(estimate - float((truth / tuned).mean())) <= half_width(results)
    assert 0.935 <= covered / 2000 <= 0.97


def test_the_test_is_told_once_its_experts_are_ready(tiny_family):
    family = open_inputs(parse_recipe(family_recipe(tiny_family, "average"), tiny_family)).family
    told = list(examining(family, tiny_family, "validation"))
    assert [e.text for e in told[:-1]] == [f"Testing the expert e{m}" for m in range(3)]
    assert (told[-1].fraction, told[-1].text) == (1.0, "Testing on every task")


def test_a_recipe_may_say_how_precise(tiny_family, monkeypatch):
    monkeypatch.setattr(examiner, "ROUND", 8)

    def events(**evaluate):
        content = {**family_recipe(tiny_family, "average"), "evaluate": evaluate}
        return list(run(parse_recipe(content, tiny_family)))

    everything, rough = events(), events(precision=0.3)
    assert any(isinstance(event, Asked) for event in rough)
    whole, report = (next(e for e in told if isinstance(e, Finished)).report
                     for told in (everything, rough))  # fmt: skip
    asked, all_of_them = (sum(t.merged.examples for t in r.tasks) for r in (report, whole))
    assert asked < all_of_them
    assert half_width(report.tasks) <= 0.3


@pytest.mark.parametrize(("quiet", "looks"), [(0.0, 8), (1e9, 4)])
def test_rounds_grow_while_they_are_short_and_nothing_could_end_them(
    quiet, looks, inputs, encoder, tiny_family, monkeypatch
):
    monkeypatch.setattr(examiner, "ROUND", 8)
    monkeypatch.setattr(examiner, "QUIET", quiet)
    found = exam(inputs.family, tiny_family, "test")
    rounds = [0] * len(found.examiners)
    ask = Examiner.ask

    def counted(self, *said):
        rounds[found.examiners.index(self)] += 1
        return ask(self, *said)

    monkeypatch.setattr(Examiner, "ask", counted)
    *_, last = found.take(encoder)
    assert last.done
    assert [r.merged.examples for r in last.results] == [60] * 3
    assert set(rounds) == {looks}  # of 60 examples: 8 each time, or 8, 16, 32, 4


def test_experts_of_other_names_are_not_mixed_up(tiny_family):
    content = family_recipe(tiny_family, "average")
    renamed = json.loads(json.dumps(content))
    renamed["experts"][0]["name"] = "someone else"
    assert merge(parse_recipe(renamed, tiny_family)).tasks[0].name == "someone else"
