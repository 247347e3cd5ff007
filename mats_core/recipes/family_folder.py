"""A family's folder, as the page keeps it: its `family.yaml` is written, changed and removed here.

The file is one that a person would have written.  One that no longer has the form in which it was
written here is never replaced or removed, and neither is any checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..checkpoints import (
    ListedModel,
    hub,
    require_folder,
    staged_directory,
    write_atomically,
)
from ..errors import InputError, foreseen, plain_yaml
from ..system import LONGEST_NAME, folder_name
from ..tasks import Guess, described, names_file
from .family_file import MEAN, FamilyFile, load_family

FILE = "family.yaml"
TASKS = "tasks"  # the folder beside it with the descriptions that the page wrote
TASK_HEADER = "# Written by MaTS Explorer; docs/tasks.md says what may stand here.\n"
HEADER = """\
# Written by MaTS Explorer; docs/recipes.md says what may stand here. Change it as you like: with
# comments of your own the page reads it, and neither changes nor removes it.
"""


def plain_name(text: str) -> str:
    """A text as the name of a folder: what no system takes is left out; `model` where all is."""
    kept = re.sub(r"[^\w .+-]+", "-", text).strip(" .-")[: LONGEST_NAME // 4].strip(" .-")
    with contextlib.suppress(ValueError):
        return folder_name(kept)
    return f"{kept}-" if kept else "model"


def distinct_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of folders, each another one also where capitals count for nothing."""
    found: list[str] = []
    for name in map(plain_name, names):
        taken, number, one = {other.casefold() for other in found}, 2, name
        while one.casefold() in taken:
            one, number = f"{name}-{number}", number + 1
        found.append(one)
    return tuple(found)


def written_as(model: ListedModel, folder: Path, roots: Sequence[Path] = ()) -> str:
    """What a family in `folder` calls a model: an id of the hub, or a path (see `path_from`)."""
    return model.reference if model.of_hub else path_from(folder, model.path, roots)


def path_from(folder: Path, file: Path, roots: Sequence[Path] = ()) -> str:
    """The path of a file as it is written in a folder: relative to the folder where both lie below
    one of `roots`, else the whole path."""
    place, home = file.resolve(), folder.resolve()
    for root in (root.resolve() for root in roots):
        if place.is_relative_to(root) and home.is_relative_to(root):
            return Path(os.path.relpath(place, home)).as_posix()
    return str(place)


def new_family(
    name: str,
    folder: Path,
    base: ListedModel | None,
    experts: Sequence[ListedModel],
    *,
    roots: Sequence[Path] = (),
    tasks: Mapping[Path, str | None] | None = None,
    like: FamilyFile | None = None,
    strangers: bool | None = None,
    aligned: Mapping[Path, bool] | None = None,
) -> FamilyFile:
    """The family of a base and experts, to be kept in `folder`; nothing is written.

    base       None: the mean of the experts, which `averaging` writes beside it
    tasks      an expert's path → the reference of its task; None: it is to have none
    like       a family: what it says of the same models, and of itself, is taken over
    strangers  whether experts may have nothing in common with the base; None: as `like` says
    aligned    an expert's path → whether its units are put in the base's order; others as before
    """
    if not name.strip() or not experts:
        raise InputError(
            "new family",
            expected="a name, a base and at least one expert",
            found="no expert" if name.strip() else "no name",
            remedy="Tick an expert." if name.strip() else "Type one.",
        )
    known = _entries(like, folder, roots) if like else {}
    before = [known.get(_place(one), {}) for one in experts]
    names = distinct_names(
        [b.get("name", one.name) for b, one in zip(before, experts, strict=True)]
    )
    chosen = tasks or {}
    entries = [
        {
            **old,
            **({"align": aligned[one.path]} if aligned and one.path in aligned else {}),
            "name": own,
            "model": written_as(one, folder, roots),
            "task": chosen[one.path] if one.path in chosen else old.get("task"),
        }
        for old, own, one in zip(before, names, experts, strict=True)
    ]
    content = {
        **(_rest(like, folder, roots) if like else {}),
        "name": name.strip(),
        "base": MEAN if base is None else written_as(base, folder, roots),
        "experts": entries,
        "folder": folder,
    }
    if strangers is not None:
        content["strangers"] = "allow" if strangers else "refuse"
    return FamilyFile.model_validate(content)


def _place(model: ListedModel) -> str:
    return model.reference if model.of_hub else str(model.path.resolve())


