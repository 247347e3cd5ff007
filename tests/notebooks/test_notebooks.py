"""The notebooks run as they are, in process: what they print and assert is true on this machine."""

from __future__ import annotations

import ast
import importlib
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbformat
import pytest

from benchmarks import notebooks as copies
from mats_core.figures import Figure

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
SAMPLES = NOTEBOOKS[0].parent.parent / "sample_models" / "drawn" / "family.yaml"
FIVE_LINES = NOTEBOOKS[0]
# Fewer than a reader gets, so that the three on the sample family take a minute on one core.
SMALL = {"EXPERTS": ("digits", "counting", "letters"), "EXAMPLES": 32, "TESTED": 60}
FIGURES = {  # that end a cell, and so show themselves
    "00_five_lines": 3,
    "01_task_subspaces": 4,
    "02_conjugate_gradients": 4,
    "03_essential_subspace": 4,
}
ON_SAMPLES = [file for file in NOTEBOOKS if file != FIVE_LINES]


def test_there_are_four():
    assert [file.stem for file in NOTEBOOKS] == list(FIGURES)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_nothing_is_stored_but_the_text(file: Path):
    text = file.read_text("utf-8")
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    assert [cell.id for cell in book.cells] == [f"cell-{i:02d}" for i in range(len(book.cells))]
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    tagged = [cell for cell in book.cells if cell.metadata.get("tags") == ["parameters"]]
    assert [cell.id for cell in tagged] == ["cell-01"]
    assert set(json.loads(text)["metadata"]) == {"kernelspec"}
    assert nbformat.writes(book, version=nbformat.NO_CONVERT) + "\n" == text


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_they_come_in_by_the_front_door(file: Path):
    """`import mats_core as mats`, an installed package before the checkout, no helper to show."""
    source = "\n".join(
        cell.source for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"
    )
    assert "\nimport mats_core as mats\n" in source
    assert "sys.path.insert" not in source
    assert source.count("sys.path.append") == 1
    tree = ast.parse(source)
    assert "show" not in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
    assert ".show(" not in source  # results show themselves
    doors = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert all(str(module).count(".") <= 1 for module in doors if "mats_core" in str(module))


def execute(file: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """All code cells in one namespace, with other parameters: the names, and the value of each
    cell's last line, which a kernel would display."""
    names: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        tree, place = ast.parse(cell.source), f"{file.stem} {cell.id}"
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, place, "exec"), names)
        if isinstance(last, ast.Expr):
            values[cell.id] = eval(compile(ast.Expression(last.value), place, "eval"), names)
        if cell.metadata.get("tags") == ["parameters"]:
            assert set(changes) <= set(names), "the notebook has other parameters"
            names.update(changes)
    return names, values


@pytest.mark.skipif(not SAMPLES.is_file(), reason="the sample family is not here")
@pytest.mark.parametrize("file", ON_SAMPLES, ids=lambda file: file.stem)
def test_it_runs(file: Path, capsys: pytest.CaptureFixture[str]):
    more = {"ITERATIONS": 30} if file.stem.startswith("02") else {}
    names, values = execute(file, {**SMALL, **more})
    assert_pictures(file, values)
    assert "of the experts' accuracy" in capsys.readouterr().out
    assert [expert.name for expert in names["family"].experts] == ["digits", "counting", "letters"]
    assert values["cell-02"] is names["family"]  # it shows itself


def assert_pictures(file: Path, values: dict[str, Any]) -> None:
    """As many figures as are announced, each a picture of its numbers with its caption."""
    drawn = [value for value in values.values() if isinstance(value, Figure)]
    assert len(drawn) == FIGURES[file.stem]
    for one in drawn:
        page = one._repr_html_()
        assert 2000 < len(page) < 100_000
        assert "<figcaption>" in page


def test_five_lines_beat_the_average(capsys: pytest.CaptureFixture[str]):
    names, values = execute(FIVE_LINES, {})
    assert_pictures(FIVE_LINES, values)
    out = " ".join(capsys.readouterr().out.split())
    mean = names["mean"]
    assert mean["K-FAC"] > mean["average"] + 0.3
    assert mean["K-FAC"] > max(mean[name] for name in names["experts"])
    for who in ("average", "K-FAC"):  # counted again, by the merged modules themselves
        right = [
            (names["models"][who](pixels).argmax(1) == labels).float().mean().item()
            for pixels, labels in names["testing"].values()
        ]
        assert sum(right) / 3 == pytest.approx(mean[who])
        assert f"{who} {right[0]:.1%} {right[1]:.1%} {right[2]:.1%}" in out
    residuals = values["cell-06"]
    assert residuals[-1] < 1e-3 < residuals[0]
    # Why: farther from the experts, but not in the directions that cost.
    assert names["farther"] > 1
    assert names["cheaper"] > 10
    assert names["step"]["K-FAC"][0] < names["step"]["average"][0]
    assert names["step"]["K-FAC"][-1] > names["step"]["average"][-1]
    assert_a_slider_merges(names)


def assert_a_slider_merges(names: dict[str, Any]) -> None:
    """The merge under the slider is the merge with its value, each time it is moved."""
    widget, merge, seen = names["slider"].widget, names["mats"].merge_models, []
    methods: Any = importlib.import_module("mats_core.methods.essential")
    decomposed: list[Any] = []

    def recorded(*given: Any, **options: Any) -> Any:
        seen.append((options["scaling"], merge(*given, **options)))
        return seen[-1][1]

    names["mats"].merge_models = recorded
    update, methods.essential_update = methods.essential_update, decomposed.append
    try:
        for value in (0.5, 1.0, 0.5):
            widget.children[0].value = value
    finally:
        names["mats"].merge_models, methods.essential_update = merge, update
    assert [scaling for scaling, _ in seen] == [0.5, 1.0, 0.5]
    assert [merged.report.options["scaling"] for _, merged in seen] == [0.5, 1.0, 0.5]
    assert not decomposed  # what the first merge computed serves them all


def test_the_five_lines_are_those_of_the_readme():
    cells = {cell.id: cell.source for cell in nbformat.read(FIVE_LINES, as_version=4).cells}
    readme = (FIVE_LINES.parent.parent / "README.md").read_text("utf-8")
    assert cells["cell-06"] in readme


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_the_copy_for_those_who_only_look_has_the_same_text(file: Path):
    """Where it does not: `python -m benchmarks.notebooks`."""
    text = (copies.COPIES / f"{file.stem}.md").read_text("utf-8")
    place = 0
    for cell in nbformat.read(file, as_version=4).cells:
        source = copies.code(cell.source) if cell.cell_type == "code" else cell.source
        assert source in text[place:], f"{cell.id} of {file.stem} is not in its copy"
        place += text[place:].index(source) + len(source)
    shown = re.findall(r"^!\[.+\]\((.+\.svg)\)$", text, re.M)
    assert len(shown) == FIGURES[file.stem]
    assert {one.name for one in copies.COPIES.glob(f"{file.stem}*.svg")} == set(shown)
    for name in shown:
        picture = (copies.COPIES / name).read_text("utf-8")
        assert ElementTree.fromstring(picture).tag.endswith("svg")
        assert "prefers-color-scheme:dark" in picture
        assert len(picture) < 60_000
