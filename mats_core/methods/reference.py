"""Every option of every method as a widget, a parser or the reference page needs it."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ..errors import listing, member
from .method import Method
from .options import Options, Section
from .steps import STEPS
from .table import METHODS

Kind = Literal["int", "float", "bool", "text", "choice"]
Control = Literal["switch", "toggle", "choice", "text", "number", "slider", "series"]
MOST_STEPS = 200  # of a slider; a wider range is typed
PLAIN: dict[Kind, type] = {"bool": bool, "float": float, "int": int, "text": str}


@dataclass(frozen=True)
class OptionField:
    """One option of a method, as the command line, a widget or the reference page needs it.

    name             key of the recipe
    kind             int, float, bool, text, or choice
    default          the value where the recipe has none
    help             what it does, in a sentence
    low, high        bounds of a number; None: unbounded
    step             what a slider moves by
    choices          the names that are allowed, for a choice
    numeric          whether a number is allowed as well
    optional         whether None ("by default") is a value
    source           where the default comes from
    label            the page's name for it; "" for its name without underscores
    section          the heading that it stands under on the page
    more             whether the page keeps it behind "More settings"
    switch           whether 0 turns it off: the page draws a switch beside its slider
    checkpoint       the names that it takes, where any other text is the path of a checkpoint
    task             whether it names a task
    base_statistics  the value with which a recipe must name the base's statistics
    vectors          the value that it has by default where (IA)³ vectors are merged
    by_experts       (number of experts, default where so many are merged), of those numbers that
                     have another default
    """

    name: str
    kind: Kind
    default: Any
    help: str
    low: float | None = None
    high: float | None = None
    step: float | None = None
    choices: tuple[str, ...] = ()
    numeric: bool = False
    optional: bool = False
    source: str = ""
    label: str = ""
    section: Section | None = None
    more: bool = False
    switch: bool = False
    checkpoint: tuple[str, ...] = ()
    task: bool = False
    base_statistics: str = ""
    vectors: str = ""
    by_experts: tuple[tuple[int, Any], ...] = ()

    @property
    def words(self) -> str:
        """The option's name without underscores: `layer power`."""
        return self.name.replace("_", " ")

    @property
    def title(self) -> str:
        """The page's name for the option."""
        return self.label or self.words.capitalize()

    @property
    def control(self) -> Control:
        """What a page or a panel sets the option with.

        A `series` is a slider over several powers of ten, a `switch` one that 0 turns off.
        """
        if self.switch or self.kind == "bool":
            return "switch" if self.switch else "toggle"
        if self.kind == "choice" or self.checkpoint:
            return "choice"
        if self.kind == "text":
            return "text"
        if self.optional or self.default is None or self.high is None or not self.step:
            return "number"
        if self.low is not None and (self.high - self.low) / self.step <= MOST_STEPS:
            return "slider"
        return "series" if self.low == 0 and self.step != 1 else "number"

    def series(self, *also: Any) -> list[Any]:
        """The values of a `series`: 0, then 1, 2, 3, 5, 7 times each power of ten, the default,
        and those of `also`."""
        kind, high = PLAIN[self.kind], self.high or 1.0
        first = 0 if kind is int else -4 + math.floor(math.log10(high))
        powers = range(first, math.ceil(math.log10(high)) + 1)
        values = {kind(float(f"{digit}e{power}")) for power in powers for digit in (1, 2, 3, 5, 7)}
        chosen = {0, self.default, *also, *(value for value in values if value <= high)}
        return sorted(map(kind, chosen))


def describe(method: str, experts: int | None = None) -> tuple[OptionField, ...]:
    """All options of a method, read off its declaration.

    experts   how many are merged: each field's `default` is then the one for so many; None: many
    """
    member("method", method, METHODS)
    fields = fields_of(METHODS[method].options)
    if experts is None:
        return fields
    return tuple(replace(f, default=dict(f.by_experts).get(experts, f.default)) for f in fields)


@functools.cache  # a page asks a hundred times a run
def fields_of(options: type[Options]) -> tuple[OptionField, ...]:
    """All options of a class of options, read off its declaration."""
    return tuple(_field(name, info) for name, info in options.model_fields.items())


