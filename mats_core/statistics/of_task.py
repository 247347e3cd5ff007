"""Statistics of a checkpoint on seeded draws from its task's train split."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from .. import models
from ..checkpoints import Weights
from ..models import Rows
from ..system import drained
from ..tasks import Split, Task
from . import ia3
from .collect import Batch, Labels, Steps, _sampled, measuring

EXAMPLES = 256  # a task, where nobody says how many


def measuring_task(
    checkpoint: Weights,
    task: Task,
    *,
    examples: int = EXAMPLES,
    batch_size: int = 64,
    labels: Labels = "empirical",
    seed: int = 0,
    blocks: int = 0,
    rank: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tensors: Mapping[str, Tensor] | None = None,
    only: Container[str] | None = None,
) -> Steps:
    """Statistics of a checkpoint directory on seeded draws from its task's train split.

    An event after each batch.  `tensors` replace the checkpoint's: a merge with this checkpoint's
    head is measured so.  `only`: parameters, by the checkpoint's names; all by default
    (`passes.py` has the reason).
    """
    models.check(checkpoint, task)
    if tensors is None:
        tensors = models.tensors_of(checkpoint, dtype)
    model = models.build(checkpoint.directory, tensors, device=device, dtype=dtype)
    order = np.random.default_rng(seed).permutation(len(task.train))[:examples]
    chosen = task.train.take(order)
    rows = models.encode(chosen, checkpoint.directory, device=device, dtype=dtype)
    # Texts of like length side by side; of images nothing moves.
    places = np.argsort(-rows.lengths, kind="stable")
    given, drawn = chosen.labels, labels
    if task.form.kind == "choices" and labels == "true":
        # An answer drawn from all of them; its tokens are then as good as true ones.
        given, drawn = given.copy(), "empirical"
        given[places] = _drawn_answers(model, rows, chosen, places, seed)

    def batches() -> Iterable[Batch]:
        for start in range(0, len(places), batch_size):
            some = places[start : start + batch_size]
            batch = rows.batch(some, given[some] if task.form.kind == "choices" else None)
            classes = torch.from_numpy(chosen.labels[some])
            yield batch.inputs, classes if batch.targets is None else batch.targets

    return (
        yield from measuring(
            model,
            batches(),
            names={
                own: name
                for own, name in models.parameter_names(checkpoint.directory, tensors).items()
                if only is None or name in only
            },
            labels=drawn,
            seed=seed,
            blocks=blocks,
            rank=rank,
            vectors=ia3.rescaled_layers(checkpoint, dtype=dtype, device=device),
            metadata={"fingerprint": checkpoint.fingerprint, "task": task.name, "labels": labels},
            total=len(places),
        )
    )


measure_task = drained(measuring_task)


def _drawn_answers(
    model: nn.Module, rows: Rows, split: Split, places: np.ndarray, seed: int
) -> np.ndarray:
    """For each example one answer, drawn by the model's own probabilities of all of them."""
    with torch.inference_mode():
        scores = models.ask(lambda inputs: model(**inputs).logits, rows, split, places)
    drawn = _sampled(scores.log_softmax(-1), np.random.default_rng(seed))
    return drawn.cpu().numpy()
