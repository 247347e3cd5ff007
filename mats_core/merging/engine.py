"""Layer by layer from the inputs to the output, and going on where a killed merge stopped.

What is in memory at once: one layer of all experts with its statistics, two small ones of a method
that solves, or one piece of a large tensor where its elements do not depend on each other.  What a
method must see of the whole model takes a pass of its own: a survey before, or a scaling after,
over a spool on disk.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import SHARD_BYTES
from ..errors import InputError
from ..linear import norm, noted
from ..methods import Layer, Merged, merge_running, with_steps
from ..recipes import SERIES, Iteration, LayerDone, LayerReport, Plan, Started, Unit, units
from ..system import Event, Memo, beside, taking_threads
from .journal import Entry
from .reading import is_solved, pieces, read_layer, read_layers, read_pieces, treated_as_matrix
from .sinks import MemorySink, emit
from .sizes import together
from .workspace import Done, Place, open_place

NOTHING = torch.empty(0)
Layers = Generator[Event, None, list[LayerReport]]


Pulse = Callable[[int, float], None]
Tick = tuple[int, float]  # an iteration of the solve under way, and its relative residual


# (plan, layers, survey, place) → each of them merged and put in its place, in their order unless an
# engine has its own; before each, its solve's iterations, or events of what is done for it.
Engine = Callable[[Plan, Sequence[Unit], Any, Place], Generator[Tick | Event | Done, None, None]]


# Merging ------------------------------------------------------------------------------------------


def here(
    plan: Plan, todo: Sequence[Unit], survey: Any, place: Place
) -> Generator[Tick | Done, None, None]:
    """One layer after the other in this process, solves beside it in threads.

    A method is a plain function: only beside this one can the iterations of its solve be told, and
    ended.
    """
    # Of the whole plan: what is left of a merge that goes on is solved as it would have been.
    at_once, threads = together(plan, units(plan)), torch.get_num_threads()
    # Which GPU is the current one is a thread's setting, as is how many threads its products take.
    gpu = torch.cuda.current_device() if plan.device == "cuda" else None
    apart = functools.partial(_apart, plan, survey, gpu, threads // at_once)
    works = (functools.partial(apart, unit) for unit in todo if is_solved(plan, unit))
    with contextlib.closing(beside(works, at_once)) as jobs:
        for unit in todo:
            if is_solved(plan, unit):
                made = yield from next(jobs)
                yield handed_on(plan, unit, made, place)
            else:
                yield merge_layer(plan, unit, survey, place)


def _apart(
    plan: Plan, survey: Any, gpu: int | None, threads: int, unit: Unit, tick: Callable[[Tick], None]
) -> Made:
    on = torch.cuda.device(gpu) if gpu is not None else contextlib.nullcontext()
    with on, taking_threads(threads):
        return made_of(plan, unit, survey, lambda *told: tick(told))


def merge_layers(plan: Plan, place: Place, engine: Engine = here) -> Layers:
    """Merge layer by layer; returns the reports (as the generator's value)."""
    todo = units(plan)
    yield Started(len(todo), plan.device, plan.reason, text="Merging the first layer")
    survey = None
    if plan.method.survey is not None and plan.method.surveys(plan.options) == "model":
        measure = plan.method.survey
        survey = place.journal.survey(lambda: measure(lambda: read_layers(plan), plan.options))
    done: dict[str, Entry] = {}
    left = [unit for unit in todo if unit.name not in place.past]
    with contextlib.closing(engine(plan, left, survey, place)) as merged:
        for index, unit in enumerate(todo):
            text = f"Merging layer {index + 1} of {len(todo)}"
            entry, iterates = place.past.get(unit.name), {}
            if entry is None:
                found = yield from _next(merged, unit.name, index / len(todo), text)
                entry, iterates = found.entry, found.iterates
                place.journal.layer(entry)
            done[entry.report.name] = entry
            fraction = (index + 1) / len(todo)
            yield LayerDone(entry.report, index, len(todo), iterates, fraction=fraction, text=text)
    place.journal.flush()
    entries = [done[unit.name] for unit in todo]
    if plan.method.rescale is not None:
        entries = _second_pass(plan, entries, place)
    folded = [
        LayerReport(
            unit.bias, entry.report.treatment, entry.report.method, f"folded into {unit.name}"
        )
        for unit, entry in zip(todo, entries, strict=True)
        if unit.bias is not None
    ]
    return [*(entry.report for entry in entries), *folded]


def merge_one(
    plan: Plan, name: str, factor: float | None = None
) -> Generator[Event, None, tuple[Done, Mapping[str, Tensor]]]:
    """Events of one layer that is merged by itself; returns what was done, and its tensors.

    name     of the layer's tensor
    factor   of its update, where a second pass over all layers had given it one

    Nothing is remembered of it, nor taken from what was: all of it is computed, for `plan.watch`.
    Raises `InputError` for a tensor that is not merged, and for a method that measures each layer
    at the merge of those before it.
    """
    what = "one that measures each layer at the merge of all before it"
    if plan.method.calibrates or plan.inputs.earlier is not None:
        raise InputError(
            f"one layer of '{plan.method.title}'",
            expected="a method whose layers are merged by themselves, from all experts",
            found=what if plan.method.calibrates else "a merge that is added to another one",
            remedy="Step through a layer of another merge.",
        )
    plan = replace(plan, inputs=replace(plan.inputs, memo=Memo()))
    unit = next((unit for unit in units(plan) if unit.name == name), None)
    if unit is None:
        raise InputError(f"tensor '{name}'", expected="one that is merged", found="one that is not")
    place, survey = open_place(plan, None, shard_bytes=SHARD_BYTES), None
    if plan.method.survey is not None and plan.method.surveys(plan.options) == "model":
        yield Event(text="Looking at all layers first")
        survey = plan.method.survey(lambda: read_layers(plan), plan.options)
    with contextlib.closing(here(plan, [unit], survey, place)) as merged:
        done = yield from _next(merged, name, 0.0, "Merging the layer")
    if done.entry.stage == "spooled":
        scaled = _rescaled(plan, done.entry, 1.0 if factor is None else factor, place)
        done = replace(done, entry=scaled)
    assert isinstance(place.sink, MemorySink)
    return done, place.sink.tensors


def _next(
    merged: Iterator[Tick | Event | Done], name: str, fraction: float, text: str
) -> Generator[Event, None, Done]:
    """The next layer of an engine, after the iterations of its solve and the engine's events."""
    while not isinstance(found := next(merged), Done):
        if isinstance(found, Event):
            yield replace(found, fraction=fraction)
            continue
        said = f"{text}, iteration {found[0]}"
        yield Iteration(name, *found, fraction=fraction, text=said)
    return found


def merge_layer(plan: Plan, unit: Unit, survey: Any, place: Place) -> Done:
    """Merge one layer and hand it on: to the output, or to the spool of a second pass."""
    if pieces(plan, unit):
        return _merge_pieces(plan, unit, survey, place)
    return handed_on(plan, unit, made_of(plan, unit, survey), place)


@dataclass(frozen=True)
class Made:
    """A layer as its method made it, before it is put anywhere.

    merged    what the method returned
    length    ‖W − W0‖ where a second pass scales the update; None elsewhere
    seconds   that it took
    sums      over all experts, where they are kept
    """

    merged: Merged
    length: float | None
    seconds: float
    sums: Mapping[str, Tensor] = field(default_factory=dict)


def made_of(
    plan: Plan,
    unit: Unit,
    survey: Any = None,
    pulse: Pulse | None = None,
    layer: Layer | None = None,
) -> Made:
    """What the method makes of a layer, read from the files unless it is given.

    `pulse` is called with (iteration, residual) by a solve under way, and ends it by raising.
    """
    begun, plan = time.perf_counter(), plan.at(unit.name)
    layer, sums = _keeping(plan, replace(layer or read_layer(plan, unit), pulse=pulse))
    running = unit.name in plan.inputs.family.running
    with noted() as ways:
        if running:
            merged = merge_running(layer)
        else:
            merged = plan.method.merge(layer, plan.options, survey)
    if ways:
        merged = replace(merged, status=", ".join((merged.status, *ways)))
    if running:
        return Made(merged, None, time.perf_counter() - begun, sums)
    length = None
    if plan.method.rescale is not None and merged.method == plan.method.name:
        length = norm(merged.value - layer.base)  # steps follow the second pass
    else:
        merged = _stepped(plan, layer, merged)
    return Made(merged, length, time.perf_counter() - begun, sums)


def _stepped(plan: Plan, layer: Layer, merged: Merged) -> Merged:
    """A merged layer, or a piece of it, after the steps of the plan of this layer."""
    if not plan.after:
        return merged
    return with_steps(layer, merged, plan.after, plan.depths[layer.name])


def _keeping(plan: Plan, layer: Layer) -> tuple[Layer, dict[str, Tensor]]:
    """The layer and the sums that it hands on while it is merged, if they are kept.

    The mean is among them: what one expert has no statistics of takes it, an expert that is added
    later included.
    """
    sums: dict[str, Tensor] = {}
    if not plan.recipe.keep_sums:
        return layer, sums

    def hand_on(name: str, value: Tensor) -> None:
        sums[name] = value.clone()  # which the method may go on with

    layer = replace(layer, hand_on=hand_on)
    if plan.method.normalises(plan.options):
        layer.total("mean", layer.experts, layer.shares)
    return layer, sums


def handed_on(plan: Plan, unit: Unit, made: Made, place: Place) -> Done:
    """A layer that was made, written to its place or kept for the second pass."""
    merged, stage = made.merged, "written"
    if place.sums is not None:
        place.sums.add(unit.name, made.sums, plan.dtype)
    if made.length is None:
        checksums = place.checksums(emit(plan, unit, merged.value, place.sink))
    else:
        stage, checksums = "spooled", place.spool.add(unit.name, merged.value)
    report = _report(plan, unit, merged, made.seconds)
    iterates = merged.solution.iterates if merged.solution else {}
    return Done(Entry(report, stage, made.length, checksums), iterates)


def _merge_pieces(plan: Plan, unit: Unit, survey: Any, place: Place) -> Done:
    begun, own, method = time.perf_counter(), plan.at(unit.name), plan.method
    if method.survey is not None and method.surveys(own.options) == "tensor":
        survey = method.survey(lambda: read_pieces(plan, unit), own.options)
    first: Merged | None = None
    made: list[tuple[Mapping[str, Any], int]] = []
    names: list[str] = []
    for layer in read_pieces(plan, unit):
        merged = _stepped(own, layer, method.merge(layer, own.options, survey))
        names = emit(plan, unit, merged.value, place.sink, layer.offset)
        # No tensor may outlive its piece, however small: it would lie in the way of the next one.
        made.append((merged.details, merged.value.numel()))
        first = first or replace(merged, value=NOTHING)
    assert first is not None
    found = replace(first, details=_mean_details(made))
    report = _report(plan, unit, found, time.perf_counter() - begun)
    return Done(Entry(report, "written", checksums=place.checksums(names)), {})


def _mean_details(made: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """Shares of a tensor from those of its pieces."""
    total = sum(size for _, size in made)
    return {
        key: [
            sum(details[key][index] * size for details, size in made) / total
            for index in range(len(values))
        ]
        for key, values in made[0][0].items()
    }


def _second_pass(plan: Plan, done: Sequence[Entry], place: Place) -> list[Entry]:
    """Scale each update by the factor that the norms of all of them give it."""
    assert plan.method.rescale is not None
    norms = {entry.report.name: entry.norm for entry in done if entry.norm is not None}
    factors = plan.method.rescale(norms, plan.options)
    return [
        _rescaled(plan, entry, factors[entry.report.name], place)
        if entry.stage == "spooled"
        else entry
        for entry in done
    ]


def _rescaled(plan: Plan, entry: Entry, factor: float, place: Place) -> Entry:
    name, family = entry.report.name, plan.inputs.family
    base = family.weight(family.base, name, dtype=plan.dtype, device=plan.device)
    value = place.spool.read(name).sub_(base).mul_(factor).add_(base)
    unit, own, status = Unit(name), plan.at(name), entry.report.status
    if own.after:
        # The experts are read once more only where a step needs them.
        whole = any(one.step.whole for one in own.after)
        layer = read_layer(own, unit, with_statistics=False) if whole else _alone(own, unit, base)
        made = _stepped(own, layer, Merged(value, plan.method.name, status=status))
        value, status = made.value, made.status
    checksums = place.checksums(emit(plan, unit, value, place.sink))
    details = {**entry.report.details, "layer_weight": factor}
    report = replace(entry.report, status=status, details=details)
    final = Entry(report, "written", entry.norm, checksums)
    place.journal.layer(final)
    return final


def _alone(plan: Plan, unit: Unit, base: Tensor) -> Layer:
    """A layer of which nothing but the base is asked."""
    return Layer(unit.name, base, (), (), (), treated_as_matrix(plan, unit.name))


def _report(plan: Plan, unit: Unit, merged: Merged, seconds: float) -> LayerReport:
    own = plan.local.get(unit.name)
    names = [expert.name for expert in plan.inputs.family.experts]
    apart = {} if own is None else own.told(names, plan.weights)
    told: dict[str, Any] = {"seconds": seconds, "details": {**merged.details, **apart}}
    if merged.solution:
        told |= {key: getattr(merged.solution, key) for key in ("iterations", *SERIES)}
    return LayerReport(unit.name, merged.treatment, merged.method, merged.status, **told)
