"""Refining: a merge that is trained further by distillation, and everything that it must leave."""

from __future__ import annotations

import filecmp
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mats_core import models, tasks
from mats_core.cli.main import main
from mats_core.errors import InputError
from mats_core.estimating import estimate_plan
from mats_core.evaluation import with_head
from mats_core.merging import training_state
from mats_core.merging.pipeline import merge, planned, run
from mats_core.merging.training_state import State
from mats_core.recipes.events import EpochDone, Finished
from mats_core.recipes.family_file import load_family
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import Recipe, load_recipe, parse_recipe
from mats_core.recipes.refined import Epoch
from mats_core.recipes.report import Report
from mats_core.recipes.sections import Refine
from tests.conftest import family_recipe
from tests.text_cases import text_family

QUICK = {"epochs": 2, "examples": 24, "batch": 8, "rate": 1e-3, "validation": 12}


def recipe_of(folder: Path, output: Path | None = None, **settings: Any) -> Recipe:
    content = family_recipe(folder, "average", evaluate=False, refine=QUICK)
    place = {} if output is None else {"output": str(output)}
    return parse_recipe({**content, **place, **settings}, folder)


def finished(recipe: Recipe) -> Finished:
    return next(event for event in run(recipe) if isinstance(event, Finished))


def same_model(first: Path, second: Path) -> bool:
    return filecmp.cmp(first / "model.safetensors", second / "model.safetensors", shallow=False)


@pytest.fixture(scope="module")
def whole(tiny_family, tmp_path_factory):
    """The output of a refined merge without an interruption."""
    folder = tmp_path_factory.mktemp("refined") / "out"
    merge(recipe_of(tiny_family, folder))
    return folder


@pytest.fixture(scope="module")
def report(whole):
    return Report.from_dict(json.loads((whole / "report.json").read_text()))


def test_the_divergence_from_the_experts_falls(report):
    history = report.refined.history
    assert [epoch.number for epoch in history] == [0, 1, 2]
    assert history[2].divergence < 0.9 * history[0].divergence
    assert sum(history[2].losses.values()) < sum(history[1].losses.values())
    assert set(history[2].losses) == set(history[0].scores) == {"e0", "e1", "e2"}
    assert report.refined.best == 2


def test_the_divergence_is_the_one_that_is_written_down(tiny_family, report):
    """Of the merge before any step, against softmax and logarithm taken here."""
    plain = finished(recipe_of(tiny_family, refine=None))
    family = open_inputs(recipe_of(tiny_family)).family
    for expert in family.experts:
        task = tasks.load(str(expert.task), root=tiny_family)
        some = task.validation.first(QUICK["validation"])
        rows = models.encode(some, expert.checkpoint.directory)
        answers = []
        for encoder in (models.tensors_of(expert.checkpoint), plain.tensors):
            tensors = with_head(encoder, family, expert)
            model = models.build(expert.checkpoint.directory, tensors)
            with torch.no_grad():
                batch = next(iter(rows.batches(torch.arange(len(some)).numpy())))
                answers.append(model(**batch.inputs).logits.double())
        p, q = (one.softmax(-1) for one in answers)
        expected = float((p * (p / q).log()).sum(-1).mean())
        assert report.refined.history[0].divergences[expert.name] == pytest.approx(
            expected, rel=1e-4
        )


def test_one_step_is_that_of_adam_along_the_gradient_of_the_sum(tiny_family):
    """The first step of Adam moves every entry by the rate, against the sign of its gradient."""
    one = {**QUICK, "epochs": 1, "examples": 8, "batch": 8, "rate": 1e-3}
    before = finished(recipe_of(tiny_family, refine=None)).tensors
    after = finished(recipe_of(tiny_family, refine=one)).tensors
    name = "vit.encoder.layer.0.intermediate.dense.weight"
    moved = (after[name] - before[name] * (1 - 1e-3 * 0.01)).abs()  # less AdamW's decay
    assert float(moved.median()) == pytest.approx(1e-3, rel=1e-3)
    assert float(moved.max()) <= 1.001e-3


def test_what_is_no_weight_of_the_encoder_stays(tiny_family, whole):
    before = finished(recipe_of(tiny_family, refine=None)).tensors
    after = load_file(whole / "model.safetensors")
    assert sorted(before) == sorted(after)
    heads = [name for name in before if name.startswith("classifier")]
    assert heads
    assert all(torch.equal(before[name], after[name]) for name in heads)
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > 0.8 * len(before)


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"rate": 1.0, "patience": 1}])
def test_no_step_or_none_that_is_better_leaves_the_bytes_of_the_merge(
    tiny_family, tmp_path, settings
):
    report = merge(recipe_of(tiny_family, tmp_path / "a", refine={**QUICK, **settings}))
    merge(recipe_of(tiny_family, tmp_path / "b", refine=None))
    assert same_model(tmp_path / "a", tmp_path / "b")
    assert report.refined is not None
    assert report.refined.best == 0
    assert not report.trained
    assert "not trained" in report.refined.sentence


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tiny_family, whole, tmp_path):
    merge(recipe_of(tiny_family, tmp_path / "same"))
    assert same_model(whole, tmp_path / "same")
    merge(recipe_of(tiny_family, tmp_path / "other", seed=1))
    assert not same_model(whole, tmp_path / "other")


