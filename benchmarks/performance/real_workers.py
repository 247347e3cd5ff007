"""The speeds of this machine, and merges by one and two real workers against their simulation.

Bytes and operations are counted as an estimate counts them; the speeds of one worker and the
seconds of a task are measured.
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
from mats_core.merging import cost_of, inputs_bytes, pipeline, planned, shape_of
from mats_core.methods import METHODS
from mats_core.recipes import load_recipe, open_inputs, units
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


@dataclass(frozen=True)
class Speeds:
    """What is measured here.

    rates    of one worker's arithmetic
    read     bytes a second of a worker from a file in the page cache; `write`, synced
    look     bytes a second of the driver's first look through files that it never saw
    survey   bytes (float32) a second of the driver's count over the whole model for TIES
    task     seconds of a task beside that, worker and driver together; `driver`, the driver's part
    merge    seconds of a merge beside its tasks
    """

    rates: machine.Rates
    read: float
    write: float
    look: float
    survey: float
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
    look, _ = timed(lambda: open_inputs(recipe))
    read = _median(lambda: [f.read(name) for f in files for name in f.tensors])
    value = torch.ones(1 << 24)

    def write() -> None:
        file = family / "w.safetensors"
        with TensorFileWriter(file, {"a": (torch.float32, tuple(value.shape))}, {}) as writer:
            writer.add("a", value)

    ties = METHODS["ties"]
    assert ties.survey is not None
    layer = _layer(2048)
    survey = _median(lambda: ties.survey(lambda: [layer], ties.options()))  # type: ignore[misc]
    return Speeds(
        rates=machine.measured_rates("cpu"),
        read=nbytes / read,
        write=value.nbytes / _median(write),
        look=nbytes / look,
        survey=4 * EXPERTS * 2048**2 / survey,
    )


def _median(work: Any) -> float:
    work()
    return statistics.median(timed(work)[0] for _ in range(TURNS))


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


def _merge(recipe: Any) -> float:
    return timed(lambda: pipeline.merge(recipe, force=True))[0]


def _tasks(plan: Any, speeds: Speeds) -> list[Task]:
    """The tasks of a real plan: bytes and operations as its estimate counts them."""
    found = []
    for unit in units(plan):
        shape = shape_of(plan, unit)
        seconds = speeds.rates.seconds(cost_of(plan, unit, shape).work) + speeds.task
        slower = shape.nbytes * speeds.read / speeds.write  # written bytes at the speed of reading
        found.append(Task(inputs_bytes(plan, shape), seconds, slower))
    return found


def expected(recipe: Any, speeds: Speeds, count: int) -> float:
    """Seconds that the simulation gives a real merge of known files."""
    plan = planned(recipe)
    site = Site(link=speeds.read, storage=float("inf"), driver=speeds.driver)
    survey = 0.0
    if recipe.method == "ties":
        survey = sum(shape_of(plan, unit).nbytes for unit in units(plan)) * EXPERTS / speeds.survey
    return speeds.merge + survey + simulate(_tasks(plan, speeds), count, site).seconds


def overheads(place: Path) -> dict[str, float]:
    """Seconds of a task, of the driver for a task, and of a merge, from two tiny families."""
    found = []
    for name, size in (("few", FEW), ("many", MANY)):
        recipe = _made(place, name, size, "average")
        _merge(recipe)
        walls, drivers = [], []
        for _ in range(TURNS):
            before = time.process_time()
            walls.append(_merge(recipe))
            drivers.append(time.process_time() - before)
        count = len(units(planned(recipe)))
        found.append((count, statistics.median(walls), statistics.median(drivers)))
    (few, wall, cpu), (many, longer, more) = found
    task = max(0.0, (longer - wall) / (many - few))
    driver = min(task, max(0.0, (more - cpu) / (many - few)))
    return {"task": task - driver, "driver": driver, "merge": max(0.0, wall - few * task)}


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
                    now = replace(speeds, rates=machine.measured_rates("cpu"))
                    pairs.append((expected(recipe, now, count), _merge(recipe)))
                told, took = (statistics.median(pair[k] for pair in pairs) for k in (0, 1))
                lines.append(Line(
                    f"{method}, workers: {count}", max(told, took), min(told, took), at_most=True,
                    checks={"seconds measured": took, "seconds simulated": told,
                            "simulated / measured": told / took,
                            "start of the cluster, s": start},
                ))  # fmt: skip
    return lines, speeds
