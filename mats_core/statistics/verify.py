"""Whether the statistics that batches give are those of single examples; once a measuring.

Two examples, the first and the last of the first batch, are measured together as batches are, and
each alone by PyTorch's own gradients.  A layer is trusted where both agree: in the sum of squared
gradients of each of its parameters, in the number of its tokens, their mean and their Gram A, which
is compared by its product with one vector, Σ x (xᵀ v).  All others are measured example by example.
Labels are such that the model does not expect: a gradient of zero would prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..models import IGNORED
from .accumulate import agree
from .capture import Alone, Capture, Notes, handled, is_guess
from .layers import Added, Layers, square_sum
from .likelihood import Choose, Scores, asked, require_finite

Batch = tuple[Mapping[str, Tensor], Tensor | None]  # the model's keyword arguments, labels (n,)
Taking = Callable[[Sequence[int]], AbstractContextManager[Batch]]  # rows of the batch by themselves
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3}  # of a norm; norms are float32 in float64
COARSE = 0.25  # in half precision
NOISE = 1e-10  # of a layer's largest Fisher: what the gradient of a softmax's shift leaves
NOTHING = 1e-14  # of the model's largest Fisher: no gradient at all
MASKS = ("attention_mask", "decoder_attention_mask")


@dataclass
class Verdict:
    """How everything is measured.

    trusted     layers of which batches give the statistics
    silent      layers that had no gradient: trusted as long as they have none
    copied      parameters (1, ...) of which batches give them by a copy an example
    singly      parameters that are measured example by example, by the model's names
    follow      whether what all examples share has a copy an example
    failed      layers of which batches and examples do not agree
    examples    that were compared
    unverified  why nothing could be compared; empty where it was
    """

    trusted: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    copied: set[str] = field(default_factory=set)
    singly: set[str] = field(default_factory=set)
    follow: bool = True
    failed: set[str] = field(default_factory=set)
    examples: int = 0
    unverified: str = ""

    def after(self, before: Verdict) -> Verdict:
        """This one where another one came before: what did not agree once is not trusted."""
        base = self if self.examples >= before.examples else before
        failed, singly = self.failed | before.failed, self.singly | before.singly
        return replace(
            base, trusted=base.trusted - failed, silent=base.silent - failed, failed=failed,
            copied=base.copied - singly, singly=singly,
            unverified=self.unverified or before.unverified,
        )  # fmt: skip


def masks_of(inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """What an encoder and its decoder read; told apart by their widths."""
    found = [inputs[name] for name in MASKS if inputs.get(name) is not None]
    if len({mask.shape[1] for mask in found}) < len(found):
        raise InputError(
            " and ".join(MASKS),
            expected="different widths, by which layers are told apart",
            found=f"{found[0].shape[1]} both times",
            remedy="Pad the decoder's tokens by one position.",
        )
    return found


def tolerance(model: nn.Module) -> float:
    """Relative difference of two sums that is rounding in a model's arithmetic."""
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return max((TOLERANCE.get(kind, COARSE) for kind in kinds), default=COARSE)


@dataclass
class Together:
    """What hooks noted of examples as one batch, and what their likelihood is of."""

    capture: Capture
    total: float
    labels: list[Tensor] | None


