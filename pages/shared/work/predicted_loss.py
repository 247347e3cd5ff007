"""Predicted and measured loss of a finished run, in the worker."""

from __future__ import annotations

from mats_core.analysis import Interference, predicting

from . import again
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run

LOSS_EXAMPLES = 200


def predict(run: Run, prepared: Prepared, tell: Tell) -> Interference:
    """Predicted and measured loss of a run, merged again from the files as they are now."""
    recipe, inputs = again.opened(run, prepared)
    return told(predicting(recipe, inputs=inputs, examples=LOSS_EXAMPLES), tell)
