"""The survey of a family, every layer and task: made once, in the background, for several pages."""

from __future__ import annotations

from functools import partial

from mats_core.analysis import Survey
from mats_core.recipes import Inputs

from ..work import Job, look_around
from . import caches, state, tracked
from .state import Slot


def matrices(inputs: Inputs) -> list[str]:
    """Weights that have spectra: those with statistics, or all matrices where there are none."""
    family = inputs.family
    all_matrices = [name for name, role in family.roles.items() if role == "matrix"]
    measured = {
        f"{module}.weight" for own in inputs.statistics if own is not None for module in own.layers
    }
    return [name for name in all_matrices if name in measured] or all_matrices


def survey(inputs: Inputs) -> Job | Survey:
    """The finished survey, or the job that makes it (started when it is first asked for)."""
    known = caches.survey(inputs)
    if known is not None:
        return known
    key = caches.identity(inputs)
    job = state.job(Slot.SURVEYING)
    if job is None or job.request != key:
        todo = partial(look_around, inputs, caches.by_task(inputs), matrices(inputs))
        title = "Looking at every layer"
        job = tracked.start(Slot.SURVEYING, key, title, todo, background=True)
    now = job.snapshot()
    if now.state == "done":
        caches.keep_survey(inputs, now.result)
        return now.result
    return job
