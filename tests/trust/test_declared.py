"""Every package that is imported is declared in pyproject.toml, by its own name."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from . import locked

ROOT = Path(__file__).resolve().parents[2]
OURS = {"mats_core", "pages", "sample_models", "mats_explorer"}


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports: by statements, `needed(thing, module, …)`, `import_module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            place = {"needed": 1, "import_module": 0}.get(called)
            if place is not None and len(node.args) > place:
                argument = node.args[place]
                named = argument.value if isinstance(argument, ast.Constant) else None
                if isinstance(named, str) and not named.startswith("."):
                    yield named


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [one for n, ls in extras.items() if n != "dev" for one in ls]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    homes = packages_distributions()
    files = [ROOT / "app.py"]
    files += [
        f for part in ("mats_core", "pages", "sample_models") for f in (ROOT / part).rglob("*.py")
    ]
    missing: dict[str, str] = {}
    for file in files:
        for module in imported(ast.parse(file.read_text("utf-8"))):
            top = module.partition(".")[0]
            if top in sys.stdlib_module_names | OURS:
                continue
            if not declared & {canonicalize_name(name) for name in homes.get(top, [top])}:
                missing[top] = file.relative_to(ROOT).as_posix()
    assert not missing


def test_every_direct_dependency_is_locked_within_its_range():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(one.name): str(one.specifier) for one in pinned}
    assert all(version.startswith("==") for version in versions.values())
    for one in locked.declared():
        version = versions[canonicalize_name(one.name)].removeprefix("==")
        assert one.specifier.contains(version, prereleases=True), f"{one}: {version} is locked"
