"""What tells one state of a file from another, for all that remembers what it read there."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from collections import OrderedDict
from pathlib import Path

SETTLED = 2.0  # seconds after which another change of a file must show in its times

KEPT = 1 << 12  # files that were young when they were asked for, of which digests are remembered

Stamp = tuple[int, int, int, int]  # inode, size, time of modification, time of change
State = tuple[str, int, int, int, int, str]
_digests: OrderedDict[tuple[str, int, int, int, int], tuple[str, bool]] = OrderedDict()
_alone = threading.Lock()


def stamp_of(found: os.stat_result) -> Stamp:
    """What the system says of a state of a file: all of `state_of` for one that is not young, and
    for those who read the contents themselves."""
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def state_of(file: str | Path) -> State:
    """A key that changes when what lies at a path does, and only then: its path, inode, size, times
    of modification and of change, and its SHA-256 where it had changed a moment before this process
    first asked.

    The time of modification can be set at will, that of change by the system alone; but two
    changes within one tick of its clock look like one.  Zeros where nothing can be asked for.
    """
    try:
        found = os.stat(file)
        key = (str(file), *stamp_of(found))
        return (*key, _young_digest(file, key, found))
    except (OSError, ValueError):
        return str(file), 0, 0, 0, 0, ""


def _young_digest(
    file: str | Path, key: tuple[str, int, int, int, int], found: os.stat_result
) -> str:
    """The digest of a file that is young, or was when it was first asked for; of others none.

    It is computed as long as times may hide a change, and once more after that.
    """
    settled = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) >= SETTLED * 1e9
    with _alone:
        digest, final = _digests.get(key, ("", settled))
        if final or not stat.S_ISREG(found.st_mode):
            return digest
    with open(file, "rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    with _alone:
        _digests[key] = digest, settled
        if len(_digests) > KEPT:
            _digests.popitem(last=False)
    return digest
