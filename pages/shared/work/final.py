"""The final figure of a run: its test examples, asked once, and how many merges were asked them."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Sequence
from datetime import UTC, datetime

from mats_core.checkpoints import write_atomically
from mats_core.errors import lenient_json
from mats_core.evaluation import TaskResult, going_on
from mats_core.merging import Event
from mats_core.recipes import FINAL
from mats_core.system import part

from . import again, runs
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Final, Run
from .shelf import Shelf

ASKED = "asked"  # the file that says which runs of a family were asked test examples, and when
MERGED = 0.4  # of the whole, when the run is made again
_WRITING = threading.Lock()


def ask(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> Run:
    """The run with its final figure: the one that it has, else what its test examples say now."""
    kept = next((one for one in runs.everything(run.family) if one.id == run.id), run)
    if kept.final is not None:
        return kept
    return finish(kept, told(_asking(shelf, kept, ready()), tell))


def _asking(
    shelf: Shelf, run: Run, prepared: Prepared
) -> Generator[Event, None, Sequence[TaskResult]]:
    """The results of a run on all test examples; those that an older run was asked count."""
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    known = run.report.tasks if run.report.split == FINAL.split else ()
    asking = going_on(inputs.family, recipe.folder, looked.encoder, known, FINAL.split)
    return (yield from part(asking, MERGED))


def finish(run: Run, tasks: Sequence[TaskResult]) -> Run:
    """The run with its final figure, which is kept; that its test examples were asked stays
    written down, whatever becomes of the run."""
    final = Final(tuple(tasks), datetime.now(UTC).isoformat(timespec="seconds"))
    with _WRITING:
        content = {**_ledger(run.family), run.id: final.asked}
        write_atomically(runs.folder(run.family) / ASKED, json.dumps(content).encode())
    return runs.change(run, final=final, draft=False)


def asked(family: str) -> int:
    """How many merges of a family were asked test examples, deleted ones included."""
    of_old = (run.id for run in runs.everything(family) if run.report.split == FINAL.split)
    return len({*_ledger(family), *of_old})


def _ledger(family: str) -> dict[str, str]:
    """Which merges were asked by a press, and when; none where the file says nothing."""
    content = lenient_json(runs.folder(family) / ASKED)
    return content if isinstance(content, dict) else {}
