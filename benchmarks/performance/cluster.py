"""What a cluster of many workers gives: a simulation, checked against one and two real workers.

A merge on Ray (docs/distributed.md) is first the driver's: it looks through all inputs, and TIES
counts over the whole model.  Then a task a matrix: a worker reads base, experts and statistics,
merges, writes.  `simulated.py` lets so many workers do that; `real_workers.py` measures the speeds
that it goes by, and checks it.  Speeds of links and file system are assumed (`SITE`), for this
machine has neither.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mats_core.methods import METHODS, Shape

from .base import CannotRun, Line, Row, threads
from .disk import folder
from .models import GIANTS, Decoder, side_bytes
from .real_workers import CASES, EXPERTS, Speeds, checked, looking
from .simulated import Site, Task, simulate

RANK, HELD = 128, 2  # HELD: bytes of a number of a checkpoint in bfloat16
WORKERS = (8, 64, 512)
FASTER = {"a core": 1.0, "100 cores": 100.0}  # a worker's arithmetic, times that of a core here
GRAMS = frozenset({"input_gram", "output_gradient_gram"})
FEW_BUSY = 0.5  # nothing is busy for longer: the last matrices keep the rest waiting
SITE = Site()


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
        own = shape(method, rows, columns)
        cost = METHODS[method].cost(own, options)
        sides = side_bytes(rows, RANK) + side_bytes(columns, RANK) if method == "kfac" else 0
        read = rows * columns * HELD * (EXPERTS + 1) + EXPERTS * sides
        arithmetic = speeds.rates.seconds(cost.work) + looking(own, speeds)
        seconds = arithmetic / faster + speeds.task
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
