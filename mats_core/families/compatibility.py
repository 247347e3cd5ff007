"""How well each expert fits the base, from headers and configurations: a row for each expert.

`families.examine` refuses a family that does not fit; these rows can be shown before, or after a
refusal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..checkpoints import Weights
from .anatomy import Ask, unknown
from .apart import Apart, set_apart
from .expert import Expert
from .misfit import Mismatch, mismatches

# What must be the same in `config.json` for the same numbers to mean the same thing.
ARCHITECTURE = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "hidden_act", "vocab_size", "image_size", "patch_size", "num_channels",
    "max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """The differences between one expert and the base, counted.

    expert         its name
    architecture   class that its `config.json` names
    dtype          the kind of number that most of its tensors hold
    classes        number of classes of its head; 0 where unknown
    matching   tensors with the same name and shape in both
    missing    tensors of the base that the expert lacks
    surplus    tensors of the expert that the base lacks
    reshaped   tensors with another shape or kind of number
    head       tensors that belong to the task's head, kept apart
    settings   keys of `config.json` that differ: (key, the expert's, the base's)
    mismatches     the tensors that keep it from fitting
    """

    expert: str
    architecture: str
    dtype: str
    classes: int
    matching: int
    missing: int
    surplus: int
    reshaped: int
    head: int
    settings: tuple[tuple[str, str, str], ...]
    mismatches: tuple[Mismatch, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing keeps the expert from being merged with the base."""
        return not self.mismatches


def compare(
    base: Weights,
    experts: Sequence[Expert],
    *,
    heads: Sequence[str] | None = None,
    anatomy: Ask = unknown,
) -> list[Fit]:
    """A `Fit` for each expert, under the base's names; `anatomy` as in `examine`.

    Reads headers and `config.json`, and tensors only where one file has a copy of its embedding
    that another file has not.
    """
    apart = set_apart(base, experts, heads, anatomy)
    return [_fit(apart, expert, [*mismatches(apart, expert)]) for expert in apart.experts]


def _fit(apart: Apart, expert: Expert, found: list[Mismatch]) -> Fit:
    base, own = apart.base, expert.checkpoint
    shared = (base.tensors.keys() & own.tensors.keys()) - apart.heads
    return Fit(
        expert=expert.name,
        architecture=architecture(own),
        dtype=dtypes(own),
        classes=len(own.class_names),
        matching=len(shared - {mismatch.tensor for mismatch in found}),
        missing=sum(not mismatch.theirs for mismatch in found),
        surplus=sum(not mismatch.ours for mismatch in found),
        reshaped=sum(bool(mismatch.theirs and mismatch.ours) for mismatch in found),
        head=len(apart.heads & own.tensors.keys()),
        settings=_settings(base, own),
        mismatches=tuple(found),
    )


def architecture(checkpoint: Weights) -> str:
    """The class that `config.json` names, with its adapter if it has one; empty for a bare file."""
    names = checkpoint.config.get("architectures") or [checkpoint.config.get("model_type", "")]
    return ", ".join(part for part in (str(names[0]), checkpoint.form) if part)


def dtypes(checkpoint: Weights) -> str:
    """The dtype that most tensors have, and whether others occur, in words."""
    counts = Counter(str(e.dtype).removeprefix("torch.") for e in checkpoint.tensors.values())
    most = counts.most_common(1)[0][0] if counts else ""
    return f"{most} and others" if len(counts) > 1 else most


def _settings(base: Weights, own: Weights) -> tuple[tuple[str, str, str], ...]:
    if not base.config or not own.config:
        return ()
    pairs = ((key, own.config.get(key), base.config.get(key)) for key in ARCHITECTURE)
    return tuple((key, str(theirs), str(ours)) for key, theirs, ours in pairs if theirs != ours)
