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

import torch
from torch import Tensor

from ..checkpoints import SHARD_BYTES, Checkpoint
from ..errors import InputError, listing
from ..evaluation import with_head
from ..families import Expert
from ..methods import Layer, LayerStatistics, SequentialOptions, measured_at_once
from ..names import module_of
from ..recipes import BLOCK, INPUTS, STAGE, STREAMS, FeatureErrors, InputsChosen, Plan, Unit, units
from ..statistics import (
    Moments,
    Stage,
    Stream,
    answer_grams,
    blocks_of,
    feature_error,
    moments,
    room,
)
from ..system import Event
from ..tasks import Split
from . import calibration_inputs
from .calibration_inputs import Taken
from .engine import handed_on, made_of
from .reading import read_layer, treated_as_matrix
from .side_by_side import Pair, apart, base_names, few, put_into, streams_budget, values_of
from .sinks import MemorySink, emit, output_specs, take_over
from .workspace import Done, Place, open_place


def require(plan: Plan) -> None:
    """Raise `InputError` where a method walks through models that cannot be asked."""
    if not plan.method.calibrates:
        return
    thing = f"method '{plan.method.name}'"
    if plan.recipe.engine != "local":
        raise InputError(thing, expected="engine 'local'", found=f"'{plan.recipe.engine}'")
    if plan.inputs.vectors is not None:
        raise InputError(thing, expected="experts with weights", found="(IA)³ vectors")
    calibration_inputs.require(plan)


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
    taken = yield from walk.choosing()
    with room(streams_budget()) as kept:
        streams = yield from _entered(walk, taken, kept)
        for number in range(len(walk.blocks)):
            yield from _calibrated(walk, number, streams, left)


def walking_beside(
    plan: Plan, encoder: Mapping[str, Tensor] | None = None
) -> Generator[Event, None, tuple[Mapping[str, Tensor], FeatureErrors | None]]:
    """Events of a merge that walks beside every expert as it is, on the calibration inputs; returns
    its tensors and its feature errors, None where the whole model is one block.

    encoder   tensors by the base's names; None: what calibration starts from
    """
    yield Event(text="Starting from the merge that is calibrated")
    walk = _Walk(plan, open_place(plan, None, shard_bytes=SHARD_BYTES), encoder)
    taken = yield from walk.choosing()
    with room(streams_budget()) as kept:
        streams = yield from _entered(walk, taken, kept)
        rows = [walk.errors(streams)]
        for number in range(len(walk.blocks)):
            yield from _gone_on(walk, number, streams)
            rows.append(walk.errors(streams))
    return walk.encoder.tensors, FeatureErrors.of(rows)


def calibrating_one(
    plan: Plan, name: str, encoder: Mapping[str, Tensor]
) -> Generator[Event, None, tuple[Done, Mapping[str, Tensor]]]:
    """Events of one layer of a finished calibration that is solved again where it stands; returns
    what was done, and its tensors.

    name      of the layer's weight
    encoder   the merge, by the base's names: what is in front of the layer is as it was then

    A layer that no block holds is as in the start.
    """
    yield Event(text="Starting from the finished merge")
    # What is watched is the layer alone, and not those that the walk starts from.
    unseen = replace(plan, watch=None)
    walk = _Walk(unseen, open_place(unseen, None, shard_bytes=SHARD_BYTES), encoder)
    module = next((one for one, unit in walk.units.items() if unit.name == name), None)
    if module is None:
        unit = next(unit for unit in units(plan) if unit.name == name)
        return handed_on(plan, unit, made_of(plan, unit), walk.place), _written(walk.place)
    taken = yield from walk.choosing()
    with room(streams_budget()) as kept:
        streams = yield from _entered(walk, taken, kept)
        for number, block in enumerate(walk.blocks):
            stage = next((one for one in block.stages if module in one.layers), None)
            if stage is not None:
                seen = yield from _seen(walk, number, stage, streams)
                unit = walk.units[module]
                layer = _measured(read_layer(plan, unit), module, unit, seen, streams)
                return walk.solved(unit, layer), _written(walk.place)
            yield from _gone_on(walk, number, streams)
    raise AssertionError(f"no block holds {module}")


def _written(place: Place) -> Mapping[str, Tensor]:
    assert isinstance(place.sink, MemorySink)
    return place.sink.tensors


@dataclass(frozen=True)
class _Pair(Pair):
    """With what the inputs are, and how the expert's answers turn with the outputs of its layers
    (`answer_grams`), by their modules; none where no option asks for it."""

    taken: Taken
    turns: Mapping[str, Tensor]


def _entered(walk: _Walk, taken: Sequence[Taken], kept: Any) -> Generator[Event, None, list[_Pair]]:
    """The streams of all experts' inputs in front of the first block."""
    streams: list[_Pair] = []
    for index, (expert, inputs) in enumerate(zip(walk.experts, taken, strict=True)):
        text = f"Reading the calibration inputs of {expert.name}"
        yield InputsChosen(inputs.chosen, text=text)
        streams.append(walk.pair(index, inputs, kept))
    return streams


