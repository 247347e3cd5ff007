"""A family: one base checkpoint and the experts fine-tuned from it.

`examine` is the preflight.  It compares keys, shapes and dtypes of every expert with the base,
looks for NaN and infinity, and decides in one place what each tensor is:

    matrix   a weight of a linear layer, which a method can treat by its own mathematics
    vector   any other floating-point parameter (bias, LayerNorm, embedding, convolution)
    head     differs by task (shape, class names, or missing from the base); never merged
    copied   not floating point (position ids, counters); taken from the base
    tied     the same bytes as an earlier tensor in every checkpoint; follows that one
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from .checkpoints import Checkpoint, TensorEntry
from .checks import InputError, listing

Role = Literal["matrix", "vector", "head", "copied", "tied"]
HEAD_MODULES = {
    "classifier", "classification_head", "score", "head", "heads", "qa_outputs", "cls", "fc",
    "fc_out", "lin_cls",
}  # fmt: skip
GENERIC_LABEL = re.compile(r"LABEL_\d+")


@dataclass(frozen=True)
class Expert:
    """One fine-tuned checkpoint and the name of what it was tuned for."""

    name: str
    checkpoint: Checkpoint
    task: str = ""


@dataclass(frozen=True)
class Family:
    """Base, experts, and the role of every tensor (see the module's text)."""

    base: Checkpoint
    experts: tuple[Expert, ...]
    roles: Mapping[str, Role]
    tied_to: Mapping[str, str] = field(default_factory=dict)

    @property
    def shared(self) -> tuple[str, ...]:
        """Names of the tensors that are merged in one way or another."""
        return tuple(n for n, role in self.roles.items() if role in ("matrix", "vector"))

    def head_of(self, expert: Expert) -> tuple[str, ...]:
        return tuple(n for n in expert.checkpoint.tensors if self.roles[n] == "head")

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Like layers: names that differ only in dot-separated integer components."""
        groups: dict[str, list[str]] = {}
        for name in self.shared:
            groups.setdefault(group_of(name), []).append(name)
        return {group: tuple(names) for group, names in groups.items()}


def group_of(name: str) -> str:
    """`block.3.fc1.weight` → `block.*.fc1.weight`: the key of a group of like layers."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def module_of(name: str) -> str:
    """`encoder.fc1.weight` → `encoder.fc1`."""
    return name.rpartition(".")[0]


def is_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor looks like the weight of a linear layer: 2-D, `*.weight`, no embedding.

    Statistics decide where there are any (`pipeline`); this is the rule without them.
    """
    return len(shape) == 2 and name.endswith(".weight") and "embed" not in name.lower()


def examine(
    base: Checkpoint, experts: Sequence[Expert], *, heads: Sequence[str] | None = None
) -> Family:
    """Check a family and assign every tensor its role.

    `heads`: shell-style patterns of the tensors that belong to a task's head.  They replace the
    automatic recognition; an empty list says that there is no head.

    Raises `InputError` that names file, tensor, both shapes (or dtypes) and the way out.
    """
    if not experts:
        raise InputError("experts", expected="at least one expert", found="none")
    names = [expert.name for expert in experts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError("experts", expected="a name of its own for each", found=listing(twice))
    heads_found = head_names(base, experts, heads)
    problems = [
        problem.sentence for expert in experts for problem in _mismatches(base, expert, heads_found)
    ]
    if problems:
        more = f" (and {len(problems) - 4} more)" if len(problems) > 4 else ""
        raise InputError(
            "the experts do not all fit the base",
            found="; ".join(problems[:4]) + more,
            remedy="Every expert must be fine-tuned from this base. If a tensor belongs to a "
            "task's head, name it in the recipe's 'heads' list.",
        )
    for checkpoint in (base, *(expert.checkpoint for expert in experts)):
        _finite(checkpoint)
    tied_to = _ties(base, experts, heads_found)
    roles: dict[str, Role] = {}
    for name in sorted({*base.tensors, *heads_found}):
        if name in heads_found:
            roles[name] = "head"
        elif name in tied_to:
            roles[name] = "tied"
        elif not base.tensors[name].dtype.is_floating_point:
            roles[name] = "copied"
        else:
            roles[name] = "matrix" if is_matrix(name, base.tensors[name].shape) else "vector"
    return Family(base, tuple(experts), roles, tied_to)


def head_names(
    base: Checkpoint, experts: Sequence[Expert], patterns: Sequence[str] | None = None
) -> set[str]:
    """Names of all tensors that belong to a task's head; the recognition behind `examine`."""
    everything = set(base.tensors).union(*(expert.checkpoint.tensors for expert in experts))
    if patterns is not None:
        chosen = {n for n in everything if any(fnmatch.fnmatchcase(n, p) for p in patterns)}
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(n, pattern) for n in everything):
                raise InputError(
                    f"heads pattern '{pattern}'", expected="a match", found="no such tensor"
                )
        return chosen
    modules = {name: module for name in everything if (module := _head_module(name))}
    if _tasks_differ(experts):
        return set(modules)
    checkpoints = (base, *(expert.checkpoint for expert in experts))
    # One tensor that differs makes its whole module a head: `classifier.dense` goes with
    # `classifier.out_proj`, though its shape is the same everywhere.
    differ = {m for name, m in modules.items() if len({_shape(c, name) for c in checkpoints}) > 1}
    return {name for name, module in modules.items() if module in differ}


