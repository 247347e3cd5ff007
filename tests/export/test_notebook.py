"""The exported notebook runs, agrees with its run, and notices when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from mats_core.export import notebook
from mats_core.export.portable import Finished
from tests.export.conftest import Finish

PATIENCE = 120  # seconds


def execute(text: str, change: tuple[str, str] = ("", "")) -> dict[str, Any]:
    """All code cells, in one namespace; `change` replaces text, as a person would edit it.

    The panel at the end has its whole answer, and is closed.
    """
    names: dict[str, Any] = {}
    for cell in nbformat.reads(text, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source.replace(*change), cell.id, "exec"), names)
    assert names["panel"].wait(PATIENCE, whole=True)
    names["panel"].close()
    return names


@pytest.mark.parametrize(
    ("method", "options", "settings"),
    [
        (
            "kfac",
            {"iterations": 7},
            {
                "experts": ("e0", "e2"),
                "weights": {"e2": 2.0},
                "seed": 3,
                "evaluate": {"split": "validation"},
            },
        ),
        (
            "essential",
            {"layer_power": 0.0},
            {
                "dtype": "float64",
                "after": [{"stretch": {"scale": 1.2}}],
                "by": [{"depth": [1.0, 1.0], "weight": 0.5}],
            },
        ),
        ("dare", {"drop": 0.5}, {"seed": 11, "evaluate": {"split": "validation", "examples": 15}}),
    ],
)
def test_it_runs_and_asserts_the_same_numbers(
    finish: Finish, own_family: Path, capsys, method, options, settings
):
    made = finish(method, options, **settings)
    names = execute(notebook(made, str(own_family)))
    assert capsys.readouterr().out.rstrip().endswith("The numbers are the same.")
    assert [(t.name, t.merged.correct) for t in names["report"].tasks] == [
        (t.name, t.merged.correct) for t in made.report.tasks
    ]
    assert names["report"].options == made.report.options
    # The panel goes on from there.
    panel = names["panel"]
    assert panel.error == ""
    assert panel.report.options == made.report.options
    assert set(panel.experts) == {expert.name for expert in made.recipe.experts}
    begun, made_of = panel.recipe(), made.portable
    assert {entry.name: entry.weight for entry in begun.experts} == names["WEIGHTS"]
    for name in ("method", "seed", "dtype", "rounds", "device", "after", "by"):
        assert getattr(begun, name) == getattr(made_of, name), name
    assert begun.parsed_options() == made_of.parsed_options()
    assert [run.number for run in panel.runs] == [1]  # it begins with that, and with nothing before
    if method == "kfac":  # in the recipe's dtype, on the panel's split, without a seed's draws
        assert [(t.name, t.merged.correct) for t in panel.report.tasks] == [
            (t.name, t.merged.correct) for t in made.report.tasks
        ]


def test_what_its_panel_does_not_begin_with_is_said(finish: Finish):
    assert "settings above, and merges again" in notebook(finish("average"), ".")
    made = finish("average", output_dtype="float64", weighting="weights")
    assert "settings above (but for the dtype of the result), and" in notebook(made, ".")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("CORRECT = {'e0': (", "CORRECT = {'e0': (1"), "e0: "),
        (("'seed': 0", "'seed': 0, 'evaluate': {'examples': 9}"), "9 examples instead of 60"),
        (("FINGERPRINTS = {", "FINGERPRINTS = {'e1': 'other', 'e2': 'x'} or {"), "'e1'"),
        (("COVERAGE = {'merged': ", "COVERAGE = {'merged': 1"), "other tensors"),
    ],
)
def test_it_notices_other_numbers(finish: Finish, own_family: Path, change, named):
    text = notebook(finish("average"), str(own_family))
    with pytest.raises(AssertionError, match=named):
        execute(text, change)


def test_tolerance_is_counted_in_answers(finish: Finish, own_family: Path):
    made = finish("average")
    right = made.report.tasks[0].merged.correct
    text = notebook(made, str(own_family)).replace(f"'e0': ({right},", f"'e0': ({right + 2},")
    with pytest.raises(AssertionError, match="e0: "):
        execute(text, ("TOLERANCE = 0", "TOLERANCE = 1"))
    execute(text, ("TOLERANCE = 0", "TOLERANCE = 2"))


def test_it_is_the_same_bytes_each_time_with_fixed_ids_and_no_outputs(finish: Finish):
    made = finish("essential")
    text = notebook(made, "sample_models/drawn")
    assert notebook(made, "sample_models/drawn") == text
    book = nbformat.reads(text, as_version=4)
    nbformat.validate(book)
    assert [cell.id for cell in book.cells] == [f"cell-{i:02d}" for i in range(len(book.cells))]
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    tagged = [cell.id for cell in book.cells if cell.metadata.get("tags") == ["parameters"]]
    assert tagged == ["cell-01"]
    assert text.count("mats.merge(") == 1
    assert "import mats_core as mats" in text


def test_a_merge_without_tasks_compares_its_tensors(finish: Finish, own_family: Path, capsys):
    execute(notebook(finish("average", evaluate=False), str(own_family)))
    out = capsys.readouterr().out
    assert "tensors merged" in out or "tensors averaged" in out
    assert "The numbers are the same." in out


def test_names_are_text(finish: Finish):
    made = finish("average")
    hostile = Finished(made.id, "<img src=x> [a](b)\n# c", "$x$", made.recipe, made.report)
    first = nbformat.reads(notebook(hostile, 'it\'s "here"\\'), as_version=4).cells[0].source
    assert "\\<img src=x\\>" in first
    assert "\\[a\\](b)" in first
    assert "\n# c" not in first
    assert "\\$x\\$" in first
