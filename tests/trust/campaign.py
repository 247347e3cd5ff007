"""Damaged files of every kind that is read here, and what must come of each.

    python -m tests.trust.campaign --rounds 2000 --seed 1

A round damages one file and opens it by the door that reads such files.  What is allowed: the file
is taken, or an `InputError` of at most `LONGEST` characters; within `SECONDS`, and within the
memory that the process is given.  Everything else is a fault, printed with the seed that gives it
again.  Rounds are drawn from the seed alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from mats_core import InputError, Statistics, load_family, load_recipe, merge, parse_recipe, tasks
from mats_core.adapters import open_expert
from mats_core.checkpoints import Checkpoint, front_matter
from mats_core.export import reopen
from pages.shared.work import runs

LONGEST, SECONDS = 1000, 5
FAMILY = "a family"
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1e308, float("nan"), float("inf"), "", "..", "/", "²", "~nobody/x",
    "a\0b", "x" * 70_000, "\ud800", [], {}, [[]], [None], {"": None}, "../../x", "$(touch x)",
    "(.*)*" * 9 + "!",
)  # fmt: skip
RAW = (
    b"", b"\0", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe\0", b"a: &a [*a, *a]", b"5", b"[]",
    b"!!int x", b"2020-13-45", b"null", b"- " * 5000, b"&a [*a]", b"PK\x03\x04", b"\x1f\x8b\x08",
)  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What may not be: the kind of file, the number of the round, and what came of it."""

    kind: str
    number: int
    said: str


