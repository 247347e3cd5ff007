"""Sample tasks drawn in a process of their own: `python -m sample_models.beside NAME=FILE …`.

Drawing eight tasks takes four seconds of Python, and so does importing PyTorch and transformers: in
one interpreter they wait for each other.  This module imports neither.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from . import tasks

LOOK = 0.02  # seconds between two looks for a file
# Arrays of ten megabytes come and go by the hundred: what the process has got it keeps, and does
# not have the system clear it again each time: a quarter less time with the C library of GNU.
KEEPING = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}
_AT_WORK: dict[Path, subprocess.Popen[bytes]] = {}  # by folder
_LOCK = threading.Lock()


def drawn(name: str, place: Callable[[str], Path]) -> bool:
    """Whether another process has drawn this task to `place(name)`.

    It is started where none is at work, and then draws all tasks of the family that lack their
    files, since a family is asked about all of them.  False where it cannot be started, or ended
    without the file.
    """
    file = place(name)
    with _LOCK:
        process = _AT_WORK.get(file.parent)
        if process is None or process.poll() is not None:
            missing = [other for other in tasks.TASKS if not place(other).is_file()]
            wanted = [name, *(other for other in missing if other != name)]
            process = _started([place(other) for other in wanted], wanted)
            if process is None:
                return False
            _AT_WORK[file.parent] = process
    while process.poll() is None and not file.is_file():
        time.sleep(LOOK)
    return file.is_file()


def _started(files: Sequence[Path], names: Sequence[str]) -> subprocess.Popen[bytes] | None:
    package = __name__.rpartition(".")[0]
    above = Path(__file__).resolve().parents[len(package.split("."))]
    pairs = [f"{name}={file.resolve()}" for name, file in zip(names, files, strict=True)]
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            [sys.executable, "-m", __name__, *pairs],
            cwd=above,
            env=os.environ | KEEPING,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return None


def write(name: str, file: Path) -> None:
    """Draw a task into a file, which is written whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, **tasks.arrays(name))  # type: ignore[arg-type]
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    for pair in sys.argv[1:]:
        task, _, at = pair.partition("=")
        if not Path(at).is_file():
            write(task, Path(at))
