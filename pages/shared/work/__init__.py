"""TODO."""

from .confusion import EXAMPLES, Answers, Shelf, load
from .export import Written
from .jobs import Desk, Job, Snapshot, Worker
from .predicted_loss import SweepRequest
from .prepare import UNDAMPED, Prepared, Request, Residuals, TaskCard, clipped, picture
from .runs import Run
from .survey import look_around

__all__ = [
    "EXAMPLES",
    "UNDAMPED",
    "Answers",
    "Desk",
    "Job",
    "Prepared",
    "Request",
    "Residuals",
    "Run",
    "Shelf",
    "Snapshot",
    "SweepRequest",
    "TaskCard",
    "Worker",
    "Written",
    "clipped",
    "confusion",
    "export",
    "load",
    "look_around",
    "picture",
    "predicted_loss",
    "prepare",
    "runs",
]
