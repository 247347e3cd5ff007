"""Experts are tested before a merge: one that does worse than its base is told first, and once."""

from __future__ import annotations

import json
import re
import shutil
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

import mats_core
from mats_core.cli.main import main
from mats_core.errors import markdown
from mats_core.evaluation import evaluate, kept
from mats_core.merging.asking import evaluating_output
from mats_core.merging.pipeline import merge, run
from mats_core.recipes.events import Examined, Finished, LayerDone, TrialDone
from mats_core.recipes.family_file import load_family
from mats_core.recipes.recipe import parse_recipe
from mats_core.system.remember import memory
from mats_core.system.stream import drain
from pages.shared.work import prepare
from tests.conftest import family_recipe

DOUBT = "the expert 'e0' reaches"


@pytest.fixture
def turned(tiny_family, tmp_path):
    """The experts' entries, the first of which has labels in another order than its head."""
    arrays = dict(np.load(tiny_family / "t0.npz"))
    for split in ("y_train", "y_test"):
        arrays[split] = (arrays[split] + 1) % len(arrays["classes"])
    np.savez(tmp_path / "turned.npz", **arrays)
    experts = [dict(e) for e in family_recipe(tiny_family, "average")["experts"]]  # type: ignore
    return [{**experts[0], "task": str(tmp_path / "turned.npz")}, *experts[1:]]


WAYS = {
    "plain": {"method": "average"},
    "of some examples": {"method": "average", "evaluate": {"examples": 20}},
    "rounds": {"method": "kfac", "options": {"iterations": 2}, "rounds": 2},
    "search": {"method": "task_arithmetic", "search": {"scaling": [0.1, 0.4]}},
}


def counted(monkeypatch) -> list[tuple[str, int]]:
    """What is asked of experts and base from now on; nothing is remembered yet."""
    asked: list[tuple[str, int]] = []
    real = evaluate.evaluate_expert

    def ask(encoder, family, expert, split, **settings):
        asked.append((expert.name, len(split)))
        return real(encoder, family, expert, split, **settings)

    memory().clear()
    monkeypatch.setattr(kept, "_read", lambda file: None)
    monkeypatch.setattr(evaluate, "evaluate_expert", ask)
    return asked


@pytest.mark.parametrize(("way", "written"), [("plain", True), *((way, False) for way in WAYS)])
def test_a_doubt_is_told_before_the_first_layer_and_once(
    tiny_family, turned, tmp_path, monkeypatch, way, written
):
    asked = counted(monkeypatch)
    content = {**family_recipe(tiny_family, "average"), "experts": turned, **WAYS[way]}
    if written:
        content["output"] = str(tmp_path / "out")
    events = list(run(parse_recipe(content, tiny_family)))
    told = [index for index, event in enumerate(events) if isinstance(event, Examined)]
    assert len(told) == 1
    assert not any(isinstance(e, LayerDone | TrialDone) for e in events[: told[0]])
    notes = next(event for event in events if isinstance(event, Examined)).notes
    assert any(DOUBT in note for note in notes)
    assert len(set(notes)) == len(notes)
    report = next(event for event in events if isinstance(event, Finished)).report
    assert [note for note in report.warnings if DOUBT in note] == [n for n in notes if DOUBT in n]
    # Expert and base on every task, once for each split that is asked.
    assert len(asked) == 2 * 3 * (2 if way == "search" else 1)
    if written:
        kept = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
        assert set(notes) <= set(kept)
        card = (tmp_path / "out" / "README.md").read_text()
        assert all(markdown(note) in card for note in notes)


def test_doubted_are_those_below_their_base_or_below_guessing(tiny_family):
    events = list(run(parse_recipe(family_recipe(tiny_family, "average"), tiny_family)))
    (told,) = [event for event in events if isinstance(event, Examined)]
    expected = []
    report = next(event for event in events if isinstance(event, Finished)).report
    for m, result in enumerate(report.tasks):
        guessing = 1 / len(np.load(tiny_family / f"t{m}.npz")["classes"])
        worse = result.finetuned.value < result.pretrained.value
        expected += [f"e{m}"] * (worse + (result.finetuned.value < guessing))
    assert [note.split("'")[1] for note in told.notes] == expected
    assert "e1" not in expected, "a good expert is among them"


def test_without_evaluation_nothing_is_asked(tiny_family, turned, monkeypatch):
    asked = counted(monkeypatch)
    content = {**family_recipe(tiny_family, "average"), "experts": turned, "evaluate": False}
    events = list(run(parse_recipe(content, tiny_family)))
    assert asked == []
    assert [event.notes for event in events if isinstance(event, Examined)] == []
    assert isinstance(events[-1], Finished)


