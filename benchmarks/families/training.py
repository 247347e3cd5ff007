"""The loop that trains a base or an expert: warm-up, a cosine to zero.

Runs are deterministic on one machine: one thread a process, fixed seeds, order from numpy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

Inputs = Mapping[str, Tensor]
Progress = Callable[[int, float], None]


def prepare(seed: int) -> None:
    """One thread, fixed seed, deterministic kernels, no progress bars."""
    from transformers.utils import logging

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def train(
    model: nn.Module,
    batches: Iterable[tuple[Inputs, Tensor]],
    optimisers: Sequence[torch.optim.Optimizer],
    *,
    steps: int,
    smoothing: float = 0.0,
    alike: Tensor | None = None,
    progress: Progress | None = None,
) -> None:
    """`steps` on `batches` of (the model's inputs, labels).

    `optimisers` say which parameters move, and their peak `lr`; the others stay as they are.
    `alike` (classes, classes): which classes share a head with each class; the softmax of an
    example runs over those of its label only.  Dropout is off: these runs are far too short to
    overfit by much, and without it one pass is cheaper and needs no random numbers.
    """
    model.requires_grad_(False)
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    peaks = [group["lr"] for group in groups]
    trained = [parameter for group in groups for parameter in group["params"]]
    for parameter in trained:
        parameter.requires_grad_(True)
    model.eval()
    warm_up = max(1, steps // 10)
    for step, (inputs, labels) in zip(range(steps), batches, strict=False):
        factor = min(1.0, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * factor
        logits = model(**inputs).logits
        loss = _loss(logits, labels, smoothing, None if alike is None else alike[labels])
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        if progress is not None and (step + 1) % 100 == 0:
            progress(step + 1, loss.item())


def _loss(logits: Tensor, labels: Tensor, smoothing: float, among: Tensor | None) -> Tensor:
    """Cross-entropy, smoothed over the classes `among` (examples, classes) which each is one."""
    if among is None:
        return nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    scores = logits.masked_fill(~among, -1e9).log_softmax(-1).masked_fill(~among, 0.0)
    own = scores.gather(1, labels[:, None]).squeeze(1)
    others = scores.sum(-1) / among.sum(-1)
    return -((1 - smoothing) * own + smoothing * others).mean()


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[Inputs, Tensor]]) -> float:
    """The share of examples whose largest logit is their label's."""
    right = total = 0
    for inputs, labels in batches:
        right += int((model(**inputs).logits.argmax(-1) == labels).sum())
        total += len(labels)
    return right / total
