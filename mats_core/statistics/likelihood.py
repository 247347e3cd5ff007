"""What a model says about a batch's labels: a log-likelihood, summed over its examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import IGNORED
from .capture import eager
from .settings import Labels


@dataclass(frozen=True)
class Likelihood:
    """What a model says that gives no logits: the log-likelihood of a batch, summed (scalar)."""

    total: Tensor


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of the classes at every place that is asked for.

    rows    (places, classes), the examples one after the other
    given   (places,), the labels that came with them, where they did
    places  of each example
    """

    rows: Tensor
    given: Tensor | None
    places: list[int]

    def drawn(self, labels: Labels, sampler: np.random.Generator) -> Tensor:
        """The labels (places,) that the likelihood is of."""
        if labels == "true":
            return sampled(self.rows, sampler)
        if self.given is None:
            raise InputError("labels", expected="true labels", found="none", remedy="Use 'true'.")
        return self.given

    def unlikely(self) -> list[Tensor]:
        """Labels of each example that the model does not expect: no gradient is near zero."""
        labels = (self.rows.detach().argmax(-1) + 1) % self.rows.shape[-1]
        return list(labels.split(self.places))

    def of(self, labels: Tensor) -> Tensor:
        """The log-likelihood of labels (places,)."""
        return self.rows.gather(1, labels.to(self.rows.device)[:, None]).sum()


Choose = Callable[[Scores], list[Tensor]]  # the labels of each example


def scored(output: Any, truth: Tensor | None) -> Likelihood | Scores:
    """The scores in a model's output: of classes, labels (n,); or of tokens, labels (n, tokens)."""
    if isinstance(output, Likelihood):
        return output
    logits = output.logits if hasattr(output, "logits") else output
    if truth is None or truth.ndim < 2:
        return Scores(torch.log_softmax(logits, -1), truth, [1] * len(logits))
    asked = truth != IGNORED
    places = asked.sum(1).tolist()
    return Scores(torch.log_softmax(logits[asked], -1), truth[asked], places)


def asked(
    model: nn.Module, inputs: Mapping[str, Tensor], truth: Tensor | None, choose: Choose
) -> tuple[Tensor, list[Tensor] | None]:
    """The log-likelihood of each example's labels, summed (scalar), and these labels.

    `choose` says the labels of each example; a model without logits says its own likelihood.
    """
    with eager(model):
        said = scored(model(**inputs), truth)
    if isinstance(said, Likelihood):
        return said.total, None
    labels = choose(said)
    return said.of(torch.cat(labels)), labels


def require_finite(total: Tensor) -> None:
    """Raise `InputError` for a likelihood that has no gradients."""
    if not torch.isfinite(total):
        raise InputError("log-likelihood", expected="a finite number", found="none")


def sampled(scores: Tensor, sampler: np.random.Generator) -> Tensor:
    """A class drawn from each row of log-probabilities (n, classes)."""
    # One uniform number a row, in order: the draw does not depend on the batch size.
    uniform = torch.from_numpy(sampler.random(len(scores))).to(scores.device)
    cumulative = scores.detach().double().exp().cumsum(-1)
    chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).squeeze(1)
    return chosen.clamp_max(scores.shape[-1] - 1)
