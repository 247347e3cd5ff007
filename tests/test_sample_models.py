"""The sample family: what the repository ships, its drawings, and the training loop."""

from __future__ import annotations

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mats_core import models, tasks
from mats_core.checkpoints.files import Checkpoint
from mats_core.evaluation import evaluate, kept
from mats_core.evaluation.evaluate import baselines
from mats_core.merging.pipeline import merge
from mats_core.merging.shipped import differing, shipped_results, task_digests
from mats_core.recipes.family_file import load_family, measure_all
from mats_core.recipes.plan import open_inputs
from mats_core.recipes.recipe import parse_options
from mats_core.recipes.sections import TRIED
from sample_models import build, scores, shipped, table, training
from sample_models import tasks as drawn

FAMILY = Path(drawn.__file__).parent / "drawn"
TINY = replace(
    training.Settings(), width=24, layers=1, heads=2, hidden=32, base_steps=3, base_images=20,
    steps=3, batch=8, base_batch=8,
)  # fmt: skip


def test_the_family_is_whole_and_small():
    collection = load_family(FAMILY)
    assert {expert.name for expert in collection.experts} == set(drawn.TASKS)
    files = list(FAMILY.glob("*/model.safetensors"))
    assert len(files) == len(drawn.TASKS) + 1
    assert sum(file.stat().st_size for file in files) <= 30e6
    family = open_inputs(collection.recipe("average")).family
    assert {n for n, role in family.roles.items() if role == "head"} == {
        "classifier.weight",
        "classifier.bias",
    }
    for expert in family.experts:
        classes = tasks.load(expert.task).classes
        assert expert.checkpoint.class_names == classes


def test_experts_are_experts_and_the_base_is_not():
    """Two tasks stand for all; the table in the README has every figure."""
    family = open_inputs(load_family(FAMILY).recipe("average")).family
    for name in ("digits", "orientation"):
        expert = next(e for e in family.experts if e.name == name)
        task = tasks.load(expert.task)
        assert len(task.test) >= 500
        finetuned, pretrained = baselines(family, expert, task, "test", 300, "cpu")
        assert finetuned.accuracy > 0.85
        assert pretrained.accuracy < finetuned.accuracy - 0.1


def test_digits_come_from_the_file_as_from_the_package(monkeypatch: pytest.MonkeyPatch):
    """The file is read alone, which is faster; without it in its place the package is asked."""
    alone = drawn.arrays("digits")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    asked: list[str] = []
    monkeypatch.setattr(
        drawn,
        "needed",
        lambda thing, module, *rest: asked.append(module) or importlib.import_module(module),
    )
    package = drawn.arrays("digits")
    assert asked == ["sklearn.datasets"]
    assert all(np.array_equal(alone[key], package[key]) for key in package)


def test_the_scores_that_come_with_the_family_are_those_of_its_models():
    """Written by `python -m sample_models.scores`; one task is asked whole."""
    family = open_inputs(load_family(FAMILY).recipe("average")).family
    brought = kept.brought(FAMILY / scores.FILE)
    asked = {e.name: scores.asked(family, e) for e in family.experts}
    assert set(brought) == {kept.name_of(k) for one in asked.values() for _, k in one.values()}
    orientation = next(e for e in family.experts if e.name == "orientation")
    task, key = asked["orientation"]["validation"]
    pair = brought[kept.name_of(key)]
    for score, model in zip(pair, (orientation.checkpoint, family.base), strict=True):
        again = evaluate.evaluate_expert(
            models.tensors_of(model), family, orientation, task.validation
        )
        flips = sum(a != b for a, b in zip(score.answers, again.answers, strict=True))
        assert flips <= 2  # another machine rounds otherwise


def test_the_shipped_results_are_those_of_these_files_and_methods():
    """`python -m sample_models.shipped` writes them anew."""
    collection = load_family(FAMILY)
    found = shipped_results(collection)
    assert found is not None
    assert found.tasks == task_digests(collection)
    assert tuple(report.method for report in found.reports) == shipped.METHODS
    asked = TRIED.model_copy(update={"examples": 40})
    statistics = measure_all(collection, with_base=False)
    for report in found.reports:
        recipe = collection.recipe(report.method, statistics=statistics, evaluate=asked)
        now = merge(recipe)
        then = parse_options(report.method, report.options).model_dump()
        assert (then, report.split) == (now.options, now.split)
        assert report.fingerprints == now.fingerprints
        first = tuple(
            replace(task, merged=replace(task.merged, answers=task.merged.answers[:40]))
            for task in report.tasks
        )
        turned, count = differing(first, now.tasks)
        assert count == 8 * 40
        assert turned <= 0.01 * count


