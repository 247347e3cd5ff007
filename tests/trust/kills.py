"""Merges that are killed before an operation on a file, and what is left of them.

    python -m tests.trust.kills --kills 40 --seed 1

A process is ended by SIGKILL before its nth operation on the output's folder: a file that is opened
for writing, made, renamed or removed.  The output must then be as it was, or whole.  The same merge
with `resume` must give the bytes of one that was never killed, and leave nothing beside them.  The
same is tried with files that may not grow any further, as on a full disk.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mats_core import InputError, load_recipe, merge
from mats_core.recipes import Recipe

from .campaign import alone, family

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")


def changing(event: str, told: tuple[Any, ...], folder: str) -> bool:
    """Whether an audit event is an operation that changes something in a folder."""
    if event == "open":
        return isinstance(told[0], str) and told[0].startswith(folder) and bool(told[2] & WRITES)
    return event in OPERATIONS and str(told[0]).startswith(folder)


def in_child(work: Callable[[], None]) -> int:
    """How a child ended that did this work: 0; 2 after an `InputError`; else as of `waitpid`."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        work()
    except InputError:
        os._exit(2)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(3)
    os._exit(0)


def merging(
    recipe: Recipe, *, kill_before: int = 0, most_bytes: int = 0, count_into: Path | None = None
) -> int:
    """How a merge of a recipe by a child ended, with `resume` and `force`."""
    assert recipe.output is not None
    folder = str(recipe.path(recipe.output).parent)

    def work() -> None:
        done = 0

        def hook(event: str, told: tuple[Any, ...]) -> None:
            nonlocal done
            if changing(event, told, folder):
                done += 1
                if done == kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        if most_bytes:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        merge(recipe, force=True, resume=True)
        if count_into is not None:
            count_into.write_text(str(done))

    return in_child(work)


def state(folder: Path) -> dict[str, bytes]:
    """The files of an output whose bytes a merge decides."""
    same = ("model.safetensors", "recipe.yaml")
    return {f.name: f.read_bytes() for f in sorted(folder.glob("*")) if f.name in same}


def tried(folder: Path, seed: int, kills: int) -> tuple[int, list[str]]:
    """How many of so many merges were killed or had no room, and what was wrong afterwards.

    folder   an empty one, in which the files are made
    """
    family(folder)
    outputs = folder / "outputs"
    outputs.mkdir()
    plain = load_recipe(folder / "recipe.yaml").model_copy(update={"evaluate": False})
    counted = folder / "count"
    wrong, stopped = list[str](), 0
    for method in ("regmean", "iso_c"):  # of one pass and of two
        recipe = plain.model_copy(
            update={"method": method, "output": str(outputs / "out"), "seed": 1}
        )
        if merging(recipe, count_into=counted):
            return 0, [f"{method}: it does not merge"]
        before, operations = state(outputs / "out"), int(counted.read_text())
        rng = random.Random(f"{seed} {method}")
        for _ in range(kills // 2):
            number = rng.randrange(1, operations + 1)
            most = rng.randrange(1, 2000) if rng.random() < 0.2 else 0
            told = f"{method}, " + (f"at most {most} bytes" if most else f"operation {number}")
            ended = merging(recipe, kill_before=0 if most else number, most_bytes=most)
            stopped += ended != 0
            if ended not in (-signal.SIGKILL, 0, 2):
                wrong.append(f"{told}: ended with {ended}")
            if state(outputs / "out") != before:
                wrong.append(f"{told}: the output is neither as it was nor whole")
            if merging(recipe) or state(outputs / "out") != before:
                wrong.append(f"{told}: resumed to something else")
            if left := sorted(f.name for f in outputs.iterdir() if f.name != "out"):
                wrong.append(f"{told}: left {left}")
    return stopped, wrong


def main() -> int:
    """Print what was wrong; 1 where something was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with alone() as place:
        stopped, wrong = tried(place, asked.seed, asked.kills)
    print("\n".join([*wrong, f"{stopped} stopped of {asked.kills}, {len(wrong)} faults"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
