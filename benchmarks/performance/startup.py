"""How soon something happens: commands of fresh processes, and a family opened in the page.

`opened` runs in the process that is measured.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.peers import llama, mergekit
from benchmarks.peers.processes import Ran, run
from mats_core.errors import InputError
from mats_core.recipes import dump_recipe, load_family

from .base import Line, Row
from .disk import PEER, folder, interpreter

ROOT = Path(__file__).resolve().parents[2]
FAMILY = ROOT / "sample_models" / "drawn"
QUICK = {"--help": 0.1, "--version": 0.1, "methods": 0.3, "methods kfac": 0.3,
         "methods --markdown": 0.3}  # fmt: skip
PARTS = {
    "an interpreter that ends": "pass",
    "importing PyTorch": "import torch",
    "importing PyTorch and transformers' ViT": "import torch, transformers; "
    "transformers.AutoConfig, transformers.ViTForImageClassification",
}
EVALUATED, COLD, WARM, MERGED = 5.0, 6.0, 2.0, 2.0  # goals, CPU seconds

TINY = llama.Size(hidden=16, intermediate=32, layers=2, vocabulary=64, heads=2)  # 40 kB
REPEATS = 5
TURNS = 3  # of what has no other side


def whole_command() -> Sequence[Line]:
    """From the process's start to its end, an average of three experts; both sides in turns."""
    peer = interpreter()
    case = mergekit.Case("average", "average", {}, 3, "float32")
    with folder() as place:
        llama.write_family(place / case.dtype, TINY, torch.float32, shards=1)
        found = mergekit.compare_case(place, case, peer, repeats=REPEATS, tell=lambda text: None)
    checks = {"largest difference": max(d.largest for d in found.differences)}
    note = (
        "The work itself is nothing: the command is over as soon as it could begin. More than half "
        "of ours is importing PyTorch."
    )
    return [
        Line("three experts of 40 kB, whole command, one thread",
             statistics.median(ran.seconds for ran in found.ours),
             statistics.median(ran.seconds for ran in found.theirs),
             goal=2.0, checks=checks, note=note),
        Line("the same in user and system time",
             statistics.median(ran.cpu for ran in found.ours),
             statistics.median(ran.cpu for ran in found.theirs), unit="CPU s", goal=2.0),
    ]  # fmt: skip


def _ran(*words: str) -> Ran:
    """A process of this interpreter with one thread of arithmetic, which must end well."""
    ran = run([sys.executable, *words], folder=ROOT, path=str(ROOT))
    if ran.code:
        raise InputError(" ".join(words), expected="exit code 0", found=ran.errors[-600:])
    return ran


def _cpu(*words: str) -> float:
    return statistics.median(_ran(*words).cpu for _ in range(TURNS))


def _line(case: str, seconds: float, goal: float, note: str = "") -> Line:
    """A line whose other side is the goal itself."""
    return Line(case, seconds, goal, unit="CPU s", goal=1.0, at_most=True, note=note)


def commands() -> Sequence[Line]:
    """CPU seconds of whole commands; the parts that none of them can do without."""
    lines = [_line(words, _cpu("-m", "mats_core", *words.split()), goal)
             for words, goal in QUICK.items()]  # fmt: skip
    with folder() as place:
        recipe = load_family(FAMILY).recipe("average", evaluate=False)
        recipe = recipe.model_copy(update={"output": str(place / "merged")})
        (place / "recipe.yaml").write_text(dump_recipe(recipe, absolute=True), "utf-8")
        _ran("-m", "mats_core", "merge", str(place / "recipe.yaml"))
        words = ("-m", "mats_core", "evaluate", str(place / "merged"))
        first = _ran(*words).cpu
        again = _cpu(*words)
    floors = {case: _cpu("-c", code) for case, code in PARTS.items()}
    note = (
        "What cannot be left out of evaluate are the imports below and 4,000 images through the "
        "model; transformers imports torch._dynamo and scipy.optimize whatever is asked of it."
    )
    return [
        *lines,
        _line("evaluate of a merged sample family, for the first time", first, EVALUATED, note),
        _line("evaluate of it again", again, EVALUATED),
        *(Line(f"part: {case}", seconds, None, "CPU s") for case, seconds in floors.items()),
    ]


def opened(said: str) -> None:
    """In the process that is measured: open the sample family as the page does, and merge."""
    from pages.shared.work import merge, prepare

    collection = load_family(FAMILY)
    told: dict[str, float] = {}
    last = [time.process_time(), ""]

    def tell(fraction: float, text: str, partial: object = None) -> None:
        stage = next((stage for stage in STAGES if text.startswith(stage)), text)
        now = time.process_time()
        told[str(last[1])] = told.get(str(last[1]), 0.0) + now - float(last[0])
        last[:] = [now, stage]

    begun = time.process_time()
    prepared = prepare.prepare(collection, "benchmark", tell)
    tell(1.0, "")
    kept = {**told, "opened": time.process_time() - begun}
    names = tuple(expert.name for expert in collection.experts)
    request = merge.Request(collection, "average", experts=names, options={}, precision=0.03)
    begun = time.process_time()
    merge.merge(request, lambda: prepared, tell)
    kept["merged"] = time.process_time() - begun
    Path(said).write_text(json.dumps(kept), "utf-8")


STAGES = {
    "Loading PyTorch": "importing",
    "Measuring": "measuring statistics of eight experts and the base, 256 examples each",
    "Looking": "looking for them, and building the model of each",
    "Testing": "confirming what experts and base reach",
    "Timing": "timing the machine",
}


def _openings(times: int) -> Iterator[Mapping[str, float]]:
    """What opening takes in so many processes, with a cache that the first of them finds empty."""
    code = "import sys; from benchmarks.performance import startup; startup.opened(sys.argv[1])"
    with folder(), tempfile.TemporaryDirectory() as place:
        said = Path(place) / "said.json"
        for _ in range(times):
            _ran("-c", code, str(said))
            yield json.loads(said.read_text("utf-8"))


def opening() -> Sequence[Line]:
    """The sample family in a server's first window, PyTorch imported already."""
    cold, *warm = _openings(1 + TURNS)
    again = {name: statistics.median(one.get(name, 0.0) for one in warm) for name in cold}
    return [
        _line("nothing is known of the family", cold["opened"], COLD,
              "Its statistics would be 196 MB: they are measured, and do not come along."),
        _line("another process has opened it before", again["opened"], WARM,
              "transformers is imported by whoever is first: more than half of it."),
        _line("the first average, on examples until ± 3 points", again["merged"], MERGED),
        *(Line(f"part: {said}, {which}", found.get(stage, 0.0), None, "CPU s")
          for which, found in (("first", cold), ("again", again))
          for stage, said in STAGES.items()),
    ]  # fmt: skip


ROWS = (
    Row("commands", "Commands of a fresh process, user and system time",
        "the goals: 0.1 s, 0.3 s, 5 s", commands, minutes=0.6),
    Row("opening", "The sample family opened in the page, and the first merge",
        "the goals: 6 s, 2 s, 2 s", opening, minutes=0.4),
    Row("start", "Command line on a family of a few kB", "mergekit 0.1.5, the whole command",
        whole_command, minutes=2, needs=PEER),
)  # fmt: skip
