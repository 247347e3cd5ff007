"""Statistics of any module on the batches of a loader, as they were made for its training.

A batch is `(x, y)`, or a mapping of keyword arguments with `labels` as Hugging Face's collators
make it; the model gives logits, or `loss` says what each example costs.  The sign of a loss does
not matter: all statistics are squares of gradients.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import InMemory
from ..errors import InputError
from ..models import IGNORED, batches
from .collect import Steps, measuring
from .likelihood import Likelihood
from .settings import MeasureSettings
from .verify import Batch

Loss = Callable[[nn.Module, Any], Tensor]  # (model, batch) → (n,) losses, or their sum
CAUSAL = ("CausalLM", "LMHeadModel")  # classes that shift labels themselves
COMPILED = "_orig_mod"  # what `torch.compile` made its module of
HALVES = (torch.float16, torch.bfloat16)


def measuring_loader(
    model: nn.Module,
    loader: Iterable[Any],
    settings: MeasureSettings,
    *,
    loss: Loss | None = None,
    names: Mapping[str, str] | None = None,
) -> Steps:
    """Statistics of a module on a loader's batches, an event after each.

    loader    batches `(x, y)`, `(x, …, y)` or mappings with `labels`; class numbers (n,), or tokens
              (n, tokens) with -100 at positions that are left out.  The examples are the first
              dimension of the batch; layers that see another one are measured example by example
    loss      (model, batch) → the loss of each example (n,), or their sum: a negative
              log-likelihood, for models that give no logits; the batch is on the model's device
    names     the tensors' names by the module's parameters'; the same by default

    The examples are the loader's first.  The model is measured in evaluation mode and left as it
    was; of half-precision modules a float32 copy is measured, for sums of squares need its range;
    compiled modules are measured as they were before, under the names of their parameters.  Raises
    `InputError` for an empty loader, batches of another form, a loss that is no sum over the
    examples, and models none of whose parameters are used.
    """
    _require_loader(model, loader, settings.labels, loss)
    given = dict(model.named_parameters())
    if names is None:
        names = {name: name for name in given}
    metadata = {"fingerprint": InMemory.of(model, "model").fingerprint}
    while hasattr(model, COMPILED):  # hooks of a compiled module's layers would not be called
        model = getattr(model, COMPILED)
        names = {name.removeprefix(f"{COMPILED}."): own for name, own in names.items()}
    alone = model
    if any(parameter.dtype in HALVES for parameter in given.values()):
        model = copy.deepcopy(model).float()
    with _alone(alone), batches.on_device(model, settings.device) as place:
        called = _Called(model, loss)
        return (
            yield from measuring(
                called,
                called.batches(batches.first(loader, settings.examples), place),
                settings,
                names={f"model.{name}": tensor for name, tensor in names.items()},
                metadata=metadata,
                total=batches.expected(loader, settings.examples),
                taking=called.taking,
            )
        )


_measured: weakref.WeakKeyDictionary[nn.Module, int] = weakref.WeakKeyDictionary()  # by a thread
_turn = threading.Condition()


@contextlib.contextmanager
def _alone(model: nn.Module) -> Iterator[None]:
    """A module's hooks are of one measurement at a time: other threads wait for it to end."""
    thread = threading.get_ident()
    with _turn:
        if _measured.get(model) == thread:  # waiting for itself, it would never end
            raise InputError(
                f"model '{type(model).__name__}'",
                expected="one measurement at a time",
                found="one that has begun and not ended",
            )
        _turn.wait_for(lambda: model not in _measured)
        _measured[model] = thread
    try:
        yield
    finally:
        with _turn:
            del _measured[model]
            _turn.notify_all()


class _Called(nn.Module):
    """A model that is called with a batch, whatever its form, and says logits or a likelihood."""

    def __init__(self, model: nn.Module, loss: Loss | None) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        self._batch: Any = None
        self._truth: Tensor | None = None
        self._known = False  # whether what the model returns was looked at

    def batches(self, loader: Iterable[Any], place: batches.Place) -> Iterator[Batch]:
        """Keyword arguments and labels of each batch, on the model's device."""
        causal = any(part in type(self.model).__name__ for part in CAUSAL)
        asked = given = False
        for batch in loader:
            self._batch = place.moved(batch)
            inputs, truth = batches.split(self._batch, needs_labels=self.loss is None)
            if truth is not None and self.loss is None:
                truth = _classes(truth, causal)
            self._truth = None if self.loss else truth
            rows = len(next(iter(inputs.values())))
            if not rows or (self._truth is not None and len(self._truth) != rows):
                raise InputError(
                    "labels of a batch" if rows else "batch of the loader",
                    expected=f"one for each of {rows} examples" if rows else "at least one example",
                    found="none" if self._truth is None else str(len(self._truth)),
                )
            given = given or self._truth is not None
            asked = asked or (self._truth is not None and bool((self._truth != IGNORED).any()))
            yield inputs, self._truth
        if given and not asked:
            raise InputError(
                "labels of all batches",
                expected="at least one that is asked for",
                found=f"{IGNORED} everywhere, which leaves a position out",
            )

    @contextlib.contextmanager
    def taking(self, rows: Sequence[int]) -> Iterator[Batch]:
        """The model called with some examples of the batch."""
        batch, truth = self._batch, self._truth
        count = batches.count(batch)
        self._batch = batches.rows(batch, rows, count)
        self._truth = None if truth is None else batches.rows(truth, rows, count)
        try:
            yield batches.split(self._batch, needs_labels=False)[0], self._truth
        finally:
            self._batch, self._truth = batch, truth

    def forward(self, **inputs: Tensor) -> Any:
        if self.loss is not None:
            return Likelihood(self._summed(self.loss(self.model, self._batch)))
        found = batches.logits(batches.called(self.model, self._batch, inputs))
        if not self._known:
            _require_logits(found.detach())
            self._known = True
        return _fitting(found, self._truth)

    def _summed(self, losses: Any) -> Tensor:
        if not isinstance(losses, Tensor) or losses.ndim > 1:
            found = f"shape {list(losses.shape)}" if isinstance(losses, Tensor) else type(losses)
            raise InputError(
                "what 'loss' returns",
                expected="the loss of each example (n,), or their sum as a scalar",
                found=str(found),
            )
        return losses.sum()