def _calibrated(
    walk: _Walk, number: int, streams: Sequence[_Pair], left: set[str]
) -> Iterator[Event | Done]:
    """Solve a block stage by stage, and pass all streams through it.

    The layers of its last stage are handed on behind the block: what they are told with has the
    errors there, which a merge that goes on would not measure again.
    """
    block, before = walk.blocks[number], walk.errors(streams)
    last: list[Done] = []
    for place, stage in enumerate(block.stages):
        todo = {layer: walk.units[layer] for layer in stage.layers}
        todo = {layer: unit for layer, unit in todo.items() if unit.name in left}
        if not todo:
            continue
        seen = yield from _seen(walk, number, stage, streams)
        errors = [found.error for found in seen]
        told = {BLOCK: number, STAGE: place, INPUTS: walk.by_name(streams, errors)}
        for layer, unit in todo.items():
            known = read_layer(walk.plan, unit)
            done = walk.solved(unit, _measured(known, layer, unit, seen, streams))
            done = _noted(done, told)
            if stage is not block.stages[-1]:
                yield done
            else:
                last.append(done)
    yield from _gone_on(walk, number, streams)
    behind = walk.errors(streams)
    for done in last:
        yield _noted(done, {STREAMS: [before, behind]} if before and behind else {})


def _seen(
    walk: _Walk, number: int, stage: Stage, streams: Sequence[_Pair]
) -> Generator[Event, None, list[Moments]]:
    """The moments of a stage's inputs, of each expert."""
    block, found = walk.blocks[number], list[Moments]()
    for pair in streams:
        matched = f"{walk.said(number)}: matching {listing(stage.layers, 1)}"
        yield Event(text=f"{matched} with {walk.name(pair)}")
        walk.become(pair.expert, block.module)
        at_once = walk.at_once(stage)
        found.append(moments(pair.merge, pair.own, block, stage, at_once=at_once))
    return found


def _gone_on(walk: _Walk, number: int, streams: Sequence[_Pair]) -> Iterator[Event]:
    """Pass all streams through a block."""
    block = walk.blocks[number].module
    for pair in streams:
        yield Event(text=f"{walk.said(number)}: going on with {walk.name(pair)}")
        walk.become(pair.expert, block)
        pair.own.go_on(block)
        pair.merge.go_on(block)


def _noted(done: Done, details: Mapping[str, Any]) -> Done:
    """A layer that is told with more details."""
    report = done.entry.report
    report = replace(report, details={**report.details, **details})
    return replace(done, entry=replace(done.entry, report=report))


