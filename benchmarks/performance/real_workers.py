"""The speeds of this machine, and merges by one and two real workers against their simulation.

Bytes and operations are counted as an estimate counts them; the speeds of one worker and the
seconds of a task are measured.

What is measured are CPU seconds, of this process and of its workers, each of one thread: what they
would take on cores of their own.  Seconds on the wall are longer on a busy machine for what takes
long, and not for the short bursts by which speeds are measured.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import memory
from mats_core.checkpoints import Checkpoint, TensorFileWriter
from mats_core.merging import (
    cost_of,
    gram_sides,
    inputs_bytes,
    pipeline,
    planned,
    shape_of,
    statistics_sizes,
)
from mats_core.methods import METHODS, Shape, passes
from mats_core.recipes import load_recipe, open_inputs, units
from mats_core.system import Work
from mats_core.system import cluster as ray_cluster
from mats_core.system import speeds as machine

from .base import Line, timed
from .simulated import Site, Task, simulate

EXPERTS = 4
CASES = ("average", "ties", "kfac")
FIXED: dict[str, dict[str, Any]] = {"kfac": {"iterations": 4, "tolerance": 0.0}}
REAL = memory.Size(blocks=2, hidden=512, inner=1024, keys=128, vocabulary=512)
FEW, MANY = (memory.Size(n, hidden=16, inner=32, keys=16, vocabulary=64) for n in (1, 9))
TURNS = 3
PARTS = ("driver", "workers")


@dataclass(frozen=True)
class Speeds:
    """What is measured here, in CPU seconds.

    rates    of one worker's arithmetic
    read     bytes a second of a worker from a file in the page cache; `write`, synced
    look     bytes a second of the driver's first look through files that it never saw
    survey   bytes (float32) a second of the driver's count over the whole model for TIES
    look_at  operations a second of the Cholesky factorisations by which Grams are looked at
    task     seconds of a task beside that, worker and driver together; `driver`, the driver's part
    merge    seconds of a merge beside its tasks
    """

    rates: machine.Rates
    read: float
    write: float
    look: float
    survey: float
    look_at: float
    task: float = 0.0
    driver: float = 0.0
    merge: float = 0.0


def measured(place: Path) -> Speeds:
    """The speeds of one process as they are now, for files in `place` like those of a merge."""
    family = place / "speeds"
    memory.make(family, replace(REAL, blocks=1, vocabulary=32_768), torch.float32)
    recipe = load_recipe(memory.recipe(family, "average", {}, statistics=False))
    files = [Checkpoint.open(family / name) for name in ("base", *map("e{}".format, range(4)))]
    nbytes = sum(4.0 * torch.Size(e.shape).numel() for f in files for e in f.tensors.values())
    look = _spent(lambda: open_inputs(recipe))
    read = _median(lambda: [f.read(name) for f in files for name in f.tensors])
    value = torch.ones(1 << 24)

    def write() -> None:
        file = family / "w.safetensors"
        with TensorFileWriter(file, {"a": (torch.float32, tuple(value.shape))}, {}) as writer:
            writer.add("a", value)

    ties = METHODS["ties"]
    assert ties.survey is not None
    layer = _layer(2048)
    gram = layer.base @ layer.base.mT
    cholesky = _median(lambda: torch.linalg.cholesky_ex(gram))
    survey = _median(lambda: ties.survey(lambda: [layer], ties.options()))  # type: ignore[misc]
    return Speeds(
        rates=machine.measured_rates("cpu", time.process_time),
        read=nbytes / read,
        write=value.nbytes / _median(write),
        look=nbytes / look,
        survey=4 * EXPERTS * 2048**2 / survey,
        look_at=2048**3 / 3 / cholesky,
    )


def _spent(work: Any) -> float:
    """CPU seconds of this process."""
    begun = time.process_time()
    work()
    return max(time.process_time() - begun, 1e-9)


def _median(work: Any) -> float:
    work()
    return statistics.median(_spent(work) for _ in range(TURNS))


def _layer(size: int) -> Any:
    from mats_core.methods import Layer

    values = [torch.randn(size, size, generator=torch.Generator().manual_seed(i)) for i in range(5)]
    experts = tuple(values[0] + 0.01 * value for value in values[1:])
    return Layer(name="a.weight", base=values[0], experts=experts, weights=(1.0,) * EXPERTS,
                 labels=tuple("abcd"), is_matrix=True)  # fmt: skip


# Two real workers --------------------------------------------------------------------------------


@contextmanager
def workers(count: int) -> Iterator[float]:
    """A cluster of so many workers of one thread on this machine; the seconds of its start."""
    ray = ray_cluster.require_ray()
    os.environ["PYTHONPATH"] = str(ray_cluster.ROOT)
    begun = time.perf_counter()
    ray.init(address="local", num_cpus=count, include_dashboard=False, log_to_driver=False,
             configure_logging=False, object_store_memory=80 * 2**20)  # fmt: skip
    try:
        yield time.perf_counter() - begun
    finally:
        ray.shutdown()


def _made(place: Path, name: str, size: memory.Size, method: str) -> Any:
    family = place / name
    if not family.exists():
        memory.make(family, size, torch.float32, statistics=True)
    file = memory.recipe(family, method, FIXED.get(method, {}), statistics=method == "kfac")
    return load_recipe(file).model_copy(update={"engine": "ray"})


@dataclass(frozen=True)
class Took:
    """What a real merge took: seconds on the wall, and CPU seconds of driver and workers."""

    wall: float
    driver: float
    workers: float


def _merge(recipe: Any) -> Took:
    before, own = _workers_cpu(), time.process_time()
    wall = timed(lambda: pipeline.merge(recipe, force=True))[0]
    return Took(wall, time.process_time() - own, _workers_cpu() - before)


def _workers_cpu() -> float:
    """CPU seconds that the workers of this process's cluster have taken so far."""
    import psutil

    return sum(
        sum(one.cpu_times()[:2])
        for one in psutil.Process().children(recursive=True)
        if one.name().startswith("ray::")
    )


