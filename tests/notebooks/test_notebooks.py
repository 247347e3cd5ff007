"""The notebooks run as they are, in a kernel: what they print and assert is true here."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import nbclient
import nbformat
import pytest

from benchmarks import notebooks as copies

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
SAMPLES = NOTEBOOKS[0].parent.parent / "sample_models" / "drawn" / "family.yaml"
FIVE_LINES, MY_MODELS = NOTEBOOKS[0], NOTEBOOKS[-1]
PATIENCE = 300  # seconds for a cell
MOST_BYTES = 100_000
PANEL = 30_000  # bytes of the HTML of a panel and of the words of its cells
# Fewer than a reader gets, so that the three on the sample family take a minute on one core.
SMALL = {"EXPERTS": ("digits", "counting", "letters"), "EXAMPLES": 32, "TESTED": 60}
FIGURES = {  # that end a cell, and so show themselves
    "00_five_lines": 3,
    "01_task_subspaces": 4,
    "02_conjugate_gradients": 4,
    "03_essential_subspace": 4,
    "04_my_models": 1,
}
ON_SAMPLES = NOTEBOOKS[1:4]


def test_there_are_five():
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


def execute(file: Path, changes: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A notebook as a reader runs it, in a kernel, with other parameters: cell → its outputs.

    At its end `inside.py` looks at its names, in the kernel.  It is saved into `folder`, where its
    size is that of a file without the state of widgets.
    """
    book = nbformat.read(file, as_version=4)
    place = next(i for i, cell in enumerate(book.cells) if cell.metadata.get("tags"))
    given = "\n".join(f"{name}; {name} = {value!r}" for name, value in changes.items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(given))
    look = f"from tests.notebooks import inside\ninside.look({file.stem!r}, globals())"
    book.cells.append(nbformat.v4.new_code_cell(look))
    root = {"metadata": {"path": str(NOTEBOOKS[0].parent.parent)}}
    nbclient.NotebookClient(book, timeout=PATIENCE, kernel_name="python3", resources=root).execute()
    book.metadata.pop("widgets")
    nbformat.write(book, folder / file.name)
    assert (folder / file.name).stat().st_size < MOST_BYTES
    return {cell.id: cell.outputs for cell in book.cells if cell.cell_type == "code"}


def said(outputs: dict[str, Any]) -> str:
    """All that the cells print."""
    texts = [one.text for cell in outputs.values() for one in cell if one.output_type == "stream"]
    return " ".join(" ".join(texts).split())


def pages(outputs: dict[str, Any]) -> list[str]:
    """All HTML that the cells show."""
    shown = [one.get("data", {}).get("text/html", "") for cell in outputs.values() for one in cell]
    return ["".join(one) for one in shown if one]


@pytest.fixture
def a_kernel_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for what the kernel writes, whatever this machine's Jupyter is set to."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return tmp_path


@pytest.mark.skipif(not SAMPLES.is_file(), reason="the sample family is not here")
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_it_runs_in_a_kernel(file: Path, a_kernel_of_its_own: Path):
    changes = {name: value for name, value in SMALL.items() if file in ON_SAMPLES}
    changes |= {"ITERATIONS": 30} if file.stem.startswith("02") else {}
    changes |= {"FOLDER": str(a_kernel_of_its_own / "models")} if file == MY_MODELS else {}
    outputs = execute(file, changes, a_kernel_of_its_own)
    drawn = [page for page in pages(outputs) if "<figcaption>" in page]
    assert len(drawn) == FIGURES[file.stem]
    assert all(2000 < len(page) < 100_000 for page in drawn)
    (left,) = (page for page in pages(outputs) if "mats-still" in page)
    assert "of the experts' accuracy" in left  # a panel is HTML with its result in the file
    assert "<table>" in left
    text = said(outputs)
    if file == FIVE_LINES:  # what the modules reach when asked again is what the table says
        rows = re.findall(r"again: (\S+(?: [\d.]+%){3})", text)
        assert [row.split()[0] for row in rows] == ["average", "K-FAC"]
        assert [text.count(row) for row in rows] == [2, 2]
    else:
        assert "of the experts' accuracy" in text
    if file in ON_SAMPLES:  # the family shows itself
        assert "digits" in "".join(outputs["cell-02"][-1]["data"]["text/html"])
    if file == MY_MODELS:
        assert text.count("clearly better") == 3


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
        assert len(picture) < 25_000


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_run_in_full_its_file_stays_small(file: Path):
    """The copy is made of a full run: its text and pictures as JSON, and what a panel leaves."""
    parts = [json.dumps(one.read_text("utf-8")) for one in copies.COPIES.glob(f"{file.stem}*")]
    assert len("".join(parts).encode()) + PANEL < MOST_BYTES
