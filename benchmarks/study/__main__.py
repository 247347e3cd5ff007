"""`python -m benchmarks.study run NAME FOLDER [--sections …]`, and `… write` for the page."""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

from mats_core.system import set_waiting

set_waiting()

import torch

from mats_core.system import cache_folder

from . import beside, evidence, forecast, foretold, frontier, page, scalings, way
from .cells import NAMED
from .questions import SECTIONS, one_solve
from .trials import Bench, Store

FIRST = ("search", "table", "frontier", "way", "predicted", "foretold", "scalings", "beside")
ALL = [*FIRST, *(section for section in SECTIONS if section not in FIRST)]
SAMPLE = Path(__file__).resolve().parents[2] / "sample_models/drawn"
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing of a family")
    run.add_argument("name", choices=tuple(NAMED))
    run.add_argument("folder", type=Path, nargs="?", help="of the family (else in the cache)")
    run.add_argument("--sections", nargs="+", default=ALL, choices=ALL)
    run.add_argument("--device", default="cpu")
    run.add_argument("--part", default="", help="keep the results in a file of this name's own")
    commands.add_parser("write", help="make docs/study.md and evidence.json from the results")
    options = parser.parse_args()
    if options.command == "write":
        page.write(RESULTS)
        evidence.write(RESULTS)
    else:
        part = f".{options.part}" if options.part else ""
        store = Store(RESULTS / f"{options.name}{part}.json")
        built = SAMPLE if options.name == "sample" else cache_folder() / "families" / options.name
        folder = options.folder or built
        bench = Bench(folder, store, device=options.device)
        if "frontier" in options.sections:
            apart = Store(frontier.place(RESULTS, options.name))
            answer(Bench(folder, apart, device=options.device), ["frontier"])
        if "foretold" in options.sections:
            foretold.run(bench, RESULTS, options.name)
        if "scalings" in options.sections:
            scalings.run(bench, RESULTS, options.name, "validation")
            scalings.run(bench, RESULTS, options.name, "test")
        apart = ("frontier", "foretold", "scalings")
        answer(bench, [one for one in options.sections if one not in apart])


def answer(bench: Bench, sections: list[str]) -> None:
    store = bench.store
    store.content["machine"] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": bench.device,
        "system": f"{platform.system()} {platform.machine()}",
    }
    for section in sections:
        if section == "way":
            way.walk(bench, lambda line: print("way:", line, flush=True))
            continue
        if section == "beside":
            beside.run(bench, lambda line: print(line, flush=True))
            continue
        if section == "predicted":
            forecast.run(bench)
            continue
        trials = frontier.section(bench) if section == "frontier" else SECTIONS[section](bench)
        for solve in one_solve(trials):
            bench.along(solve)
        for index, trial in enumerate(trials):
            started = time.perf_counter()
            new = store.get(trial) is None
            result = bench.score(trial)
            if new:
                print(
                    f"{section} {index + 1}/{len(trials)}  {trial.method} {dict(trial.options)} "
                    f"seed {trial.seed} {trial.split}  {100 * result['normalised']:.2f}  "
                    f"{time.perf_counter() - started:.1f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
