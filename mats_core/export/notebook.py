"""A notebook that runs a finished merge again and asserts that its numbers are the same.

The same merge always gives the same bytes: cell ids are counted, and nothing is stamped.
"""

from __future__ import annotations

import pprint
from typing import Any

from ..errors import markdown, needed
from ..recipes import Evaluation
from .portable import Finished

KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
FIND_ROOT = """\
import sys
from pathlib import Path

HERE = Path.cwd()  # the next two lines serve a checkout that is not installed
ROOT = next((p for p in (HERE, *HERE.parents) if (p / "mats_core").is_dir()), HERE)
sys.path.append(str(ROOT))"""
PARAMETERS = "parameters"  # the tag by which papermill and others find the cell


def notebook(merge: Finished, place: str) -> str:
    """A notebook that repeats the merge, as JSON; `place`: the family's folder, from ours."""
    cells = [
        ("markdown", _opening(merge)),
        (PARAMETERS, _parameters(merge, place)),
        ("markdown", _about_the_merge(merge)),
        ("code", _run(merge)),
        ("markdown", "## What the merged model can do"),
        *([("code", _SCORES), ("code", _BARS)] if merge.report.tasks else [("code", _COVERAGE)]),
        ("code", "figures.residual_curves(report.layers)"),
        ("markdown", _SAME),
        ("code", _expected(merge)),
        ("code", _CHECK),
        ("markdown", _go_on(merge)),
        ("code", _panel(merge)),
    ]
    return dump(cells)


def dump(cells: list[tuple[str, str]]) -> str:
    """A notebook of (kind, text) cells without outputs; kind `parameters` is code with that tag.

    Raises `nbformat.ValidationError` for anything that is not a notebook.
    """
    nbformat = needed("a notebook", "nbformat", "nbformat", "app")
    v4, made = nbformat.v4, []
    for number, (kind, text) in enumerate(cells):
        new = v4.new_markdown_cell if kind == "markdown" else v4.new_code_cell
        cell = new(text.strip("\n"), id=f"cell-{number:02d}")
        if kind == PARAMETERS:
            cell.metadata["tags"] = [PARAMETERS]
        made.append(cell)
    whole = v4.new_notebook(cells=made, metadata=KERNEL, nbformat=4, nbformat_minor=5)
    nbformat.validate(whole)
    return nbformat.writes(whole, version=nbformat.NO_CONVERT) + "\n"


def _opening(merge: Finished) -> str:
    lines = [
        f"# {markdown(merge.title)}",
        f"A merge of {len(merge.recipe.experts)} experts of the family {markdown(merge.family)}, "
        "made by MaTS Explorer. Save it anywhere inside the folder of MaTS Explorer, or where that "
        "is installed in the folder in which it was started, and run all cells: the merge is made "
        "again, its numbers are compared with those of the run, and a panel goes on from it.",
    ]
    if merge.report.normalised_accuracy is not None:
        asked = sum(task.merged.examples for task in merge.report.tasks)
        lines.append(
            f"In that run the merged model kept {100 * merge.report.normalised_accuracy:.1f} % of "
            f"its experts' accuracy, on {asked:,} {merge.report.split} examples."
        )
    return "\n\n".join(lines)


def _parameters(merge: Finished, place: str) -> str:
    recipe = merge.portable
    settings: dict[str, Any] = {name: getattr(recipe, name) for name in ("seed", "dtype", "device")}
    changed = recipe.model_dump(mode="json", exclude_defaults=True)
    names = (
        "rounds",
        "by",
        "after",
        "refine",
        "routed",
        "lora",
        "output_dtype",
        "weighting",
        "heads",
    )
    for name in names:
        if name in changed:
            settings[name] = changed[name]
    if recipe.evaluate != Evaluation():
        asked = recipe.evaluate
        settings["evaluate"] = asked and asked.model_dump(exclude_none=True)
    return f"""\
FAMILY = {place!r}  # the folder with family.yaml, from that of MaTS Explorer
METHOD = {recipe.method!r}
OPTIONS = {_literal(dict(recipe.options))}
WEIGHTS = {_literal({entry.name: entry.weight for entry in recipe.experts})}
SETTINGS = {_literal(settings)}
TOLERANCE = 0  # answers a task that may differ: another processor rounds differently"""


def _about_the_merge(merge: Finished) -> str:
    text = "## The merge\n\n"
    if merge.reads_statistics:
        text += (
            "This method reads statistics of each expert on its own task. They are measured where "
            "this machine's cache does not hold them yet. "
        )
    return text + "The merged model stays in memory: nothing is written."


