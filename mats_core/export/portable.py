"""A finished merge, described so that it can be repeated anywhere the family's folder is.

The recipe that the page ran names statistics in this machine's cache.  The portable one names
nothing outside the family's folder: its paths start there, every checkpoint carries its
fingerprint, and statistics that have to be measured first lie in `statistics/` beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import InputError
from ..methods import METHODS, named_checkpoints, named_tasks, options_of_the_base
from ..recipes import Evaluation, Recipe, Report, parse_options
from ..statistics import Statistics
from ..tasks import names_file

STATISTICS = "statistics"
OUTPUT = "merged"
ENDING = ".stats.safetensors"  # what `measure --family` calls its files


LABELS = ("empirical", "true")


@dataclass(frozen=True)
class Measuring:
    """How statistics were measured.

    examples   calibration examples a task
    labels     `empirical` or `true`
    seed       of the draw of the examples
    """

    examples: int = 256
    labels: str = "empirical"
    seed: int = 0


@dataclass(frozen=True)
class Finished:
    """A finished merge.

    id        a few letters and digits that name its files
    title     readable name, such as `ESM · layer power 0`
    family    the family's name
    recipe    as it was run; its folder is the family's
    report    of the run
    """

    id: str
    title: str
    family: str
    recipe: Recipe
    report: Report

    @property
    def stem(self) -> str:
        """The name of its files without suffix: `essential-0a1b2c3d4e`."""
        return f"{self.recipe.method}-{self.id}"

    @property
    def reads_statistics(self) -> bool:
        """Whether its method reads statistics."""
        options = parse_options(self.recipe.method, self.report.options, self.recipe.folder)
        return bool(METHODS[self.recipe.method].reads(options))

    @cached_property
    def measuring(self) -> Measuring | None:
        """How the statistics outside the family's folder were measured; None if none are needed."""
        if not self.reads_statistics:
            return None
        outside = [
            entry.statistics
            for entry in self.recipe.experts
            if entry.statistics and within(self.recipe.folder, entry.statistics) is None
        ]
        found = [_metadata(self.recipe.path(reference)) for reference in outside]
        if not found:
            return None
        # A task with fewer examples gave all it had: the largest number asks the same of each.
        most = max(found, key=lambda one: one.examples)
        return Measuring(most.examples, most.labels, most.seed)

    @cached_property
    def portable(self) -> Recipe:
        """The recipe with resolved options, fingerprints, and paths inside the family's folder."""
        recipe, report = self.recipe, self.report
        reads = self.reads_statistics
        entries = tuple(
            entry.model_copy(
                update={
                    "model": _inside(recipe.folder, entry.model),
                    "statistics": self._statistics(entry.statistics, entry.name) if reads else None,
                    "optimizer": _inside(recipe.folder, entry.optimizer)
                    if reads and entry.optimizer
                    else None,
                    "task": _task(recipe.folder, entry.task),
                    "fingerprint": report.fingerprints.get(entry.name),
                }
            )
            for entry in recipe.experts
        )
        options = dict(report.options)
        for name, path in named_checkpoints(recipe.method, options).items():
            options[name] = _inside(recipe.folder, path)
        for name, task in named_tasks(recipe.method, recipe.options).items():
            options[name] = _task(recipe.folder, task)
        of_base = reads and options_of_the_base(recipe.method, options)
        base = self._statistics(recipe.base_statistics, "base")
        return recipe.model_copy(
            update={
                "base": _inside(recipe.folder, recipe.base),
                "base_fingerprint": report.fingerprints.get("base"),
                "base_statistics": base if of_base else None,
                "experts": entries,
                "options": options,
                "after": report.after,
                "output": f"{OUTPUT}/{self.stem}",
                "device": report.device,
                "evaluate": self._evaluate(),
                "search": None,
            }
        )

    def _statistics(self, reference: str | None, name: str) -> str | None:
        if reference is None:
            return None
        return within(self.recipe.folder, reference) or f"{STATISTICS}/{name}{ENDING}"

    def _evaluate(self) -> Evaluation | bool:
        """As it was run; a precision that did not stop it early is left out."""
        settings = self.recipe.evaluate
        if not isinstance(settings, Evaluation) or not self.report.tasks:
            return settings
        everything = not self.report.left
        return settings.model_copy(update={"precision": None}) if everything else settings


def within(folder: Path, reference: str) -> str | None:
    """A path as it is written from `folder`; None where it lies outside."""
    root = folder.resolve()
    path = (root / Path(reference).expanduser()).resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else None


def spelled(folder: Path, start: Path) -> str:
    """A folder as it is typed at `start`: relative, from the home folder, or absolute."""
    folder, start, home = folder.resolve(), start.resolve(), Path.home().resolve()
    if folder.is_relative_to(start):
        return folder.relative_to(start).as_posix()
    if folder.is_relative_to(home):
        return f"~/{folder.relative_to(home).as_posix()}"
    return folder.as_posix()


def _inside(folder: Path, reference: str) -> str:
    """Written from the folder where it lies inside, else as the family has it."""
    return within(folder, reference) or reference


def _task(folder: Path, task: str | None) -> str | None:
    return _inside(folder, task) if task and names_file(task) else task


def _metadata(path: Path) -> Measuring:
    """How a file was measured; the settings of the page where it is gone."""
    try:
        found = Statistics.open(path)
    except InputError:
        return Measuring()
    usual = Measuring()
    return Measuring(
        found.number("examples") or usual.examples,
        labels if (labels := found.metadata.get("labels")) in LABELS else usual.labels,
        found.number("seed") or usual.seed,
    )
