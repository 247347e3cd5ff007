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

import functools
import importlib
import os
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .checks import InputError
from .estimate import layer_bytes
from .layers import Inputs, Job, Unit, open_inputs, prepare
from .output import MemorySink
from .recipe import Recipe
from .streaming import Done, Engine, Place, merge_layer, place_of_worker

RETRIES = 3  # of a layer whose worker was lost
AHEAD = 2  # layers asked for, for each that the cluster can merge at once
ROOT = Path(__file__).resolve().parents[1]


def require(recipe: Recipe) -> None:
    """Raise `InputError` where a recipe asks for a cluster that cannot do it."""
    if recipe.engine != "ray":
        return
    _ray()
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
        job: Job, todo: Sequence[Unit], survey: Any, place: Place
    ) -> Generator[Done, None, None]:
        ray = _connected()
        recipe = job.recipe.model_copy(update={"device": job.device})  # `auto` is decided here
        family = job.inputs.family
        contents = family.tied_to, family.roles  # what the preflight read every file for
        shared = ray.put((recipe, job.keep, survey, folder, shard_bytes, contents))
        threads = torch.get_num_threads()  # another number could round differently
        task = ray.remote(max_retries=RETRIES)(_merge)
        waiting = iter(todo)
        under_way: deque[Any] = deque()
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1) // threads))
        try:
            for unit in waiting:
                asked = task.options(
                    num_cpus=threads,
                    num_gpus=1 if job.device == "cuda" else 0,
                    memory=int(layer_bytes(job, unit)),
                )
                under_way.append((unit, asked.remote(shared, unit, threads)))
                if len(under_way) >= most:
                    yield _taken(ray, place, *under_way.popleft())
            while under_way:
                yield _taken(ray, place, *under_way.popleft())
        finally:
            for _, reference in under_way:
                ray.cancel(reference, force=True)

    return merge


def _taken(ray: Any, place: Place, unit: Unit, reference: Any) -> Done:
    """The result of a task, which the driver's own files know of now."""
    try:
        done = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # an `InputError` is one here as well
    except ray.exceptions.RayError as error:
        raise InputError(
            f"layer '{unit.name}' on the Ray cluster",
            expected=f"a worker that lives until it is merged, within {RETRIES + 1} attempts",
            found=str(error).strip().splitlines()[0],
            remedy="Look for what ended the workers (memory, most often), then merge with "
            "--resume: the layers that are done are kept.",
        ) from None
    place.take(done)
    return done


# In a worker --------------------------------------------------------------------------------------


def _merge(shared: Any, unit: Unit, threads: int) -> Done:
    """Merge one layer in this process; its bytes are on the disk before the driver hears of it."""
    torch.set_num_threads(threads)
    recipe, keep, survey, folder, shard_bytes, (tied_to, roles) = shared
    inputs = _inputs(recipe.model_dump_json(), recipe)
    family = replace(inputs.family, tied_to=tied_to, roles=roles)
    job = prepare(recipe, replace(inputs, family=family), keep)
    place = place_of_worker(job, folder, shard_bytes)
    done = merge_layer(job, unit, survey, place)
    if place.writer is None:
        assert isinstance(place.sink, MemorySink)
        return replace(done, tensors={**place.spool.tensors, **place.sink.tensors})
    place.writer.sync()
    place.spool.sync()
    place.writer.discard()
    place.spool.discard()
    return done


class _Opened:
    """A recipe as a key: the files of one merge are opened once in every worker."""

    def __init__(self, text: str, recipe: Recipe) -> None:
        self.key, self.recipe = (text, str(recipe.folder)), recipe

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opened) and self.key == other.key


def _inputs(text: str, recipe: Recipe) -> Inputs:
    return _open(_Opened(text, recipe))


@functools.lru_cache(maxsize=1)
def _open(asked: _Opened) -> Inputs:
    # Headers only: the driver looked through the contents, and says what it found.
    return open_inputs(asked.recipe, contents=False)


# Ray ----------------------------------------------------------------------------------------------


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise InputError(
            "engine 'ray'",
            expected="the package ray",
            found="none",
            remedy='Install it with: python -m pip install "ray>=2.40,<3"',
        ) from None


def _connected() -> Any:
    """Ray, connected to the cluster at RAY_ADDRESS, or to one on this machine."""
    ray = _ray()
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        quiet = {"log_to_driver": False, "configure_logging": False}
        if os.environ.get("RAY_ADDRESS"):
            ray.init(runtime_env={"env_vars": {"PYTHONPATH": path}}, **quiet)
        else:
            os.environ["PYTHONPATH"] = path  # which a cluster of our own inherits
            ray.init(include_dashboard=False, **quiet)
    return ray
