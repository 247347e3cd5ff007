"""Work on a Ray cluster: connecting, refusing what no machine can do, answers, and ending tasks.

Merging and measuring (`engine: ray`) share this.  Ray schedules tasks by what they ask for, and
gives the work of a lost worker to another one; what is lost again and again is an `InputError`.
"""

from __future__ import annotations

import importlib
import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError, reason

RETRIES = 3  # of work whose worker was lost
STARTS = 3  # of a cluster on this machine, at most
GRACE = 1.0  # seconds that tasks have to end by themselves when work is stopped
PATIENCE = 10.0  # seconds between looks whether some machine can still do what is waited for
ROOT = Path(__file__).resolve().parents[2]


def require_ray() -> Any:
    """Ray, imported; raises `InputError` where it is not installed."""
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


def connected() -> tuple[Any, float]:
    """Ray, connected to the cluster at RAY_ADDRESS, or to one on this machine, and the seconds that
    it took: next to none where this process is connected already.

    Raises `InputError` where there is none, or where it does not start.
    """
    begun = time.perf_counter()
    ray = require_ray()
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
    return ray, time.perf_counter() - begun


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
                    "go on with `engine: local`.",
                ) from error


def machines(ray: Any) -> list[Mapping[str, float]]:
    """What each machine that is up has of each resource."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def require_machine(ray: Any, thing: str, needs: Mapping[str, int]) -> None:
    """Raise `InputError` where no machine has what `thing` needs: Ray would wait for ever."""
    there = machines(ray)
    if any(all(has.get(what, 0) >= n for what, n in needs.items()) for has in there):
        return

    def told(of: Mapping[str, float]) -> str:
        gpus = f", {of.get('GPU', 0):g} GPUs" if needs["GPU"] else ""
        return f"{of.get('CPU', 0):g} CPUs{gpus} and {of.get('memory', 0) / 1e9:.3g} GB"

    raise InputError(
        f"{thing} on the Ray cluster",
        expected=f"a machine with {told(needs)}",
        found="; ".join(sorted({told(has) for has in there})) or "no machine",
        remedy="Use fewer threads (OMP_NUM_THREADS), or start larger machines first.",
    )


def answer(ray: Any, reference: Any, thing: str, done: str, otherwise: str) -> Any:
    """What a task that ended returned; what it raised is raised here.

    Raises `InputError` where every attempt lost its worker: `thing` was to be `done`, and
    `otherwise` says what can be done about it.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None  # an `InputError` is one here as well
    except ray.exceptions.RayError as error:
        raise InputError(
            f"{thing} on the Ray cluster",
            expected=f"a worker that lives until it is {done}, within {RETRIES + 1} attempts",
            found=str(error).strip().splitlines()[0],
            remedy=f"Look for what ended the workers (memory, most often), then {otherwise}",
        ) from None


def cancel(ray: Any, references: Sequence[Any]) -> None:
    """End tasks, and wait for it: none may write where the next work begins.

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
