"""`python -m benchmarks.families NAME [--data FOLDER] [--out FOLDER]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Before torch is imported: the workers have one thread each, and must not spin for a second.
os.environ["OMP_NUM_THREADS"] = "1"
from mats_core.system import set_waiting

set_waiting()

from mats_core.errors import InputError
from mats_core.system import cache_folder

from . import text, vision
from .build import PROCESSES, build

KINDS = {kind.name: kind for kind in (text.Text(), vision.Vision(), text.ALL, vision.ALL)}


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, build, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.families",
        description="Build a family of real checkpoints; a second call completes what is missing.",
    )
    parser.add_argument("family", choices=sorted(KINDS))
    parser.add_argument("--data", type=Path, help="folder of the packed tasks (else MATS_DATA)")
    parser.add_argument("--out", type=Path, help="folder to build in (else the machine's cache)")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="experts at a time")
    chosen = parser.parse_args(arguments)
    data = chosen.data or os.environ.get("MATS_DATA")
    out = chosen.out or cache_folder() / "families" / chosen.family
    started = time.perf_counter()
    try:
        if not data:
            raise InputError(
                "data folder", expected="--data FOLDER or the variable MATS_DATA", found="neither"
            )
        build(
            KINDS[chosen.family],
            Path(data),
            out,
            processes=chosen.processes,
            report=lambda line: print(line, flush=True),
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print((out / "README.md").read_text("utf-8"))
    print(f"{(time.perf_counter() - started) / 60:.1f} minutes; family in '{out}'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
