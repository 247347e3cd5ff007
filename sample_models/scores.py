"""`python -m sample_models.scores`: what the sample family's experts and base reach, in a file.

The file comes with the family: a new machine asks a few of the examples again instead of all.
"""

from __future__ import annotations

from pathlib import Path

from mats_core.evaluation import evaluate, kept
from mats_core.families import Expert, Family
from mats_core.recipes import load_family, open_inputs
from mats_core.tasks import Task, load

FAMILY = Path(__file__).parent / "drawn"
FILE = "scores.json"
SPLITS = ("validation", "test")


def write_scores(folder: Path) -> None:
    """Ask every expert, and the base with its head, and write the family's file."""
    family = open_inputs(load_family(folder).recipe("average")).family
    found = {}
    for expert in family.experts:
        for split, (task, key) in asked(family, expert).items():
            found[key] = evaluate.baselines(family, expert, task, split, None, "cpu")
    kept.write(folder / FILE, found)


def asked(family: Family, expert: Expert) -> dict[str, tuple[Task, tuple]]:
    """Split → the task as the expert is asked it, and the key of what is answered."""
    task = evaluate.check_task(expert, load(str(expert.task))).task
    return {s: (task, evaluate.baselines_key(family, expert, task, s, None)) for s in SPLITS}


if __name__ == "__main__":
    write_scores(FAMILY)
