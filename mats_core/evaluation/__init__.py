"""What a model reaches on a task: scores with their intervals, for experts, bases and merges.

`examiner.py` asks many encoders the same questions; `comparison.py` says by how much two merges
differ and whether that could be chance.
"""

from . import confusion, evaluate, examiner, kept, metrics
from .carried import Before, carry
from .comparison import (
    Comparison,
    Difference,
    compare,
    normalised_interval,
    on_same_examples,
)
from .confusion import Changes
from .evaluate import with_head
from .examiner import KEPT, QUICK, ROUND, Asked, Exam, Examiner, exam, examining, going_on
from .of_loader import score_of_loader, scoring_loader
from .scores import (
    NOT_ASKED,
    Score,
    TaskResult,
    gap_recovered,
    half_width,
    normalised_accuracy,
    share,
    told_nothing,
)

__all__ = [
    "KEPT", "NOT_ASKED", "QUICK", "ROUND", "Asked", "Before", "Changes", "Comparison",
    "Difference", "Exam", "Examiner", "Score", "TaskResult", "carry", "compare", "confusion",
    "evaluate", "exam", "examiner", "examining", "gap_recovered", "going_on", "half_width",
    "kept", "metrics", "normalised_accuracy", "normalised_interval", "on_same_examples",
    "score_of_loader", "scoring_loader", "share", "told_nothing", "with_head",
]  # fmt: skip
