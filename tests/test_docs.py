"""Docs that run: the README's snippets, the recipes, and the generated reference."""

from __future__ import annotations

import ast
import copy
import importlib
import json
import os
import re
from pathlib import Path

import pytest
import torch
import yaml

from mats_core.checkpoints import hub
from mats_core.cli.catalogue import declared
from mats_core.cli.listing import markdown
from mats_core.methods import METHODS
from mats_core.recipes.recipe import load_recipe
from mats_core.tasks.description import Description
from mats_core.tasks.task import KINDS
from tests import module_cases

ROOT = Path(__file__).parent.parent
FROM_THE_HUB = {"clip_vit_b32_eight_tasks.yaml": 8}
OURS = ("mats_core", "pages", "benchmarks", "sample_models")


def texts() -> dict[str, str]:
    """Every document by its name: Markdown, and the cells of the notebooks."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("[a-z]*/README.md")]
    pages += ROOT.glob("benchmarks/*/README.md")
    found = {str(page.relative_to(ROOT)): page.read_text("utf-8") for page in pages}
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(file.read_text("utf-8"))["cells"]
        found[f"notebooks/{file.name}"] = "\n".join("".join(cell["source"]) for cell in cells)
    changes = (ROOT / "CHANGELOG.md").read_text("utf-8")  # what to write instead, not what was
    found["CHANGELOG.md"] = "\n".join(re.findall(r"^\| .* \| (.*) \|$", changes, re.M))
    return found


TEXTS = texts()


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of ours, or what one hands out, or an attribute of that."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False


def test_the_reference_is_the_declaration():
    committed = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert committed == markdown(declared()), (
        "docs/methods.md is stale: python -m mats_core methods --markdown > docs/methods.md"
    )


def test_the_readme_counts_the_methods():
    found = re.search(r"any of (\d+) methods", (ROOT / "README.md").read_text("utf-8"))
    assert found is not None
    assert int(found[1]) == len(METHODS)


def snippets() -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)


def test_the_readme_s_five_lines_run():
    """On modules and loaders in place of a reader's; the lines are run as they stand."""
    base, experts = module_cases.family("mlp")
    loaders = {name: module_cases.loader(seed=i) for i, name in enumerate(experts)}
    before = copy.deepcopy(base.state_dict())
    *lines, last = snippets()[0].rstrip().splitlines()
    assert len([line for line in (*lines, last) if line]) == 5
    names = {"base": base, "experts": experts, "loaders": loaders}
    exec(compile("\n".join(lines), "README.md", "exec"), names)
    residuals = eval(compile(last, "README.md", "eval"), names)
    assert residuals[-1] < 1e-3 < residuals[0]
    for name, value in base.state_dict().items():  # the merged weights, and other ones than before
        assert torch.equal(value, names["merged"].tensors[name])
    assert not torch.equal(base.state_dict()["fc1.weight"], before["fc1.weight"])


def test_the_readme_s_recipe_runs(monkeypatch, capsys):
    assert len(snippets()) == 2
    monkeypatch.chdir(ROOT)
    exec(compile(snippets()[1], "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9  # eight tasks and the summary
    accuracy = float(printed[-1].split()[0])
    assert 0.5 < accuracy <= 1.05


def test_the_snippets_on_python_run(monkeypatch, capsys, tmp_path):
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(snippets) >= 7
    (tmp_path / "sample_models").symlink_to(ROOT / "sample_models")
    monkeypatch.chdir(tmp_path)  # they write a model
    names: dict[str, object] = {}
    for number, snippet in enumerate(snippets, 1):
        exec(compile(snippet, f"docs/python.md, snippet {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "2.weight merged kfac" in printed
    assert "Did you mean 'kfac'?" in printed
    assert printed.count("100% ") > 8  # the tasks, and the end
    assert (tmp_path / "outputs" / "two_tasks" / "model.safetensors").is_file()


def test_every_task_in_the_docs_is_valid():
    told = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "tasks.md").read_text("utf-8"), re.S)
    found = [Description.model_validate(yaml.safe_load(content)) for content in told]
    assert {one.kind for one in found} == set(KINDS)
    assert any(one.dataset for one in found)


@pytest.mark.parametrize("file", sorted((ROOT / "docs" / "recipes").glob("*.yaml")), ids=str)
def test_every_recipe_in_the_docs_is_valid(file):
    recipe = load_recipe(file)
    models = (recipe.base, *(expert.model for expert in recipe.experts))
    if file.name in FROM_THE_HUB:
        assert file.read_text("utf-8").startswith("# NOT RUN HERE")
        assert len(recipe.experts) == FROM_THE_HUB[file.name]
        assert all(hub.is_id(model, recipe.folder) and "@" in model for model in models)
    else:
        assert all(recipe.path(model).is_dir() for model in models)


def test_links_in_the_docs_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("[a-z]*/README.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_every_name_of_the_library_in_the_docs_exists(page):
    named = set(re.findall(r"\bmats_core(?:\.[A-Za-z_]\w*)+", TEXTS[page]))
    assert not (gone := sorted(name for name in named if not exists(name))), f"{page}: {gone}"
    run = re.findall(r"python -m ((?:mats_core|benchmarks|sample_models)[\w.]*\w)", TEXTS[page])
    for module in run:
        stem = ROOT / module.replace(".", "/")
        assert stem.with_suffix(".py").is_file() or (stem / "__main__.py").is_file(), module


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_every_source_file_in_the_docs_exists(page):
    told = set(re.findall(r"(?<![\w/<])[\w.-]+(?:/[\w.-]+)*\.py\b", TEXTS[page]))
    told |= set(re.findall(r"`((?:mats_core|pages|tests|benchmarks)/[\w./-]*)`", TEXTS[page]))
    names = {path.name for top in (*OURS, "tests") for path in (ROOT / top).rglob("*.py")}
    here = (ROOT / page).parent
    for path in told:
        known = (ROOT / path).exists() or (here / path).exists()
        assert known or ("/" not in path and path in names), f"{page} names {path}"


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_every_import_in_the_docs_works(page):
    for line in re.findall(
        r"^from (?:mats_core|sample_models)\S* import [^(\n]+$", TEXTS[page], re.M
    ):
        (node,) = ast.parse(line.strip()).body
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert exists(f"{node.module}.{alias.name}"), f"{page}: {line}"


def test_the_map_names_every_document():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    for page in [*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("[a-z]*/README.md")]:
        if page.name != "index.md":
            target = Path(os.path.relpath(page, ROOT / "docs"))
            assert f"]({target})" in index, f"docs/index.md does not name {page.name}"
