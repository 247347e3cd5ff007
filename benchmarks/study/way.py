"""The way to the whole gap: what a plain merge leaves aside, added step by step.

Each step's free number is chosen on validation data; the test halves see every step once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from mats_core.evaluation import examiner
from mats_core.linear import Kronecker, WeightedSum, regularised, weighted_sum
from mats_core.merging import read_layer, rounds
from mats_core.methods import Layer
from mats_core.recipes import Evaluation, Inputs, Plan, Recipe, prepare, units
from mats_core.tasks import SplitName

from .questions import ASKED
from .trials import TEST_ASKED, Bench, Trial, scores

Encoder = Mapping[str, Tensor]
DAMPINGS = (0.01, 0.03)
FOLDED = {"fold_bias": True, "remaining": "fisher"}


def walk(bench: Bench, report: Callable[[str], None] = print) -> None:
    """Run every step and keep it under `way` in the store."""
    steps: list[dict[str, Any]] = []
    for label, encoder in _steps(Walker(bench)):
        step: dict[str, Any] = {"label": label}
        for split, asked in (("validation", ASKED), ("test", TEST_ASKED)):
            step[split] = score(bench, encoder, split, asked)  # type: ignore[arg-type]
        steps.append(step)
        report(f"{label}: {100 * step['test']['normalised']:.2f}")
        bench.store.content["way"] = steps
        bench.store.save()


def _steps(walker: Walker) -> Iterator[tuple[str, Encoder]]:
    tsv = walker.merge("tsv_m", {})
    yield "TSV-M, defaults", tsv
    yield "TSV-M, each layer's coefficient by predicted loss", walker.scaled(tsv)
    yield "K-FAC, defaults", walker.merge("kfac", {})
    yield "+ biases folded in", walker.merge("kfac", {"fold_bias": True})
    yield "+ LayerNorms and embeddings by their Fisher", walker.merge("kfac", FOLDED)
    damping, first = walker.best(FOLDED)
    yield f"+ damping {damping:g}, searched", first
    again = walker.measured_at(first, "empirical")
    damping, second = walker.best(FOLDED, again)
    yield f"+ second round, labels of the data (damping {damping:g})", second
    sampled = walker.measured_at(first, "true")
    damping, third = walker.best(FOLDED, sampled)
    yield f"or with sampled labels (damping {damping:g})", third
    both = rounds.mean_of([walker.inputs, sampled])
    damping, middle = walker.best(FOLDED, both)
    yield f"or the mean of both rounds' statistics (damping {damping:g})", middle
    more = rounds.mean_of([sampled, walker.measured_at(third, "true")])
    damping, last = walker.best(FOLDED, more)
    yield f"+ third round, mean of the last two (damping {damping:g})", last


class Walker:
    """Merges over one family's statistics, and over those of further rounds."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.inputs = bench.inputs(Trial("kfac"))

    def recipe(self, method: str, options: Mapping[str, Any]) -> Recipe:
        plain = self.bench.recipe(Trial(method, options))
        return plain.model_copy(update={"evaluate": False})

    def merge(
        self, method: str, options: Mapping[str, Any], inputs: Inputs | None = None
    ) -> Encoder:
        return self.bench.merged(Trial(method, options), inputs or self.inputs)

    def best(
        self, options: Mapping[str, Any], inputs: Inputs | None = None
    ) -> tuple[float, Encoder]:
        """K-FAC with the damping that does best on validation data."""
        found = [
            (damping, self.merge("kfac", {**options, "damping": damping}, inputs))
            for damping in DAMPINGS
        ]
        return max(
            found,
            key=lambda pair: score(self.bench, pair[1], "validation", ASKED)["normalised"],
        )

    def measured_at(self, encoder: Encoder, labels: Any) -> Inputs:
        folder = self.bench.collection.folder
        return rounds.measured_at(self.inputs, encoder, folder, labels=labels)

    def scaled(self, encoder: Encoder) -> Encoder:
        """Every matrix's update times the coefficient that the predicted loss likes best."""
        plan = prepare(self.recipe("kfac", {}), self.inputs)
        return {**encoder, **dict(_scaled(plan, encoder))}


def _scaled(plan: Plan, encoder: Encoder) -> Iterator[tuple[str, Tensor]]:
    for unit in units(plan):
        layer = read_layer(plan, unit)
        factor = coefficient(layer, encoder[unit.name].float() - layer.base)
        if factor is not None:
            yield unit.name, layer.base + factor * (encoder[unit.name].float() - layer.base)


def coefficient(layer: Layer, update: Tensor) -> float | None:
    """argmin_s Σ α_m ½ (s Δ − Δ_m)ᵀ C_m (s Δ − Δ_m) = Σ α_m ⟨Δ, C_m Δ_m⟩ / Σ α_m ⟨Δ, C_m Δ⟩."""
    inputs, outputs = layer.measured("input_gram"), layer.measured("output_gradient_gram")
    if not layer.is_matrix or inputs is None or outputs is None:
        return None
    blocks = [
        regularised(Kronecker(b, a), damping=0.1, normalise=True)
        for b, a in zip(outputs, inputs, strict=True)
    ]
    pulled = weighted_sum(
        (block.apply(own) for block, own in zip(blocks, layer.updates, strict=True)), layer.shares
    )
    bent = float((update * WeightedSum(tuple(blocks), layer.shares).apply(update)).sum())
    return float((update * pulled).sum()) / bent if bent > 0 else None


def score(bench: Bench, encoder: Encoder, split: SplitName, asked: int | None) -> dict[str, Any]:
    """What an encoder reaches on every task, with the experts' heads."""
    settings = Evaluation(split=split, examples=asked)
    family = bench.inputs(Trial("kfac")).family
    exam = examiner.exam(
        family, bench.collection.folder, settings.split, settings.examples, bench.device
    )
    return scores(list(exam.take(encoder))[-1].results)
