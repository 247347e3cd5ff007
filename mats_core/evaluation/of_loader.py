"""The accuracy of any module on the batches of a loader."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import IGNORED, batches
from ..system import Event, drained
from . import scores
from .scores import NOT_ASKED, Score


def scoring_loader(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    examples: int | None = None,
    device: torch.device | str | None = None,
) -> Generator[Event, None, Score]:
    """The accuracy of a classifier on batches `(x, y)`, or mappings with `labels`; an event after
    each.

    The model is asked in evaluation mode and left as it was.  `examples`: at most so many.  An
    example with the label -100 is not asked, and a warning counts them.  Raises `InputError` for an
    empty loader, and for batches, labels or models of another form.
    """
    answers: list[str] = []
    said: list[int | None] = []
    total = batches.expected(loader, examples)
    with batches.evaluating(model), batches.on_device(model, device) as place:
        for plain in batches.first(loader, examples):
            labels, chosen = _asked(model, place.moved(plain))
            for truth, answer in zip(labels, chosen, strict=True):
                known = truth != IGNORED
                said.append(answer if known else None)
                answers.append("01"[answer == truth] if known else NOT_ASKED)
            yield Event(**batches.progress("Testing", len(said), total))
    count = len(answers) - answers.count(NOT_ASKED)
    if not count:
        found = f"{len(answers)}, all with the label {IGNORED}" if answers else "none"
        raise InputError("examples to evaluate on", expected="at least one", found=found)
    if count < len(answers):
        warnings.warn(
            f"{len(answers) - count} of {len(answers)} examples have the label {IGNORED}, which "
            "leaves them out",
            stacklevel=2,
        )
    return Score(answers.count("1"), count, "".join(answers), said=tuple(said))


score_of_loader = drained(scoring_loader)


@torch.inference_mode()  # of a batch alone: what is said in between would leave it switched on
def _asked(model: nn.Module, batch: Any) -> tuple[list[int], list[int]]:
    """The labels of a batch, and the classes that the model chooses."""
    inputs, truth = batches.split(batch, needs_labels=True)
    logits = batches.logits(batches.called(model, batch, inputs))
    return _classes(truth, logits).tolist(), scores.chosen(logits).tolist()


def _classes(truth: Any, logits: Tensor) -> Tensor:
    """Labels (n,): class numbers among the logits' (n, classes), or -100."""
    plain = isinstance(truth, Tensor) and not truth.is_floating_point()
    if plain and truth.ndim == 2 and truth.shape[1] == 1:
        truth = truth[:, 0]
    if not plain or logits.ndim != 2 or truth.shape != logits.shape[:1]:
        found = f"{truth.dtype} {list(truth.shape)}" if isinstance(truth, Tensor) else f"{truth}"
        places = list(logits.shape[:-1])
        raise InputError(
            "labels of a batch",
            expected=f"class numbers {places}",
            found=found if logits.ndim == 2 else f"{found} for logits {list(logits.shape)}",
        )
    truth = truth.long()
    batches.require_classes(truth, logits.shape[-1], "an example")
    return truth
