"""Damaged files of every kind that is read here, and what must come of each.

    python -m tests.trust.campaign --rounds 20000 --seed 1        all; a table with --write
    python -m tests.trust.campaign --kind tokenizer.json --number 17 --seed 1     one again

A round damages one file by what is known of its form (`damage.py`) and opens it by the door that
reads such files (`shelves.py`).  What is allowed: the file is taken, and what is made of it is what
plain numpy makes of it; or an `InputError` of at most `LONGEST` characters; within `SECONDS` of a
processor and `BYTES` of memory.  Everything else is a fault, printed with the seed and number that
give it again.  Rounds are drawn from the seed, the kind and their number alone.

The files of a shelf are made once, in a process that lives on from round to round.  One that dies
or does not answer any more is a fault, and another one goes on behind that round.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from mats_core import InputError

from . import model_shelves, shelves, state_shelves
from .shelves import FAMILY, Kind, family
from .table import in_one_thread, write_table

LONGEST, SECONDS, BYTES = 1000, 5, 1_000_000_000
# Seconds on the wall after which a round is given up that waits and works not: ten of them may run
# on one busy processor, and take no more of it than `SECONDS`.
WALL = 300
PATIENCE = 60  # seconds of a processor after which a process is ended that no alarm ends
ADDRESSES = 8_000_000_000  # bytes of addresses that a process may take: the machine is not harmed
SHELVES: Mapping[str, Callable[[Path], Mapping[str, Kind]]] = {
    "weights and statistics": shelves.weights,
    "adapters": shelves.adapters,
    "outputs": shelves.outputs,
    "rows and tasks": shelves.tables,
    "pictures and arrays": shelves.pictures,
    "archives and caches": shelves.archives,
    "models of texts": model_shelves.texts,
    "language models": model_shelves.speech,
    "models of images": model_shelves.sight,
    "lm-evaluation-harness": model_shelves.harness,
    "states": state_shelves.states,
}

__all__ = ["FAMILY", "LONGEST", "SHELVES", "alone", "campaign", "family", "outcome"]


@dataclass(frozen=True)
class Outcome:
    """What came of a round: of its kind, its number, how it ended, and what it took."""

    kind: str
    number: int
    said: str
    seconds: float = 0.0
    nbytes: int = 0

    @property
    def way(self) -> str:
        """`taken`, `refused` or `fault`."""
        return self.said if self.said in ("taken", "refused") else "fault"


@dataclass
class Found:
    """What came of a campaign: outcomes counted by (shelf, kind, way), faults, and the most that a
    round took."""

    counted: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    faults: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0
    nbytes: int = 0

    def take(self, shelf: str, one: Outcome) -> None:
        """Count a round."""
        self.counted[shelf, one.kind, one.way] += 1
        self.seconds = max(self.seconds, one.seconds)
        self.nbytes = max(self.nbytes, one.nbytes)
        if one.way == "fault":
            self.faults.append(one)

    def share(self, way: str) -> float:
        """The share of rounds that ended in a way."""
        known = sum(n for (_, _, how), n in self.counted.items() if how == way)
        return known / max(1, sum(self.counted.values()))


# A round ------------------------------------------------------------------------------------------


class _TooLong(BaseException):
    """Raised where a door has not answered in time."""


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise after so many seconds of a processor, or `WALL` on the wall: the machine may be busy
    with others."""

    def ring(*_: object) -> None:
        raise _TooLong

    before = [(s, signal.signal(s, ring)) for s in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, WALL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before:
            signal.signal(number, handler)


def outcome(door: Callable[[Path], Any], folder: Path, seconds: float = SECONDS) -> str:
    """`taken`, `refused`, or what is wrong with the way in which a door ended."""
    try:
        with _alarm(seconds), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            door(folder)
    except InputError as error:
        long = len(str(error))
        return "refused" if long <= LONGEST else f"a sentence of {long} characters: {error}"[:300]
    except _TooLong:
        return f"no answer within {seconds} s of a processor, or {WALL} s"
    except BaseException as error:
        where = [
            one
            for one in traceback.extract_tb(error.__traceback__)
            if "/tests/" not in one.filename
        ]
        last = where[-1] if where else traceback.extract_tb(error.__traceback__)[-1]
        ours = [one for one in where if "mats_core" in one.filename or "/pages/" in one.filename]
        via = f" via {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
        at = f"{Path(last.filename).name}:{last.lineno}{via}"
        return f"{type(error).__name__} at {at}: {str(error)[:160]}"
    return "taken"


def _memory(reset: bool = False) -> tuple[int, int]:
    """(bytes held now, most bytes held since the last reset), where the system tells; else 0."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        told = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return tuple(1024 * int(told[k].split()[0]) for k in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    except (OSError, KeyError):
        return 0, 0


def round_of(folder: Path, called: str, kind: Kind, seed: int, number: int) -> Outcome:
    """What comes of one damaged file."""
    rng = random.Random(f"{seed} {called} {number}")
    file = folder / kind.file
    whole = file.read_bytes()
    file.write_bytes(kind.damage(whole, rng))
    before, _ = _memory(reset=True)
    begun = time.process_time()
    try:
        said = outcome(kind.door, folder)
    finally:
        file.write_bytes(whole)
    taken = max(0, _memory()[1] - before)
    if taken > BYTES and said in ("taken", "refused"):
        said = f"{taken / 1e9:.1f} GB of memory, {said}"
    return Outcome(called, number, said, time.process_time() - begun, taken)


# A shelf, in a process of its own -----------------------------------------------------------------


@contextlib.contextmanager
def alone() -> Iterator[Path]:
    """An empty folder for a family, in a process of one thread that keeps nothing elsewhere."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MATS_RESULTS": f"{folder}/results", "MATS_CACHE": f"{folder}/cache"}
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{folder}/hub"}
        place = Path(folder) / "family"
        place.mkdir()
        yield place


