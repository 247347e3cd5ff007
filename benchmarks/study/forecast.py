"""Does the quadratic loss predict the measured one?  Every method's merge, task by task."""

from __future__ import annotations

from mats_core.analysis import interference

from .questions import ASKED
from .trials import Bench, Trial

METHODS = ("average", "task_arithmetic", "ties", "tsv_m", "essential", "regmean", "kfac")


def run(bench: Bench) -> None:
    """Keep (predicted, measured) loss in nats under `predicted`, and ρ within each merge."""
    points: list[list[float]] = []
    within: dict[str, float | None] = {}
    # The prediction reads statistics, whether the merge does or not.
    inputs = bench.inputs(Trial("kfac", asked=ASKED))
    for method in METHODS:
        recipe = bench.recipe(Trial(method, asked=ASKED))
        found = interference(recipe, inputs=inputs, split="validation", examples=ASKED)
        within[method] = found.rank_correlation
        points += [
            [float(predicted), float(measured)]
            for predicted, measured in zip(found.totals, found.measured, strict=True)
        ]
        print(f"predicted: {method} ρ {found.rank_correlation}", flush=True)
    bench.store.content["predicted"] = points
    bench.store.content["predicted_within"] = within
    bench.store.save()