def test_in_memory_it_is_the_same(tiny_family, whole):
    found, written = (
        finished(recipe_of(tiny_family)).tensors,
        load_file(whole / "model.safetensors"),
    )
    assert all(torch.equal(found[name], value) for name, value in written.items())


@pytest.mark.parametrize("after", [0, 1, 2])
def test_resumed_after_an_epoch_it_gives_the_same_bytes(tiny_family, whole, tmp_path, after):
    recipe, epochs = recipe_of(tiny_family, tmp_path / "out"), []
    events = run(recipe, resume=True)
    for event in events:
        if isinstance(event, EpochDone) and event.epoch.number == after:
            events.close()
            break
    partial = tmp_path / ".out.partial"
    assert (partial / training_state.FILE).exists() == bool(after)
    asked = 0
    for event in run(recipe, resume=True):
        asked += event.text.startswith("Asking the expert")
        if isinstance(event, EpochDone):
            epochs.append(event.epoch.number)
    assert asked == (0 if after == 2 else 3)  # of a training that has ended nothing is left
    assert epochs == [after, *range(after + 1, 3)]
    assert same_model(whole, tmp_path / "out")
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {path.name for path in whole.iterdir()}


def test_cancelled_it_leaves_nothing(tiny_family, tmp_path):
    events = run(recipe_of(tiny_family, tmp_path / "out"))
    for event in events:
        if isinstance(event, EpochDone) and event.epoch.number == 1:
            events.close()
            break
    assert list(tmp_path.iterdir()) == []


def test_texts_and_heads_of_other_sizes(tmp_path):
    """BERT with two classes and with three: each is asked through its own head."""
    text_family(tmp_path)
    recipe = load_family(tmp_path).recipe("average", evaluate=False, device="cpu")
    found = finished(recipe.model_copy(update={"refine": Refine(**QUICK)})).report.refined
    assert found is not None
    first, *_, last = found.history
    assert set(last.losses) == {"m0", "m1"}
    assert all(last.divergences[name] < first.divergences[name] for name in ("m0", "m1"))


def test_progress_never_goes_back(tiny_family):
    seen = [event.fraction for event in run(recipe_of(tiny_family))]
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_training_ends_when_no_epoch_is_better():
    def state(*divergences: float) -> State:
        epochs = (Epoch(n, {}, {"t": value}, {}) for n, value in enumerate(divergences))
        return State(tuple(epochs))

    settings = recipe_of(Path(), refine={"epochs": 5, "patience": 2}).refine
    assert settings is not None
    assert not state(3.0, 2.0, 2.5).ended(settings)
    assert state(3.0, 2.0, 2.5, 2.0).ended(settings)  # equal is no better
    assert state(3.0, 2.0, 2.5, 2.0).best_epoch == 1
    assert state(6.0, 5.0, 4.0, 3.0, 2.0, 1.0).ended(settings)


def test_everything_that_is_written_says_trained(tiny_family, whole, report):
    assert report.trained
    assert "trained" in repr(report)
    assert "2 epochs of distillation on 24 unlabelled examples a task" in report.refined.sentence
    card = (whole / "README.md").read_text()
    assert ", trained further" in card
    assert report.refined.sentence in card
    assert load_recipe(whole / "recipe.yaml").refine == recipe_of(tiny_family).refine


def test_from_the_command_line(tiny_family, tmp_path, capsys):
    content = family_recipe(tiny_family, "average", refine={**QUICK, "epochs": 1})
    (tiny_family / "refined.yaml").write_text(json.dumps(content))
    recipe, output = str(tiny_family / "refined.yaml"), ["--output", str(tmp_path / "out")]
    assert main(["merge", recipe, "--refine", "2", *output]) == 0
    said = capsys.readouterr()
    assert "average, trained: " in said.out
    assert "normalised accuracy (trained)" in said.out
    assert "trained: 2 epochs of distillation on 24 unlabelled examples a task" in said.out
    assert "refining: epoch 2 of 2: divergence" in said.err


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"experts": [{"name": "e0", "model": "e0"}]}, "none for e0"),
        ({"refine": {"epochs": -1}}, "epochs"),
        ({"refine": {"epoch": 3}}, "epochs"),
        ({"refine": {"rate": 0}}, "rate"),
    ],
)
def test_what_cannot_be_refined_is_refused_before_any_work(tiny_family, changes, sentence):
    content = {**family_recipe(tiny_family, "average", refine=QUICK), **changes}
    with pytest.raises(InputError, match=sentence):
        planned(parse_recipe(content, tiny_family))


def test_an_estimate_grows_with_the_epochs(tiny_family):
    def seconds(epochs: int) -> float:
        recipe = recipe_of(tiny_family, refine={**QUICK, "epochs": epochs})
        return estimate_plan(planned(recipe)).parts["refining"]

    assert seconds(8) - seconds(4) == pytest.approx(4 * (seconds(2) - seconds(1)), rel=1e-6)
    assert estimate_plan(planned(recipe_of(tiny_family, refine=None))).parts["refining"] == 0
