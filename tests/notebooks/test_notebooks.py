"""The notebooks run as they are, in process: what they print and assert is true on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbformat
import plotly.graph_objects as go
import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
SAMPLES = NOTEBOOKS[0].parent.parent / "sample_models" / "drawn" / "family.yaml"
# Fewer than a reader gets, so that all three take a minute on one core together.
SMALL = {"EXPERTS": ("digits", "counting", "letters"), "EXAMPLES": 32, "TESTED": 60}
FIGURES = {
    "01_task_subspaces": 4,
    "02_conjugate_gradients": 3,
    "03_essential_subspace": 4,
}


def test_there_are_three():
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


def execute(file: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """All code cells in one namespace, with other parameters; what `show` cells display."""
    names: dict[str, Any] = {}
    shown: list[Any] = []
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        body, last = cell.source, "None"
        if cell.source.rpartition("\n")[2].startswith("show("):
            body, _, last = cell.source.rpartition("\n")
        exec(compile(body, f"{file.stem} {cell.id}", "exec"), names)
        displayed = eval(last, names)
        shown += [] if displayed is None else [displayed]
        if cell.metadata.get("tags") == ["parameters"]:
            assert set(changes) <= set(names), "the notebook has other parameters"
            names.update(changes)
    return names, shown


@pytest.mark.skipif(not SAMPLES.is_file(), reason="the sample family is not here")
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs(file: Path, capsys: pytest.CaptureFixture[str]):
    more = {"ITERATIONS": 30} if file.stem.startswith("02") else {}
    names, shown = execute(file, {**SMALL, **more})
    assert [type(figure) for figure in shown] == [go.Figure] * FIGURES[file.stem]
    assert "of the experts' accuracy" in capsys.readouterr().out
    assert [expert.name for expert in names["family"].experts] == ["digits", "counting", "letters"]
