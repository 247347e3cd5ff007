"""The page Export: everything of a run in one place, and a recipe back in."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from streamlit.testing.v1 import AppTest

from mats_core import export
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import load_family, measure_all
from mats_core.recipes.recipe import Recipe
from pages.shared.work import export as takeaway
from pages.shared.work import runs
from pages.shared.work.runs import Run
from tests.pages.driving import kept, press, sentences, settle

Open = Callable[..., AppTest]


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "written"
    monkeypatch.setenv("MATS_OUTPUTS", str(folder))
    return folder


@pytest.fixture
def export_page(open_app: Open, outputs: Path, tiny_family: Path) -> Callable[..., AppTest]:
    """`export_page(method, options, **settings)`: the page on a run that is on disk already."""
    statistics = measure_all(load_family(tiny_family))

    def start(method: str = "", options: dict[str, Any] | None = None, **settings: Any) -> AppTest:
        app = open_app("export")
        if method:
            family = load_family(tiny_family)
            recipe = family.recipe(method, options, statistics=statistics, **settings)
            runs.add(family.name, len(family.experts), recipe, merge(recipe))
        return settle(app, "preparation")

    return start


def labels(app: AppTest) -> list[str]:
    return [b.label for b in app.download_button]


def upload(app: AppTest, data: bytes, name: str = "recipe.yaml") -> AppTest:
    app.file_uploader[0].set_value((name, data, "application/yaml"))
    return settle(app, "reading")


def test_without_a_run_it_says_what_to_do_next(export_page):
    app = export_page()
    assert sentences(app) == ""
    assert "Merge something first" in app.info[0].value
    assert labels(app) == []
    assert len(app.file_uploader) == 1


def test_everything_is_in_one_place(export_page):
    app = export_page("kfac", {"iterations": 7})
    assert sentences(app) == ""
    assert labels(app) == ["Report", "Notebook", "Recipe", "mergekit YAML"]
    assert "Write the model" in [b.label for b in app.button]
    commands = next(c.value for c in app.code if "mats_core merge" in c.value)
    made = takeaway.finished(kept()[0])
    assert commands.splitlines()[-1].endswith(f"{made.stem}.yaml")
    recipe = next(c.value for c in app.code if c.value.startswith("# K-FAC"))
    assert yaml.safe_load(recipe)["base_fingerprint"] == made.report.fingerprints["base"]
    assert "/" not in yaml.safe_load(recipe)["base"]
    assert any("none of its methods reads statistics" in m.value for m in app.markdown)


def test_mergekit_of_a_method_that_it_has(export_page):
    app = export_page("average")
    config = next(c.value for c in app.code if "merge_method" in c.value)
    assert yaml.safe_load(config)["merge_method"] == "linear"
    assert any("The same arithmetic" in m.value for m in app.markdown)
    assert any("Its paths start at the family's folder" in c.value for c in app.caption)


def test_the_run_that_is_shown_is_taken_and_another_can_be_chosen(export_page):
    export_page("average")
    app = export_page("task_arithmetic", {"scaling": 0.2})
    first, second = kept()

    def chosen() -> Any:
        return next(s for s in app.selectbox if s.label == "Run")

    for run, title in ((second, "Task arithmetic of 3"), (first, "Average of 3")):
        app.session_state["shown run"] = run.id
        app.run()
        assert chosen().value == run.id
        assert any(title in m.value for m in app.markdown)
    chosen().set_value(second.id).run()
    assert any("Task arithmetic of 3" in m.value for m in app.markdown)
    assert app.session_state["shown run"] == first.id


def test_the_model_is_written_and_then_said_to_be_there(export_page, outputs: Path):
    app = export_page("essential")
    run = kept()[0]
    settle(press(app, "Write the model"), "writing")
    assert sentences(app) == ""
    folder = outputs / run.id
    report = json.loads((folder / "report.json").read_text())
    assert [t["scores"]["merged"]["correct"] for t in report["tasks"]] == [
        t.merged.correct for t in run.report.tasks
    ]
    assert str(folder) in [c.value for c in app.code]
    said = app.success[0].value.replace("\\", "")
    assert f"All {sum(run.report.coverage.values())} tensors are accounted for" in said
    assert "Download as zip" in labels(app)
    assert "Write the model" not in [b.label for b in app.button]
    assert not list(outputs.glob(".*"))


def test_a_lora_is_offered_with_its_size_and_written_beside_the_model(export_page, outputs: Path):
    app = export_page("task_arithmetic", {"scaling": 0.3})
    run = kept()[0]
    form = next(s for s in app.selectbox if s.label == "Form")
    form.set_value("LoRA of rank 4").run()
    assert any("At most" in c.value and "× the checkpoint" in c.value for c in app.caption)
    settle(press(app, "Write the model"), "writing")
    assert sentences(app) == ""
    folder = outputs / f"{run.id}-lora-rank-4"
    report = json.loads((folder / "report.json").read_text())
    assert report["lora"]["rank"] == 4
    assert (folder / "adapter_model.safetensors").stat().st_size > 0
    assert any("of the merged update's energy is lost" in m.value for m in app.markdown)
    assert "Download as zip" in labels(app)
    with takeaway.zipped(run, folder, "models/tiny", takeaway.offered()["LoRA of rank 4"]) as data:
        archive = zipfile.ZipFile(data)
        name = next(n for n in archive.namelist() if n.endswith("recipe.yaml"))
        assert yaml.safe_load(archive.read(name))["lora"] == {"rank": 4}
    form = next(s for s in app.selectbox if s.label == "Form")
    form.set_value("Whole checkpoint").run()
    assert "Write the model" in [b.label for b in app.button]


def test_a_model_over_the_limit_is_not_offered(export_page, monkeypatch):
    app = export_page("average")
    settle(press(app, "Write the model"), "writing")
    monkeypatch.setattr(takeaway, "MOST_BYTES", 1000)
    app.run()
    assert "Download as zip" not in labels(app)
    assert any("copy the folder" in c.value for c in app.caption)


def test_something_else_in_its_place_is_said_and_kept(export_page, outputs: Path):
    export_page("average")
    place = outputs / kept()[0].id
    place.mkdir(parents=True)
    (place / "precious").write_text("kept")
    app = export_page()
    assert "something else" in sentences(app)
    assert "Write the model" not in [b.label for b in app.button]
    assert (place / "precious").read_text() == "kept"


def test_checkpoints_that_change_while_the_page_is_open_are_not_written(
    export_page, outputs, monkeypatch
):
    app = export_page("average")
    changed = dict(kept()[0].report.fingerprints) | {"e1": "ab" * 32}
    real = takeaway._to_write

    def other(run: Run, recipe: Recipe, *form: Any) -> Recipe:
        pinned = real(run, recipe, *form)
        entries = (e.model_copy(update={"fingerprint": changed[e.name]}) for e in pinned.experts)
        return pinned.model_copy(update={"experts": tuple(entries)})

    monkeypatch.setattr(takeaway, "_to_write", other)
    settle(press(app, "Write the model"), "writing")
    assert "changed since the recipe was written" in sentences(app)
    assert not outputs.exists() or not list(outputs.iterdir())


def test_the_zip_holds_the_folder_with_a_recipe_that_names_no_machine(export_page, outputs: Path):
    app = export_page("essential")
    run = kept()[0]
    settle(press(app, "Write the model"), "writing")
    folder = outputs / run.id
    opened = takeaway.zipped(run, folder, "models/tiny")
    assert not Path(opened.name).exists()
    with opened:
        data = opened.read()
    with takeaway.zipped(run, folder, "models/tiny") as again:
        assert again.read() == data
    archive = zipfile.ZipFile(io.BytesIO(data))
    stem = takeaway.finished(run).stem
    inside = {name.removeprefix(f"{stem}/"): archive.read(name) for name in archive.namelist()}
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    assert set(inside) == set(files)
    for name, path in files.items():
        if name != "recipe.yaml":
            assert inside[name] == path.read_bytes()
    assert inside["recipe.yaml"].decode() == export.recipe_yaml(
        takeaway.finished(run), "models/tiny"
    )
    assert str(folder.parent).encode() not in b"".join(inside.values())


def test_a_downloaded_recipe_opens_in_merge_with_its_settings(export_page):
    app = export_page(
        "task_arithmetic", {"scaling": 0.75}, seed=4, dtype="float64",
        experts=("e0", "e2"), weights={"e2": 2.0},
    )  # fmt: skip
    text = export.recipe_yaml(takeaway.finished(kept()[0]))
    upload(app, text.encode())
    assert sentences(app) == ""
    assert "Task arithmetic of e0 and e2" in app.success[0].value.replace("\\", "")
    press(app, "Open in Merge")
    assert [title.value for title in app.title] == ["Merge"]
    assert sentences(app) == ""
    found = next(w for w in app.slider if w.label == "Scaling")
    assert found.value == 0.75
    assert next(n for n in app.number_input if n.label == "Seed").value == 4
    weights = {n.label: n.value for n in app.number_input if n.label in ("e0", "e1", "e2")}
    assert weights == {"e0": 1.0, "e2": 2.0}


def test_a_recipe_of_another_known_family_changes_the_family(
    export_page, tiny_family, tmp_path, monkeypatch
):
    other = tmp_path / "families" / "second"
    shutil.copytree(tiny_family, other)
    shutil.copyfile(other / "e0" / "model.safetensors", other / "base" / "model.safetensors")
    description = yaml.safe_load((other / "family.yaml").read_text())
    (other / "family.yaml").write_text(yaml.safe_dump({**description, "name": "Second"}))
    app = export_page("average")
    monkeypatch.setenv("MATS_FAMILIES", f"{tiny_family}:{other}")
    family = load_family(other)
    recipe = family.recipe("average")
    made = export.Finished("x", "Average", family.name, recipe, merge(recipe))
    upload(app, export.recipe_yaml(made).encode())
    assert "of the family Second" in app.success[0].value.replace("\\", "")
    press(app, "Open in Merge")
    assert app.session_state["family"] == "second"


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"a: [", "expected YAML"),
        (b"method: kfac", "recipe"),
        (b"base: b\nexperts: [{name: x, model: x}]\nmethod: kfax", "Did you mean 'kfac'?"),
        (b"base: ../b\nexperts: [{name: x, model: /etc/x}]\nmethod: kfac", "open here"),
    ],
)
def test_a_file_that_is_no_recipe_of_ours_is_one_sentence(export_page, data, named):
    app = upload(export_page(), data)
    assert named in sentences(app)
    assert "Open in Merge" not in [b.label for b in app.button]


def test_the_report_and_the_notebook_of_the_page_are_those_of_the_run(export_page, tiny_family):
    export_page("essential", {"layer_power": 0.0})
    made = takeaway.finished(kept()[0])
    assert made.title == "ESM · layer power 0.0"
    assert "layer power" in export.html_report(made, [])
    assert "'layer_power': 0.0" in export.notebook(made, str(tiny_family))
