"""Where a merge under way lies: sink, spool and journal of one output, or memory."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints import Checkpoint, CheckpointWriter, TensorEntry, checksum, stem_of
from ..errors import InputError
from ..recipes import VERSION, KeptSums, Plan, units
from ..statistics import Statistics
from .directory import pinned
from .journal import NAME, Entry, Journal, Past, identity, read_past
from .later import Later
from .reading import treated_as_matrix
from .sinks import SPOOL, MemorySink, Sink, Spool, output_specs


@dataclass
class Place:
    """Where a merge goes: the sink, the spool and the journal of one output, or memory.

    past     the layers that an earlier merge has left there
    folder   of the output; None: memory
    sums     over the experts, where they are kept
    later    what the stages after the layers make
    """

    sink: Sink
    writer: CheckpointWriter | None
    spool: Spool
    journal: Journal
    past: Mapping[str, Entry]
    folder: Path | None = None
    sums: KeptSums | None = None
    later: Later = field(default_factory=Later)

    def finish(self) -> None:
        """All tensors are written: put them on the disk."""
        self.journal.flush()
        if self.writer is not None:
            self.writer.close()
        self.spool.remove()

    def discard(self) -> None:
        """Close the files, as they are."""
        if self.writer is not None:
            self.writer.discard()
        self.spool.discard()

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


def open_place(plan: Plan, folder: Path | None, *, shard_bytes: int, resume: bool = False) -> Place:
    """The sink, spool and journal of a merge into `folder`, or into memory.

    With `resume` what an earlier merge left in the folder is taken over.  Raises `InputError` where
    it was another one.
    """
    specs, spooled = output_specs(plan), _spooled(plan)
    if folder is None:
        return Place(MemorySink(specs), None, Spool(plan, spooled, None), Journal(), {})
    header = identity({**identity_of(plan), "shard_bytes": shard_bytes})
    past = read_past(folder, header) if resume else Past()
    entries = _verified(past, folder)
    sums = None
    if plan.recipe.keep_sums:
        sums = KeptSums.into(folder, [unit.name for unit in units(plan)])
        entries = {name: entry for name, entry in entries.items() if sums.has(name)}
    written = {n for e in entries.values() if e.stage == "written" for n in e.checksums}
    try:
        with contextlib.ExitStack() as opened:
            stem = stem_of(plan.inputs.family.base)
            writer = CheckpointWriter(
                folder, specs, shard_bytes=shard_bytes, done=written, stem=stem
            )
            opened.callback(writer.discard)
            done = {e.report.name for e in entries.values() if e.norm is not None}
            # What was written is not spooled again, and no spool is made for nothing.
            if all(name in entries and entries[name].stage == "written" for name in spooled):
                (folder / SPOOL).unlink(missing_ok=True)
                spooled = []
            elif not (folder / SPOOL).exists():
                done = set()  # it was removed once all was written, of which some is damaged now
            spool = Spool(plan, spooled, folder, done)
            opened.callback(spool.discard)
            journal = Journal(folder / NAME, header, past, lambda: _sync(writer, spool))
            opened.pop_all()
    except InputError:
        raise
    except (FileNotFoundError, ValueError) as error:
        if not past.entries:  # nothing was begun: this is no matter of an unfinished merge
            raise
        raise InputError(
            f"unfinished merge '{folder}'",
            expected="its unfinished files",
            found=str(error),
            remedy="Start again with --force and without --resume.",
        ) from None

    return Place(writer, writer, spool, journal, entries, folder, sums, Later(journal, folder))


def _sync(writer: CheckpointWriter, spool: Spool) -> None:
    writer.sync()
    spool.sync()


def place_of_worker(plan: Plan, folder: Path | None, shard_bytes: int) -> Place:
    """The files of a merge that another process began, or memory: for one layer of it."""
    specs, spooled = output_specs(plan), _spooled(plan)
    if folder is None:
        return Place(MemorySink(specs), None, Spool(plan, spooled, None), Journal(), {})
    stem = stem_of(plan.inputs.family.base)
    writer = CheckpointWriter(folder, specs, shard_bytes=shard_bytes, done=specs, stem=stem)
    return Place(writer, writer, Spool(plan, spooled, folder, spooled), Journal(), {})


def _spooled(plan: Plan) -> list[str]:
    """Layers that may wait for the second pass, where the method has one."""
    if plan.method.rescale is None:
        return []
    return [unit.name for unit in units(plan) if treated_as_matrix(plan, unit.name)]


def _verified(past: Past, folder: Path) -> dict[str, Entry]:
    """The layers whose bytes are those that the journal speaks of."""
    if not past.entries:
        return {}
    # An adapter may have taken the place of the weights.
    written = Checkpoint.open(folder).tensors if any(folder.glob("[!.]*.safetensors")) else {}
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


def identity_of(plan: Plan) -> dict[str, Any]:
    """What makes two merges the same: one that goes on with another must have all of it."""
    # Where the inputs lie does not matter, what is in them does; nor does what comes after.
    without = {"base", "base_statistics", "output", "evaluate", "search", "device", "experts",
               "engine"}  # fmt: skip
    recipe = pinned(plan)
    kept = {"name", "weight", "examples", "fingerprint", "align"}
    if plan.method.calibrates or recipe.refine is not None:  # on the inputs of these
        kept.add("task")
    inputs = plan.inputs
    return {
        **recipe.model_dump(mode="json", exclude=without),
        "experts": [e.model_dump(mode="json", include=kept) for e in recipe.experts],
        "statistics": [_file_of(s) for s in (*inputs.statistics, inputs.base_statistics)],
        "start": plan.start.fingerprint if plan.start else None,
        **({"added to": inputs.earlier.digest} if inputs.earlier else {}),
        "device": plan.device,
        "versions": {"mats_core": VERSION, "torch": torch.__version__},
    }


def _file_of(statistics: Statistics | None) -> Any:
    """What tells one statistics file from another, wherever it lies."""
    if statistics is None:
        return None
    return {"file": statistics.digest, **dict(statistics.metadata)}
