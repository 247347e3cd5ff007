"""Refining: a merge is trained further, by distillation from its experts, and says so.

    minimise  Σ_t mean over task t of KL(expert_t(x) ‖ merge with head t (x))

over the merged tensors by AdamW with a cosine schedule.  The inputs are a seeded draw from each
expert's training rows, without their labels.  After every epoch the same divergence is taken on
validation rows: the weights of the epoch where it is least are kept (the merge's own, if no epoch
is better), and `patience` epochs without a better one end the training.  Accuracy on the validation
rows is told and decides nothing.

Every epoch begins from a `State` alone, which a file keeps: a merge that goes on gives the same
bytes.  Heads, running statistics and what was copied are not trained, and modules are in evaluation
mode: nothing is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import models, tasks
from ..checkpoints import Tensors
from ..errors import InputError, listing
from ..evaluation import Examiner, evaluate
from ..families import Expert
from ..recipes import Epoch, EpochDone, Plan, Refine, Refined
from ..statistics import drawn_rows
from ..system import Event
from ..tasks import Split
from .training_state import NOTHING, State, begun, read_state, save_state

Keep = Callable[[State], None]
Training = Generator[Event, None, tuple[dict[str, Tensor], Refined]]


def require(plan: Plan) -> None:
    """Raise `InputError` where a merge is to be refined whose experts cannot be asked."""
    recipe, family = plan.recipe, plan.inputs.family
    if recipe.refine is None:
        return
    if plan.inputs.vectors is not None or recipe.adds_to is not None:
        raise InputError(
            "'refine'",
            expected="experts with weights, all of them at hand",
            found="a merge that adds to another one" if recipe.adds_to else "(IA)³ vectors",
        )
    without = [expert.name for expert in family.experts if not expert.can_be_asked]
    if without:
        raise InputError(
            "'refine'",
            expected="a task and a model's directory for every expert, whose answers are learned",
            found=f"none for {listing(without)}",
            remedy="Name tasks in the recipe, or leave 'refine' out.",
        )


def train(
    plan: Plan, encoder: Mapping[str, Tensor], folder: Path | None, *, resume: bool
) -> Generator[Event, None, tuple[Mapping[str, Tensor], Refined | None]]:
    """The tensors of a merge, trained further where its recipe says so; the state after each epoch
    is kept in an unfinished output, until this is complete."""
    if plan.recipe.refine is None:
        return encoder, None
    if folder is None:
        return (yield from refining(plan, encoder))
    past = read_state(folder) if resume else NOTHING
    return (yield from refining(plan, encoder, past, lambda state: save_state(state, folder)))


def refining(
    plan: Plan, encoder: Tensors, past: State = NOTHING, keep: Keep = lambda state: None
) -> Training:
    """The trained tensors of a merge by the base's names, and how the training went.

    encoder   the merged tensors, as they are written
    past      the state that an earlier, stopped training of the same merge has left
    keep      called with the state after every epoch, to go on from

    Events after each step (progress) and each epoch (`EpochDone`).  Where no epoch is better than
    the merge, its tensors come back as they are.
    """
    settings = plan.recipe.refine
    assert settings is not None
    terms: list[_Term] = []
    ended = bool(past.history) and past.ended(settings)
    experts = () if ended else plan.inputs.family.experts  # who has nothing more to say
    for index, expert in enumerate(experts):
        yield Event(text=f"Asking the expert {expert.name} ({index + 1} of {len(experts)})")
        terms.append(_term(plan, expert, settings))
    student = _Student(plan, encoder)
    state = past if past.history else begun(student.values, _validated(student, terms, 0, {}))
    yield _done(state, settings)
    while not state.ended(settings):
        state = yield from _epoch(student, terms, state, settings)
        keep(state)
        yield _done(state, settings)
    best = state.best_epoch
    refined = Refined.of(settings, state.history, best)
    if not best:
        return dict(encoder), refined
    return student.encoder_of(state.best), refined


def _done(state: State, settings: Refine) -> EpochDone:
    last = state.history[-1]
    share = last.number / max(1, settings.epochs)
    said = f"Refining: epoch {last.number} of {settings.epochs} is done"
    text = said if last.number else "Refining: the merge is asked on validation rows"
    return EpochDone(last, settings.epochs, fraction=share, text=text)


def _epoch(
    student: _Student, terms: Sequence[_Term], state: State, settings: Refine
) -> Generator[Event, None, State]:
    """The state after one epoch more."""
    number = state.history[-1].number + 1
    student.take(state)
    steps = max(math.ceil(len(term.drawn) / settings.batch) for term in terms)
    orders = [term.order(number) for term in terms]
    sums = dict.fromkeys((term.name for term in terms), 0.0)
    for step in range(steps):
        done = (number - 1) * steps + step
        rate = settings.rate * 0.5 * (1 + math.cos(math.pi * done / (settings.epochs * steps)))
        for term, order in zip(terms, orders, strict=True):
            places = order[step * settings.batch : (step + 1) * settings.batch]
            if len(places):
                loss = term.divergence(student.encoder, places)
                loss.backward()  # one task's activations at a time
                sums[term.name] += float(loss.detach()) * len(places)
        student.step(rate)
        text = f"Refining: epoch {number} of {settings.epochs}, step {step + 1} of {steps}"
        yield Event(fraction=(number - 1 + (step + 1) / steps) / settings.epochs, text=text)
    losses = {term.name: sums[term.name] / len(term.drawn) for term in terms}
    epoch = _validated(student, terms, number, losses)
    return state.after(epoch, student.values, *student.moments())


def _validated(
    student: _Student, terms: Sequence[_Term], number: int, losses: Mapping[str, float]
) -> Epoch:
    """An epoch as it stands: its divergence and accuracy on validation rows, task by task."""
    encoder = {name: value.detach() for name, value in student.encoder.items()}
    found = {term.name: term.validated(encoder) for term in terms}
    divergences = {name: value for name, (value, _) in found.items()}
    if not all(map(math.isfinite, (*losses.values(), *divergences.values()))):
        raise InputError(
            "'refine'",
            expected="a divergence from the experts that is finite",
            found=f"NaN or infinity after epoch {number}",
            remedy="Lower the rate.",
        )
    return Epoch(number, losses, divergences, {name: value for name, (_, value) in found.items()})


# The experts' questions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class _Term:
    """One task: rows that are drawn, and what the expert says to them.

    name         of the expert
    examiner     of the drawn training rows, with the expert's head; validation: of those rows
    seed         of the order of the rows
    said         the expert's log-probabilities (n, classes) of the drawn rows, and of the others
    """

    name: str
    examiner: Examiner
    validation: Examiner
    seed: int
    said: tuple[Tensor, Tensor]

    @property
    def drawn(self) -> Split:
        """The rows that are learned from."""
        return self.examiner.split

    def order(self, epoch: int) -> np.ndarray:
        """The order of the drawn rows in an epoch, which depends on nothing before."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.drawn))

    def divergence(self, encoder: Tensors, places: np.ndarray) -> Tensor:
        """The mean of KL(expert ‖ merge) over the drawn rows at `places`, to be derived."""
        return _divergence(self.said[0][places], _answers(self.examiner, encoder, places)).mean()

    def validated(self, encoder: Tensors) -> tuple[float, float]:
        """The mean divergence on the validation rows, and the score there."""
        places = np.arange(len(self.validation.split))
        with torch.no_grad():
            answers = _answers(self.validation, encoder, places)
            value = float(_divergence(self.said[1], answers).mean())
        return value, evaluate.scored(answers, self.validation.split).value


