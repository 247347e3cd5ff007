"""The command line: `python -m benchmarks.peers FOLDER [--write]`; see the package's text.

What was measured lies in FOLDER/results.json; a case that is there is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mats_core.checkpoints import write_atomically
from mats_core.errors import InputError

from . import llama, mergekit
from .page import page
from .processes import run

PAGE = mergekit.ROOT / "docs" / "peers.md"
PACKAGES = ("torch", "safetensors", "transformers", "numpy")


def versions(interpreter: str, folder: Path, *more: str) -> dict[str, str]:
    """The versions that an interpreter imports."""
    names = (*more, *PACKAGES)
    file = folder / "versions.json"
    code = (
        "import importlib.metadata as m, json, platform;"
        f"json.dump({{'Python': platform.python_version(), "
        f"**{{n: m.version(n) for n in {names!r}}}}}, open({str(file)!r}, 'w'))"
    )
    ran = run([interpreter, "-c", code], folder=folder)
    if ran.code:
        raise InputError(f"interpreter '{interpreter}'", expected=", ".join(names),
                         found=ran.errors.strip().splitlines()[-1])  # fmt: skip
    return json.loads(file.read_text())


class Results:
    """`results.json`, written after every measurement."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "results.json"
        self.content: dict[str, Any] = {}
        if self.file.exists():
            self.content = json.loads(self.file.read_text("utf-8"))

    def keep(self, *place: str, measure: Callable[[], Any]) -> None:
        """Measure what `place` names, unless it is there."""
        here = self.content
        for key in place[:-1]:
            here = here.setdefault(key, {})
        if place[-1] not in here:
            here[place[-1]] = measure()
            write_atomically(self.file, json.dumps(self.content, indent=1).encode())


def measure_mergekit(results: Results, folder: Path, interpreter: str, repeats: int) -> None:
    size = llama.Size()
    parameters = sum(_count(shape) for shape in size.shapes().values())
    results.keep("machine", "checkpoints", measure=lambda: (
        f"Base and experts are Llama-like decoders of {parameters / 1e6:.0f} million drawn "
        f"parameters ({parameters * 4 / 1e6:.0f} MB each in float32), in four shards."
    ))  # fmt: skip
    todo = [c for c in mergekit.CASES if c.stem not in results.content.get("cases", {})]
    if todo:
        mergekit.write_families(folder, size)
    for case in todo:
        results.keep("cases", case.stem, measure=lambda case=case: {
            **asdict(r := mergekit.compare_case(folder, case, interpreter, repeats=repeats)),
            **asdict(r.case),
        })  # fmt: skip
    for side, python, modules, path in (
        ("ours", sys.executable, "mats_core.merging", str(mergekit.ROOT)),
        ("mergekit", interpreter, "mergekit.scripts.run_yaml", None),
    ):
        results.keep("imports", side, measure=lambda p=python, m=modules, path=path: asdict(
            mergekit.imports(p, m, folder, path)
        ))  # fmt: skip


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for length in shape:
        total *= length
    return total


def measure_fusion(results: Results, folder: Path, interpreter: str, repeats: int) -> None:
    results.keep("fusion", measure=lambda: _asked(interpreter, folder))
    for method in ("fisher", "regmean"):
        for turn in range(repeats):
            for side in ("ours", "theirs") if turn % 2 == 0 else ("theirs", "ours"):
                runs = results.content.setdefault("costs", {}).setdefault(method, {})
                own = runs.setdefault(side, [])
                if len(own) <= turn:
                    own.append(_asked(interpreter, folder, side, method))
                    write_atomically(results.file, json.dumps(results.content).encode())


def _asked(interpreter: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """What `benchmarks.peers.fusionbench` prints."""
    file = folder / "fusion.json"
    command = [interpreter, "-m", "benchmarks.peers.fusionbench", str(file), *arguments]
    ran = run(command, folder=folder, path=str(mergekit.ROOT))
    if ran.code:
        raise InputError("FusionBench", expected="exit code 0", found=ran.errors[-600:])
    return json.loads(file.read_text())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("folder", type=Path, help="where checkpoints and results go; about 2 GB")
    parser.add_argument("--mergekit", default=os.environ.get("MATS_PEERS_PYTHON"),
                        help="an interpreter with mergekit [MATS_PEERS_PYTHON]")  # fmt: skip
    parser.add_argument("--fusion-bench", default=os.environ.get("MATS_FUSION_PYTHON"),
                        help="an interpreter with fusion-bench [MATS_FUSION_PYTHON]")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} as well")
    arguments = parser.parse_args()
    folder: Path = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(folder)
    for key, value in (
        ("processor", platform.machine()), ("cores", os.cpu_count()), ("threads", 1)
    ):  # fmt: skip
        results.keep("machine", key, measure=lambda v=value: v)
    here = [("ours", sys.executable, ())]
    peers = [("mergekit", arguments.mergekit, ("mergekit",)),
             ("FusionBench", arguments.fusion_bench, ("fusion-bench",))]  # fmt: skip
    try:
        for side, python, packages in here + [peer for peer in peers if peer[1]]:
            results.keep("machine", "versions", side, measure=lambda p=python, names=packages: (
                versions(p, folder, *names)
            ))  # fmt: skip
        if arguments.mergekit:
            measure_mergekit(results, folder, arguments.mergekit, arguments.repeats)
        if arguments.fusion_bench:
            measure_fusion(results, folder, arguments.fusion_bench, arguments.repeats)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    text = page(results.content)
    print(text)
    if arguments.write:
        PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
