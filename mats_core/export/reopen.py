"""A recipe from outside, matched with a family that is known here.

Nothing that the file names is opened: its paths are only compared with those of the known
families, and every checkpoint that is read afterwards belongs to the family.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InputError, listing, plain_yaml
from ..methods import METHODS, describe
from ..recipes import ExpertEntry, FamilyFile, Recipe, Refine, Routed, Rule, parse_recipe
from ..system import Event, drained

PATHS = ("model", "statistics", "task")  # of an expert


@dataclass(frozen=True)
class Reopened:
    """A recipe over a known family.

    collection   the family
    method, options, seed, dtype, rounds, after, by, refine, routed, keep_sums   as in the recipe
    experts      the family's names of the experts, and
    weights      name → task weight
    notes        a sentence for each part of the file that is not taken over
    """

    collection: FamilyFile
    method: str
    options: Mapping[str, Any]
    experts: tuple[str, ...]
    weights: Mapping[str, float]
    seed: int
    dtype: str
    rounds: int = 1
    after: tuple[Mapping[str, Mapping[str, Any]], ...] = ()
    by: tuple[Mapping[str, Any], ...] = ()
    refine: Refine | None = None
    routed: Routed | None = None
    keep_sums: bool = False
    notes: tuple[str, ...] = ()


def reopening(data: bytes, families: Sequence[FamilyFile]) -> Generator[Event, None, Reopened]:
    """The recipe in `data`, over the first of `families` that it belongs to.

    An event before each family.  Raises `InputError` for what is no recipe, or one of a family that
    is not known here.
    """
    content = _parsed(data)
    _refuse_foreign_paths(content)
    recipe = parse_recipe(content)
    problems: list[InputError] = []
    for number, family in enumerate(families):
        yield Event(fraction=number / len(families), text=f"Comparing with {family.name}")
        try:
            names, by_name = _matched(recipe, family)
        except InputError as error:
            problems.append(error)
            continue
        if names:
            return _reopened(recipe, family, names, by_name)
    if problems:
        raise problems[0]
    raise InputError(
        "recipe",
        expected=f"one of a family that is open here ({listing(f.name for f in families)})",
        found=f"the base '{recipe.base}' and experts {listing(e.name for e in recipe.experts)}",
        remedy="Put the family's folder under sample_models/, or name it in MATS_FAMILIES before "
        "the start. A recipe that was downloaded here holds fingerprints and is found by them.",
    )


reopen = drained(reopening)


def _parsed(data: bytes) -> Mapping[str, Any]:
    content = plain_yaml("recipe", data)
    if not isinstance(content, Mapping):
        raise InputError("recipe", expected="a YAML mapping", found=type(content).__name__)
    return content


def _refuse_foreign_paths(content: Mapping[str, Any]) -> None:
    """Before anything looks at a path: none of another machine, no checkpoint to start from."""
    experts = content.get("experts")
    entries = [e for e in experts if isinstance(e, Mapping)] if isinstance(experts, list) else []
    paths = [content.get(key) for key in ("base", "base_statistics", "output")]
    paths += [entry.get(key) for entry in entries for key in PATHS]
    for path in paths:
        if isinstance(path, str) and (path.startswith(("//", "\\\\")) or "\0" in path):
            raise InputError(
                f"path '{path}'",
                expected="a path on this machine",
                found="one of a network share" if "\0" not in path else "a NUL character",
            )
    # Whatever the recipe's method: an option of that name may be a path.
    starts = {f.name: f.checkpoint for method in METHODS for f in describe(method) if f.checkpoint}
    for name, names in starts.items():
        for value in _values(content, name):
            if value not in names:
                raise InputError(
                    f"option '{name}'",
                    expected=f"one of {', '.join(names)} on this page",
                    found=f"'{value}'",
                    remedy="To start from a checkpoint, run the recipe from the command line.",
                )


def _values(content: Mapping[str, Any], option: str) -> list[Any]:
    """Every value that an option has, in the recipe and in its search."""
    options, search = content.get("options"), content.get("search")
    found = [options[option]] if isinstance(options, Mapping) and option in options else []
    if isinstance(search, Mapping) and isinstance(search.get(option), list):
        found += search[option]
    return found


# Which family ------------------------------------------------------------------------------------


def inside(folder: Path, reference: str) -> Path | None:
    """Where a path leads, started at `folder`; None if that is not inside, links followed.

    A path that leads out of the folder as written is refused without asking the disk.
    """
    root = folder.resolve()
    plain = Path(os.path.normpath(root / reference))
    if not plain.is_relative_to(root):
        return None
    found = plain.resolve()
    return found if found.is_relative_to(root) else None


def _matched(recipe: Recipe, family: FamilyFile) -> tuple[dict[str, str], bool]:
    """Names in the recipe → the family's names, and whether some match by name alone.

    Empty where the base is another.  Raises `InputError` where the base is the family's and an
    expert is not.
    """
    kind = _same(recipe.base, recipe.base_fingerprint, family, family.base)
    if not kind:
        return {}, False
    kinds, names = {kind}, {}
    for entry in recipe.experts:
        expert, kind = _expert(entry, family)
        if expert in names.values():
            raise InputError(
                f"expert '{entry.name}'", expected="each expert once", found=f"'{expert}' again"
            )
        names[entry.name] = expert
        kinds.add(kind)
    return names, "name" in kinds


def _expert(entry: ExpertEntry, family: FamilyFile) -> tuple[str, str]:
    """The family's expert that an entry means, and by what it matches."""
    # Those of its own name first: copies have one fingerprint.
    for own in sorted(family.experts, key=lambda own: own.name != entry.name):
        kind = _same(entry.model, entry.fingerprint, family, own.model)
        if kind and (kind != "name" or own.name == entry.name):
            return own.name, kind
    changed = entry.fingerprint and any(own.name == entry.name for own in family.experts)
    raise InputError(
        f"expert '{entry.name}'",
        expected="the checkpoint that the recipe's fingerprint names"
        if changed
        else f"one of the family {family.name}: {listing(e.name for e in family.experts)}",
        found="another one of that name" if changed else f"'{entry.model}'",
        remedy="It was trained again since. Remove the fingerprint from the recipe to use it."
        if changed
        else "",
    )


