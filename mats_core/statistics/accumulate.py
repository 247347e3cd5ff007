"""Sums over examples and tokens of what hooks noted, by the checkpoint's names.

The mathematics lives in `gram.py`, `fisher.py` and `ia3.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ..linear import WORTH
from ..names import module_of
from . import fisher, gram, ia3
from .capture import Capture, Uses, is_conv1d, is_rms_norm
from .settings import MeasureSettings
from .sketch import Sketch
from .store import OF_PARAMETERS

GRAM_MOST = 16_384  # numbers of an output: a vocabulary gets no output-gradient Gram


class Accumulator:
    """Sums over examples and tokens, by the checkpoint's names."""

    def __init__(
        self,
        model: nn.Module,
        names: Mapping[str, str],
        settings: MeasureSettings,
        vectors: Mapping[str, ia3.Rescaled] | None,
    ) -> None:
        self.model, self.modules = model, dict(model.named_modules())
        self.names, self.settings, self.vectors = names, settings, vectors or {}
        self.first = {id(p): name for name, p in model.named_parameters()}
        self.sums: dict[str, Tensor] = {}
        self.sketches: dict[str, Sketch] = {}
        self.tokens: dict[str, int] = defaultdict(int)
        self.examples = 0
        self.left: set[str] = set()  # layers that a batch could not be told of: left out for good
        self.gone: set[str] = set()  # their parameters, by the checkpoint's names

    def add(self, capture: Capture) -> None:
        """Add what `capture` noted in one batch."""
        self.examples += capture.examples
        self.left |= capture.left
        # Query, key and value share one input: one Gram for three.  The input itself is kept with
        # it, because the address of a freed one could come back with other contents.
        seen: dict[object, tuple[Tensor, Tensor]] = {}
        for name, owners in self._used(capture).items():
            uses = [use for owner in owners for use in capture.uses[owner]]
            module, parameter = self.modules[name], self.names.get(f"{name}.weight")
            if self.left.intersection(owners):
                continue
            if len({type(self.modules[owner]) for owner in owners}) > 1:
                self._tied(parameter, owners, capture)
            elif isinstance(module, nn.Linear) or is_conv1d(module):
                self._linear(name, uses, capture, seen)
            elif isinstance(module, nn.LayerNorm):
                x, g = capture.joined(uses)
                weight = fisher.layer_norm_weight(x, g, module.eps)
                self._per_example(f"{name}.weight", weight)
                self._per_example(f"{name}.bias", fisher.bias(g))
            elif is_rms_norm(module):
                x, g = capture.joined(uses)
                self._per_example(f"{name}.weight", fisher.rms_norm_weight(x, g, module))
            elif isinstance(module, nn.Embedding) and parameter is not None:
                ids = torch.cat([used.reshape(capture.examples, -1) for used, _ in uses], 1)
                g = torch.cat([gram.tokens_of(given, capture.examples) for _, given in uses], 1)
                square = fisher.embedding_square_sum(ids, g, module.num_embeddings)
                self._sum(f"{parameter}.fisher", square)
            elif isinstance(module, nn.Conv2d) and fisher.unfolds(module):
                x = torch.cat([fisher.convolution_patches(used, module) for used, _ in uses], 1)
                g = torch.cat([given.flatten(2).transpose(1, 2) for _, given in uses], 1)
                if parameter is not None:
                    square = fisher.linear_weight_square_sum(x, g)
                    self._sum(f"{parameter}.fisher", square.reshape(module.weight.shape))
                self._per_example(f"{name}.bias", fisher.bias(g))
        for name, gradients in capture.copies.gradients().items():
            self._per_example(name, gradients)
        self._leave(capture)

    def _leave(self, capture: Capture) -> None:
        """Note the parameters of layers that this batch could not be told of."""
        left = set(capture.copies.left)
        for owner in capture.left:
            parameters = self.modules[owner]._parameters.values()
            left |= {self.first[id(p)] for p in parameters if id(p) in self.first}
        for parameter in left & self.names.keys():
            self.gone.add(own := self.names[parameter])
            if own in self.vectors:
                self.gone.add(self.vectors[own].vector)

    def _used(self, capture: Capture) -> dict[str, list[str]]:
        """The modules that were used, those with one weight together under the first one's name."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name in capture.uses:
            weight = getattr(self.modules[name], "weight", None)
            first = self.first.get(id(weight))
            groups[name if first is None else module_of(first)].append(name)
        return groups

    def _linear(
        self, name: str, uses: Uses, capture: Capture, seen: dict[object, tuple[Tensor, Tensor]]
    ) -> None:
        layer = module_of(self.names.get(f"{name}.weight", ""))
        x, g = capture.joined(uses)
        if layer:
            source = uses[0][0] if len(uses) == 1 else x  # before padding was set to zero
            # The whole layout is the key: a view such as hidden[:, 0] starts at the same address.
            key = (source.data_ptr(), tuple(source.shape), source.stride())

            def shared(tokens: Tensor) -> Tensor:
                if key not in seen:
                    seen[key] = source, gram.gram_sum(tokens)
                return seen[key][1]

            self._gram(f"{layer}.input", x, shared)
            self._sum(f"{layer}.input_mean", x.sum((0, 1)))
            if g.shape[-1] <= GRAM_MOST:
                self._gram(f"{layer}.output_gradient", g, gram.gram_sum)
            self.tokens[layer] += capture.tokens(uses)
            square = fisher.linear_weight_square_sum(x, g)
            # The Fisher has the parameter's own layout, which Conv1D stores as (d_in, d_out).
            own = square.T if is_conv1d(self.modules[name]) else square
            self._sum(f"{layer}.weight.fisher", own)
            vector = self.vectors.get(f"{layer}.weight")
            if vector is not None:
                self._squares(vector.vector, ia3.vector_gradients(x, g, vector), block=True)
        self._per_example(f"{name}.bias", fisher.bias(g))

    def _tied(self, parameter: str | None, owners: list[str], capture: Capture) -> None:
        """An embedding that is also the output's weight: only its Fisher, of both uses at once."""
        ids, into, x, out = [], [], [], []
        for owner in owners:
            if isinstance(self.modules[owner], nn.Embedding):
                for used, g in capture.uses[owner]:
                    ids.append(used.reshape(capture.examples, -1))
                    into.append(gram.tokens_of(g, capture.examples))
            elif isinstance(self.modules[owner], nn.Linear):
                seen, g = capture.joined(capture.uses[owner])
                x.append(seen)
                out.append(g)
                self._per_example(f"{owner}.bias", fisher.bias(g))
        if parameter is not None:
            parts = (torch.cat(part, 1) for part in (ids, into, x, out))
            self._sum(f"{parameter}.fisher", fisher.tied_square_sum(*parts))

    def _per_example(self, name: str, gradients: Tensor) -> None:
        if name in self.names:
            block = gradients[0].numel() <= self.settings.blocks
            self._squares(self.names[name], gradients, block=block)

    def _squares(self, parameter: str, gradients: Tensor, *, block: bool) -> None:
        square = (gradients**2).sum(0)
        # An expanded parameter keeps its leading 1.
        self._sum(f"{parameter}.fisher", square[None] if gradients.ndim > 2 else square)
        if block:
            rows = gradients.flatten(1)
            self._sum(f"{parameter}.block", rows.T @ rows)

    def _gram(self, name: str, tokens: Tensor, total: Callable[[Tensor], Tensor]) -> None:
        """Add tokens to a Gram, whose sum is their `total`, or to its sketch if it is large."""
        rank, size = self.settings.rank, tokens.shape[-1]
        if 0 < WORTH * rank <= size:
            self.sketches.setdefault(name, Sketch(rank)).add(tokens.reshape(-1, size))
        else:
            self._sum(f"{name}_gram", total(tokens))

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
        """Whether a sum is of a parameter, or of the inputs of a layer, that no batch left out."""
        parameter = module_of(name) if _of_parameter(name) else f"{module_of(name)}.weight"
        return parameter not in self.gone


def _of_parameter(name: str) -> bool:
    return name.rpartition(".")[2] in OF_PARAMETERS