class Verification:
    """Two examples of a batch, measured in both ways."""

    def __init__(self, model: nn.Module, layers: Layers, taking: Taking) -> None:
        self.model, self.layers, self.taking = model, layers, taking
        self.tolerance = tolerance(model)
        self.truth: dict[str, Tensor] = {}  # Σ (∇ log p)², by the model's names

    def verdict(self, rows: Sequence[int]) -> Verdict:
        """How everything is measured, by what the examples of these rows show.

        Raises `InputError` for a loss that is no sum over the examples.
        """
        try:
            both = self._together(rows)
            singles, totals = self._apart(rows, both.labels)
            again = self._alone(rows[0], None, {})[1] if both.labels is None else 0.0
        except Exception as error:  # a loss of the user's, or a batch of any form
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            return self._unverified(f"a part of a batch cannot be measured: {said}")
        if both.labels is None and len(rows) > 1 and not _is_sum(both.total, totals):
            if not _near(again, totals[0]):
                return self._unverified("the loss draws random numbers")
            raise _no_sum(both.total, totals)
        return self._compared(both.capture, singles)

    def _together(self, rows: Sequence[int]) -> Together:
        try:
            return self._followed(rows, follow=True)
        except (RuntimeError, ValueError, TypeError, IndexError):
            return self._followed(rows, follow=False)

    def _followed(self, rows: Sequence[int], *, follow: bool) -> Together:
        with (
            self.taking(rows) as (inputs, truth),
            Capture(self.model, len(rows), masks_of(inputs), follow=follow) as capture,
            torch.enable_grad(),
        ):
            total, labels = asked(self.model, inputs, truth, Scores.unlikely)
            if total.requires_grad:
                total.backward()
        return Together(capture, float(total.detach()), labels)

    def _apart(
        self, rows: Sequence[int], labels: list[Tensor] | None
    ) -> tuple[list[Notes], list[float]]:
        """What hooks noted of each example alone, its likelihood, and the sum of the truths."""
        own = [None] * len(rows) if labels is None else labels
        found = [self._alone(row, label, self.truth) for row, label in zip(rows, own, strict=True)]
        return [notes for notes, _ in found], [total for _, total in found]

    def _alone(
        self, row: int, label: Tensor | None, truth: dict[str, Tensor]
    ) -> tuple[Notes, float]:
        def take(name: str, gradient: Tensor) -> None:
            truth[name] = truth[name] + gradient**2 if name in truth else gradient**2

        layers = [name for name, module in self.layers.modules.items() if handled(name, module)]
        labels = [] if label is None else [label]
        return single(
            self.model, self.taking, row, self.layers.names, layers, take, lambda _: labels
        )

    def _compared(self, capture: Capture, singles: Sequence[Notes]) -> Verdict:
        found, covered = Verdict(follow=capture.follow, examples=len(singles)), set()
        most = max((float(value.norm()) for value in self.truth.values()), default=0.0)
        left = {self.layers.of(owner) for owner in capture.left}
        found.failed |= left
        for name, owners in self.layers.used(capture).items():
            held = set().union(*(self.layers.parameters(owner) for owner in owners))
            if name in left:
                continue
            norms = [float(self.truth[own].norm()) for own in held & self.truth.keys()]
            least = NOISE * max(norms, default=0.0)
            if least and self._agrees(name, owners, held, capture, singles, least):
                found.trusted.add(name)
            elif self._agrees(name, owners, held, capture, singles, least + NOTHING * most):
                found.silent.add(name)
            else:
                found.failed.add(name)
                continue
            covered |= held
        for own, gradients in capture.copied().items():
            least = NOTHING * most
            if own in self.truth and agree(
                square_sum(gradients), self.truth[own], self.tolerance, least
            ):
                found.copied.add(own)
        found.singly = self.truth.keys() - covered - found.copied
        return found

    def _agrees(
        self, name: str, owners: list[str], held: set[str], capture: Capture,
        singles: Sequence[Notes], least: float,
    ) -> bool:  # fmt: skip
        """Whether a layer's statistics are the same of both examples together and of each.

        `least`: a norm of a Fisher that is rounding.
        """
        try:
            both = self.layers.added(name, owners, capture)
            each = [
                self.layers.added(name, used, one, whole=False)
                for one in singles
                if (used := [owner for owner in owners if owner in one.uses])
            ]
        except (RuntimeError, ValueError, IndexError):
            return False
        fishers = both.fishers()
        for own in held & self.truth.keys():
            given = fishers.get(self.layers.names[own])
            if given is None or not agree(given, self.truth[own], self.tolerance, least):
                return False
        return _same_tokens(both, each, self.tolerance)

    def _unverified(self, reason: str) -> Verdict:
        """All layers that are PyTorch's own, as batches give them."""
        plain = {
            self.layers.of(name)
            for name, module in self.layers.modules.items()
            if handled(name, module) and not is_guess(module)
        }
        return Verdict(plain, copied=set(self.layers.names), unverified=reason)


