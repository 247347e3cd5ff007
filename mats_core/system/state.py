"""What tells one state of a file from another, for all that remembers what it read there."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from pathlib import Path

SETTLED = 2.0  # seconds after which another change of a file must show in its times

State = tuple[str, int, int, int, int, str]


def state_of(file: str | Path) -> State:
    """A key that changes when what lies at a path does: its path, inode, size, times of
    modification and of change, and, of a file that changed a moment ago, its SHA-256.

    The time of modification can be set at will, that of change by the system alone; but two
    changes within one tick of its clock look like one.  Zeros where nothing can be asked for.
    """
    try:
        found = os.stat(file)
        recent = stat.S_ISREG(found.st_mode) and _is_recent(found)
        digest = _digest(file) if recent else ""
    except (OSError, ValueError):
        return str(file), 0, 0, 0, 0, ""
    times = found.st_mtime_ns, found.st_ctime_ns
    return str(file), found.st_ino, found.st_size, *times, digest


def _is_recent(found: os.stat_result) -> bool:
    return time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < SETTLED * 1e9


def _digest(file: str | Path) -> str:
    with open(file, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
