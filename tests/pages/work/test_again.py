"""A finished run is made again from the files that it was made from, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from streamlit.testing.v1 import AppTest

from mats_core.analysis.sweep import Axis
from mats_core.errors import InputError
from mats_core.merging.pipeline import run as solve
from mats_core.recipes.events import Finished
from mats_core.recipes.family_file import FamilyFile, load_family, measure_all
from mats_core.recipes.plan import open_inputs
from pages.shared.work import again, confusion, export, predicted_loss, runs
from pages.shared.work import merge as merging
from pages.shared.work.convergence import follow
from pages.shared.work.loading import load
from pages.shared.work.prepare import Prepared
from pages.shared.work.runs import Run
from pages.shared.work.shelf import Shelf
from pages.shared.work.sweep import SweepRequest, run_sweep
from tests.pages.driving import kept, press, sentences, settle

Open = Callable[..., AppTest]
SINCE = "The files changed since this run; merge again"
OTHER = rf"others in place of e1\. {SINCE}"


def tell(fraction: float, text: str, partial: Any = None) -> None:
    """A job's `tell` that nothing listens to."""


def prepared_from(folder: Path) -> Prepared:
    """A family, opened and measured as the worker does it."""
    collection = load_family(folder)
    files = measure_all(collection)
    return Prepared(collection, open_inputs(collection.recipe("average", statistics=files)), files)


def finished(prepared: Prepared, method: str = "kfac", **settings: Any) -> Finished:
    recipe = prepared.collection.recipe(method, statistics=prepared.files, device="cpu", **settings)
    return next(event for event in solve(recipe) if isinstance(event, Finished))


def run_of(prepared: Prepared, method: str = "kfac", **settings: Any) -> Run:
    """A finished run, as it lies on disk."""
    collection: FamilyFile = prepared.collection
    recipe = collection.recipe(method, statistics=prepared.files, device="cpu", **settings)
    report = next(event for event in solve(recipe) if isinstance(event, Finished)).report
    return Run("abc", 1, collection.name, len(collection.experts), recipe, report)


def exchange(folder: Path) -> None:
    """Name another model in place of e1: as many experts, of the same names."""
    shutil.copytree(folder / "e1", folder / "another")
    file = folder / "another" / "model.safetensors"
    tensors = load_file(file)
    name = next(n for n in sorted(tensors) if n.endswith("attention.query.weight"))
    tensors[name] = tensors[name] + 0.01 * torch.randn(tensors[name].shape)
    save_file(tensors, file, {"format": "pt"})
    described = (folder / "family.yaml").read_text()
    (folder / "family.yaml").write_text(described.replace("model: e1", "model: another"))


@pytest.fixture(scope="module")
def before(tiny_family: Path) -> Prepared:
    return prepared_from(tiny_family)


@pytest.fixture(scope="module")
def made(before: Prepared) -> Run:
    return run_of(before, options={"iterations": 5})


