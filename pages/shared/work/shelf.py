"""What a session has found out about its last runs."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from mats_core.analysis import LayerSteps
from mats_core.recipes import Inputs
from mats_core.tasks import IMAGES, Form, Split

from .. import policy
from .runs import Run

RUNS = 2  # whose tensors and answers are kept in a session


@dataclass(frozen=True)
class Answers:
    """What three encoders with one expert's head say to its validation examples.

    inputs as in the task's validation split, labels (n,); expert, pretrained and merged are
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
    """What was found out about one run.

    made         its tensors, where something needed them and it was merged again
    last_round   the files with the statistics that its last round merged with
    """

    made: Mapping[str, Tensor] | None = None
    answers: dict[str, Answers] = field(default_factory=dict)
    steps: dict[str, LayerSteps] = field(default_factory=dict)
    last_round: Inputs | None = None

    @property
    def encoder(self) -> Mapping[str, Tensor]:
        """The tensors of a run that was made again (see `again.looked`)."""
        assert self.made is not None
        return self.made


class Shelf:
    """What a session has found out about its last runs: `RUNS` of them, then the oldest goes.

    `pace`: seconds that an encoder took for one image, as last measured.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, Looked] = {}
        self.pace: float | None = None

    def get(self, run: Run) -> Looked | None:
        with self._lock:
            return self._runs.get(run.id)

    def place(self, run: Run) -> Looked:
        """The run's place, a new one where it has none yet."""
        with self._lock:
            found = self._runs.setdefault(run.id, Looked())
            while len(self._runs) > min(RUNS, policy.current().shelf):
                del self._runs[next(iter(self._runs))]
            return found

    def put(self, run: Run, encoder: Mapping[str, Tensor]) -> Looked:
        """The run's place, with its tensors."""
        found = self.place(run)
        found.made = encoder
        return found
