"""Layers on a Ray cluster: `engine: ray` in a recipe.

A task reads its slices of the base, the experts and the statistics itself, merges one layer and
writes it to its place in the unfinished output; the driver keeps the journal and lets the output
take its name.  Inputs and output lie on a file system that all machines see under the same paths.
Ray schedules tasks by the threads and the memory of their layer, and by GPU; a layer whose worker
was lost is merged again, into the same bytes.

What sees more than a layer stays with the driver: the preflight, a survey of the whole model, a
second pass, further rounds' measuring, evaluation.  Nothing is told of a solve under way.
"""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from ..recipes import Plan, Recipe, Unit, open_inputs, prepare
from ..system import cluster
from .engine import Engine, merge_layer
from .sinks import MemorySink
from .sizes import layer_bytes
from .workspace import Done, Place, place_of_worker

AHEAD = 2  # layers asked for, for each that the cluster can merge at once
HELD = 8  # times as many that may be merged while an earlier one is not
OTHERWISE = "merge again; with --resume a merge that fails keeps the layers that it has done."


def require(recipe: Recipe) -> None:
    """Raise `InputError` where a recipe asks for a cluster that cannot do it."""
    if recipe.engine != "ray":
        return
    cluster.require_ray()
    if recipe.rounds > 1:
        raise InputError(
            f"'rounds' {recipe.rounds} with engine 'ray'",
            expected="one round: what a later one measures is in the driver's memory only",
            found=f"{recipe.rounds}",
            remedy="Leave 'engine' or 'rounds' out.",
        )


def on_ray(folder: Path | None, shard_bytes: int) -> Engine:
    """An engine for an output in `folder`, or in memory."""

    def merge(
        plan: Plan, todo: Sequence[Unit], survey: Any, place: Place
    ) -> Generator[Done, None, None]:
        ray, _ = cluster.connected()
        recipe = plan.recipe.model_copy(update={"device": plan.device})  # `auto` is decided here
        family = plan.inputs.family
        contents = family.tied_to, family.roles  # what the preflight read every file for
        key = uuid.uuid4().hex  # files may change between two merges by one recipe
        shared = ray.put((key, recipe, plan.keep, survey, folder, shard_bytes, contents))
        threads = torch.get_num_threads()  # another number could round differently
        gpus = 1 if plan.device == "cuda" else 0
        task = ray.remote(max_retries=cluster.RETRIES)(_merge)
        under_way: deque[Any] = deque()
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1) // threads))
        held = HELD * most
        try:
            for unit in todo:
                needs = {"CPU": threads, "GPU": gpus, "memory": int(layer_bytes(plan, unit))}
                cluster.require_machine(ray, f"layer '{unit.name}'", needs)
                asked = task.options(num_cpus=threads, num_gpus=gpus, memory=needs["memory"])
                under_way.append((unit, needs, asked.remote(shared, unit, threads)))
                while len(busy := _unfinished(ray, under_way)) >= most or len(under_way) >= held:
                    late = under_way[0][2] in busy and len(under_way) < held
                    if late and ray.wait(busy, num_returns=1, timeout=cluster.PATIENCE)[0]:
                        continue  # a worker is free, though the first layer is not there yet
                    yield _taken(ray, place, under_way)
            while under_way:
                yield _taken(ray, place, under_way)
        finally:
            cluster.cancel(ray, [reference for _, _, reference in under_way])

    return merge


def _unfinished(ray: Any, under_way: deque[Any]) -> list[Any]:
    references = [reference for _, _, reference in under_way]
    return ray.wait(references, num_returns=len(references), timeout=0)[1]


def _taken(ray: Any, place: Place, under_way: deque[Any]) -> Done:
    """The layer that was asked for first, which the driver's own files know of now.

    Until it is here it is among those to cancel.
    """
    unit, needs, reference = under_way[0]
    thing, timeout = f"layer '{unit.name}'", 0.0
    while not ray.wait([reference], timeout=timeout)[0]:
        cluster.require_machine(ray, thing, needs)  # again: machines may be lost meanwhile
        timeout = cluster.PATIENCE
    done = cluster.answer(ray, reference, thing, "merged", OTHERWISE)
    place.take(done)
    under_way.popleft()
    return done


# In a worker --------------------------------------------------------------------------------------


def _merge(shared: Any, unit: Unit, threads: int) -> Done:
    """Merge one layer in this process; its bytes are on the disk before the driver hears of it."""
    torch.set_num_threads(threads)
    key, recipe, keep, survey, folder, shard_bytes, contents = shared
    plan = _plan(key, recipe, keep, contents)
    try:
        place = place_of_worker(plan, folder, shard_bytes)
    except (OSError, ValueError) as error:
        raise InputError(
            f"output '{folder}' on machine '{socket.gethostname()}'",
            expected="the files that the driver began, on a file system that all machines see",
            found=str(error),
        ) from None
    with contextlib.ExitStack() as stack:
        stack.callback(place.discard)
        done = merge_layer(plan, unit, survey, place)
        if place.writer is None:
            assert isinstance(place.sink, MemorySink)
            return replace(done, tensors={**place.spool.tensors, **place.sink.tensors})
        place.writer.sync()
        place.spool.sync()
    return done


# Of the merge that this worker had to do with last: one, which the next one replaces at once.
_JOBS: dict[str, Plan] = {}


def _plan(key: str, recipe: Recipe, keep: Sequence[int], contents: Any) -> Plan:
    """The driver's plan; its files are opened once a merge in every worker."""
    if key not in _JOBS:
        _JOBS.clear()
        # Headers only: the driver looked through the contents, and says what it found.
        inputs = open_inputs(recipe, contents=False)
        tied_to, roles = contents
        family = replace(inputs.family, tied_to=tied_to, roles=roles)
        inputs = replace(inputs, family=family, looked_through=True)
        _JOBS[key] = prepare(recipe, inputs, keep)
    return _JOBS[key]
