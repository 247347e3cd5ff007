"""Which tensors are a task's head, and which are in one file and not in another for no reason of
the task: buffers, a tied matrix written twice, the other tower of a CLIP.

A head is never merged.  `classifier`, `score`, `qa_outputs` and the like are heads if they differ
by task: in shape, in the names of the classes, or in the recipe's tasks.  A `pooler` and what turns
features into words (`lm_head`, `vocab_projector`, …) is shared by its nature and a head only where
its shape differs or a checkpoint lacks it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..checkpoints import Weights
from ..errors import InputError
from ..names import is_buffer, is_table
from .expert import Expert

HEAD_MODULES = {
    "classifier", "classification_head", "score", "head", "heads", "qa_outputs", "cls", "fc",
    "fc_out", "lin_cls", "pre_classifier",
}  # fmt: skip
SHARED_HEADS = {"pooler", "lm_head", "vocab_transform", "vocab_layer_norm", "vocab_projector"}
GENERIC_LABEL = re.compile(r"LABEL_\d+")
# What a base has beyond an expert that is only a part of it, by both models' types.
BEYOND = {
    ("clip", "clip_vision_model"): re.compile(
        r"(text_model\.|text_projection\.|visual_projection\.|logit_scale$)"
    ),
    ("clip", "clip_text_model"): re.compile(
        r"(vision_model\.|visual_projection\.|text_projection\.|logit_scale$)"
    ),
}
PART_CLASSES = {"CLIPForImageClassification": "clip_vision_model"}  # its model_type is `clip`


@dataclass(frozen=True)
class Spare:
    """Tensors that need not be in every file.

    buffers   computed by the model, not trained
    copies    byte for byte another tensor of the same file, which every file has: name → that one
    beyond    of the base, in a part that some expert does not have
    """

    buffers: frozenset[str] = frozenset()
    copies: Mapping[str, str] = field(default_factory=dict)
    beyond: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """Names of all of them."""
        return self.buffers | self.copies.keys() | self.beyond


def spare(base: Weights, experts: Sequence[Expert]) -> Spare:
    """The spare tensors of a family; reads only such as may be copies of another one."""
    checkpoints = (base, *(expert.checkpoint for expert in experts))
    shapes = {n: entry.shape for c in checkpoints for n, entry in c.tensors.items()}
    buffers = frozenset(name for name, shape in shapes.items() if is_buffer(name, shape))
    partial = [n for n in shapes if any(n not in c.tensors for c in checkpoints)]
    everywhere = sorted(shapes.keys() - set(partial))
    copies = {
        name: target
        for name in partial
        if name not in buffers and (target := _copied(name, everywhere, checkpoints)) is not None
    }
    beyond: set[str] = set()
    notes = []
    for expert in experts:
        lacking = [n for n in _beyond(base, expert) if n not in expert.checkpoint.tensors]
        if lacking:
            beyond.update(lacking)
            notes.append(
                f"expert '{expert.name}' is a part of the base: {len(lacking)} tensors that it "
                f"lacks ({_modules(lacking)}) are copied from the base"
            )
    return Spare(buffers, copies, frozenset(beyond - copies.keys() - buffers), tuple(notes))


def _copied(name: str, everywhere: Sequence[str], checkpoints: Sequence[Weights]) -> str | None:
    """The embedding that `name` repeats, byte for byte, in every checkpoint that has it."""
    holders = [c for c in checkpoints if name in c.tensors]
    shape = holders[0].tensors[name].shape
    for target in everywhere:
        alike = len(shape) == 2 and is_table(target)
        if alike and all(
            c.tensors[name].shape == c.tensors[target].shape and c.digest(name) == c.digest(target)
            for c in holders
        ):
            return target
    return None


def _beyond(base: Weights, expert: Expert) -> list[str]:
    config = expert.checkpoint.config
    types = [config.get("model_type")]
    types += [PART_CLASSES.get(name) for name in config.get("architectures") or ()]
    for kind in types:
        pattern = BEYOND.get((str(base.config.get("model_type")), str(kind)))
        if pattern is not None:
            return [name for name in base.tensors if pattern.match(name)]
    return []


def _modules(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(name.partition(".")[0] for name in sorted(names)))


def head_names(
    base: Weights,
    experts: Sequence[Expert],
    patterns: Sequence[str] | None = None,
    spares: Spare | None = None,
) -> set[str]:
    """Names of all tensors that belong to a task's head; the experts are under the base's names.

    `patterns` (shell style) replace the recognition; they may name a tensor as the base does or as
    an expert does.
    """
    checkpoints = (base, *(expert.checkpoint for expert in experts))
    if patterns is not None:
        return _chosen(checkpoints, patterns)
    free = (spare(base, experts) if spares is None else spares).names
    everything = {name for c in checkpoints for name in c.tensors} - free
    modules = {name: found for name in everything if (found := _head_module(name))}
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


def _head_module(name: str) -> str | None:
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
