"""Why an expert does not fit its base: every tensor that differs, and in words what kind it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..checkpoints import Entry, Weights
from ..errors import InputError, listing
from ..names import group_of, is_table
from .apart import Apart
from .expert import Expert
from .lone import modules
from .renaming import numbered
from .vocabulary import difference

SHOWN = 4  # examples
FROM_THIS_BASE = "Every expert must be fine-tuned from this base."


@dataclass(frozen=True)
class Mismatch:
    """One tensor in which an expert differs from its base; what a file lacks is an empty text."""

    expert: str
    tensor: str
    theirs: str
    ours: str
    sentence: str


def mismatches(apart: Apart, expert: Expert) -> Iterator[Mismatch]:
    """Every tensor that keeps an expert from fitting the base, from the files' headers."""
    base, checkpoint = apart.base, expert.checkpoint
    path, home = checkpoint.path, base.path
    names = (base.tensors.keys() | checkpoint.tensors.keys()) - apart.names
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
    if not is_table(name) or len(ours) < 2 or ours[1:] != theirs[1:]:
        return ""
    found = difference(base, checkpoint)
    if found:
        return f" ({found}; nothing is cropped: give all models one vocabulary first)"
    return " (their tokenizer files name the same tokens, or are missing)"


def _described(entry: Entry | None) -> str:
    return f"{list(entry.shape)} {str(entry.dtype).removeprefix('torch.')}" if entry else ""


def refuse(apart: Apart) -> None:
    """Raise `InputError` where an expert does not fit the base, with the kind of misfit."""
    found = {expert.name: [*mismatches(apart, expert)] for expert in apart.experts}
    problems = [problem for own in found.values() for problem in own]
    if not problems:
        return
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    expert = next(expert for expert in apart.experts if found[expert.name])
    what, remedy = diagnosis(apart.base, expert, found[expert.name])
    raise InputError(
        f"the experts do not all fit the base: {what}",
        found="; ".join(problem.sentence for problem in problems[:SHOWN]) + more,
        remedy=remedy,
    )


# What kind it is ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Sides:
    """One expert's misfits: what it lacks, what it has beside, and what has another shape."""

    base: Weights
    expert: Expert
    lacking: Sequence[Mismatch]
    more: Sequence[Mismatch]
    reshaped: Sequence[Mismatch]

    @property
    def shared(self) -> int:
        """How many names both have."""
        return len(self.base.tensors.keys() & self.expert.checkpoint.tensors.keys())


def diagnosis(base: Weights, expert: Expert, problems: Sequence[Mismatch]) -> tuple[str, str]:
    """What kind of misfit an expert's is, in words, and what to do about it."""
    sides = _Sides(
        base,
        expert,
        [one for one in problems if not one.theirs],
        [one for one in problems if not one.ours],
        [one for one in problems if one.ours and one.theirs],
    )
    kinds: Sequence[Callable[[_Sides], tuple[str, str] | None]] = (
        _types, _numbers, _vocabulary, _depth, _size, _naming, _parts, _inside, _head,
    )  # fmt: skip
    answers = (kind(sides) for kind in kinds)
    return next((answer for answer in answers if answer), ("", FROM_THIS_BASE))


def _vocabulary(sides: _Sides) -> tuple[str, str] | None:
    rows = [one for one in sides.reshaped if is_table(one.tensor) and _only_rows(sides, one)]
    if not rows or len(rows) < len(sides.reshaped):
        return None
    return (
        f"expert '{sides.expert.name}' has another vocabulary, or other positions",
        f"{FROM_THIS_BASE} Resize all embeddings to one vocabulary first, and save again.",
    )


def _only_rows(sides: _Sides, one: Mismatch) -> bool:
    ours = sides.base.tensors[one.tensor].shape
    theirs = sides.expert.checkpoint.tensors[one.tensor].shape
    return ours[1:] == theirs[1:]


def _depth(sides: _Sides) -> tuple[str, str] | None:
    """Blocks of one side that are like others that both have: more layers, or fewer."""
    shared = {group_of(n) for n in sides.base.tensors if n in sides.expert.checkpoint.tensors}
    for these, whose in ((sides.lacking, "fewer"), (sides.more, "more")):
        beyond = [one for one in these if numbered(one.tensor) and group_of(one.tensor) in shared]
        other = sides.more if whose == "fewer" else sides.lacking
        if beyond and len(beyond) == len([one for one in these if numbered(one.tensor)]):
            if any(numbered(one.tensor) for one in other):
                continue
            ours, theirs = _blocks(sides.base), _blocks(sides.expert.checkpoint)
            if ours == theirs:
                continue
            return (
                f"expert '{sides.expert.name}' has another number of layers, {theirs} where the "
                f"base has {ours}",
                f"{FROM_THIS_BASE} Look for the base of the same size.",
            )
    return None


