"""What the worker does to look inside a run: merge again, ask every image, load part by part.

The tensors of a finished run are not kept; its recipe makes the same ones again.  No Streamlit
here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from mats_core import models, tasks
from mats_core.analysis import Grain, Loading, LoadingDone, Ordering, StepDone, loading
from mats_core.errors import InputError, listing
from mats_core.evaluation import Asked, evaluate
from mats_core.families import Expert, Family
from mats_core.merging import Finished, Inputs, Progress, Recipe
from mats_core.merging import run as merge_again
from mats_core.tasks import IMAGES, Form, Split

from .jobs import Tell
from .prepare import Prepared, inputs_of
from .runs import Run

RUNS = 2  # whose tensors and answers are kept in a session
REFERENCES = 64  # tasks whose experts' answers are kept: small
EXAMPLES = 200  # validation images a task, for every state of the loading

Ready = Callable[[], Prepared]


@dataclass(frozen=True)
class Answers:
    """What three encoders with one expert's head say to its test examples.

    inputs as in the task's test split, labels (n,); expert, pretrained and merged are
    probabilities (n, classes).
    """

    name: str
    classes: tuple[str, ...]
    inputs: np.ndarray
    labels: np.ndarray
    expert: np.ndarray
    pretrained: np.ndarray
    merged: np.ndarray
    form: Form = IMAGES

    @property
    def noun(self) -> str:
        return self.form.noun

    def text(self, row: int) -> str:
        return Split(self.inputs, self.labels, self.form).text(row)


@dataclass
class Looked:
    """One run, made again, and what was found out about it."""

    encoder: Mapping[str, Tensor]
    answers: dict[str, Answers] = field(default_factory=dict)
    loadings: dict[tuple[Any, ...], Loading] = field(default_factory=dict)


class Shelf:
    """What a session has found out about its last runs: `RUNS` of them, then the oldest goes.

    `pace`: seconds that an encoder took for one image, as last measured.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, Looked] = {}
        self._references: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}
        self.pace: float | None = None

    def get(self, run: Run) -> Looked | None:
        with self._lock:
            return self._runs.get(run.id)

    def put(self, run: Run, encoder: Mapping[str, Tensor]) -> Looked:
        """The run's place, a new one where it has none yet."""
        with self._lock:
            found = self._runs.setdefault(run.id, Looked(encoder))
            while len(self._runs) > RUNS:
                del self._runs[next(iter(self._runs))]
            return found

    def reference(
        self, key: tuple[str, ...], ask: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Answers that are the same for every run."""
        with self._lock:
            known = self._references.get(key)
        if known is None:
            known = ask()
            with self._lock:
                self._references[key] = known
                while len(self._references) > REFERENCES:
                    del self._references[next(iter(self._references))]
        return known


def look(shelf: Shelf, run: Run, names: Sequence[str], ready: Ready, tell: Tell) -> None:
    """Put the answers of a run on these tasks on the shelf."""
    recipe, inputs = _opened(run, ready())
    looked = _looked(shelf, run, recipe, inputs, tell, 0.5)
    experts = [e for e in inputs.family.experts if e.name in names and e.name not in looked.answers]
    for index, expert in enumerate(experts):

        def say(who: str, part: float, at: int = index, name: str = expert.name) -> None:
            tell(0.5 + 0.5 * (at + part) / len(experts), f"Asking the {who} about {name}")

        looked.answers[expert.name] = _ask(shelf, looked, recipe, inputs.family, expert, say)


def load(
    shelf: Shelf,
    run: Run,
    grain: Grain,
    orderings: tuple[Ordering, ...],
    ready: Ready,
    tell: Tell,
) -> None:
    """Put the layer-by-layer loading of a run on the shelf."""
    recipe, inputs = _opened(run, ready())
    looked = _looked(shelf, run, recipe, inputs, tell, 0.1)
    events = loading.load(
        recipe, looked.encoder, inputs=inputs, grain=grain, orderings=orderings, examples=EXAMPLES
    )
    done = 0
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            if isinstance(event, Asked):
                tell(0.1 + 0.9 * event.fraction, f"Testing state {done + 1}")
            elif isinstance(event, StepDone):
                done = event.index + 1
            elif isinstance(event, LoadingDone):
                looked.loadings[grain, orderings] = event.loading


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


def _opened(run: Run, prepared: Prepared) -> tuple[Recipe, Inputs]:
    """The run's recipe, silent, and its files; `InputError` where these changed since."""
    options = dict(run.report.options)  # those that were applied: after a search, the best ones
    quiet = {"evaluate": False, "output": None, "search": None, "options": options}
    recipe = run.recipe.model_copy(update=quiet)
    inputs = inputs_of(prepared, recipe)
    now = {"base": inputs.family.base.fingerprint}
    now |= {expert.name: expert.checkpoint.fingerprint for expert in inputs.family.experts}
    changed = [n for n, own in run.report.fingerprints.items() if now.get(n) != own]
    if changed:
        raise InputError(
            f"run {run.label}",
            expected="the checkpoints that it was merged from",
            found=f"others in place of {listing(changed)}",
            remedy="The files changed since this run; merge again.",
        )
    return recipe, inputs


def _looked(
    shelf: Shelf, run: Run, recipe: Recipe, inputs: Inputs, tell: Tell, share: float
) -> Looked:
    """The run's tensors from the shelf, or made again (the first `share` of the progress)."""
    looked = shelf.get(run)
    if looked is not None:
        return looked
    progress = Progress(recipe.rounds, "Merging again,")

    def pulse(iteration: int, residual: float) -> None:
        tell(share * progress.fraction, f"{progress.text}, iteration {iteration}")

    events = merge_again(recipe, inputs=inputs, pulse=pulse)
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            if progress.see(event):
                tell(share * progress.fraction, progress.text)
            elif isinstance(event, Finished):
                return shelf.put(run, event.tensors)
    raise RuntimeError("the merge ended without tensors")


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


__all__ = ["EXAMPLES", "Answers", "Looked", "Shelf", "disagreements", "load", "look"]
