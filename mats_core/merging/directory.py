"""What lies beside the weights in an output directory: heads, recipe, report and card."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from .. import models
from ..checkpoints import (
    CARD,
    MARK,
    Checkpoint,
    InMemory,
    TensorFileWriter,
    Weights,
    carry,
    companions,
    left_over,
    original,
    require_folder,
    stem_of,
    unquantised,
    unwrapped,
    what_lies,
)
from ..errors import InputError, listing, parsing, read_json
from ..families import Expert, Family
from ..methods import named_checkpoints, named_tasks
from ..recipes import (
    EarlierMerge,
    Inputs,
    Plan,
    Recipe,
    Report,
    dump_recipe,
    load_recipe,
    pinned_models,
    write_branches,
)
from ..tasks import names_file
from . import card
from .beside import Beside
from .journal import BEFORE, BEFORE_PIECES, PIECES
from .journal import NAME as JOURNAL
from .training_state import FILE as TRAINING

HEAD_FILES = ("head.safetensors", "config.json")
UNLISTED = frozenset({"report.json", JOURNAL, MARK, PIECES, TRAINING, BEFORE, BEFORE_PIECES})


def finish_directory(
    plan: Plan,
    folder: Path,
    report: Report,
    branches: Mapping[str, Tensor] | None = None,
    began: Beside | None = None,
) -> Report:
    """The report with notes on the files beside the weights, after all of these were written: the
    base's files, the heads, a routed merge's `branches`, the recipe, the model card, the report.

    `began`: what lay beside the weights when the merge began; raises `InputError` where a file
    that was copied is another one."""
    family = plan.inputs.family
    beside = companions(family.base)
    for name, file in beside.copied.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        carry(file, folder / name)
    _save_settings(family.base, folder)
    left, untied = left_over(family.base), bool(family.untied)
    _settle(folder / "config.json", plan.recipe.output_dtype, left, untied=untied)
    for expert in family.experts:
        _write_head(family, expert, folder / "heads" / expert.name)
    _take_over_heads(plan.inputs.earlier, folder)
    if began is not None:
        began.require_unchanged(family)
    if plan.recipe.routed and branches:
        write_branches(folder, branches, plan.recipe.routed, [e.name for e in family.experts])
    notes = dict.fromkeys((*report.warnings, *beside.notes))
    report = replace(report, warnings=tuple(notes))
    recipe = pinned(plan)
    (folder / "recipe.yaml").write_text(dump_recipe(recipe, absolute=True), "utf-8")
    before = plan.inputs.earlier.folder if plan.inputs.earlier else None
    (folder / CARD).write_text(card.card(recipe, report, family, before), "utf-8")
    written = replace(report, files=files_in(folder))
    (folder / "report.json").write_text(written.to_json(), "utf-8")
    return report


def _write_head(family: Family, expert: Expert, place: Path) -> None:
    """The tensors of an expert's head with its configuration, where it has one.

    They are called as in its files, without the wrappers of training that a module stands in.
    """
    names, weights = family.head_of(expert), expert.checkpoint
    if not names:
        return
    place.mkdir(parents=True, exist_ok=True)
    plain = unwrapped(map(expert.own, weights.tensors))
    called = {name: plain[expert.own(name)] for name in names}
    specs = {called[n]: (weights.tensors[n].dtype, weights.tensors[n].shape) for n in names}
    with TensorFileWriter(place / "head.safetensors", specs) as writer:
        for name in names:
            writer.add(called[name], weights.read(name))
    if weights.directory is not None:
        carry(weights.directory / "config.json", place / "config.json")
        _settle(place / "config.json", left=left_over(weights))
    _save_settings(weights, place)


def _take_over_heads(earlier: EarlierMerge | None, folder: Path) -> None:
    """The heads of the experts that a merge was added to."""
    for entry in earlier.experts if earlier else ():
        assert earlier is not None
        place = earlier.folder / "heads" / entry.name
        if place.is_dir():
            shutil.copytree(place, folder / "heads" / entry.name, dirs_exist_ok=True)


def _save_settings(weights: Weights, place: Path) -> None:
    """The settings of a module in memory, where it is one of transformers."""
    source = original(weights)
    if isinstance(source, InMemory) and source.module is not None:
        models.save_settings(source.module, place)


def _settle(file: Path, dtype: str | None = None, left: str = "", *, untied: bool = False) -> None:
    """Let a `config.json` speak of the weights as they are written: dtype, ties, not quantised."""
    if not file.is_file() or not (dtype or left or untied):
        return
    config = read_json(file)
    if left:
        config = unquantised(config)
    if dtype:
        config.pop("torch_dtype", None)
        config["dtype"] = dtype
    if untied:
        config["tie_word_embeddings"] = False
    file.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def pinned(plan: Plan) -> Recipe:
    """The recipe with all options resolved and every input's fingerprint.

    Of a merge that adds to another one it is that of merging all experts at once.
    """
    family, recipe = plan.inputs.family, pinned_models(plan.recipe)
    earlier = plan.inputs.earlier
    entries = tuple(
        entry.model_copy(update={"fingerprint": expert.checkpoint.fingerprint})
        for entry, expert in zip(recipe.experts, family.experts, strict=True)
    )
    return recipe.model_copy(
        update={
            "experts": (*(earlier.experts if earlier else ()), *entries),
            "adds_to": None,
            "base_fingerprint": family.base.fingerprint,
            "options": plan.options.model_dump(),
            "after": tuple(one.content for one in plan.recipe.steps()),
        }
    )


def files_in(folder: Path) -> dict[str, int]:
    """Bytes of every file of an output by its name, but for the report that lists them."""
    files = sorted(file for file in folder.rglob("*") if not file.is_dir())
    names = {file.relative_to(folder).as_posix(): file for file in files}
    listed = {name for name in names if name.partition("/")[0] not in UNLISTED}
    return {name: file.lstat().st_size for name, file in names.items() if name in listed}


def require_output(
    target: Path, recipe: Recipe, inputs: Inputs | None = None, *, force: bool = False
) -> None:
    """Raise `InputError` where the output of a merge would destroy or mix with something else.

    Refused, with `force` too: a folder that is, contains or lies inside of something that the merge
    reads, one that contains the recipe, and one that does not hold what a merge wrote and nothing
    else.  `inputs`: with them the places are those of the files that were opened.
    """
    # The recipe itself stands in its folder under a name of no importance.
    reads = [("the recipe", recipe.folder / "recipe.yaml"), *reads_of(recipe)]
    reads += () if inputs is None else _opened(inputs)
    require_folder(target, reads, force=force, foreign=foreign)


def foreign(folder: Path) -> str:
    """What a folder holds that no merge wrote, in words; "" for the whole output of a merge."""
    try:
        with parsing(f"output '{folder}'", "a report of a merge"):
            content = read_json(folder / "report.json")
            report, present = Report.from_dict(content), files_in(folder)
            lists = "files" in content
            listed = dict(content["files"]) if lists else _by_name(folder, report, present)
    except InputError:
        return what_lies(folder)
    return _others(present, listed)


def _by_name(folder: Path, report: Report, present: dict[str, int]) -> dict[str, int]:
    """Of the files `present`, those that a merge has written whose report lists none (before
    0.2.0)."""
    recipe = load_recipe(folder / "recipe.yaml")
    known = {"recipe.yaml", CARD}
    experts = report.fingerprints.keys() - {"base"}
    known |= {f"heads/{name}/{file}" for name in experts for file in HEAD_FILES}
    try:
        base = Checkpoint.open(recipe.path(recipe.base))
        stem, known = stem_of(base), known | companions(base).copied.keys()
    except InputError:
        stem = "model"
    weights = re.compile(
        rf"{re.escape(stem)}(-\d+-of-\d+)?\.safetensors|.*\.safetensors\.index\.json|adapter/.*"
    )
    return {n: size for n, size in present.items() if n in known or weights.fullmatch(n)}


def reads_of(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    """What a merge reads on this machine beside its recipe, with what it is; models that are hub
    ids are left out."""
    named = [("the merge that is added to", recipe.adds_to), ("the base", recipe.base)]
    named += [("the statistics of the base", recipe.base_statistics)]
    for entry in recipe.experts:
        task = entry.task if entry.task and names_file(entry.task) else None
        named += [
            (f"expert '{entry.name}'", entry.model),
            (f"the statistics of '{entry.name}'", entry.statistics),
            (f"the optimiser's state of '{entry.name}'", entry.optimizer),
            (f"the task of '{entry.name}'", task),
        ]
    options = named_checkpoints(recipe.method, recipe.options)
    pile = named_tasks(recipe.method, recipe.options)
    options |= {name: task for name, task in pile.items() if names_file(task)}
    named += [(f"option '{name}'", path) for name, path in options.items()]
    for whose, reference in named:
        if reference is not None and (path := recipe.path(reference)).exists():
            yield whose, path


def _opened(inputs: Inputs) -> Iterator[tuple[str, Path]]:
    """Where the opened files of a merge lie, with what they are."""
    family = inputs.family
    named = [("the base", family.base, inputs.base_statistics)]
    named += [
        (f"expert '{expert.name}'", expert.checkpoint, statistics)
        for expert, statistics in zip(family.experts, inputs.statistics, strict=True)
    ]
    for whose, weights, statistics in named:
        weights = original(weights)
        if not isinstance(weights, InMemory):
            yield whose, weights.path
        if statistics is not None and not statistics.source.startswith("memory"):
            yield f"the statistics of {whose}", Path(statistics.source)


def _others(present: dict[str, int], listed: dict[str, int]) -> str:
    more = [name for name in present if name not in listed]
    if more:
        return f"files that no merge wrote: {listing(more)}"
    edited = [name for name, size in present.items() if listed[name] != size]
    return f"files that have changed since the merge: {listing(edited)}" if edited else ""
