"""From a plan to a merged model: the single way, for all callers.

A merge is a generator of events, ended by `Finished`.  Ending the iteration cancels it: an
unfinished output folder never takes its name.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..adapters import VectorFamily
from ..checkpoints import SHARD_BYTES, Checkpoint, partial_of, staged_directory
from ..errors import InputError, MachineError, foreseen
from ..evaluation import told_nothing
from ..recipes import (
    TRIED,
    ChosenInputs,
    Evaluation,
    Finished,
    Inputs,
    InputsChosen,
    Plan,
    Recipe,
    Report,
    RoundDone,
    Shares,
    Stages,
    Trial,
    TrialDone,
    complete,
    open_inputs,
    prepare,
    tuning_notes,
)
from ..system import Event, changed, drain
from . import as_lora, before, calibration, keeping, ray, refining, rounds, routing
from .asked import asking_on
from .asking import REFERENCES, examining_plan, has_tasks
from .beside import Beside
from .coverage import require_merged
from .directory import finish_directory, require_output
from .engine import Engine, Layers, here, merge_layers
from .journal import NAME as JOURNAL
from .journal import layers_done
from .later import Later, Piece, remove_pieces
from .reporting import report_of
from .sinks import MemorySink, Sink, fold_vectors, rewrite, take_over
from .training_state import remove_state
from .workspace import Place, open_place

SHARES = Shares()  # where no estimate says more
BRANCHES = 1.0  # of merging, in a routed merge that no estimate was made of
FACTORING = 0.3  # of merging, in one that is written as a LoRA, likewise

Merging = Generator[Event, None, Finished]


def merge(recipe: Recipe, **settings: Any) -> Report:
    """The report of a recipe that was run to its end; the arguments are those of `run`."""
    return drain(run(recipe, **settings)).report


def run(
    recipe: Recipe,
    *,
    force: bool = False,
    inputs: Inputs | None = None,
    keep: Sequence[int] = (),
    **settings: Any,
) -> Merging:
    """Events of a merge, not judged (see `mats_core.run`); `inputs`: files that are open already.

    The other arguments are those of `planned` and `run_plan`.
    """
    if recipe.output:
        require_output(recipe.path(recipe.output), recipe, force=force)
    return (yield from run_plan(planned(recipe, inputs, keep), force=force, **settings))


def planned(recipe: Recipe, inputs: Inputs | None = None, keep: Sequence[int] = ()) -> Plan:
    """A merge ready to be judged and run, from the files' headers alone.

    `inputs`: files that are open already.  `keep`: CG iterations whose iterates the `LayerDone`
    events carry.  Raises `InputError` for whatever is wrong with the recipe and these headers.
    """
    inputs = inputs or open_inputs(recipe, contents=False)
    rounds.require(recipe, inputs)
    ray.require(recipe)
    plan = prepare(recipe, inputs, keep)
    calibration.require(plan)
    keeping.require(plan)
    refining.require(plan)
    routing.require(plan)
    as_lora.require(plan)
    return plan


def run_plan(
    plan: Plan,
    *,
    force: bool = False,
    resume: bool = False,
    shard_bytes: int = SHARD_BYTES,
    shares: Shares = SHARES,
) -> Merging:
    """Merge, write and evaluate: a stream of events that ends with `Finished`, which it returns.

    No file is opened again: what was read of their headers only is read on here.  With `output`
    the model is written there, else `Finished.tensors` holds it.  `resume`: go on from the layers
    that an unfinished merge by the same recipe has written, and leave what this one has done if it
    is stopped.  `shares`: how long the parts take, for the events' fraction.  Raises `InputError`
    before any work for bad input; whether it fits into memory and onto the disk is judged before,
    at the door (`mats_core.run`).  What the machine refuses meanwhile (a full disk, too little
    memory) is a `MachineError`, which says what of the merge is kept.
    """
    try:
        with foreseen(f"merge into '{plan.recipe.output}'" if plan.recipe.output else "merge"):
            settings = {"force": force, "resume": resume, "shard_bytes": shard_bytes}
            return (yield from _run_plan(plan, shares=shares, **settings))
    except MachineError as error:
        about = {"expected": error.expected, "found": error.found}
        remedy = f"{error.remedy} {kept(plan.recipe, resume=resume)}".strip()
        raise MachineError(error.thing, **about, remedy=remedy) from error


def kept(recipe: Recipe, *, resume: bool) -> str:
    """What is left of a merge that was stopped, and how to go on, in a sentence or two."""
    if not recipe.output:
        return ""
    done = work_done(partial_of(recipe.path(recipe.output))) if resume else ""
    if done:
        return f"The {done} that are done are kept: --resume goes on from there."
    keeping = "" if resume else " Started with --resume, a merge keeps what it has done."
    return f"Nothing was written to '{recipe.output}'.{keeping}"


def work_done(folder: Path) -> str:
    """What an unfinished merge in this folder has done, such as `5 layers`; "" for nothing."""
    layers, steps = layers_done(folder), before.done(folder)
    return f"{layers} layers" if layers else f"{steps} trials and rounds" if steps else ""


def _run_plan(
    plan: Plan, *, force: bool, resume: bool, shard_bytes: int, shares: Shares
) -> Merging:
    """The work of `run_plan`."""
    started = time.perf_counter()
    recipe = plan.recipe
    shares = shares if has_tasks(plan) else replace(shares, testing=0.0)
    if recipe.refine is not None:
        shares = replace(shares, refining=shares.refining or shares.merging)
    if recipe.routed is not None:
        shares = replace(shares, branching=shares.branching or BRANCHES * shares.merging)
    if recipe.lora is not None:
        shares = replace(shares, factoring=shares.factoring or FACTORING * shares.merging)
    target = recipe.path(recipe.output) if recipe.output else None
    opened = plan.inputs

    def allow(place: Path) -> None:
        require_output(place, recipe, opened, force=force)

    if target is not None:
        allow(target)
    inputs = opened = complete(plan.inputs, recipe)
    points = grid(recipe)
    stages = Stages(shares, recipe.rounds, 1 + len(points))
    trials: tuple[Trial, ...] = ()
    # First, so that an expert that is none is told before hours of merging.
    exam = yield from stages.next(examining_plan(plan), REFERENCES * shares.testing)
    with contextlib.ExitStack() as stack:
        folder = began = None
        if target is not None:
            staged = staged_directory(target, allow=allow, resume=resume)
            folder = stack.enter_context(staged)
            as_lora.clear(folder)
            began = Beside.of(inputs.family)
        with before.opened(folder, resume=resume) as earlier:
            if points:
                recipe, trials = yield from _search(recipe, inputs, points, stages, earlier)
            inputs = yield from _rounds_before(recipe, inputs, stages, earlier)
        if recipe is plan.recipe:
            plan = replace(plan, inputs=inputs)
        else:  # the best of a search
            plan = prepare(recipe, inputs, plan.keep)
        keeping.require_layers(plan)
        place = open_place(plan, folder, shard_bytes=shard_bytes, resume=resume)
        stack.callback(place.discard)  # whatever happens: an open file cannot be removed everywhere
        stack.enter_context(contextlib.closing(place.journal))
        engine = here if recipe.engine == "local" else ray.on_ray(folder, shard_bytes)
        engine = calibration.by_blocks if plan.method.calibrates else engine
        merging, chosen = _choosing(_merge_into(plan, place, folder, engine))
        layers = yield from stages.next(merging, shares.merging, _in_round(recipe))
        left = require_merged(plan, layers)
        encoder = _encoder(plan, place, folder)
        training = refining.train(plan, encoder, folder, resume=resume)
        encoder, refined = yield from stages.next(training, shares.refining)
        factoring = as_lora.made(plan, place, encoder)
        adapter, encoder = yield from stages.next(factoring, shares.factoring)
        building = routing.building(plan, encoder, place.later)
        built = yield from stages.next(building, shares.branching, _in_round(recipe))
        asking = asking_on(plan, exam, {**encoder, **built.tensors}, place.journal)
        results = yield from stages.next(asking, (1 - REFERENCES) * shares.testing)
        place.journal.close()
        seconds = time.perf_counter() - started
        nothing = (told_nothing("the merge", r.name, r.merged) for r in results)
        notes = (
            *left,
            *keeping.notes_on(plan),
            *tuning_notes(plan.recipe),
            *(as_lora.notes_on(adapter) if adapter else ()),
            *exam.notes,
            *itertools.chain.from_iterable(nothing),
        )
        report = report_of(plan, layers, results, trials, notes, seconds)
        told = routing.told(plan, encoder, built)
        report = replace(report, inputs=tuple(chosen), refined=refined, routed=told)
        if adapter is not None:
            report = replace(report, lora=as_lora.finish(plan, adapter, folder))
        elif folder is not None and refined is not None and refined.best:
            rewrite(plan, folder, encoder, shard_bytes=shard_bytes)
        if folder is not None:
            report = finish_directory(plan, folder, report, built.tensors, began)
            remove_pieces(folder)
            before.clear(folder)
            remove_state(folder)
    if target is not None:
        (target / JOURNAL).unlink(missing_ok=True)  # last: until here a merge can be resumed
    tensors = {} if target is not None else encoder
    finished = Finished(
        report, tensors, opened, built.tensors, fraction=1.0, text="The merge is done"
    )
    yield finished  # after the output took its name
    return finished


def _merge_into(plan: Plan, place: Place, folder: Path | None, engine: Engine) -> Layers:
    """Merge every layer and put it in its place, which is complete then."""
    if plan.inputs.vectors is not None:
        layers = yield from _merge_vectors(plan, plan.inputs.vectors, place.sink, folder)
    else:
        layers = yield from merge_layers(plan, place, engine)
    layers += take_over(plan, place.sink)
    place.finish()
    if place.sums is not None:
        keeping.finish(plan, place.sums)
    return layers


def _choosing(merging: Layers) -> tuple[Layers, list[ChosenInputs]]:
    """The events of a merge, and the calibration inputs that they will have told of."""
    chosen: list[ChosenInputs] = []

    def noted(event: Event) -> Event:
        if isinstance(event, InputsChosen):
            chosen.append(event.chosen)
        return event

    return changed(merging, noted), chosen


def _encoder(plan: Plan, place: Place, folder: Path | None) -> Mapping[str, Tensor]:
    """The merged tensors, where they are in memory or are to be tested."""
    if folder is None:
        assert isinstance(place.sink, MemorySink)
        return place.sink.tensors
    recipe, tested = plan.recipe, has_tasks(plan) and plan.recipe.lora is None
    if not tested and recipe.refine is None and recipe.routed is None:
        return {}
    merged = Checkpoint.open(folder)
    return {name: merged.read(name) for name in merged.tensors}


def _merge_vectors(plan: Plan, vectors: VectorFamily, sink: Sink, folder: Path | None) -> Layers:
    """Merge (IA)³ vectors, save them as an adapter, and multiply them into the base."""
    inner = plan.of_vectors()
    place = open_place(inner, None, shard_bytes=SHARD_BYTES)
    layers = yield from merge_layers(inner, place)
    assert isinstance(place.sink, MemorySink)
    merged = place.sink.tensors
    if folder is not None:
        vectors.save(folder / "adapter", merged)
    return layers + fold_vectors(plan, vectors, merged, sink)


def inputs_of_last_round(recipe: Recipe, inputs: Inputs) -> Generator[Event, None, Inputs]:
    """Events of all rounds but the last; returns the inputs with the statistics that the last one
    merges with.  Of a recipe of one round these are the inputs as they are.
    """
    return (yield from _rounds_before(recipe, inputs, Stages(Shares(), recipe.rounds), Later()))


def _rounds_before(
    recipe: Recipe, inputs: Inputs, stages: Stages, earlier: Later
) -> Generator[Event, None, Inputs]:
    key = ""
    for number in range(2, recipe.rounds + 1):
        silent = prepare(before.silent(recipe), inputs)
        key = before.key_of("round", silent, key) if earlier.keeps else ""
        making = _measured_again(recipe, silent, number, stages)
        inputs = before.with_piece(inputs, (yield from before.once(earlier, key, making)))
    return inputs


def _measured_again(
    recipe: Recipe, silent: Plan, number: int, stages: Stages
) -> Generator[Event, None, Piece]:
    """Merge in memory and measure there (see `rounds`): the statistics of round `number`."""
    said = _in_round(recipe, number - 1)
    merging = changed(
        run_plan(silent),
        lambda event: None if isinstance(event, Finished) else event,
    )
    finished = yield from stages.next(merging, stages.shares.merging, said)
    text = said.format("measuring statistics at the merge")
    yield RoundDone(number - 1, recipe.rounds, fraction=stages.done, text=text)
    device = finished.report.device
    steps = rounds.measuring_at(silent.inputs, finished.tensors, recipe.folder, device=device)
    again = yield from stages.next(steps, stages.shares.measuring, said)
    return before.as_piece(again.statistics)


def _in_round(recipe: Recipe, number: int | None = None) -> str:
    """Which round it is, where there are several: the last one by default."""
    count = recipe.rounds
    return "{}" if count == 1 else f"Round {number or count} of {count}: {{}}"


# Search -------------------------------------------------------------------------------------------


def grid(recipe: Recipe) -> list[dict[str, Any]]:
    """Every point of a recipe's search, as the options that differ; none without a search."""
    axes = recipe.search
    if not axes:
        return []
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _search(
    recipe: Recipe,
    inputs: Inputs,
    points: Sequence[dict[str, Any]],
    stages: Stages,
    earlier: Later,
) -> Generator[Event, None, tuple[Recipe, tuple[Trial, ...]]]:
    """Try the points on validation data; returns the best recipe and the table of trials."""
    if not any(expert.task for expert in inputs.family.experts):
        raise InputError("search", expected="experts with tasks, for validation data", found="none")
    asked = recipe.evaluate if isinstance(recipe.evaluate, Evaluation) else TRIED
    still = {
        "search": None,
        "output": None,
        "keep_sums": False,
        "refine": None,
        "evaluate": TRIED.model_copy(update={"examples": asked.examples}),
    }
    trials: list[Trial] = []
    for index, point in enumerate(points):
        options = {**recipe.options, **point}
        trial = prepare(recipe.model_copy(update={**still, "options": options}), inputs)
        said = f"Trial {index + 1} of {len(points)}: {{}}"
        key = before.key_of("trial", trial) if earlier.keeps else ""
        making = before.once(earlier, key, _tried(trial))
        piece = yield from stages.next(making, stages.whole, said)
        trials.append(Trial(point, piece.told["accuracy"]))
        text = f"Trial {index + 1} of {len(points)} is done"
        yield TrialDone(trials[-1], index, len(points), fraction=stages.done, text=text)
    best = max(trials, key=lambda trial: trial.normalised_accuracy)
    chosen = recipe.model_copy(
        update={"options": {**recipe.options, **best.options}, "search": None}
    )
    return chosen, tuple(trials)


def _tried(trial: Plan) -> Generator[Event, None, Piece]:
    """A trial, and its normalised accuracy.  Its layers and tasks are none of the merge's: only how
    far it is, is said."""
    events = changed(run_plan(trial), lambda e: Event(fraction=e.fraction, text=e.text))
    accuracy = (yield from events).report.normalised_accuracy
    if accuracy is None:
        raise InputError("search", expected="tasks that can be evaluated", found="none")
    return Piece(told={"accuracy": accuracy})
