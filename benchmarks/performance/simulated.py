"""So many workers over links and a shared file system of given speeds, simulated.

A worker takes one task after the other: it reads, computes, writes.  The driver hands tasks out and
takes them back one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field


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
