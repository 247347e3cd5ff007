"""What one `run(recipe)` passes through: `python -m benchmarks.way_through [COMMIT …]`.

For each commit (and for the working tree, where none is named) a merge of two experts of the sample
family by K-FAC, written to disk and tested, is watched from its call to its last event:

    opened      how often `Checkpoint.open`, `examine` (the preflight) and `prepare` are called
    rooms       different rooms that the first 400 calls enter
    climbs      calls among them from a frame in a lower room into a higher one

A room is the first part of a module's name below `mats_core`; the floors are those of the commit's
`tests/test_imports.py`.  Imports and resumed generators are no calls.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from benchmarks.performance.compare import checkout
from benchmarks.performance.results import ROOT

TASKS = ("digits", "shapes")
EXAMPLES = 64
FIRST = 400  # calls that are looked at for rooms and climbs
WATCHED = ("Checkpoint.open", "examine", "prepare")

# Run in the tree that is watched: python -c PROBE recipe.yaml small.yaml
PROBE = """
import json, sys
from dis import opmap
from pathlib import Path
import mats_core
import tests.test_imports as plan

root = str(Path("mats_core").resolve())
if hasattr(plan, "FLOORS"):
    rows = [line.split() for line in plan.FLOORS.strip().splitlines()]
    floor = {room: level for level, row in enumerate(rows) for room in row}
else:
    floor = {}
    for level, name in enumerate(plan.ORDER):
        floor.setdefault(name.partition(".")[0], level)

def room(code):
    if not code.co_filename.startswith(root):
        return None
    return Path(code.co_filename).relative_to(root).with_suffix("").parts[0]

def resumed(frame):
    at = frame.f_lasti  # RESUME 0 begins a function, others go on in a generator
    code = frame.f_code.co_code
    return code[at] == opmap.get("RESUME") and code[at + 1] & 3 != 0

counts, entered, climbs, seen = dict.fromkeys(WATCHED, 0), [], [], 0

def watch(frame, event, argument):
    global seen
    code = frame.f_code
    here = room(code) if event == "call" else None
    if here is None or code.co_name.startswith("<") or resumed(frame):
        return
    if code.co_qualname in counts:
        counts[code.co_qualname] += 1
    seen += 1
    if seen > FIRST or here not in floor:
        return
    entered.append(here)
    caller = frame.f_back
    while caller is not None and room(caller.f_code) is None:
        caller = caller.f_back
    there = room(caller.f_code) if caller is not None else None
    if there in floor and floor[there] < floor[here]:
        climbs.append(f"{there} > {here}")

for event in mats_core.run(mats_core.load_recipe(sys.argv[2])):
    pass  # what is imported on use
recipe = mats_core.load_recipe(sys.argv[1])
sys.setprofile(watch)
for event in mats_core.run(recipe):
    pass
sys.setprofile(None)
print(json.dumps({"opened": counts, "calls": seen, "rooms": sorted(set(entered)),
                  "climbs": climbs}))
"""


def probe() -> str:
    """The program that is run in a tree."""
    return PROBE.replace("WATCHED", repr(WATCHED)).replace("FIRST", str(FIRST))


def watched(tree: Path) -> dict[str, object]:
    """What the probe says of the code in `tree`."""
    with tempfile.TemporaryDirectory(prefix="mats-way-") as folder:
        place, environment = Path(folder), os.environ | {"MATS_CACHE": str(Path(folder) / "cache")}
        environment |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}

        def python(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            return done.stdout

        family = ROOT / "sample_models" / "drawn"
        for task in TASKS:
            python(
                "-m", "mats_core", "measure", str(family / task), "--task", f"sample:{task}",
                "--examples", str(EXAMPLES), "--out", str(place / f"{task}.safetensors"),
            )  # fmt: skip
        experts = [
            {
                "name": task,
                "model": str(family / task),
                "statistics": str(place / f"{task}.safetensors"),
                "task": f"sample:{task}",
            }
            for task in TASKS
        ]
        content = {
            "base": str(family / "base"),
            "experts": experts,
            "method": "kfac",
            "evaluate": {"examples": EXAMPLES},
            "device": "cpu",
        }
        for name in ("merged", "small"):
            recipe = content | {"output": str(place / name)}
            (place / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        said = python("-c", probe(), str(place / "merged.yaml"), str(place / "small.yaml"))
        return json.loads(said.splitlines()[-1])


def line(name: str, found: dict[str, object]) -> str:
    """One commit's row."""
    opened, rooms, climbs = found["opened"], found["rooms"], found["climbs"]
    assert isinstance(opened, dict)
    assert isinstance(rooms, list)
    assert isinstance(climbs, list)
    counts = ", ".join(f"{what} {count}×" for what, count in opened.items())
    return f"{name}: {counts}; {len(rooms)} rooms, {len(climbs)} climbs in {FIRST} calls"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each commit, and one for the working tree."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.way_through")
    parser.add_argument("commits", nargs="*", metavar="COMMIT")
    parser.add_argument("--climbs", action="store_true", help="say from where to where")
    options = parser.parse_args(arguments)
    for commit in [*options.commits, ""]:
        with checkout(commit) if commit else contextlib.nullcontext(ROOT) as tree:
            found = watched(tree)
        print(line(commit or "working tree", found), flush=True)
        if options.climbs:
            print("  rooms: " + ", ".join(found["rooms"]))  # type: ignore[arg-type]
            print("  climbs: " + ", ".join(found["climbs"]))  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    sys.exit(main())
