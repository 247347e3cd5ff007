"""How soon the command line does something: a whole merge of a family of a few kB."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import torch

from benchmarks.peers import llama, mergekit

from .base import Line, Row
from .disk import PEER, folder, interpreter

TINY = llama.Size(hidden=16, intermediate=32, layers=2, vocabulary=64, heads=2)  # 40 kB
REPEATS = 5


def whole_command() -> Sequence[Line]:
    """From the process's start to its end, an average of three experts; both sides in turns."""
    peer = interpreter()
    case = mergekit.Case("average", "average", {}, 3, "float32")
    with folder() as place:
        llama.write_family(place / case.dtype, TINY, torch.float32, shards=1)
        found = mergekit.compare_case(place, case, peer, repeats=REPEATS, tell=lambda text: None)
    checks = {"largest difference": max(d.largest for d in found.differences)}
    note = (
        "The work itself is nothing: the command is over as soon as it could begin. More than half "
        "of ours is importing PyTorch."
    )
    return [
        Line("three experts of 40 kB, whole command, one thread",
             statistics.median(ran.seconds for ran in found.ours),
             statistics.median(ran.seconds for ran in found.theirs),
             goal=2.0, checks=checks, note=note),
        Line("the same in user and system time",
             statistics.median(ran.cpu for ran in found.ours),
             statistics.median(ran.cpu for ran in found.theirs), unit="CPU s", goal=2.0),
    ]  # fmt: skip


ROWS = (
    Row("start", "Command line on a family of a few kB", "mergekit 0.1.5, the whole command",
        whole_command, minutes=2, needs=PEER),
)  # fmt: skip
