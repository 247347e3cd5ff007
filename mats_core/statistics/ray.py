"""Experts measured side by side on a Ray cluster: one expert on its task is one task of Ray's.

A task opens its expert, measures it and writes the file to a folder beside the one wanted; when it
has ended the driver lets the file take its name.  Models, outputs and this project lie on a file
system that all machines see under the same paths.  The bytes are those of one process on the same
kind of machine: workers use as many threads as the driver, and its device.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..adapters import open_expert
from ..checkpoints import Weights
from ..system import Event, available_memory, cluster, drain, folder_under_way
from ..tasks import Task
from .passes import SHARE, WIDTH, measuring_to_file, statistics_bytes
from .settings import MeasureSettings


@dataclass(frozen=True)
class Member:
    """One piece of work: an expert, the task that it is measured on, and the file to write.

    name    what events and errors call it
    model   its checkpoint
    base    the base of an adapter; None: it is none
    task    what it is measured on
    file    where the statistics go
    keep    a file that is there by the time stays: merges may read from it already
    """

    name: str
    model: Path
    base: Path | None
    task: Task
    file: Path
    keep: bool = False


@dataclass(frozen=True)
class ClusterReady(Event):
    """An event: the cluster is there; no work is done yet.

    seconds   since it was asked for
    """

    seconds: float


@dataclass(frozen=True)
class MemberDone(Event):
    """An event: a member is measured, into its file.

    member    the expert
    seconds   of a worker's work, without those in which the worker itself started
    """

    member: Member
    seconds: float


def measuring_on_ray(
    members: Sequence[Member], settings: MeasureSettings, *, memory: float | None = None
) -> Generator[ClusterReady | MemberDone, None, None]:
    """Measure every member into its file, as many at once as the cluster has CPUs for.

    Each asks for as many CPUs as this process has threads, and on CUDA for a GPU.  `memory`: bytes
    that the sums of one may take; by default its part of half of what its machine has available.
    `settings.device` is decided already.  A file appears whole or not at all, as soon as it is
    measured; closed early, the tasks under way are ended and leave nothing behind.  Raises
    `InputError` for what a worker refuses, for a member that needs more than any machine has, and
    for one that was lost with every worker.
    """
    # What cannot be opened is said before anything starts.
    sizes = [_bytes(open_expert(one.model, one.base), settings, memory) for one in members]
    ray, seconds = cluster.connected()
    yield ClusterReady(seconds, text="The Ray cluster is there")
    threads, gpus = torch.get_num_threads(), 1 if settings.device == "cuda" else 0
    most = max((has.get("CPU", 1) for has in cluster.machines(ray)), default=1) // threads
    share = SHARE / max(1, min(len(members), int(most)))  # of a machine's memory, for each at once
    task = ray.remote(max_retries=cluster.RETRIES)(_measure)
    waiting: dict[Any, tuple[Member, Path, dict[str, int]]] = {}
    with contextlib.ExitStack() as folders:  # removed when no task writes there any more
        try:
            for one, size in zip(members, sizes, strict=True):
                needs = {"CPU": threads, "GPU": gpus, "memory": size}
                cluster.require_machine(ray, _thing(one), needs)
                one.file.parent.mkdir(parents=True, exist_ok=True)
                place = folders.enter_context(folder_under_way(one.file)) / one.file.name
                asked = task.options(num_cpus=threads, num_gpus=gpus, memory=size)
                reference = asked.remote(one, place, settings, memory, share, threads)
                waiting[reference] = one, place, needs
            while waiting:
                ended, _ = ray.wait(list(waiting), num_returns=1, timeout=cluster.PATIENCE)
                for reference in ended:
                    one, place, _ = waiting.pop(reference)
                    fraction = 1 - len(waiting) / len(members)
                    yield _taken(ray, reference, one, place, fraction)
                for one, _, needs in () if ended else waiting.values():
                    cluster.require_machine(ray, _thing(one), needs)  # some may have been lost
        finally:
            cluster.cancel(ray, list(waiting))


def _taken(ray: Any, reference: Any, one: Member, place: Path, fraction: float) -> MemberDone:
    """A member whose task has ended; its file has its name now."""
    seconds, said = cluster.answer(ray, reference, _thing(one), "measured", "measure again.")
    for sentence in said:
        warnings.warn(sentence, stacklevel=2)
    if not (one.keep and one.file.is_file()):
        place.replace(one.file)
    return MemberDone(one, seconds, fraction=fraction, text=f"Measured statistics of {one.name}")


def _thing(one: Member) -> str:
    return f"measuring '{one.name}'"


def _bytes(checkpoint: Weights, settings: MeasureSettings, memory: float | None) -> int:
    """Bytes that measuring takes at least: the weights, and the sums where they are bounded."""
    shapes = {name: entry.shape for name, entry in checkpoint.tensors.items()}
    weights = sum(WIDTH * math.prod(shape) for shape in shapes.values())
    if memory is None:
        return weights
    sums = sum(statistics_bytes(name, shape, settings) for name, shape in shapes.items())
    return weights + int(min(memory, sums))


# In a worker --------------------------------------------------------------------------------------


def _measure(
    one: Member, place: Path, settings: MeasureSettings, memory: float | None, share: float,
    threads: int,
) -> tuple[float, list[str]]:  # fmt: skip
    """Measure one member into `place`; the seconds of it, and what was warned of."""
    torch.set_num_threads(threads)
    if memory is None and (free := available_memory()) is not None:
        memory = share * free
    begun = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        checkpoint = open_expert(one.model, one.base)
        drain(measuring_to_file(checkpoint, one.task, place, settings, memory=memory))
    said = dict.fromkeys(str(w.message) for w in caught if w.category is UserWarning)
    return time.perf_counter() - begun, list(said)
