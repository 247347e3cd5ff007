"""One process against two Ray workers, one thread each."""

from __future__ import annotations

import hashlib
import importlib.util
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mats_core.merging import pipeline
from mats_core.recipes import load_family, measure_all

from .base import CannotRun, Line, Row, threads, timed
from .iterations import SAMPLE

TURNS = 3


def run() -> Sequence[Line]:
    if importlib.util.find_spec("ray") is None:
        raise CannotRun("ray is not installed")
    collection = load_family(SAMPLE)
    files = measure_all(collection, with_base=False)
    with tempfile.TemporaryDirectory() as folder, threads(1):

        def merge(engine: str, number: int) -> tuple[float, str]:
            output = Path(folder) / f"{engine}{number}"
            recipe = collection.recipe(
                "kfac", {"iterations": 50, "tolerance": 0.0}, statistics=files,
                evaluate=False, engine=engine, output=str(output),
            )  # fmt: skip
            seconds, _ = timed(lambda: pipeline.merge(recipe))
            data = (output / "model.safetensors").read_bytes()
            return seconds, hashlib.sha256(data).hexdigest()

        first, _ = merge("ray", 0)  # the cluster starts, its workers import PyTorch
        turns = [(merge("local", i), merge("ray", i)) for i in range(1, 1 + TURNS)]
    alone, together = (statistics.median(turn[k][0] for turn in turns) for k in (0, 1))
    same = all(one == other for (_, one), (_, other) in turns)
    return [
        Line(
            case="sample family, K-FAC with 50 iterations, written to disk",
            ours=together,
            theirs=alone,
            checks={"same bytes": float(same), "the first time, start included, s": first},
        )
    ]


ROWS = (
    Row(
        "ray",
        "A merge on a local Ray cluster of two workers",
        "one process, one thread",
        run,
        minutes=1,
    ),
)
