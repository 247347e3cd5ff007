"""What a cluster of many workers gives: a simulation, checked against one and two real workers.

A merge on Ray (docs/distributed.md) is first the driver's: it looks through all inputs, and TIES
counts over the whole model.  Then a task a matrix: a worker reads base, experts and statistics,
merges, writes.  `simulate` lets so many workers do that over links and a shared file system of
given speeds, while the driver hands tasks out and takes them back one by one.  Bytes and operations
are counted; the speeds of one worker and the seconds of a task are measured on this machine; those
of links and file system are assumed (`SITE`), for this machine has neither.

What is measured are CPU seconds, of this process and of its workers, each of one thread: what they
would take on cores of their own.  Seconds on the wall are longer on a busy machine for what takes
long, and not for the short bursts by which speeds are measured.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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

from .base import CannotRun, Line, Row, threads, timed
from .disk import folder
from .models import GIANTS, Decoder, side_bytes

EXPERTS, RANK, HELD = 4, 128, 2  # HELD: bytes of a number of a checkpoint in bfloat16
WORKERS = (8, 64, 512)
FASTER = {"a core": 1.0, "100 cores": 100.0}  # a worker's arithmetic, times that of a core here
CASES = ("average", "ties", "kfac")
GRAMS = frozenset({"input_gram", "output_gradient_gram"})
FEW_BUSY = 0.5  # nothing is busy for longer: the last matrices keep the rest waiting
FIXED: dict[str, dict[str, Any]] = {"kfac": {"iterations": 4, "tolerance": 0.0}}
REAL = memory.Size(blocks=2, hidden=512, inner=1024, keys=128, vocabulary=512)
FEW, MANY = (memory.Size(n, hidden=16, inner=32, keys=16, vocabulary=64) for n in (1, 9))
TURNS = 3
PARTS = ("driver", "workers")


@dataclass(frozen=True)
class Task:
    """One matrix: bytes to read, seconds of arithmetic, bytes to write."""

    read: float
    seconds: float
    write: float


@dataclass(frozen=True)
class Site:
    """Where it runs: `link`, bytes a second of one worker; `storage`, of all of them together;
    `driver`, seconds of the driver for each task."""

    link: float = 1.25e9  # 10 Gbit/s
    storage: float = 10e9
    driver: float = 0.0


SITE = Site()


@dataclass
class Outcome:
    """Seconds, and the part of them in which each was busy: the file system (at its limit), the
    driver, and the mean worker, by its link and by its arithmetic."""

    seconds: float = 0.0
    busy: dict[str, float] = field(default_factory=dict)


def simulate(tasks: Sequence[Task], workers: int, site: Site) -> Outcome:
    """So many workers, each with one task at a time: read, compute, write.

    Whoever reads or writes has the link's speed, or an equal share of the storage's.  A task can
    begin when the driver has come to it, which takes `site.driver` seconds for each before it too.
    """
    now, storage, transfers, arithmetic = 0.0, 0.0, 0.0, 0.0
    waiting = deque((site.driver * (i + 1), task) for i, task in enumerate(tasks))
    running: list[list[float]] = []  # what is left: bytes to read, seconds, bytes to write
    while waiting or running:
        while waiting and len(running) < workers and waiting[0][0] <= now:
            task = waiting.popleft()[1]
            running.append([task.read, task.seconds, task.write])
        phases = [next((k for k in range(3) if left[k] > 0), 3) for left in running]
        moving = sum(phase in (0, 2) for phase in phases)
        rate = min(site.link, site.storage / moving) if moving else site.link
        speeds = {0: rate, 1: 1.0, 2: rate}
        steps = [left[k] / speeds[k] for left, k in zip(running, phases, strict=True) if k < 3]
        if waiting and len(running) < workers:
            steps.append(waiting[0][0] - now)
        step = 0.0 if 3 in phases else min(steps)
        for left, phase in zip(running, phases, strict=True):
            if phase < 3:
                done = left[phase] - step * speeds[phase]
                # What rounding leaves of the phase that ends is nothing.
                left[phase] = 0.0 if left[phase] / speeds[phase] <= step else done
        running = [left for left, phase in zip(running, phases, strict=True) if phase < 3]
        now += step
        storage += step * (moving * site.link > site.storage)
        transfers += step * moving
        arithmetic += step * sum(phase == 1 for phase in phases)
    whole = max(now, 1e-12)
    return Outcome(now, {
        "file system": storage / whole,
        "driver": min(1.0, site.driver * len(tasks) / whole),
        "links": transfers / (workers * whole),
        "arithmetic": arithmetic / (workers * whole),
    })  # fmt: skip


# Speeds of this machine --------------------------------------------------------------------------


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
        seconds += _looking(shape, speeds)
        slower = shape.nbytes * speeds.read / speeds.write  # written bytes at the speed of reading
        found.append(Task(inputs_bytes(plan, shape), seconds, slower))
    return found


def _looking(shape: Shape, speeds: Speeds) -> float:
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


# Many workers ------------------------------------------------------------------------------------


def shape(method: str, rows: int, columns: int, rank: int | None = RANK) -> Shape:
    """A matrix as the method gets it, its Grams in factors of `rank` rows (None: whole)."""
    if method != "kfac":
        return Shape((rows, columns), EXPERTS, "float32", True)
    ranks = (0, 0) if rank is None else (rank, rank)
    return Shape((rows, columns), EXPERTS, "float32", True, GRAMS, ranks=ranks)


def tasks_of(model: Decoder, method: str, speeds: Speeds, faster: float) -> list[Task]:
    """Every matrix of the decoder's layers, layer by layer."""
    options, layer = METHODS[method].options(), []
    for rows, columns, count in model.shapes:
        cost = METHODS[method].cost(shape(method, rows, columns), options)
        sides = side_bytes(rows, RANK) + side_bytes(columns, RANK) if method == "kfac" else 0
        read = rows * columns * HELD * (EXPERTS + 1) + EXPERTS * sides
        looking = _looking(shape(method, rows, columns), speeds)
        seconds = (speeds.rates.seconds(cost.work) + looking) / faster + speeds.task
        layer += [Task(read, seconds, rows * columns * HELD)] * count
    return layer * model.layers


