"""Optuna's study behind a search: draws, results, and the journal that outlives the process.

The sampler of a trial is new, with a seed made of the search's and the trial's number.  It sees the
trials that were told before it was drawn, and takes those that are under way for bad ones (the
constant liar).  A search that goes on from its journal has the same trials under way, and so it
draws what it would have drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoints import require_file
from ..errors import InputError, foreseen, listing, needed, parsing, regular
from .search_space import Knob

NAME = "search"
FIRST = b'{"op_code":0,'  # how Optuna begins a journal
ABOUT, RECORD = "about", "record"  # attributes of the study, and of a trial that counts
DRAWN, AT_ONCE = "drawn", "at once"  # the number of a trial that has all its values; in `ABOUT`
JOURNAL, OTHER = "one that a search has written", "Name another file."
STARTUP = 10  # trials that are drawn at random before the sampler learns


@dataclass
class Study:
    """A study of some knobs, whose trials are asked for and told.

    optuna    the package
    study     its study
    knobs     what is turned
    seed      of all draws
    first     where the knobs stand at the first trial
    records   what was told of the trials that count, in their order
    at_once   trials that are under way together
    pending   number → values of the trials that were under way when the search was stopped
    """

    optuna: Any
    study: Any
    knobs: Sequence[Knob]
    seed: int
    first: Mapping[str, Any]
    records: list[dict[str, Any]] = field(default_factory=list)
    at_once: int = 1
    pending: dict[int, dict[str, Any]] = field(default_factory=dict)
    _places: dict[int, int] = field(default_factory=dict)  # a trial's number → Optuna's

    @classmethod
    def open(
        cls,
        knobs: Sequence[Knob],
        downwards: Sequence[bool],
        about: Mapping[str, Any],
        first: Mapping[str, Any],
        journal: str | Path | None,
        *,
        resume: bool,
        force: bool = False,
        reads: Iterable[tuple[str, Path]] = (),
        at_once: int | None = None,
        otherwise: int = 1,
    ) -> Study:
        """A study, new or that of a journal.

        downwards   for each objective, whether less is better
        about       what decides on the search; that of a journal must be the same
        resume      go on with the journal's search
        force       begin anew where the journal has a search
        reads       what is read, with its path: nothing of it may be the journal
        at_once     as of the study, which decides, too; None: as of the journal, else `otherwise`

        Raises `InputError` for a journal that is there already, is not there to go on with, cannot
        be read, or is of another search.
        """
        optuna = needed("search", "optuna", "optuna", "search")
        storage = _storage(optuna, journal, reads, resume=resume, force=force)
        directions = ["minimize" if down else "maximize" for down in downwards]
        with _quiet(), _readable(journal):
            study = optuna.create_study(
                storage=storage, study_name=NAME, directions=directions, load_if_exists=resume
            )
            own = cls(optuna, study, knobs, int(about["seed"]), first)
            own._go_on(json.loads(json.dumps(about)), journal, at_once, otherwise)
        return own

    def draw(
        self, number: int, known: Callable[[Mapping[str, Any]], bool], times: int
    ) -> dict[str, Any]:
        """The values of the next trial, drawn again so often at most while they are `known`."""
        with _quiet():
            for turn in range(times + 1):
                asked = self._ask(number, turn)
                values = self._values(asked)
                if turn == times or not known(values):
                    asked.set_user_attr(DRAWN, number)
                    self._places[number] = asked.number
                    return values
                self._left(asked.number)
        raise AssertionError

    def _ask(self, number: int, turn: int) -> Any:
        """A trial that the sampler begins."""
        self.study.sampler = self.optuna.samplers.TPESampler(
            seed=_seed(self.seed, number, turn), n_startup_trials=STARTUP, constant_liar=True
        )
        waiting = self.optuna.trial.TrialState.WAITING
        if number == 1 and not turn and not self.study.get_trials(states=(waiting,)):
            here = [knob for knob in self.knobs if knob.name in self.first]
            places = {one.name: one.values.index(self.first[one.name]) for one in here}
            self.study.enqueue_trial(places)
        return self.study.ask()

    def tell(self, record: Mapping[str, Any], results: Sequence[float | None]) -> None:
        """Write down what a trial gave: `record`, with its number, for us; `results` for the
        sampler."""
        place = self._places.pop(record["number"])
        with _quiet():
            self.study.set_user_attr(f"{RECORD} {place}", dict(record))
            self._end(place, results)
        self.records.append(dict(record))

    def importance(self) -> dict[str, float]:
        """Name of a knob → its share of what decides on the first objective, of the knobs that all
        trials turned; empty where the trials are too few, or alike.

        By fANOVA, a forest of trees with a fixed seed.  PED-ANOVA, Optuna's default, asks how often
        good trials are of one kind: it gave a knob without effect 40 % where the sampler had kept
        to one of its values.
        """
        states = (self.optuna.trial.TrialState.COMPLETE,)
        complete = self.study.get_trials(deepcopy=False, states=states)
        if len(complete) < 2 * STARTUP or len({trial.values[0] for trial in complete}) < 2:
            return {}
        shared = set.intersection(*(set(trial.params) for trial in complete))
        names = [knob.name for knob in self.knobs if knob.name in shared]
        needed("importance of knobs", "sklearn", "scikit-learn", "search")
        with _quiet():
            found = self.optuna.importance.get_param_importances(
                self.study, params=names, target=lambda trial: trial.values[0],
                evaluator=self.optuna.importance.FanovaImportanceEvaluator(seed=0),
            )  # fmt: skip
        return {name: float(value) for name, value in found.items()}

    def _values(self, trial: Any) -> dict[str, Any]:
        """What a trial turns the knobs to; those inside of a step that is off are left out."""
        found: dict[str, Any] = {}
        on = {"": True}
        for knob in self.knobs:
            if not on.get(knob.within):
                continue
            places, name = len(knob.values), knob.name
            if knob.ordered:
                place = trial.suggest_int(name, 0, places - 1)
            else:
                place = trial.suggest_categorical(name, list(range(places)))
            found[name] = knob.values[place]
            if knob.turns == "step" and not knob.within:
                on[knob.key] = found[name]
        return found

    def _go_on(
        self,
        about: dict[str, Any],
        journal: str | Path | None,
        at_once: int | None,
        otherwise: int,
    ) -> None:
        """Take over what the journal holds."""
        kept = self.study.user_attrs
        before = kept.get(ABOUT)
        held = otherwise if before is None else before.get(AT_ONCE, 1)
        self.at_once = at_once or held
        if self.at_once != 1:
            about = {**about, AT_ONCE: self.at_once}
        if before is None:
            self.study.set_user_attr(ABOUT, about)
        elif before != about:
            about = {**dict.fromkeys(before), **about}
            differ = [key for key in about if before.get(key) != about[key]]
            raise InputError(
                f"journal '{journal}'",
                expected="that of this search",
                found=f"one with other {listing(differ)}",
                remedy="Name another file, or search what it was begun for.",
            )
        running = self.optuna.trial.TrialState.RUNNING
        values = {knob.name: json.loads(json.dumps(list(knob.values))) for knob in self.knobs}
        for trial in self.study.get_trials(deepcopy=False):
            record = kept.get(f"{RECORD} {trial.number}", trial.user_attrs.get(RECORD))
            if record is not None:
                self.records.append(_possible(record, values))
            number = trial.user_attrs.get(DRAWN)
            if trial.state == running and record is None and number is not None:
                self._places[number] = trial.number
                self.pending[number] = self._drawn(trial.params)
            elif trial.state == running:  # the process ended during it: it counts if it was done
                results = None if record is None else _results(record, about["objectives"])
                self._end(trial.number, results or (None,))
        numbers = [*sorted(record["number"] for record in self.records), *sorted(self.pending)]
        if numbers != [*range(1, len(numbers) + 1)]:  # the next one would be one of them for ever
            raise ValueError("trials that are missing, or there twice")

    def _drawn(self, places: Mapping[str, int]) -> dict[str, Any]:
        """The values at the places that a trial has drawn."""
        named = [knob for knob in self.knobs if knob.name in places]
        return {knob.name: knob.values[places[knob.name]] for knob in named}

    def _end(self, number: int, results: Sequence[float | None]) -> None:
        if any(result is None for result in results):
            self._left(number)
        else:
            self.study.tell(number, list(results))

    def _left(self, number: int) -> None:
        """End a trial of which the sampler learns nothing."""
        self.study.tell(number, state=self.optuna.trial.TrialState.FAIL)


def _possible(record: Any, values: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A record of the journal; raises `ValueError` where it turns a knob to none of its `values`,
    as JSON writes them."""
    for name, value in record["values"].items():
        if value not in values[name]:
            raise ValueError(f"a trial with another {name}")
    return dict(record)


