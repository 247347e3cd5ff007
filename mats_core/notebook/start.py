"""What a panel begins with: judged before anything is opened, measured or merged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import InputError, listing, member
from ..methods import METHODS, PRESETS, PROPOSED, WITHOUT_DATA, Preset
from ..recipes import Recipe, parse_options, taking_part, weights_of
from ..system import drain
from . import board, controls, render
from .picture import matrices
from .subjects import Request, Subject, repeats


@dataclass(frozen=True)
class Start:
    """What a panel begins with.

    request   the settings of the first merge, and the layer that is looked at
    view      the name of the view that is shown
    """

    request: Request
    view: str


def start(
    explored: Subject,
    *,
    method: str | None = None,
    preset: str | None = None,
    options: Mapping[str, Any] | None = None,
    weights: Mapping[Any, float] | Sequence[float] | None = None,
    device: str = "auto",
    rounds: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    after: Sequence[Any] = (),
    by: Sequence[Any] = (),
    view: str | None = None,
    layer: str = "",
) -> Start:
    """The beginning that these arguments of `explore` ask for.

    Raises `InputError` for a name that is none, for options, weights or rounds that the method does
    not take, and for a method beside a preset, which has one.
    """
    known = _preset(explored, method, preset)
    name = _method(explored, known.method if known else method)
    begun = known.options if known else METHODS[name].exploring
    given = {**begun, **(options or {})}
    weighted = weights_of(weights, explored.names)
    count = taking_part(explored.names, weighted)
    request = Request(
        name,
        tuple(parse_options(name, given, explored.folder or Path(), count).model_dump().items()),
        explored.names,
        tuple(weighted.items()),
        member("device", device, board.devices()),
        rounds or (known.rounds if known else 1),
        _layer(explored, layer),
        seed,
        dtype,
        tuple(after or (known.after if known else ())),
        tuple(by),
    )
    if request.rounds > 1 and not repeats(explored, name):
        raise InputError(
            "rounds",
            expected="1, for models in memory and for methods that read no statistics",
            found=str(request.rounds),
        )
    found = _weights(explored.recipe(request))  # which judges what is left
    shown = view or ("Layer" if layer else next(iter(render.VIEWS)))
    return Start(replace(request, weights=found), member("view", shown, render.VIEWS))


def _preset(explored: Subject, method: str | None, title: str | None) -> Preset | None:
    if title is None:
        return None
    if method is not None:
        raise InputError(
            "what to begin with",
            expected="a method or a preset",
            found=f"both, '{method}' and '{title}'",
            remedy="Leave the method out: a preset has its own.",
        )
    member("preset", title, controls.presets(**_what(explored)))
    return next(one for one in PRESETS if one.title == title)


def _method(explored: Subject, name: str | None) -> str:
    offered = [one for _, one in controls.methods(**_what(explored))]
    return member("method", name or (PROPOSED if explored.measures else WITHOUT_DATA), offered)


def _what(explored: Subject) -> dict[str, bool]:
    """Whether statistics are measured, and whether models are files."""
    return {"measured": explored.measures, "files": explored.folder is not None}


def _weights(recipe: Recipe) -> tuple[tuple[str, float], ...]:
    found = {expert.name: expert.weight for expert in recipe.experts}
    if not METHODS[recipe.method].weighted and len(set(found.values())) > 1:
        raise InputError(
            f"weights of '{recipe.method}'",
            expected="equal ones: the method treats its experts alike",
            found=listing(f"{name} {weight:g}" for name, weight in found.items()),
            remedy="Choose a weighted method such as 'task_arithmetic'.",
        )
    return tuple(found.items())


def _layer(explored: Subject, name: str) -> str:
    """The name of a weight that can be looked at; to judge it, what is explored is opened."""
    if not name:
        return ""
    drain(explored.opening())
    return member("layer", name, matrices(explored.inputs(explored.names).family))