def _same(reference: str, fingerprint: str | None, family: FamilyFile, member: str) -> str:
    """By what `reference` and the family's `member` match: fingerprint, path or name."""
    own = family.folder / member
    if fingerprint:
        there = family.open(family.model_path(member))
        return "fingerprint" if there.fingerprint == fingerprint else ""
    root = family.folder.resolve()
    if os.path.normpath(root / reference) == os.path.normpath(root / member):
        return "path"
    found = inside(family.folder, reference)
    if found is not None:
        return "path" if found == own.resolve() else ""
    # Written from elsewhere, such as ../../sample_models/drawn/base: only its words are compared.
    parts = PurePosixPath(reference.replace("\\", "/")).parts
    tail = (root.name, *PurePosixPath(member).parts)
    return "name" if parts[-len(tail) :] == tail else ""


def _reopened(
    recipe: Recipe, family: FamilyFile, names: Mapping[str, str], by_name: bool
) -> Reopened:
    notes = []
    if by_name:
        notes.append(
            f"The recipe names files elsewhere; those of {family.name} with the same names are "
            "used. It holds no fingerprints that would tell whether they are the same."
        )
    for key, what in (
        ("search", "The search over options"),
        ("adds_to", "The merge that it adds to"),
        ("output_dtype", "The type of the stored numbers"),
        ("heads", "The patterns of head tensors"),
        ("lora", "Its form of one LoRA, which Export writes here,"),
    ):
        if getattr(recipe, key) is not None:
            notes.append(f"{what} is for the command line only.")
    rules = tuple(_renamed(rule, names) for rule in recipe.by)
    by_examples = recipe.weighting == "examples"
    chosen = set(names.values())
    return Reopened(
        collection=family,
        method=recipe.method,
        options=recipe.parsed_options().model_dump(),
        experts=tuple(e.name for e in family.experts if e.name in chosen),
        weights={
            names[entry.name]: entry.weight * (entry.examples or 1 if by_examples else 1)
            for entry in recipe.experts
        },
        seed=recipe.seed,
        dtype=recipe.dtype,
        rounds=recipe.rounds,
        after=recipe.after,
        by=rules,
        refine=recipe.refine,
        routed=recipe.routed,
        keep_sums=recipe.keep_sums,
        notes=tuple(notes),
    )


def _renamed(rule: Rule, names: Mapping[str, str]) -> Mapping[str, Any]:
    """A rule with the family's names of the experts."""
    content = rule.model_dump(mode="json", exclude_defaults=True)
    if isinstance(rule.weight, dict):
        content["weight"] = {names[name]: weight for name, weight in rule.weight.items()}
    return content