def family(folder: Path) -> None:
    """A base and two experts of two small layers, statistics, tasks, an adapter, and what names
    them."""
    g = torch.Generator().manual_seed(0)
    base = {}
    for i in range(2):
        base |= {f"block.{i}.fc.weight": torch.randn(6, 4, generator=g)}
        base |= {f"block.{i}.fc.bias": torch.randn(6, generator=g)}
    save_file(base, folder / "base.safetensors", {"format": "pt"})
    for m in range(2):
        own = {n: v + 0.1 * torch.randn(v.shape, generator=g) for n, v in base.items()}
        save_file(own, folder / f"e{m}.safetensors", {"format": "pt"})
        stats = {f"{n}.fisher": torch.rand(v.shape, generator=g) for n, v in own.items()}
        for i in range(2):
            x, y = torch.randn(9, 4, generator=g), torch.randn(9, 6, generator=g)
            stats |= {f"block.{i}.fc.input_gram": x.T @ x, f"block.{i}.fc.input_mean": x.mean(0)}
            stats |= {f"block.{i}.fc.output_gradient_gram": y.T @ y}
        told = {"format": "mats-statistics-1", "tokens": "9", "examples": "9", "seed": "0"}
        save_file(stats, folder / f"e{m}.stats.safetensors", told)
    experts = [
        {"name": f"e{m}", "model": f"e{m}.safetensors", "statistics": f"e{m}.stats.safetensors"}
        for m in range(2)
    ]
    recipe = {"base": "base.safetensors", "method": "regmean", "device": "cpu", "experts": experts}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    plain = [{k: e[k] for k in ("name", "model")} for e in experts]
    told = {"name": FAMILY, "base": "base.safetensors", "experts": plain}
    (folder / "family.yaml").write_text(yaml.safe_dump(told))
    sharded = folder / "sharded"
    sharded.mkdir()
    save_file(base, sharded / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(base, "model-1.safetensors")}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    lora = folder / "lora"
    lora.mkdir()
    parts = {
        f"base_model.model.block.{i}.fc.lora_{p}.weight": torch.randn(*shape, generator=g)
        for i in range(2)
        for p, shape in (("A", (2, 4)), ("B", (6, 2)))
    }
    save_file(parts, lora / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["fc"]}
    settings |= {"rank_pattern": {"block.0.fc": 2}, "alpha_pattern": {"fc": 4.0}}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    rows = "text,label\n" + "".join(f"row {i},{'ny'[i % 2]}\n" for i in range(20))
    (folder / "rows.csv").write_text(rows)
    lines = [json.dumps({"text": f"row {i}", "label": "ny"[i % 2]}) for i in range(20)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    for kind in ("csv", "jsonl"):
        task = {"kind": "text", "train": f"rows.{kind}", "test": 0.3, "inputs": ["text"]}
        (folder / f"{kind}.yaml").write_text(yaml.safe_dump(task))
    images, labels = np.zeros((8, 6, 6), np.uint8), np.arange(8) % 2
    halves = {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    np.savez(folder / "task.npz", **halves, classes=np.array(["a", "b"]))
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: a/b\n---\n# A model\n")
    made = parse_recipe({**recipe, "evaluate": False}, folder)
    run = runs.add(FAMILY, 2, made, merge(made).report)
    kept = runs.folder(FAMILY) / f"{run.id}.json"
    (folder / "run.json").write_bytes(kept.read_bytes())


def merged(folder: Path) -> None:
    """A merge of the family by its recipe."""
    report = merge(load_recipe(folder / "recipe.yaml")).report
    json.loads(report.to_json())


def of_run(folder: Path) -> None:
    """The list of runs, with one that is damaged: it never ends with an error."""
    kept = next(runs.folder(FAMILY).glob("*.json"))
    kept.write_bytes((folder / "run.json").read_bytes())
    for run in runs.everything(FAMILY):
        assert run.id == kept.stem
        json.dumps([run.name, run.label, runs.settings(run)])


def of_adapter(folder: Path) -> None:
    """Every tensor of a base under an adapter."""
    view = open_expert(folder / "lora", Checkpoint.open(folder / "base.safetensors"))
    for name in view.tensors:
        view.read(name)


# Kind → (the file that is damaged, the door that reads it).
DOORS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": ("e0.safetensors", merged),
    "statistics": ("e0.stats.safetensors", merged),
    "recipe": ("recipe.yaml", lambda f: load_recipe(f / "recipe.yaml")),
    "recipe from outside": ("recipe.yaml", lambda f: reopen((f / "recipe.yaml").read_bytes(), [])),
    "family": ("family.yaml", lambda f: load_family(f / "family.yaml")),
    "index": ("sharded/model.safetensors.index.json", lambda f: Checkpoint.open(f / "sharded")),
    "adapter": ("lora/adapter_config.json", of_adapter),
    "adapter's weights": ("lora/adapter_model.safetensors", of_adapter),
    "description of a task": ("csv.yaml", lambda f: tasks.load(f / "csv.yaml")),
    "csv": ("rows.csv", lambda f: tasks.load(f / "csv.yaml")),
    "jsonl": ("rows.jsonl", lambda f: tasks.load(f / "jsonl.yaml")),
    "npz": ("task.npz", lambda f: tasks.load(f / "task.npz")),
    "model card": ("README.md", lambda f: front_matter(f / "README.md")),
    "run": ("run.json", of_run),
    "header of statistics": ("e1.stats.safetensors", lambda f: _told(f / "e1.stats.safetensors")),
}


def _told(file: Path) -> None:
    opened = Statistics.open(file)
    json.dumps([opened.tokens, opened.notes, sorted(opened.kinds)])


def damaged(file: Path, content: bytes, rng: random.Random) -> bytes:
    """The bytes of a file with one piece of damage: of its form where it has one, or of any."""
    way = rng.randrange(6)
    if way == 0:
        return rng.choice(RAW)
    if way == 1:
        return content[: rng.randrange(len(content) + 1)]
    if way == 2:
        found = bytearray(content)
        for _ in range(rng.randrange(1, 9)):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)
    with contextlib.suppress(ValueError, yaml.YAMLError, RecursionError):
        if file.suffix == ".safetensors":
            return _header(content, rng)
        if file.suffix == ".json":
            return json.dumps(_changed(json.loads(content), rng)).encode()
        if file.suffix == ".yaml":
            return yaml.safe_dump(_changed(yaml.safe_load(content), rng)).encode("utf-8", "replace")
    at = rng.randrange(len(content) + 1)
    return content[:at] + rng.choice(RAW)[:5000] + content[at:]


