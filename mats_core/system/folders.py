"""Where the library keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path


def results_folder() -> Path:
    """`MATS_RESULTS`, else `~/.local/share/mats-explorer`: the finished runs of the app."""
    configured = os.environ.get("MATS_RESULTS")
    return Path(configured) if configured else Path.home() / ".local" / "share" / "mats-explorer"


def cache_folder() -> Path:
    """`MATS_CACHE`, else `~/.cache/mats-explorer`.  Deleting it loses time, never results."""
    configured = os.environ.get("MATS_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "mats-explorer"
