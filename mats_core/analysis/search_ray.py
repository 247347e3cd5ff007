"""Trials of a search side by side on a Ray cluster: one merge, tested, is one task of Ray's.

A worker opens the files once a search, and merges and tests each trial as one process would, with
as many threads as the driver and the device that it chose: a trial's numbers are the same.  Models,
statistics, tasks and this project lie on a file system that all machines see under the same paths.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Generator
from dataclasses import replace
from typing import Any

import torch

from ..checkpoints import InMemory, original
from ..errors import InputError, listing
from ..merging import Event, bytes_at_once, output_specs
from ..recipes import Inputs, Plan, Recipe, complete, open_inputs, units
from ..statistics import ClusterReady
from ..system import Memo, cluster, drain
from .attempt import attempt
from .search_trials import Tried


def require(plan: Plan) -> None:
    """Raise `InputError` for a search that no cluster can do."""
    cluster.require_ray()
    family = plan.inputs.family
    named = {"the base": family.base} | {one.name: one.checkpoint for one in family.experts}
    held = [name for name, one in named.items() if isinstance(original(one), InMemory)]
    if held:
        raise InputError(
            "a search with engine 'ray'",
            expected="models in files, which its workers read",
            found=f"models in memory: {listing(held)}",
            remedy="Save each with `save_pretrained`, or search with engine 'local'.",
        )


def connecting(plan: Plan) -> Generator[Event, None, tuple[OnRay, int]]:
    """An event when the cluster is there; returns what merges trials like that of a plan, and how
    many of them at once."""
    complete(plan.inputs, plan.recipe)  # what cannot be merged is told before anything starts
    ray, seconds = cluster.connected()
    yield ClusterReady(seconds, text="The Ray cluster is there")
    merging = OnRay(ray, plan)
    return merging, merging.most


class OnRay:
    """Merges by the tasks of a cluster.

    most   of them at once
    """

    def __init__(self, ray: Any, plan: Plan) -> None:
        self._ray, self._plan, self._key = ray, plan, uuid.uuid4().hex
        self._task = ray.remote(max_retries=cluster.RETRIES)(_try)
        self._under_way: dict[int, Any] = {}
        self._threads = torch.get_num_threads()  # another number could round differently
        sizes = [math.prod(shape) * dtype.itemsize for dtype, shape in output_specs(plan).values()]
        layer = max((bytes_at_once(plan, unit, 1) for unit in units(plan)), default=0.0)
        gpus = 1 if plan.device == "cuda" else 0
        self._needs = {"CPU": self._threads, "GPU": gpus, "memory": int(sum(sizes) + layer)}
        has = ray.cluster_resources()
        self.most = max(1, int(min(has.get(k, 0) // n for k, n in self._needs.items() if n)))

    def begin(self, number: int, recipe: Recipe) -> None:
        needs = self._needs
        cluster.require_machine(self._ray, _thing(number), needs)
        asked = self._task.options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], memory=needs["memory"]
        )
        recipe = recipe.model_copy(update={"engine": "local", "device": self._plan.device})
        family = self._plan.inputs.family
        contents = family.tied_to, family.roles  # what the driver read every file for
        reference = asked.remote(self._key, recipe, contents, self._threads)
        self._under_way[number] = reference

    def ended(self, number: int) -> Generator[Event, None, Tried]:
        reference, timeout = self._under_way[number], 0.0
        while not self._ray.wait([reference], timeout=timeout)[0]:
            cluster.require_machine(self._ray, _thing(number), self._needs)  # some may be lost
            timeout = cluster.PATIENCE
            yield Event(text="merged on the cluster")
        tried = cluster.answer(self._ray, reference, _thing(number), "merged", "search again.")
        del self._under_way[number]
        return tried

    def close(self) -> None:
        cluster.cancel(self._ray, list(self._under_way.values()))


def _thing(number: int) -> str:
    return f"trial {number}"


# In a worker --------------------------------------------------------------------------------------

# Of the search that this worker had to do with last: one, which the next one replaces.
_INPUTS: dict[str, Inputs] = {}


def _try(key: str, recipe: Recipe, contents: Any, threads: int) -> Tried:
    """What came of a trial's merge; the seconds are those of the work, files opened before."""
    torch.set_num_threads(threads)
    if key not in _INPUTS:
        _INPUTS.clear()
        inputs = open_inputs(recipe, Memo.of_process(), contents=False)
        tied_to, roles = contents
        family = replace(inputs.family, tied_to=tied_to, roles=roles)
        _INPUTS[key] = replace(inputs, family=family, looked_through=True)
    at = time.perf_counter()
    report, reason = drain(attempt(recipe, _INPUTS[key]))
    return report, reason, time.perf_counter() - at
