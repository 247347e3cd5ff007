"""Statistics measured once a machine: files named by what they were measured on and how."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ..checkpoints import Weights
from ..system import cache_folder
from ..tasks import Task
from .collect import Labels
from .passes import measure_to_file
from .store import FORMAT


def cached_path(
    checkpoint: Weights, task: Task, *, examples: int, labels: Labels, seed: int
) -> Path:
    """Where these statistics lie, whether or not they were measured yet."""
    parts = (FORMAT, checkpoint.fingerprint, task.digest, str(examples), labels, str(seed))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    return cache_folder() / "statistics" / f"{task.name}-{key}.safetensors"


def measured(
    checkpoint: Weights,
    task: Task,
    *,
    examples: int = 256,
    labels: Labels = "empirical",
    seed: int = 0,
    device: str = "cpu",
    on_batch: Callable[[int], None] | None = None,
) -> Path:
    """The statistics file of a checkpoint on its task, measured now if it is not there yet."""
    path = cached_path(checkpoint, task, examples=examples, labels=labels, seed=seed)
    if not path.is_file():
        measure_to_file(
            checkpoint,
            task,
            path,
            examples=examples,
            labels=labels,
            seed=seed,
            device=device,
            on_batch=on_batch,
        )
    return path
