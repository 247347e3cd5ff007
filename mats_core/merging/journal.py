"""What a merge under way has written: one JSON line a layer, beside the data in its folder.

A merge that is killed leaves a partial folder with a journal; with `--resume` the same merge goes
on from the layers that the journal names.  The order on disk is data, then line: lines wait until
the data they speak of was flushed.  A torn last line counts as not written, and a layer whose bytes
do not have the checksum of its line is merged again.

    {"format": "mats-journal-1", "merge": sha256 of recipe, inputs and versions, ...}
    {"survey": [...]}                                          thresholds of a first pass over all
    {"layer": name, "stage": "spooled", "norm": …, "report": {…}, "checksums": {tensor: crc}}
    {"layer": name, "stage": "written", "report": {…}, "checksums": {tensor: crc}}
    {"piece": key, "file": name, "checksums": {tensor: crc}, "told": {…}}   (see `later.py`)
    {"asked": sha256 of what was asked (`asked.py`), "tasks": [{…}, …]}   results so far
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError, typed
from ..evaluation import TaskResult
from ..recipes import LayerReport, layer_dict, layer_of, task_dict, task_of_dict

NAME = ".journal.jsonl"
PIECES = ".pieces"  # the folder of what is made after the layers (`later.py`)
BEFORE, BEFORE_PIECES = ".before.jsonl", ".before"  # of what is done before them (`before.py`)
FORMAT = "mats-journal-2"
UNCHECKED = "mats-journal-1"  # its lines have no check sums
CHECK = "check"  # of a line: the CRC-32 of what stands before it
STAGES = ("spooled", "written")
INTERVAL = 2.0  # seconds of work that a killed merge may lose, beside the layer under way

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """A layer that is done: spooled, for a second pass that needs its norm, or written."""

    report: LayerReport
    stage: str
    norm: float | None = None
    checksums: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class KeptPiece:
    """What a stage after the layers has made: the file that holds it, and what is told with it."""

    key: str
    file: str
    checksums: Mapping[str, int] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Past:
    """What an earlier, unfinished merge has done; `length` is that of its whole lines."""

    entries: Mapping[str, Entry] = field(default_factory=dict)
    survey: Any = None
    asked: Mapping[str, Sequence[TaskResult]] = field(default_factory=dict)
    pieces: Mapping[str, KeptPiece] = field(default_factory=dict)
    length: int = 0


def identity(content: Mapping[str, Any]) -> dict[str, Any]:
    """The first line of a journal; `content` is plain values that say what is merged and how."""
    return {"format": FORMAT, **json.loads(json.dumps(content, default=str))}


def layers_done(folder: Path) -> int:
    """How many layers an unfinished merge in this folder has done; 0 where there is none."""
    return len(_parse(folder / NAME)[1].entries)


def pieces_done(file: Path) -> int:
    """How many pieces a journal speaks of; 0 where there is none."""
    return len(_parse(file)[1].pieces)


def read_past(folder: Path, header: Mapping[str, Any], name: str = NAME) -> Past:
    """What there is to go on from; nothing, where nothing was begun.

    Raises `InputError` where the journal is that of another merge.
    """
    first, past = _parse(folder / name)
    if first is None:
        return Past()
    if first != header:
        differ = sorted(k for k in {*first, *header} if first.get(k) != header.get(k))
        raise InputError(
            f"unfinished merge '{folder}'",
            expected="the same recipe, inputs and versions as now",
            found=f"others: {', '.join(differ)}",
            remedy="Run it as it was begun, or start again with --force and without --resume.",
        )
    return past


def _parse(file: Path) -> tuple[dict[str, Any] | None, Past]:
    try:
        raw = file.read_bytes()
    except OSError:
        return None, Past()
    first: dict[str, Any] | None = None
    entries: dict[str, Entry] = {}
    asked: dict[str, Sequence[TaskResult]] = {}
    pieces: dict[str, KeptPiece] = {}
    survey, length = None, 0
    for line in raw.splitlines(keepends=True):
        try:
            content = json.loads(line)
            if not line.endswith(b"\n"):
                break
            if not isinstance(content, dict):
                break
            checked = first is not None and first.get("format") != UNCHECKED
            if checked and content.pop(CHECK) != _check(content):
                break  # damaged: so is whatever else may be said after it
            if first is None:
                first = content
            elif "survey" in content:
                survey = content["survey"]
            elif "asked" in content:
                asked[str(content["asked"])] = tuple(map(_result, content["tasks"]))
            elif "piece" in content:
                key = content.pop("piece")
                piece = typed(KeptPiece, {**content, "key": key})
                if Path(piece.file).name != piece.file:
                    break
                pieces[piece.key] = piece
            else:
                name, report = content.pop("layer"), layer_of(content.pop("report"))
                entry = typed(Entry, {**content, "report": report})
                if entry.stage not in STAGES or name != report.name:
                    break
                entries[name] = entry
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            break  # torn by what killed the merge: this line and all after it do not count
        length += len(line)
    return first, Past(entries, survey, asked, pieces, length)


def _check(content: Mapping[str, Any]) -> int:
    """The CRC-32 of a line's content, as JSON writes it."""
    return zlib.crc32(json.dumps(content).encode())


