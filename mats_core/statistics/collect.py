"""One forward and backward pass of a model, and everything the methods need out of it.

Hooks note what each layer saw (`capture.py`), `accumulate.py` sums it up.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import IGNORED
from ..models import batches as loading
from ..system import Event, drained
from . import ia3
from .accumulate import Accumulator
from .capture import Capture, eager
from .settings import DEFAULT, Labels, MeasureSettings
from .store import FORMAT, Statistics

MASKS = ("attention_mask", "decoder_attention_mask")
Batch = tuple[Mapping[str, Tensor], Tensor | None]  # the model's keyword arguments, labels (n,)


@dataclass(frozen=True)
class BatchDone(Event):
    """An event: one batch more is measured, which makes `examples` of them in all."""

    examples: int


Steps = Generator[BatchDone, None, Statistics]


@dataclass(frozen=True)
class Likelihood:
    """What a model says that gives no logits: the log-likelihood of a batch, summed (scalar)."""

    total: Tensor


def _masks(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What an encoder and its decoder read; told apart by their widths."""
    found = [inputs[name] for name in MASKS if name in inputs]
    if len({mask.shape[1] for mask in found}) < len(found):
        raise InputError(
            " and ".join(MASKS),
            expected="different widths, by which layers are told apart",
            found=f"{found[0].shape[1]} both times",
            remedy="Pad the decoder's tokens by one position.",
        )
    return found


def measuring(
    model: nn.Module,
    batches: Iterable[Batch],
    settings: MeasureSettings = DEFAULT,
    *,
    names: Mapping[str, str] | None = None,
    vectors: Mapping[str, ia3.Rescaled] | None = None,
    metadata: Mapping[str, str] | None = None,
    total: int | None = None,
) -> Steps:
    """Statistics of a model from one forward and backward pass a batch, an event after each.

    `batches`: keyword arguments of the model (an `attention_mask` (n, tokens) leaves padding out)
    and labels: classes (n,), or the token that the logits of a position should name (n, tokens),
    with `IGNORED` at positions that are left out.  `names`: the checkpoint's name of each
    parameter, by the module's; the same names by default.  `vectors`: layers with an (IA)³ vector
    multiplied in, whose full block is always measured.  `total`: number of examples, for the
    events' fraction.  Raises `InputError` for an empty calibration set or a loss that is not
    finite.
    """
    own = {name: name for name, _ in model.named_parameters()} if names is None else names
    accumulator = Accumulator(model, own, settings, vectors)
    sampler = np.random.default_rng(settings.seed)
    with loading.evaluating(model):
        for inputs, truth in batches:
            examples = len(next(iter(inputs.values())))
            with Capture(model, examples, _masks(inputs)) as capture, torch.enable_grad():
                with eager(model):
                    output = model(**inputs)
                likelihood = _likelihood(output, truth, settings.labels, sampler)
                if not torch.isfinite(likelihood):
                    raise InputError("log-likelihood", expected="a finite number", found="none")
                _require_gradient(model, likelihood)
                likelihood.backward()
            accumulator.add(capture)
            yield _batch_done(accumulator.examples, total)
    if not accumulator.examples:
        raise InputError("calibration set", expected="at least one example", found="none")
    description = {
        "format": FORMAT,
        "examples": str(accumulator.examples),
        "tokens": str(max(accumulator.tokens.values(), default=accumulator.examples)),
        "seed": str(settings.seed),
        "labels": settings.labels,
        **({"rank": str(settings.rank)} if settings.rank else {}),
        **(metadata or {}),
    }
    return Statistics.of(accumulator.means(), description)


measure = drained(measuring)


def _batch_done(examples: int, total: int | None) -> BatchDone:
    of, fraction = (f" of {total}", examples / max(1, total)) if total is not None else ("", 0.0)
    text = f"Measuring statistics: example {examples}{of}"
    return BatchDone(examples, fraction=min(1.0, fraction), text=text)


def _require_gradient(model: nn.Module, likelihood: Tensor) -> None:
    if not likelihood.requires_grad:
        raise InputError(
            f"model '{type(model).__name__}'",
            expected="a linear layer, convolution, embedding or norm that its forward pass calls",
            found="none",
            remedy="Weights that are used without calling their module are not seen.",
        )


def _likelihood(
    output: Any, truth: Tensor | None, labels: Labels, sampler: np.random.Generator
) -> Tensor:
    """The log-likelihood of a batch's labels, summed over its examples."""
    if isinstance(output, Likelihood):
        return output.total
    logits = output.logits if hasattr(output, "logits") else output
    if truth is not None and truth.ndim == 2:  # tokens: those that are asked for
        asked = truth != IGNORED
        logits, truth = logits[asked], truth[asked]
    scores = torch.log_softmax(logits, -1)
    if labels == "true":
        truth = sampled(scores, sampler)
    elif truth is None:
        raise InputError("labels", expected="true labels", found="none", remedy="Use 'true'.")
    return scores.gather(1, truth.to(scores.device)[:, None]).sum()


def sampled(scores: Tensor, sampler: np.random.Generator) -> Tensor:
    """A class drawn from each row of log-probabilities (n, classes)."""
    # One uniform number a row, in order: the draw does not depend on the batch size.
    uniform = torch.from_numpy(sampler.random(len(scores))).to(scores.device)
    cumulative = scores.detach().double().exp().cumsum(-1)
    chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).squeeze(1)
    return chosen.clamp_max(scores.shape[-1] - 1)
