"""Scores that are known from earlier processes: of experts and bases, which change rarely.

Files are named by all that decides the answers: weights, settings, data, device, and the versions
of what computes them.  Deleting them loses time, never results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Sequence
from importlib.metadata import version
from pathlib import Path

from ..checkpoints import write_atomically
from ..errors import MachineError, foreseen
from ..system import cache_folder
from .scores import Score

VERSION = "1"  # of how models are asked


def once(key: Sequence[Hashable], compute: Callable[[], tuple[Score, ...]]) -> tuple[Score, ...]:
    """The scores of a key, from the machine's cache, or computed and kept there."""
    file = _file(key)
    known = _read(file)
    if known is not None:
        return known
    found = compute()
    text = json.dumps([score.to_dict() for score in found], allow_nan=False)
    try:
        with foreseen(f"'{file}'"):
            write_atomically(file, text.encode())
    except MachineError:  # a full disk: the scores are none the worse
        pass
    return found


def _file(key: Sequence[Hashable]) -> Path:
    parts = (VERSION, version("torch"), version("transformers"), *map(repr, key))
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    return cache_folder() / "scores" / f"{name}.json"


def _read(file: Path) -> tuple[Score, ...] | None:
    try:
        content = json.loads(file.read_text("utf-8"))
        return tuple(Score.from_dict(score) for score in content)
    except (OSError, ValueError, KeyError, TypeError):  # missing, or not whole
        return None
