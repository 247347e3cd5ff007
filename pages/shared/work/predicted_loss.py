"""What the worker does for the Compare page: a prediction, a sweep.  No Streamlit here."""

from __future__ import annotations

from collections.abc import Mapping

from mats_core.analysis import Interference, predicting
from mats_core.errors import InputError
from mats_core.merging import Recipe

from .again import opened
from .following import told
from .jobs import Tell
from .prepare import Prepared

LOSS_EXAMPLES = 200


def predict(
    recipe: Recipe, fingerprints: Mapping[str, str], prepared: Prepared, tell: Tell
) -> Interference:
    """Predicted and measured loss of a run, merged again from the files as they are now."""
    inputs = opened(prepared, recipe)
    members = {expert.name: expert.checkpoint for expert in inputs.family.experts}
    for name, checkpoint in {"base": inputs.family.base, **members}.items():
        if fingerprints.get(name, checkpoint.fingerprint) != checkpoint.fingerprint:
            raise InputError(
                f"predicted loss: '{name}'",
                expected="the checkpoint that this run merged",
                found="another one",
                remedy="The family's files have changed since; merge again with these settings.",
            )
    return told(predicting(recipe, inputs=inputs, examples=LOSS_EXAMPLES), tell)
