"""Batches of any loader: `(x, y)`, or mappings with `labels` as Hugging Face's collators make."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError, listing
from ..system import Device, existing_device
from .tokens import IGNORED

LABELS = ("labels", "label")
OTHER_KIND = re.compile(r"dtype|datatype|Input type|scalar type")  # in errors of torch's layers


class Place:
    """Device and kind of number that a model takes."""

    def __init__(self, model: nn.Module) -> None:
        values = [*model.parameters(), *model.buffers()]
        self.device = values[0].device if values else torch.device("cpu")
        kinds = [value.dtype for value in values if value.is_floating_point()]
        self.dtype = kinds[0] if kinds else torch.float32

    def moved(self, batch: Any) -> Any:
        """A batch on this device, its numbers as the model's own."""
        return _changed(
            batch, lambda v: v.to(self.device, self.dtype if v.is_floating_point() else None)
        )


def _changed(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A batch with every tensor in it changed."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {name: _changed(value, change) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        return tuple(_changed(value, change) for value in batch)
    return batch


def require_classes(truth: Tensor, classes: int, left_out: str) -> None:
    """Raise `InputError` for labels that name none of the `classes`; `left_out`: what -100 does."""
    asked = truth[truth != IGNORED]
    if len(asked) and not (0 <= int(asked.min()) <= int(asked.max()) < classes):
        raise InputError(
            "labels of a batch",
            expected=f"class numbers from 0 to {classes - 1}, as there are logits",
            found=f"numbers from {int(asked.min())} to {int(asked.max())}",
            remedy=f"Only {IGNORED} leaves {left_out} out.",
        )


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A context in which a model is in evaluation mode; each module is left as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextlib.contextmanager
def on_device(model: nn.Module, device: Device | None) -> Iterator[Place]:
    """The model on a device, and back where it was afterwards."""
    before = Place(model).device
    device = None if device is None else existing_device(device)
    try:
        if device is not None:
            model.to(device)
        yield Place(model)
    finally:
        if device is not None:
            model.to(before)


def first(loader: Iterable[Any], most: int | None) -> Iterator[Any]:
    """The batches up to the first `most` examples; the last one is cut."""
    if most is None:
        yield from loader
        return
    left = most
    for batch in loader:
        here = count(batch)
        yield batch if here <= left else rows(batch, range(left), here)
        left -= here
        if left <= 0:
            return


def expected(loader: Iterable[Any], most: int | None) -> int | None:
    """How many examples `first` will give, as far as the loader says; None where it does not."""
    if isinstance(loader, list | tuple):
        whole = sum(count(batch) for batch in loader)
    else:
        try:
            whole = len(getattr(loader, "sampler", None) or ())
        except TypeError:  # of a data set that is read to its end, whenever that comes
            whole = 0
    return (whole if most is None else min(most, whole)) or None


def progress(what: str, examples: int, total: int | None) -> dict[str, Any]:
    """The fields of an event after so many examples: `fraction` and `text`."""
    if total is None:
        return {"text": f"{what}: example {examples}"}
    fraction = min(1.0, examples / max(1, total))
    return {"fraction": fraction, "text": f"{what}: example {examples} of {total}"}


def rows(batch: Any, some: Sequence[int], count: int) -> Any:
    """Some examples of a batch of `count`: of every tensor and list with as many entries."""
    if isinstance(batch, Tensor):
        own = batch.ndim > 0 and len(batch) == count
        return batch[torch.as_tensor(some, device=batch.device)] if own else batch
    if isinstance(batch, Mapping):
        return {name: rows(value, some, count) for name, value in batch.items()}
    if isinstance(batch, tuple | list):
        if len(batch) == count and not any(_holds_tensors(value) for value in batch):
            return type(batch)([batch[row] for row in some])
        return tuple(rows(value, some, count) for value in batch)
    return batch


def _holds_tensors(value: Any) -> bool:
    values = value.values() if isinstance(value, Mapping) else value
    nested = isinstance(value, Mapping | tuple | list)
    return isinstance(value, Tensor) or (nested and any(_holds_tensors(v) for v in values))


def count(batch: Any) -> int:
    """The number of examples of a batch: the entries of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch)
    values = batch.values() if isinstance(batch, Mapping) else batch
    return next((len(value) for value in values if isinstance(value, Tensor)), 0)


def split(batch: Any, *, needs_labels: bool) -> tuple[dict[str, Tensor], Tensor | None]:
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


def logits(output: Any) -> Tensor:
    """The logits (n, …, classes) in what a model returned; `InputError` where it has none."""
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


def called(model: nn.Module, batch: Any, inputs: Mapping[str, Tensor]) -> Any:
    """What a model returns for the `inputs` of a batch (`split`).

    Raises `InputError` for a batch of which the model's `forward` takes more or less, and for
    integers where it computes with floats.
    """
    named = dict(inputs) if isinstance(batch, Mapping) else {}
    given = () if named else tuple(inputs.values())
    try:
        return model(*given, **named)
    except TypeError as error:
        forward = inspect.signature(model.forward)
        try:
            forward.bind(*given, **named)
        except TypeError:
            pass
        else:  # it takes them, and fails inside
            raise
        raise InputError(
            "batch of the loader",
            expected=f"what {type(model).__name__} is called with, {forward}",
            found=_described(batch),
            remedy="Collate what it takes, or pass `loss=` to call the model yourself.",
        ) from error
    except (RuntimeError, ValueError) as error:
        _require_floats(model, inputs, error)
        raise


def _require_floats(model: nn.Module, inputs: Mapping[str, Tensor], error: Exception) -> None:
    """Raise `InputError` where torch complains of kinds of numbers and inputs are integers."""
    integers = [v for v in inputs.values() if not (v.is_floating_point() or v.is_complex())]
    if not integers or not OTHER_KIND.search(str(error)):
        return
    kinds = dict.fromkeys(str(value.dtype).removeprefix("torch.") for value in integers)
    wanted = str(Place(model).dtype).removeprefix("torch.")
    raise InputError(
        "inputs of a batch",
        expected=f"{wanted}, which {type(model).__name__} computes with",
        found=listing(kinds),
        remedy="Convert them in the loader, such as by `x.float()`.",
    ) from error
