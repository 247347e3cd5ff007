"""`python -m benchmarks.study run NAME FOLDER [--sections …]`, and `… write` for the page."""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from . import forecast, page, way
from .questions import SECTIONS
from .trials import Bench, Store

ALL = [
    "search",
    "table",
    "way",
    "predicted",
    *(s for s in SECTIONS if s not in ("search", "table")),
]
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is missing of a family")
    run.add_argument("name", choices=("text", "vision"))
    run.add_argument("folder", type=Path, help="what `python -m benchmarks.families` built")
    run.add_argument("--sections", nargs="+", default=ALL, choices=ALL)
    run.add_argument("--device", default="cpu")
    commands.add_parser("write", help="make docs/study.md from the results")
    options = parser.parse_args()
    if options.command == "write":
        page.write(RESULTS)
    else:
        answer(options.name, options.folder, options.sections, options.device)


def answer(name: str, folder: Path, sections: list[str], device: str) -> None:
    store = Store(RESULTS / f"{name}.json")
    bench = Bench(folder, store, device=device)
    store.content["machine"] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "device": device,
        "system": f"{platform.system()} {platform.machine()}",
    }
    for section in sections:
        if section == "way":
            way.walk(bench, lambda line: print("way:", line, flush=True))
            continue
        if section == "predicted":
            forecast.run(bench)
            continue
        trials = SECTIONS[section](bench)
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
