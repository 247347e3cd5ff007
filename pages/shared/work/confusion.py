"""What the worker does to look inside a run: merge again, ask every image, load part by part.

The tensors of a finished run are not kept; its recipe makes the same ones again.  No Streamlit
here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence

import numpy as np
from torch import Tensor

from mats_core import models, tasks
from mats_core.checkpoints import Weights
from mats_core.evaluation import evaluate
from mats_core.families import Expert, Family
from mats_core.merging import Event
from mats_core.recipes import TRIED, Inputs, Recipe
from mats_core.system import part, recall

from . import again
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Answers, Looked, Shelf

Ready = Callable[[], Prepared]


def look(shelf: Shelf, run: Run, names: Sequence[str], ready: Ready, tell: Tell) -> None:
    """Put the answers of a run on these tasks on the shelf."""
    recipe, inputs = again.opened(run, ready())
    told(_looking(shelf, run, names, recipe, inputs), tell)


def _looking(
    shelf: Shelf, run: Run, names: Sequence[str], recipe: Recipe, inputs: Inputs
) -> Generator[Event, None, None]:
    looked = yield from part(again.looked(shelf, run, recipe, inputs), stop=0.5)
    experts = [e for e in inputs.family.experts if e.name in names and e.name not in looked.answers]
    for index, expert in enumerate(experts):
        start, stop = (0.5 + 0.5 * (index + k) / len(experts) for k in (0, 1))
        asking = _ask(shelf, looked, recipe, inputs.family, expert)
        looked.answers[expert.name] = yield from part(asking, start, stop)


def disagreements(run: Run, answers: Answers) -> int:
    """On how many images the run made again is right where the run itself was not, or reversed."""
    result = next((r for r in run.report.tasks if r.name == answers.name), None)
    if result is None or run.report.split != TRIED.split:
        return 0
    right = answers.merged.argmax(1) == answers.labels
    known = result.merged.answers
    if known:
        pairs = zip(known, right, strict=False)
        return sum(then != "-" and (then == "1") != bool(now) for then, now in pairs)
    same_images = result.merged.examples == len(right)
    return abs(result.merged.correct - int(right.sum())) if same_images else 0


def _ask(
    shelf: Shelf,
    looked: Looked,
    recipe: Recipe,
    family: Family,
    expert: Expert,
) -> Generator[Event, None, Answers]:
    task = tasks.load(expert.task, root=recipe.folder)
    task = evaluate.check_task(expert, task).task
    rows = task.split(TRIED.split)

    def ask(encoder: Mapping[str, Tensor]) -> np.ndarray:
        begun = time.perf_counter()
        found = evaluate.probabilities(encoder, family, expert, rows)
        shelf.pace = (time.perf_counter() - begun) / max(len(rows), 1)
        return found

    def asking(who: str, fraction: float) -> Event:
        return Event(fraction=fraction, text=f"Asking the {who} about {expert.name}")

    def reference(checkpoint: Weights) -> np.ndarray:
        """Answers that are the same for every run."""
        settings = models.settings_digest(expert.checkpoint.directory)
        key = (checkpoint.fingerprint, expert.checkpoint.fingerprint, settings, rows.digest)
        return recall(("answers", *key), lambda: ask(models.tensors_of(checkpoint)))

    yield asking("expert", 0.0)
    own = reference(expert.checkpoint)
    yield asking("pre-trained encoder", 0.3)
    base = reference(family.base)
    yield asking("merge", 0.6)
    merged = ask(looked.encoder)
    return Answers(
        expert.name, task.classes, rows.inputs, rows.labels, own, base, merged, rows.form
    )
