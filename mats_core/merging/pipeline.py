"""From a plan to a merged model: the single way, for all callers.

A merge is a generator of events, ended by `Finished`.  Ending the iteration cancels it: an
unfinished output folder never takes its name.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..adapters import VectorFamily
from ..checkpoints import SHARD_BYTES, Checkpoint, refuse_existing, staged_directory
from ..errors import InputError
from ..evaluation import Asked, TaskResult, exam
from ..methods import METHODS
from ..system import Memo
from ..tasks import SplitName
from . import ray, rounds
from .directory import finish_directory
from .engine import Engine, Layers, here, merge_layers
from .events import Event, Finished, RoundDone, TaskDone, TrialDone
from .journal import NAME as JOURNAL
from .plan import Inputs, Plan, complete, open_inputs, prepare
from .recipe import Evaluation, Recipe, load_recipe
from .report import LayerReport, Report, Trial
from .sinks import MemorySink, Sink, fold_vectors, take_over
from .workspace import open_place

Merging = Generator[Event, None, Finished]


def merge(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    inputs: Inputs | None = None,
) -> Report:
    """Run a recipe to its end and return the report; the arguments are those of `run`."""
    for event in run(recipe, force=force, resume=resume, inputs=inputs):
        if isinstance(event, Finished):
            return event.report
    raise RuntimeError("the pipeline ended without a report")


def run(
    recipe: Recipe,
    *,
    force: bool = False,
    resume: bool = False,
    inputs: Inputs | None = None,
    keep: Sequence[int] = (),
    pulse: Callable[[int, float], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Merging:
    """Events of a merge, not judged (see `mats_core.run`); `inputs`: files that are open already.

    The other arguments are those of `planned` and `run_plan`.
    """
    if recipe.output:
        refuse_existing(recipe.path(recipe.output), force)
    plan = replace(planned(recipe, inputs, keep), pulse=pulse)
    return (yield from run_plan(plan, force=force, resume=resume, shard_bytes=shard_bytes))


def planned(recipe: Recipe, inputs: Inputs | None = None, keep: Sequence[int] = ()) -> Plan:
    """A merge ready to be judged and run, from the files' headers alone.

    `inputs`: files that are open already.  `keep`: CG iterations whose iterates the `LayerDone`
    events carry.  Raises `InputError` for whatever is wrong with the recipe and these headers.
    """
    inputs = inputs or open_inputs(recipe, contents=False)
    rounds.require(recipe, inputs)
    ray.require(recipe)
    return prepare(recipe, inputs, keep)


def run_plan(
    plan: Plan, *, force: bool = False, resume: bool = False, shard_bytes: int = SHARD_BYTES
) -> Merging:
    """Merge, write and evaluate: a stream of events that ends with `Finished`.

    No file is opened again: what was read of their headers only is read on here.  With `output`
    the model is written there, else `Finished.tensors` holds it.  `resume`: go on from the layers
    that an unfinished merge by the same recipe has written, and leave what this one has done if it
    is stopped.  Raises `InputError` before any work for bad input; whether it finds memory and disk
    is judged before, at the door (`mats_core.run`).
    """
    started = time.perf_counter()
    recipe, pulse = plan.recipe, plan.pulse
    target = recipe.path(recipe.output) if recipe.output else None
    if target is not None:
        refuse_existing(target, force)
    inputs = complete(plan.inputs, recipe)
    trials: tuple[Trial, ...] = ()
    if recipe.search:
        recipe, trials = yield from _search(recipe, inputs)
    for number in range(2, recipe.rounds + 1):
        inputs = yield from _measured_again(recipe, inputs, number, pulse)
    if recipe is plan.recipe:
        plan = replace(plan, inputs=inputs)
    else:  # the best of a search
        plan = replace(prepare(recipe, inputs, plan.keep), pulse=pulse)
    with contextlib.ExitStack() as stack:
        folder = None
        if target is not None:
            staged = staged_directory(target, force=force, resume=resume)
            folder = stack.enter_context(staged)
        finished = yield from _merge_into(plan, folder, started, trials, shard_bytes, resume)
    if target is not None:
        (target / JOURNAL).unlink(missing_ok=True)  # last: until here a merge can be resumed
    yield finished  # after the output took its name
    return finished


def _merge_into(
    plan: Plan,
    folder: Path | None,
    started: float,
    trials: tuple[Trial, ...],
    shard_bytes: int,
    resume: bool,
) -> Generator[Event, None, Finished]:
    place = open_place(plan, folder, shard_bytes=shard_bytes, resume=resume)
    with contextlib.closing(place.journal):
        if plan.inputs.vectors is not None:
            layers = yield from _merge_vectors(plan, plan.inputs.vectors, place.sink, folder)
        else:
            layers = yield from merge_layers(plan, place, _engine(plan, folder, shard_bytes))
        layers += take_over(plan, place.sink)
        place.finish()
    if folder is not None:
        merged = Checkpoint.open(folder)
        encoder = {name: merged.read(name) for name in merged.tensors} if _tasks(plan) else {}
    else:
        assert isinstance(place.sink, MemorySink)
        encoder = place.sink.tensors
    results = yield from _evaluate(plan, encoder)
    report = _report(plan, layers, results, trials, time.perf_counter() - started)
    if folder is not None:
        finish_directory(plan, folder, report)
    return Finished(report, {} if folder is not None else encoder)


def _engine(plan: Plan, folder: Path | None, shard_bytes: int) -> Engine:
    """Where the layers are merged, as the recipe says."""
    if plan.recipe.engine == "local":
        return here
    return ray.on_ray(folder, shard_bytes)


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


def _measured_again(
    recipe: Recipe, inputs: Inputs, number: int, pulse: Callable[[int, float], None] | None
) -> Generator[Event, None, Inputs]:
    """Merge in memory and measure there (see `rounds`): the inputs of round `number`."""
    silent = recipe.model_copy(
        update={"evaluate": False, "output": None, "search": None, "rounds": 1}
    )
    for event in run(silent, inputs=inputs, pulse=pulse):
        if isinstance(event, Finished):
            device = event.report.device
            yield RoundDone(number - 1, recipe.rounds)
            steps = rounds.measuring_at(inputs, event.tensors, recipe.folder, device=device)
            # Nobody merges with these statistics again: there is nothing to remember.
            return replace((yield from steps), memo=Memo())
        yield event
    raise RuntimeError("the pipeline ended without a report")


# Evaluation and search ----------------------------------------------------------------------------


def _tasks(plan: Plan) -> bool:
    """Whether there is anything to evaluate: not for raw families, nor where it is switched off."""
    return plan.recipe.evaluate is not False and any(
        expert.task and expert.checkpoint.directory is not None
        for expert in plan.inputs.family.experts
    )


def evaluate_output(directory: Path, split: SplitName) -> list[TaskResult]:
    """Evaluate a directory that `run` wrote, by the recipe it holds.

    Raises `InputError` where there is no recipe, or its experts name no tasks.
    """
    file = Path(directory) / "recipe.yaml"
    if not file.is_file():
        raise InputError(
            f"model '{directory}'",
            expected="an output of `merge`, with its recipe.yaml",
            found="none",
            remedy="Name a task with --task.",
        )
    recipe = load_recipe(file).model_copy(update={"evaluate": Evaluation(split=split)})
    plan = prepare(recipe)
    if not _tasks(plan):
        raise InputError(f"recipe '{file}'", expected="experts with tasks", found="none")
    merged = Checkpoint.open(directory)
    events = _evaluate(plan, {name: merged.read(name) for name in merged.tensors})
    return [event.result for event in events if isinstance(event, TaskDone)]


def _evaluate(
    plan: Plan, encoder: Mapping[str, Tensor]
) -> Generator[Asked | TaskDone, None, list[TaskResult]]:
    settings = plan.recipe.evaluate
    if not isinstance(settings, Evaluation) or not _tasks(plan):
        return []
    found = exam(
        plan.inputs.family, plan.recipe.folder, settings.split, settings.examples, plan.device
    )
    asked: Asked | None = None
    for asked in found.take(encoder, precision=settings.precision):
        yield asked
    assert asked is not None
    for index, result in enumerate(asked.results):
        yield TaskDone(result, index, len(asked.results))
    return list(asked.results)


def _search(
    recipe: Recipe, inputs: Inputs
) -> Generator[TrialDone, None, tuple[Recipe, tuple[Trial, ...]]]:
    """Try the grid on validation data; returns the best recipe and the table of trials."""
    if not any(expert.task for expert in inputs.family.experts):
        raise InputError("search", expected="experts with tasks, for validation data", found="none")
    grid = recipe.search or {}
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    examples = recipe.evaluate.examples if isinstance(recipe.evaluate, Evaluation) else None
    trials: list[Trial] = []
    for index, point in enumerate(points):
        options = {**recipe.options, **point}
        trial_recipe = recipe.model_copy(
            update={
                "options": options,
                "search": None,
                "output": None,
                "evaluate": Evaluation(split="validation", examples=examples),
            }
        )
        accuracy = merge(trial_recipe, inputs=inputs).normalised_accuracy
        if accuracy is None:
            raise InputError("search", expected="tasks that can be evaluated", found="none")
        trials.append(Trial(point, accuracy))
        yield TrialDone(trials[-1], index, len(points))
    best = max(trials, key=lambda trial: trial.normalised_accuracy)
    chosen = recipe.model_copy(
        update={"options": {**recipe.options, **best.options}, "search": None}
    )
    return chosen, tuple(trials)


# Report and output directory ----------------------------------------------------------------------


def _report(
    plan: Plan,
    layers: Sequence[LayerReport],
    results: Sequence[TaskResult],
    trials: tuple[Trial, ...],
    seconds: float,
) -> Report:
    family, settings = plan.inputs.family, plan.recipe.evaluate
    notes = list(plan.inputs.notes)
    other = plan.method.fallback
    fallbacks = [layer for layer in layers if other and layer.method == other]
    if fallbacks:
        title = METHODS[other].title
        notes.append(f"{len(fallbacks)} matrices without statistics fell back to {title}")
    return Report(
        method=plan.method.name,
        options=plan.options.model_dump(),
        seed=plan.recipe.seed,
        device=plan.device,
        device_reason=plan.reason,
        dtype=plan.recipe.dtype,
        seconds=seconds,
        layers=tuple(layers),
        tasks=tuple(results),
        split=settings.split if isinstance(settings, Evaluation) else "test",
        search=trials,
        warnings=tuple(notes),
        fingerprints={
            "base": family.base.fingerprint,
            **{expert.name: expert.checkpoint.fingerprint for expert in family.experts},
        },
        output=str(plan.recipe.path(plan.recipe.output).resolve()) if plan.recipe.output else None,
        rounds=plan.recipe.rounds,
    )
