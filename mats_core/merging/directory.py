"""What lies beside the weights in an output directory: heads, recipe, report and card."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..checkpoints import InMemory, TensorFileWriter, config_files, original
from ..errors import InputError, listing
from . import card
from .plan import Inputs, Plan
from .recipe import Recipe, dump_recipe, pinned_models
from .report import Report

LONGEST = 200  # bytes of a name; beside it lies a longer one while it is written


def finish_directory(plan: Plan, folder: Path, report: Report) -> None:
    """Everything beside the weights: the base's files, the heads, the recipe and the report."""
    family = plan.inputs.family
    if family.base.directory is not None:
        for file in config_files(family.base.directory):
            if not (folder / file.name).exists():
                shutil.copyfile(file, folder / file.name)
    for expert in family.experts:
        names = family.head_of(expert)
        if not names:
            continue
        place = folder / "heads" / expert.name
        place.mkdir(parents=True, exist_ok=True)
        entries = expert.checkpoint.tensors
        specs = {expert.own(name): (entries[name].dtype, entries[name].shape) for name in names}
        writer = TensorFileWriter(place / "head.safetensors", specs)
        for name in names:
            writer.add(expert.own(name), expert.checkpoint.read(name))
        writer.close()
        if expert.checkpoint.directory is not None:
            shutil.copyfile(expert.checkpoint.directory / "config.json", place / "config.json")
    (folder / "recipe.yaml").write_text(dump_recipe(pinned(plan), absolute=True), "utf-8")
    (folder / "report.json").write_text(report.to_json(), "utf-8")
    (folder / card.NAME).write_text(card.card(pinned(plan), report, family), "utf-8")
    if plan.recipe.output_dtype and (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text("utf-8"))
        config.pop("torch_dtype", None)
        config["dtype"] = plan.recipe.output_dtype
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def pinned(plan: Plan) -> Recipe:
    """The recipe with all options resolved and every input's fingerprint."""
    family, recipe = plan.inputs.family, pinned_models(plan.recipe)
    entries = tuple(
        entry.model_copy(update={"fingerprint": expert.checkpoint.fingerprint})
        for entry, expert in zip(recipe.experts, family.experts, strict=True)
    )
    return recipe.model_copy(
        update={
            "experts": entries,
            "base_fingerprint": family.base.fingerprint,
            "options": plan.options.model_dump(),
        }
    )


def require_place(target: Path, inputs: Inputs, *, force: bool = False) -> None:
    """Raise `InputError` where an output would destroy or mix with something else.

    Refused, with `force` too: a folder that is, contains or lies inside the place of the base, of
    an expert or of statistics, and one that neither is empty nor was written by a merge.
    """
    thing = f"output '{target}'"
    _require_name(thing, target)
    place = target.resolve()
    for whose, lies in _places(inputs):
        if place == lies or place in lies.parents or lies in place.parents:
            raise InputError(
                thing,
                expected="a folder apart from what is merged",
                found=f"{whose} at '{lies}'",
                remedy="Choose another folder.",
            )
    if not os.path.lexists(target):
        return
    if not force:
        raise InputError(
            thing,
            expected="a path that does not exist",
            found=_what_lies(target),
            remedy="Choose another folder, or pass force=True to replace what a merge wrote.",
        )
    if not target.is_dir() or (any(target.iterdir()) and not _of_a_merge(target)):
        raise InputError(
            thing,
            expected="an empty folder, or one that a merge wrote",
            found=_what_lies(target),
            remedy="Choose another folder, or remove that one yourself.",
        )


def _require_name(thing: str, target: Path) -> None:
    """Raise `InputError` where no folder of this name can be made."""
    found = ""
    if "\0" in str(target):
        found = "a name with a zero byte"
    elif target.name in ("", "..") or target.resolve() in (Path.cwd(), *Path.cwd().parents):
        found = "the working directory, or one above it"
    elif len(os.fsencode(target.name)) > LONGEST:
        found = f"a name of {len(os.fsencode(target.name))} bytes, of at most {LONGEST}"
    else:
        try:
            os.lstat(target)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                found = f"'{error.strerror}'"
        above = next((p for p in target.parents if not found and os.path.lexists(p)), None)
        if above is not None and not above.is_dir():
            found = f"'{above}', which is no folder"
    if found:
        raise InputError(
            thing,
            expected="the path of a folder that can be made",
            found=found,
            remedy="Choose another folder, such as 'merged'.",
        )


def _places(inputs: Inputs) -> Iterator[tuple[str, Path]]:
    """Where the files of a merge lie, links resolved, with what they are."""
    family = inputs.family
    named = [("the base", family.base, inputs.base_statistics)]
    named += [
        (f"expert '{expert.name}'", expert.checkpoint, statistics)
        for expert, statistics in zip(family.experts, inputs.statistics, strict=True)
    ]
    for whose, weights, statistics in named:
        weights = original(weights)
        if not isinstance(weights, InMemory):
            yield whose, weights.path.resolve()
        if statistics is not None and not statistics.source.startswith("memory"):
            yield f"the statistics of {whose}", Path(statistics.source).resolve()


def _of_a_merge(folder: Path) -> bool:
    """Whether a merge wrote a folder: it holds a recipe and the report of a merge."""
    try:
        content = json.loads((folder / "report.json").read_text("utf-8"))
        Report.from_dict(content)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
    return (folder / "recipe.yaml").is_file()


def _what_lies(target: Path) -> str:
    if target.is_symlink() and not target.exists():
        return "a link to nothing"
    if not target.is_dir():
        return "a file"
    names = sorted(entry.name for entry in target.iterdir())
    return f"one with {listing(names)}" if names else "an empty one"
