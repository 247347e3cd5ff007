"""One command in a process of its own: how it ended, how long it took, what it held at its peak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WATCH = Path(__file__).with_name("watch.py")


@dataclass(frozen=True)
class Ran:
    """A process that has ended.

    seconds      from start to end on the wall; `cpu`: user and system time, all threads
    peak         bytes of its largest resident set, as the kernel counts it: pages of mapped files
                 included
    anonymous    the largest part of it that is no file's page, seen every 20 ms; 0 where the system
                 does not tell
    errors       what it printed, where it failed
    """

    code: int
    seconds: float
    cpu: float
    peak: int
    anonymous: int
    errors: str


def run(command: Sequence[str], *, folder: Path, threads: int = 1, path: str | None = None) -> Ran:
    """Run a command in `folder` to its end, with `threads` threads of arithmetic.

    `path`: its PYTHONPATH.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if path is not None:
        environment["PYTHONPATH"] = path
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "taken.json"
        watched = subprocess.run(
            [sys.executable, "-I", "-S", str(WATCH), str(file), *command],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            check=True,
        )  # fmt: skip
        taken = json.loads(file.read_text("utf-8"))
    said = watched.stdout.decode("utf-8", "replace")
    return Ran(**taken, errors=said if taken["code"] else "")
