"""One forward and backward pass of a model, and everything the methods need out of it.

Hooks note what each layer saw (`capture.py`), `layers.py` makes statistics of it, `accumulate.py`
sums them up.  Of the first batch two examples are compared with each alone (`verify.py`); what does
not agree is measured example by example.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, listing
from ..models import batches as loading
from ..system import Event, drained
from . import ia3
from .accumulate import Accumulator
from .capture import Capture, handled
from .layers import Layers
from .likelihood import Scores, asked, require_finite
from .settings import DEFAULT, MeasureSettings
from .store import FORMAT, Statistics
from .verify import (
    Batch,
    Taking,
    Verdict,
    Verification,
    is_padded,
    masks_of,
    rows_to_verify,
    single,
    tolerance,
)


@dataclass(frozen=True)
class BatchDone(Event):
    """An event: one batch more is measured, which makes `examples` of them in all."""

    examples: int


Steps = Generator[BatchDone, None, Statistics]


def measuring(
    model: nn.Module,
    batches: Iterable[Batch],
    settings: MeasureSettings = DEFAULT,
    *,
    names: Mapping[str, str] | None = None,
    vectors: Mapping[str, ia3.Rescaled] | None = None,
    metadata: Mapping[str, str] | None = None,
    total: int | None = None,
    taking: Taking | None = None,
) -> Steps:
    """Statistics of a model from one forward and backward pass a batch, an event after each.

    `batches`: keyword arguments of the model (an `attention_mask` (n, tokens) leaves padding out)
    and labels: classes (n,), or the token that the logits of a position should name (n, tokens),
    with `IGNORED` at positions that are left out.  `names`: the checkpoint's name of each
    parameter, by the module's; the same names by default.  `vectors`: layers with an (IA)³ vector
    multiplied in, whose full block is always measured.  `total`: number of examples, for the
    events' fraction.  `taking`: a context with some rows of the last batch by themselves; slices of
    it by default.  Raises `InputError` for an empty calibration set, a loss that is not finite or
    no sum over the examples.
    """
    own = {name: name for name, _ in model.named_parameters()} if names is None else names
    measurement = _Measurement(model, Layers(model, own, vectors), settings)
    accumulator = measurement.accumulator
    with loading.evaluating(model), _unchanged(model):
        for inputs, truth in batches:
            measurement.add(inputs, truth, taking or partial(_taken, inputs, truth))
            done = loading.progress("Measuring statistics", accumulator.examples, total)
            yield BatchDone(accumulator.examples, **done)
    if not accumulator.examples:
        raise InputError("calibration set", expected="at least one example", found="none")
    description = {
        "format": FORMAT,
        "examples": str(accumulator.examples),
        "tokens": str(max(accumulator.tokens.values(), default=accumulator.examples)),
        "seed": str(settings.seed),
        "labels": settings.labels,
        **({"rank": str(settings.rank)} if settings.rank else {}),
        **measurement.notes(),
        **(metadata or {}),
    }
    return Statistics.of(accumulator.means(), description)


measure = drained(measuring)


@contextlib.contextmanager
def _taken(
    inputs: Mapping[str, Tensor], truth: Tensor | None, rows: Sequence[int]
) -> Iterator[Batch]:
    """Some examples of a batch."""
    count = len(next(iter(inputs.values())))
    own = {name: loading.rows(value, rows, count) for name, value in inputs.items()}
    yield own, None if truth is None else loading.rows(truth, rows, count)


@contextlib.contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """A context that leaves tables with a `max_norm`, which change when they are read, as they are.

    They are changed once before, so that every pass sees the same.
    """
    tables = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.max_norm is not None]
    before = [table.weight.detach().clone() for table in tables]
    try:
        yield
    finally:
        for table, weight in zip(tables, before, strict=True):
            with torch.no_grad():
                table.weight.copy_(weight)


class _Measurement:
    """The batches of one measuring, each by hooks, by single examples, or by both."""

    def __init__(self, model: nn.Module, layers: Layers, settings: MeasureSettings) -> None:
        self.model, self.layers, self.settings = model, layers, settings
        self.accumulator = Accumulator(layers, settings)
        self.sampler = np.random.default_rng(settings.seed)
        self.verdict = Verdict()
        self.verified: set[object] = set()  # how many examples were compared, and of what kind
        self.slow: set[str] = set()  # parameters that were measured example by example

    def add(self, inputs: Mapping[str, Tensor], truth: Tensor | None, taking: Taking) -> None:
        """Add one batch."""
        examples = len(next(iter(inputs.values())))
        rows = rows_to_verify(inputs, truth)
        seen = {len(rows), *(["padding"] if is_padded(inputs) else [])}
        if rows and not self.verdict.unverified and not seen <= self.verified:
            found = Verification(self.model, self.layers, taking).verdict(rows)
            self.verdict = found.after(self.verdict)
            self.verified |= seen | {1}
        verdict, labels = self.verdict, None
        layers, parameters = set(), set(verdict.singly)
        if verdict.trusted or verdict.silent or verdict.copied or not parameters:
            capture, labels = self._together(inputs, truth, examples)
            layers = self._refused(capture)
            for owner in (*capture.uses, *capture.left):
                if self.layers.of(owner) in layers:
                    parameters |= self.layers.parameters(owner)
            parameters |= self.accumulator.copies(capture, verdict.copied)
        self.accumulator.examples += examples
        if verdict.unverified:
            self._leave(parameters)
        elif parameters:
            self._apart(examples, labels, parameters, layers, taking)

    def _together(
        self, inputs: Mapping[str, Tensor], truth: Tensor | None, examples: int
    ) -> tuple[Capture, list[Tensor] | None]:
        """What hooks note of a whole batch, and the labels of each example."""
        masks, follow = masks_of(inputs), self.verdict.follow
        with Capture(self.model, examples, masks, follow=follow) as capture, torch.enable_grad():
            total, labels = asked(self.model, inputs, truth, self._drawn)
            require_finite(total)
            _require_gradient(self.model, total)
            total.backward()
        return capture, labels

    def _drawn(self, said: Scores) -> list[Tensor]:
        return list(said.drawn(self.settings.labels, self.sampler).split(said.places))

    def _refused(self, capture: Capture) -> set[str]:
        """The layers of which this batch, which is added, does not give the statistics."""
        verdict, silent = self.verdict, self._silent(capture)
        used = {self.layers.of(owner) for owner in (*capture.uses, *capture.left)}
        trusted = verdict.trusted | (silent & used)
        return (used - trusted) | self.accumulator.batch(capture, trusted)

    def _silent(self, capture: Capture) -> set[str]:
        """Layers without a gradient when they were compared that have none in this batch."""
        return {
            name
            for name, owners in self.layers.used(capture).items()
            if name in self.verdict.silent
            and not any(bool(g.any()) for owner in owners for _, g in capture.uses[owner])
        }

    def _apart(
        self,
        examples: int,
        labels: list[Tensor] | None,
        parameters: set[str],
        layers: set[str],
        taking: Taking,
    ) -> None:
        """Add these parameters, and these layers and those that are not trusted, by examples."""
        self.slow |= parameters
        trusted = (self.verdict.trusted | self.verdict.silent) - layers
        owners = [
            name
            for name, module in self.layers.modules.items()
            if handled(name, module)
            and self.layers.of(name) not in trusted
            and self.layers.parameters(name) & parameters
        ]
        for row in range(examples):
            gradients: dict[str, Tensor] = {}

            def choose(said: Scores, row: int = row) -> list[Tensor]:
                return self._drawn(said) if labels is None else [labels[row]]

            take: Callable[[str, Tensor], None] = gradients.__setitem__
            one, _ = single(self.model, taking, row, parameters, owners, take, choose)
            self.accumulator.alone(one, gradients, tolerance(self.model))

    def _leave(self, parameters: set[str]) -> None:
        """Leave parameters out that a batch did not give, where single examples cannot be asked."""
        for parameter in parameters:
            self.accumulator.gone.add(own := self.layers.names[parameter])
            if own in self.layers.vectors:
                self.accumulator.gone.add(self.layers.vectors[own].vector)

    def notes(self) -> dict[str, str]:
        """What is to be told about a measuring: `notes` and `left_out`, a sentence a line."""
        names, found = self.layers.names, {}
        if self.slow:
            slow = sorted(names[own] for own in self.slow)
            found["notes"] = (
                "measured example by example, for batches give other numbers or none: "
                f"{listing(slow, 4)}"
            )
        gone = sorted(name.removesuffix(".") for name in self.accumulator.gone)
        if self.verdict.unverified:
            left = f"; no statistics of {listing(gone, 4)}" if gone else ""
            found["left_out"] = (
                "statistics were not compared with those of single examples: "
                f"{self.verdict.unverified}{left}"
            )
        elif gone:
            found["left_out"] = (
                f"no Grams of {listing(gone, 4)}: what the layer sees does not give the gradient "
                "of its weight"
            )
        return found


def _require_gradient(model: nn.Module, likelihood: Tensor) -> None:
    if not likelihood.requires_grad:
        raise InputError(
            f"model '{type(model).__name__}'",
            expected="parameters that its forward pass uses",
            found="none",
            remedy="The log-likelihood does not depend on any of them.",
        )
