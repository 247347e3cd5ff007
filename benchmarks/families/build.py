"""Building a family, resumably: what is complete is not made again.

A checkpoint takes its name only when it is whole (`staged_directory`), and its record — settings,
seconds, accuracies — is written just before, so a finished folder always has one.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Protocol

import yaml

from mats_core.checkpoints import staged_directory, write_atomically
from mats_core.errors import InputError

from . import training
from .data import Data, Examples

Report = Callable[[str], None]
PROCESSES = 2
SHOWN = ("validation", "test")


class Kind(Protocol):
    """What the two families have in common; a dataclass of settings that can be pickled."""

    # Read-only, so that frozen dataclasses fit.
    @property
    def name(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def heads(self) -> tuple[str, ...]: ...
    def read(self, data: Path, task: str) -> Data: ...
    def write_tasks(self, data: Path, out: Path) -> dict[str, str]: ...
    def write_base(self, data: Path, folder: Path) -> None: ...
    def fine_tune(self, base: Path, classes: Sequence[str], examples: Examples) -> Any: ...
    def save(self, model: Any, base: Path, folder: Path) -> None: ...
    def load(self, folder: Path) -> Any: ...
    def batches(self, base: Path, examples: Examples) -> Any: ...


Job = tuple[Kind, Path, Path, str]


def build(
    kind: Kind, data: Path, out: Path, *, processes: int = PROCESSES, report: Report = print
) -> dict[str, Any]:
    """Base, experts, `family.yaml`, `accuracies.json` and `README.md` in `out`.

    `processes`: how many experts are trained at a time; 0 trains in this process.  Returns what
    `accuracies.json` says.  Raises `InputError` for data that are not there and for a
    folder whose experts were trained with other settings.
    """
    for task in kind.tasks:
        kind.read(data, task)  # what is missing is named before the first step
    _same_settings(kind, out)
    references = kind.write_tasks(data, out)
    for work, names in ((_base, ("base",)), (_expert, kind.tasks)):
        jobs = [(kind, data, out, name) for name in names if not (out / name).is_dir()]
        for line in _run(work, jobs, processes):
            report(line)
    _write_family(kind, out, references)
    return _write_table(kind, out)


def _run(work: Callable[[Job], str], jobs: Sequence[Job], processes: int) -> Iterator[str]:
    """The jobs' lines as they finish; processes of their own keep their one thread."""
    if not jobs or not processes:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, len(jobs))) as pool:
        yield from pool.imap_unordered(work, jobs)


def _same_settings(kind: Kind, out: Path) -> None:
    """Refuse to complete a family with settings that its finished part was not made with."""
    file = out / "settings.json"
    settings = json.loads(json.dumps(asdict(kind)))  # type: ignore[call-overload]
    if file.is_file():
        found = json.loads(file.read_text("utf-8"))
        other = sorted(key for key in settings if settings[key] != found.get(key))
        if other:
            raise InputError(
                f"family folder '{out}'",
                expected=f"experts trained with the same {', '.join(other)}",
                found=f"{', '.join(str(found.get(key)) for key in other)}",
                remedy="Give another folder with --out, or delete this one.",
            )
    write_atomically(file, (json.dumps(settings, indent=2) + "\n").encode())


def _base(job: Job) -> str:
    kind, data, out, name = job
    started = time.perf_counter()
    with _staged(out / name) as folder:
        kind.write_base(data, folder)
        seconds = time.perf_counter() - started
        _record(out, name, {"seconds": round(seconds)})
    return f"{name}: {seconds:.0f} s"


def _expert(job: Job) -> str:
    """Train, measure and save one expert."""
    kind, data, out, task = job
    base, examples = out / "base", kind.read(data, task)
    started = time.perf_counter()
    model = kind.fine_tune(base, examples.classes, examples.training)
    record: dict[str, Any] = {
        "seconds": round(time.perf_counter() - started),
        "classes": len(examples.classes),
        "examples": {
            "training": len(examples.training),
            **{half: len(getattr(examples, half)) for half in SHOWN},
        },
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    with _staged(out / task) as folder:
        kind.save(model, base, folder)
        record["expert"] = _accuracies(kind, base, model, examples)
        _take_encoder(model, kind.load(base), kind.heads)
        record["base_with_head"] = _accuracies(kind, base, model, examples)
        _record(out, task, record)
    return (
        f"{task}: {record['seconds']} s, validation: expert "
        f"{100 * record['expert']['validation']:.1f} %, base with its head "
        f"{100 * record['base_with_head']['validation']:.1f} %"
    )


@contextlib.contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """`staged_directory`, after sweeping away what a killed run left of `target`."""
    for left in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(left, ignore_errors=True)
    with staged_directory(target) as folder:
        yield folder


def _accuracies(kind: Kind, base: Path, model: Any, data: Data) -> dict[str, float]:
    return {
        half: training.accuracy(model, kind.batches(base, getattr(data, half))) for half in SHOWN
    }


def _take_encoder(model: Any, base: Any, heads: Sequence[str]) -> None:
    """Give `model` the base's values wherever they are not its head's."""
    own, other = model.state_dict(), base.state_dict()
    for name, value in own.items():
        if not any(fnmatchcase(name, pattern) for pattern in heads):
            value.copy_(other[name])


def _record(out: Path, name: str, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=2) + "\n"
    write_atomically(out / "records" / f"{name}.json", text.encode())


def _write_family(kind: Kind, out: Path, references: Mapping[str, str]) -> None:
    content = {
        "name": kind.title,
        "base": "base",
        "heads": list(kind.heads),
        "experts": [{"name": task, "model": task, "task": references[task]} for task in kind.tasks],
    }
    write_atomically(out / "family.yaml", yaml.safe_dump(content, sort_keys=False).encode())


def _write_table(kind: Kind, out: Path) -> dict[str, Any]:
    records = {
        name: json.loads((out / "records" / f"{name}.json").read_text("utf-8"))
        for name in ("base", *kind.tasks)
    }
    write_atomically(out / "accuracies.json", (json.dumps(records, indent=2) + "\n").encode())
    write_atomically(out / "README.md", table(kind, records).encode())
    return records


def table(kind: Kind, records: Mapping[str, Any]) -> str:
    """Accuracies of experts and of the base under their heads, as Markdown."""
    lines = [
        f"# {kind.title}",
        "",
        "| task | classes | examples trained on | test examples | expert | base with its head "
        "| expert, validation | base, validation | parameters | seconds |",
        "| --- |" + " --- |" * 9,
    ]
    for task in kind.tasks:
        record = records[task]
        expert, base = record["expert"], record["base_with_head"]
        cells = [
            task,
            record["classes"],
            record["examples"]["training"],
            record["examples"]["test"],
            *(f"{100 * part['test']:.1f}" for part in (expert, base)),
            *(f"{100 * part['validation']:.1f}" for part in (expert, base)),
            f"{record['parameters'] / 1e6:.2f} M",
            record["seconds"],
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    mean = {
        key: sum(records[task][key]["test"] for task in kind.tasks) / len(kind.tasks)
        for key in ("expert", "base_with_head")
    }
    normalised = sum(
        records[task]["base_with_head"]["test"] / records[task]["expert"]["test"]
        for task in kind.tasks
    ) / len(kind.tasks)
    lines += [
        "",
        f"Mean test accuracy: experts {100 * mean['expert']:.1f} %, base with their heads "
        f"{100 * mean['base_with_head']:.1f} % ({100 * normalised:.1f} % normalised). "
        f"The base took {records['base']['seconds']} s.",
        "",
    ]
    return "\n".join(lines)
