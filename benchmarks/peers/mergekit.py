"""mergekit runs the configurations that we export, and its tensors are held against ours.

Both sides are processes of their own on the same files, in turns, so that neither has the warmer
disk cache or the quieter half of the hour.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from mats_core.errors import InputError
from mats_core.export import Finished, mergekit
from mats_core.recipes import Report, load_recipe

from . import llama
from .differences import Difference, compare
from .processes import Ran, run

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """One merge that both sides make; `experts`: the first so many."""

    title: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    experts: int = 3
    dtype: str = "float32"

    @property
    def stem(self) -> str:
        return f"{self.method}-{self.dtype}"


METHODS = (
    ("average", "average", {}, 3),
    ("task arithmetic", "task_arithmetic", {"scaling": 0.4}, 3),
    ("TIES, tensor scope", "ties", {"scope": "tensor", "density": 0.2, "scaling": 1.0}, 3),
    ("SLERP", "slerp", {"t": 0.4}, 2),
)
CASES = tuple(Case(*method, dtype=dtype) for dtype in DTYPES for method in METHODS)


@dataclass(frozen=True)
class Result:
    """One case: every run of both sides, and how far their last outputs are apart.

    `load`: the machine's load average before the first run and after the last.
    """

    case: Case
    ours: Sequence[Ran]
    theirs: Sequence[Ran]
    differences: Sequence[Difference]
    load: tuple[float, float]


def write_families(folder: Path, size: llama.Size) -> None:
    """The checkpoints in `folder/float32` and `folder/bfloat16`, anew."""
    for name, dtype in DTYPES.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        llama.write_family(folder / name, size, dtype)


def compare_case(
    folder: Path,
    case: Case,
    interpreter: str,
    *,
    repeats: int = 3,
    threads: int = 1,
    tell: Callable[[str], None] = print,
    look: Callable[[Path, Path], None] = lambda ours, theirs: None,
) -> Result:
    """Make a case's merge `repeats` times on both sides, in turns.

    `look` is shown both sides' last outputs before they are removed.  Raises `InputError` with the
    end of its output where a process fails.
    """
    family = folder / case.dtype
    recipe, config = _recipe(family, case), family / f"{case.stem}.mergekit.yaml"
    here, there = (family / "out" / f"{case.stem}-{side}" for side in ("ours", "theirs"))
    ours, theirs, load = [], [], os.getloadavg()[0]
    for turn in range(repeats):
        # Ours first in the first turn: the configuration is made of its report.
        for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
            shutil.rmtree(here if side == "ours" else there, ignore_errors=True)
            if side == "ours":
                command = [sys.executable, "-m", "mats_core", "merge", str(recipe),
                           "--output", str(here), "--no-evaluate"]  # fmt: skip
                ours.append(_must(run(command, folder=family, threads=threads, path=str(ROOT))))
                config.write_text(_exported(recipe, here), "utf-8")
            else:
                # Its model card would ask the hub about every relative path.
                command = [interpreter, "-m", "mergekit.scripts.run_yaml", config.name, str(there),
                           "--quiet", "--no-write-model-card",
                           "--num-threads", str(threads)]  # fmt: skip
                theirs.append(_must(run(command, folder=family, threads=threads)))
            last = (ours if side == "ours" else theirs)[-1]
            tell(f"{case.stem} {side}: {last.seconds:.1f} s, {last.peak / 1e6:.0f} MB")
    found = compare(here, there)
    look(here, there)
    shutil.rmtree(family / "out")
    return Result(case, ours, theirs, found, (load, os.getloadavg()[0]))


def _recipe(family: Path, case: Case) -> Path:
    content = {
        "base": "base",
        "experts": [{"name": n, "model": n} for n in llama.EXPERTS[: case.experts]],
        "method": case.method,
        "options": dict(case.options),
        "heads": [],  # a language model's last layer is merged like every other
        "output_dtype": case.dtype,
        "device": "cpu",
    }
    file = family / f"{case.stem}.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return file


def _exported(recipe: Path, output: Path) -> str:
    """The mergekit YAML of a merge that was written, as the page Export gives it."""
    report = Report.from_dict(_json(output / "report.json"))
    found = mergekit(Finished("peers", "peers", "peers", load_recipe(recipe), report))
    if found.agreement != "same":
        raise InputError("export", expected="a configuration of its own", found=found.sentence)
    return found.config


def _json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


def _must(ran: Ran) -> Ran:
    if ran.code:
        end = " ".join(ran.errors.split())[-600:]
        raise InputError("process", expected="exit code 0", found=f"{ran.code}: {end}")
    return ran


def imports(interpreter: str, modules: str, folder: Path, path: str | None = None) -> Ran:
    """A process that does nothing but import `modules`: what no merge can go below."""
    return _must(run([interpreter, "-c", f"import {modules}"], folder=folder, path=path))