def _blocks(weights: Weights) -> int:
    """The most blocks that are counted by one number in the names."""
    counted: dict[str, set[str]] = {}
    for name in weights.tensors:
        found = re.search(r"(^|\.)(\d+)\.", name)
        if found and numbered(name):
            counted.setdefault(name[: found.start(2)], set()).add(found[2])
    return max(map(len, counted.values()), default=0)


def _size(sides: _Sides) -> tuple[str, str] | None:
    if len(sides.reshaped) < max(2, sides.shared // 4):
        return None
    return (
        f"expert '{sides.expert.name}' is a model of another size",
        f"{FROM_THIS_BASE} Look for the base of the same size.",
    )


def _naming(sides: _Sides) -> tuple[str, str] | None:
    """Tensors in blocks of both sides that would be one another's by shape, under other names."""
    lacking = {(_last(one), one.ours): one for one in sides.lacking if numbered(one.tensor)}
    pairs = [
        (one, lacking[_last(one), one.theirs])
        for one in sides.more
        if numbered(one.tensor) and (_last(one), one.theirs) in lacking
    ]
    if 2 * len(pairs) < len(sides.more) or not pairs:
        return None
    more, less = pairs[0]
    return (
        f"expert '{sides.expert.name}' has other names for its tensors, by another version of "
        f"transformers or another class: '{sides.expert.own(more.tensor)}' where the base has such "
        f"as '{less.tensor}'",
        "If they are one model, load the expert and the base with one version of transformers and "
        f"one class, and save both. {FROM_THIS_BASE}",
    )


def _last(one: Mismatch) -> str:
    return one.tensor.rpartition(".")[2]


def _types(sides: _Sides) -> tuple[str, str] | None:
    """What the configurations call themselves, where they are not of one kind."""
    theirs, ours = (
        str(weights.config.get("model_type") or "")
        for weights in (sides.expert.checkpoint, sides.base)
    )
    if not ours or not theirs or ours == theirs:
        return None
    return (
        f"expert '{sides.expert.name}' is of another architecture, {theirs} where the base is "
        f"{ours}",
        FROM_THIS_BASE,
    )


def _numbers(sides: _Sides) -> tuple[str, str] | None:
    kinds = {one.theirs.rpartition(" ")[2] for one in sides.reshaped if not _reshaped(one)}
    if not kinds or len(sides.reshaped) < len([*sides.lacking, *sides.more]):
        return None
    return (
        f"expert '{sides.expert.name}' holds numbers of another kind ({listing(sorted(kinds))})",
        "If it is quantised, dequantise it first and save it again.",
    )


def _reshaped(one: Mismatch) -> bool:
    return one.ours.rpartition(" ")[0] != one.theirs.rpartition(" ")[0]


def _parts(sides: _Sides) -> tuple[str, str] | None:
    """More that does not agree than does: models of two kinds, or a part of one."""
    apart = [*sides.lacking, *sides.more]
    if sides.shared > len(apart) or not any(numbered(one.tensor) for one in apart):
        return None
    return (
        f"expert '{sides.expert.name}' is of another architecture, or only a part of the model",
        FROM_THIS_BASE,
    )


def _inside(sides: _Sides) -> tuple[str, str] | None:
    """Something inside of blocks that the other side's blocks have not."""
    apart = [*sides.lacking, *sides.more]
    if sides.reshaped or not all(numbered(one.tensor) for one in apart):
        return None
    if sides.more:
        return (
            f"expert '{sides.expert.name}' has more inside its blocks than the base, such as the "
            "layers of an adapter, or those of another class of model",
            f"{FROM_THIS_BASE} Merge an adapter into its model first, with the tool that made it.",
        )
    return (
        f"expert '{sides.expert.name}' lacks what the base has inside its blocks",
        f"Was it saved whole? If these are a relic that no model reads any more, name them in the "
        f"recipe's 'heads' list. {FROM_THIS_BASE}",
    )


def _head(sides: _Sides) -> tuple[str, str] | None:
    names = [one.tensor for one in (*sides.lacking, *sides.more, *sides.reshaped)]
    everything = sides.base.tensors.keys() | sides.expert.checkpoint.tensors.keys()
    where = modules(names, everything)
    free = [name for name in names if not numbered(name) and not is_table(name)]
    patterns = [f"'{name}.*'" for name in modules(free, everything).split(", ") if name]
    such = f", such as heads: [{listing(patterns, 2)}]" if patterns else ""
    return (
        f"expert '{sides.expert.name}' and the base differ in {where}",
        f"{FROM_THIS_BASE} If a tensor belongs to a task's head, name it in the recipe's 'heads' "
        f"list{such}.",
    )
