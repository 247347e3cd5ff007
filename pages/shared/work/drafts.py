"""A family that is being put together on the page: what there is to choose from, and what was
chosen.  The library finds, judges and writes; here is what the page keeps between two drawings.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mats_core import models, tasks
from mats_core.checkpoints import (
    Limits,
    ListedModel,
    ModelSearch,
    cached_data,
    hub,
    search_models,
)
from mats_core.errors import InputError, size
from mats_core.merging import averaging
from mats_core.recipes import (
    FamilyFile,
    Proposal,
    load_family,
    plain_name,
    proposal,
    remove_family,
    save_family,
)
from mats_core.system import nbytes, recall, state_of

from .. import policy
from ..policy import Act
from .following import told
from .jobs import Tell

FILE = "family.yaml"
PROGRAM = Path(__file__).resolve().parents[3]
# Models and tables of the program's tests and examples are no models of its users; those of the
# sample family are offered.
OWN = tuple(
    PROGRAM / name for name in ("benchmarks", "docs", "mats_core", "notebooks", "pages", "tests")
)
KINDS = {"model": "model", "adapter": "adapter", "pickle": "pickle", "other": "another format"}


@dataclass(frozen=True)
class Draft:
    """What the form begins with.

    number   of the draft in the session: a part of the names of its widgets
    name     of the family
    base     path of the base; empty where none is proposed
    experts  paths of the experts that are ticked; None: those that are likely
    file     the `family.yaml` that is changed; None for a new family
    because  why this base is proposed
    like     the `family.yaml` whose other settings are taken over
    """

    number: int
    name: str = ""
    base: str = ""
    experts: tuple[str, ...] | None = None
    file: Path | None = None
    because: str = ""
    like: Path | None = None


def looked(roots: Sequence[Path], members: Iterable[Path] = ()) -> ModelSearch:
    """What lies below the roots and in the hub's cache, with the `members` of a family wherever
    they lie, and without the program's tests and examples."""
    policy.current().require(Act.MODELS)
    found = search_models([*roots, hub.cache_folder()], without=OWN)
    known = {model.path.resolve() for model in found.models}
    beyond = [path for path in dict.fromkeys(members) if path.resolve() not in known]
    more = [one for path in beyond for one in search_models([path], Limits(depth=0)).models]
    data = (*found.data, *dict.fromkeys(one.folder for one in cached_data()))
    return ModelSearch((*more, *found.models), data, found.left_out)


def titles() -> dict[str, str]:
    """What the data sets of this machine's caches are called, by their folders."""
    return {str(one.folder): f"{one.title}, in this machine's cache" for one in cached_data()}


def proposed(found: ModelSearch, families: Iterable[Path]) -> Proposal | None:
    """The proposal among the models that belong to no family yet; else among all."""
    taken = {path.resolve() for file in families for path in members(file)}
    free = [model for model in found.models if model.path.resolve() not in taken]
    return proposal(free) or proposal(found.models)


def members(file: Path) -> list[Path]:
    """Where the models of a family lie; none where it cannot be read."""
    try:
        family = load_family(file)
        references = [family.base, *(expert.model for expert in family.experts)]
        return [family.model_path(one) for one in references if not hub.is_id(one, family.folder)]
    except InputError:
        return []


def chosen(family: FamilyFile, found: ModelSearch) -> tuple[str, tuple[str, ...]]:
    """(base, experts) of a family as the paths by which a search lists them."""
    listed = {model.path.resolve(): str(model.path) for model in found.models}
    by_id = {model.reference: str(model.path) for model in found.models if model.of_hub}

    def path(reference: str) -> str:
        if hub.is_id(reference, family.folder):
            return by_id.get(reference, "")
        return listed.get((family.folder / reference).resolve(), "")

    return path(family.base), tuple(filter(None, (path(one.model) for one in family.experts)))


def free_name(base: ListedModel, taken: Iterable[str]) -> str:
    """A name that no family has yet: by the folder that holds the base, or by the base itself."""
    first = base.name if base.of_hub else base.path.parent.name or base.name
    said, known = first.replace("_", " ").strip() or "My models", {one.casefold() for one in taken}
    name, number = said, 2
    while name.casefold() in known:
        name, number = f"{said} {number}", number + 1
    return name


def homes(roots: Sequence[Path], base: ListedModel | None) -> list[Path]:
    """Roots that a family can be kept in; first the one that its base lies below."""
    writable = [root for root in roots if os.access(root, os.W_OK | os.X_OK)]
    if base is None:
        return writable
    place = base.path.resolve()
    return sorted(writable, key=lambda root: not place.is_relative_to(root.resolve()))


def folder_in(home: Path, name: str) -> Path:
    """A folder of this name in `home` that does not exist yet."""
    first = re.sub(r"[ -]+", "-", plain_name(name)).lower()
    folder, number = home / first, 2
    while os.path.lexists(folder):
        folder, number = home / f"{first}-{number}", number + 1
    return folder