def _tasks(plan: Any, speeds: Speeds) -> list[Task]:
    """The tasks of a real plan: bytes and operations as its estimate counts them."""
    found = []
    for unit in units(plan):
        shape = shape_of(plan, unit)
        seconds = speeds.rates.seconds(cost_of(plan, unit, shape).work) + speeds.task
        seconds += looking(shape, speeds)
        slower = shape.nbytes * speeds.read / speeds.write  # written bytes at the speed of reading
        found.append(Task(inputs_bytes(plan, shape), seconds, slower))
    return found


def looking(shape: Shape, speeds: Speeds) -> float:
    """Seconds in which the statistics of a matrix are looked at: that Grams are symmetric and
    positive semi-definite, and all numbers finite (passes as the estimate counts them)."""
    cubes = sum(count * side**3 / 3 for side, count in gram_sides(shape))
    seen = sum((passes(4 * n, 10.0 * count) for n, count in statistics_sizes(shape)), Work())
    return cubes / speeds.look_at + speeds.rates.seconds(seen)


def expected(recipe: Any, speeds: Speeds, count: int) -> tuple[float, float]:
    """Seconds that the simulation gives a real merge of known files by so many workers, and CPU
    seconds of all of them: what one worker would take."""
    plan = planned(recipe)
    site = Site(link=speeds.read, storage=float("inf"), driver=speeds.driver)
    survey = 0.0
    if recipe.method == "ties":
        survey = sum(shape_of(plan, unit).nbytes for unit in units(plan)) * EXPERTS / speeds.survey
    tasks, before = _tasks(plan, speeds), speeds.merge + survey
    apart = simulate(tasks, 1, replace(site, driver=0.0)).seconds + site.driver * len(tasks)
    return before + simulate(tasks, count, site).seconds, before + apart


def overheads(place: Path) -> dict[str, float]:
    """CPU seconds of a task, of the driver for a task, and of a merge, from two tiny families."""
    found = []
    for name, size in (("few", FEW), ("many", MANY)):
        recipe = _made(place, name, size, "average")
        _merge(recipe)
        took = [_merge(recipe) for _ in range(TURNS)]
        each = (statistics.median(getattr(one, name) for one in took) for name in PARTS)
        found.append((len(units(planned(recipe))), *each))
    (few, driver, workers), (many, more, longer) = found
    task = max(0.0, (longer - workers) / (many - few))
    handing = max(0.0, (more - driver) / (many - few))
    rest = driver + workers - few * (task + handing)
    return {"task": task, "driver": handing, "merge": max(0.0, rest)}


def checked(place: Path) -> tuple[list[Line], Speeds]:
    """Real merges by one and two workers against the simulation of them."""
    lines, speeds = [], measured(place)
    for count in (1, 2):
        with workers(count) as start:
            if count == 1:
                speeds = replace(speeds, **overheads(place))
            for method in CASES:
                recipe = _made(place, "real", REAL, method)
                _merge(recipe)  # workers start, and files become known
                pairs = []
                for _ in range(TURNS):  # in turns: others' work changes both
                    now = replace(speeds, rates=machine.measured_rates("cpu", time.process_time))
                    seconds, told = expected(recipe, now, count)
                    took = _merge(recipe)
                    pairs.append((told, took.driver + took.workers, seconds, took.wall))
                told, took, seconds, wall = map(statistics.median, zip(*pairs, strict=True))
                lines.append(Line(
                    f"{method}, workers: {count}", max(told, took), min(told, took), at_most=True,
                    unit="CPU s",
                    checks={"CPU seconds measured": took, "CPU seconds simulated": told,
                            "simulated / measured": told / took,
                            "seconds on the wall": wall, "simulated": seconds,
                            "start of the cluster, s": start},
                ))  # fmt: skip
    return lines, speeds
