"""Which tensors are a task's head, by their names (`lone.py` has what no name tells).

A head is never merged.  `classifier`, `score`, `qa_outputs` and the like are heads if they differ
by task: in shape, in the names of the classes, or in the recipe's tasks.  A `pooler` and what turns
features into words (`lm_head`, `vocab_projector`, …) is shared by its nature and a head only where
its shape differs or a checkpoint lacks it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Sequence

from ..checkpoints import Weights
from ..errors import InputError
from .expert import Expert

HEAD_MODULES = {
    "classifier", "classification_head", "score", "head", "heads", "qa_outputs", "cls", "fc",
    "fc_out", "lin_cls", "pre_classifier",
}  # fmt: skip
SHARED_HEADS = {"pooler", "lm_head", "vocab_transform", "vocab_layer_norm", "vocab_projector"}
GENERIC_LABEL = re.compile(r"LABEL_\d+")


def head_names(
    base: Weights,
    experts: Sequence[Expert],
    patterns: Sequence[str] | None,
    free: Collection[str],
) -> set[str]:
    """Names of all tensors that belong to a task's head; the experts are under the base's names.

    `patterns` (shell style) replace the recognition; they may name a tensor as the base does or as
    an expert does.  `free`: tensors that need not be in every file, which are no heads.
    """
    checkpoints = (base, *(expert.checkpoint for expert in experts))
    if patterns is not None:
        return _chosen(checkpoints, patterns)
    everything = {name for c in checkpoints for name in c.tensors} - set(free)
    modules = {name: found for name in everything if (found := head_module(name))}
    # One tensor that differs makes its whole module a head: `classifier.dense` goes with
    # `classifier.out_proj`, though its shape is the same everywhere.
    differ = {m for name, m in modules.items() if len({_shape(c, name) for c in checkpoints}) > 1}
    if _tasks_differ(experts):
        differ |= {m for m in modules.values() if m.rpartition(".")[2] in HEAD_MODULES}
    return {name for name, module in modules.items() if module in differ}


def _chosen(checkpoints: Sequence[Weights], patterns: Sequence[str]) -> set[str]:
    spoken = {
        (name, said) for c in checkpoints for name in c.tensors for said in (name, c.own(name))
    }
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(said, pattern) for _, said in spoken):
            raise InputError(
                f"heads pattern '{pattern}'", expected="a match", found="no such tensor"
            )
    return {n for n, said in spoken if any(fnmatch.fnmatchcase(said, p) for p in patterns)}


def head_module(name: str) -> str | None:
    """`classifier` of `classifier.dense.weight`; None where a name is not like a head's."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if part.isdigit():
            return None  # inside a numbered block: a part of the encoder
        if part in HEAD_MODULES or part in SHARED_HEADS:
            return ".".join(parts[: index + 1])
    return None


def _shape(checkpoint: Weights, name: str) -> tuple[int, ...] | None:
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