def _serve(
    shelf: str, tasks: Sequence[tuple[str, int]] | None, rounds: int, seed: int, pipe: Connection
) -> None:
    """Make a shelf, say which rounds there are, and run those that are left."""
    sys.stdout = sys.stderr = open(os.devnull, "w")
    logging.disable(logging.CRITICAL)
    try:
        with alone() as folder:
            _rounds(shelf, folder, tasks, rounds, seed, pipe)
        pipe.send(None)
    except BaseException:
        pipe.send(traceback.format_exc())


def _rounds(
    shelf: str, folder: Path, tasks: Sequence[tuple[str, int]] | None, rounds: int, seed: int,
    pipe: Connection,
) -> None:  # fmt: skip
    kinds = SHELVES[shelf](folder)
    most = _addresses() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for called, kind in kinds.items():  # each time: what a door imports is not told of a round
        if (said := outcome(kind.door, folder, PATIENCE)) != kind.whole:
            raise AssertionError(f"{called}, undamaged: {said}")
    if tasks is None:
        whole = sum(kind.share for kind in kinds.values())
        tasks = [
            (called, number)
            for called, kind in kinds.items()
            for number in range(max(1, round(rounds * kind.share / whole)))
        ]
        random.Random(seed).shuffle(tasks)  # so that each kind has its share however long it runs
        pipe.send(tasks)
    for called, number in tasks:
        pipe.send(round_of(folder, called, kinds[called], seed, number))
        if number % 50 == 0:
            gc.collect()


def _addresses() -> int:
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[0]) * resource.getpagesize() if told.exists() else 0


def _answers(pipe: Connection, process: Any, seconds: float) -> bool:
    """Whether a process answers before it took so many seconds of a processor, or ten times as
    many, and at least twice `WALL`, on the wall."""
    begun, until = _seconds_of(process.pid), time.monotonic() + max(2 * WALL, 10 * seconds)
    while not pipe.poll(1):
        if _seconds_of(process.pid) - begun > seconds or time.monotonic() > until:
            return False
    return True