def _term(plan: Plan, expert: Expert, settings: Refine) -> _Term:
    family, recipe = plan.inputs.family, plan.recipe
    task = tasks.load(expert.task, root=recipe.folder)
    if not task.form.classified:
        raise InputError(
            f"'refine' on task '{task.name}'",
            expected="a task with classes or answers to choose from",
            found=task.form.kind,
        )
    task = evaluate.check_task(expert, task).task
    # The draw of measuring, so that both see the same rows.
    rows = drawn_rows(len(task.train), settings.examples, recipe.seed)
    parts = task.train.take(rows), task.validation.first(settings.validation)
    if not all(map(len, parts)):
        raise InputError(
            f"'refine' on task '{task.name}'",
            expected="rows to learn from, and validation rows to choose the best epoch on",
            found=f"{len(parts[0])} and {len(parts[1])}",
        )
    examiners = [Examiner(family, expert, part, plan.device) for part in parts]
    weights = models.tensors_of(expert.checkpoint)
    there = {name: value.to(plan.device) for name, value in weights.items()}
    with torch.no_grad():
        said = [_log(_answers(one, there, np.arange(len(one.split)))) for one in examiners]
    return _Term(expert.name, examiners[0], examiners[1], recipe.seed, (said[0], said[1]))


def _answers(examiner: Examiner, encoder: Tensors, places: np.ndarray) -> Tensor:
    """An encoder's answers with the expert's head, as `models.ask` gives them."""
    shared = evaluate.for_expert(encoder, examiner.family, examiner.expert)
    tensors = {**shared, **examiner.head}
    forward = models.forward(examiner.directory, tensors, device=examiner.device)
    return models.ask(
        lambda inputs: forward(tensors, inputs), examiner.rows, examiner.split, places
    )