def _entries(like: FamilyFile, folder: Path, roots: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Where each expert of a family lies → what stands in it about this expert."""
    found = {}
    for expert in like.experts:
        of_hub = hub.is_id(expert.model, like.folder)
        place = expert.model if of_hub else str((like.folder / hub.home(expert.model)).resolve())
        entry = expert.model_dump(exclude_none=True)
        for key in ("task", "statistics", "optimizer"):
            if key in entry:
                entry[key] = _moved(entry[key], like, folder, roots)
        found[place] = entry
    return found


def _rest(like: FamilyFile, folder: Path, roots: Sequence[Path]) -> dict[str, Any]:
    content = like.model_dump(exclude={"name", "base", "experts", "folder"}, exclude_none=True)
    if "base_task" in content:
        content["base_task"] = _moved(content["base_task"], like, folder, roots)
    return content


def _moved(reference: str, like: FamilyFile, folder: Path, roots: Sequence[Path]) -> str:
    """A file that a family names, as another folder names it; a task of a source as it is."""
    if folder == like.folder or not names_file(reference):
        return reference
    return path_from(folder, like.folder / reference, roots)


def dump_family(collection: FamilyFile) -> str:
    """The text of its `family.yaml`: a line for each expert."""
    content = collection.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    experts = content.pop("experts")
    head = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    return f"{HEADER}{head}experts:\n" + "".join(f"- {_line(expert)}" for expert in experts)


def _line(entry: Mapping[str, object]) -> str:
    return yaml.safe_dump(
        dict(entry), sort_keys=False, allow_unicode=True, default_flow_style=True, width=10**6
    )


def task_of(name: str, folder: Path, found: Guess, roots: Sequence[Path] = ()) -> tuple[str, str]:
    """(reference, text) of an expert's task in a family's folder: what stands in the family, and
    the YAML that is to be written beside it; empty for a task that needs none."""
    if found.reference:
        return found.reference, ""
    if found.kind == "ready":
        return path_from(folder, found.file, roots), ""
    place = folder / TASKS
    if found.data is not None:
        text = described(found, found.split, found.tested or None, name)
        return f"{TASKS}/{name}.yaml", TASK_HEADER + text
    train = path_from(place, found.file, roots)
    test = path_from(place, found.test, roots) if found.test else None
    return f"{TASKS}/{name}.yaml", TASK_HEADER + described(found, train, test, name)


def by_hand(file: Path) -> str:
    """Why a `family.yaml` is not replaced or removed here; empty where it has the form of one that
    was written here."""
    try:
        if file.read_text("utf-8") == dump_family(load_family(file)):
            return ""
    except (OSError, ValueError):
        return "it cannot be read"
    return "it was written or changed by hand"


def save_family(
    collection: FamilyFile, tasks: Mapping[str, str] | None = None, *, replace: bool = False
) -> Path:
    """The path of the `family.yaml` that was written; its folder is made.  With `replace` it takes
    the place of the one that lies there.  `tasks`: reference → YAML of those that are described
    beside it.

    Raises `InputError` where something else lies there, where the folder is, contains or lies in a
    model, and for a file that was changed by hand.
    """
    file = collection.folder / FILE
    if replace:
        _require_ours(file)
        for reference in tasks or {}:
            place = collection.folder / reference
            if place.exists() and not _is_our_task(place):
                raise _not_ours(place, "it was written or changed by hand")
        _write(collection, tasks or {}, collection.folder)
        return file

    def allow(place: Path) -> None:
        require_folder(place, _reads(collection), force=False, foreign=lambda _: "it")

    with staged_directory(collection.folder, allow=allow) as folder:  # whole or not at all
        _write(collection, tasks or {}, folder)
    return file


def _write(collection: FamilyFile, tasks: Mapping[str, str], folder: Path) -> None:
    """Write the descriptions of tasks, and the family that names them last."""
    for reference, text in tasks.items():
        write_atomically(folder / reference, text.encode())
    write_atomically(folder / FILE, dump_family(collection).encode())


def _reads(collection: FamilyFile) -> list[tuple[str, Path]]:
    """The models of a family that lie on this machine, with what they are."""
    named = [("the base", collection.base)]
    named += [(f"expert '{one.name}'", one.model) for one in collection.experts]
    folder = collection.folder
    # Resolved first: the folder, from which relative paths start, is not made yet.
    paths = [(whose, (folder / hub.home(reference)).resolve()) for whose, reference in named]
    return [(whose, path) for whose, path in paths if path.exists()]


def remove_family(file: Path) -> None:
    """Remove a `family.yaml` and the tasks that were described beside it, and its folder where
    nothing else lies in it; no model is touched.

    Raises `InputError` for a file that was changed by hand.
    """
    _require_ours(file)
    with foreseen(f"'{file}'"):
        file.unlink()
        for task in filter(_is_our_task, (file.parent / TASKS).glob("*.yaml")):
            task.unlink()
        for folder in (file.parent / TASKS, file.parent):
            with contextlib.suppress(OSError):  # something else lies there
                folder.rmdir()


def _require_ours(file: Path) -> None:
    if why := by_hand(file):
        raise _not_ours(file, why)


def _not_ours(file: Path, why: str) -> InputError:
    return InputError(
        f"'{file}'",
        expected="a file as the page wrote it",
        found=why,
        remedy="Change or remove it by hand, or duplicate the family under another name.",
    )


def _is_our_task(file: Path) -> bool:
    """Whether the description of a task has the form in which it was written here."""
    try:
        text = file.read_text("utf-8")
        content = plain_yaml(f"task '{file}'", text)
    except (OSError, ValueError):  # of which an InputError is one
        return False
    whole = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10**6)
    return text == TASK_HEADER + whole
