"""Layer-by-layer loading: the merged model's parts are swapped into the base one after another.

After each part the encoder is evaluated on every task, so that a curve from the pre-trained encoder
to the merged one shows which depth brings what (after the figures of arXiv 2602.20208).  The order
of the parts is a choice, and what a part brings depends on the parts before it: that is why
several orderings are looked at side by side.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from .. import models
from ..errors import InputError, member
from ..evaluation import TaskResult, evaluate, examining
from ..families import Family
from ..names import before_blocks, block_of, module_of
from ..recipes import Inputs, Recipe
from ..system import Event, part
from ..tasks import SplitName

Ordering = Literal["input first", "output first", "largest first", "smallest first"]
ORDERINGS: dict[Ordering, str] = {
    "input first": "from the input to the output",
    "output first": "from the output to the input",
    "largest first": "largest update (Frobenius norm) first",
    "smallest first": "smallest update (Frobenius norm) first",
}
THREE: tuple[Ordering, ...] = ("input first", "output first", "largest first")
Grain = Literal["block", "half", "matrix"]
GRAINS: dict[Grain, str] = {"block": "blocks", "half": "attention and MLP", "matrix": "matrices"}
ASKED = 0.05  # of the whole: experts and base on their tasks, most often remembered
ATTENTION = ("attn", "attention", "layernorm_before", "norm1", "ln_1", "input_layernorm")


@dataclass(frozen=True)
class Part:
    """Tensors that are swapped in together: `name` of the part, names of its `tensors`."""

    name: str
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """`results` on every task after `part` was swapped in (None: the base, before any part)."""

    part: str | None
    results: tuple[TaskResult, ...]

    @property
    def normalised_accuracy(self) -> float:
        """The mean over tasks of merged / expert accuracy."""
        return evaluate.normalised_accuracy(self.results)


@dataclass(frozen=True)
class Loading:
    """The curves of a merge that is put together part by part.

    parts      names, from input to output
    norms      ‖W − W₀‖_F of each part's update
    curves     ordering → its steps, from the base to the whole merge
    split      that was tested on, and
    examples   at most so many of it a task
    """

    parts: tuple[str, ...]
    norms: Mapping[str, float]
    curves: Mapping[Ordering, tuple[Step, ...]]
    split: str
    examples: int | None = None


def load(
    recipe: Recipe,
    merged: Mapping[str, Tensor],
    *,
    inputs: Inputs,
    grain: Grain = "half",
    orderings: Sequence[Ordering] = THREE,
    split: SplitName = "validation",
    examples: int | None = 200,
) -> Generator[Event, None, Loading]:
    """Events of swapping the parts in by each ordering: `Asked` while a state is tested, and one
    after each state; returns all curves.

    A state that two orderings share is evaluated once.  Closing the generator cancels it.  Raises
    `InputError` for a family without tasks or an unknown ordering.
    """
    for ordering in orderings:
        member("ordering", ordering, ORDERINGS)
    family = inputs.family
    if not any(expert.task for expert in family.experts):
        raise InputError("layer-by-layer loading", expected="tasks", found="none")
    there = parts(family, grain)
    base = models.tensors_of(family.base)
    norms = [update_norm(part, base, merged) for part in there]
    orders: dict[Ordering, tuple[int, ...]] = {o: order(norms, o) for o in orderings}
    wanted = list(dict.fromkeys(state for path in orders.values() for state in _states(path)))
    found: dict[frozenset[int], tuple[TaskResult, ...]] = {}
    questions = yield from part(examining(family, recipe.folder, split, examples), 0.0, ASKED)
    for index, state in enumerate(wanted):
        start, stop = (ASKED + (1 - ASKED) * (index + k) / len(wanted) for k in (0, 1))
        encoder = assemble(base, merged, [there[i] for i in state])
        said = f"State {index + 1} of {len(wanted)}: {{}}"
        found[state] = yield from part(questions.take(encoder), start, stop, said)
        yield Event(fraction=stop, text=f"State {index + 1} of {len(wanted)} is tested")
    curves: dict[Ordering, tuple[Step, ...]] = {
        ordering: tuple(
            Step(there[path[k - 1]].name if k else None, found[state])
            for k, state in enumerate(_states(path))
        )
        for ordering, path in orders.items()
    }
    names = tuple(part.name for part in there)
    yield Event(fraction=1.0, text="Every state is tested")
    return Loading(names, dict(zip(names, norms, strict=True)), curves, split, examples)


def states(count: int, orderings: int) -> int:
    """The number of states to evaluate with so many parts, at most."""
    return 2 + orderings * (count - 1)


def _states(path: Sequence[int]) -> list[frozenset[int]]:
    return [frozenset(path[:k]) for k in range(len(path) + 1)]


def assemble(
    base: Mapping[str, Tensor], merged: Mapping[str, Tensor], swapped: Sequence[Part]
) -> dict[str, Tensor]:
    """The base's tensors with those of the swapped parts taken from the merged encoder."""
    taken = {name: merged[name] for part in swapped for name in part.tensors if name in merged}
    return {**base, **taken}


