"""One decoder layer of a 7B model, merged for real on statistics in low rank.

Weights, task updates and tokens are drawn: W0 with entries of 0.02, updates of rank 16 plus noise,
tokens with a spectrum that decays as i^(-0.7).  Each shape is merged once by each method
and counts as often as the layer has it; `models.py` turns the seconds into estimates.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from mats_core.linear import LowRank
from mats_core.methods import METHODS, Layer, LayerStatistics, Merged
from mats_core.statistics import Sketch

from .base import Line, Row, relative, threads, timed
from .models import LLAMAS, RANKS, Rate, estimate, statistics_bytes, work

TASKS = 4
RANK = 128
TOKENS = 1024  # of a task
LATENT = 1024  # directions that tokens have
METHODS_RUN = ("average", "essential", "regmean", "kfac")
SHAPES = {(4096, 4096): 4, (11008, 4096): 2, (4096, 11008): 1}


def rows_of(common: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens (N, size) of one task, as hard as those of `drawn.gram`: the common directions turned
    by as much again, each with an energy of the task's own."""
    count, size = common.shape
    turned = common + torch.randn(count, size, generator=generator) / size**0.5
    spread = torch.exp(torch.randn(count, generator=generator))
    energy = (torch.arange(1, count + 1) ** -0.7 * spread).sqrt()
    return torch.randn(TOKENS, count, generator=generator) * energy @ turned


def sketched(rows: Tensor, rank: int) -> LowRank:
    sketch = Sketch(rank)
    for part in rows.split(256):
        sketch.add(part)
    factor, rest = sketch.close()
    count = len(rows)
    return LowRank(factor / count**0.5, torch.tensor(rest / count).expand(rows.shape[1]))


def grams(size: int, generator: torch.Generator, rank: int) -> list[LowRank]:
    common = torch.randn(min(LATENT, size), size, generator=generator) / size**0.5
    return [sketched(rows_of(common, generator), rank) for _ in range(TASKS)]


def layer(rows: int, columns: int, *, rank: int = RANK, seed: int = 0) -> Layer:
    """A layer with drawn weights, and statistics in at most `rank` rows."""
    generator = torch.Generator().manual_seed(seed)

    def update() -> Tensor:
        u = torch.randn(rows, 16, generator=generator)
        v = torch.randn(16, columns, generator=generator)
        noise = torch.randn(rows, columns, generator=generator)
        return noise.mul_(2e-4).add_(u @ v, alpha=2e-4)

    base = torch.randn(rows, columns, generator=generator).mul_(0.02)
    inputs, outputs = (grams(size, generator, rank) for size in (columns, rows))
    return Layer(
        name="layer.weight",
        base=base,
        experts=tuple(base + update() for _ in range(TASKS)),
        weights=(1.0,) * TASKS,
        labels=tuple(str(task) for task in range(TASKS)),
        is_matrix=True,
        statistics=tuple(
            LayerStatistics(input_gram=a, output_gradient_gram=b)
            for a, b in zip(inputs, outputs, strict=True)
        ),
    )


def merge(own: Layer, method: str) -> Merged:
    row = METHODS[method]
    return row.merge(own, row.options(), None)


def dense(own: Layer) -> Layer:
    """The same layer with its Grams as matrices."""
    inputs, outputs = own.measured("input_gram"), own.measured("output_gradient_gram")
    assert inputs is not None
    assert outputs is not None
    whole = [
        LayerStatistics(input_gram=a, output_gradient_gram=b)
        for a, b in zip(inputs, outputs, strict=True)
    ]
    return replace(own, statistics=tuple(whole))