def _head_module(name: str) -> str | None:
    """`classifier` of `classifier.dense.weight`; None where a name is not like a head's."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return None  # inside a numbered block: a part of the encoder
        if part in HEAD_MODULES:
            return ".".join(parts[: index + 1])
    return None


def _shape(checkpoint: Checkpoint, name: str) -> tuple[int, ...] | None:
    return checkpoint.tensors[name].shape if name in checkpoint.tensors else None


def _tasks_differ(experts: Sequence[Expert]) -> bool:
    """Evidence that equal-shaped heads mean different things.

    Class names decide; `LABEL_0` and the like say nothing, and then the recipe's tasks decide.
    """
    labels = {expert.checkpoint.class_names for expert in experts}
    named = {names for names in labels if not all(GENERIC_LABEL.fullmatch(n) for n in names)}
    if named:
        return len(labels) > 1
    return len({expert.task for expert in experts if expert.task}) > 1


@dataclass(frozen=True)
class Mismatch:
    """One tensor in which an expert differs from its base; what a file lacks is an empty text."""

    expert: str
    tensor: str
    theirs: str
    ours: str
    sentence: str


def mismatches(
    base: Checkpoint, experts: Sequence[Expert], *, heads: Sequence[str] | None = None
) -> list[Mismatch]:
    """Every tensor that keeps an expert from fitting the base, from the files' headers alone."""
    names = head_names(base, experts, heads)
    return [found for expert in experts for found in _mismatches(base, expert, names)]


def _mismatches(base: Checkpoint, expert: Expert, heads: set[str]) -> Iterator[Mismatch]:
    checkpoint = expert.checkpoint
    path, home = checkpoint.path, base.path
    for name in sorted((base.tensors.keys() | checkpoint.tensors.keys()) - heads):
        ours, theirs = base.tensors.get(name), checkpoint.tensors.get(name)
        if ours is None:
            sentence = f"'{path}' has '{name}', which the base '{home}' lacks"
        elif theirs is None:
            sentence = f"'{path}' lacks '{name}' {list(ours.shape)} of the base"
        elif ours.shape != theirs.shape:
            sentence = (
                f"'{name}' has shape {list(theirs.shape)} in '{path}' "
                f"and {list(ours.shape)} in the base '{home}'"
            )
        elif ours.dtype.is_floating_point != theirs.dtype.is_floating_point:
            sentence = f"'{name}' is {theirs.dtype} in '{path}' and {ours.dtype} in '{home}'"
        else:
            continue
        yield Mismatch(expert.name, name, _described(theirs), _described(ours), sentence)


def _described(entry: TensorEntry | None) -> str:
    return f"{list(entry.shape)} {str(entry.dtype).removeprefix('torch.')}" if entry else ""


def _finite(checkpoint: Checkpoint) -> None:
    for name, entry in checkpoint.tensors.items():
        if not entry.dtype.is_floating_point:
            continue
        bad = int((~torch.isfinite(checkpoint.read(name))).sum())
        if bad:
            raise InputError(
                f"tensor '{name}' of '{checkpoint.path}'",
                expected="finite numbers",
                found=f"{bad} of {entry.elements} that are NaN or infinite",
                remedy="That checkpoint is damaged or its training diverged; use another one.",
            )


def _ties(base: Checkpoint, experts: Sequence[Expert], heads: set[str]) -> dict[str, str]:
    """Tensors whose bytes equal an earlier matrix in the base and in every expert.

    Constant tensors (freshly initialised norms, zeros) agree by accident and are not ties.
    """
    checkpoints = [base, *(expert.checkpoint for expert in experts)]
    first: dict[tuple[str, ...], str] = {}
    tied: dict[str, str] = {}
    shapes = [entry.shape for entry in base.tensors.values()]
    for name, entry in base.tensors.items():
        if name in heads or len(entry.shape) < 2 or shapes.count(entry.shape) < 2:
            continue
        key = tuple(checkpoint.digest(name) for checkpoint in checkpoints)
        if key in first and float(base.read(name).double().std()) > 0:
            tied[name] = first[key]
        else:
            first.setdefault(key, name)
    return tied
