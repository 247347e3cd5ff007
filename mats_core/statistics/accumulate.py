"""Sums over examples and tokens of what hooks noted, by the checkpoint's names.

The mathematics lives in `gram.py`, `fisher.py` and `ia3.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..linear import WORTH
from ..names import module_of
from . import fisher, gram, ia3
from .capture import Capture, is_conv1d, is_rms_norm
from .settings import MeasureSettings
from .sketch import Sketch

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
        self.sums: dict[str, Tensor] = {}
        self.sketches: dict[str, Sketch] = {}
        self.tokens: dict[str, int] = defaultdict(int)
        self.examples = 0
        self.left: set[str] = set()  # layers that a batch could not be told of: left out for good
        self.gone: set[str] = set()  # their parameters, by the checkpoint's names

    def add(self, capture: Capture, masks: Sequence[Tensor]) -> None:
        """Add what `capture` noted in one batch; `masks` (examples, tokens) leave padding out, each
        of the layers with as many tokens."""
        self.examples += capture.examples
        self.left |= capture.left
        # Query, key and value share one input: one Gram for three.  The input itself is kept with
        # it, because the address of a freed one could come back with other contents.
        seen: dict[object, tuple[Tensor, Tensor]] = {}
        for name, owners in self._used(capture).items():
            uses = [use for owner in owners for use in capture.uses[owner]]
            module = self.modules[name]
            if self.left.intersection(owners):
                continue
            if len({type(self.modules[owner]) for owner in owners}) > 1:
                self._tied(name, owners, capture, masks)
            elif isinstance(module, nn.Linear) or is_conv1d(module):
                self._linear(name, uses, capture.examples, masks, seen)
            elif isinstance(module, nn.LayerNorm):
                x, g = _joined(uses, capture.examples, masks)
                weight = fisher.layer_norm_weight(x, g, module.eps)
                self._per_example(f"{name}.weight", weight)
                self._per_example(f"{name}.bias", fisher.bias(g))
            elif is_rms_norm(module):
                x, g = _joined(uses, capture.examples, masks)
                self._per_example(f"{name}.weight", fisher.rms_norm_weight(x, g, module))
            elif isinstance(module, nn.Embedding):
                self._embedding(name, module, uses, capture.examples)
            elif isinstance(module, nn.Conv2d) and fisher.unfolds(module):
                self._convolution(name, module, uses)
        for name, gradients in capture.copies.gradients().items():
            self._per_example(name, gradients)
        self._leave(capture)

    def _leave(self, capture: Capture) -> None:
        """Note the parameters of layers that this batch could not be told of."""
        first = {id(p): name for name, p in self.model.named_parameters()}
        left = set(capture.copies.left)
        for owner in capture.left:
            left |= {
                first[id(p)] for p in self.modules[owner]._parameters.values() if id(p) in first
            }
        for parameter in left & self.names.keys():
            self.gone.add(own := self.names[parameter])
            if own in self.vectors:
                self.gone.add(self.vectors[own].vector)

    def _kept(self, name: str) -> bool:
        """Whether a sum is of a parameter, or of the inputs of a layer, that no batch left out."""
        if name.endswith((".fisher", ".block")):
            return module_of(name) not in self.gone
        return f"{module_of(name)}.weight" not in self.gone

    def _used(self, capture: Capture) -> dict[str, list[str]]:
        """The modules that were used, those with one weight together under the first one's name."""
        first = {id(p): module_of(name) for name, p in self.model.named_parameters()}
        groups: dict[str, list[str]] = {}
        for name in capture.uses:
            weight = getattr(self.modules[name], "weight", None)
            groups.setdefault(first.get(id(weight), name), []).append(name)
        return groups

    def _linear(
        self,
        name: str,
        uses: list[tuple[Tensor, Tensor]],
        examples: int,
        masks: Sequence[Tensor],
        seen: dict[object, tuple[Tensor, Tensor]],
    ) -> None:
        layer = module_of(self.names.get(f"{name}.weight", ""))
        x, g = _joined(uses, examples, masks)
        if layer:
            source = uses[0][0] if len(uses) == 1 else x  # before padding was set to zero
            # The whole layout is the key: a view such as hidden[:, 0] starts at the same address.
            key = (source.data_ptr(), tuple(source.shape), source.stride())
            if self._sketched(x.shape[-1]):
                self._sketch(f"{layer}.input", x)
            else:
                if key not in seen:
                    seen[key] = source, gram.gram_sum(x)
                self._sum(f"{layer}.input_gram", seen[key][1])
            self._sum(f"{layer}.input_mean", x.sum((0, 1)))
            if g.shape[-1] <= GRAM_MOST:
                if self._sketched(g.shape[-1]):
                    self._sketch(f"{layer}.output_gradient", g)
                else:
                    self._sum(f"{layer}.output_gradient_gram", gram.gram_sum(g))
            self.tokens[layer] += sum(
                gram.token_count(gram.tokens_of(used, examples), _mask(used, examples, masks))
                for used, _ in uses
            )
            square = fisher.linear_weight_square_sum(x, g)
            # The Fisher has the parameter's own layout, which Conv1D stores as (d_in, d_out).
            own = square.T if is_conv1d(self.modules[name]) else square
            self._sum(f"{layer}.weight.fisher", own)
            vector = self.vectors.get(f"{layer}.weight")
            if vector is not None:
                self._squares(vector.vector, ia3.vector_gradients(x, g, vector), block=True)
        self._per_example(f"{name}.bias", fisher.bias(g))

    def _tied(
        self, name: str, owners: list[str], capture: Capture, masks: Sequence[Tensor]
    ) -> None:
        """An embedding that is also the output's weight: only its Fisher, of both uses at once."""
        examples = capture.examples
        ids, into, x, out = [], [], [], []
        for owner in owners:
            module = self.modules[owner]
            if isinstance(module, nn.Embedding):
                for used, g in capture.uses[owner]:
                    ids.append(used.reshape(examples, -1))
                    into.append(gram.tokens_of(g, examples))
            elif isinstance(module, nn.Linear):
                seen, g = _joined(capture.uses[owner], examples, masks)
                x.append(seen)
                out.append(g)
                self._per_example(f"{owner}.bias", fisher.bias(g))
        parameter = self.names.get(f"{name}.weight")
        if parameter is not None:
            parts = (torch.cat(part, 1) for part in (ids, into, x, out))
            self._sum(f"{parameter}.fisher", fisher.tied_square_sum(*parts))

    def _embedding(
        self, name: str, module: nn.Embedding, uses: list[tuple[Tensor, Tensor]], examples: int
    ) -> None:
        parameter = self.names.get(f"{name}.weight")
        if parameter is None:
            return
        ids = torch.cat([used.reshape(examples, -1) for used, _ in uses], 1)
        g = torch.cat([gram.tokens_of(gradient, examples) for _, gradient in uses], 1)
        self._sum(f"{parameter}.fisher", fisher.embedding_square_sum(ids, g, module.num_embeddings))

    def _convolution(self, name: str, module: nn.Conv2d, uses: list[tuple[Tensor, Tensor]]) -> None:
        x = torch.cat([fisher.convolution_patches(used, module) for used, _ in uses], 1)
        g = torch.cat([gradient.flatten(2).transpose(1, 2) for _, gradient in uses], 1)
        parameter = self.names.get(f"{name}.weight")
        if parameter is not None:
            square = fisher.linear_weight_square_sum(x, g)
            self._sum(f"{parameter}.fisher", square.reshape(module.weight.shape))
        self._per_example(f"{name}.bias", fisher.bias(g))

    def _per_example(self, name: str, gradients: Tensor) -> None:
        parameter = self.names.get(name)
        if parameter is None:
            return
        self._squares(parameter, gradients, block=gradients[0].numel() <= self.settings.blocks)

    def _squares(self, parameter: str, gradients: Tensor, *, block: bool) -> None:
        square = (gradients**2).sum(0)
        # An expanded parameter keeps its leading 1.
        self._sum(f"{parameter}.fisher", square[None] if gradients.ndim > 2 else square)
        if block:
            rows = gradients.flatten(1)
            self._sum(f"{parameter}.block", rows.T @ rows)

    def _sketched(self, size: int) -> bool:
        return 0 < WORTH * self.settings.rank <= size

    def _sketch(self, name: str, tokens: Tensor) -> None:
        sketch = self.sketches.setdefault(name, Sketch(self.settings.rank))
        sketch.add(tokens.reshape(-1, tokens.shape[-1]))

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
            name: value.div_(
                self.examples
                if name.endswith((".fisher", ".block"))
                else self.tokens[module_of(name)]
            )
            for name, value in self.sums.items()
            if self._kept(name)
        }
        for name in list(self.sketches):
            factor, rest = self.sketches.pop(name).close()  # freed one by one
            if not self._kept(name):
                continue
            tokens = self.tokens[module_of(name)]
            found[f"{name}_factor"] = factor.div_(tokens**0.5)
            found[f"{name}_rest"] = factor.new_tensor(rest / tokens)
        return found


def _joined(
    uses: list[tuple[Tensor, Tensor]], examples: int, masks: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients of all uses of one layer, side by side along the tokens."""
    x = [gram.tokens_of(used, examples, _mask(used, examples, masks)) for used, _ in uses]
    g = [gram.tokens_of(given, examples, _mask(given, examples, masks)) for _, given in uses]
    return (x[0], g[0]) if len(uses) == 1 else (torch.cat(x, 1), torch.cat(g, 1))


def _mask(values: Tensor, examples: int, masks: Sequence[Tensor]) -> Tensor | None:
    """The mask with as many tokens as the values (examples, ..., d) have, if there is one."""
    tokens = values.numel() // (examples * values.shape[-1])
    return next((mask for mask in masks if mask.shape[1] == tokens), None)
