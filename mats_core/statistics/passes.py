"""Statistics into a file, within a budget of memory: several passes over the same batches.

The sums of one layer do not depend on those of another, so a pass may keep those of some layers
only.  Where all of them are more than the budget, layers are put into groups that fit, every group
has a pass of its own (same examples, same seed, same batches: the same numbers, bit for bit), and
its result goes to disk before the next.  A layer whose own statistics exceed the budget has a pass
to itself.  The model and its activations come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..checkpoints import Weights
from ..linear import WORTH
from ..names import is_matrix, module_of
from ..system import available_memory, folder_under_way, part
from ..tasks import Task
from .collect import Steps
from .of_task import measuring_task
from .settings import MeasureSettings
from .store import TOLD, Statistics

SHARE = 0.5  # of the available memory, where no budget is given; the model takes its part, too
WIDTH = 4  # bytes of a number: sums are float32


def measuring_to_file(
    checkpoint: Weights,
    task: Task,
    path: str | Path,
    settings: MeasureSettings,
    *,
    memory: float | None = None,
) -> Steps:
    """The statistics of `measuring_task` in a file, opened; it appears whole or not at all.

    `memory`: bytes that the sums may take; half of what is available by default.  An event after
    each batch, whose fraction is of all passes.
    """
    path = Path(path)
    if memory is None:
        free = available_memory()
        memory = float("inf") if free is None else SHARE * free
    groups = grouped(checkpoint, memory, settings)
    if len(groups) == 1:
        (yield from measuring_task(checkpoint, task, settings)).save(path)
        return Statistics.open(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with folder_under_way(path) as folder:
        parts = []
        for index, names in enumerate(groups):
            steps = measuring_task(checkpoint, task, settings, only=names)
            of_all = (index / len(groups), (index + 1) / len(groups))
            found = yield from part(steps, *of_all, f"{{}}, pass {index + 1} of {len(groups)}")
            file = folder / f"{index}.safetensors"
            if found.shapes:
                found.save(file)
                parts.append(Statistics.open(file))
        joined(parts).save(path)
    return Statistics.open(path)


def grouped(checkpoint: Weights, budget: float, settings: MeasureSettings) -> list[frozenset[str]]:
    """The parameters of a checkpoint in groups whose sums fit, modules kept together."""
    modules: dict[str, list[str]] = {}
    for name in checkpoint.tensors:
        modules.setdefault(module_of(name), []).append(name)
    groups: list[list[str]] = [[]]
    filled = 0.0
    for names in modules.values():
        size = sum(statistics_bytes(n, checkpoint.tensors[n].shape, settings) for n in names)
        if groups[-1] and filled + size > budget:
            groups.append([])
            filled = 0.0
        groups[-1] += names
        filled += size
    return [frozenset(names) for names in groups]


def statistics_bytes(name: str, shape: Sequence[int], settings: MeasureSettings) -> int:
    """Bytes of what is summed up for a parameter, as its name and shape let one expect.

    A Gram in factors has twice its rows while it is measured.
    """
    elements, rank = math.prod(shape), settings.rank
    found = elements + (elements**2 if elements <= settings.blocks else 0)
    if is_matrix(name, shape):
        found += shape[1] + sum(2 * rank * d if 0 < WORTH * rank <= d else d * d for d in shape)
    return WIDTH * found


def joined(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of different layers of one model as one; read from their files when asked for."""
    of: Mapping[str, Statistics] = {name: part for part in parts for name in part.shapes}
    tokens = max((part.tokens or 0) for part in parts)
    said = {key: [line for p in parts for line in p.metadata.get(key, "").splitlines()]
            for key in TOLD}  # fmt: skip
    told = {key: "\n".join(dict.fromkeys(lines)) for key, lines in said.items() if lines}
    return Statistics(
        {name: part.shapes[name] for name, part in of.items()},
        {**parts[0].metadata, "tokens": str(tokens), **told},
        lambda name: of[name].stored(name),
        "several passes",
    )
