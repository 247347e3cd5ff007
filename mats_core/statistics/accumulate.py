"""Sums over examples and tokens, by the checkpoint's names: of batches, and of single examples."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from ..linear import WORTH
from ..names import module_of
from . import gram
from .capture import Alone, Capture
from .layers import Added, Layers, square_sum
from .settings import MeasureSettings
from .sketch import Sketch
from .store import OF_PARAMETERS

Sources = dict[object, tuple[Tensor, Tensor]]


class Accumulator:
    """Sums over examples and tokens, by the checkpoint's names.

    examples  so far
    gone      parameters and modules whose sums are wrong, by the checkpoint's names: left out
    """

    def __init__(self, layers: Layers, settings: MeasureSettings) -> None:
        self.layers, self.settings = layers, settings
        self.sums: dict[str, Tensor] = {}
        self.sketches: dict[str, Sketch] = {}
        self.tokens: dict[str, int] = defaultdict(int)
        self.examples = 0
        self.gone: set[str] = set()
        self._vectors = {vector.vector for vector in layers.vectors.values()}

    def batch(self, capture: Capture, trusted: set[str]) -> set[str]:
        """Add what the `trusted` layers saw in a batch.

        Returns those of them whose inputs in this batch had another form after all.
        """
        refused = {self.layers.of(owner) for owner in capture.left} & trusted
        # Query, key and value share one input: one Gram for three.  The input itself is kept with
        # it, because the address of a freed one could come back with other contents.
        sources: Sources = {}
        for name, owners in self.layers.used(capture).items():
            if name not in trusted or name in refused:
                continue
            try:
                added = self.layers.added(name, owners, capture)
            except (RuntimeError, ValueError, IndexError):
                refused.add(name)
            else:
                self._take(added, sources)
        return refused

    def copies(self, capture: Capture, trusted: set[str]) -> set[str]:
        """Add the gradients of `trusted` parameters that had a copy an example.

        Returns those of them that were used in another way in this batch.
        """
        for name, gradients in capture.copied().items():
            if name in trusted:
                self._squares(self.layers.names[name], gradients)
        return trusted & capture.copies.left

    def alone(self, one: Alone, gradients: Mapping[str, Tensor], tolerance: float) -> None:
        """Add one example: PyTorch's gradients by the model's names, and what layers saw of it.

        A layer whose input and output gradient do not give PyTorch's gradient of its weight is not
        the product that its Grams would say: they are left out.
        """
        names, sources = self.layers.names, Sources()
        for own, gradient in gradients.items():
            self._squares(names[own], gradient[None])
        for name, owners in self.layers.used(one).items():
            weight = self.layers.name(owners[0], "weight")
            if weight is None or weight in self.gone:
                continue
            own = self.layers.first[id(self.layers.modules[owners[0]].weight)]
            try:
                added = self.layers.added(name, owners, one)
            except (RuntimeError, ValueError, IndexError):
                self.gone.add(f"{module_of(weight)}.")
                continue
            if not added.grams or own not in gradients:
                continue
            if not agree(added.sums[weight], gradients[own] ** 2, tolerance, added.rounding):
                self.gone.add(f"{module_of(weight)}.")
            vectors = {n: g for n, g in added.squares.items() if n in self._vectors}
            self._take(replace(added, squares=vectors, sums={}), sources)

    def _take(self, added: Added, sources: Sources) -> None:
        for name, tokens in added.grams.items():
            self._gram(name, tokens, added.source if name.endswith(".input") else None, sources)
            if added.mean is not None and name.endswith(".input"):
                self._sum(f"{name}_mean", added.mean)
                self.tokens[module_of(name)] += added.tokens
        for name, value in added.sums.items():
            self._sum(f"{name}.fisher", value)
        for name, gradients in added.squares.items():
            self._squares(name, gradients)

    def _squares(self, parameter: str, gradients: Tensor) -> None:
        """Per-example gradients (examples, ...) of a parameter."""
        self._sum(f"{parameter}.fisher", square_sum(gradients))
        if gradients[0].numel() <= self.settings.blocks or parameter in self._vectors:
            rows = gradients.flatten(1)
            self._sum(f"{parameter}.block", rows.T @ rows)

    def _gram(self, name: str, tokens: Tensor, source: Tensor | None, sources: Sources) -> None:
        """Add tokens to a Gram, whose sum may be known, or to its sketch if it is large."""
        rank, size = self.settings.rank, tokens.shape[-1]
        if 0 < WORTH * rank <= size:
            self.sketches.setdefault(name, Sketch(rank)).add(tokens.reshape(-1, size))
        elif source is None:
            self._sum(f"{name}_gram", gram.gram_sum(tokens))
        else:
            # The whole layout is the key: a view such as hidden[:, 0] starts at the same address.
            key = (source.data_ptr(), tuple(source.shape), source.stride())
            if key not in sources:
                sources[key] = source, gram.gram_sum(tokens)
            self._sum(f"{name}_gram", sources[key][1])

    def _sum(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.clone()

    def means(self) -> dict[str, Tensor]:
        """The sums divided by N tokens (Grams, means) or by the examples (Fishers, blocks).

        In place, for the sums can be as large as the model: they are the means afterwards.
        """
        found = {
            name: value.div_(self.examples if _of_parameter(name) else self.tokens[module_of(name)])
            for name, value in self.sums.items()
            if self._kept(name)
        }
        for name in list(self.sketches):
            factor, rest = self.sketches.pop(name).close()  # freed one by one
            if self._kept(name):
                tokens = self.tokens[module_of(name)]
                found[f"{name}_factor"] = factor.div_(tokens**0.5)
                found[f"{name}_rest"] = factor.new_tensor(rest / tokens)
        return found

    def _kept(self, name: str) -> bool:
        """Whether a sum is of no parameter, and of the inputs of no layer, that is left out."""
        parameter, module = module_of(name), f"{module_of(name)}."
        if _of_parameter(name):
            return parameter not in self.gone
        return module not in self.gone and f"{module}weight" not in self.gone


def agree(found: Tensor, wanted: Tensor, tolerance: float, least: float = 0.0) -> bool:
    """Whether two sums are of one shape and differ by rounding: in norm by `tolerance`, relative.

    least  a norm that is rounding itself
    """
    if found.shape != wanted.shape:
        return False
    difference = float((found - wanted).norm())
    return difference <= tolerance * float(wanted.norm()) + least


def _of_parameter(name: str) -> bool:
    return name.rpartition(".")[2] in OF_PARAMETERS