def test_a_search_tells_doubts_where_its_merge_is_not_evaluated(tiny_family, turned, monkeypatch):
    asked = counted(monkeypatch)
    content = {**family_recipe(tiny_family, "average"), "experts": turned, **WAYS["search"]}
    events = list(run(parse_recipe({**content, "evaluate": False}, tiny_family)))
    (told,) = [event for event in events if isinstance(event, Examined)]
    assert any("on its task, less than" in note for note in told.notes)
    assert not any(isinstance(e, LayerDone | TrialDone) for e in events[: events.index(told)])
    report = next(event for event in events if isinstance(event, Finished)).report
    assert set(told.notes) <= set(report.warnings)
    assert report.tasks == ()
    assert len(asked) == 2 * 3, "once each, on validation data alone"


def test_python_warns_of_what_the_command_line_warns_of(tiny_family, turned):
    recipe = parse_recipe({**family_recipe(tiny_family, "average"), "experts": turned}, tiny_family)
    with pytest.warns(UserWarning, match=DOUBT) as caught:
        merged = mats_core.merge(recipe)
    told = [str(one.message) for one in caught]
    assert any(DOUBT in text for text in told)
    assert len(set(told)) == len(told)
    assert set(told) <= set(merged.report.warnings)


@pytest.mark.filterwarnings("ignore:answers of the model are NaN")
def test_answers_that_are_no_numbers_are_told_in_the_report_and_on_the_card(
    tiny_family, tmp_path, capsys
):
    shutil.copytree(tiny_family / "e0", tmp_path / "huge")
    weights = load_file(tmp_path / "huge" / "model.safetensors")
    for name in weights:  # finite, but not the scores of attention
        if name.endswith(("query.weight", "key.weight")):
            weights[name] = weights[name] * 1e25
    save_file(weights, tmp_path / "huge" / "model.safetensors", {"format": "pt"})
    content = family_recipe(tiny_family, "average")
    first, *others = [dict(e) for e in content["experts"]]  # type: ignore
    experts = [{**first, "model": str(tmp_path / "huge"), "statistics": None}, *others]
    out = tmp_path / "out"
    content |= {"experts": experts, "strangers": "allow", "output": str(out)}
    report = merge(parse_recipe(content, tiny_family))
    told = [note for note in report.warnings if "are NaN, which count as wrong" in note]
    merges = [f"answers of the merge to the task of 'e{m}'" for m in range(3)]
    whose = ["answers of the expert to the task of 'e0'", *merges]
    found = [re.split(" of 60 | are NaN", note) for note in told]
    assert [note[1] for note in found] == whose
    assert all(30 < int(note[0]) <= 60 for note in found)
    assert all(markdown(note) in (out / "README.md").read_text() for note in told)
    assert set(told) <= set(json.loads((out / "report.json").read_text())["warnings"])


def test_the_command_line_warns_before_it_merges(tiny_family, turned, tmp_path, capsys):
    content = {**family_recipe(tiny_family, "average"), "experts": turned}
    file = tiny_family / "doubted.yaml"
    file.write_text(json.dumps({**content, "output": str(tmp_path / "out")}))
    try:
        assert main(["merge", str(file)]) == 0
    finally:
        file.unlink()
    told = capsys.readouterr().err.splitlines()
    warning = next(i for i, line in enumerate(told) if line.startswith(f"warning: {DOUBT}"))
    device = next(i for i, line in enumerate(told) if line.startswith("device: "))
    assert warning < device, "the device is told when the first layer is merged"
    with pytest.warns(UserWarning, match=DOUBT):
        drain(evaluating_output(tmp_path / "out", "test"))


def quietly(fraction: float, text: str, partial: Any = None) -> None:
    """A job's `tell` that nothing listens to."""


def test_the_page_knows_it_when_the_family_is_prepared(tiny_family, turned, tmp_path):
    content = family_recipe(tiny_family, "average")
    experts = [{k: e[k] for k in ("name", "model", "task")} for e in turned]
    arrays = dict(np.load(tmp_path / "turned.npz"))
    for name in ("x_train", "y_train"):  # of which a share is asked
        arrays[name] = np.concatenate([arrays[name]] * 5)
    np.savez(tmp_path / "turned.npz", **arrays)
    file = tmp_path / "family.yaml"
    place = str(tiny_family)
    entries = [
        {"name": e["name"], "model": f"{place}/{e['model']}",
         "task": e["task"] if e["task"].startswith("/") else f"{place}/{e['task']}"}
        for e in experts
    ]  # fmt: skip
    file.write_text(
        json.dumps({"name": "turned", "base": f"{place}/{content['base']}", "experts": entries})
    )
    prepared = prepare.prepare(load_family(file), "turned", quietly)
    assert [note for note in prepared.notes if DOUBT in note]
