"""What every method declares of itself: one row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .cost import Cost, Shape
from .layer import Layer, Merged
from .options import Options
from .stages import PLAIN, Stage

Group = Literal["weights", "task vectors", "statistics"]


SurveyScope = Literal["model", "tensor", "none"]
Survey = Callable[[Callable[[], Iterable[Layer]], Any], Any]


def reads_nothing(options: Any) -> frozenset[str]:
    """No kind of statistics, whatever the options."""
    return frozenset()


def never(options: Any) -> bool:
    """False, whatever the options."""
    return False


def always(options: Any) -> bool:
    """True, whatever the options."""
    return True


def no_survey(options: Any) -> SurveyScope:
    """No survey, whatever the options."""
    return "none"


def no_tensor(options: Any, is_matrix: bool) -> bool:
    """False for every tensor: none may be merged piece by piece."""
    return False


def every_tensor(options: Any, is_matrix: bool) -> bool:
    """True for every tensor: any may be merged piece by piece."""
    return True


def but_matrices(options: Any, is_matrix: bool) -> bool:
    """True for all but matrices, which alone are merged otherwise than by the mean."""
    return not is_matrix


def small_pieces(options: Any) -> int:
    """Elements of a piece: few enough for a cache, enough for the calls on them to pay."""
    return 1 << 18


@dataclass(frozen=True)
class Solve:
    """The iterative solve of a method.

    limit      the option that says how many iterations it has at most
    undamped   options with which nothing holds the solve back but its own iterations
    """

    limit: str
    undamped: Mapping[str, Any]


def nothing_against(options: Any) -> str:
    """No reason, whatever the options."""
    return ""


def one_sum(shape: Shape, options: Any) -> float:
    """As many numbers as the layer has."""
    return float(shape.elements)


@dataclass(frozen=True)
class Sums:
    """What a method keeps of a merge, so that an expert can be added later (`Layer.total`).

    why_not    options → why nothing can be kept, in words; "" where it can
    each       kinds of statistics that are kept of every expert, as no sum stands for them
    elements   (shape, options) → numbers that are kept of a layer
    """

    why_not: Callable[[Any], str] = nothing_against
    each: frozenset[str] = frozenset()
    elements: Callable[[Shape, Any], float] = one_sum


@dataclass(frozen=True)
class Counterpart:
    """The same merge in a mergekit configuration.

    method      mergekit's `merge_method`
    sentence    in what the two agree
    parameters  those of the whole merge
    each        further parameters of every expert
    scaling     factor of every expert's weight; None: mergekit takes no weights here
    base        what its `base_model` is: the base, the first expert, or "" for none
    weights     for which weights it is the same: any, positive ones, or equal ones
    """

    method: str
    sentence: str
    parameters: Mapping[str, Any]
    each: Mapping[str, Any] = field(default_factory=dict)
    scaling: float | None = 1.0
    base: Literal["base", "first expert", ""] = "base"
    weights: Literal["any", "positive", "equal"] = "any"


@dataclass(frozen=True)
class Method:
    """One row of `METHODS`.

    name       in recipes and on the command line
    title      what a page calls it
    group      what it needs: nothing but weights, task vectors, or statistics
    summary    what it does, in a sentence
    formula    in LaTeX
    source     the papers
    options    the class of its options
    merge      (layer, options, survey) → Merged
    cost       (shape, options) → treatment, work and bytes of one layer
    short      a shorter title, for the names of runs; the title by default
    reads      kinds of statistics that it would use, given its options
    requires   kinds without which the whole merge makes no sense, given its options
    survey     a first pass over all layers of `surveys`, for methods with a view of more than one
               element; what it returns must survive JSON, which keeps it for a resumed merge
    surveys    whether the survey is of the model, or of each tensor that comes in pieces
    pieces     (options, whether it is a matrix) → whether a tensor may be merged piece by piece,
               because no element of the result depends on any other
    rescale    a second pass: norms of all updates and options → a factor for each
    weighted   whether the experts' weights enter; of a method that treats all alike only their
               signs do
    normalises whether weights are divided by their sum, given its options, which must be positive
    folds      whether biases join their weight, given its options
    piece      options → elements of a piece
    experts    how many experts it merges; None: any number
    reads_base whether it looks at W0 at all; if not, pieces come without it
    factored   whether it takes Grams in factors as they are; else they are multiplied out
    fallback   the method that a matrix without statistics gets instead; "" for none
    ways       other names of what it applied itself, in its layers' reports
    calibrates whether its layers are measured one after the other inside of the model, on
               calibration inputs, while it merges
    asks       whether every expert must name its task for that, given its options
    solve      its iterative solve, which can be traced; None where every layer is exact
    exploring  options with which a page or a panel begins where they differ from the defaults: what
               pays only where one setting is tried after another
    sums       what it keeps so that an expert can be added to a finished merge; None: nothing
    stages     what it computes on its way through a layer, in this order
    mergekit   options → the same merge for mergekit, or why none is the same; None: mergekit has
               no such method
    """

    name: str
    title: str
    group: Group
    summary: str
    formula: str
    source: str
    options: type[Options]
    merge: Callable[[Layer, Any, Any], Merged]
    cost: Callable[[Shape, Any], Cost]
    short: str = ""
    reads: Callable[[Any], frozenset[str]] = reads_nothing
    requires: Callable[[Any], frozenset[str]] = reads_nothing
    survey: Survey | None = None
    surveys: Callable[[Any], SurveyScope] = no_survey
    pieces: Callable[[Any, bool], bool] = no_tensor
    rescale: Callable[[Mapping[str, float], Any], Mapping[str, float]] | None = None
    weighted: bool = True
    normalises: Callable[[Any], bool] = always
    folds: Callable[[Any], bool] = never
    piece: Callable[[Any], int] = small_pieces
    experts: int | None = None
    reads_base: bool = True
    factored: bool = False
    fallback: str = ""
    ways: tuple[str, ...] = ()
    calibrates: bool = False
    asks: Callable[[Any], bool] = never
    solve: Solve | None = None
    exploring: Mapping[str, Any] = field(default_factory=dict)
    sums: Sums | None = None
    stages: tuple[Stage, ...] = PLAIN
    mergekit: Callable[[Any], Counterpart | str] | None = None