def _require_logits(found: Tensor) -> None:
    """Raise `InputError` for probabilities: taken for logits they give other gradients."""
    rows = found.float()
    if rows.shape[-1] > 1 and bool((rows >= 0).all()) and _near_one(rows.sum(-1)):
        raise InputError(
            "what the model returns",
            expected="logits",
            found="probabilities: numbers of at least 0 whose rows sum to 1",
            remedy="Leave the softmax out, or pass `loss=`: (model, batch) → losses (n,).",
        )


def _near_one(sums: Tensor) -> bool:
    return bool(((sums - 1).abs() < 1e-3).all())


def _classes(truth: Any, causal: bool) -> Tensor:
    """Class numbers; the tokens of a causal model moved to the places that predict them."""
    plain = isinstance(truth, Tensor) and not truth.is_floating_point() and not truth.is_complex()
    if not plain or truth.ndim not in (1, 2):
        kind = f"{truth.dtype} {list(truth.shape)}" if isinstance(truth, Tensor) else type(truth)
        raise InputError(
            "labels of a batch",
            expected="class numbers (n,), or tokens (n, tokens)",
            found=str(kind),
            remedy="For regression and other losses pass `loss=`: (model, batch) → losses (n,).",
        )
    truth = truth.long()
    if not causal or truth.ndim == 1:
        # Only with places can some be left out.
        return truth[:, None] if truth.ndim == 1 and bool((truth == IGNORED).any()) else truth
    moved = torch.full_like(truth, IGNORED)
    moved[:, :-1] = truth[:, 1:]
    return moved


def _fitting(logits: Tensor, truth: Tensor | None) -> Tensor:
    """The logits with as many dimensions as the labels have, and one more; labels that fit them."""
    if truth is not None and truth.ndim == 2 and truth.shape[1] == 1 and logits.ndim == 2:
        logits = logits[:, None]  # labels (n, 1): one place an example
    places = list(logits.shape[:-1])
    if len(places) > 1 if truth is None else list(truth.shape) != places:
        one_hot = truth is not None and truth.shape == logits.shape
        raise InputError(
            "labels of a batch",
            expected=f"one for each row of the logits {list(logits.shape)}: {places}",
            found="none" if truth is None else str(list(truth.shape)),
            remedy="Pass class numbers: labels.argmax(-1)." if one_hot else "",
        )
    if truth is not None:
        batches.require_classes(truth, logits.shape[-1], "a position")
    return logits


def _require_loader(model: nn.Module, loader: Any, labels: str, loss: Loss | None) -> None:
    if isinstance(loader, str | Mapping | Tensor) or not isinstance(loader, Iterable):
        raise InputError(
            f"batches for '{type(model).__name__}'",
            expected="a loader: batches (x, y), or mappings with 'labels'",
            found=type(loader).__name__,
            remedy="A task belongs to a checkpoint's directory: pass its path instead of a module.",
        )
    if isinstance(loader, tuple) and loader and all(isinstance(one, Tensor) for one in loader):
        raise InputError(
            f"batches for '{type(model).__name__}'",
            expected="a loader: batches (x, y), or mappings with 'labels'",
            found=f"{len(loader)} tensors, as one batch has them",
            remedy="Put the batch into a list: [(x, y)].",
        )
    if torch.is_inference_mode_enabled():
        raise InputError(
            f"statistics of '{type(model).__name__}'",
            expected="gradients, which they are made of",
            found="torch.inference_mode(), which has none",
            remedy="Measure outside of it; torch.no_grad() may stay.",
        )
    if loss is not None and labels == "true":
        raise InputError(
            "labels 'true' with a loss",
            expected="logits, from whose probabilities labels are drawn",
            found="a loss, which has its own labels",
            remedy="Leave one of the two out.",
        )
