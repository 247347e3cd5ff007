"""What every method is made of: a layer, its options, and what came out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .layer import Layer, Merged
from .options import Options

Group = Literal["weights", "task vectors", "statistics"]


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
    solves     whether it iterates on a matrix and tells `Layer.pulse` of every step
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
    solves: bool = False