@pytest.fixture(scope="module")
def after(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same family with another model under the name e1."""
    folder = tmp_path_factory.mktemp("exchanged") / "family"
    shutil.copytree(tiny_family, folder)
    exchange(folder)
    return prepared_from(folder)


def sweeping(run: Run, prepared: Prepared) -> Any:
    axes = Axis("iterations", (1, 2)), Axis("damping", (0.0, 0.1))
    request = SweepRequest(run.family, run.recipe, *axes, {}, 10, like=run)
    return run_sweep(request, prepared, tell)


def refining(run: Run, prepared: Prepared) -> Any:
    request = merging.Request(prepared.collection, run.recipe.method, {}, ())
    outcome = merging.Outcome(run.recipe, run.report, run)
    return merging.refine(request, outcome, lambda: prepared, tell)


AGAIN: dict[str, Callable[[Run, Prepared], Any]] = {
    "confusion": lambda run, p: confusion.look(Shelf(), run, ["e1"], lambda: p, tell),
    "loading": lambda run, p: load(Shelf(), run, "block", ("input first",), lambda: p, tell),
    "predicted loss": lambda run, p: predicted_loss.predict(run, p, tell),
    "trace": lambda run, p: follow(run, {"undamped": {"damping": 0.0}}, 10, lambda: p, tell),
    "sweep": sweeping,
    "refining": refining,
    "export": lambda run, p: export.write(run, lambda: p, tell),
}


@pytest.mark.parametrize("place", AGAIN)
def test_an_expert_that_was_exchanged_is_not_solved_under_the_runs_name(
    place: str, made: Run, after: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MATS_OUTPUTS", str(tmp_path / "out"))
    with pytest.raises(InputError, match=OTHER):
        AGAIN[place](made, after)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", sorted(set(AGAIN) - {"refining"}))
def test_from_its_own_files_every_place_makes_it_again(
    place: str, made: Run, before: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MATS_OUTPUTS", str(tmp_path / "out"))
    AGAIN[place](made, before)


def test_the_same_files_are_opened_once_and_give_the_same_tensors(made: Run, before: Prepared):
    recipe, inputs = again.opened(made, before)
    assert inputs is before.inputs
    assert (recipe.evaluate, recipe.search, recipe.output) == (False, None, None)
    first = finished(before, options={"iterations": 5}).tensors
    second = next(e for e in solve(recipe, inputs=inputs) if isinstance(e, Finished)).tensors
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_base_is_said_too(made: Run, before: Prepared):
    report = replace(
        made.report, fingerprints={**made.report.fingerprints, "base": "something else"}
    )
    with pytest.raises(InputError, match=rf"others in place of base\. {SINCE}"):
        again.opened(replace(made, report=report), before)


def test_a_run_of_some_experts_is_opened_over_these(before: Prepared, after: Prepared):
    few = run_of(before, experts=("e0", "e2"), options={"iterations": 2})
    for prepared in (before, after):  # e1, which was exchanged, is none of them
        _, inputs = again.opened(few, prepared)
        assert [expert.name for expert in inputs.family.experts] == ["e0", "e2"]
    with pytest.raises(InputError, match=OTHER):
        again.opened(run_of(before, experts=("e0", "e1")), after)


def test_an_expert_that_left_the_family_is_opened_where_the_run_had_it(
    made: Run, before: Prepared, tiny_family: Path, tmp_path: Path
):
    folder = Path(shutil.copytree(tiny_family, tmp_path / "fewer"))
    lines = (folder / "family.yaml").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "name: e2" in line)
    (folder / "family.yaml").write_text("\n".join(lines[:at]))
    fewer = prepared_from(folder)
    assert len(fewer.inputs.family.experts) == 2
    _, inputs = again.opened(made, fewer)
    assert [expert.name for expert in inputs.family.experts] == ["e0", "e1", "e2"]


def test_statistics_that_are_measured_otherwise_now_are_not_taken(
    made: Run, before: Prepared, tmp_path: Path
):
    other = tmp_path / "t0-measured-otherwise.safetensors"
    shutil.copy(before.files["e0"], other)
    now = replace(before, files={**before.files, "e0": other})
    recipe, inputs = again.opened(made, now)
    assert inputs is not now.inputs, "the run's own file is still here"
    assert recipe.experts[0].statistics == str(before.files["e0"].resolve())
    entries = list(made.recipe.experts)
    entries[0] = entries[0].model_copy(update={"statistics": str(tmp_path / "gone.safetensors")})
    lost = replace(made, recipe=made.recipe.model_copy(update={"experts": tuple(entries)}))
    with pytest.raises(InputError, match=rf"statistics .* others in place of e0\. {SINCE}"):
        again.opened(lost, now)


def test_a_cache_that_moved_holds_the_same_statistics(made: Run, before: Prepared, tmp_path: Path):
    entries = tuple(
        entry.model_copy(update={"statistics": f"/elsewhere/{Path(str(entry.statistics)).name}"})
        for entry in made.recipe.experts
    )
    moved = replace(made, recipe=made.recipe.model_copy(update={"experts": entries}))
    recipe, inputs = again.opened(moved, before)
    assert inputs is before.inputs
    assert recipe.experts[0].statistics == str(before.files["e0"])


def test_a_method_without_statistics_does_not_mind_theirs(before: Prepared, tmp_path: Path):
    average = run_of(before, "average")
    now = replace(before, files={**before.files, "e0": tmp_path / "other.safetensors"})
    assert again.opened(average, now)[1] is now.inputs


# In the page --------------------------------------------------------------------------------------


def test_the_page_says_that_the_files_changed(open_app: Open, tiny_family: Path, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_family, tmp_path / "copied"))
    run = run_of(prepared_from(folder), options={"iterations": 5})
    app = open_app(family=folder)
    app.query_params["run"] = runs.add(run.family, run.family_size, run.recipe, run.report).id
    exchange(folder)
    settle(app, "preparation")
    app.session_state["result view"] = "Convergence"
    app.run()
    press(app, "Trace the accuracy")
    settle(app, "tracing")
    assert SINCE in sentences(app)
    assert "others in place of e1" in sentences(app)
    assert "trajectories" not in app.session_state
    app.switch_page("pages/compare.py").run()
    app.session_state["compare view"] = "Sweep two settings"
    app.run()
    like = next(box for box in app.selectbox if box.label == "All other settings")
    like.set_value(kept()[0].id).run()
    for widget in app.multiselect:
        widget.set_value(widget.options[:1])
    app.run()
    press(app, "Sweep")
    settle(app, "sweeping")
    assert SINCE in sentences(app)
    assert not app.session_state["sweep"].snapshot().partial


@pytest.mark.parametrize("file", ["e1/config.json", "t1.npz"])
def test_a_preparation_that_failed_begins_anew_when_its_file_is_mended(
    open_app: Open, tiny_family: Path, tmp_path: Path, file: str
):
    folder = Path(shutil.copytree(tiny_family, tmp_path / "copied"))
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(b"{")
    app = settle(open_app("family", family=folder), "preparation")

    def unmeasured() -> list[str]:
        said = [warning.value for warning in app.warning]
        return [text for text in said if text.startswith("Without statistics")]

    assert sentences(app) or unmeasured()
    (folder / file).write_bytes(whole)
    settle(app, "preparation")
    assert sentences(app) == ""
    assert not unmeasured()
    assert sum(metric.label == "Expert" for metric in app.metric) == 3
