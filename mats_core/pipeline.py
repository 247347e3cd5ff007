"""`run(recipe)`: the single way from a recipe to a merged model, for all callers.

A merge is a generator of events, ended by `Finished`.  Whoever stops iterating cancels it: an
unfinished output folder never takes its name.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from .checkpoints import Checkpoint
from .checks import InputError
from .evaluate import TaskResult
from .examiner import Asked, exam
from .layers import Inputs, Job, Unit, open_inputs, prepare, read_layer, read_layers, units
from .methods import Merged
from .methods.base import norm
from .output import MemorySink, Sink, Spool, emit, finish_directory, output_specs, take_over
from .recipe import Evaluation, Recipe, load_recipe
from .report import (
    Event,
    Finished,
    LayerDone,
    LayerReport,
    Report,
    Started,
    TaskDone,
    Trial,
    TrialDone,
)
from .tasks import SplitName
from .writer import SHARD_BYTES, CheckpointWriter, refuse_existing, staged_directory


def merge(recipe: Recipe, *, force: bool = False, inputs: Inputs | None = None) -> Report:
    """Run a recipe to its end and return the report.  Raises `InputError` for bad input."""
    for event in run(recipe, force=force, inputs=inputs):
        if isinstance(event, Finished):
            return event.report
    raise RuntimeError("the pipeline ended without a report")


def run(
    recipe: Recipe,
    *,
    force: bool = False,
    inputs: Inputs | None = None,
    keep: Sequence[int] = (),
    pulse: Callable[[int, float], None] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Iterator[Event]:
    """Merge, write and evaluate: a stream of events that ends with `Finished`.

    `inputs`: files opened before (`open_inputs`), to skip the preflight.  `keep`: CG iterations
    whose iterates the `LayerDone` events carry.  `pulse(iteration, residual)` is called while a
    layer is being solved; an exception from it ends the merge.  With `output` the model is written
    there, else `Finished.tensors` holds it.  Raises `InputError` before any work for bad input.
    """
    started = time.perf_counter()
    target = recipe.path(recipe.output) if recipe.output else None
    if target is not None:
        refuse_existing(target, force)
    inputs = inputs or open_inputs(recipe)
    trials: tuple[Trial, ...] = ()
    if recipe.search:
        chosen, trials = yield from _search(recipe, inputs)
        recipe = chosen
    job = replace(prepare(recipe, inputs, keep), pulse=pulse)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(staged_directory(target, force=force)) if target else None
        finished = yield from _merge_into(job, folder, started, trials, shard_bytes)
    yield finished  # after the output took its name


def _merge_into(
    job: Job, folder: Path | None, started: float, trials: tuple[Trial, ...], shard_bytes: int
) -> Generator[Event, None, Finished]:
    specs = output_specs(job)
    memory = MemorySink(specs)
    writer = CheckpointWriter(folder, specs, shard_bytes=shard_bytes) if folder else None
    layers = yield from _merge_layers(job, writer or memory)
    layers += take_over(job, writer or memory)
    if writer is not None and folder is not None:
        writer.close()
        merged = Checkpoint.open(folder)
        encoder = {name: merged.read(name) for name in merged.tensors} if _tasks(job) else {}
    else:
        encoder = memory.tensors
    results = yield from _evaluate(job, encoder)
    report = _report(job, layers, results, trials, time.perf_counter() - started)
    if folder is not None:
        finish_directory(job, folder, report)
    return Finished(report, {} if folder is not None else memory.tensors)


def _merge_layers(job: Job, sink: Sink) -> Generator[LayerDone | Started, None, list[LayerReport]]:
    """Merge layer by layer; returns the reports (as the generator's value)."""
    todo = units(job)
    yield Started(len(todo), job.device, job.reason)
    survey = job.method.survey(lambda: read_layers(job), job.options) if job.method.survey else None
    reports: list[LayerReport] = []
    with Spool(job) as spool:
        norms: dict[str, float] = {}
        for index, unit in enumerate(todo):
            begun = time.perf_counter()
            layer = read_layer(job, unit)
            merged = job.method.merge(layer, job.options, survey)
            if job.method.rescale:
                spool.add(unit.name, merged.value)
                if merged.method == job.method.name:
                    norms[unit.name] = norm(merged.value - layer.base)
            else:
                emit(job, unit, merged.value, sink)
            report = _layer_report(unit, merged, time.perf_counter() - begun)
            reports.append(report)
            iterates = merged.solution.iterates if merged.solution else {}
            yield LayerDone(report, index, len(todo), iterates)
        if job.method.rescale:
            reports = _second_pass(job, spool, norms, reports, sink)
    return [*reports, *_bias_reports(todo, reports)]


def _second_pass(
    job: Job,
    spool: Spool,
    norms: Mapping[str, float],
    reports: Sequence[LayerReport],
    sink: Sink,
) -> list[LayerReport]:
    """Scale each update by the factor that the norms of all of them give it."""
    assert job.method.rescale is not None
    factors = job.method.rescale(norms, job.options)
    final: list[LayerReport] = []
    for report in reports:
        value, factor = spool.read(report.name), factors.get(report.name)
        if factor is not None:
            family = job.inputs.family
            base = family.weight(family.base, report.name, dtype=job.dtype, device=job.device)
            value = base + factor * (value - base)
            details = {**report.details, "layer_weight": factor}
            report = LayerReport(**{**vars(report), "details": details})
        emit(job, Unit(report.name), value, sink)
        final.append(report)
    return final


def _layer_report(unit: Unit, merged: Merged, seconds: float) -> LayerReport:
    solution = merged.solution
    return LayerReport(
        name=unit.name,
        treatment=merged.treatment,
        method=merged.method,
        status=merged.status,
        iterations=solution.iterations if solution else 0,
        residuals=solution.residuals if solution else (),
        objectives=solution.objectives if solution else (),
        distances=solution.distances if solution else (),
        seconds=seconds,
        details=merged.details,
    )


def _bias_reports(todo: Sequence[Unit], reports: Sequence[LayerReport]) -> list[LayerReport]:
    by_name = {report.name: report for report in reports}
    return [
        LayerReport(
            unit.bias,
            by_name[unit.name].treatment,
            by_name[unit.name].method,
            f"folded into {unit.name}",
        )
        for unit in todo
        if unit.bias is not None
    ]


# Evaluation and search ----------------------------------------------------------------------------


def _tasks(job: Job) -> bool:
    """Whether there is anything to evaluate: not for raw families, nor where it is switched off."""
    return job.recipe.evaluate is not False and any(
        expert.task and expert.checkpoint.directory is not None
        for expert in job.inputs.family.experts
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
    job = prepare(recipe)
    if not _tasks(job):
        raise InputError(f"recipe '{file}'", expected="experts with tasks", found="none")
    merged = Checkpoint.open(directory)
    events = _evaluate(job, {name: merged.read(name) for name in merged.tensors})
    return [event.result for event in events if isinstance(event, TaskDone)]


def _evaluate(
    job: Job, encoder: Mapping[str, Tensor]
) -> Generator[Asked | TaskDone, None, list[TaskResult]]:
    settings = job.recipe.evaluate
    if not isinstance(settings, Evaluation) or not _tasks(job):
        return []
    found = exam(
        job.inputs.family, job.recipe.folder, settings.split, settings.examples, job.device
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
    job: Job,
    layers: Sequence[LayerReport],
    results: Sequence[TaskResult],
    trials: tuple[Trial, ...],
    seconds: float,
) -> Report:
    family, settings = job.inputs.family, job.recipe.evaluate
    notes = list(job.inputs.notes)
    fallbacks = [layer for layer in layers if layer.method == "tsv_m" != job.method.name]
    if fallbacks:
        notes.append(f"{len(fallbacks)} matrices without statistics fell back to TSV-M")
    return Report(
        method=job.method.name,
        options=job.options.model_dump(),
        seed=job.recipe.seed,
        device=job.device,
        device_reason=job.reason,
        dtype=job.recipe.dtype,
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
        output=str(job.recipe.path(job.recipe.output).resolve()) if job.recipe.output else None,
    )
