"""What a merge has done before its layers: trials of its search, and statistics of its rounds.

Each is a piece in the unfinished output (`later.py`), by a journal of its own: which layers there
are to merge, and by what, is known when these are done.  So all that a piece was made from stands
in its key, and one of another recipe or of other inputs is not taken.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import models, tasks
from ..recipes import Inputs, Plan, Recipe
from ..statistics import Statistics
from ..system import Event, Memo
from .journal import BEFORE, BEFORE_PIECES, Journal, identity, pieces_done, read_past
from .later import Later, Piece, digest_of
from .workspace import identity_of


@contextlib.contextmanager
def opened(folder: Path | None, *, resume: bool) -> Iterator[Later]:
    """Where the pieces of a merge lie that is written into this folder; without one none is kept.

    `resume`: whether those that are there already are taken.
    """
    if folder is None:
        yield Later()
        return
    header = identity({})
    past = read_past(folder, header, BEFORE) if resume else None
    with contextlib.closing(Journal(folder / BEFORE, header, past)) as journal:
        yield Later(journal, folder, BEFORE_PIECES)


def done(folder: Path) -> int:
    """How many trials and rounds an unfinished merge in this folder has done."""
    return pieces_done(folder / BEFORE)


def clear(folder: Path) -> None:
    """Remove the pieces of a merge that has come to its end."""
    shutil.rmtree(folder / BEFORE_PIECES, ignore_errors=True)
    (folder / BEFORE).unlink(missing_ok=True)


def key_of(what: str, plan: Plan, before: str = "") -> str:
    """What decides on the outcome of a merge that is done on the way: the merge itself, the tasks
    that it is tested or measured on, the settings of the experts; `before`: the key of what its
    statistics come from, where they are in no file."""
    inputs, recipe = plan.inputs, plan.recipe
    asked = recipe.evaluate
    told = identity(
        {
            "before": before,
            "merge": identity_of(plan),
            "evaluate": asked if isinstance(asked, bool) else asked.model_dump(mode="json"),
            "experts": [
                (models.settings_digest(e.checkpoint.directory), _digest(e.task, recipe.folder))
                for e in inputs.family.experts
            ],
        }
    )
    return f"{what} {digest_of(told, {})}"


def _digest(task: Any, root: Path) -> str | None:
    return tasks.load(task, root=root).digest if task else None


def once(
    kept: Later, key: str, making: Generator[Event, None, Piece]
) -> Generator[Event, None, Piece]:
    """A piece that was made before, else what `making` returns, after its events."""
    if kept.has(key):
        making.close()
        return kept.piece(key, Piece)
    made = yield from making
    kept.piece(key, lambda: made)
    kept.flush()  # it took a whole merge
    return made


def silent(recipe: Recipe) -> Recipe:
    """The recipe of the layers of one round alone."""
    return recipe.model_copy(
        update={
            "evaluate": False,
            "output": None,
            "search": None,
            "rounds": 1,
            "refine": None,
            "routed": None,
            "lora": None,
        }
    )


def as_piece(statistics: Sequence[Statistics | None]) -> Piece:
    """The statistics of all experts."""
    tensors = {
        f"{index} {name}": own.stored(name)
        for index, own in enumerate(statistics)
        if own is not None
        for name in own.shapes
    }
    return Piece(
        tensors, {"metadata": [None if s is None else dict(s.metadata) for s in statistics]}
    )


def with_piece(inputs: Inputs, piece: Piece) -> Inputs:
    """The same files with the statistics of a piece."""
    found: list[Statistics | None] = []
    for index, metadata in enumerate(piece.told["metadata"]):
        lead = f"{index} "
        own = {n.removeprefix(lead): v for n, v in piece.tensors.items() if n.startswith(lead)}
        found.append(None if metadata is None else Statistics.of(own, metadata))
    # Nothing is merged with these statistics again: there is nothing to remember.
    return replace(inputs, statistics=tuple(found), memo=Memo())
