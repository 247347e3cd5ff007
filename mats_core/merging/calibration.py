"""Sequential calibration: layers in the order in which the model works, each where it stands.

Two models walk through the blocks side by side, on each expert's calibration inputs in turn: the
merge, whose earlier layers are calibrated, and the expert.  Of every stage their moments go to the
method as a layer's statistics; what it makes goes into the merge before the next stage is reached.
Blocks, stages and residual streams are found from the model itself (`stages.py`).  A
layer outside of them keeps what the start gives it, and the report says so.

Two models are in memory, whatever the number of experts: the expert's takes the weights of each in
turn, one block at a time.  A merge that goes on reads what it has done and solves the rest.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from .. import models, tasks
from ..checkpoints import Checkpoint, Tensors
from ..errors import InputError, listing
from ..evaluation import with_head
from ..families import Expert, Family
from ..methods import Layer, LayerStatistics, SequentialOptions
from ..names import module_of
from ..statistics import (
    Block,
    MeasureSettings,
    Moments,
    Stage,
    Stream,
    blocks_of,
    inputs_of_task,
    moments,
    room,
)
from ..system import Event, available_memory
from .engine import handed_on, made_of
from .plan import Plan, Unit, units
from .reading import read_layer, treated_as_matrix
from .sinks import MemorySink, emit, output_specs, take_over
from .workspace import Done, Place

SHARE = 0.25  # of the available memory, for what lies in front of a block
FREE = 4e9  # bytes, where it is not known


def streams_budget() -> float:
    """Bytes of what lies in front of a block that stay in memory; the rest goes to disk."""
    return SHARE * (available_memory() or FREE)


def require(plan: Plan) -> None:
    """Raise `InputError` where a method walks through models that cannot be asked."""
    if not plan.method.calibrates:
        return
    thing = f"method '{plan.method.name}'"
    if plan.recipe.engine != "local":
        raise InputError(thing, expected="engine 'local'", found=f"'{plan.recipe.engine}'")
    if plan.inputs.vectors is not None:
        raise InputError(thing, expected="experts with weights", found="(IA)³ vectors")
    without = [
        expert.name
        for expert in plan.inputs.family.experts
        if not expert.task or expert.checkpoint.directory is None
    ]
    if without:
        raise InputError(
            thing,
            expected="a task and a model's directory for every expert: layers are matched on each "
            "expert's inputs",
            found=f"none for {listing(without)}",
            remedy="Name tasks in the recipe, or choose 'kfac' with gram 'update', which needs no "
            "data.",
        )


def by_blocks(
    plan: Plan, todo: Sequence[Unit], survey: Any, place: Place
) -> Generator[Event | Done, None, None]:
    """An engine that walks through the model: first what no block holds, then stage by stage."""
    yield Event(text="Starting from the merge that is calibrated")
    walk = _Walk(plan, place)
    calibrated = {unit.name for unit in walk.units.values()}
    for unit in todo:
        if unit.name not in calibrated:
            yield handed_on(plan, unit, made_of(plan, unit, survey), place)
    left = {unit.name for unit in todo}
    with room(streams_budget()) as kept:
        streams: list[Pair] = []
        for index, expert in enumerate(plan.inputs.family.experts):
            yield Event(text=f"Reading the calibration inputs of {expert.name}")
            streams.append(walk.pair(index, kept))
        for number, block in enumerate(walk.blocks, 1):
            said = f"Block {number} of {len(walk.blocks)}"
            yield from _calibrated(walk, block, streams, left, said)


@dataclass(frozen=True)
class Pair:
    """The two streams of one task."""

    expert: int
    merge: Stream
    own: Stream


def _calibrated(
    walk: _Walk, block: Block, streams: Sequence[Pair], left: set[str], said: str
) -> Iterator[Event | Done]:
    """Solve a block stage by stage, and pass all streams through it."""
    for stage in block.stages:
        todo = {layer: walk.units[layer] for layer in stage.layers}
        todo = {layer: unit for layer, unit in todo.items() if unit.name in left}
        if not todo:
            continue
        seen: list[Moments] = []
        for pair in streams:
            yield Event(text=f"{said}: matching {listing(stage.layers, 1)} with {walk.name(pair)}")
            walk.become(pair.expert, block.module)
            seen.append(moments(pair.merge, pair.own, block, stage))
        for layer, unit in todo.items():
            yield walk.solved(unit, layer, stage, seen)
    for pair in streams:
        yield Event(text=f"{said}: going on with {walk.name(pair)}")
        walk.become(pair.expert, block.module)
        pair.own.go_on(block.module)
        pair.merge.go_on(block.module)


class _Walk:
    """The two models and what they are made of.

    blocks   of the model, in their order
    units    a module of a stage → its layer
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self.plan, self.place, self.options = plan, place, plan.options
        assert isinstance(self.options, SequentialOptions)
        self.encoder = _started(plan, place)
        family, first = plan.inputs.family, plan.inputs.family.experts[0]
        tensors = with_head(self.encoder.tensors, family, first)
        self.merge, self.expert = (apart(first, tensors, plan.device) for _ in range(2))
        self.names = base_names(first, tensors, self.merge)
        merged = {unit.name: unit for unit in units(plan) if treated_as_matrix(plan, unit.name)}
        linear = {
            module_of(name): merged[base] for name, base in self.names.items() if base in merged
        }
        self.blocks = blocks_of(self.merge, few(self._inputs(first)[0]), linear)
        stages = [stage for block in self.blocks for stage in block.stages]
        self.units = {layer: linear[layer] for stage in stages for layer in stage.layers}

    def _inputs(self, expert: Expert) -> list[Mapping[str, Tensor]]:
        assert isinstance(self.options, SequentialOptions)
        return calibration_inputs(
            self.plan, expert, self.encoder.tensors, examples=self.options.examples
        )

    def name(self, pair: Pair) -> str:
        """The expert's name of a pair of streams."""
        return self.plan.inputs.family.experts[pair.expert].name

    def pair(self, index: int, kept: Any) -> Pair:
        """The streams of one expert in front of the first block."""
        self.become(index, "")
        block = self.blocks[0].module
        batches = self._inputs(self.plan.inputs.family.experts[index])
        merge = Stream(self.merge, block, batches, kept)
        return Pair(index, merge, Stream(self.expert, block, batches, kept))

    def become(self, index: int, block: str) -> None:
        """Put an expert's weights into the expert's model, of one block ("" for all)."""
        family = self.plan.inputs.family
        put_into(self.expert, self.names, family, family.experts[index], block)

    def solved(self, unit: Unit, layer: str, stage: Stage, seen: Sequence[Moments]) -> Done:
        """A layer solved with the moments of all tasks, written, and put into the merge."""
        plan = self.plan
        known = read_layer(plan, unit)
        made = made_of(plan, unit, layer=_measured(known, layer, unit, seen))
        done = handed_on(plan, unit, made, self.place)
        written = set(emit(plan, unit, made.merged.value, self.encoder))
        held = _values(self.merge)
        for name, base in self.names.items():
            if base in written:
                held[name].copy_(self.encoder.tensors[base])
        return done