def _header(content: bytes, rng: random.Random) -> bytes:
    """A file of safetensors with one value of its header, or of its numbers, exchanged."""
    length = struct.unpack("<Q", content[:8])[0]
    header, rest = json.loads(content[8 : 8 + length]), content[8 + length :]
    if rng.random() < 0.3:
        values = bytearray(rest)
        at = 4 * rng.randrange(len(values) // 4)
        number = rng.choice([float("nan"), float("inf"), 1e38, -1e30, -1.0, 1e-40])
        values[at : at + 4] = struct.pack("<f", number)
        rest = bytes(values)
    else:
        header = _changed(header, rng)
    told = json.dumps(header).encode()
    told += b" " * (-len(told) % 8)
    return struct.pack("<Q", len(told)) + told + rest


def _changed(content: Any, rng: random.Random) -> Any:
    """Plain values with one of them, somewhere, exchanged, removed or called otherwise."""
    place = content
    while isinstance(place, dict | list) and place:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        key = rng.choice(keys)
        inner = place[key]
        if isinstance(inner, dict | list) and inner and rng.random() < 0.8:
            place = inner
            continue
        way = rng.random()
        if way < 0.7:
            place[key] = rng.choice(NASTY)
        elif way < 0.85 and isinstance(place, dict):
            place[str(rng.choice(NASTY))[:80]] = place.pop(key)
        else:
            place.pop(key)
        return content
    return rng.choice(NASTY)


class _TooLong(BaseException):
    """Raised where a door has not answered in time."""


@contextlib.contextmanager
def _alarm(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(door: Callable[[Path], Any], folder: Path, seconds: int = SECONDS) -> str:
    """`taken`, `refused`, or what is wrong with the way in which a door ended."""
    try:
        with _alarm(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door(folder)
    except InputError as error:
        long = len(str(error))
        return "refused" if long <= LONGEST else f"a sentence of {long} characters: {error}"[:300]
    except _TooLong:
        return f"no answer within {seconds} s"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}:{last.lineno}"
        return f"{type(error).__name__} at {where}: {str(error)[:160]}"
    return "taken"


def campaign(
    folder: Path, seed: int, rounds: int, seconds: int = SECONDS
) -> tuple[Counter[tuple[str, str]], list[Fault]]:
    """How often each kind of file was taken and refused, and the faults of so many rounds.

    folder   an empty one, in which the files are made
    """
    logging.disable(logging.CRITICAL)
    try:
        family(folder)
        for kind, (_, door) in DOORS.items():
            if (
                kind != "recipe from outside"
                and (said := outcome(door, folder, seconds)) != "taken"
            ):
                raise AssertionError(f"{kind}, undamaged: {said}")
        counted: Counter[tuple[str, str]] = Counter()
        faults = []
        for number in range(rounds):
            rng = random.Random(f"{seed} {number}")
            kind = list(DOORS)[number % len(DOORS)]
            name, door = DOORS[kind]
            file = folder / name
            whole = file.read_bytes()
            file.write_bytes(damaged(file, whole, rng))
            found = outcome(door, folder, seconds)
            file.write_bytes(whole)
            counted[kind, found if found in ("taken", "refused") else "fault"] += 1
            if found not in ("taken", "refused"):
                faults.append(Fault(kind, number, found))
        return counted, faults
    finally:
        logging.disable(logging.NOTSET)


@contextlib.contextmanager
def alone() -> Iterator[Path]:
    """An empty folder for a family, in a process of one thread that keeps nothing elsewhere."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MATS_RESULTS": f"{folder}/results", "MATS_CACHE": f"{folder}/cache"}
        place = Path(folder) / "family"
        place.mkdir()
        yield place


def main() -> int:
    """Print what came of the rounds; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    asked = parser.parse_args()
    with alone() as place:
        counted, faults = campaign(place, asked.seed, asked.rounds)
    for kind in DOORS:
        told = ", ".join(f"{counted[kind, w]} {w}" for w in ("taken", "refused", "fault"))
        print(f"{kind}: {told}")
    for fault in faults:
        print(f"FAULT {fault.kind}, round {fault.number} of seed {asked.seed}: {fault.said}")
    print(f"{sum(counted.values())} rounds of seed {asked.seed}, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
