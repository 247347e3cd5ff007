"""The preflight of a family: does every expert fit the base, and what is each tensor?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ..checkpoints import Entry, Weights, left_over, require_numbers
from ..errors import InputError, listing
from ..names import is_conv1d, is_matrix, is_table
from .expert import Expert, aligned
from .family import Family, Role
from .heads import Spare, head_names, spare
from .vocabulary import difference


def examine(
    base: Weights,
    experts: Sequence[Expert],
    *,
    heads: Sequence[str] | None = None,
    contents: bool = True,
) -> Family:
    """The checked family, with a role for every tensor.

    `heads`: shell-style patterns of the tensors that belong to a task's head.  They replace the
    automatic recognition; an empty list says that no tensor belongs to one.  Without `contents`
    only headers are read; `look_inside` does the rest.

    Raises `InputError` that names file, tensor, both shapes (or dtypes) and the remedy.
    """
    if not experts:
        raise InputError("experts", expected="at least one expert", found="none")
    names = [expert.name for expert in experts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("experts", expected="a different name for each", found=listing(twice))
    for weights in (base, *(expert.checkpoint for expert in experts)):
        require_numbers(weights)
    experts, spares, heads_found = set_apart(base, experts, heads)
    _refuse(base, experts, heads_found, spares)
    copies = {n: target for n, target in spares.copies.items() if n not in heads_found}
    kinds = {str(c.config.get("model_type")) for c in (base, *(e.checkpoint for e in experts))}
    roles: dict[str, Role] = {}
    for name in sorted({*base.tensors, *heads_found}):
        if name in heads_found:
            roles[name] = "head"
        elif name in copies:
            roles[name] = "tied"
        elif name in spares.names or not base.tensors[name].dtype.is_floating_point:
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
        notes=(*spares.notes, *_vocabularies(base, experts), *_dequantised(base)),
        apart=frozenset(heads_found | spares.names),
    )
    return look_inside(family) if contents else family


def set_apart(
    base: Weights, experts: Sequence[Expert], heads: Sequence[str] | None
) -> tuple[tuple[Expert, ...], Spare, set[str]]:
    """The experts under the base's names, the spare tensors, and the names of the heads'."""
    experts = aligned(base, experts)
    spares = spare(base, experts)
    return experts, spares, head_names(base, experts, heads, spares)


def look_inside(family: Family) -> Family:
    """The same family with equal tensors tied, after its files were read through.

    Raises `InputError` for a number that is not finite.
    """
    base, experts = family.base, family.experts
    for checkpoint in (base, *(expert.checkpoint for expert in experts)):
        _finite(checkpoint)
    tied_to = {**family.tied_to, **_ties(base, experts, family.apart)}
    tied_to = {name: tied_to.get(source, source) for name, source in tied_to.items()}
    tied: dict[str, Role] = {name: "tied" for name in family.roles if name in tied_to}
    return replace(
        family,
        roles={**family.roles, **tied},
        tied_to=tied_to,
        transposed=family.transposed - tied.keys(),
    )


def _vocabularies(base: Weights, experts: Sequence[Expert]) -> list[str]:
    return [
        f"the tokenizer of expert '{expert.name}' differs from the base's, though the embeddings "
        f"have the same size: {what}. The merge keeps the base's tokenizer"
        for expert in experts
        if (what := difference(base, expert.checkpoint))
    ]


def _dequantised(base: Weights) -> list[str]:
    key = left_over(base)
    if not key:
        return []
    return [
        f"'{key}' in the config.json of the base '{base.path}' is left over from a quantised "
        "model: the weights are not quantised, and the merge is written without it"
    ]


def _refuse(base: Weights, experts: Sequence[Expert], heads: set[str], spares: Spare) -> None:
    problems = [
        found.sentence for expert in experts for found in mismatches(base, expert, heads, spares)
    ]
    if problems:
        more = f" (and {len(problems) - 4} more)" if len(problems) > 4 else ""
        raise InputError(
            "the experts do not all fit the base",
            found="; ".join(problems[:4]) + more,
            remedy="Every expert must be fine-tuned from this base. If a tensor belongs to a "
            "task's head, name it in the recipe's 'heads' list.",
        )


@dataclass(frozen=True)
class Mismatch:
    """One tensor in which an expert differs from its base; what a file lacks is an empty text."""

    expert: str
    tensor: str
    theirs: str
    ours: str
    sentence: str


def mismatches(base: Weights, expert: Expert, heads: set[str], spares: Spare) -> Iterator[Mismatch]:
    """Every tensor that keeps an expert from fitting the base, from the files' headers."""
    checkpoint = expert.checkpoint
    path, home = checkpoint.path, base.path
    names = (base.tensors.keys() | checkpoint.tensors.keys()) - heads - spares.names
    for name in sorted(names):
        ours, theirs = base.tensors.get(name), checkpoint.tensors.get(name)
        if ours is None:
            sentence = f"'{path}' has '{expert.own(name)}', which the base '{home}' lacks"
        elif theirs is None:
            sentence = f"'{path}' lacks '{name}' {list(ours.shape)} of the base"
        elif ours.shape != theirs.shape:
            sentence = (
                f"'{name}' has shape {list(theirs.shape)} in '{path}' "
                f"and {list(ours.shape)} in the base '{home}'"
                f"{_about_tokens(base, checkpoint, name)}"
            )
        elif ours.dtype.is_floating_point != theirs.dtype.is_floating_point:
            sentence = f"'{name}' is {theirs.dtype} in '{path}' and {ours.dtype} in '{home}'"
        else:
            continue
        yield Mismatch(expert.name, name, _described(theirs), _described(ours), sentence)


def _about_tokens(base: Weights, checkpoint: Weights, name: str) -> str:
    """Why an embedding has more rows, or fewer: the tokens, by name."""
    ours, theirs = base.tensors[name].shape, checkpoint.tensors[name].shape
    if not is_table(name) or ours[1:] != theirs[1:]:
        return ""
    found = difference(base, checkpoint)
    if found:
        return f" ({found}; nothing is cropped: give all models one vocabulary first)"
    return " (their tokenizer files name the same tokens, or are missing)"


def _described(entry: Entry | None) -> str:
    return f"{list(entry.shape)} {str(entry.dtype).removeprefix('torch.')}" if entry else ""


def _finite(checkpoint: Weights) -> None:
    checkpoint.look_through()
    for name, entry in checkpoint.tensors.items():
        if not checkpoint.finite(name):
            bad = sum(int((~torch.isfinite(part)).sum()) for part in checkpoint.parts(name))
            raise InputError(
                f"tensor '{name}' of '{checkpoint.path}'",
                expected="finite numbers",
                found=f"{bad} of {entry.elements} that are NaN or infinite",
                remedy="That checkpoint is damaged or its training diverged; use another one.",
            )


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
        if key in first and not _constant(base, name):
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


def _constant(checkpoint: Weights, name: str) -> bool:
    extremes = [part.aminmax() for part in checkpoint.parts(name) if part.numel()]
    return len({float(value) for pair in extremes for value in pair}) <= 1


def _leads(name: str) -> tuple[int, str]:
    """T5's `shared` before the tables that repeat it, and those before `lm_head`."""
    table = 1 if "embed" in name.lower() else 0
    return (table if is_table(name) else 2, name)
