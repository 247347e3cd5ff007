"""Statistics of any module on the batches of a loader, as they were made for its training.

A batch is `(x, y)`, or a mapping of keyword arguments with `labels` as Hugging Face's collators
make it; the model gives logits, or `loss` says what each example costs.  The sign of a loss does
not matter: all statistics are squares of gradients.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import InMemory
from ..errors import InputError
from ..models import IGNORED
from .collect import Batch, Labels, Likelihood, Steps, measuring

Loss = Callable[[nn.Module, Any], Tensor]  # (model, batch) → (n,) losses, or their sum
LABELS = ("labels", "label")
CAUSAL = ("CausalLM", "LMHeadModel")  # classes that shift labels themselves
HALVES = (torch.float16, torch.bfloat16)


def measuring_loader(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    examples: int | None = None,
    labels: Labels = "empirical",
    loss: Loss | None = None,
    seed: int = 0,
    blocks: int = 0,
    rank: int = 0,
    names: Mapping[str, str] | None = None,
    device: torch.device | str | None = None,
) -> Steps:
    """Statistics of a module on a loader's batches, an event after each.

    loader    batches `(x, y)`, `(x, …, y)` or mappings with `labels`; class numbers (n,), or tokens
              (n, tokens) with -100 at positions that are left out
    examples  at most so many, from the first on; all by default
    loss      (model, batch) → the loss of each example (n,), or their sum: a negative
              log-likelihood, for models that give no logits; the batch is on the model's device
    names     the tensors' names by the module's parameters'; the same by default
    device    where to measure; where the model lies by default

    The model is measured in evaluation mode and left as it was; of half-precision modules a float32
    copy is measured, for sums of squares need its range.  Raises `InputError` for an empty loader,
    batches of another form, and models without any layer that can be measured.
    """
    _require_loader(model, loader, labels, loss)
    given = dict(model.named_parameters())
    if names is None:
        names = {name: name for name in given}
    metadata = {"fingerprint": InMemory.of(model, "model").fingerprint}
    if any(parameter.dtype in HALVES for parameter in given.values()):
        model = copy.deepcopy(model).float()
    with _on(model, device) as place:
        called = _Called(model, loss)
        return (
            yield from measuring(
                called,
                called.batches(_first(loader, examples), place),
                names={f"model.{name}": tensor for name, tensor in names.items()},
                labels=labels,
                seed=seed,
                blocks=blocks,
                rank=rank,
                metadata=metadata,
            )
        )


class _Called(nn.Module):
    """A model that is called with a batch, whatever its form, and says logits or a likelihood."""

    def __init__(self, model: nn.Module, loss: Loss | None) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self._batch: Any = None

    def batches(self, loader: Iterable[Any], place: _Place) -> Iterator[Batch]:
        """Keyword arguments and labels of each batch, on the model's device."""
        causal = any(part in type(self.model).__name__ for part in CAUSAL)
        for batch in loader:
            self._batch = place.moved(batch)
            inputs, truth = _split(self._batch, needs_labels=self.loss is None)
            if truth is not None and self.loss is None:
                truth = _classes(truth, causal)
            yield inputs, None if self.loss else truth

    def forward(self, **inputs: Tensor) -> Any:
        if self.loss is not None:
            return Likelihood(self._summed(self.loss(self.model, self._batch)))
        plain = not isinstance(self._batch, Mapping)
        output = self.model(*inputs.values()) if plain else self.model(**inputs)
        return _logits(output)

    def _summed(self, losses: Any) -> Tensor:
        if not isinstance(losses, Tensor) or losses.ndim > 1:
            found = f"shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses)
            raise InputError(
                "what 'loss' returns",
                expected="the loss of each example (n,), or their sum as a scalar",
                found=str(found),
            )
        return losses.sum()


class _Place:
    """Device and kind of number that a model takes."""

    def __init__(self, model: nn.Module) -> None:
        values = [*model.parameters(), *model.buffers()]
        self.device = values[0].device if values else torch.device("cpu")
        kinds = [value.dtype for value in values if value.is_floating_point()]
        self.dtype = kinds[0] if kinds else torch.float32

    def moved(self, batch: Any) -> Any:
        """A batch on this device, its numbers as the model's own."""
        if isinstance(batch, Tensor):
            return batch.to(self.device, self.dtype if batch.is_floating_point() else None)
        if isinstance(batch, Mapping):
            return {name: self.moved(value) for name, value in batch.items()}
        if isinstance(batch, tuple | list):
            return tuple(self.moved(value) for value in batch)
        return batch


