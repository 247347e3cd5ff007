"""The order of the house: a module imports only what stands above it in this list."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent

ORDER = [
    "waiting",
    "checks",
    "names",
    "hub",
    "places",
    "memory",
    "memo",
    "buffers",
    "linalg",
    "lowrank",
    "operators",
    "solver",
    "contents",
    "checkpoints",
    "experts",
    "heads",
    "vocabulary",
    "writer",
    "families",
    "compatibility",
    "tasks.base",
    "tasks.samples",
    "tasks.description",
    "tasks.tables",
    "tasks.rows",
    "tasks.images",
    "tasks.loading",
    "tasks",
    "metrics",
    "scores",
    "models",
    "facts",
    "tokens",
    "encoding",
    "adapters.settings",
    "adapters.parts",
    "adapters.changes",
    "adapters.folder",
    "adapters.view",
    "adapters.fitting",
    "adapters.vectors",
    "adapters",
    "statistics.gram",
    "statistics.fisher",
    "statistics.ia3",
    "statistics.sketch",
    "statistics.store",
    "statistics.capture",
    "statistics.accumulate",
    "statistics.collect",
    "statistics.passes",
    "statistics",
    "statistics.cache",
    "methods.base",
    "methods.factored",
    "methods.averaging",
    "methods.elementwise",
    "methods.selection",
    "methods.sparsified",
    "methods.spectral",
    "methods.spherical",
    "methods.essential",
    "methods.curvature",
    "methods.kfac",
    "methods.matching",
    "methods",
    "recipe",
    "reference",
    "collection",
    "layers",
    "evaluate",
    "outcomes",
    "examiner",
    "rounds",
    "report",
    "progress",
    "card",
    "output",
    "machine",
    "costs",
    "testing_cost",
    "estimate",
    "journal",
    "streaming",
    "distributed",
    "pipeline",
    "spectra",
    "interference",
    "protection",
    "survey",
    "trajectory",
    "loading",
    "toy",
    "comparison",
    "prediction",
    "sweep",
    "figures.base",
    "figures.accuracy",
    "figures.comparing",
    "figures.confusion",
    "figures.forecasting",
    "figures.loading",
    "figures.heatmaps",
    "figures.interference",
    "figures.protection",
    "figures.scaling",
    "figures.solving",
    "figures.spectral",
    "figures.sweeping",
    "figures.toy",
    "figures.embed",
    "figures",
    "export.portable",
    "export.command",
    "export.mergekit",
    "export.notebook",
    "export.html_report",
    "export.reopen",
    "export",
    "cli",
    "__main__",
    "",  # the package itself: a table of contents over all of it
]


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT / "mats_core").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(file): file for file in (ROOT / "mats_core").rglob("*.py")}


def imports(file: Path) -> list[tuple[str, bool]]:
    """(absolute dotted name, whether at the top of the module) of everything a file imports."""
    tree = ast.parse(file.read_text("utf-8"))
    package = ["mats_core", *file.relative_to(ROOT / "mats_core").parts[:-1]]
    found = []
    for node in ast.walk(tree):
        lazy = node not in tree.body
        if isinstance(node, ast.Import):
            found += [(alias.name, lazy) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{stem}.{alias.name}".removeprefix("mats_core.")
                found.append((f"{stem}.{alias.name}" if inner in FILES else stem, lazy))
    return found


def test_every_module_is_enrolled():
    assert sorted(ORDER) == sorted(FILES)


@pytest.mark.parametrize("name", ORDER)
def test_imports_go_downwards_only(name):
    for target, _ in imports(FILES[name]):
        if target == "mats_core" or target.startswith("mats_core."):
            inner = target.removeprefix("mats_core").removeprefix(".")
            if name.startswith(f"{inner}.") and inner in (
                "adapters",
                "methods",
                "statistics",
                "tasks",
                "figures",
                "export",
            ):
                pytest.fail(f"{name} imports its own package")
            assert ORDER.index(inner) < ORDER.index(name), f"{name} imports {inner}"


@pytest.mark.parametrize("name", ORDER)
def test_the_library_knows_neither_pages_nor_samples(name):
    for target, lazy in imports(FILES[name]):
        top = target.partition(".")[0]
        assert top not in ("streamlit", "pages", "app", "tests"), f"{name} imports {target}"
        if top == "sample_models":
            assert (name, lazy) == ("tasks.samples", True), f"{name} imports {target}"
            assert target in ("sample_models", "sample_models.tasks")
        if top == "plotly":
            assert name.startswith("figures")
        if top == "transformers":
            assert name in ("models", "tokens")
            assert lazy


def test_streamlit_is_imported_by_the_app_and_its_pages_only():
    allowed = {ROOT / "app.py"}
    for folder in ("mats_core", "sample_models", "benchmarks"):
        for file in (ROOT / folder).rglob("*.py"):
            assert "streamlit" not in {
                alias.name.partition(".")[0]
                for node in ast.walk(ast.parse(file.read_text("utf-8")))
                if isinstance(node, ast.Import)
                for alias in node.names
            }, file
    assert all(file.suffix == ".py" for file in allowed)


def test_importing_the_library_is_quick():
    code = (
        "import sys, mats_core, mats_core.cli; "
        "heavy = {'torch', 'transformers', 'streamlit', 'plotly', 'scipy'} & set(sys.modules); "
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_merge_from_the_command_line_imports_no_more_than_it_needs(tmp_path):
    for name in ("base", "one", "two"):
        save_file({"w": torch.zeros(2, 2)}, tmp_path / f"{name}.safetensors")
    experts = "[{name: one, model: one.safetensors}, {name: two, model: two.safetensors}]"
    (tmp_path / "recipe.yaml").write_text(
        f"{{base: base.safetensors, experts: {experts}, method: average, output: out}}"
    )
    code = (
        "import sys; from mats_core.cli import main; "
        f"assert main(['merge', {str(tmp_path / 'recipe.yaml')!r}]) == 0; "
        "heavy = {'transformers', 'streamlit', 'plotly', 'scipy', 'pandas', 'sklearn'}; "
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
