"""The plan of the house: rooms, their floors, and their doors.

A room is a folder (or a single module) of `mats_core` or of `pages/shared`.  Its door is its
`__init__.py`: from another room only what stands in the door's `__all__` may be imported.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.importing import loads_none_of

ROOT = Path(__file__).resolve().parent.parent

FLOORS = """
    errors names
    linear
    system
    methods checkpoints
    tasks families
    models
    adapters evaluation
    statistics
    aligning
    recipes
    merging
    analysis estimating
    api figures
    export cli notebook
    __main__ __init__
"""
PAGES = """
    policy
    work
    frame
    controls learn
    views
"""
ONLY_IN = {
    "transformers": {"models"}, "plotly": {"figures"}, "ipywidgets": {"notebook"},
    "optuna": {"analysis"},
}  # fmt: skip
NO_STREAMLIT = {("pages/shared", "work")}
MOST_LINES = 400
MOST_OF_A_PAGE = 85  # lines: what is shown has its places below pages/shared
# Records show themselves in notebooks, for which they must ask the room above them, lazily.
UPWARDS = {("system.showing", "notebook")}


class House:
    """The modules below a folder, by room; a room's floor is its line in the plan."""

    def __init__(self, folder: str, plan: str) -> None:
        self.package, self.folder = folder.replace("/", "."), ROOT / folder
        rows = [line.split() for line in plan.strip().splitlines()]
        self.floor = {room: level for level, row in enumerate(rows) for room in row}
        files = sorted(self.folder.rglob("*.py"))
        self.files = {self.name(file): file for file in files}

    def name(self, file: Path) -> str:
        parts = file.relative_to(self.folder).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" and parts[1:] else parts)

    def inside(self, dotted: str) -> str | None:
        """A dotted name as one of this house's modules, or None."""
        if dotted == self.package:
            return "__init__"
        rest = dotted.removeprefix(f"{self.package}.")
        return rest if rest != dotted else None

    def imports(self, name: str) -> list[tuple[str, str, bool]]:
        """(module, imported name, whether inside a function) of everything a module imports."""
        file = self.files[name]
        tree = ast.parse(file.read_text("utf-8"))
        package = [*self.package.split("."), *file.relative_to(self.folder).parts[:-1]]
        top = {id(node) for node in tree.body}
        found = []
        for node in ast.walk(tree):
            lazy = id(node) not in top
            if isinstance(node, ast.Import):
                found += [(alias.name, "", lazy) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) + 1 - node.level] if node.level else []
                stem = ".".join([*base, *([node.module] if node.module else [])])
                found += [(stem, alias.name, lazy) for alias in node.names]
        return found

    def door(self, room: str) -> set[str]:
        tree = ast.parse(self.files[room].read_text("utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return set(ast.literal_eval(node.value))
        return set()


CORE = House("mats_core", FLOORS)
SHARED = House("pages/shared", PAGES)
HOUSES = {"mats_core": CORE, "pages/shared": SHARED}
MODULES = [(place, name) for place, house in HOUSES.items() for name in house.files]
ROOMS = [
    (place, room)
    for place, house in HOUSES.items()
    for room in house.floor
    if (house.folder / room).is_dir()
]


def test_the_house_has_the_rooms_of_its_plan():
    for house in HOUSES.values():
        rooms = {name.partition(".")[0] for name in house.files}
        assert rooms - {"__init__"} <= set(house.floor)
    assert len([p for p in CORE.folder.iterdir() if p.name != "__pycache__"]) <= 25
    assert len([p for p in SHARED.folder.iterdir() if p.name != "__pycache__"]) <= 7


@pytest.mark.parametrize(("place", "room"), ROOMS)
def test_every_room_has_a_door_that_says_what_lives_there(place, room):
    tree = ast.parse(HOUSES[place].files[room].read_text("utf-8"))
    text = ast.get_docstring(tree) or ""
    assert len(text) > 60, f"the door of {room} does not say what lives there"
    assert HOUSES[place].door(room), f"the door of {room} has no __all__"


@pytest.mark.parametrize(("place", "name"), MODULES)
def test_imports_go_downwards_and_through_doors(place, name):
    house, room = HOUSES[place], name.partition(".")[0]
    for stem, what, lazy in house.imports(name):
        target = house.inside(stem)
        if target is None:
            continue
        if target == "__init__":  # `from .. import room`
            if what == "__version__":  # the one thing that the root holds itself
                continue
            target, what = what, ""
        other = target.partition(".")[0]
        if other == room or room not in house.floor:
            continue
        assert other in house.floor, f"{name} imports {other}, which is no room"
        if (name, other) in UPWARDS:
            assert lazy, f"{name} imports {other} before a notebook asks for it"
            continue
        assert house.floor[other] < house.floor[room], f"{name} imports {other}: not below it"
        if (house.folder / other).is_dir():
            assert target == other, f"{name} imports {target}, past the door of {other}"
            assert not what or what in house.door(other), f"{other} does not hand out {what}"


def test_who_stands_outside_comes_in_by_the_doors():
    files = [ROOT / "app.py", *ROOT.glob("pages/*.py"), *ROOT.glob("pages/shared/*/**/*.py")]
    files += [*ROOT.glob("sample_models/*.py"), *ROOT.glob("benchmarks/**/*.py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level:
                continue
            for house in HOUSES.values():
                target = house.inside(node.module or "")
                if target is None or target == "__init__":
                    continue
                assert "." not in target, f"{file}: {node.module} is past a door"
                if (house.folder / target).is_dir():
                    for alias in node.names:
                        door = house.door(target)
                        assert alias.name in door, f"{file}: {target} hands out no {alias.name}"


@pytest.mark.parametrize(("place", "room"), ROOMS)
def test_no_circle_inside_a_room(place, room):
    house = HOUSES[place]
    graph: dict[str, set[str]] = {}
    for name in house.files:
        if not name.startswith(f"{room}."):
            continue
        for stem, what, _ in house.imports(name):
            target = house.inside(stem)
            if target == room:  # `from . import module`
                target = f"{room}.{what}"
                assert target in house.files, f"{name} imports {what} from its own door"
            if target in house.files and target.startswith(f"{room}."):
                graph.setdefault(name, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {error.args[1]}")


@pytest.mark.parametrize(("place", "name"), MODULES)
def test_libraries_are_imported_where_they_belong(place, name):
    house, room = HOUSES[place], name.partition(".")[0]
    for stem, _, lazy in house.imports(name):
        top = stem.partition(".")[0]
        outside = ("app", "tests", "benchmarks", "sample_models")
        assert top not in outside, f"{name} imports {stem}"
        if top == "streamlit":
            assert (place, room) not in NO_STREAMLIT, f"{name} imports Streamlit"
        if place == "pages/shared":
            continue
        assert top not in ("pages", "streamlit"), f"{name} imports {stem}"
        if top in ONLY_IN:
            assert room in ONLY_IN[top], f"{name} imports {top}"
        if top in ("transformers", "ipywidgets", "optuna"):
            assert lazy, f"{name} imports {top} before it is used"
        if room == "linear":
            known = {"torch", "mats_core", *sys.stdlib_module_names, "numpy", "scipy"}
            assert top in known, f"{name} imports {top}"


@pytest.mark.parametrize(("place", "name"), MODULES)
def test_no_module_is_long(place, name):
    lines = HOUSES[place].files[name].read_text("utf-8").count("\n")
    assert lines <= MOST_LINES, f"{name} has {lines} lines: is there a seam?"


@pytest.mark.parametrize("page", sorted(ROOT.glob("pages/*.py")), ids=lambda page: page.stem)
def test_a_page_is_short(page):
    lines = page.read_text("utf-8").count("\n")
    assert lines <= MOST_OF_A_PAGE, f"{page.name} has {lines} lines: what belongs below it?"


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
    heavy = ("torch", "transformers", "streamlit", "plotly", "scipy")
    loads_none_of("import mats_core, mats_core.cli", *heavy)


def test_a_merge_from_the_command_line_imports_no_more_than_it_needs(tmp_path):
    for name in ("base", "one", "two"):
        save_file({"w": torch.zeros(2, 2)}, tmp_path / f"{name}.safetensors")
    experts = "[{name: one, model: one.safetensors}, {name: two, model: two.safetensors}]"
    (tmp_path / "recipe.yaml").write_text(
        f"{{base: base.safetensors, experts: {experts}, method: average, output: out}}"
    )
    lines = (
        "from mats_core.cli import main; "
        f"assert main(['merge', {str(tmp_path / 'recipe.yaml')!r}]) == 0"
    )
    loads_none_of(lines, "transformers", "streamlit", "plotly", "scipy", "pandas", "sklearn")
