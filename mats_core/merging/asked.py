"""What a merge answered before it was stopped: kept in its journal, and not asked again.

What was asked is told by all that decides the answers: the merged tensors as they are tested, the
examples, and the head and settings of each expert.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence

from torch import Tensor

from .. import models
from ..evaluation import Asked, Exam, TaskResult
from ..recipes import Plan
from ..system import Event, changed
from .asking import asking_plan
from .journal import Journal
from .later import digest_of


def asking_on(
    plan: Plan, exam: Exam, encoder: Mapping[str, Tensor], journal: Journal
) -> Generator[Event, None, Sequence[TaskResult]]:
    """The results of the merged model on every task, those that a journal knows included; what is
    answered meanwhile is noted there."""
    if not journal.writes or not exam.examiners:
        return (yield from asking_plan(plan, exam, encoder))
    key = _key(exam, encoder)

    def noted(event: Event) -> Event:
        if isinstance(event, Asked):
            journal.asked(key, event.results)
        return event

    known = journal.past.asked.get(key, ())
    return (yield from changed(asking_plan(plan, exam, encoder, known), noted))


def _key(exam: Exam, encoder: Mapping[str, Tensor]) -> str:
    """SHA-256 of what decides the answers of an examination."""
    asked = [
        (
            one.expert.name,
            one.expert.checkpoint.fingerprint,
            models.settings_digest(one.directory),
            one.split.digest,
            one.device,
        )
        for one in exam.examiners
    ]
    return digest_of(asked, encoder)
