"""An example of the user's, asked of base, experts and finished runs, in the worker."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from torch import Tensor

from mats_core.analysis import OwnAnswers, answering
from mats_core.merging import Event
from mats_core.system import part

from .. import policy
from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MERGED = 0.6  # of the whole, when the runs are made again


def ask_own(
    shelf: Shelf,
    merges: Mapping[str, Run],
    task: str,
    given: Sequence[str] | bytes,
    ready: Ready,
    tell: Tell,
) -> OwnAnswers:
    """The answers to one example; `merges`: the runs that are asked, by the names they have."""
    length = len(given) if isinstance(given, bytes) else sum(len(text.encode()) for text in given)
    policy.current().require_size("the example", length, policy.current().example)
    return told(_asking(shelf, merges, task, given, ready()), tell)


def _asking(
    shelf: Shelf,
    merges: Mapping[str, Run],
    task: str,
    given: Sequence[str] | bytes,
    prepared: Prepared,
) -> Generator[Event, None, OwnAnswers]:
    encoders: dict[str, Mapping[str, Tensor]] = {}
    for place, (name, run) in enumerate(merges.items()):
        start, stop = (MERGED * (place + k) / len(merges) for k in (0, 1))
        _, _, looked = yield from again.remade(shelf, run, prepared, start, stop=stop)
        encoders[name] = looked.encoder
    folder = prepared.collection.folder
    events = answering(prepared.inputs, folder, task, given, encoders)
    return (yield from part(events, MERGED))
