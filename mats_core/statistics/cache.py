"""Statistics measured once a machine: files named by what they were measured on and how."""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from pathlib import Path

from ..checkpoints import Weights
from ..models import settings_digest
from ..system import cache_folder, folder_under_way
from ..tasks import Task
from .collect import BatchDone
from .passes import measuring_to_file
from .settings import MeasureSettings
from .store import FORMAT

VERSION = "3"  # 1: batches were not compared with single examples; 2: config.json did not count


def cached_path(checkpoint: Weights, task: Task, settings: MeasureSettings) -> Path:
    """The file of these statistics in the machine's cache, whether it exists yet or not."""
    asked = (checkpoint.fingerprint, settings_digest(checkpoint.directory), task.digest)
    parts = (FORMAT, VERSION, *asked, *settings.key)
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    return cache_folder() / "statistics" / f"{task.name}-{key}.safetensors"


def measuring_once(
    checkpoint: Weights, task: Task, settings: MeasureSettings
) -> Generator[BatchDone, None, Path]:
    """The statistics file of a checkpoint on its task, measured now if it does not exist yet.

    Where another process was sooner its file stays: merges may read from it already.
    """
    path = cached_path(checkpoint, task, settings)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_under_way(path) as folder:
        measured = folder / path.name
        yield from measuring_to_file(checkpoint, task, measured, settings)
        if not path.is_file():
            measured.replace(path)
    return path
