"""What the worker does to look inside a run: merge again, ask every image, load part by part.

The tensors of a finished run are not kept; its recipe makes the same ones again.  No Streamlit
here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import Tensor

from mats_core import models, tasks
from mats_core.evaluation import evaluate
from mats_core.families import Expert, Family
from mats_core.merging import Recipe

from . import again
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Answers, Looked, Shelf

Ready = Callable[[], Prepared]


def look(shelf: Shelf, run: Run, names: Sequence[str], ready: Ready, tell: Tell) -> None:
    """Put the answers of a run on these tasks on the shelf."""
    recipe, inputs = again.opened(run, ready())
    looked = again.looked(shelf, run, recipe, inputs, tell, 0.5)
    experts = [e for e in inputs.family.experts if e.name in names and e.name not in looked.answers]
    for index, expert in enumerate(experts):

        def say(who: str, part: float, at: int = index, name: str = expert.name) -> None:
            tell(0.5 + 0.5 * (at + part) / len(experts), f"Asking the {who} about {name}")

        looked.answers[expert.name] = _ask(shelf, looked, recipe, inputs.family, expert, say)


def disagreements(run: Run, answers: Answers) -> int:
    """On how many images the run made again is right where the run itself was not, or reversed."""
    result = next((r for r in run.report.tasks if r.name == answers.name), None)
    if result is None or run.report.split != "test":
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
    say: Callable[[str, float], None],
) -> Answers:
    task = tasks.load(expert.task, root=recipe.folder)
    evaluate.check_task(expert, task)

    def ask(encoder: Mapping[str, Tensor]) -> np.ndarray:
        begun = time.perf_counter()
        found = evaluate.probabilities(encoder, family, expert, task.test)
        shelf.pace = (time.perf_counter() - begun) / max(len(task.test), 1)
        return found

    def ask_references() -> tuple[np.ndarray, np.ndarray]:
        say("expert", 0.0)
        own = ask(models.tensors_of(expert.checkpoint))
        say("pre-trained encoder", 0.3)
        return own, ask(models.tensors_of(family.base))

    key = (family.base.fingerprint, expert.checkpoint.fingerprint, task.digest)
    own, base = shelf.reference(key, ask_references)
    say("merge", 0.6)
    merged = ask(looked.encoder)
    rows = task.test
    return Answers(
        expert.name, task.classes, rows.inputs, rows.labels, own, base, merged, rows.form
    )