def peak(reset: bool = False) -> float:
    """Bytes of the process's largest resident set since the last reset (Linux); 0 elsewhere."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        text = Path("/proc/self/status").read_text()
    except OSError:
        return 0.0
    return next(1024.0 * int(s.split()[1]) for s in text.splitlines() if s.startswith("VmHWM"))


def merged_shapes() -> tuple[list[Line], list[Rate]]:
    """Every method on every shape."""
    lines, rates = [], []
    for (rows, columns), count in SHAPES.items():
        own = layer(rows, columns)
        for method in METHODS_RUN:
            gc.collect()
            peak(reset=True)
            seconds, found = timed(lambda own=own, method=method: merge(own, method))
            steps = found.solution.iterations if found.solution else 0
            rates.append(
                Rate(
                    method,
                    rows,
                    columns,
                    seconds,
                    work(method, rows, columns, TASKS, RANK, steps),
                    steps,
                )
            )
            checks = {"peak of the process, GB": peak() / 1e9}
            if found.solution:
                checks |= {"iterations": steps, "residual": found.solution.true_residual}
            lines.append(
                Line(
                    case=f"{method}, {rows}×{columns} (× {count})",
                    ours=seconds,
                    theirs=None,
                    checks=checks,
                    note=f"Status of {method}: {found.status}.",
                )
            )
            del found
        del own
    return lines, rates


def against_matrices() -> list[Line]:
    """4096×4096: the whole RegMean, and one product of K-FAC, with Grams as matrices."""
    own = layer(4096, 4096)
    whole = dense(own)
    fast, found = timed(lambda: merge(own, "regmean"))
    slow, reference = timed(lambda: merge(whole, "regmean"))
    lines = [
        Line(
            "RegMean, 4096×4096, factors against matrices", fast, slow,
            checks={
                "difference of the updates": relative(
                    found.value - own.base, reference.value - own.base
                )
            },
        )
    ]  # fmt: skip
    x = own.base
    one, other = own.statistics[0], whole.statistics[0]
    a, b = one.input_gram, one.output_gradient_gram
    assert a is not None
    assert b is not None
    assert other.input_gram is not None
    assert other.output_gradient_gram is not None
    fast, product = timed(lambda: b @ x @ a)
    slow, reference = timed(lambda: other.output_gradient_gram @ x @ other.input_gram)
    lines.append(
        Line(
            "one K-FAC product B X A, 4096×4096, factors against matrices", fast, slow,
            checks={"difference": relative(product, reference)},
        )
    )  # fmt: skip
    return lines


def bounds() -> Line:
    """How the sketch's error bound falls with K, on one task's tokens of 4096 numbers."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(LATENT, 4096, generator=generator) / 4096**0.5
    rows = rows_of(common, generator)
    top = float(torch.linalg.eigvalsh(rows @ rows.T / len(rows))[-1])
    seconds, _ = timed(lambda: sketched(rows, RANK))
    return Line(
        f"sketch of {TOKENS} tokens of 4096 numbers, K = {RANK}",
        seconds,
        None,
        checks={
            f"bound / largest eigenvalue, K = {rank}": float(sketched(rows, rank).rest[0]) / top
            for rank in (32, 64, 128, 256, 512, 1024)
        },
        note="Drawn tokens; the bound is what the file itself says (`input_rest`).",
    )


def estimates(rates: Sequence[Rate]) -> list[Line]:
    """7B, 30B and 70B on this machine."""
    lines = []
    for model in LLAMAS:
        size = {
            "weights of base and experts, bfloat16, GB": 2e-9 * model.parameters * (TASKS + 1),
            "statistics of an expert as matrices, GB": statistics_bytes(model, None) / 1e9,
            **{
                f"statistics of an expert, K = {rank}, GB": statistics_bytes(model, rank) / 1e9
                for rank in RANKS
            },
        }
        for method in METHODS_RUN:
            hours = estimate(model, method, rates, tasks=TASKS, rank=RANK) / 3600
            lines.append(
                Line(
                    f"estimate: {model.name}, {method}, K = {RANK}, {TASKS} experts",
                    hours,
                    None,
                    unit="h",
                    checks=size if method == METHODS_RUN[0] else {},
                    note="Counted operations at the measured rates; no reading, no writing.",
                )
            )
    return lines


def run() -> Sequence[Line]:
    with threads(2):
        lines, rates = merged_shapes()
        return [*lines, *against_matrices(), bounds(), *estimates(rates)]


ROWS = (
    Row(
        "wide",
        "One decoder layer of a 7B model on low-rank statistics; estimates for 7B, 30B, 70B",
        "Grams as matrices, where there is time for them",
        run,
        minutes=4,
    ),
)
