"""Whether two commits merge to the same bytes: `python -m benchmarks.same_bytes OLD`.

Every method, and settings that take other ways through the code, are merged by the command line of
a worktree of OLD and by the working tree (or by NEW), one after the other and on one thread, and
the SHA-256 of every tensor file is compared.  Statistics are measured by both as well.  Nothing but
the command line and the files that it writes is used, so the two may have any layout inside.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.performance.compare import checkout
from benchmarks.performance.results import ROOT

TASKS = ("digits", "shapes", "counting", "orientation")
EXAMPLES = 64  # a task: the bytes matter here, not the accuracy

# name → what differs from the method's defaults over the four experts
CASES: dict[str, dict[str, Any]] = {
    "average": {},
    "average, float64 to bfloat16": {"dtype": "float64", "output_dtype": "bfloat16"},
    "slerp": {"experts": 2},
    "task_arithmetic": {"weights": [1, 0.5, 2, 1]},
    "ties": {},
    "ties, within each tensor": {"options": {"scope": "tensor"}},
    "dare": {"seed": 3},
    "fisher": {},
    "regmean": {},
    "regmean, bias folded in": {"options": {"fold_bias": True}},
    "kfac": {},
    "kfac, bias folded in": {"options": {"fold_bias": True, "iterations": 8}},
    "kfac, truncated": {"options": {"rank": 16, "iterations": 5}},
    "kfac, two experts": {"experts": 2},
    "kfac, two rounds": {"rounds": 2, "options": {"iterations": 5}},
    "tsv_m": {},
    "iso_c": {},
    "iso_cts": {},
    "essential": {},
    "gradient_matching": {"options": {"prior": 0.001}},
    "kfac_matching": {"options": {"iterations": 10}},
}  # fmt: skip


def recipe(name: str, statistics: Path) -> dict[str, Any]:
    """The recipe of one case, with absolute paths."""
    case = dict(CASES[name])
    count, weights = case.pop("experts", len(TASKS)), case.pop("weights", [1] * len(TASKS))
    family = ROOT / "sample_models" / "drawn"
    experts = [
        {
            "name": task,
            "model": str(family / task),
            "statistics": str(statistics / f"{task}.stats.safetensors"),
            "weight": weight,
            "task": f"sample:{task}",
        }
        for task, weight in zip(TASKS[:count], weights, strict=False)
    ]
    content = {"base": str(family / "base"), "experts": experts, "evaluate": False, "device": "cpu"}
    return {**content, "method": name.partition(",")[0], **case}


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor file below a folder, by its name there."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.safetensors"))
    }


def made_by(tree: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Case → digests of what the command line of a tree writes, below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    statistics, made = folder / "statistics", dict[str, dict[str, str]]()
    for task in TASKS:
        file = statistics / f"{task}.stats.safetensors"
        model = str(ROOT / "sample_models" / "drawn" / task)
        words = ["--task", f"sample:{task}", "--out", str(file), "--examples", str(EXAMPLES)]
        _mats(tree, "measure", model, *words, "--device", "cpu")
    made["statistics"] = digests(statistics)
    for name in CASES:
        file, output = folder / "recipe.yaml", folder / name.replace(", ", "-").replace(" ", "_")
        file.write_text(yaml.safe_dump(recipe(name, statistics), sort_keys=False), "utf-8")
        _mats(tree, "merge", str(file), "--output", str(output))
        made[name] = digests(output)
    return made


def _mats(tree: Path, *words: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "mats_core", *words]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{tree}: mats_core {' '.join(words)}\n{done.stderr}")


@contextlib.contextmanager
def _tree(revision: str | None) -> Iterator[Path]:
    if revision is None:
        yield ROOT
        return
    with checkout(revision) as tree:
        yield tree


def main() -> int:
    """Print a line a case; returns 1 where any differs, else 0."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.same_bytes", description=__doc__)
    words.add_argument("old", help="a revision")
    words.add_argument("new", nargs="?", help="another; the working tree by default")
    arguments = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="mats-bytes-") as folder:
        sides: list[dict[str, dict[str, str]]] = []
        for revision, side in ((arguments.old, "old"), (arguments.new, "new")):
            with _tree(revision) as tree:
                sides.append(made_by(tree, Path(folder) / side))
    old, new = sides
    for name, files in old.items():
        same = files == new[name]
        print(f"{'same' if same else 'DIFFERENT'}  {len(files)} files  {name}")
    return int(old != new)


if __name__ == "__main__":
    raise SystemExit(main())
