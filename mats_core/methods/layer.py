"""What a method is given (`Layer`, `LayerStatistics`) and what it gives back (`Merged`)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import InputError
from ..linear import Gram, LowRank, Pair, Solution, Updates, matrix, weighted_sum
from ..system import forgetful

Treatment = Literal["merged", "averaged", "head", "copied", "tied"]
FISHER = frozenset({"fisher"})
KFAC = frozenset({"input_gram", "output_gradient_gram"})
Watch = Callable[[str, int, Gram, int], None]
Show = Callable[[str, Iterable[Gram]], None]


def unseen(stage: str, values: Iterable[Gram]) -> None:
    """What `Layer.show` is where nothing watches."""


@dataclass(frozen=True)
class LayerStatistics:
    """One expert's statistics of one layer (see `mats_core.statistics`); None: not measured.

    input_gram             A (d_in, d_in), in factors where it was measured in low rank
    input_mean             μ (d_in,)
    output_gradient_gram   B (d_out, d_out), in factors where it was measured in low rank
    fisher                 F, in the tensor's shape
    block                  the full block (numel, numel) of a small parameter
    cross_gram             E[x̃_e x̃_sᵀ] of the expert's inputs and the merge's, whose Gram is
                           `input_gram` then (`sequential`)
    lost                   E[(r_e − r_s) x̃_sᵀ] (d_out, d_in), what the residual stream has lost
    target                 E[(W̃ x̃_e + r_e − r_s) x̃_sᵀ] (d_out, d_in) with the expert's weights W̃,
                           in the place of `cross_gram` and `lost` where it was measured at once
    examples               how many examples of the expert's task these are of, copies not
                           counted; 0: they are of no task of it (`sequential`)
    """

    input_gram: Gram | None = None
    input_mean: Tensor | None = None
    output_gradient_gram: Gram | None = None
    fisher: Tensor | None = None
    block: Tensor | None = None
    cross_gram: Tensor | None = None
    lost: Tensor | None = None
    target: Tensor | None = None
    examples: int | None = None


@dataclass(frozen=True)
class Earlier:
    """What an earlier merge left of one layer, to which experts are added.

    weights      α_m of its experts
    labels       their names
    sums         name → sum over them, as `Layer.total` handed it on
    statistics   of each, for a method whose equation needs each expert's (`Sums.each`)
    """

    weights: tuple[float, ...]
    labels: tuple[str, ...]
    sums: Mapping[str, Tensor]
    statistics: tuple[LayerStatistics, ...] = ()


@dataclass(frozen=True)
class Layer:
    """Everything a method may need of one tensor (or of `[W b]`, where the bias is folded in).

    name         the tensor's name in the checkpoint
    base         W0, in the tensor's shape
    experts      W_m, in the order of the recipe
    weights      α_m as the recipe gives them, not normalised; negative to take a task away; those
                 of an earlier merge's experts come first
    labels       the experts' names, which seed what is random; in the order of the weights
    is_matrix    whether methods for linear layers apply
    statistics   of each expert, in their order; empty where none were measured
    base_statistics
                 those of the base, for methods that take them as a prior
    seed         of what is random
    keep         CG iterations whose iterates the result carries
    starts       name → the tensor of the checkpoint that an option names; None: none does
    pulse        called with (iteration, residual) while a solve is under way; may raise to end it
    watch        called with (key of a stage, expert or 0, value, first element) by `show`; None:
                 nothing watches
    offset       elements of the tensor before these: a large tensor that is merged element by
                 element comes in flat pieces, in the order of the file; None for a whole one
    remember     (what, compute) → what this layer remembers of an earlier merge, or computes now;
                 `what` names the quantity and every option that it depends on
    earlier      what an earlier merge left of this layer, to which `experts` are added; None: all
                 experts are in `experts`
    factors      of each expert's update, in their order: L (d_out, r) and R (r, d_in) with
                 Δ = L R; `experts` hold no numbers then.  None: the experts are as they are
    rounded_at   norm of the weights whose rounding the updates hold, of a layer in another space
    hand_on      called by `total` with (name, sum over all experts), so that experts can be added
                 later; None: nothing is kept
    """

    name: str
    base: Tensor
    experts: tuple[Tensor, ...]
    weights: tuple[float, ...]
    labels: tuple[str, ...]
    is_matrix: bool
    statistics: tuple[LayerStatistics, ...] = ()
    base_statistics: LayerStatistics = LayerStatistics()
    seed: int = 0
    keep: tuple[int, ...] = ()
    offset: int | None = None
    starts: Callable[[str], Tensor] | None = None
    remember: Callable[[Hashable, Callable[[], Any]], Any] = forgetful
    pulse: Callable[[int, float], None] | None = None
    watch: Watch | None = None
    earlier: Earlier | None = None
    hand_on: Callable[[str, Tensor], None] | None = None
    factors: tuple[Pair, ...] | None = None
    rounded_at: float = 0.0

    def show(self, stage: str, values: Iterable[Gram]) -> None:
        """Hand the values of a stage to `watch`: one an expert, or one in all.

        Those of a generator are computed only where something watches.
        """
        if self.watch is not None:
            for index, value in enumerate(values):
                self.watch(stage, index, value, self.offset or 0)

    @property
    def updates(self) -> Updates:
        """The task matrices Δ_m = W_m − W0."""
        return Updates(self.base, self.experts)

    @property
    def signs(self) -> tuple[float, ...]:
        """−1 for each expert with a negative weight, 1 for the others."""
        return tuple(-1.0 if weight < 0 else 1.0 for weight in self.weights)

    @property
    def signed_updates(self) -> Updates:
        """The task matrices, negated where the expert's weight is negative."""
        return Updates(self.base, self.experts, self.signs)

    @property
    def negative(self) -> bool:
        """Whether an expert's weight is negative: a system may then be indefinite."""
        return min(self.weights) < 0

    @property
    def magnitudes(self) -> tuple[float, ...]:
        """|α_m| normalised as `shares`, for what must stay positive definite."""
        return tuple(abs(share) for share in self.shares)

    @property
    def shares(self) -> tuple[float, ...]:
        """α_m normalised to sum one."""
        total = sum(self.weights)
        if not total:  # as those of sums that were kept may say
            raise InputError(f"weights of '{self.name}'", expected="a sum above zero", found="zero")
        return tuple(weight / total for weight in self.weights)

    @property
    def before(self) -> int:
        """Number of experts of which only an earlier merge's sums are left."""
        return len(self.weights) - len(self.experts)

    @property
    def adds_up(self) -> bool:
        """Whether sums are kept for a later merge, or taken over from an earlier one."""
        return self.earlier is not None or self.hand_on is not None

    def total(
        self, name: str, values: Iterable[Tensor], shares: Sequence[float], *, mean: bool = True
    ) -> Tensor:
        """`Σ α_m V_m` over all experts, of the values of those in `experts`.

        name     under which the sum is kept, and what an earlier merge left is looked up
        shares   a factor of each expert, those of the earlier merge first
        mean     whether the shares sum to one, so that an earlier sum counts its experts' share
        """
        share = sum(shares[: self.before]) if mean else 1.0
        return self.joined(name, weighted_sum(values, shares[self.before :]), share)

    def joined(self, name: str, value: Tensor, share: float) -> Tensor:
        """The value plus `share` times what an earlier merge left under this name; kept if asked.

        Without an earlier merge it is the value itself.
        """
        if self.earlier is not None and share:
            before = self.earlier.sums.get(name)
            if before is None or before.shape != value.shape:
                raise self._other_sums(name, value, before)
            value = value + share * before
        if self.hand_on is not None:
            self.hand_on(name, value)
        return value

    def _other_sums(self, name: str, value: Tensor, before: Tensor | None) -> InputError:
        return InputError(
            f"sum '{name}' of '{self.name}' that a merge kept",
            expected=f"a tensor of shape {list(value.shape)}",
            found="none" if before is None else f"one of {list(before.shape)}",
            remedy="Merge all experts at once.",
        )

    def lacks(self, name: str) -> bool:
        """Whether there is an earlier merge, and it left no such sum of this layer."""
        return self.earlier is not None and name not in self.earlier.sums

    def keep_each(self, kinds: Iterable[str]) -> None:
        """Hand on these kinds of statistics of every expert, where sums are kept."""
        for kind in kinds if self.hand_on is not None else ():
            assert self.hand_on is not None
            for index, gram in enumerate(self.grams(kind, earlier=True) or ()):
                for part, value in parts_of(gram).items():
                    self.hand_on(f"{kind}.{index}{part}", value)

    def measured(self, kind: str) -> tuple[Tensor, ...] | None:
        """One kind of statistics of all experts, or None if any expert lacks it.

        Grams come as matrices, formed now where they are in factors.
        """
        values = self.grams(kind)
        return None if values is None else tuple(matrix(value) for value in values)

    def grams(self, kind: str, *, earlier: bool = False) -> tuple[Gram, ...] | None:
        """One kind of Grams of all experts: in factors where all are, else as matrices.

        `earlier`: those of an earlier merge's experts come first.
        """
        kept = self.earlier.statistics if self.earlier is not None and earlier else ()
        values = [getattr(own, kind) for own in (*kept, *self.statistics)]
        if not values or any(value is None for value in values):
            return None
        for value in values[: len(kept)]:
            before, own = value.diagonal(), values[-1].diagonal()
            if before.shape != own.shape:
                raise self._other_sums(kind, own, before)
        in_factors = all(isinstance(value, LowRank) for value in values)
        return tuple(values if in_factors else map(matrix, values))

    @property
    def mean_update(self) -> Tensor:
        """Σ α_m Δ_m with normalised weights: the mean task vector."""
        if self.earlier is not None:
            return self.total("mean", self.experts, self.shares) - self.base
        return weighted_sum(self.updates, self.shares)


