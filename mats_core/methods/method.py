"""What every method is made of: a layer, its options, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import torch
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict
from torch import Tensor

from ..linear import LowRank, Solution
from ..system import forgetful

Group = Literal["weights", "task vectors", "statistics"]
Treatment = Literal["merged", "averaged", "head", "copied", "tied"]
GRAMS = ("input_gram", "output_gradient_gram")  # kinds that may be there in factors


class Options(BaseModel):
    """Base of every method's options: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    step: float | None = None,
    source: str = "",
) -> Any:
    """One option, declared once: YAML schema, command line, widgets and reference derive from it.

    `low`/`high` are inclusive bounds, `above` an exclusive lower one; `step` is what a slider
    moves by; `source` says where the default comes from.
    """
    extra: JsonDict = {key: value for key, value in (("step", step), ("source", source)) if value}
    return Field(default, description=help, ge=low, le=high, gt=above, json_schema_extra=extra)


@dataclass(frozen=True)
class LayerStatistics:
    """One expert's statistics of one layer (see `mats_core.statistics`); None: not measured.

    A Gram that was measured in low rank is there in factors only; `gram` multiplies it out.
    """

    input_gram: Tensor | None = None
    input_mean: Tensor | None = None
    output_gradient_gram: Tensor | None = None
    fisher: Tensor | None = None
    block: Tensor | None = None
    input_factors: LowRank | None = None
    output_gradient_factors: LowRank | None = None

    def factors(self, kind: str) -> LowRank | None:
        """A Gram in factors, where it was measured so."""
        return getattr(self, kind.removesuffix("_gram") + "_factors")

    def gram(self, kind: str) -> Tensor | None:
        """`input_gram` or `output_gradient_gram` as a matrix, formed now where it is in factors."""
        whole, factors = getattr(self, kind), self.factors(kind)
        return factors.dense() if whole is None and factors is not None else whole


