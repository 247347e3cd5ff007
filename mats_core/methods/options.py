"""Options of a method, declared once; everything that shows them derives from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """Base of every method's options: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Section:
    """A heading that several options stand under on the page, and a sentence below it."""

    title: str
    sentence: str


def option(
    default: Any = ...,
    help: str | None = None,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    step: float | None = None,
    source: str = "",
    label: str = "",
    section: Section | None = None,
    more: bool = False,
    switch: bool = False,
    checkpoint: tuple[str, ...] = (),
    task: bool = False,
    base_statistics: str = "",
    vectors: str = "",
    by_experts: Mapping[int, Any] | None = None,
) -> Any:
    """One option, declared once: YAML schema, command line, widgets and reference derive from it.

    What several methods have in common stands in a type below, and the option adds the rest to it;
    the bounds of such a type stay, so an option with others declares all of them itself.

    low, high        inclusive bounds
    above            an exclusive lower bound
    step             what a slider moves by
    source           where the default comes from
    label            what the page calls it; its name without underscores by default
    section          the heading that it stands under on the page
    more             whether the page keeps it behind "More settings"
    switch           whether 0 turns it off: the page draws a switch beside its slider
    checkpoint       the names that it takes; any other text is the path of a checkpoint to start
                     from, and such an option is the only one of its method
    task             whether it names a task, as an expert of a recipe does
    base_statistics  the value with which a recipe must name the base's statistics
    vectors          the value that it has, unless the recipe sets it, where (IA)³ vectors are
                     merged; each vector's full block must then be measured
    by_experts       number of experts → the value that it has where so many are merged, unless the
                     recipe sets it; of any other number it has `default`.  Such an option must
                     not enter the sums that a merge keeps for later (`Sums`)
    """
    declared: dict[str, Any] = {
        "step": step, "source": source, "label": label, "more": more, "switch": switch,
        "section": asdict(section) if section else None, "checkpoint": checkpoint,
        "task": task, "base_statistics": base_statistics, "vectors": vectors,
        "by_experts": tuple(sorted((by_experts or {}).items())),
    }  # fmt: skip
    extra = {key: value for key, value in declared.items() if value}
    known = {"description": help, "ge": low, "le": high, "gt": above}
    checks: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
    return Field(default, json_schema_extra=extra, **checks)


# What several methods have in common --------------------------------------------------------------

Share = Annotated[float, option(low=0, high=1, step=0.05)]
Factor = Annotated[float, option(low=0, high=3, step=0.05)]
Signed = Annotated[float, option(low=-3, high=3, step=0.05)]  # negative: to forget a task
Strength = Annotated[float, option(low=0, high=10, step=0.01)]
Damping = Annotated[
    Strength, option(help="δ, Tikhonov damping as a share of the mean eigenvalue, of A and of B")
]
Count = Annotated[int, option(low=0, high=2000, step=5)]
Iterations = Annotated[
    Count, option(help="conjugate-gradient iterations at most", label="CG iterations")
]
Tolerance = Annotated[float, option(help="relative residual at which a layer stops", low=0, high=1)]
ErrorGoal = Annotated[
    float | None,
    option(
        help="estimated error of the update at which a layer stops, as a share of it, instead of "
        "at `tolerance`; of a preconditioned solve",
        above=0,
        high=1,
        label="Error of the update",
        more=True,
    ),
]
FoldBias = Annotated[
    bool, option(help="merge [W b] as one matrix", label="Merge biases with their weight")
]
Normalise = Annotated[bool, option(label="Normalise each task")]
Rank = Annotated[int | None, option(low=1, label="Rank of each task's subspace")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Prior = Annotated[Literal["pretrained"] | Positive, option(base_statistics="pretrained")]