def _measured(known: Layer, name: str, unit: Unit, seen: Sequence[Moments]) -> Layer:
    """The layer with the moments as its statistics, without the column of a bias it has not."""
    size = None if unit.bias is not None else -1
    own = known.statistics or (LayerStatistics(),) * len(seen)
    statistics = []
    for before, found in zip(own, seen, strict=True):
        lost = found.lost.get(name)
        statistics.append(
            replace(
                before,
                input_gram=found.gram[:size, :size].to(known.base),
                cross_gram=found.cross[:size, :size].to(known.base),
                lost=None if lost is None else lost[:, :size].to(known.base),
            )
        )
    return replace(known, statistics=tuple(statistics))


def _started(plan: Plan, place: Place) -> MemorySink:
    """The merge that is calibrated, in memory; of one that goes on, what it has done."""
    sink = MemorySink(output_specs(plan))
    written = Checkpoint.open(place.folder) if place.past and place.folder else None
    for unit in units(plan):
        entry = place.past.get(unit.name)
        emit(plan, unit, made_of(plan, unit).merged.value, sink)
        if entry is not None and written is not None:
            for name in entry.checksums:
                sink.tensors[name] = written.read(name)
    take_over(plan, sink)
    return sink


def calibration_inputs(
    plan: Plan, expert: Expert, encoder: Tensors, *, examples: int
) -> list[Mapping[str, Tensor]]:
    """Batches of an expert's task as the encoder with its head is called with them, no labels."""
    settings = MeasureSettings(examples=examples, seed=plan.recipe.seed, device=plan.device)
    tensors = with_head(encoder, plan.inputs.family, expert)
    task = tasks.load(expert.task, root=plan.recipe.folder)
    return inputs_of_task(expert.checkpoint, task, settings, tensors)


def base_names(expert: Expert, tensors: Tensors, model: nn.Module) -> dict[str, str]:
    """The base's name for each name in the expert's module that was built of these tensors.

    Raises `InputError` where a parameter is put together from several tensors.
    """
    directory = expert.checkpoint.directory
    own = models.parameter_names(directory, tensors, buffers=True)
    back = {expert.own(name): name for name in expert.checkpoint.tensors}
    require_whole(model, own, str(directory))
    return {name: back[theirs] for name, theirs in own.items() if theirs in back}


def put_into(
    model: nn.Module, names: Mapping[str, str], family: Family, expert: Expert, block: str
) -> None:
    """Put an expert's weights, but for its head, into a block of a model ("" for all of it).

    names   the base's name for each name in the model
    """
    held, checkpoint = _values(model), expert.checkpoint
    for name, base in names.items():
        mine = not block or name.startswith(f"{block}.")
        if mine and family.roles.get(base) != "head" and base in checkpoint.tensors:
            held[name].copy_(checkpoint.read(base))


def apart(expert: Expert, tensors: Mapping[str, Tensor], device: str) -> nn.Module:
    """A model whose weights are its alone: one that is built may hold the tensors that it is given,
    and both models change."""
    copies = {name: value.clone() for name, value in tensors.items()}
    model = models.build(expert.checkpoint.directory, copies, device=device)
    config: Any = model.config
    config.use_cache = False  # of keys and values: a block that runs again would add to it
    return model


def _values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.data for name, value in (*model.named_parameters(), *model.named_buffers())}


def few(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The first two sequences of a batch, for a look at the model."""
    return {name: value[:2] for name, value in batch.items()}


def require_whole(model: nn.Module, names: Mapping[str, str], thing: str) -> None:
    lost = [name for name, _ in model.named_parameters() if name not in names]
    if lost:
        raise InputError(
            f"model '{thing}'",
            expected="a tensor of the checkpoint for every parameter",
            found=f"none for {listing(lost, 3)}, which are put together from several",
            remedy="Choose another method: this one puts layers into the model one by one.",
        )
