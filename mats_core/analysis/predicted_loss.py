"""What the statistics predict that a merge costs each expert, beside what it really costs.

An expert is near a minimum of its loss, so moving its weights to the merged ones costs, to
second order and layer by layer,

    ½ (W − W_m) · C_m (W − W_m)   nats an example,   C_m = n B_m ⊗ A_m,

with n tokens an example: A and B are means over tokens, an example's gradient is a sum over them,
and tokens count as independent ("expand" in arXiv 2311.00636).  Layers are taken one at a time and
only those with statistics count, and empirical statistics of an expert that fits its examples well
are small: it is a forecast of who suffers and where, not of the amount.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .. import models, tasks
from ..errors import InputError
from ..evaluation import evaluate
from ..families import Expert, Family
from ..merging import run
from ..names import bias_of, module_of
from ..recipes import Inputs, Recipe, open_inputs
from ..statistics import Statistics, with_bias
from ..system import Event, drained, part, recall
from ..tasks import Split, SplitName
from .correlation import Correlation, correlate
from .spectra import predicted_loss

MERGED, PREDICTED = 0.4, 0.6  # of the whole, when these are done


@dataclass(frozen=True)
class Interference:
    """Predicted and measured cost of one merge.

    layers     names of the weights
    tasks      names of the experts
    predicted  (layers, tasks), nats an example; NaN where an expert has no statistics
    measured   (tasks,), mean cross-entropy of the merge minus the expert's, nats; NaN unknown
    errors     (tasks,), standard error of `measured` over the examples
    split      that was measured on, and
    examples   at most so many of it a task
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    predicted: np.ndarray
    measured: np.ndarray
    errors: np.ndarray
    split: str
    examples: int | None

    @property
    def totals(self) -> np.ndarray:
        """The predicted cost summed over layers (tasks,); NaN for an expert without statistics."""
        known = ~np.isnan(self.predicted).all(0)
        return np.where(known, np.nansum(self.predicted, 0), np.nan)

    @property
    def correlation(self) -> Correlation | None:
        """The rank correlation of predicted and measured cost over tasks; None for fewer than
        three."""
        return correlate(self.totals.tolist(), self.measured.tolist())

    @property
    def rank_correlation(self) -> float | None:
        """Its value alone, Spearman's ρ."""
        return self.correlation.value if self.correlation else None


def predicting(
    recipe: Recipe,
    *,
    inputs: Inputs | None = None,
    split: SplitName = "validation",
    examples: int | None = 400,
) -> Generator[Event, None, Interference]:
    """The predicted cost of every layer beside the measured loss; merges again, writes nothing.

    An event between all parts.  Raises `InputError` where no expert has the two Grams that the
    prediction needs.
    """
    inputs = inputs or open_inputs(recipe)
    layers = measured_layers(inputs)
    if not layers:
        raise InputError(
            "predicted loss",
            expected="statistics with input and output-gradient Grams",
            found="none",
            remedy="Measure the experts of this family on their tasks.",
        )
    still = {"evaluate": False, "output": None, "search": None, "keep_sums": False}
    # Of branches the prediction knows nothing.
    silent = recipe.model_copy(update={**still, "routed": None})
    merge = run(silent, inputs=inputs)
    merged = (yield from part(merge, 0.0, MERGED, "Once more: {}")).tensors
    predicted = np.full((len(layers), len(inputs.family.experts)), np.nan)
    for row, name in enumerate(layers):
        fraction = MERGED + (PREDICTED - MERGED) * row / len(layers)
        yield Event(fraction=fraction, text=f"Predicting the loss in layer {row + 1}")
        predicted[row] = layer_costs(inputs, merged, name)
    measuring = _measure(recipe, inputs.family, merged, split, examples)
    measured, errors = yield from part(measuring, PREDICTED)
    names = tuple(expert.name for expert in inputs.family.experts)
    return Interference(layers, names, predicted, measured, errors, split, examples)


interference = drained(predicting)


# Prediction ---------------------------------------------------------------------------------------


