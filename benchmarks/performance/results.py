"""Measuring rows, each in a process of its own, and keeping what they found in one JSON file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mats_core.checkpoints import write_atomically

from .base import CannotRun, Row

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_name("results.json")
PACKAGES = ("torch", "numpy", "scipy")


def one(row: Row) -> str:
    """Measure a row in this process; its lines, or the reason why not, as JSON."""
    begun, (stolen, ticks) = time.perf_counter(), _ticks()
    try:
        found: dict[str, Any] = {"lines": [asdict(line) for line in row.run()]}
    except CannotRun as reason:
        found = {"lines": [], "cannot": str(reason)}
    seconds, (later, more) = time.perf_counter() - begun, _ticks()
    share = (later - stolen) / max(1, more - ticks)
    state = {**machine(), "stolen": round(share, 3)}
    return json.dumps({**found, "seconds": seconds, "machine": state})


def _ticks() -> tuple[int, int]:
    """Processor ticks that other virtual machines took from this one, and all; 0 if unknown."""
    try:
        ticks = [
            int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        ]
    except (OSError, ValueError):
        return 0, 0
    return (ticks[7], sum(ticks)) if len(ticks) == 8 else (0, 0)


def run(rows: Sequence[Row], file: Path, *, again: bool) -> None:
    """Measure rows and keep them; a row that is there is kept unless `again`."""
    for row in rows:
        kept = load(file)
        if row.name in kept and not again:
            continue
        print(f"{row.name}: {row.work} (about {row.minutes:g} min)", flush=True)
        kept = load(file) | {row.name: measured(row.name, ROOT)}
        write_atomically(file, (json.dumps(kept, indent=1) + "\n").encode())


def measured(name: str, root: Path) -> dict[str, Any]:
    """A row of the checkout at `root`, measured in a process of its own."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.performance", "one", name],
        cwd=root, stdout=subprocess.PIPE, check=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    found = json.loads(ran.stdout.splitlines()[-1])
    return found | {"commit": commit(root), "date": datetime.date.today().isoformat()}


def load(file: Path = FILE) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def commit(root: Path) -> str:
    """The commit of a checkout, with a + where files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()

    # What was measured is the code; results and page change with every run.
    changed = git("status", "--porcelain", "--untracked-files=no", "mats_core")
    return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """The machine in words, and what runs on it."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU",
        "versions": {
            "Python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
    }


def processor() -> str:
    """The name of the processor, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (s.partition(":")[2].strip() for s in lines if "model name" in s), platform.machine()
    )
