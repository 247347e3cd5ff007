"""Layer-by-layer loading of a finished run, in the worker."""

from __future__ import annotations

import contextlib

from mats_core.analysis import Grain, LoadingDone, Ordering, StepDone, loading
from mats_core.evaluation import Asked

from . import again
from .confusion import Ready
from .jobs import Tell
from .runs import Run
from .shelf import Shelf

EXAMPLES = 200  # validation images a task, for every state of the loading


def load(
    shelf: Shelf,
    run: Run,
    grain: Grain,
    orderings: tuple[Ordering, ...],
    ready: Ready,
    tell: Tell,
) -> None:
    """Put the layer-by-layer loading of a run on the shelf."""
    recipe, inputs = again.opened(run, ready())
    looked = again.looked(shelf, run, recipe, inputs, tell, 0.1)
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
