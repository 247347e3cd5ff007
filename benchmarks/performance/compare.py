"""Two commits, row by row: `python -m benchmarks.performance compare OLD NEW ROW …`."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .results import ROOT, measured

NOISE = 1.15  # a median of a few runs on a shared machine moves by as much


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """A worktree of a revision, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="mats-compare-") as folder:
        place = Path(folder) / "tree"
        _git("worktree", "add", "--quiet", "--detach", str(place), revision)
        try:
            yield place
        finally:
            _git("worktree", "remove", "--force", str(place))


def _git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=ROOT, check=True)


def compare(old: str, new: str, rows: Sequence[str], repeats: int) -> int:
    """Print new against old for every case; 1 if one got worse beyond the noise, else 0."""
    worse = False
    with checkout(old) as before, checkout(new) as after:
        for row in rows:
            # In turns, so that what else the machine does meets both.
            runs = [(measured(row, before), measured(row, after)) for _ in range(repeats)]
            for case, (was, now, unit) in _cases(runs).items():
                ratio = now / was if was else float("nan")
                slower = ratio > NOISE
                worse |= slower
                mark = "SLOWER" if slower else "faster" if ratio < 1 / NOISE else "same"
                print(f"{row} · {case}: {was:.4g} → {now:.4g} {unit} ({ratio:.2f}×, {mark})")
    return int(worse)


def _cases(runs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, tuple[Any, ...]]:
    """case → (median before, median after, unit), for the cases that both have."""
    sides: list[dict[str, list[float]]] = [{}, {}]
    units: dict[str, str] = {}
    for pair in runs:
        for side, found in zip(sides, pair, strict=True):
            for line in found["lines"]:
                side.setdefault(line["case"], []).append(line["ours"])
                units[line["case"]] = line["unit"]
    return {
        case: (statistics.median(sides[0][case]), statistics.median(sides[1][case]), units[case])
        for case in sides[0]
        if case in sides[1]
    }