def update_norm(part: Part, base: Mapping[str, Tensor], merged: Mapping[str, Tensor]) -> float:
    """`‖W − W₀‖_F` over all tensors of a part."""
    squares = [
        float((merged[name].double() - base[name].double()).square().sum())
        for name in part.tensors
        if name in merged
    ]
    return sum(squares) ** 0.5


def order(norms: Sequence[float], ordering: Ordering) -> tuple[int, ...]:
    """Indices of the parts (numbered from input to output) in the order of their loading."""
    places = range(len(norms))
    if ordering == "input first":
        return tuple(places)
    if ordering == "output first":
        return tuple(reversed(places))
    sign = -1 if ordering == "largest first" else 1
    return tuple(sorted(places, key=lambda i: sign * norms[i]))


# Parts --------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class _Place:
    """Where a tensor stands in the network; sorting goes from the input to the output.

    `side`: 0 before, 1 in, 2 after the blocks.  `later`: a decoder follows its encoder.  `half`:
    0 attention with its norm, 1 the rest.  `module`: of a matrix; empty for all other parameters.
    """

    side: int
    later: bool = False
    stack: str = ""
    number: int = 0
    half: int = 0
    module: str = ""


def parts(family: Family, grain: Grain) -> tuple[Part, ...]:
    """The parts that all merged tensors of a family form, from input to output, by their names.

    A block is what shares the name up to its first number (`encoder.layer.2`).  With the grain
    `matrix` a weight and its bias are a part, and the norms of each half another.  Tensors outside
    the blocks are the embeddings, or follow the blocks.
    """
    member("grain", grain, GRAINS)
    names = [n for n, role in family.roles.items() if role in ("matrix", "vector", "tied")]
    matrices = {module_of(n) for n in names if family.roles[n] == "matrix"}
    grouped: dict[_Place, list[str]] = {}
    for name in names:
        # A tied tensor is swapped in with the one whose bytes it shares.
        place = _place(family.tied_to.get(name, name), matrices)
        if grain != "matrix":
            place = replace(place, module="", half=place.half if grain == "half" else 0)
        grouped.setdefault(place, []).append(name)
    several = len({place.stack for place in grouped if place.side == 1}) > 1
    halves = {(p.stack, p.number) for p in grouped if p.side == 1 and p.half == 0}
    return tuple(
        Part(
            _title(place, grouped[place], grain, several, (place.stack, place.number) in halves),
            tuple(grouped[place]),
        )
        for place in sorted(grouped)
    )


def _place(name: str, matrices: set[str]) -> _Place:
    block = block_of(name)
    if block is None:
        return _Place(0 if before_blocks(name) else 2)
    stack, number = block
    inside = ".".join(name.split(".")[len(stack.split(".")) * bool(stack) + 1 :])
    half = 0 if any(sign in inside.lower() for sign in ATTENTION) else 1
    module = module_of(inside) if module_of(name) in matrices else ""
    return _Place(1, "decoder" in stack, stack, number, half, module)


def _title(place: _Place, names: list[str], grain: Grain, several: bool, halved: bool) -> str:
    if place.side != 1:
        norms = all("norm" in name.lower() or "ln_" in name.lower() for name in names)
        late = "final norm" if norms else "after the blocks"
        return "embeddings" if place.side == 0 else late
    stack = f"{place.stack.split('.')[0]} " if several else ""
    title = f"{stack}block {place.number}"
    if grain == "block" or (grain == "half" and not halved):
        return title
    if place.module:
        return f"{title} · {' · '.join(dict.fromkeys(place.module.split('.')))}"
    half = ["attention", "MLP"][place.half] if halved else ""
    return f"{title} · {f'{half} norms'.strip() if grain == 'matrix' else half}"


__all__ = [
    "GRAINS", "ORDERINGS", "THREE", "Grain", "Loading", "Ordering", "Part", "Step", "assemble",
    "load", "order", "parts", "states", "update_norm",
]  # fmt: skip