def foretold(speeds: Speeds) -> list[Line]:
    """70B and 405B by 8, 64 and 512 workers, and what ends first."""
    lines = []
    for model in GIANTS:
        for method in CASES:
            alone = HELD * model.parameters * (EXPERTS + 1)
            look = alone / min(speeds.look, SITE.link)
            counted = 4.0 * EXPERTS * model.parameters / speeds.survey
            survey = max(counted, alone / SITE.link) if method == "ties" else 0.0
            for kind, faster in FASTER.items():
                tasks = tasks_of(model, method, speeds, faster)
                for count in WORKERS:
                    found = simulate(tasks, count, replace(SITE, driver=speeds.driver))
                    limit = max(found.busy, key=lambda name: found.busy[name])
                    if found.busy[limit] < FEW_BUSY:
                        limit = "too few matrices"
                    lines.append(Line(
                        f"{model.name}, {method}, {count} workers of {kind}: {limit}",
                        (look + survey + found.seconds) / 3600, None, unit="h",
                        checks={
                            "first look, h": look / 3600, "count, h": survey / 3600,
                            "tasks, h": found.seconds / 3600,
                            **{f"{name}, %": 100 * part for name, part in found.busy.items()},
                        },
                    ))  # fmt: skip
    return lines


def largest() -> list[Line]:
    """What the largest matrix of each model takes by K-FAC: whole Grams, and in factors."""
    lines = []
    for model in GIANTS:
        rows, columns, _ = max(model.shapes, key=lambda one: one[0] * one[1])
        kfac = METHODS["kfac"]
        checks = {}
        for said, rank in (("whole", None), (f"K = {RANK}", RANK)):
            inputs = 4 * rows * columns * (EXPERTS + 1)
            sides = EXPERTS * (side_bytes(rows, rank) + side_bytes(columns, rank))
            cost = kfac.cost(shape("kfac", rows, columns, rank), kfac.options())
            checks[f"statistics of it, {said}, GB"] = sides / 1e9
            checks[f"a task, {said}, GB"] = (inputs + sides + cost.nbytes) / 1e9
        lines.append(Line(
            f"{model.name}, {rows}×{columns}, K-FAC of {EXPERTS} experts",
            checks["a task, whole, GB"], None, unit="GB", checks=checks,
        ))  # fmt: skip
    return lines


def told(speeds: Speeds) -> Line:
    """The speeds that all of it goes by."""
    rates = speeds.rates
    return Line("products in float32 on one core", rates.products / 1e9, None, unit="GFLOP/s",
                checks={
                    "read, GB/s": speeds.read / 1e9, "written, GB/s": speeds.write / 1e9,
                    "first look, GB/s": speeds.look / 1e9,
                    "the count of TIES, GB/s": speeds.survey / 1e9,
                    "a task beside its work, ms": 1e3 * speeds.task,
                    "the driver for a task, ms": 1e3 * speeds.driver,
                    "a merge beside its tasks, s": speeds.merge,
                })  # fmt: skip


def plot(file: Path, lines: Sequence[Line]) -> None:
    """Hours over workers: of the tasks, and with what the driver does alone before (dashed)."""
    from benchmarks.study.plots import MARKERS, OKABE_ITO, plt  # matplotlib, for the page only

    panels = [(model.name, kind) for model in GIANTS for kind in FASTER]
    figure, axes = plt.subplots(2, 2, figsize=(8.5, 6), sharex=True, layout="constrained")
    for axis, (model, kind) in zip(axes.flat, panels, strict=True):
        for index, method in enumerate(CASES):
            begin, end = f"{model}, {method}, ", f" workers of {kind}: "
            own = {
                int(line.case.removeprefix(begin).split(end)[0]): line
                for line in lines
                if line.case.startswith(begin) and end in line.case
            }
            look = {"color": OKABE_ITO[index], "marker": MARKERS[index], "markersize": 4}
            axis.plot([*own], [line.checks["tasks, h"] for line in own.values()], **look,
                      label=f"{method}, tasks")  # fmt: skip
            axis.plot([*own], [line.ours for line in own.values()], **look, linestyle="--",
                      label=f"{method}, whole merge")  # fmt: skip
        axis.set_title(f"Llama {model}, workers of {kind}", fontsize=9)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xticks(WORKERS, [str(count) for count in WORKERS])
        axis.minorticks_off()
        axis.set_ylabel("hours")
    for axis in axes[-1]:
        axis.set_xlabel("workers")
    figure.legend(*axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def run() -> Sequence[Line]:
    if importlib.util.find_spec("ray") is None:
        raise CannotRun("ray is not installed")
    with folder() as place, threads(1):
        lines, speeds = checked(place)
    return [told(speeds), *lines, *foretold(speeds), *largest()]


ROWS = (
    Row("cluster", "70B and 405B on 8, 64 and 512 workers, simulated", "one and two real workers",
        run, minutes=3, needs="ray"),
)  # fmt: skip
