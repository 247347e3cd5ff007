"""Accuracy of any module on the batches of a loader."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import IGNORED, batches
from . import scores
from .scores import NOT_ASKED, Score


def score_of_loader(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    examples: int | None = None,
    device: torch.device | str | None = None,
) -> Score:
    """The accuracy of a classifier on batches `(x, y)`, or mappings with `labels`.

    The model is asked in evaluation mode and left as it was.  `examples`: at most so many.  An
    example with the label -100 is not asked, and a warning counts them.  Raises `InputError` for an
    empty loader, and for batches, labels or models of another form.
    """
    answers: list[str] = []
    said: list[int | None] = []
    with (
        batches.evaluating(model),
        batches.on_device(model, device) as place,
        torch.inference_mode(),
    ):
        for plain in batches.first(loader, examples):
            batch = place.moved(plain)
            inputs, truth = batches.split(batch, needs_labels=True)
            logits = batches.logits(batches.called(model, batch, inputs))
            labels, chosen = _classes(truth, logits), scores.chosen(logits)
            asked = (labels != IGNORED).tolist()
            right = (chosen == labels).tolist()
            said += [k if known else None for k, known in zip(chosen.tolist(), asked, strict=True)]
            pairs = zip(right, asked, strict=True)
            answers += ["01"[correct] if known else NOT_ASKED for correct, known in pairs]
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
