"""From disk to disk: an average against reading and writing alone, and TIES against mergekit.

`python -m benchmarks.performance.disk RECIPE` merges once and prints the seconds that it took.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks import memory
from benchmarks.peers import llama, mergekit
from benchmarks.peers.processes import Ran, run
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError
from mats_core.linear import streamed_thresholds

from .base import CannotRun, Line, Row, relative

ROOT = Path(__file__).resolve().parents[2]
PEER = "MATS_PEERS_PYTHON"  # an interpreter with mergekit, as `benchmarks.peers` has it
FOUR = memory.Size(blocks=6, hidden=1024, inner=2816, keys=256, vocabulary=32_000)  # 402 MB
LLAMA = llama.Size(hidden=1024, intermediate=2816, layers=16, vocabulary=32_000, heads=16)  # 271 M
BLOCK = 1 << 20
REPEATS = 5
DENSITY = 0.2
SETTLED = 2.5  # seconds until a new file counts as one that does not change


@contextmanager
def folder() -> Iterator[Path]:
    """A place for some gigabytes, beside a cache of its own: nothing is known of its files."""
    before = os.environ.get("MATS_CACHE")
    with tempfile.TemporaryDirectory(prefix="mats-disk-") as place:
        os.environ["MATS_CACHE"] = str(Path(place) / "cache")
        try:
            yield Path(place)
        finally:
            os.environ.pop("MATS_CACHE")
            if before is not None:
                os.environ["MATS_CACHE"] = before


# The average --------------------------------------------------------------------------------------


def floor(family: Path) -> float:
    """Seconds to read every expert into one buffer and to write one of their size to the disk."""
    buffer = memoryview(bytearray(BLOCK))
    begun, total = time.perf_counter(), 0
    for expert in range(memory.EXPERTS):
        for file in sorted((family / f"e{expert}").glob("*.safetensors")):
            with file.open("rb", buffering=0) as handle:
                while read := handle.readinto(buffer):
                    total += read
    out = family / "floor.bin"
    with out.open("wb", buffering=0) as handle:
        for _ in range(total // memory.EXPERTS // BLOCK):
            handle.write(buffer)
        os.fsync(handle.fileno())
    seconds = time.perf_counter() - begun
    out.unlink()
    return seconds


def child(recipe: str) -> None:
    """In the process that is measured: merge, or (without a recipe) only import."""
    from mats_core.merging import merge
    from mats_core.recipes import load_recipe

    begun = time.perf_counter()
    if recipe:
        merge(load_recipe(recipe))
    print(json.dumps({"seconds": time.perf_counter() - begun}))


def ours(recipe: Path | None) -> tuple[float, Ran]:
    """Seconds of the merge alone, and what its process took."""
    with tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said.json"
        code = (
            "import sys; from benchmarks.performance import disk; "
            f"sys.stdout = open({str(said)!r}, 'w'); disk.child({str(recipe or '')!r}); "
            "sys.stdout.close()"
        )
        ran = run([sys.executable, "-c", code], folder=ROOT, path=str(ROOT))
        if ran.code:
            raise InputError("merge", expected="exit code 0", found=ran.errors[-600:])
        return json.loads(said.read_text())["seconds"], ran


def average() -> Sequence[Line]:
    """Four experts of 400 MB in float32: floor and merge in turns."""
    with folder() as place:
        family = place / "family"
        memory.make(family, FOUR, torch.float32)
        recipe = memory.recipe(family, "average", {}, statistics=False)
        time.sleep(SETTLED)
        floor(family)  # everything is in the page cache from here on
        idle = statistics.median(ours(None)[1].anonymous for _ in range(3))
        rows: dict[str, list[tuple[float, float, int]]] = {"first": [], "again": []}
        for _ in range(REPEATS):
            for kind, own in rows.items():
                if kind == "first":
                    shutil.rmtree(os.environ["MATS_CACHE"], ignore_errors=True)
                shutil.rmtree(family / "merged", ignore_errors=True)
                least = floor(family)
                seconds, ran = ours(recipe)
                own.append((seconds, least, ran.anonymous))
        apart = _from_the_mean(family)
    hashing = "SHA-256 of all five checkpoints (2 GB) is what files that were never seen take more."
    return [
        *(
            Line(
                f"4 × 400 MB, float32, one thread, {title}",
                statistics.median(seconds for seconds, _, _ in rows[kind]),
                statistics.median(least for _, least, _ in rows[kind]),
                goal=1.5, at_most=True, checks=apart, note=note,
            )
            for kind, title, note in (
                ("again", "files whose fingerprints are known", "Nothing else is left out: numbers "
                 "that are not finite are looked for in what is written, and it is on the disk."),
                ("first", "files that were never seen", hashing),
            )
        ),
        Line(
            "memory beyond that of a process that only imports, at the peak",
            max(anonymous for own in rows.values() for _, _, anonymous in own) / 1e6 - idle / 1e6,
            50.0, unit="MB", goal=1.0, at_most=True,
            note="Against the 50 MB of the goal. Anonymous memory, looked at every 20 ms.",
        ),
    ]  # fmt: skip


def _from_the_mean(family: Path) -> dict[str, float]:
    merged = Checkpoint.open(family / "merged")
    experts = [Checkpoint.open(family / f"e{m}") for m in range(memory.EXPERTS)]
    return {
        "from the mean in float64": max(
            relative(merged.read(name), sum(e.read(name).double() for e in experts) / len(experts))
            for name in merged.tensors
        )
    }


# TIES ---------------------------------------------------------------------------------------------


def interpreter() -> str:
    """The interpreter with mergekit; raises `CannotRun` where none is named."""
    named = os.environ.get(PEER)
    if not named or not Path(named).is_file():
        raise CannotRun(f"{PEER} names no interpreter with mergekit (see benchmarks/peers)")
    return named


def ties() -> Sequence[Line]:
    """Two experts of 271 million numbers in bfloat16: CPU seconds of both commands, in turns."""
    peer = interpreter()
    case = mergekit.Case(
        "TIES", "ties", {"scope": "tensor", "density": DENSITY, "scaling": 1.0}, 2, "bfloat16"
    )
    with folder() as place:
        llama.write_family(place / case.dtype, LLAMA, torch.bfloat16)
        time.sleep(SETTLED)
        unlike: list[float] = []
        found = mergekit.compare_case(
            place, case, peer, repeats=3, tell=_say,
            look=lambda here, there: unlike.append(unexplained(place / case.dtype, here, there)),
        )  # fmt: skip
    # Ours goes first in the first turn, and has never seen the files then.
    first, *again = (ran.cpu for ran in found.ours)
    theirs = statistics.median(ran.cpu for ran in found.theirs)
    checks: Mapping[str, float] = {
        "largest ‖difference‖ / ‖tensor‖": max(d.relative for d in found.differences),
        "share of entries that differ": sum(d.off for d in found.differences)
        / sum(d.entries for d in found.differences),
        "share that differs for no known reason": unlike[0],
    }
    note = (
        "User and system time of the whole command, imports included. Where several changes are "
        "as large as the threshold, ours keeps all of them, mergekit as many as the density says; "
        "where changes cancel exactly, mergekit elects plus and ours nobody. Both are frequent in "
        "bfloat16."
    )
    size = "2 × 271 M numbers, bfloat16, in shards, one thread"
    return [
        Line(f"{size}, files whose fingerprints are known", statistics.median(again), theirs,
             unit="CPU s", goal=8.0, checks=checks, note=note),
        Line(f"{size}, files that were never seen", first, theirs, unit="CPU s", goal=8.0,
             note="With SHA-256 of all inputs (1.6 GB), which mergekit does not make."),
    ]  # fmt: skip


def unexplained(family: Path, ours: Path, theirs: Path) -> float:
    """Share of the entries that differ by more than rounding, with no reason that is known.

    Known are changes that are exactly at an expert's threshold, and those that cancel exactly.
    """
    base = Checkpoint.open(family / "base")
    experts = [Checkpoint.open(family / name) for name in llama.EXPERTS[:2]]
    here, there = Checkpoint.open(ours), Checkpoint.open(theirs)
    odd = total = 0
    for name in base.tensors:
        zero = base.read(name, dtype=torch.float32)
        changes = [expert.read(name, dtype=torch.float32) - zero for expert in experts]
        known = sum(changes) == 0  # mergekit elects plus there, ours nobody
        limits = streamed_thresholds(lambda changes=changes: [changes], DENSITY)
        for change, limit in zip(changes, limits, strict=True):
            known |= change.abs() == limit
        a, b = here.read(name).float(), there.read(name).float()
        apart, neighbours = (a - b).abs(), torch.maximum(a.abs(), b.abs()) / 128
        odd += int(((apart > neighbours) & ~known).sum())
        total += a.numel()
    return odd / total


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


ROWS = (
    Row("average-from-disk", "Average of four checkpoints of 400 MB, from disk to disk",
        "reading the four and writing one, warm page cache, the same fsync", average, minutes=2.5),
    Row("ties-from-disk", "TIES of two checkpoints of 271 M numbers in bfloat16, in shards",
        "mergekit 0.1.5, CPU seconds", ties, minutes=7, needs=PEER),
)  # fmt: skip
