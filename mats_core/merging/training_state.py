"""Where refining stands after an epoch, in memory and in a file of the unfinished output."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from torch import Tensor

from ..checkpoints import Checkpoint, write_tensors
from ..errors import parsing, typed
from ..recipes import Epoch, Refine

FILE = ".refining.safetensors"
AFRESH = "Start again with --force and without --resume."
PARTS = ("values", "means", "squares", "best")


@dataclass(frozen=True)
class State:
    """What the next epoch begins from.

    history   every epoch so far, the merge before the first included; empty: nothing has begun
    values    name → the trained tensor
    means     name → the optimiser's running mean of gradients; squares: of their squares
    best      name → the tensor after the best epoch
    steps     that the optimiser has taken
    """

    history: tuple[Epoch, ...] = ()
    values: Mapping[str, Tensor] = field(default_factory=dict)
    means: Mapping[str, Tensor] = field(default_factory=dict)
    squares: Mapping[str, Tensor] = field(default_factory=dict)
    best: Mapping[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    @property
    def best_epoch(self) -> int:
        """The epoch whose divergence on validation rows is least, the first of equal ones."""
        return min(self.history, key=lambda epoch: epoch.divergence).number

    def ended(self, settings: Refine) -> bool:
        """Whether all epochs are run, or too many have passed without a better one."""
        last = self.history[-1].number
        return last >= settings.epochs or last - self.best_epoch >= settings.patience

    def after(
        self,
        epoch: Epoch,
        values: Mapping[str, Tensor],
        steps: int,
        means: Mapping[str, Tensor],
        squares: Mapping[str, Tensor],
    ) -> State:
        """The state with one epoch more."""
        history = (*self.history, epoch)
        values = {name: value.clone() for name, value in values.items()}
        better = State(history).best_epoch == epoch.number
        return State(history, values, means, squares, values if better else self.best, steps)


NOTHING = State()


def begun(values: Mapping[str, Tensor], epoch: Epoch) -> State:
    """The state of a merge that nothing was trained of yet."""
    values = {name: value.clone() for name, value in values.items()}
    return State((epoch,), values, best=values)


def save_state(state: State, folder: Path) -> None:
    """Write a state into an unfinished output, whole or not at all."""
    tensors = {f"{part} {n}": v for part in PARTS for n, v in getattr(state, part).items()}
    about = {"history": [asdict(e) for e in state.history], "steps": state.steps}
    fresh = folder / f"{FILE}.new"
    write_tensors(fresh, tensors, {"state": json.dumps(about)})
    os.replace(fresh, folder / FILE)


def read_state(folder: Path) -> State:
    """The state that an unfinished output holds; `NOTHING` where there is none."""
    file = folder / FILE
    if not file.is_file():
        return NOTHING
    with parsing(f"'{file}'", "the state of a training as it was written here", AFRESH):
        checkpoint = Checkpoint.open(file)
        about = json.loads(checkpoint.metadata["state"])
        found: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
        for key in checkpoint.tensors:
            part, _, name = key.partition(" ")
            found[part][name] = checkpoint.read(key)
        history = tuple(typed(Epoch, epoch) for epoch in about["history"])
        return State(history, **found, steps=int(about["steps"]))


def remove_state(folder: Path) -> None:
    """Remove the state of a training that has come to its end."""
    (folder / FILE).unlink(missing_ok=True)