def single(
    model: nn.Module,
    taking: Taking,
    row: int,
    parameters: Container[str],
    layers: Iterable[str],
    take: Callable[[str, Tensor], None],
    choose: Choose,
) -> tuple[Alone, float]:
    """What hooks noted of one example alone, and its log-likelihood.

    `take` is given the gradients of the `parameters`; `choose` says what labels are asked for.
    """
    with (
        taking([row]) as (inputs, truth),
        Alone(model, masks_of(inputs), parameters, layers, take) as alone,
        torch.enable_grad(),
    ):
        total, _ = asked(model, inputs, truth, choose)
        require_finite(total)
        if total.requires_grad:
            total.backward()
    return alone, float(total.detach())


def _same_tokens(both: Added, each: Sequence[Added], tolerance: float) -> bool:
    """Whether the inputs and output gradients of a batch are those of its examples."""
    if both.tokens != sum(one.tokens for one in each):
        return False
    for name, tokens in both.grams.items():
        apart = [_probed(one.grams[name]) for one in each if name in one.grams]
        if not apart or not agree(_probed(tokens), torch.stack(apart).sum(0), tolerance):
            return False
    if both.mean is None:
        return True
    mean = torch.stack([one.mean for one in each if one.mean is not None]).sum(0)
    largest = max(float(tokens.norm()) for tokens in both.grams.values())
    return agree(both.mean, mean, tolerance, tolerance * largest)


def _probed(tokens: Tensor) -> Tensor:
    """A v of tokens (examples, tokens, d), for one fixed vector v: (d,)."""
    rows = tokens.reshape(-1, tokens.shape[-1])
    v = torch.arange(rows.shape[1], device=rows.device, dtype=torch.float32).cos().to(rows.dtype)
    return rows.T @ (rows @ v)


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-3 * max(abs(one), abs(other)) + 1e-12


def _is_sum(total: float, each: Sequence[float]) -> bool:
    return abs(total - sum(each)) <= 1e-3 * sum(map(abs, each)) + 1e-12


def _no_sum(total: float, each: Sequence[float]) -> InputError:
    """The error for a loss of two examples that is not the sum of each one's."""
    mean = min(each) - 1e-6 <= total <= max(each) + 1e-6
    one, other = (f"{abs(value):.4g}" for value in each)
    return InputError(
        "what 'loss' returns",
        expected="the sum over the examples of a batch, or the loss of each (n,)",
        found=f"{'a mean: ' if mean else ''}{abs(total):.4g} for two examples together, which "
        f"have {one} and {other} alone",
        remedy="Pass reduction='sum' or reduction='none' to the loss."
        if mean
        else "A loss that compares the examples of a batch has no gradient of one example.",
    )


def rows_to_verify(inputs: Mapping[str, Tensor], truth: Tensor | None) -> list[int]:
    """The longest and the shortest example of a batch, or the first and the last.

    Of those with a label, where some have none; nothing where none has.
    """
    examples = len(next(iter(inputs.values())))
    rows = torch.arange(examples)
    if truth is not None and truth.ndim == 2 and len(truth) == examples:
        labelled = (truth != IGNORED).any(1).cpu()
        if not labelled.any():
            return []
        # One that is alone has another one beside it: it is a batch, as all others are.
        rows = rows[labelled] if labelled.sum() > 1 else rows[(~labelled).long().argsort()][:2]
    lengths = torch.zeros(len(rows))
    for mask in (inputs[name] for name in MASKS if inputs.get(name) is not None):
        if mask.ndim == 2 and len(mask) == examples:
            lengths = lengths + mask.cpu()[rows].sum(1)
    order = lengths.argsort(descending=True, stable=True)
    chosen = rows[order[[0, -1]]].tolist()
    return chosen if examples > 1 else chosen[:1]


def is_padded(inputs: Mapping[str, Tensor]) -> bool:
    """Whether an example of a batch has padding."""
    return any(bool((inputs[name] == 0).any()) for name in MASKS if inputs.get(name) is not None)