class _Walk:
    """The two models and what they are made of.

    there    what the experts choose their inputs from; nothing where each has its own
    blocks   of the model, in their order
    units    a module of a stage → its layer
    """

    def __init__(
        self, plan: Plan, place: Place, encoder: Mapping[str, Tensor] | None = None
    ) -> None:
        options = plan.options
        assert isinstance(options, SequentialOptions)
        self.plan, self.place, self.options = plan, place, options
        self.experts = plan.inputs.family.experts
        own = self.options.inputs == "own"
        self.there = () if own else calibration_inputs.candidates(plan)
        self.encoder = _started(plan, place)
        self.encoder.tensors.update(encoder or {})
        family, first = plan.inputs.family, plan.inputs.family.experts[0]
        tensors = with_head(self.encoder.tensors, family, first)
        self.merge, self.expert = (apart(first, tensors, plan.device) for _ in range(2))
        self.names = base_names(first, tensors, self.merge)
        merged = {unit.name: unit for unit in units(plan) if treated_as_matrix(plan, unit.name)}
        linear = {
            module_of(name): merged[base] for name, base in self.names.items() if base in merged
        }
        self.blocks = blocks_of(self.merge, few(self._batches(0, self._any())[0]), linear)
        stages = [stage for block in self.blocks for stage in block.stages]
        self.units = {layer: linear[layer] for stage in stages for layer in stage.layers}

    def _batches(self, index: int, parts: Sequence[Split]) -> list[Mapping[str, Tensor]]:
        expert = self.plan.inputs.family.experts[index]
        tensors = with_head(self.encoder.tensors, self.plan.inputs.family, expert)
        return calibration_inputs.batches(self.plan, expert, parts, tensors)

    def _any(self) -> Sequence[Split]:
        """Two examples, for a look at the model."""
        if self.options.inputs == "own":
            parts = calibration_inputs.own_inputs(self.plan, self.experts[0]).parts
        else:
            parts = [one.split for one in self.there]
        return [parts[0].first(2)]

    def choosing(self) -> Generator[Event, None, list[Taken]]:
        """Events of the choice of every expert's inputs; returns them."""
        if self.options.inputs == "own":
            return [calibration_inputs.own_inputs(self.plan, one) for one in self.experts]
        scores = []
        for index, expert in enumerate(self.experts):
            self.become(index, "")
            tensors = with_head(self.encoder.tensors, self.plan.inputs.family, expert)
            about = (self.expert, self._updates(expert), expert, tensors, self.there)
            scores.append((yield from calibration_inputs.answered(self.plan, *about)))
        found = torch.stack(scores)
        chosen = calibration_inputs.choose(found, self.options.examples)
        return [
            calibration_inputs.chosen_inputs(self.plan, index, self.there, found, places)
            for index, places in enumerate(chosen)
        ]

    def _updates(self, expert: Expert) -> dict[str, Tensor]:
        """Module → Δ of every layer that is calibrated."""
        family = self.plan.inputs.family
        where = {"dtype": torch.float32, "device": self.plan.device}
        return {
            module: family.weight(expert.checkpoint, unit.name, **where)
            - family.weight(family.base, unit.name, **where)
            for module, unit in self.units.items()
        }

    def name(self, pair: Pair) -> str:
        """The expert's name of a pair of streams."""
        return self.experts[pair.expert].name

    def said(self, number: int) -> str:
        """Which block it is, in words."""
        return f"Block {number + 1} of {len(self.blocks)}"

    def by_name(self, streams: Sequence[_Pair], values: Sequence[float]) -> dict[str, float]:
        """A value of each pair of streams, by its expert's name."""
        return dict(zip(map(self.name, streams), values, strict=True))

    def errors(self, streams: Sequence[_Pair]) -> dict[str, float]:
        """The feature errors in front of the next block; none where the model is one block."""
        found = [feature_error(pair.merge, pair.own) for pair in streams]
        known = [error for error in found if error is not None]
        return self.by_name(streams, known) if len(known) == len(streams) else {}

    def pair(self, index: int, taken: Taken, kept: Any) -> _Pair:
        """The streams of one expert in front of the first block."""
        self.become(index, "")
        block, batches = self.blocks[0].module, self._batches(index, taken.parts)
        merge = Stream(self.merge, block, batches, kept)
        own, turns = Stream(self.expert, block, batches, kept), self._turns(index, batches)
        return _Pair(index, merge, own, taken, {n: kept.hold(b) for n, b in turns.items()})

    def _turns(self, index: int, batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """How an expert's answers turn with the outputs of the layers that are calibrated."""
        if self.options.curvature != "answers":
            return {}
        family, expert = self.plan.inputs.family, self.experts[index]
        # The experts' heads differ: a model of its own, for as long as it is asked.
        model = apart(expert, with_head(self.encoder.tensors, family, expert), self.plan.device)
        put_into(model, self.names, family, expert, "")
        return answer_grams(model, self.units, batches, self.plan.recipe.seed)

    def at_once(self, stage: Stage) -> list[str]:
        """The layers of a stage whose target is measured at once, their bias being a part of it."""
        found = []
        for layer in stage.streams:
            unit, module = self.units[layer], self.expert.get_submodule(layer)
            options: Any = self.plan.at(unit.name).options
            whole = (unit.bias is None) == (getattr(module, "bias", None) is None)
            if whole and measured_at_once(options):
                found.append(layer)
        return found

    def become(self, index: int, block: str) -> None:
        """Put an expert's weights into the expert's model, of one block ("" for all)."""
        family = self.plan.inputs.family
        put_into(self.expert, self.names, family, family.experts[index], block)

    def solved(self, unit: Unit, layer: Layer) -> Done:
        """A layer solved with the moments of all tasks, written, and put into the merge."""
        plan = self.plan
        made = made_of(plan, unit, layer=layer)
        done = handed_on(plan, unit, made, self.place)
        written = set(emit(plan, unit, made.merged.value, self.encoder))
        held = values_of(self.merge)
        for name, base in self.names.items():
            if base in written:
                held[name].copy_(self.encoder.tensors[base])
        return done


def _measured(
    known: Layer, name: str, unit: Unit, seen: Sequence[Moments], streams: Sequence[_Pair]
) -> Layer:
    """The layer with the moments as its statistics, without the column of a bias it has not."""
    size = None if unit.bias is not None else -1
    own = known.statistics or (LayerStatistics(),) * len(seen)
    statistics = []
    for before, found, pair in zip(own, seen, streams, strict=True):
        turned, before_b = pair.turns.get(name), before.output_gradient_gram
        cross, lost, target = found.cross, found.lost.get(name), found.wanted.get(name)
        statistics.append(
            replace(
                before,
                input_gram=found.gram[:size, :size].to(known.base),
                cross_gram=None if cross is None else cross[:size, :size].to(known.base),
                lost=None if lost is None else lost[:, :size].to(known.base),
                target=None if target is None else target[:, :size].to(known.base),
                output_gradient_gram=turned.to(known.base) if turned is not None else before_b,
                examples=pair.taken.known,
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