def _log(answers: Tensor) -> Tensor:
    return answers.float().log_softmax(-1)


def _divergence(expert: Tensor, answers: Tensor) -> Tensor:
    """KL(expert ‖ merge) of each example (n,); an answer that is not offered counts nothing."""
    there = expert.isfinite()
    merged = torch.where(there, _log(answers), 0.0)
    known = torch.where(there, expert, 0.0)
    return (torch.where(there, expert.exp(), 0.0) * (known - merged)).sum(-1)


# The merge ----------------------------------------------------------------------------------------


class _Student:
    """The merged tensors: those that are trained, and what stays as it is.

    values    name → what is trained, float32
    encoder   all tensors, those that are tied to a trained one included
    """

    def __init__(self, plan: Plan, encoder: Tensors) -> None:
        family = plan.inputs.family
        trained = [n for n in family.shared if n not in family.running and n in encoder]
        self.fixed = {name: value.to(plan.device) for name, value in encoder.items()}
        self.tied = {n: s for n, s in family.tied_to.items() if n in encoder and s in trained}
        self.parameters = {
            name: encoder[name].to(plan.device, torch.float32, copy=True).requires_grad_()
            for name in trained
        }
        self.dtypes = {name: encoder[name].dtype for name in encoder}
        self.optimiser = torch.optim.AdamW(list(self.parameters.values()), lr=0.0)

    @property
    def values(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.parameters.items()}

    @property
    def encoder(self) -> dict[str, Tensor]:
        """All tensors by the base's names, from which gradients reach the trained ones."""
        tied = {name: self.parameters[source] for name, source in self.tied.items()}
        return {**self.fixed, **self.parameters, **tied}

    def encoder_of(self, values: Tensors) -> dict[str, Tensor]:
        """All tensors with these trained ones, in the dtypes of the merge."""
        tied = {name: values[source] for name, source in self.tied.items()}
        whole = {**self.fixed, **values, **tied}
        return {name: value.to("cpu", self.dtypes[name]) for name, value in whole.items()}

    def take(self, state: State) -> None:
        """Go on from a state: weights, and the optimiser's moments."""
        self.optimiser = torch.optim.AdamW(list(self.parameters.values()), lr=0.0)
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(state.values[name])
                value.grad = None
                if state.steps:
                    moments = {"exp_avg": state.means[name], "exp_avg_sq": state.squares[name]}
                    moved = {k: v.to(value.device, copy=True) for k, v in moments.items()}
                    step = torch.tensor(float(state.steps))
                    self.optimiser.state[value] = {"step": step, **moved}

    def step(self, rate: float) -> None:
        """One step of AdamW along the gradients that were summed up."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def moments(self) -> tuple[int, dict[str, Tensor], dict[str, Tensor]]:
        """The optimiser's steps and both running means, by name."""
        states = {name: self.optimiser.state[value] for name, value in self.parameters.items()}
        seen = {name: own for name, own in states.items() if own}
        steps = max((int(own["step"]) for own in seen.values()), default=0)
        zero = {n: torch.zeros_like(v) for n, v in self.values.items() if n not in seen}
        means = {n: own["exp_avg"] for n, own in seen.items()}
        return steps, {**zero, **means}, {**zero, **{n: o["exp_avg_sq"] for n, o in seen.items()}}
