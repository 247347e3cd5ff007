"""Statistics of a checkpoint on seeded draws from its task's train split."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .. import models
from ..checkpoints import Tensors, Weights
from ..models import Rows
from ..system import existing_device, watched
from ..tasks import Split, Task
from . import ia3
from .collect import Steps, measuring
from .likelihood import sampled
from .settings import MeasureSettings
from .store import Statistics
from .verify import Batch


def measuring_task(
    checkpoint: Weights,
    task: Task,
    settings: MeasureSettings,
    *,
    tensors: Tensors | None = None,
    only: Container[str] | None = None,
) -> Steps:
    """Statistics of a checkpoint directory on seeded draws from its task's train split.

    An event after each batch.  `tensors` replace the checkpoint's: a merge with this checkpoint's
    head is measured so.  `only`: parameters, by the checkpoint's names; all by default
    (`passes.py` has the reason).
    """
    asking = models.check(checkpoint, task)
    task = asking.task
    for note in asking.notes if tensors is None else ():  # of a merge the exam tells them
        warnings.warn(note, stacklevel=2)
    directory, labels, dtype = checkpoint.directory, settings.labels, settings.dtype
    device = existing_device(settings.device or "cpu")
    if tensors is None:
        tensors = models.tensors_of(checkpoint, dtype)
    model = models.build(directory, tensors, device=device, dtype=dtype)
    chosen = drawn(task.train, settings)
    rows, places = _encoded(checkpoint, chosen, settings, tensors)
    given = chosen.labels
    if task.form.kind == "choices" and labels == "true":
        # An answer drawn from all of them; its tokens are then as good as true ones.
        given = given.copy()
        given[places] = _drawn_answers(model, rows, chosen, places, settings.seed)
        settings = replace(settings, labels="empirical")

    def batch_of(some: np.ndarray) -> Batch:
        batch = rows.batch(some, given[some] if task.form.kind == "choices" else None)
        classes = torch.from_numpy(chosen.labels[some])
        return batch.inputs, classes if batch.targets is None else batch.targets

    here = places  # of the batch that is measured

    def batches() -> Iterable[Batch]:
        nonlocal here
        for start in range(0, len(places), settings.batch_size):
            here = places[start : start + settings.batch_size]
            yield batch_of(here)

    @contextlib.contextmanager
    def taking(some: Sequence[int]) -> Iterator[Batch]:
        """Examples of the batch, with no more padding than they need."""
        yield batch_of(here[list(some)])

    named = models.parameter_names(directory, tensors).items()
    return (
        yield from measuring(
            model,
            batches(),
            settings,
            names={own: name for own, name in named if only is None or name in only},
            vectors=ia3.rescaled_layers(checkpoint, dtype=dtype, device=device),
            metadata={"fingerprint": checkpoint.fingerprint, "task": task.name, "labels": labels},
            total=len(places),
            taking=taking,
        )
    )


def drawn(split: Split, settings: MeasureSettings) -> Split:
    """The examples of a split that statistics with these settings are measured on."""
    return split.take(drawn_rows(len(split), settings.examples, settings.seed))


def drawn_rows(there: int, count: int | None, seed: int) -> np.ndarray:
    """(n,): a seeded draw of at most `count` of so many examples; of all by None."""
    return np.random.default_rng(seed).permutation(there)[:count]


def _encoded(
    checkpoint: Weights, chosen: Split, settings: MeasureSettings, tensors: Tensors
) -> tuple[Rows, np.ndarray]:
    """Examples as a model with these tensors takes them, and the order of their batches."""
    place = {"device": existing_device(settings.device or "cpu"), "dtype": settings.dtype}
    shapes = models.shapes_of(tensors)
    rows = models.encode(chosen, checkpoint.directory, **place, shapes=shapes)
    # Texts of like length side by side; of images nothing moves.
    return rows, np.argsort(-rows.lengths, kind="stable")


def batches_of(
    checkpoint: Weights, chosen: Split, settings: MeasureSettings, tensors: Tensors
) -> Iterator[tuple[np.ndarray, Mapping[str, Tensor]]]:
    """(places, inputs) of batches of all examples: what a model with these tensors is called with,
    without labels, and which examples they are."""
    rows, order = _encoded(checkpoint, chosen, settings, tensors)
    for at in range(0, len(order), settings.batch_size):
        places = order[at : at + settings.batch_size]
        yield places, rows.batch(places).inputs


def measure_task(
    checkpoint: Weights,
    task: Task,
    *,
    tensors: Tensors | None = None,
    only: Container[str] | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> Statistics:
    """Statistics of a checkpoint directory on seeded draws from its task's train split.

    `settings`: `examples`, `labels`, `seed` and the other fields of `MeasureSettings`.  `tensors`
    replace the checkpoint's.  `only`: parameters, by the checkpoint's names; all by default.
    `progress`: whether a bar is shown; by default in notebooks and terminals.
    """
    how = MeasureSettings(**settings)
    return watched(measuring_task(checkpoint, task, how, tensors=tensors, only=only), progress)


def _drawn_answers(
    model: nn.Module, rows: Rows, split: Split, places: np.ndarray, seed: int
) -> np.ndarray:
    """For each example one answer, drawn by the model's own probabilities of all of them."""
    with torch.inference_mode():
        scores = models.ask(lambda inputs: model(**inputs).logits, rows, split, places)
    drawn = sampled(scores.log_softmax(-1), np.random.default_rng(seed))
    return drawn.cpu().numpy()
