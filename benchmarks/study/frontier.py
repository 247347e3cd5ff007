"""What a merge reaches with what its user has: from weights alone to labels and gradients.

Options are chosen on validation data, with one seed of calibration data; the test halves see the
chosen ones over three seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mats_core.methods import PRESETS

from .cells import EVERY, of_other_build
from .questions import SEEDS, Grid, product
from .readings import READINGS
from .trials import Bench, Store, Trial

ASKED = 256  # validation examples a task


@dataclass(frozen=True)
class Row:
    """One line of the table.

    needs    what the user has
    grid     method → options that are tried
    goal     gap that is to be recovered, in percent: on text, vision and the sample family
    seeded   whether other calibration data may change the result
    routed   branches beside the merge that are tried; by default it is static
    """

    needs: str
    grid: Mapping[str, Grid]
    goal: Mapping[str, int]
    seeded: bool = True
    routed: tuple[Mapping[str, Any], ...] = ({},)

    @property
    def trials(self) -> list[Trial]:
        """What is tried on validation data."""
        return [
            Trial(method, options, asked=ASKED, routed=routed)
            for method, grid in self.grid.items()
            for options in grid
            for routed in self.routed
        ]

    @property
    def seeds(self) -> Sequence[int]:
        """Seeds of calibration data that the test halves see."""
        return SEEDS if self.seeded else SEEDS[:1]


def _goal(text: int, vision: int, sample: int) -> Mapping[str, int]:
    return {"text": text, "vision": vision, "sample": sample}


def _preset(title: str) -> dict[str, Any]:
    """The options of a preset."""
    return next(preset.options for preset in PRESETS if preset.title == title)


ROWS: tuple[Row, ...] = (
    Row("nothing but weights: the average", {"average": [{}]}, {}, seeded=False),
    Row(
        "nothing but weights: TSV-M",
        {"tsv_m": product(scaling=(1.0, 1.25, 1.5, 2.0))},
        {},
        seeded=False,
    ),
    Row(
        "nothing but weights: Grams from the updates",
        {
            "kfac": product(gram=("update",), damping=(0.01, 0.03, 0.1, 0.3, 1.0)),
            "kfac_matching": product(gram=("update",), prior=(0.1, 0.3)),
        },
        _goal(90, 60, 65),
        seeded=False,
    ),
    Row(
        "nothing but weights: the same, singular values calibrated",
        {
            "kfac": product(gram=("update",), gram_power=(0.5,), damping=(0.1,), svc=(0.3, 0.5)),
        },
        _goal(90, 60, 65),
        seeded=False,
    ),
    Row(
        "a pool of anything: drawn pictures, sentences",
        {"sequential": product(inputs=("pool",), damping=(0.03, 0.1))},
        _goal(92, 70, 75),
    ),
    Row(
        "one unsorted pile of all tasks' inputs",
        {"sequential": product(inputs=("pile",), damping=(0.03,), update_share=("auto", 0.5))},
        {},
    ),
    Row(
        "eight unlabelled examples a task",
        {"sequential": product(examples=(8,), damping=(0.03, 0.1))},
        _goal(93, 75, 85),
    ),
    Row(
        "eight unlabelled examples a task, and how the answers turn",
        {"sequential": product(examples=(8,), curvature=("answers",), damping=(0.1,))},
        _goal(93, 75, 85),
    ),
    Row(
        "inputs without labels: 256 a task",
        {"sequential": product(damping=(0.03, 0.1))},
        _goal(95, 80, 90),
    ),
    Row(
        "inputs without labels: 1,024 a task",
        {"sequential": product(examples=(1024,), damping=(0.03, 0.1))},
        _goal(95, 80, 90),
    ),
    Row(
        "inputs without labels, no curvature: B = I",
        {"sequential": product(curvature=("identity",), damping=(0.01,))},
        {},
    ),
    Row(
        "inputs without labels: 256 a task, and how the answers turn",
        {"sequential": product(curvature=("answers",), damping=(0.1,))},
        _goal(95, 80, 90),
    ),
    Row(
        "inputs without labels: FeatCal, with our anchor",
        {"sequential": [_preset("FeatCal, with our anchor")]},
        {},
    ),
    Row("inputs, labels, gradients: K-FAC", {"kfac": product(damping=(0.03, 0.1))}, {}),
    Row(
        "inputs, labels, gradients: sequential",
        {
            "sequential": [
                *product(curvature=("measured",), damping=(0.03, 0.1)),
                # Who has labels need not use them.
                *product(examples=(1024,), damping=(0.03, 0.1)),
            ],
        },
        _goal(97, 90, 95),
    ),
    Row(
        "inputs, labels, gradients: sequential, 1,024 a task",
        {
            "sequential": product(
                curvature=("measured", "answers"), examples=(1024,), damping=(0.03,)
            ),
        },
        _goal(97, 90, 95),
    ),
    Row(
        "inputs without labels; routed, rank 8",
        {"tsv_m": product(scaling=(1.25,))},
        {},
        routed=({"rank": 8}, {"rank": 8, "layers": "all"}),
    ),
    Row(
        "inputs without labels; routed, rank 32",
        {"tsv_m": product(scaling=(1.25,))},
        _goal(99, 99, 99),
        routed=(
            {"rank": 32},
            {"rank": 32, "layers": "all"},
            {"rank": 32, "examples": 1024},
            {"rank": 32, "examples": 1024, "damping": 0.1},
        ),
    ),
    Row(
        "inputs without labels; routed in a first pass, rank 16",
        {"tsv_m": product(scaling=(1.25,))},
        _goal(99, 99, 99),
        routed=(
            {"by": "first_pass", "rank": 16},
            {"by": "first_pass", "rank": 16, "examples": 256},
        ),
    ),
    Row(
        "inputs without labels; routed in a first pass, rank 32",
        {"tsv_m": product(scaling=(1.25,))},
        _goal(99, 99, 99),
        routed=({"by": "first_pass", "rank": 32, "examples": 256},),
    ),
)  # fmt: skip


def place(results: Path, name: str) -> Path:
    """The file of a family's results, apart from the others': a family that is built again has
    weights that differ by rounding, and a row compares merges of the same ones."""
    return results / "frontier" / f"{name}.json"


def section(bench: Bench) -> list[Trial]:
    """What is tried on validation data, then the best of each row on the test halves."""
    tried = [trial for row in ROWS for trial in row.trials]
    return tried + [bench.best(row.trials).on_test(seed) for row in ROWS for seed in row.seeds]


def chosen(row: Row, store: Store) -> Trial | None:
    """The best of a row's trials on validation data; None where one of them was not run."""
    results = [(trial, store.get(trial)) for trial in row.trials]
    known = [(result["normalised"], trial) for trial, result in results if result]
    return max(known, key=lambda pair: pair[0])[1] if len(known) == len(results) else None


