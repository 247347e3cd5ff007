"""No file is deleted that a merge did not write: `--force`, links, names, statistics."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mats_core import InputError, load_recipe, merge
from mats_core.cli import main
from mats_core.recipes import parse_recipe
from mats_core.statistics import Statistics


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder as people keep it: base, experts, data, a recipe, and files of other kinds."""
    for seed, name in enumerate(("base", "a", "b")):
        (tmp_path / name).mkdir()
        random = torch.Generator().manual_seed(seed)
        weights = {"encoder.weight": torch.randn(8, 8, generator=random)}
        save_file(weights, tmp_path / name / "model.safetensors", {"format": "pt"})
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.txt").write_text("years of work")
    (tmp_path / "start").mkdir()
    save_file({"encoder.weight": torch.zeros(8, 8)}, tmp_path / "start" / "model.safetensors")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    monkeypatch.chdir(tmp_path)
    return tmp_path


FORM = {"format": "mats-statistics-1", "examples": "1", "tokens": "1"}


def recipe_file(project, **more):
    content = {
        "base": "base", "method": "average", "evaluate": False,
        "experts": [{"name": "a", "model": "a"}, {"name": "b", "model": "b"}], **more,
    }  # fmt: skip
    (project / "recipe.yaml").write_text(json.dumps(content))
    return str(project / "recipe.yaml")


def contents(folder):
    return {
        str(file.relative_to(folder)): "link" if file.is_symlink() else file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_symlink() or file.is_file()
    }


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (".", "the working directory"),
        ("..", "the working directory, or one above it"),
        ("a", "expert 'a'"),
        ("a/deeper/merged", "expert 'a'"),
        ("base", "the base"),
        ("link", "expert 'a'"),
        ("link/merged", "expert 'a'"),
        ("./thesis/../b", "expert 'b'"),
        ("thesis", "thesis.txt"),
        ("recipe.yaml", "the recipe|a file"),
        ("nowhere", "a link to nothing"),
        ("thesis/thesis.txt/merged", "no folder"),
        ("x" * 250, "bytes"),
        (" ", "blanks alone"),
        ("circle", "links that lead in a circle"),
        ("circle/merged", "links that lead in a circle"),
    ],
)
def test_force_deletes_nothing_that_is_read_or_that_no_merge_wrote(project, output, found, capsys):
    file = recipe_file(project, output=output)
    before = contents(project)
    assert main(["merge", file, "--force"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in error
    assert any(one in error for one in found.split("|")), error
    assert contents(project) == before


def test_what_an_option_names_is_read_too(project, capsys):
    options = {"start": "start"}
    file = recipe_file(project, output="start", method="kfac", options=options)
    assert main(["merge", file, "--force"]) == 2
    assert "option 'start'" in capsys.readouterr().err


def test_force_replaces_an_earlier_merge_and_no_other_file(project, capsys):
    file = recipe_file(project, output="merged")
    assert main(["merge", file]) == 0
    listed = json.loads((project / "merged" / "report.json").read_text())["files"]
    assert set(listed) == {"README.md", "config.json", "model.safetensors", "recipe.yaml"}
    assert main(["merge", file, "--force"]) == 0

    (project / "merged" / "notes").mkdir()
    (project / "merged" / "notes" / "mine.txt").write_text("kept")
    capsys.readouterr()
    before = contents(project)
    assert main(["merge", file, "--force"]) == 2
    assert "notes/mine.txt" in capsys.readouterr().err
    assert contents(project) == before

    shutil.rmtree(project / "merged" / "notes")
    (project / "merged" / "README.md").write_text("a card that somebody has written anew")
    before = contents(project)
    assert main(["merge", file, "--force"]) == 2
    assert "changed since the merge: README.md" in " ".join(capsys.readouterr().err.split())
    assert contents(project) == before


def test_an_output_is_not_replaced_by_its_own_recipe(project, capsys):
    assert main(["merge", recipe_file(project, output="merged")]) == 0
    before = contents(project)
    assert main(["merge", str(project / "merged" / "recipe.yaml"), "--force"]) == 2
    assert "the recipe in it" in " ".join(capsys.readouterr().err.split())
    assert contents(project) == before
    assert main(["merge", str(project / "merged" / "recipe.yaml"), "--output", "again"]) == 0


def test_the_output_of_an_earlier_version_is_replaced(project, capsys):
    """Its report lists no files: what a merge writes, and the base's files, count as its own."""
    file = recipe_file(project, output="merged")
    assert main(["merge", file]) == 0
    report = json.loads((project / "merged" / "report.json").read_text())
    del report["files"]
    (project / "merged" / "report.json").write_text(json.dumps(report))
    (project / "merged" / "thesis.txt").write_text("years of work")
    assert main(["merge", file, "--force"]) == 2
    assert "thesis.txt" in capsys.readouterr().err
    (project / "merged" / "thesis.txt").unlink()
    assert main(["merge", file, "--force"]) == 0


def test_another_output_may_lie_beside_all_of_it(project):
    assert merge(load_recipe(recipe_file(project, output="deep/er/merged"))).report.output
    assert (project / "deep" / "er" / "merged" / "model.safetensors").is_file()


def test_the_folder_of_a_recipe_that_is_elsewhere_stays(project, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    recipe = load_recipe(recipe_file(project))
    before = contents(project)
    for output in (".", ".."):
        asked = recipe.model_copy(update={"output": output})
        with pytest.raises(InputError, match=r"found .* in it|one above it"):
            merge(asked, force=True)
    assert contents(project) == before


@pytest.mark.parametrize("name", ["..", ".", "...", " a", "a.", "a/b", "a\\b", "CON", "nul.x", ""])
def test_names_that_cannot_be_folders_are_refused(name):
    experts = [{"name": name, "model": "a"}, {"name": "b", "model": "b"}]
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        parse_recipe({"base": "base", "method": "average", "experts": experts})


@pytest.mark.parametrize("name", ["a", "größe 1", "v1.2", "模型", "c++", "_x-", "console"])
def test_other_names_are_taken(name):
    experts = [{"name": name, "model": "a"}, {"name": "b.b", "model": "b"}]
    parsed = parse_recipe({"base": "base", "method": "average", "experts": experts})
    assert parsed.experts[0].name == name


def test_statistics_replace_statistics_alone(tmp_path):
    statistics = Statistics.of({"a.input_gram": torch.eye(3)}, FORM)
    statistics.save(tmp_path / "a.stats.safetensors")
    statistics.save(tmp_path / "a.stats.safetensors")
    save_file({"a.weight": torch.ones(3)}, tmp_path / "model.safetensors")
    (tmp_path / "text").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("model.safetensors", "text", "folder"):
        with pytest.raises(InputError, match="expected a statistics file to replace"):
            statistics.save(tmp_path / name)
    with pytest.raises(InputError, match=r"ends in \.safetensors.*new\.safetensors'"):
        statistics.save(tmp_path / "new")
    assert load_file(tmp_path / "model.safetensors")["a.weight"].sum() == 3
    assert (tmp_path / "text").read_text() == "mine"
