"""Accuracy of any module on the batches of a loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import batches
from .scores import Score


def score_of_loader(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    examples: int | None = None,
    device: torch.device | str | None = None,
) -> Score:
    """The accuracy of a classifier on batches `(x, y)`, or mappings with `labels`.

    The model is asked in evaluation mode and left as it was.  `examples`: at most so many.  Raises
    `InputError` for an empty loader, and for batches or models of another form.
    """
    answers: list[str] = []
    said: list[int] = []
    with (
        batches.evaluating(model),
        batches.on_device(model, device) as place,
        torch.inference_mode(),
    ):
        for plain in batches.first(loader, examples):
            batch = place.moved(plain)
            inputs, truth = batches.split(batch, needs_labels=True)
            chosen = batches.logits(batches.called(model, batch, inputs)).argmax(-1)
            said += chosen.tolist()
            answers += ["01"[right] for right in (chosen == _classes(truth, chosen)).tolist()]
    if not answers:
        raise InputError("examples to evaluate on", expected="at least one", found="none")
    return Score(answers.count("1"), len(answers), "".join(answers), said=tuple(said))


def _classes(truth: Any, chosen: Tensor) -> Tensor:
    if not isinstance(truth, Tensor) or truth.is_floating_point() or truth.shape != chosen.shape:
        found = f"{truth.dtype} {list(truth.shape)}" if isinstance(truth, Tensor) else f"{truth}"
        raise InputError(
            "labels of a batch", expected=f"class numbers {list(chosen.shape)}", found=found
        )
    return truth