def named_checkpoints(method: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Option → path, of every option of a method that names a checkpoint to start from."""
    return {
        field.name: value
        for field in describe(method)
        if field.checkpoint
        and isinstance(value := options.get(field.name), str)
        and value not in field.checkpoint
    }


def named_tasks(method: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Option → reference, of every option of a method that names a task."""
    named = {field.name: options.get(field.name) for field in describe(method) if field.task}
    return {name: value for name, value in named.items() if value}


def options_of_the_base(method: str, options: Mapping[str, Any]) -> tuple[OptionField, ...]:
    """The options with a value for which statistics of the base must be given."""
    return tuple(
        field
        for field in describe(method)
        if field.base_statistics and options.get(field.name) == field.base_statistics
    )


def _field(name: str, info: FieldInfo) -> OptionField:
    parts = _alternatives(info.annotation)
    choices = tuple(c for part in parts if get_origin(part) is Literal for c in get_args(part))
    metadata = [*info.metadata, *_inner(info.annotation)]
    bounds = {key: float(v) for bound in metadata for key, v in asdict(bound).items()}
    shown: dict[str, Any] = dict(info.json_schema_extra or {})  # type: ignore[arg-type]
    if "section" in shown:
        shown["section"] = Section(**shown["section"])
    return OptionField(
        name=name,
        kind="choice" if choices else next(k for k, plain in PLAIN.items() if plain in parts),
        default=info.default,
        help=info.description or "",
        low=bounds.get("ge", bounds.get("gt")),
        high=bounds.get("le"),
        choices=choices,
        numeric=bool(choices) and float in parts,
        optional=types.NoneType in parts,
        **shown,
    )


def _inner(annotation: Any) -> list[Any]:
    """What is said of the parts of an annotation, such as the bounds of a number beside names."""
    said = [m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, FieldInfo)]
    parts = [_inner(part) for part in get_args(annotation) if not isinstance(part, FieldInfo | str)]
    return [
        *(bound for one in said for bound in one.metadata),
        *(b for part in parts for b in part),
    ]


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [part for choice in get_args(annotation) for part in _alternatives(choice)]
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    return [annotation]


# The reference ------------------------------------------------------------------------------------


NEEDS = {
    "weights": "nothing but the experts' weights",
    "task vectors": "the base and the experts",
    "statistics": "the experts' statistics (`measure`)",
}


def needs(name: str) -> str:
    """What a method needs beside the experts, in words, and with which option it needs less."""
    method = METHODS[name]
    required = method.requires(method.options())
    said = "each expert's task, whose inputs it looks at" if method.calibrates else ""
    said = said or NEEDS[method.group]
    for field in describe(name):
        for choice in field.choices:
            options = method.options.model_validate({field.name: choice})
            less, more = method.requires(options) < required, method.requires(options) - required
            if less and not method.requires(options):
                said += f"; with `{field.name}` `{choice}` nothing but base and experts"
            elif method.asks(method.options()) and not method.asks(options):
                said += f"; with `{field.name}` `{choice}` not every expert's"
            elif less or more:
                kinds = listing(sorted(method.requires(options)))
                said += f"; with `{field.name}` `{choice}` {kinds}"
    return said


def as_dict(name: str) -> dict[str, Any]:
    """One method as plain values, with the JSON schema of its options."""
    method = METHODS[name]
    return {
        "name": name,
        "title": method.title,
        "needs": method.group,
        "summary": method.summary,
        "formula": method.formula,
        "source": method.source,
        "weighted": method.weighted,
        "options": [asdict(field) for field in describe(name)],
        "schema": method.options.model_json_schema(),
    }


def bounds(field: OptionField) -> str:
    """What values an option takes, in a few words."""
    if field.choices:
        text = " · ".join(field.choices) + (" · a number" if field.numeric else "")
    elif field.low is not None and field.high is not None:
        text = f"{field.low:g} … {field.high:g}"
    elif field.low is not None:
        text = f"from {field.low:g}"
    else:
        text = {"bool": "true · false", "text": "text"}.get(field.kind, field.kind)
    return text + (" (or null)" if field.optional else "")


def catalogue() -> dict[str, dict[str, dict[str, Any]]]:
    """All that is declared of methods and of steps after a merge, as plain values by their names:
    `as_dict` of each method; in words what it needs, how it takes the tasks' weights, and the
    values of each option."""
    return {
        "methods": {
            name: {
                **as_dict(name),
                "needed": needs(name),
                "weights": _weights(method),
                "values": [bounds(field) for field in describe(name)],
            }
            for name, method in METHODS.items()
        },
        "steps": {
            name: {
                "title": step.title,
                "summary": step.summary,
                "formula": step.formula,
                "source": step.source,
                "options": [asdict(field) for field in fields_of(step.options)],
                "values": [bounds(field) for field in fields_of(step.options)],
            }
            for name, step in STEPS.items()
        },
    }


def _weights(method: Method) -> str:
    signed = not method.normalises(method.options())
    if method.weighted:
        return "used, may be negative" if signed else "used, with a sum above zero"
    if method.experts is not None:
        return f"not used; exactly {method.experts} experts"
    return "only their signs are used" if signed else "not used, tasks are treated alike"