@contextlib.contextmanager
def _on(model: nn.Module, device: torch.device | str | None) -> Iterator[_Place]:
    """The model on a device, and back where it was afterwards."""
    before = _Place(model).device
    if device is not None:
        model.to(device)
    try:
        yield _Place(model)
    finally:
        if device is not None:
            model.to(before)


def _first(loader: Iterable[Any], most: int | None) -> Iterator[Any]:
    """The batches up to the first `most` examples; the last one is cut."""
    left = most
    for batch in loader:
        if left is None:
            yield batch
            continue
        count = _count(batch)
        yield batch if count <= left else _cut(batch, left)
        left -= count
        if left <= 0:
            return


def _count(batch: Any) -> int:
    values = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(values, Tensor):
        return len(values)
    return next((len(value) for value in values if isinstance(value, Tensor)), 0)


def _cut(batch: Any, most: int) -> Any:
    if isinstance(batch, Tensor):
        return batch[:most]
    if isinstance(batch, Mapping):
        return {name: _cut(value, most) for name, value in batch.items()}
    return tuple(_cut(v, most) for v in batch) if isinstance(batch, tuple | list) else batch


def _split(batch: Any, *, needs_labels: bool) -> tuple[dict[str, Tensor], Tensor | None]:
    """A batch as what the model is called with, and the labels (None where it has none)."""
    if isinstance(batch, Mapping):
        truth = next((batch[key] for key in LABELS if key in batch), None)
        inputs = {name: value for name, value in batch.items() if name not in LABELS}
    elif isinstance(batch, Tensor):
        inputs, truth = {"0": batch}, None
    elif isinstance(batch, tuple) and batch:
        *values, truth = batch if len(batch) > 1 else (*batch, None)
        inputs = {str(number): value for number, value in enumerate(values)}
    else:
        inputs, truth = {}, None
    tensors = {name: v for name, v in inputs.items() if isinstance(v, Tensor) and v.ndim}
    if not tensors or (needs_labels and len(tensors) < len(inputs)):
        raise InputError(
            "batch of the loader",
            expected="(x, y), or a mapping of tensors with 'labels'",
            found=_described(batch),
            remedy="Collate it into tensors, or pass `loss=` to say how it is used.",
        )
    return tensors, truth


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        return ", ".join(f"{name}: {type(value).__name__}" for name, value in batch.items())
    if isinstance(batch, tuple):
        return f"({', '.join(type(value).__name__ for value in batch)})"
    return type(batch).__name__


def _classes(truth: Any, causal: bool) -> Tensor:
    """Class numbers; the tokens of a causal model moved to the places that predict them."""
    if not isinstance(truth, Tensor) or truth.is_floating_point() or truth.ndim not in (1, 2):
        kind = f"{truth.dtype} {list(truth.shape)}" if isinstance(truth, Tensor) else type(truth)
        raise InputError(
            "labels of a batch",
            expected="class numbers (n,), or tokens (n, tokens)",
            found=str(kind),
            remedy="For regression and other losses pass `loss=`: (model, batch) → losses (n,).",
        )
    if not causal or truth.ndim == 1:
        return truth
    moved = torch.full_like(truth, IGNORED)
    moved[:, :-1] = truth[:, 1:]
    return moved


def _logits(output: Any) -> Tensor:
    found = getattr(output, "logits", None)
    if found is None and isinstance(output, Mapping):
        found = output.get("logits")
    if found is None and isinstance(output, tuple | list) and output:
        found = output[0]
    found = output if found is None else found
    if not isinstance(found, Tensor) or found.ndim < 2:
        kind = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else type(found)
        raise InputError(
            "what the model returns",
            expected="logits (n, classes), or an object with `.logits`",
            found=str(kind),
            remedy="Pass `loss=`: (model, batch) → losses (n,).",
        )
    return found


def _require_loader(model: nn.Module, loader: Any, labels: str, loss: Loss | None) -> None:
    if isinstance(loader, str | Mapping | Tensor) or not isinstance(loader, Iterable):
        raise InputError(
            f"batches for '{type(model).__name__}'",
            expected="a loader: batches (x, y), or mappings with 'labels'",
            found=type(loader).__name__,
            remedy="A task belongs to a checkpoint's directory: pass its path instead of a module.",
        )
    if loss is not None and labels == "true":
        raise InputError(
            "labels 'true' with a loss",
            expected="logits, from whose probabilities labels are drawn",
            found="a loss, which has its own labels",
            remedy="Leave one of the two out.",
        )
