"""What the tables of the page have in common: names of families, options, and cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from . import questions
from .trials import Store, Trial

DOCS = Path(__file__).resolve().parents[2] / "docs"
TITLES = {"text": "text (MiniLM-L6)", "vision": "vision (small ViT)"}
EVERY = {**TITLES, "sample": "sample family"}
Stores = Mapping[str, Store]


def settings(options: Mapping[str, Any]) -> str:
    """Options in words, with their values."""
    return ", ".join(f"{name} {_plain(value)}" for name, value in options.items())


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def on_test(store: Store, trial: Trial) -> tuple[str, str]:
    """Normalised accuracy and gap of a trial on the test halves, the mean over its seeds."""
    found = [store.get(trial.on_test(seed)) for seed in questions.SEEDS]
    known = [result for result in found if result]
    if not known:
        return "–", "–"
    values = [100 * result["normalised"] for result in known]
    spread = f" ({stdev(values):.1f})" if len(values) > 1 else ""
    gap = mean(100 * result["gap"] for result in known)
    return f"{mean(values):.1f} ± {100 * known[0]['half_width']:.1f}{spread}", f"{gap:.0f} %"
