"""The preflight of a family: does every expert fit the base, and what is each tensor?"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch

from ..checkpoints import Weights, left_over, require_numbers
from ..errors import InputError, listing
from ..names import is_conv1d, is_matrix, is_table, running_statistics
from .anatomy import Ask, unknown
from .apart import set_apart
from .expert import Expert
from .factors import refuse_factors
from .family import Family, Role
from .lineage import lineage
from .misfit import refuse
from .spare import constant, is_mask
from .vocabulary import difference

COUNTER = "num_batches_tracked"


def examine(
    base: Weights,
    experts: Sequence[Expert],
    *,
    heads: Sequence[str] | None = None,
    contents: bool = True,
    anatomy: Ask = unknown,
    strangers: bool = False,
) -> Family:
    """The checked family, with a role for every tensor.

    `heads`: shell-style patterns of the tensors that belong to a task's head.  They replace the
    automatic recognition; an empty list says that no tensor belongs to one.  Without `contents`
    only headers are read; `look_inside` does the rest.  `anatomy` is asked what the classes of a
    model hold where the files leave it open.  `strangers`: as in `look_inside`.

    Raises `InputError` that names file, tensor, both shapes (or dtypes) and the remedy.
    """
    if not experts:
        raise InputError("experts", expected="at least one expert", found="none")
    _require_names([expert.name for expert in experts])
    for weights in (base, *(expert.checkpoint for expert in experts)):
        require_numbers(weights)
    for expert in (None, *experts):
        refuse_factors(base if expert is None else expert.checkpoint, expert)
    apart = set_apart(base, experts, heads, anatomy)
    refuse(apart)
    base, experts, spares = apart.base, apart.experts, apart.spares
    copies = {n: target for n, target in spares.copies.items() if n not in apart.heads}
    running = running_statistics(base.tensors) - apart.names
    kinds = {str(c.config.get("model_type")) for c in (base, *(e.checkpoint for e in experts))}
    roles: dict[str, Role] = {}
    for name in sorted({*base.tensors, *apart.heads}):
        if name in apart.heads:
            roles[name] = "head"
        elif name in copies:
            roles[name] = "tied"
        elif name in spares.names:
            roles[name] = "copied"
        else:
            roles[name] = "matrix" if is_matrix(name, base.tensors[name].shape) else "vector"
    transposed = frozenset(
        name
        for name, role in roles.items()
        if role == "matrix" and is_conv1d(name, base.tensors[name].shape, kinds)
    )
    family = Family(
        base,
        experts,
        roles,
        tied_to=copies,
        transposed=transposed,
        notes=(
            *apart.notes,
            *_statistics(running),
            *_vocabularies(base, experts),
            *_dequantised(base),
        ),
        apart=apart.names,
        running=running,
        buffers=spares.buffers,
        untied=apart.untied,
    )
    return look_inside(family, strangers=strangers) if contents else family


def look_inside(family: Family, *, strangers: bool = False) -> Family:
    """The same family with equal tensors tied and masks copied, after its files were read through.

    Raises `InputError` for a number that is not finite, and for an expert that has nothing in
    common with the base; `strangers`: such a one is merged, with a note.
    """
    checkpoints = (family.base, *(expert.checkpoint for expert in family.experts))
    masks = _masks(checkpoints, family.buffers)
    apart = family.apart | masks
    tied_to = {**family.tied_to, **_ties(family.base, family.experts, apart)}
    tied_to = {name: tied_to.get(source, source) for name, source in tied_to.items()}
    tied: dict[str, Role] = {name: "tied" for name in family.roles if name in tied_to}
    copied: dict[str, Role] = {name: "copied" for name in family.roles if name in masks}
    found = replace(
        family,
        roles={**family.roles, **tied, **copied},
        tied_to=tied_to,
        transposed=family.transposed - tied.keys() - masks,
        apart=apart,
        buffers=family.buffers | masks,
    )
    notes = (*found.notes, *_integers(found), *lineage(found, strangers=strangers))
    return replace(found, notes=notes)


def _require_names(names: Sequence[str]) -> None:
    """Raise `InputError` for experts of one name: their heads are written into folders."""
    folders = [unicodedata.normalize("NFC", name).casefold() for name in names]
    twice = sorted(n for n, one in zip(names, folders, strict=True) if folders.count(one) > 1)
    if not twice:
        return
    raise InputError(
        "experts",
        expected="a different name for each",
        found=listing(dict.fromkeys(twice)),
        remedy="Rename one of them."
        if len(set(twice)) < len(twice)
        else "Windows and macOS take these for one folder: rename one of them.",
    )


def _integers(family: Family) -> list[str]:
    """A sentence on integers in which experts differ from the base: of these nothing is merged.

    Counters of batches are left out, for they differ whenever something was trained.
    """
    differ: dict[str, list[str]] = {}
    for name, entry in family.base.tensors.items():
        if family.roles.get(name) != "copied" or entry.dtype.is_floating_point:
            continue
        for expert in family.experts if not name.endswith(COUNTER) else ():
            theirs = expert.checkpoint
            if name in theirs.tensors and theirs.digest(name) != family.base.digest(name):
                differ.setdefault(expert.name, []).append(name)
    if not differ:
        return []
    said = [f"{listing(names, 3)} of '{expert}'" for expert, names in differ.items()]
    return [f"integers are not merged: the base's are kept where these differ: {listing(said, 4)}"]


def _masks(checkpoints: Sequence[Weights], buffers: Collection[str]) -> frozenset[str]:
    """Masks that no name tells, by the infinities in them; raises `InputError` for all others."""
    masks: set[str] = set()
    for checkpoint in checkpoints:
        checkpoint.look_through()
        for name in sorted(checkpoint.tensors.keys() - buffers - masks):
            if checkpoint.finite(name):
                continue
            if not is_mask(checkpoints, name):
                raise _not_finite(checkpoint, name)
            masks.add(name)
    return frozenset(masks)


def _statistics(running: Collection[str]) -> list[str]:
    said = "are averaged over the experts by their weights, whatever the method"
    return [f"{len(running)} running means and variances {said}"] if running else []


def _vocabularies(base: Weights, experts: Sequence[Expert]) -> list[str]:
    return [
        f"the tokenizer of expert '{expert.name}' differs from the base's, though the embeddings "
        f"have the same size: {what}. The merge keeps the base's tokenizer"
        for expert in experts
        if (what := difference(base, expert.checkpoint))
    ]


def _not_finite(checkpoint: Weights, name: str) -> InputError:
    bad = sum(int((~torch.isfinite(part)).sum()) for part in checkpoint.parts(name))
    return InputError(
        f"tensor '{name}' of '{checkpoint.path}'",
        expected="finite numbers",
        found=f"{bad} of {checkpoint.tensors[name].elements} that are NaN or infinite",
        remedy="That checkpoint is damaged or its training diverged; use another one.",
    )


def _dequantised(base: Weights) -> list[str]:
    key = left_over(base)
    if not key:
        return []
    return [
        f"'{key}' in the config.json of the base '{base.path}' is left over from a quantised "
        "model: the weights are not quantised, and the merge is written without it"
    ]


def _ties(base: Weights, experts: Sequence[Expert], apart: Collection[str]) -> dict[str, str]:
    """Tensors that are another one in the base and in every expert → that one.

    In files by their bytes, and matrices alone: constant tensors (freshly initialised norms, zeros)
    agree by accident and are not ties.  In memory by the memory itself, whatever it holds.  The
    embedding is the one that the others follow, as in transformers.
    """
    checkpoints = [base, *(expert.checkpoint for expert in experts)]
    first: dict[tuple[str, ...], str] = {}
    tied = _aliases(base, experts, apart)
    shapes = [entry.shape for entry in base.tensors.values()]
    for name in sorted(base.tensors, key=_leads):
        shape = base.tensors[name].shape
        if name in apart or name in tied or len(shape) < 2 or shapes.count(shape) < 2:
            continue
        key = tuple(checkpoint.digest(name) for checkpoint in checkpoints)
        if key in first and not constant(base, name):
            tied[name] = first[key]
        else:
            first.setdefault(key, name)
    return tied


def _aliases(base: Weights, experts: Sequence[Expert], apart: Collection[str]) -> dict[str, str]:
    """Names of one memory in the base, where every expert has one tensor for them, too."""
    groups: dict[str, list[str]] = {}
    for name in sorted(base.tensors, key=_leads):
        groups.setdefault(base.aliases.get(name, name), []).append(name)
    return {
        name: leader
        for leader, *others in groups.values()
        for name in others
        if name not in apart
        and leader not in apart
        and all(e.checkpoint.digest(name) == e.checkpoint.digest(leader) for e in experts)
    }


def _leads(name: str) -> tuple[int, str]:
    """T5's `shared` before the tables that repeat it, and those before `lm_head`."""
    table = 1 if "embed" in name.lower() else 0
    return (table if is_table(name) else 2, name)