def facts(model: ListedModel) -> str:
    """What is known of a model without opening it, on one line."""
    parts = [
        model.architecture if model.kind != "adapter" else f"adapter ({model.architecture})",
        "a merge" if model.merged else "",
        size(model.nbytes) if model.nbytes else "",
        written(model),
        model.licence,
        KINDS[model.kind] if model.problem else "",
    ]
    return " · ".join(part for part in parts if part)


def written(model: ListedModel) -> str:
    """The day on which its weights were written; empty where it is not known."""
    if not model.modified:
        return ""
    return datetime.fromtimestamp(model.modified, UTC).astimezone().strftime("%Y-%m-%d")


def save(family: FamilyFile, tasks: Mapping[str, str], *, replace: bool) -> Path:
    """The file that a family was written to."""
    policy.current().require(Act.FAMILIES)
    return save_family(family, tasks, replace=replace)


def remove(file: Path) -> None:
    """Remove the file of a family."""
    policy.current().require(Act.FAMILIES)
    remove_family(file)


def write_mean(family: FamilyFile, tell: Tell) -> Path:
    """The folder of the mean of the experts; where it cannot be written, the family goes again."""
    policy.current().require(Act.FAMILIES)
    try:
        return told(averaging(family), tell)
    except BaseException:
        remove_family(family.folder / FILE)
        raise


# Tasks --------------------------------------------------------------------------------------------

MOST_DATA = 60  # files that are looked into for a proposal
SMALL = 20_000_000  # bytes of such a file
PATIENCE = 2.0  # seconds for a proposal


def tasks_in(file: Path | None, experts: Sequence[ListedModel]) -> dict[Path, str]:
    """An expert's path → the task that a family names for it already."""
    if file is None:
        return {}
    family = load_family(file)
    by_id = {one.model: one.task for one in family.experts}
    by_path = {(family.folder / one.model).resolve(): one.task for one in family.experts}
    found = {e.path: by_id.get(e.reference) or by_path.get(e.path.resolve()) for e in experts}
    return {path: task for path, task in found.items() if task}


def speaks(model: ListedModel, base: ListedModel | None) -> bool:
    """Whether a model is a language model, which is asked in words; an adapter is what its base
    is."""
    whole = base if model.kind == "adapter" and base else model
    return models.reads_of(whole.architecture) in ("causal", "seq2seq")


def guess(file: Path, head: tuple[str, ...], speaks: bool = False) -> tasks.Guess:
    """What a file is taken for, remembered; raises `InputError` for what is no task."""
    key = ("guess", state_of(file), head, speaks)
    return recall(key, lambda: tasks.guessed(file, head, speaks=speaks), nbytes)


def proposed_data(model: ListedModel, data: Sequence[Path], speaks: bool = False) -> Path | None:
    """The data set of a cache that the model's card names; else the file whose classes are those of
    the model's head by their names, or which is named after the model; None where none is.  Large
    files, and what is not read in time, are left to choose.
    """
    key = ("proposed data", model.state, tuple(data), speaks)
    return recall(key, lambda: (_proposed_data(model, data, speaks),), nbytes)[0]


def _proposed_data(model: ListedModel, data: Sequence[Path], speaks: bool) -> Path | None:
    for file in _stated_data(model):
        with contextlib.suppress(InputError, OSError):
            guess(file, model.classes, speaks)
            return file
    found: list[tuple[Path, tasks.Guess]] = []
    until = time.monotonic() + PATIENCE
    stated = titles()
    for file in [one for one in data if str(one) not in stated][:MOST_DATA]:
        with contextlib.suppress(InputError, OSError):
            if file.is_dir() or file.stat().st_size <= SMALL:
                found.append((file, guess(file, model.classes, speaks)))
        if time.monotonic() > until:
            break
    halves = {one.test for _, one in found}
    for file, one in found:
        if file not in halves and tasks.same_classes(one.found, model.classes):
            return file
    named = (file for file, _ in found if file not in halves and _after(model.name, file))
    return next(named, None)


def _stated_data(model: ListedModel) -> list[Path]:
    """The folders of the cached data sets that a model's card names, by id, or by its last part."""
    found = list[Path]()
    for name, subset in model.data:
        for one in cached_data():
            same = name.lower() in (one.reference.lower(), one.reference.lower().rpartition("/")[2])
            if same and subset in ("", one.subset):
                found.append(one.folder)
    return found


def _after(name: str, file: Path) -> bool:
    return re.split(r"[^a-z0-9]+", file.name.lower())[0] == name.lower() and len(name) > 2


def ordered(found: tasks.Guess, head: Sequence[str]) -> tuple[str, ...]:
    """A class of the file for each of the head's: by name, else in the order of both."""
    by_name = {to: one for one, to in tasks.matched(found.found, head).items()}
    left = iter([one for one in found.found if one not in by_name.values()])
    return tuple(by_name.get(to) or next(left, "") for to in head)