def _results(record: Mapping[str, Any], objectives: Sequence[str]) -> list[float | None]:
    named = {"mean": "accuracy", "worst": "worst", "size": "size"}
    return [record[named[objective]] for objective in objectives]


def _seed(seed: int, number: int, turn: int) -> int:
    text = f"{seed} {number} {turn}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def _is_journal(path: Path) -> bool:
    """Whether a file begins as a search's journal does, be it in the midst of its first line."""
    try:
        with regular(f"journal '{path}'", path).open("rb") as handle:
            line = handle.readline(1 << 16)
        if not line.endswith(b"\n"):
            return FIRST.startswith(line[: len(FIRST)])
        first = json.loads(line)
        return first["op_code"] == 0 and first["study_name"] == NAME
    except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _storage(
    optuna: Any,
    journal: str | Path | None,
    reads: Iterable[tuple[str, Path]],
    *,
    resume: bool,
    force: bool,
) -> Any:
    """Where the trials are kept: in a file, or with this process."""
    if journal is None:
        return optuna.storages.InMemoryStorage()
    path = Path(journal)
    if os.path.lexists(path):
        thing = f"journal '{path}'"
        full = regular(thing, path).stat().st_size > 0
        require_file(path, reads, force=True, kind="journal", ours=True)
        if full and not _is_journal(path):
            raise InputError(thing, expected=JOURNAL, found="another file", remedy=OTHER)
        if full and not (resume or force):
            raise InputError(
                thing,
                expected="no such file yet",
                found="one",
                remedy="Go on with its search by resuming, or name another file.",
            )
        with foreseen(thing):
            if resume:
                _whole_lines(path)
            else:
                path.unlink()
    with foreseen(f"journal '{path}'"):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _readable(path):
        journals = optuna.storages.journal  # its lock of a file works on every system
        lock = journals.JournalFileOpenLock(str(path))
        return optuna.storages.JournalStorage(journals.JournalFileBackend(str(path), lock))


def _whole_lines(path: Path) -> None:
    """Cut off a line that was being written when the process ended."""
    with path.open("r+b") as handle:
        whole = sum(len(line) for line in handle if line.endswith(b"\n"))
        handle.truncate(whole)


def _readable(journal: str | Path | None) -> AbstractContextManager[None]:
    """A context in which a journal that is none is an `InputError`."""
    if journal is None:
        return nullcontext()
    return parsing(f"journal '{journal}'", JOURNAL, OTHER)


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """A context in which Optuna says nothing: the events do."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="optuna")
            yield
    finally:
        logger.setLevel(level)
