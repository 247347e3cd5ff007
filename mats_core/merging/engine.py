"""Layer by layer from the inputs to the output, and going on where a killed merge stopped.

What is in memory at once: one layer of all experts with its statistics, or one piece of a large
tensor where its elements do not depend on each other.  What a method must see of the whole model
takes a pass of its own: a survey before, or a scaling after, over a spool on disk.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, CheckpointWriter, TensorEntry, checksum
from ..errors import InputError
from ..methods import Merged, norm
from ..statistics import Statistics
from .journal import NAME, Entry, Journal, Past, identity, read_past
from .plan import Job, Unit, pieces, read_layer, read_layers, read_pieces, treated_as_matrix, units
from .report import VERSION, LayerDone, LayerReport, Started
from .sinks import SPOOL, MemorySink, Sink, Spool, emit, output_specs, pinned

NOTHING = torch.empty(0)
Layers = Generator[Started | LayerDone, None, list[LayerReport]]


@dataclass
class Place:
    """Where a merge goes: the sink, the spool and the journal of one output, or memory."""

    sink: Sink
    writer: CheckpointWriter | None
    spool: Spool
    journal: Journal
    past: Mapping[str, Entry]

    def finish(self) -> None:
        """All tensors are written: put them on the disk."""
        self.journal.flush()
        if self.writer is not None:
            self.writer.close()
        self.spool.remove()

    def checksums(self, names: Sequence[str]) -> dict[str, int]:
        return {name: self.writer.checksum(name) for name in names} if self.writer else {}

    def take(self, done: Done) -> None:
        """A layer that another process merged: its bytes lie in our files, or come with it."""
        for name, value in done.tensors.items():
            (self.spool if done.entry.stage == "spooled" else self.sink).add(name, value)
        if self.writer is not None and done.entry.stage == "written":
            self.writer.taken(done.entry.checksums)


@dataclass(frozen=True)
class Done:
    """A layer that is merged.

    iterates   X after the CG iterations that were asked for
    tensors    its merged tensors, or its spooled one, where there is no file to put them in
    """

    entry: Entry
    iterates: Mapping[int, Any]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


# (job, layers, survey, place) → each of them merged and put in its place, in their order.
Engine = Callable[[Job, Sequence[Unit], Any, Place], Generator[Done, None, None]]


def open_place(job: Job, folder: Path | None, *, shard_bytes: int, resume: bool = False) -> Place:
    """The sink, spool and journal of a merge into `folder`, or into memory.

    With `resume` what an earlier merge left in the folder is taken over.  Raises `InputError` where
    it was another one.
    """
    specs, spooled = output_specs(job), _spooled(job)
    if folder is None:
        return Place(MemorySink(specs), None, Spool(job, spooled, None), Journal(), {})
    header = _identity(job, shard_bytes)
    past = read_past(folder, header) if resume else Past()
    entries = _verified(past, folder)
    written = {n for e in entries.values() if e.stage == "written" for n in e.checksums}
    try:
        writer = CheckpointWriter(folder, specs, shard_bytes=shard_bytes, done=written)
        done = {e.report.name for e in entries.values() if e.norm is not None}
        spool = Spool(job, spooled, folder, done)
    except (OSError, ValueError) as error:
        raise InputError(
            f"unfinished merge '{folder}'",
            expected="the files that it had begun",
            found=str(error),
            remedy="Start again with --force and without --resume.",
        ) from None

    def sync() -> None:
        writer.sync()
        spool.sync()

    return Place(writer, writer, spool, Journal(folder / NAME, header, past, sync), entries)


def place_of_worker(job: Job, folder: Path | None, shard_bytes: int) -> Place:
    """The files of a merge that another process began, or memory: for one layer of it."""
    specs, spooled = output_specs(job), _spooled(job)
    if folder is None:
        return Place(MemorySink(specs), None, Spool(job, spooled, None), Journal(), {})
    writer = CheckpointWriter(folder, specs, shard_bytes=shard_bytes, done=specs)
    return Place(writer, writer, Spool(job, spooled, folder, spooled), Journal(), {})


def _spooled(job: Job) -> list[str]:
    """Layers that may wait for the second pass, where the method has one."""
    if job.method.rescale is None:
        return []
    return [unit.name for unit in units(job) if treated_as_matrix(job, unit.name)]


def _verified(past: Past, folder: Path) -> dict[str, Entry]:
    """The layers whose bytes are those that the journal speaks of."""
    if not past.entries:
        return {}
    written = Checkpoint.open(folder).tensors
    spooled = Checkpoint.open(folder / SPOOL).tensors if (folder / SPOOL).exists() else {}
    places: Mapping[str, Mapping[str, TensorEntry]] = {"written": written, "spooled": spooled}
    return {
        name: entry
        for name, entry in past.entries.items()
        if all(
            tensor in places[entry.stage] and checksum(places[entry.stage][tensor]) == crc
            for tensor, crc in entry.checksums.items()
        )
    }


def _identity(job: Job, shard_bytes: int) -> dict[str, Any]:
    """What makes two merges the same: whoever resumes must have all of it."""
    # Where the inputs lie does not matter, what is in them does; nor does what comes after.
    without = {"base", "base_statistics", "output", "evaluate", "search", "device", "experts",
               "engine"}  # fmt: skip
    recipe = pinned(job)
    kept = {"name", "weight", "examples", "fingerprint"}
    inputs = job.inputs
    return identity(
        {
            **recipe.model_dump(mode="json", exclude=without),
            "experts": [e.model_dump(mode="json", include=kept) for e in recipe.experts],
            "statistics": [_file_of(s) for s in (*inputs.statistics, inputs.base_statistics)],
            "start": job.start.fingerprint if job.start else None,
            "device": job.device,
            "shard_bytes": shard_bytes,
            "versions": {"mats_core": VERSION, "torch": torch.__version__},
        }
    )


def _file_of(statistics: Statistics | None) -> Any:
    """What tells one statistics file from another without reading it through."""
    if statistics is None:
        return None
    file = Path(statistics.source)
    stamp = [file.stat().st_size, file.stat().st_mtime_ns] if file.is_file() else None
    return {"file": stamp, **dict(statistics.metadata)}


# Merging ------------------------------------------------------------------------------------------


def here(job: Job, todo: Sequence[Unit], survey: Any, place: Place) -> Generator[Done, None, None]:
    """One layer after the other, in this process."""
    for unit in todo:
        yield merge_layer(job, unit, survey, place)


def merge_layers(job: Job, place: Place, engine: Engine = here) -> Layers:
    """Merge layer by layer; returns the reports (as the generator's value)."""
    todo = units(job)
    yield Started(len(todo), job.device, job.reason)
    survey = None
    if job.method.survey is not None and job.method.surveys(job.options) == "model":
        measure = job.method.survey
        survey = place.journal.survey(lambda: measure(lambda: read_layers(job), job.options))
    done: list[Entry] = []
    left = [unit for unit in todo if unit.name not in place.past]
    with contextlib.closing(engine(job, left, survey, place)) as merged:
        for index, unit in enumerate(todo):
            entry, iterates = place.past.get(unit.name), {}
            if entry is None:
                found = next(merged)
                entry, iterates = found.entry, found.iterates
                place.journal.layer(entry)
            done.append(entry)
            yield LayerDone(entry.report, index, len(todo), iterates)
    place.journal.flush()
    if job.method.rescale is not None:
        done = _second_pass(job, done, place)
    reports = [entry.report for entry in done]
    return [*reports, *_bias_reports(todo, reports)]


def merge_layer(job: Job, unit: Unit, survey: Any, place: Place) -> Done:
    """Merge one layer and hand it on: to the output, or to the spool of a second pass."""
    begun = time.perf_counter()
    if pieces(job, unit):
        report, names = _merge_pieces(job, unit, survey, place.sink, begun)
        return Done(Entry(report, "written", checksums=place.checksums(names)), {})
    layer = read_layer(job, unit)
    merged = job.method.merge(layer, job.options, survey)
    length = None
    if job.method.rescale is not None and merged.method == job.method.name:
        checksums = place.spool.add(unit.name, merged.value)
        length = norm(merged.value - layer.base)
    else:
        checksums = place.checksums(emit(job, unit, merged.value, place.sink))
    report = _report(unit, merged, time.perf_counter() - begun)
    stage = "written" if length is None else "spooled"
    iterates = merged.solution.iterates if merged.solution else {}
    return Done(Entry(report, stage, length, checksums), iterates)


def _merge_pieces(
    job: Job, unit: Unit, survey: Any, sink: Sink, begun: float
) -> tuple[LayerReport, list[str]]:
    method = job.method
    if method.survey is not None and method.surveys(job.options) == "tensor":
        survey = method.survey(lambda: read_pieces(job, unit), job.options)
    first: Merged | None = None
    made: list[tuple[Mapping[str, Any], int]] = []
    names: list[str] = []
    for layer in read_pieces(job, unit):
        merged = method.merge(layer, job.options, survey)
        names = emit(job, unit, merged.value, sink, layer.offset)
        # No tensor may outlive its piece, however small: it would lie in the way of the next one.
        made.append((merged.details, merged.value.numel()))
        first = first or replace(merged, value=NOTHING)
    assert first is not None
    found = replace(first, details=_mean_details(made))
    return _report(unit, found, time.perf_counter() - begun), names


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


def _second_pass(job: Job, done: Sequence[Entry], place: Place) -> list[Entry]:
    """Scale each update by the factor that the norms of all of them give it."""
    assert job.method.rescale is not None
    norms = {entry.report.name: entry.norm for entry in done if entry.norm is not None}
    factors = job.method.rescale(norms, job.options)
    final: list[Entry] = []
    for entry in done:
        if entry.stage == "spooled":
            entry = _rescaled(job, entry, factors[entry.report.name], place)
            place.journal.layer(entry)
        final.append(entry)
    return final


def _rescaled(job: Job, entry: Entry, factor: float, place: Place) -> Entry:
    name, family = entry.report.name, job.inputs.family
    base = family.weight(family.base, name, dtype=job.dtype, device=job.device)
    value = place.spool.read(name).sub_(base).mul_(factor).add_(base)
    details = {**entry.report.details, "layer_weight": factor}
    names = emit(job, Unit(name), value, place.sink)
    report = replace(entry.report, details=details)
    return Entry(report, "written", entry.norm, place.checksums(names))


# Reports ------------------------------------------------------------------------------------------


def _report(unit: Unit, merged: Merged, seconds: float) -> LayerReport:
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
