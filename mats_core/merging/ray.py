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
import importlib
import os
import secrets
import socket
import sys
import uuid
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError, reason
from ..recipes import Plan, Recipe, Unit, open_inputs, prepare
from .engine import Engine, merge_layer
from .sinks import MemorySink
from .sizes import layer_bytes
from .workspace import Done, Place, place_of_worker

RETRIES = 3  # of a layer whose worker was lost
STARTS = 3  # of a cluster on this machine, at most
AHEAD = 2  # layers asked for, for each that the cluster can merge at once
HELD = 8  # times as many that may be merged while an earlier one is not
GRACE = 1.0  # seconds that tasks have to end by themselves when a merge is stopped
PATIENCE = 10.0  # seconds between looks whether some machine can still merge what is waited for
ROOT = Path(__file__).resolve().parents[2]


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
        plan: Plan, todo: Sequence[Unit], survey: Any, place: Place
    ) -> Generator[Done, None, None]:
        ray = _connected()
        recipe = plan.recipe.model_copy(update={"device": plan.device})  # `auto` is decided here
        family = plan.inputs.family
        contents = family.tied_to, family.roles  # what the preflight read every file for
        key = uuid.uuid4().hex  # files may change between two merges by one recipe
        shared = ray.put((key, recipe, plan.keep, survey, folder, shard_bytes, contents))
        threads = torch.get_num_threads()  # another number could round differently
        gpus = 1 if plan.device == "cuda" else 0
        task = ray.remote(max_retries=RETRIES)(_merge)
        under_way: deque[Any] = deque()
        most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1) // threads))
        held = HELD * most
        try:
            for unit in todo:
                needs = {"CPU": threads, "GPU": gpus, "memory": int(layer_bytes(plan, unit))}
                _require_machine(ray, unit, needs)
                asked = task.options(num_cpus=threads, num_gpus=gpus, memory=needs["memory"])
                under_way.append((unit, needs, asked.remote(shared, unit, threads)))
                while len(busy := _unfinished(ray, under_way)) >= most or len(under_way) >= held:
                    late = under_way[0][2] in busy and len(under_way) < held
                    if late and ray.wait(busy, num_returns=1, timeout=PATIENCE)[0]:
                        continue  # a worker is free, though the first layer is not there yet
                    yield _taken(ray, place, under_way)
            while under_way:
                yield _taken(ray, place, under_way)
        finally:
            _cancel(ray, [reference for _, _, reference in under_way])

    return merge


def _unfinished(ray: Any, under_way: deque[Any]) -> list[Any]:
    references = [reference for _, _, reference in under_way]
    return ray.wait(references, num_returns=len(references), timeout=0)[1]


def _cancel(ray: Any, references: Sequence[Any]) -> None:
    """End tasks, and wait for it: none may write where somebody else begins.

    What is about to end is left to: Ray (2.60) aborts a process that cancels a task in the very
    moment in which it ends ("Tried to complete task that was not pending").
    """
    if not references:
        return
    _, left = ray.wait(references, num_returns=len(references), timeout=GRACE)
    for reference in left:
        ray.cancel(reference, force=True)
    if left:
        ray.wait(left, num_returns=len(left), timeout=PATIENCE)


def _require_machine(ray: Any, unit: Unit, needs: Mapping[str, int]) -> None:
    """Ray waits for ever for what no machine has: say so instead."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(all(has.get(what, 0) >= n for what, n in needs.items()) for has in machines):
        return

    def told(of: Mapping[str, float]) -> str:
        gpus = f", {of.get('GPU', 0):g} GPUs" if needs["GPU"] else ""
        return f"{of.get('CPU', 0):g} CPUs{gpus} and {of.get('memory', 0) / 1e9:.3g} GB"

    raise InputError(
        f"layer '{unit.name}' on the Ray cluster",
        expected=f"a machine with {told(needs)}",
        found="; ".join(sorted({told(has) for has in machines})) or "no machine",
        remedy="Use fewer threads (OMP_NUM_THREADS), or start larger machines first.",
    )


def _taken(ray: Any, place: Place, under_way: deque[Any]) -> Done:
    """The layer that was asked for first, which the driver's own files know of now.

    Until it is here it is among those to cancel.
    """
    unit, needs, reference = under_way[0]
    try:
        timeout = 0.0
        while not ray.wait([reference], timeout=timeout)[0]:
            _require_machine(ray, unit, needs)  # again and again: machines may be lost meanwhile
            timeout = PATIENCE
        done = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # an `InputError` is one here as well
    except ray.exceptions.RayError as error:
        raise InputError(
            f"layer '{unit.name}' on the Ray cluster",
            expected=f"a worker that lives until it is merged, within {RETRIES + 1} attempts",
            found=str(error).strip().splitlines()[0],
            remedy="Look for what ended the workers (memory, most often), then merge again; with "
            "--resume a merge that fails keeps the layers that it has done.",
        ) from None
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


# Ray ----------------------------------------------------------------------------------------------


def _ray() -> Any:
    if "ray" not in sys.modules and not os.environ.get("RAY_ADDRESS"):
        # A cluster listens on all interfaces: only who knows this process's token may call ours.
        # Ray reads both when it is imported; set later they would reach its new processes alone,
        # which then would not answer this one.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise InputError(
            "engine 'ray'",
            expected="the package ray",
            found="none",
            remedy='Install it with: python -m pip install "ray>=2.52,<3"',
        ) from None


def _connected() -> Any:
    """Ray, connected to the cluster at RAY_ADDRESS, or to one on this machine.

    Raises `InputError` where there is none, or where it does not start.
    """
    ray = _ray()
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if address := os.environ.get("RAY_ADDRESS"):
            quiet |= {"runtime_env": {"env_vars": {"PYTHONPATH": path}}}
            _begin(ray, f"at '{address}'", 1, **quiet)
        else:
            os.environ["PYTHONPATH"] = path  # which a cluster of our own inherits
            # It waits half a minute for its processes, too short for a machine that is busy.
            _begin(ray, "on this machine", STARTS, include_dashboard=False, **quiet)
    return ray


def _begin(ray: Any, where: str, attempts: int, **settings: Any) -> None:
    """Connect to a cluster, or start one, tried so often."""
    for left in reversed(range(attempts)):
        try:
            ray.init(**settings)
            return
        except Exception as error:  # it raises bare ones, too
            ray.shutdown()
            if not left:
                raise InputError(
                    f"the Ray cluster {where}",
                    expected="one that starts and answers",
                    found=reason(error),
                    remedy="See what `ray status` says, try again on a less busy machine, or "
                    "merge with `engine: local`.",
                ) from error
