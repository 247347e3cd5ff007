"""Routed merges: branches beside a static merge, made layer by layer inside of the model.

Of every block those layers get branches whose output is added to no residual stream: query, key
and value, and the first matrix of the MLP (as in ESM++, arXiv 2606.19164), told by structure and
not by name (`stages.py`); or all of its linear layers.  With examples they walk through the routed
model itself, one stream an expert, so that a router is fitted to the inputs that it will get,
earlier branches included; from weights alone (SMILE, arXiv 2408.10174) no input is read.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..checkpoints import InMemory, Tensors, original
from ..errors import InputError, listing
from ..linear import worth_factors
from ..models import joined
from ..recipes import Plan
from ..statistics import room
from ..system import Event, nbytes
from .branching import Parts, Work, rank_of
from .first_pass import FirstPass, as_matrix
from .later import Later
from .reading import treated_as_matrix
from .side_by_side import Pair, streams_budget


@dataclass(frozen=True)
class Built:
    """The branches of a routed merge.

    beside    a weight, by the base's name → its parts, by the names of `models.routing.PARTS`
    rightly   an expert → the share of its examples, over all routed layers, that take its branch
              (of tokens with `smile`); empty where none were read
    """

    beside: Mapping[str, Parts]
    rightly: Mapping[str, float]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All parts by their names beside the weights."""
        return joined(self.beside)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return nbytes(self.tensors)


def require(plan: Plan) -> None:
    """Raise `InputError` for a routed merge that these models cannot have."""
    routed = plan.recipe.routed
    if routed is None:
        return
    thing, experts = "'routed'", plan.inputs.family.experts
    if plan.inputs.vectors is not None:
        raise InputError(thing, expected="experts with weights", found="(IA)³ vectors")
    if plan.inputs.earlier is not None:
        raise InputError(
            thing,
            expected="the files of all experts, to which its branches lead",
            found="a merge that adds to another, by 'adds_to'",
            remedy="Merge all experts at once.",
        )
    if routed.by in ("first_pass", "prototypes", "discriminant") and not routed.examples:
        raise InputError(
            f"'routed' by '{routed.by}'",
            expected="'examples' of at least 1: it is fitted to inputs",
            found="0",
            remedy="Choose by 'updates' or 'smile', which need no data.",
        )
    named = {"the base": plan.inputs.family.base, experts[0].name: experts[0].checkpoint}
    bare = [name for name, weights in named.items() if weights.directory is None]
    if bare:
        held = any(isinstance(original(weights), InMemory) for weights in named.values())
        raise InputError(
            thing,
            expected="models in directories, whose config.json says how their layers are built",
            found=f"{'models in memory' if held else 'bare tensors'}: {listing(bare)}",
            remedy="Save each with `save_pretrained` and give the directories."
            if held
            else "Name directories with config.json.",
        )
    without = [expert.name for expert in experts if not expert.can_be_asked]
    if routed.samples and without:
        raise InputError(
            f"'routed' by '{routed.by}' with 'examples' {routed.examples}",
            expected="a task and a model's directory for every expert",
            found=f"none for {listing(without)}",
            remedy="Name tasks in a recipe, or choose by 'smile', or by 'updates' with "
            "'examples' 0, which need no data.",
        )


def told(plan: Plan, encoder: Tensors, built: Built) -> dict[str, Any]:
    """What a report says of the branches; nothing of a static merge."""
    routed = plan.recipe.routed
    if routed is None:
        return {}
    merged = sum(value.nbytes for value in encoder.values())
    return {
        **routed.model_dump(),
        "layers": len(built.beside),
        "bytes": built.nbytes,
        "size": 1 + built.nbytes / merged,
        "rightly": dict(built.rightly),
    }


def most_bytes(plan: Plan) -> int:
    """Bytes that the branches of a plan take at most, from shapes alone: of every matrix, for which
    of them read the residual stream is seen in the model only, and of all else that is chosen in a
    first pass."""
    routed, family = plan.recipe.routed, plan.inputs.family
    if routed is None or routed.rank == 0:
        return 0
    total, experts = 0, len(family.experts)
    for name in family.shared:
        matrix = treated_as_matrix(plan, name)
        if matrix or routed.by == "first_pass":
            rows, columns = family.shape(name) if matrix else as_matrix(family.shape(name))
            rank = rank_of(routed, rows, columns)
            own = rank * (rows + columns) if worth_factors(rows, columns, rank) else rows * columns
            each = own + (rows + routed.gate * columns if matrix else 0)
            total += experts * each * family.base.tensors[name].dtype.itemsize
    return total


def building(plan: Plan, encoder: Tensors, later: Later) -> Generator[Event, None, Built]:
    """The branches from a merge back to the experts of a plan, an event before each stage; none,
    and no event, of a merge that stays static.

    encoder   the merged tensors by the base's names
    later     where the branches of each stage are kept that are made
    """
    routed = plan.recipe.routed
    if routed is None or routed.rank == 0:
        return Built({}, {})
    yield Event(text="Looking for the layers that are routed")
    work = (FirstPass if routed.by == "first_pass" else Work)(plan, routed, encoder, later)
    whole = work.complete()  # nothing is left to be fitted: no example is read
    with room(streams_budget()) as kept:
        streams: list[Pair] = []
        for index, expert in enumerate(
            plan.inputs.family.experts if routed.samples and not whole else ()
        ):
            yield Event(text=f"Reading the calibration inputs of {expert.name}")
            pair = work.pair(index, kept)
            streams += [pair] if pair else []
        work.ready()
        for number, block in enumerate(work.blocks):
            far, said = number / len(work.blocks), f"Block {number + 1} of {len(work.blocks)}"
            for stage in filter(None, map(work.routes, block.stages)):
                text = f"{said}: branches of {listing(stage.layers, 1)}"
                yield Event(fraction=far, text=text)
                work.add(block, stage, streams)
            for pair in streams:
                yield Event(fraction=far, text=f"{said}: going on with {work.name(pair)}")
                work.go_on(block, pair)
    return Built(work.beside, work.told())