def _seconds_of(pid: int) -> float:
    """Seconds of a processor that a process took so far, where the system tells; else 0."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def on_shelf(shelf: str, seed: int, rounds: int) -> Generator[Outcome, None, None]:
    """The outcomes of so many rounds over the kinds of a shelf."""
    left: list[tuple[str, int]] | None = None
    context = multiprocessing.get_context("spawn")
    while left is None or left:
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(shelf, left, rounds, seed, theirs))
        process.start()
        theirs.close()
        try:
            if left is None:
                answers = _answers(ours, process, 20 * PATIENCE)
                first = ours.recv() if answers else "not made in time"
                if isinstance(first, str):
                    raise AssertionError(f"{shelf}: {first}")
                left = first
                if not left:
                    return
            wait = 10 * PATIENCE  # the first round waits for the files
            while left:
                if not _answers(ours, process, wait):
                    yield Outcome(*left.pop(0), f"no answer within {wait} s, and no alarm heard")
                    break
                told = ours.recv()
                if isinstance(told, str):
                    raise AssertionError(f"{shelf}: {told}")
                left.pop(0)
                wait = PATIENCE
                yield told
        except EOFError:
            process.join(PATIENCE)
            if not left:
                raise AssertionError(f"{shelf}: ended with {process.exitcode}") from None
            yield Outcome(*left.pop(0), f"the process ended with {process.exitcode}")
        finally:
            process.kill()
            process.join()


def campaign(
    seed: int, rounds: int, chosen: Sequence[str] = (), told: bool = False, minutes: float = 1e9
) -> Found:
    """What came of so many rounds over all shelves or over some, or of as many as fit into so many
    minutes."""
    found = Found()
    names = [one for one in SHELVES if not chosen or one in chosen]
    sizes = {one: SIZES.get(one, 1.0) for one in names}
    for name in names:
        begun = time.monotonic()
        until = begun + 60 * minutes * sizes[name] / sum(sizes.values())
        count = round(rounds * sizes[name] / sum(sizes.values()))
        with contextlib.closing(on_shelf(name, seed, count)) as outcomes:
            for one in outcomes:
                found.take(name, one)
                if told and one.way == "fault":
                    said = f"{one.kind}, round {one.number} of seed {seed}: {one.said}"
                    print(f"FAULT {said}", flush=True)
                if time.monotonic() > until:
                    break
        if told:
            done = sum(n for (shelf, _, _), n in found.counted.items() if shelf == name)
            print(f"{name}: {done} rounds in {time.monotonic() - begun:.0f} s", flush=True)
    return found


# Rounds of a shelf beside those of the others: more where there are more kinds, fewer where one
# takes long.
SIZES = {
    "weights and statistics": 6.0, "adapters": 1.5, "outputs": 1.5, "rows and tasks": 3.0,
    "pictures and arrays": 2.5, "archives and caches": 1.5, "models of texts": 1.5,
    "language models": 0.7, "models of images": 1.5, "lm-evaluation-harness": 0.2,
}  # fmt: skip


def again(called: str, seed: int, number: int) -> int:
    """One round once more, with its traceback."""
    with alone() as place:
        for shelf in SHELVES.values():
            folder = place / str(len(list(place.iterdir())))
            folder.mkdir()
            kinds = shelf(folder)
            if called not in kinds:
                continue
            kind, file = kinds[called], folder / kinds[called].file
            hurt = kind.damage(file.read_bytes(), random.Random(f"{seed} {called} {number}"))
            file.write_bytes(hurt)
            print(hurt[:2000])
            kind.door(folder)
            return 0
    print(f"no kind '{called}'")
    return 2


def main() -> int:
    """Print what came of the rounds; 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--minutes", type=float, default=1e9, help="at most, of all rounds")
    parser.add_argument("--shelf", action="append", default=[], choices=list(SHELVES))
    parser.add_argument("--kind")
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="the table of docs/trust.md")
    asked = parser.parse_args()
    in_one_thread("tests.trust.campaign")
    if asked.kind:
        return again(asked.kind, asked.seed, asked.number)
    begun = time.monotonic()
    found = campaign(asked.seed, asked.rounds, asked.shelf, told=True, minutes=asked.minutes)
    for shelf, kind in dict.fromkeys((s, k) for s, k, _ in found.counted):
        told = ", ".join(
            f"{found.counted[shelf, kind, w]} {w}" for w in ("taken", "refused", "fault")
        )
        print(f"{kind}: {told}")
    count = sum(found.counted.values())
    print(
        f"{count} rounds of seed {asked.seed} in {time.monotonic() - begun:.0f} s: "
        f"{found.share('taken'):.0%} taken, {len(found.faults)} faults; a round took at most "
        f"{found.seconds:.1f} s and {found.nbytes / 1e6:.0f} MB"
    )
    if asked.write:
        write_table("campaign", _lines(found, asked.seed))
    return 1 if found.faults else 0


def _lines(found: Found, seed: int) -> list[str]:
    """The table of a campaign, in Markdown."""
    lines = [
        "| files | kinds | rounds | taken | refused | faults |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for shelf in dict.fromkeys(s for s, _, _ in found.counted):
        kinds = {k for s, k, _ in found.counted if s == shelf}
        ways = [sum(n for (s, _, w), n in found.counted.items() if (s, w) == (shelf, way))
                for way in ("taken", "refused", "fault")]  # fmt: skip
        lines.append(
            f"| {shelf} | {len(kinds)} | {sum(ways)} | " + " | ".join(map(str, ways)) + " |"
        )
    count = sum(found.counted.values())
    lines += [
        "",
        f"{count:,} rounds of seed {seed}: {found.share('taken'):.0%} were taken; one took at most "
        f"{found.seconds:.1f} s of a processor and {found.nbytes / 1e6:.0f} MB of memory.",
    ]
    return lines


if __name__ == "__main__":
    sys.exit(main())