@dataclass(frozen=True)
class Merged:
    """What a method made of one layer.

    value        the merged tensor W, in the layer's shape
    method       what was really applied (a fallback has another name than the recipe's method)
    treatment    `merged`, or `averaged` where the mean task vector was taken
    status       how it was computed, or why the solve ended; `exact` by default
    solution     the solver's trace, where there was a solve
    details      numbers worth showing, such as the weight each task really got
    """

    value: Tensor
    method: str
    treatment: Treatment = "merged"
    status: str = "exact"
    solution: Solution | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def parts_of(gram: Gram) -> dict[str, Tensor]:
    """The tensors of a Gram by the ends of the names that they are kept under."""
    if isinstance(gram, LowRank):
        return {".factor": gram.factor, ".rest": gram.rest}
    return {"": gram}


def averaged(layer: Layer) -> Merged:
    """The weighted mean, for parameters that a method leaves aside."""
    return Merged(layer.total("mean", layer.experts, layer.shares), "mean", "averaged")


def mean_task_vector(layer: Layer, scaling: float) -> Merged:
    """W0 plus the mean task vector, for parameters that a method of matrices leaves aside.

    Its factor is 1, or −1 where `scaling` is negative; experts with a negative weight enter
    negated.
    """
    if scaling >= 0 and not layer.negative:
        return averaged(layer)
    each = (-1.0 if scaling < 0 else 1.0) / len(layer.experts)
    mean = weighted_sum(layer.signed_updates, (each,) * len(layer.experts))
    return Merged(layer.base + mean, "mean", "averaged")


def require_diagonal(layer: Layer, diagonal: Tensor, what: str) -> None:
    """Raise `InputError` where negative weights turn an entry of a system's diagonal negative.

    Such a system is indefinite; one whose diagonal is positive may be, too.  `diagonal` has the
    shape of the weight.
    """
    rounding = torch.finfo(diagonal.dtype).eps * float(diagonal.abs().max())
    if layer.negative and float(diagonal.min()) < -rounding:
        raise indefinite(layer, what)


def indefinite(layer: Layer, what: str) -> InputError:
    """The error for a system that negative weights keep from having one solution."""
    weights = ", ".join(
        f"{label} {weight:g}" for label, weight in zip(layer.labels, layer.weights, strict=True)
    )
    return InputError(
        f"negative weights ({weights}) of {what}, at '{layer.name}'",
        expected="curvature that stays positive in every direction",
        found="a direction in which it does not",
        remedy="Raise the other weights, or take a task away with 'task_arithmetic'.",
    )