@dataclass(frozen=True)
class Layer:
    """Everything a method may need of one tensor (or of `[W b]`, where the bias is folded in).

    name         the tensor's name in the checkpoint
    base         W0, in the tensor's own shape
    experts      W_m, in the order of the recipe
    weights      α_m as the recipe gives them, not normalised
    labels       the experts' names, which seed what is random
    is_matrix    whether methods for linear layers apply
    pulse        called with (iteration, residual) while a solve is under way; may raise to end it
    offset       elements of the tensor before these: a large tensor that is merged element by
                 element comes in flat pieces, in the order of the file; None for a whole one
    remember     (what, compute) → what this layer remembers of an earlier merge, or computes now;
                 `what` names the quantity and every option that it depends on
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

    @property
    def updates(self) -> Updates:
        """The task matrices Δ_m = W_m − W0."""
        return Updates(self.base, self.experts)

    @property
    def shares(self) -> tuple[float, ...]:
        """α_m normalised to sum one."""
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)

    def measured(self, kind: str) -> tuple[Tensor, ...] | None:
        """One kind of statistics of all experts, or None if any expert lacks it."""
        of_gram = kind in GRAMS
        values = [own.gram(kind) if of_gram else getattr(own, kind) for own in self.statistics]
        known = tuple(value for value in values if value is not None)
        return known if known and len(known) == len(values) else None

    def has(self, kind: str) -> bool:
        """Whether a kind of Grams was measured of all experts, as a matrix or in factors."""
        found = [getattr(own, kind) is not None or own.factors(kind) for own in self.statistics]
        return bool(found) and all(found)

    def grams(self, kind: str) -> tuple[Tensor, ...] | tuple[LowRank, ...] | None:
        """One kind of Grams of all experts: in factors where all are, else as matrices."""
        factors = tuple(own.factors(kind) for own in self.statistics)
        known = tuple(gram for gram in factors if gram is not None)
        return known if known and len(known) == len(factors) else self.measured(kind)

    @property
    def mean_update(self) -> Tensor:
        """Σ α_m Δ_m with normalised weights: the mean task vector."""
        return weighted_sum(self.updates, self.shares)


class Updates(Sequence[Tensor]):
    """Δ_m = W_m − W0, each subtracted when it is asked for: no copy of every expert at once."""

    def __init__(self, base: Tensor, experts: tuple[Tensor, ...]) -> None:
        self.base, self.experts = base, experts

    def __len__(self) -> int:
        return len(self.experts)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return Updates(self.base, self.experts[index])
        return self.experts[index] - self.base

    def every(self, stride: int, phase: int = 0) -> Iterator[Tensor]:
        """One entry of each task matrix out of `stride`, flat, from the one at `phase` on."""
        base = self.base.reshape(-1)[phase::stride]
        for expert in self.experts:
            yield expert.reshape(-1)[phase::stride] - base


@dataclass(frozen=True)
class Merged:
    """What a method made of one layer.

    value        the merged tensor W, in the layer's shape
    method       what was really applied (a fallback has another name than the recipe's method)
    treatment    `merged`, or `averaged` where the mean task vector was taken
    solution     the solver's trace, where there was a solve
    details      numbers worth showing, such as the weight each task really got
    """

    value: Tensor
    method: str
    treatment: Treatment = "merged"
    status: str = "exact"
    solution: Solution | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


SurveyScope = Literal["model", "tensor", "none"]
Survey = Callable[[Callable[[], Iterable[Layer]], Any], Any]


def reads_nothing(options: Any) -> frozenset[str]:
    return frozenset()


def never(options: Any) -> bool:
    return False


def no_survey(options: Any) -> SurveyScope:
    return "none"


def no_tensor(options: Any, is_matrix: bool) -> bool:
    return False


def every_tensor(options: Any, is_matrix: bool) -> bool:
    return True


def but_matrices(options: Any, is_matrix: bool) -> bool:
    """Elementwise are those that only take the mean."""
    return not is_matrix


def small_pieces(options: Any) -> int:
    """Few enough for a cache, enough for the calls on them to pay."""
    return 1 << 18


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`.

    group      what it needs: nothing but weights, task vectors, or statistics
    merge      (layer, options, survey) → Merged
    reads      kinds of statistics that it would use, given its options
    requires   kinds without which the whole merge makes no sense
    survey     a first pass over all layers of `surveys`, for methods with a view of more than one
               element; what it returns must survive JSON, which keeps it for a resumed merge
    surveys    whether the survey is of the model, or of each tensor that comes in pieces
    pieces     (options, whether it is a matrix) → whether a tensor may be merged piece by piece,
               because no element of the result depends on any other
    rescale    a second pass: norms of all updates and options → a factor for each
    weighted   whether the experts' weights enter
    folds      whether biases join their weight, given its options
    piece      options → elements of a piece
    experts    how many experts it merges; None: any number
    reads_base whether it looks at W0 at all; if not, pieces come without it
    """

    name: str
    title: str
    group: Group
    summary: str
    formula: str
    source: str
    options: type[Options]
    merge: Callable[[Layer, Any, Any], Merged]
    reads: Callable[[Any], frozenset[str]] = reads_nothing
    requires: frozenset[str] = frozenset()
    survey: Survey | None = None
    surveys: Callable[[Any], SurveyScope] = no_survey
    pieces: Callable[[Any, bool], bool] = no_tensor
    rescale: Callable[[Mapping[str, float], Any], Mapping[str, float]] | None = None
    weighted: bool = True
    folds: Callable[[Any], bool] = never
    piece: Callable[[Any], int] = small_pieces
    experts: int | None = None
    reads_base: bool = True


def weighted_sum(values: Iterable[Tensor], weights: Iterable[float]) -> Tensor:
    """Σ_m α_m V_m."""
    total: Tensor | None = None
    for value, weight in zip(values, weights, strict=True):
        total = value * weight if total is None else total.add_(value, alpha=weight)
    if total is None:
        raise ValueError("nothing to sum")
    return total


def averaged(layer: Layer) -> Merged:
    """The weighted mean, for parameters that a method leaves aside."""
    return Merged(weighted_sum(layer.experts, layer.shares), "mean", "averaged")


def norm(value: Tensor) -> float:
    """Frobenius norm, accumulated in float64 where the device has it."""
    if value.device.type == "mps":
        return float(value.norm())
    return float(torch.linalg.vector_norm(value, dtype=torch.float64))