def _result(content: Mapping[str, Any]) -> TaskResult:
    """A result as it was noted: that of a report, with the answers that were none."""
    result = task_of_dict(content)
    return replace(result, merged=replace(result.merged, nothing=int(content["nothing"])))


class Journal:
    """Notes what is done; without a `file` (a merge that stays in memory) it notes nothing."""

    def __init__(
        self,
        file: Path | None = None,
        header: Mapping[str, Any] | None = None,
        past: Past | None = None,
        sync: Callable[[], None] = lambda: None,
    ) -> None:
        self.past = past or Past()
        self._sync, self._waiting = sync, list[str]()
        self._flushed = time.monotonic()
        self._handle = None
        if file is None:
            return
        self._handle = file.open("r+b" if self.past.length else "wb")
        try:
            self._begin(dict(header or {}))
        except BaseException:
            self._handle.close()
            raise

    def _begin(self, header: Mapping[str, Any]) -> None:
        """Go to the end of what counts; in a new file, after its header."""
        assert self._handle is not None
        self._handle.truncate(self.past.length)
        self._handle.seek(0, os.SEEK_END)
        if not self.past.length:
            self._note(header)
            self.flush()

    def layer(self, entry: Entry) -> None:
        """A layer is done; its data has been handed to the writer."""
        told = {"layer": entry.report.name, "stage": entry.stage}
        norm = {} if entry.norm is None else {"norm": entry.norm}
        report = {"report": layer_dict(entry.report), "checksums": dict(entry.checksums)}
        self._note({**told, **norm, **report})
        if time.monotonic() - self._flushed >= INTERVAL:
            self.flush()

    def survey(self, compute: Callable[[], Any]) -> Any:
        """The first pass's result, from the past where it is known."""
        if self.past.survey is not None:
            return self.past.survey
        found = compute()
        self._note({"survey": found})
        self.flush()
        return found

    @property
    def writes(self) -> bool:
        """Whether anything is noted."""
        return self._handle is not None

    def asked(self, key: str, results: Sequence[TaskResult]) -> None:
        """What was answered so far to what a key stands for."""
        tasks = [{**task_dict(one), "nothing": one.merged.nothing} for one in results]
        self._note({"asked": key, "tasks": tasks})
        if time.monotonic() - self._flushed >= INTERVAL:
            self.flush()

    def piece(self, piece: KeptPiece) -> None:
        """A piece is made; its file is on the disk."""
        told = {"checksums": dict(piece.checksums), "told": dict(piece.told)}
        self._note({"piece": piece.key, "file": piece.file, **told})
        if time.monotonic() - self._flushed >= INTERVAL:
            self.flush()

    def _note(self, content: Mapping[str, Any]) -> None:
        if self._handle is not None:
            line = dict(content)
            if line.get("format") != FORMAT:  # of the first line, all is compared
                line[CHECK] = _check(content)
            self._waiting.append(json.dumps(line, ensure_ascii=False) + "\n")

    def flush(self) -> None:
        """Put the data on the disk, and then the lines about it."""
        if self._handle is not None and self._waiting:
            self._sync()
            self._handle.write("".join(self._waiting).encode())
            self._handle.flush()
            os.fsync(self._handle.fileno())
            self._waiting.clear()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Flush and close; the file is closed where flushing fails, too."""
        try:
            self.flush()
        finally:
            handle, self._handle = self._handle, None
            if handle is not None:
                handle.close()
