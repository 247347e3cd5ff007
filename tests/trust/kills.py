"""Work that is killed before an operation on a file, or at any moment, and what is left of it.

    python -m tests.trust.kills --kills 300 --seed 1

A process is ended by SIGKILL before its nth operation on the folder of outputs (a file that is
opened for writing, made, renamed or removed), or after a random time.  What was there must then be
there as it was, or what was to be made be there whole.  The same work, started again, must give the
bytes of one that was never killed, and leave nothing beside them.  The same is tried with files
that may not grow any further, as on a full disk: work ends with code 2 and one sentence then.

What is killed are merges by every method, over an earlier output (`--force`) and not, resumed and
not, with sums, as a LoRA, sequential, routed, refined, tested, after a search or in rounds, on
Ray; measuring, a soup, `Merge.save`, a family's file, a run of the page and an archive that is
unpacked.
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.util
import io
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from mats_core import (
    METHODS,
    InputError,
    load_family,
    load_recipe,
    measure,
    merge_models,
    parse_recipe,
)
from mats_core.checkpoints import Dropped, receive
from mats_core.cli.main import main as command
from mats_core.merging import merge, planned
from mats_core.recipes import LoraOutput, Recipe, save_family
from pages.shared.work import runs

from .campaign import LONGEST, alone
from .model_shelves import REFINED, base_of_images
from .shelves import FAMILY, family
from .table import in_one_thread, write_table

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod")
PIPE = 1 << 20  # bytes of what a child says that are kept
TOLD_OF_TIME = ("report.json", "README.md")  # hold how long it took


@dataclass(frozen=True)
class Work:
    """What is killed.

    name     of it
    kind     a row of the table
    place    the folder in which it writes
    run      does it, in a child
    before   files that lie in `place` before it begins: a folder that is copied there
    every    whether it is killed before every operation, and not before some
    beside   what it leaves that is another one each time: not compared
    most     kills at most: of work that takes long
    """

    name: str
    kind: str
    place: Path
    run: Callable[[], Any]
    before: Path | None = None
    every: bool = False
    beside: tuple[str, ...] = ()
    most: int = 10**6


@dataclass
class Tally:
    """What came of one kind of work."""

    works: set[str] = field(default_factory=set)
    tried: int = 0
    stopped: int = 0
    operations: int = 0
    wrong: list[str] = field(default_factory=list)


# Children -----------------------------------------------------------------------------------------


def changing(event: str, told: tuple[Any, ...], folder: str) -> bool:
    """Whether an audit event is an operation that changes something in a folder."""
    if event == "open":
        return isinstance(told[0], str) and told[0].startswith(folder) and bool(told[2] & WRITES)
    return event in OPERATIONS and str(told[0]).startswith(folder)


@dataclass(frozen=True)
class Ended:
    """How a child ended: 0; 2 after an `InputError`; 3 after what should not be raised; else as of
    `waitpid`.  And what it said where errors are told."""

    code: int
    said: str

    def wrong(self) -> str:
        """What is wrong with it where nothing but a kill or a full disk was met; else nothing."""
        if self.code in (-signal.SIGKILL, 0):
            return ""
        if self.code != 2:
            return f"ended with {self.code}: {self.said[-300:]}"
        told = " ".join(self.said.split())
        if "Traceback" in told or not 0 < len(told) <= LONGEST:
            return f"not one sentence: {told[:300]}"
        return "" if "room to write" in told else f"not what the disk refused: {told[:300]}"


def child(
    work: Work, *, before: int = 0, after: float = 0.0, most_bytes: int = 0,
    count: Path | None = None,
) -> Ended:  # fmt: skip
    """How a child ended that did some work.

    before       the operation on a file before which it is killed
    after        seconds after which it is
    most_bytes   that a file may have
    count        a file that is told how many operations there were
    """
    # A pipe, and no file: it may grow where files may not.
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, PIPE)
    os.set_blocking(ours, False)
    os.set_blocking(theirs, False)
    pid = os.fork()
    if not pid:
        code = 3
        try:
            code = _child(work, theirs, before, most_bytes, count)
        finally:  # whatever happens: beyond this lie the parent's files, and their removal
            os._exit(code)
    os.close(theirs)
    if after:
        time.sleep(after)
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = b""
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        while part := pipe.read(PIPE):
            said += part
    return Ended(code, said.decode("utf-8", "replace"))


def _child(work: Work, told: int, before: int, most_bytes: int, count: Path | None) -> int:
    """The exit code of some work, done in a child; `told`: where it says what was wrong."""
    os.dup2(told, 2)
    sys.stderr = open(2, "w", closefd=False, buffering=1)
    sys.stdout = open(os.devnull, "w")
    done, folder = 0, str(work.place)

    def hook(event: str, told: tuple[Any, ...]) -> None:
        nonlocal done
        if changing(event, told, folder):
            done += 1
            if done == before:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if most_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    try:
        code = work.run()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except BaseException:
        traceback.print_exc()
        return 3
    if count is not None:
        count.write_text(str(done))
    return code if isinstance(code, int) else 0  # of a command


def state(work: Work) -> dict[str, bytes]:
    """The files that there are whole, under their names, but for what is not compared."""
    skipped = (*TOLD_OF_TIME, *work.beside)
    return {
        file.relative_to(work.place).as_posix(): file.read_bytes()
        for file in sorted(work.place.rglob("*"))
        if file.is_file() and file.name not in skipped and not _under_way(file, work.place)
    }


def _under_way(file: Path, place: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(place).parts)


def restore(work: Work) -> None:
    """The place of some work as it is before it begins."""
    shutil.rmtree(work.place, ignore_errors=True)
    if work.before is None:
        work.place.mkdir(parents=True)
    else:
        shutil.copytree(work.before, work.place)


def killed(work: Work, seed: int, kills: int, scratch: Path, tally: Tally) -> None:
    """Kill some work so often, and note what was wrong afterwards."""
    restore(work)
    was, count = state(work), scratch / "count"
    begun = time.monotonic()
    if (first := child(work, count=count)).code:
        tally.wrong.append(f"{work.name}: it does not work: {first.said[-300:]}")
        return
    seconds, operations, new = time.monotonic() - begun, int(count.read_text()), state(work)
    rng = random.Random(f"{seed} {work.name}")
    numbers = list(range(1, operations + 1))
    if not work.every or kills < operations:
        rng.shuffle(numbers)
    tally.operations += operations
    for turn in range(kills):
        restore(work)
        way: dict[str, Any] = {"before": numbers[turn % len(numbers)]}
        if not work.every or turn >= len(numbers):
            if turn % 5 == 3:
                way = {"after": rng.uniform(0.0, seconds)}
            elif turn % 5 == 4:
                way = {"most_bytes": rng.randrange(1, 2000)}
        said = f"{work.name}, {way}"
        ended = child(work, **way)
        tally.tried += 1
        tally.stopped += ended.code != 0
        if wrong := ended.wrong():
            tally.wrong.append(f"{said}: {wrong}")
        if state(work) not in (was, new):
            tally.wrong.append(f"{said}: neither as it was nor whole")
        if (again := child(work)).code or state(work) != new:
            why = f"{again.code}: {again.said[-300:]}"
            tally.wrong.append(f"{said}: another start gives something else ({why})")
        left = [f for f in work.place.rglob(".*") if f.name not in work.beside]
        if left:
            tally.wrong.append(f"{said}: left {[f.name for f in left][:5]}")


# What is killed -----------------------------------------------------------------------------------


def of_weights(folder: Path) -> list[Work]:
    """Merges of bare weights by every method that takes them, and what else needs no model."""
    family(folder)
    plain = load_recipe(folder / "recipe.yaml")
    told = {"evaluate": False, "seed": 1, "output": "outputs/out"}
    told |= {"base_statistics": "base.stats.safetensors"}
    plain = plain.model_copy(update=told)
    earlier = folder / "earlier"
    merge(plain.model_copy(update={"method": "average", "seed": 9, "output": "earlier/out"}))
    place = folder / "outputs"
    found = []

    def by(name: str, recipe: Recipe, kind: str, over: bool = True, **how: Any) -> None:
        every, how = how.pop("every", False), {"force": True, "resume": True, **how}
        run = partial(merge, recipe, **how)
        found.append(Work(name, kind, place, run, earlier if over else None, every))

    for method in METHODS:
        recipe = plain.model_copy(update={"method": method})
        try:
            planned(recipe)
        except InputError:
            continue
        told_of = METHODS[method]
        second = told_of.rescale is not None or told_of.survey is not None
        kind = "merges of two passes" if second else "merges of one pass"
        by(method, recipe, kind, every=told_of.rescale is not None)
    by("--force alone", plain, "merges without --resume", resume=False, every=True)
    by("--resume, nothing before", plain, "merges of one pass", over=False)
    by("a new output", plain, "merges without --resume", over=False, resume=False)
    sums = plain.model_copy(update={"keep_sums": True})
    by("with sums", sums, "merges with sums")
    lora = plain.model_copy(update={"lora": LoraOutput(rank=2)})
    by("as a LoRA", lora, "merges as a LoRA", every=True)

    def saved() -> None:
        g = torch.Generator().manual_seed(0)
        base = {"fc.weight": torch.randn(5, 4, generator=g)}
        experts = {f"e{m}": {"fc.weight": torch.randn(5, 4, generator=g)} for m in range(2)}
        made = merge_models(base, experts, "average", progress=False, strangers=True)
        made.save(place / "out", force=True)

    found.append(Work("Merge.save", "exports", place, saved, earlier))
    collection = load_family(folder / "family.yaml").model_copy(update={"folder": place / "family"})

    def kept() -> None:
        save_family(collection, replace=(place / "family" / "family.yaml").exists())

    found.append(Work("a family's file", "files of the page", place, kept))
    recipe = plain.model_copy(update={"output": None})
    report, page = merge(recipe), runs.folder(FAMILY)
    named = f"{runs.identity(recipe, report.fingerprints)}.json"  # holds when it was made

    def ran() -> None:
        runs.add(FAMILY, 2, recipe, report)
        assert len(runs.everything(FAMILY)) == 1

    found.append(Work("a run of the page", "files of the page", page, ran, beside=(named,)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("e0.safetensors", "e1.safetensors"):
            archive.writestr(f"model/{name}", (folder / name).read_bytes())

    def handed() -> None:
        for old in (place / "dropped").glob("*"):
            shutil.rmtree(old)
        receive([Dropped("model.zip", io.BytesIO(packed.getvalue()))], place)

    found.append(Work("an archive", "files of the page", place, handed))
    return found


def of_models(folder: Path, ray: bool) -> list[Work]:
    """Work on models of images: sequential, routed, refined and tested merges, rounds, a soup,
    statistics, and a merge on Ray."""
    base_of_images(folder)
    place, earlier = folder / "outputs", folder / "earlier"
    entries = [{"name": f"e{m}", "model": f"e{m}", "task": f"t{m}.npz"} for m in range(2)]
    told = {"base": "base", "experts": entries, "device": "cpu", "seed": 1, "evaluate": False}
    told |= {"method": "average", "output": "outputs/out"}
    merge(parse_recipe({**told, "output": "earlier/out", "seed": 9}, folder))
    small = {"examples": 8}
    measured = []
    for m, entry in enumerate(entries):
        own = measure(folder / f"e{m}", str(folder / f"t{m}.npz"), examples=8, progress=False)
        own.save(folder / f"e{m}.stats.safetensors")
        measured.append({**entry, "statistics": f"e{m}.stats.safetensors"})
    changes: dict[str, tuple[str, dict[str, Any]]] = {
        "sequential": ("sequential merges", {"method": "sequential", "options": small}),
        "routed": ("routed merges", {"routed": {"by": "prototypes", "rank": 2, **small}}),
        "routed in a first pass": (
            "routed merges",
            {"routed": {"by": "first_pass", "rank": 2, **small}},
        ),
        "searched": (
            "merges after trials or rounds",
            {"method": "task_arithmetic", "search": {"scaling": [0.2, 0.5]}, "evaluate": small},
        ),
        "in rounds": (
            "merges after trials or rounds",
            {"method": "regmean", "rounds": 3, "experts": measured},
        ),
        "refined": ("refined merges", {"refine": REFINED}),
        "refined LoRA": ("refined merges", {"refine": REFINED, "lora": {"rank": 2}}),
        "tested": ("tested merges", {"evaluate": small}),
        "tested LoRA": ("tested merges", {"evaluate": small, "lora": {"rank": 2}}),
    }
    if ray:
        changes["on Ray"] = ("merges on Ray", {"engine": "ray"})
    found = []
    for name, (kind, change) in changes.items():
        recipe = parse_recipe({**told, **change}, folder)
        run = partial(merge, recipe, force=True, resume=True)
        found.append(Work(name, kind, place, run, earlier, most=3 if name == "on Ray" else 10**6))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**told, "output": "out"}))
    statistics = place / "e0.stats.safetensors"
    measuring = ["measure", str(folder / "e0"), "--task", str(folder / "t0.npz"), "--examples", "8"]
    measuring += ["--out", str(statistics), "--force", "--device", "cpu"]
    found.append(Work("measure", "measuring", place, partial(command, measuring), every=True))
    soup = ["soup", str(folder / "recipe.yaml"), "--output", str(place / "soup.yaml")]
    soup += ["--examples", "8", "--force"]
    found.append(Work("soup", "soups", place, partial(command, soup)))
    return found


def tried(
    folder: Path, seed: int, kills: int, *, models: bool = True, kinds: Collection[str] = ()
) -> dict[str, Tally]:
    """What came of so many kills, by kinds of work.

    folder   an empty one, in which the files are made
    models   whether there is work on models, too, which takes longer
    kinds    rows of the table; none: all
    """
    works = of_weights(_made(folder / "weights"))
    if models:
        has_ray = importlib.util.find_spec("ray") is not None
        works += of_models(_made(folder / "models"), has_ray)
    if unknown := set(kinds) - {work.kind for work in works}:
        raise SystemExit(f"no kind of work: {', '.join(sorted(unknown))}")
    works = [work for work in works if not kinds or work.kind in kinds]
    scratch, tallies = _made(folder / "scratch"), dict[str, Tally]()
    # Most for what is killed before every operation, as far as it goes.
    every = [[one for one in works if one.every is every] for every in (False, True)]
    groups = [group for group in every if group]
    left = kills
    for group, part in zip(groups, (0.4, 1.0)[-len(groups) :], strict=True):
        rest = max(len(group), round(part * left))
        for number, work in enumerate(sorted(group, key=lambda one: one.most)):
            share = min(work.most, max(1, round(rest / (len(group) - number))), left)
            tally = tallies.setdefault(work.kind, Tally())
            known = len(tally.wrong)
            killed(work, seed, share, scratch, tally)
            tally.works.add(work.name)
            print(f"{work.name}: {share} kills", flush=True)
            for said in tally.wrong[known:]:
                print(f"FAULT {said}", flush=True)
            rest, left = rest - share, left - share
    return tallies


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def main() -> int:
    """Print what was wrong; 1 where something was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="no work on models")
    parser.add_argument("--kind", action="append", default=[], help="a row of the table, alone")
    parser.add_argument("--write", action="store_true", help="the table of docs/trust.md")
    asked = parser.parse_args()
    in_one_thread("tests.trust.kills")
    with alone() as place:
        models = not asked.quick
        found = tried(place, asked.seed, asked.kills, models=models, kinds=asked.kind)
    heads = ("work", "kinds", "operations on files", "tried", "stopped", "faults")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for kind, one in found.items():
        told = (len(one.works), one.operations, one.tried, one.stopped, len(one.wrong))
        lines.append(f"| {kind} | " + " | ".join(map(str, told)) + " |")
    tried_, stopped, wrong = (
        sum(one.tried for one in found.values()),
        sum(one.stopped for one in found.values()),
        [said for one in found.values() for said in one.wrong],
    )
    said = f"{stopped} stopped of {tried_}, {len(wrong)} faults"
    print("\n".join([*lines, said]))
    if asked.write:
        write_table(
            "kills", [*lines, "", f"{tried_} of seed {asked.seed}, {stopped} were stopped."]
        )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