def cells(row: Row, name: str, store: Store) -> tuple[str, str]:
    """Normalised accuracy and gap of a row on a family's test halves, with its goal."""
    best = chosen(row, store)
    known = [result for seed in row.seeds if best and (result := store.get(best.on_test(seed)))]
    if not known:
        return "–", "–"
    kept, gaps = ([100 * result[key] for result in known] for key in ("normalised", "gap"))
    spread = f" ({stdev(kept):.1f})" if len(kept) > 1 else ""
    goal = f" (goal {row.goal[name]})" if name in row.goal else ""
    width = 100 * known[0]["half_width"]
    size = f", {known[0]['size']:.1f} × the base" if "size" in known[0] else ""
    return f"{mean(kept):.1f} ± {width:.1f}{spread}", f"{mean(gaps):.1f} %{goal}{size}"


def cost(row: Row, store: Store) -> str:
    """CPU seconds of a row's merge and evaluation."""
    best = chosen(row, store)
    result = store.get(best.on_test()) if best else None
    return f"{result['cpu']:.0f}" if result and "cpu" in result else "–"


def table(stores: Mapping[str, Store], above: Mapping[str, Store]) -> str:
    """The section of the page: all rows over these families; empty where nothing was run.

    above   the results of the tables above it, which may be of another build of a family
    """
    rows = []
    for row in ROWS:
        found = [cells(row, name, store) for name, store in stores.items()]
        if all(kept == "–" for kept, _ in found):
            continue
        seconds = ", ".join(cost(row, store) for store in stores.values())
        rows.append(" | ".join([row.needs, *(cell for pair in found for cell in pair), seconds]))
    if not rows:
        return ""
    heads = " | ".join(f"{EVERY[name]} | gap" for name in stores)
    count = 2 + 2 * len(stores)
    head = f"| what a user has | {heads} | CPU seconds |\n|" + " --- |" * count
    apart = [of_other_build(name, store, above[name]) for name, store in stores.items()]
    parts = [
        "## What is reached with what a user has (test halves)",
        "\n".join([head, *(f"| {row} |" for row in rows)]),
        f"± as above; in brackets the standard deviation over {len(SEEDS)} seeds of calibration "
        f"data (none: one seed, or nothing is read). Options were chosen on {ASKED} validation "
        "examples a task with the first seed. CPU seconds are of one merge with its evaluation, "
        "statistics read from disk, in the order of the columns.",
        *apart,
        READINGS.get("frontier", ""),
    ]
    return "\n\n".join(part for part in parts if part)