@pytest.mark.parametrize("name", [*drawn.TASKS, *drawn.PRETRAINING])
def test_drawings_are_seeded_and_halves_are_disjoint(name):
    first = drawn.arrays(name, train=24, test=16)
    again = drawn.arrays(name, train=24, test=16)
    for key in tasks.ARRAYS:
        np.testing.assert_array_equal(first[key], again[key])
    assert first["x_train"].dtype == np.uint8
    assert first["x_train"].shape[1:] == (24, 24, 3)
    assert set(np.unique(first["y_test"])) <= set(range(len(first["classes"])))
    seen = {image.tobytes() for image in first["x_train"]}
    assert not seen & {image.tobytes() for image in first["x_test"]}


def test_the_joint_task_has_the_base_s_classes():
    joint = drawn.arrays("pretraining", train=60, test=40)
    assert tuple(joint["classes"]) == Checkpoint.open(FAMILY / "base").class_names
    assert len(joint["y_train"]) == 60
    assert len(joint["y_test"]) == 40


def test_training_is_deterministic(tmp_path):
    arrays = {"digits": drawn.arrays("digits", train=40)}
    try:
        fingerprints = []
        for attempt in ("first", "second"):
            base = training.pretrain(arrays, TINY)
            training.save(training.fine_tune(base, arrays["digits"], TINY), tmp_path / attempt)
            fingerprints.append(Checkpoint.open(tmp_path / attempt).fingerprint)
    finally:
        torch.use_deterministic_algorithms(False)
    assert fingerprints[0] == fingerprints[1]


def test_only_matrices_moves_nothing_else():
    arrays = drawn.arrays("digits", train=40)
    try:
        base = training.pretrain({"digits": arrays}, TINY)
        expert = training.fine_tune(base, arrays, replace(TINY, only_matrices=True))
    finally:
        torch.use_deterministic_algorithms(False)
    before = base.vit.state_dict()
    for name, value in expert.vit.state_dict().items():
        moved = not torch.equal(value, before[name])
        assert moved == (value.ndim == 2 and name.endswith(".weight")), name


def test_build_from_the_user_s_own_images(tmp_path):
    rng = np.random.default_rng(0)
    images = tmp_path / "images"
    images.mkdir()
    for name, classes in (("stripes", 2), ("noise", 3)):
        np.savez(
            images / f"{name}.npz",
            x_train=rng.integers(0, 255, (20, 32, 32), dtype=np.uint8),
            y_train=rng.integers(0, classes, 20),
            x_test=rng.integers(0, 255, (10, 32, 32), dtype=np.uint8),
            y_test=rng.integers(0, classes, 10),
            classes=np.array([f"{name} {k}" for k in range(classes)]),
        )
    out = tmp_path / "family"
    build.main(["--images", str(images), "--out", str(out), "--steps", "2", "--no-table"])
    collection = load_family(out)
    assert [expert.name for expert in collection.experts] == ["noise", "stripes"]
    config = json.loads((out / "noise" / "config.json").read_text())
    assert len(config["id2label"]) == 3
    report = build_average(collection)
    assert [task.name for task in report.tasks] == ["noise", "stripes"]


def build_average(collection):
    from mats_core.merging.pipeline import merge

    return merge(collection.recipe("average"))


def test_the_grids_cover_every_method():
    from mats_core.recipes.recipe import parse_options
    from tests.method_cases import CASES

    # The table is over the whole family: a method for two experts has no row in it.  One that
    # walks through models is not among the study's trials, and has one here.
    searched = {name for name, case in CASES.items() if case.grids}
    assert set(table.GRIDS) == searched | {"sequential"}
    for method, grid in table.GRIDS.items():
        for name, values in grid.items():
            for value in values:
                parse_options(method, {name: value})


def test_some_rows_of_the_table_are_written_anew_and_the_others_stay(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(table, "GRIDS", {"average": {}, "task_arithmetic": {"scaling": [0.3]}})
    readme, family = tmp_path / "README.md", tiny_family / "family.yaml"
    readme.write_text(f"before\n{table.BEGIN}\n{table.END}\nafter\n")
    whole = table.write_table(family, readme, ["average", "task_arithmetic"])
    assert readme.read_text() == f"before\n{table.BEGIN}\n{whole}\n{table.END}\nafter\n"
    assert len([line for line in whole.splitlines() if line.startswith("| `average` |")]) == 2
    changed = whole.replace("| `average` | ", "| `average` | 0")
    readme.write_text(readme.read_text().replace(whole, changed))
    assert table.write_table(family, readme, ["task_arithmetic"]) == changed
    assert table.write_table(family, readme, ["average"]) == whole