def measured_layers(inputs: Inputs) -> tuple[str, ...]:
    """Weights of which at least one expert has both Grams, in the checkpoint's order."""
    known = [own for own in inputs.statistics if own is not None]
    grams = ("input_gram", "output_gradient_gram")
    return tuple(
        name
        for name, role in inputs.family.roles.items()
        if role == "matrix"
        and all(any(f"{module_of(name)}.{kind}" in own for own in known) for kind in grams)
    )


def layer_costs(inputs: Inputs, merged: Mapping[str, Tensor], name: str) -> list[float]:
    """The predicted cost of one weight (and its bias) for every expert; NaN without statistics."""
    return [
        _cost(inputs.family, expert, own, merged, name) if own is not None else float("nan")
        for expert, own in zip(inputs.family.experts, inputs.statistics, strict=True)
    ]


def _cost(
    family: Family, expert: Expert, own: Statistics, merged: Mapping[str, Tensor], name: str
) -> float:
    module, (d_out, d_in) = module_of(name), family.shape(name)
    a = own.read(f"{module}.input_gram", (d_in, d_in))
    b = own.read(f"{module}.output_gradient_gram", (d_out, d_out))
    if a is None or b is None:
        return float("nan")
    value = family.oriented(name, merged[name].float())
    target = family.weight(expert.checkpoint, name, dtype=torch.float32)
    bias, mean = bias_of(name), own.read(f"{module}.input_mean", (d_in,))
    if mean is not None and bias in family.shared:
        a = with_bias(a, mean)
        value = torch.cat([value, merged[bias].float()[:, None]], 1)
        own_bias = expert.checkpoint.read(bias, dtype=torch.float32)
        target = torch.cat([target, own_bias[:, None]], 1)
    return tokens_an_example(own) * predicted_loss(value, target, a, b)


def tokens_an_example(statistics: Statistics) -> float:
    """Tokens of an example, the n of the module's text; 1 where the file does not say."""
    examples = statistics.metadata.get("examples", "")
    if statistics.tokens is None or not examples.isdigit() or not int(examples):
        return 1.0
    return statistics.tokens / int(examples)


# Measurement --------------------------------------------------------------------------------------


def cross_entropy(
    encoder: Mapping[str, Tensor],
    family: Family,
    expert: Expert,
    split: Split,
    *,
    device: str = "cpu",
) -> np.ndarray:
    """−log p(label) in nats (examples,), of an encoder with one expert's head; of a language task
    the loss of each text."""
    tensors = evaluate.with_head(encoder, family, expert)
    said = evaluate.asked(expert.checkpoint.directory, tensors, split, device=device)
    if not split.form.classified:
        return said[:, 0].double().cpu().numpy()
    labels = torch.from_numpy(split.labels).to(said.device)
    losses = torch.nn.functional.cross_entropy(said, labels, reduction="none")
    return losses.double().cpu().numpy()


def _measure(
    recipe: Recipe,
    family: Family,
    merged: Mapping[str, Tensor],
    split: SplitName,
    examples: int | None,
) -> Generator[Event, None, tuple[np.ndarray, np.ndarray]]:
    measured = np.full(len(family.experts), np.nan)
    errors = np.full(len(family.experts), np.nan)
    for place, expert in enumerate(family.experts):
        fraction = place / len(family.experts)
        yield Event(fraction=fraction, text=f"Measuring the loss on {expert.name}")
        if not expert.can_be_asked:
            continue
        task = tasks.load(expert.task, root=recipe.folder)
        task = evaluate.check_task(expert, task).task
        rows = task.split(split).first(examples)
        key = ("own losses", expert.checkpoint.fingerprint, task.digest, split, examples)
        increase = cross_entropy(merged, family, expert, rows)
        increase = increase - recall(key, functools.partial(_own_losses, family, expert, rows))
        measured[place] = increase.mean()
        errors[place] = increase.std(ddof=1) / len(rows) ** 0.5 if len(rows) > 1 else np.nan
    return measured, errors


def _own_losses(family: Family, expert: Expert, split: Split) -> np.ndarray:
    return cross_entropy(models.tensors_of(expert.checkpoint), family, expert, split)


__all__ = [
    "Interference", "cross_entropy", "interference", "layer_costs", "measured_layers",
    "predicting", "tokens_an_example",
]  # fmt: skip
