"""Docs that run: the README's snippet, the recipes, and the generated reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mats_core.checkpoints import hub
from mats_core.merging.recipe import load_recipe
from mats_core.methods import reference
from mats_core.tasks.description import Description
from mats_core.tasks.task import KINDS

ROOT = Path(__file__).parent.parent
FROM_THE_HUB = {"clip_vit_b32_eight_tasks.yaml": 8}


def test_the_reference_is_the_declaration():
    committed = (ROOT / "docs" / "methods.md").read_text("utf-8")
    assert committed == reference.markdown(), (
        "docs/methods.md is stale: python -m mats_core methods --markdown > docs/methods.md"
    )


def test_the_readme_s_snippet_runs(monkeypatch, capsys):
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    assert len(snippet) == 1
    monkeypatch.chdir(ROOT)
    exec(compile(snippet[0], "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 9  # eight tasks and the summary
    accuracy = float(printed[-1].split()[0])
    assert 0.5 < accuracy <= 1.05


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
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
