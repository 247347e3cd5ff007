"""An adapter over its base, read as the checkpoint that it stands for.

Nothing is copied: a tensor that the adapter changes is put together when it is read, in float32 (or
float64), and every other one is the base's.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from .. import models
from ..checkpoints import Entry, Weights, original
from ..errors import listing
from .changes import Change, LowRank, Replaced
from .config import architecture, model_folder
from .settings import Settings


@dataclass(frozen=True)
class Vector:
    """One (IA)³ vector l.

    key      its name in the adapter's file
    size     its length
    side     `output`: y = l ⊙ (W x + b);  `input`: y = W (l ⊙ x) + b
    scales   the tensors that it scales: name → axis
    """

    key: str
    size: int
    side: str
    scales: Mapping[str, int]


@final
@dataclass(frozen=True)
class Adapted(Weights):
    """A base with an adapter, under the base's names.

    `path` and `metadata` are the adapter's; `tensors` and `nbytes` are those of the whole model,
    which is what reading it costs.  The fingerprint is one of the contents of base and adapter.

    base      the checkpoint under the adapter
    source    the adapter's file alone
    settings  what `adapter_config.json` says
    changes   the base's name of each tensor that differs → what is done to it, in order
    vectors   (IA)³ only: `<module>.ia3_l` → the module's tensors that it scales
    """

    path: Path
    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]
    base: Weights
    source: Weights
    settings: Settings
    changes: Mapping[str, tuple[Change, ...]]
    vectors: Mapping[str, Vector]

    @functools.cached_property
    def directory(self) -> Path | None:
        """A folder with the configuration of the model that was trained, made on first use."""
        return model_folder(self.path, self.base, self.config)

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the model that was trained."""
        saved = [name for name, own in self.changes.items() if isinstance(own[0], Replaced)]
        return architecture(self.path, self.base, self.settings, self.tensors, saved)

    @property
    def form(self) -> str:
        """The kind of adapter in words, such as `LoRA, rank 8`."""
        if self.settings.kind == "ia3":
            return f"(IA)³, {len(self.vectors)} vectors"
        every = (change for changes in self.changes.values() for change in changes)
        factors = {change.a for change in every if isinstance(change, LowRank)}
        ranks = sorted({self.source.tensors[name].shape[0] for name in factors})
        shown = f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else "".join(map(str, ranks))
        return f"{'rsLoRA' if self.settings.rank_stabilised else 'LoRA'} of rank {shown or 0}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about how the adapter was put on its base, for the report."""
        return (*self._other_base(), *self._tied_embedding())

    def _other_base(self) -> tuple[str, ...]:
        said = self.settings.base_model
        own = {self.base.path.name, str(self.base.config.get("_name_or_path") or "")}
        last = Path(said).name.casefold()
        if not said or last in {Path(name).name.casefold() for name in own if name}:
            return ()
        return (
            f"adapter '{self.path}' says that it was trained on '{said}'; it is put on the base "
            f"given here, '{self.base.path}'. Only the names were compared",
        )

    def _tied_embedding(self) -> tuple[str, ...]:
        embeddings = [name for name, own in self.changes.items() if any(map(_embedding, own))]
        words = str((self.config.get("architectures") or [""])[0])
        speaks = any(part in words for part in ("LM", "ConditionalGeneration"))
        if not embeddings or not speaks or not models.ties_word_embeddings(self.base):
            return ()
        return (
            f"adapter '{self.path}' changes {listing(embeddings)}, to which the output layer is "
            "tied: the merge changes both, the adapter alone only the input",
        )

    def read(
        self,
        name: str,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        changes = self.changes.get(name)
        if not changes:
            return self.base.read(name, dtype=dtype, device=device)
        wanted = dtype or self.tensors[name].dtype
        work = torch.float64 if wanted == torch.float64 else torch.float32
        read = functools.partial(self.source.read, dtype=work, device=device)
        if isinstance(changes[0], Replaced):
            value, changes = read(changes[0].key), changes[1:]
        else:
            value = self.base.read(name, dtype=work, device=device)
        for change in changes:
            value = change.apply(value, read)
        return value.to(wanted)

    def rank_of(self, name: str) -> int | None:
        """The rank of what the adapter adds to a tensor, at most; 0 where it leaves it alone, None
        where it does something else than to add a product."""
        if len(self.tensors[name].shape) != 2:
            return None
        own = self.changes.get(name, ())
        if not all(isinstance(change, LowRank) for change in own):
            return None
        return sum(self.source.tensors[one.a].shape[0] for one in own if isinstance(one, LowRank))

    def factors_of(
        self, name: str, *, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the adapter adds to a tensor of `rank_of` as L (m, r) and R (r, n), in the layout of
        the file, with the root of the scaling in both."""
        rows, columns = self.tensors[name].shape
        read = functools.partial(self.source.read, dtype=dtype, device=device)
        empty = functools.partial(torch.empty, dtype=dtype, device=device)
        lefts, rights = [empty((rows, 0))], [empty((0, columns))]
        for change in self.changes.get(name, ()):
            assert isinstance(change, LowRank)
            left, right = change.factors(read)
            lefts.append(left)
            rights.append(right)
        return torch.cat(lefts, 1), torch.cat(rights)

    def reads_parts(self, name: str) -> bool:
        """Whether parts of a tensor can be read: not where the adapter changes it."""
        return not self.changes.get(name) and self.base.reads_parts(name)

    def fill(self, name: str, start: int, value: Tensor) -> None:
        self.base.fill(name, start, value)

    def finite(self, name: str) -> bool:
        return super().finite(name) if self.changes.get(name) else self.base.finite(name)

    def look_through(self) -> None:
        self.base.look_through()

    def require_unchanged(self) -> None:
        self.base.require_unchanged()
        self.source.require_unchanged()

    def digest(self, name: str) -> str:
        changes = self.changes.get(name)
        if not changes:
            return self.base.digest(name)
        first, last = changes[0], changes[-1]
        if isinstance(last, Replaced):
            return self.source.digest(last.key)
        total = hashlib.sha256()
        if not isinstance(first, Replaced):
            total.update(self.base.digest(name).encode())
        for change in changes:
            said = " ".join(map(repr, change.numbers))
            keys = "".join(map(self.source.digest, change.keys))
            total.update(f"{type(change).__name__}{said}{keys}".encode())
        return total.hexdigest()


def rank_of(weights: Weights, name: str) -> int | None:
    """`Adapted.rank_of` by the base's name of a tensor; None where an expert is no adapter."""
    source, own = original(weights), weights.own(name)
    return source.rank_of(own) if isinstance(source, Adapted) and own in source.tensors else None


def factors_of(
    weights: Weights, name: str, *, dtype: torch.dtype, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """`Adapted.factors_of` by the base's name of a tensor that has a rank (`rank_of`)."""
    source = original(weights)
    assert isinstance(source, Adapted)
    return source.factors_of(weights.own(name), dtype=dtype, device=device)


def _embedding(change: Change) -> bool:
    return isinstance(change, LowRank) and "lora_embedding_A" in change.a
