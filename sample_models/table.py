"""The table of accuracies in `README.md`: every method, by default and searched.

python -m sample_models.table
python -m sample_models.table --methods sequential     these rows anew, beside the others
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mats_core.evaluation import TaskResult
from mats_core.merging import merge
from mats_core.recipes import FamilyFile, Inputs, Report, load_family, measure_all, open_inputs

HERE = Path(__file__).parent
BEGIN, END = "<!-- table:begin -->", "<!-- table:end -->"

# One grid a method, all of like size; the best on validation data is evaluated on test data once.
GRIDS: dict[str, dict[str, list[Any]]] = {
    "average": {},
    "task_arithmetic": {"scaling": [0.1, 0.2, 0.3, 0.4, 0.5, 0.7]},
    "ties": {"density": [0.1, 0.2, 0.5], "scaling": [1.0, 1.5, 2.0]},
    "dare": {"drop": [0.5, 0.9], "scaling": [0.1, 0.2, 0.3, 0.4]},
    "fisher": {"floor": [0.0, 0.01, 0.1, 0.5], "normalise": [False, True]},
    "regmean": {"damping": [0.0001, 0.001, 0.01, 0.03, 0.1, 0.3]},
    "kfac": {"damping": [0.01, 0.03, 0.1, 0.3], "iterations": [15, 50]},
    "tsv_m": {"scaling": [0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5]},
    "iso_c": {"scaling": [1.0, 1.5, 2.0, 2.5, 3.0]},
    "iso_cts": {"scaling": [1.0, 1.5, 2.0, 2.5, 3.0]},
    "essential": {
        "scaling": [1.0, 1.5, 2.0, 2.5],
        "task_power": [0.0, 2.0],
        "layer_power": [0.0, 2.0],
    },
    "gradient_matching": {"scaling": [0.1, 0.2, 0.3, 0.5, 1.0]},
    "kfac_matching": {"prior": [0.03, 0.1, 0.3], "damping": [0.03, 0.1]},
    "sequential": {"damping": [0.01, 0.03, 0.1, 0.3]},
}
VALIDATION_EXAMPLES = 250


def write_table(family: Path, readme: Path | None, methods: Collection[str] = GRIDS) -> str:
    """Evaluate these methods on `family`; put the table between the markers of `readme`, where the
    rows of all others stay."""
    collection = load_family(family)
    statistics = measure_all(collection)
    inputs = open_inputs(collection.recipe("average", statistics=statistics))
    before, text, after = _parts(readme)
    rows, per_task = _known(text, 5), _known(text, len(collection.experts))
    results: Sequence[TaskResult] = ()
    for method in methods:
        default = _run(collection, statistics, inputs, method, {})
        searched = default
        if GRIDS[method]:
            searched = _searched(collection, statistics, inputs, method)
        rows[method], results = _row(method, default, searched), searched.tasks
        per_task[method] = _line(method, results)
        print(rows[method], flush=True)
    there = [method for method in GRIDS if method in rows]
    lines = [*HEADER, *(rows[method] for method in there), ""]
    lines += [*_tasks(results), *(per_task[method] for method in there)]
    text = "\n".join([*_summary(results), *lines])
    if readme is not None:
        readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", "utf-8")
    return text


def _parts(readme: Path | None) -> tuple[str, str, str]:
    """What stands before the table, the table, and what stands behind it."""
    before, _, rest = (readme.read_text("utf-8") if readme is not None else "").partition(BEGIN)
    table, _, after = rest.partition(END)
    return before, table, after


def _known(table: str, columns: int) -> dict[str, str]:
    """Method → its row in that one of the tables which has so many columns beside the method."""
    found = {}
    for line in table.splitlines():
        named = re.match(r"\| `(\w+)` \|", line)
        if named and line.count(" | ") == columns:
            found[named[1]] = line
    return found


HEADER = [
    "| method | default: normalised | gap recovered | searched on validation | normalised | "
    "gap recovered |",
    "| --- | --- | --- | --- | --- | --- |",
]


def _run(
    collection: FamilyFile,
    statistics: Mapping[str, Path],
    inputs: Inputs,
    method: str,
    options: Mapping[str, Any],
    **settings: Any,
) -> Report:
    recipe = collection.recipe(method, options, statistics=statistics, **settings)
    return merge(recipe, inputs=inputs)


def _searched(
    collection: FamilyFile, statistics: Mapping[str, Path], inputs: Inputs, method: str
) -> Report:
    """The best of the grid on `VALIDATION_EXAMPLES` a task, evaluated on the whole test split."""
    chosen = _run(
        collection,
        statistics,
        inputs,
        method,
        {},
        search=GRIDS[method],
        evaluate={"split": "validation", "examples": VALIDATION_EXAMPLES},
    )
    best = {name: chosen.options[name] for name in GRIDS[method]}
    return _run(collection, statistics, inputs, method, best)


def _row(method: str, default: Report, searched: Report) -> str:
    names = GRIDS[method]
    options = ", ".join(f"{name} {searched.options[name]}" for name in names) or "–"
    return (
        f"| `{method}` | {_percent(default)} | {_gap(default)} | {options} | "
        f"{_percent(searched)} | {_gap(searched)} |"
    )


def _percent(report: Report) -> str:
    return f"{100 * (report.normalised_accuracy or 0):.1f} ± {100 * half_width(report.tasks):.1f}"


def _gap(report: Report) -> str:
    return "–" if report.gap_recovered is None else f"{100 * report.gap_recovered:.0f} %"


def half_width(results: Sequence[TaskResult]) -> float:
    """Half the 95 % interval of the normalised accuracy, the experts' accuracies taken as given."""
    variance = sum(
        r.merged.accuracy * (1 - r.merged.accuracy) / r.merged.examples / r.finetuned.accuracy**2
        for r in results
    )
    return 1.96 * math.sqrt(variance) / len(results)


def _summary(results: Sequence[TaskResult]) -> list[str]:
    tasks = len(results)
    finetuned = sum(r.finetuned.accuracy for r in results) / tasks
    pretrained = sum(r.pretrained.accuracy / r.finetuned.accuracy for r in results) / tasks
    return [
        f"Test split, {min(r.merged.examples for r in results)} or more examples a task. Experts: "
        f"{100 * finetuned:.1f} % mean accuracy. Pre-trained encoder with the experts' heads: "
        f"{100 * pretrained:.1f} % normalised. ± is half the 95 % interval.",
        "",
    ]


def _tasks(first: Sequence[TaskResult]) -> list[str]:
    """The head of the table by task, of the searched merges: the experts and the base."""
    return [
        "Accuracy per task in %, searched options:",
        "",
        "| | " + " | ".join(r.name for r in first) + " |",
        "| --- |" + " --- |" * len(first),
        "| expert | " + " | ".join(f"{100 * r.finetuned.accuracy:.1f}" for r in first) + " |",
        "| pre-trained | " + " | ".join(f"{100 * r.pretrained.accuracy:.1f}" for r in first) + " |",
    ]


def _line(method: str, results: Sequence[TaskResult]) -> str:
    """Accuracy per task of a searched merge."""
    return f"| `{method}` | {' | '.join(f'{100 * r.merged.accuracy:.1f}' for r in results)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m sample_models.table")
    parser.add_argument("--family", type=Path, default=HERE / "drawn")
    parser.add_argument("--methods", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    chosen = parser.parse_args()
    own = chosen.family.resolve() == (HERE / "drawn").resolve()
    print(write_table(chosen.family, HERE / "README.md" if own else None, chosen.methods))