def _run(merge: Finished) -> str:
    imports, measured, how = "", "{}", merge.measuring
    if how:
        imports = "from mats_core.recipes import measure_all\n"
        asked = f"examples={how.examples}, labels={how.labels!r}, seed={how.seed}"
        measured = f"measure_all(\n    family, {asked}\n)"
    return f"""\
{FIND_ROOT}

import mats_core as mats
from mats_core import figures
{imports}
family = mats.load_family(ROOT / Path(FAMILY).expanduser())
statistics = {measured}
recipe = family.recipe(
    METHOD, OPTIONS, statistics=statistics, experts=tuple(WEIGHTS), weights=WEIGHTS, **SETTINGS
)
merged = mats.merge(recipe)
report = merged.report
report.coverage"""


_SCORES = """\
for task in report.tasks:
    low, high = task.merged.interval
    print(
        f"{task.name:<16} {task.merged.value:6.1%}  ({low:.1%} to {high:.1%})"
        f"   expert {task.finetuned.value:6.1%}   pre-trained {task.pretrained.value:6.1%}"
    )
merged"""

_BARS = """\
looks = figures.looks(task.name for task in report.tasks)
figures.accuracy_bars(report.tasks, looks, label=METHOD, split=report.split)"""

_COVERAGE = """\
for treatment, tensors in report.coverage.items():
    print(f"{tensors:5} tensors {treatment}")
merged"""

_SAME = """\
## The same numbers?

This cell fails where the files, the settings or the results differ from the run that this \
notebook was made from."""

_CHECK = """\
for name, fingerprint in FINGERPRINTS.items():
    assert report.fingerprints[name] == fingerprint, f"the files of {name!r} are not the same"
assert report.coverage == COVERAGE, f"other tensors were merged: {report.coverage}"
found = {task.name: (task.merged.correct, task.merged.examples) for task in report.tasks}
assert list(found) == list(CORRECT), f"other tasks: {list(found)}"
for name, (correct, examples) in CORRECT.items():
    assert found[name][1] == examples, f"{name}: {found[name][1]} examples instead of {examples}"
    difference = abs(found[name][0] - correct)
    assert difference <= TOLERANCE, f"{name}: {found[name][0]} right instead of {correct}"
print("The numbers are the same.")"""


# Settings of a recipe that a panel begins with, and those that it has no words for.
TAKEN = ("rounds", "device", "seed", "dtype", "by", "after")
LEFT = {
    "output_dtype": "the dtype of the result", "weighting": "the weighting by examples",
    "refine": "the training after the merge", "routed": "the branches beside the merge",
    "lora": "its form of one LoRA",
}  # fmt: skip


def _go_on(merge: Finished) -> str:
    changed = merge.recipe.model_dump(exclude_defaults=True)
    left = [words for name, words in LEFT.items() if name in changed]
    if merge.measuring and (merge.measuring.labels != "empirical" or merge.measuring.seed):
        left.append("the labels and the seed of the statistics")
    but = f" (but for {' and '.join(left)})" if left else ""
    return f"""\
## Go on from here

The panel begins with the settings above{but}, and merges again whenever one of them is turned. It \
needs JupyterLab or another notebook with widgets; the extra `[notebook]` brings what lacks."""


def _panel(merge: Finished) -> str:
    how = merge.measuring
    measured = f" examples={how.examples}," if how else ""
    return f"""\
experts = tuple(expert for expert in family.experts if expert.name in WEIGHTS)
chosen = family.model_copy(update={{"experts": experts}})
begin = {{name: SETTINGS[name] for name in {TAKEN!r} if name in SETTINGS}}
panel = mats.explore(
    chosen, method=METHOD, options=OPTIONS, weights=WEIGHTS,{measured} **begin
)"""


def _expected(merge: Finished) -> str:
    report = merge.report
    correct = {task.name: (task.merged.correct, task.merged.examples) for task in report.tasks}
    return f"""\
# right answers and examples of each task
CORRECT = {_literal(correct)}
COVERAGE = {_literal(report.coverage)}
FINGERPRINTS = {_literal(dict(report.fingerprints))}"""


def _literal(value: object) -> str:
    """Python source of plain values, one entry a line where it is long."""
    short = repr(value)
    return short if len(short) <= 60 else pprint.pformat(value, width=96, sort_dicts=False)
