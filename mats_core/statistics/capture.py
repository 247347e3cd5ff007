"""Hooks that note what every layer of a model saw; all is restored on exit."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import gram
from .copies import Copies

Uses = list[tuple[Tensor, Tensor]]  # input and output gradient of each call of a layer


def is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, `y = x W + b`; by name, for transformers takes seconds to import."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def is_rms_norm(module: nn.Module) -> bool:
    """`y = w ⊙ x / √(mean x² + ε)`, which every family of decoders defines for itself."""
    name = type(module).__name__
    return (name.endswith("RMSNorm") or name == "T5LayerNorm") and hasattr(module, "weight")


def is_embedding(name: str, module: nn.Module) -> bool:
    """A table of rows, one for each token or place of each example.

    Not those that compute their indices themselves, nor biases of relative positions, which all
    examples of a batch share before they are added to the attention.
    """
    own = isinstance(module, nn.Embedding) and _forward_is(module, nn.Embedding.forward)
    return own and "relative" not in name.rpartition(".")[2]


PLAIN = (nn.Linear, nn.LayerNorm, nn.Conv2d)


def is_plain(module: nn.Module) -> bool:
    """A linear layer, LayerNorm over the last dimension or convolution that computes as PyTorch's.

    Not a subclass with a forward of its own: it standardises its weight, norms the channels, ….
    """
    kind = next((kind for kind in PLAIN if isinstance(module, kind)), None)
    if kind is None or not _forward_is(module, kind.forward):
        return False
    if isinstance(module, nn.Conv2d):
        return type(module)._conv_forward is nn.Conv2d._conv_forward
    return not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) == 1


def _forward_is(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether it is a module's own; accelerate's hooks keep it as `_old_forward`."""
    replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
    return type(module).forward is forward and not replaced


def handled(name: str, module: nn.Module) -> bool:
    """Whether statistics of a module can be computed from what it saw."""
    return (
        is_plain(module) or is_conv1d(module) or is_rms_norm(module) or is_embedding(name, module)
    )


def eager(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """A context in which compiled parts of a model run as they were before, so that hooks do."""
    compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    # Only where it is needed, for the compiler takes seconds to import.
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()


class Capture:
    """While active, notes the input and the output gradient of every layer of a model.

    Parameters do not require gradients meanwhile: their own are never formed; what is needed is
    computed per example from what was noted.  A parameter of shape (1, ...) that a module holds
    itself, such as a class token, is one copy an example where it is added to the batch or put
    beside it (`copies.py`).  All is restored on exit.

    examples  their number in the batch
    masks     (examples, tokens) each: which tokens of the layers with as many are no padding
    uses      layer → inputs and output gradients of each of its calls
    copies    the parameters that have a copy an example
    left      layers whose statistics would be wrong: rows of another number than the examples'
    """

    def __init__(self, model: nn.Module, examples: int, masks: Sequence[Tensor]) -> None:
        self.model, self.examples, self.masks = model, examples, masks
        self.uses: dict[str, Uses] = defaultdict(list)
        self.copies = Copies(examples)
        self.left: set[str] = set()

    def __enter__(self) -> Capture:
        with contextlib.ExitStack() as undo:
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    undo.callback(parameter.requires_grad_, True)
                    parameter.requires_grad_(False)
            own, shared = {}, set()
            for name, module in self.model.named_modules():
                if handled(name, module):
                    hook = module.register_forward_hook(self._note(name), with_kwargs=True)
                    undo.callback(hook.remove)
                    shared |= {id(value) for value in module._parameters.values()}
                else:
                    own |= {id(value): value for value in module._parameters.values()}
            for name, value in self.model.named_parameters():
                if id(value) in own and id(value) not in shared:
                    self.copies.follow(name, value)
            undo.enter_context(self.copies)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def joined(self, uses: Uses) -> tuple[Tensor, Tensor]:
        """Inputs and output gradients of uses of one layer, (examples, tokens, d) each, side by
        side along the tokens; padding is zero."""
        x = [gram.tokens_of(used, self.examples, self._mask(used)) for used, _ in uses]
        g = [gram.tokens_of(given, self.examples, self._mask(given)) for _, given in uses]
        return (x[0], g[0]) if len(uses) == 1 else (torch.cat(x, 1), torch.cat(g, 1))

    def tokens(self, uses: Uses) -> int:
        """N: the number of real tokens in the inputs of uses of one layer."""
        return sum(
            gram.token_count(gram.tokens_of(used, self.examples), self._mask(used))
            for used, _ in uses
        )

    def _mask(self, values: Tensor) -> Tensor | None:
        """The mask with as many tokens as the values (examples, ..., d) have, if there is one."""
        tokens = values.numel() // (self.examples * values.shape[-1])
        return next((mask for mask in self.masks if mask.shape[1] == tokens), None)

    def _note(self, name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: Any, keywords: Any, output: Tensor) -> Tensor:
            seen = next(iter((*inputs, *keywords.values()))).detach()
            shared = isinstance(module, nn.Embedding) and len(output) == 1 < self.examples
            if not (shared and seen.ndim > 1) and not _batched(module, seen, self.examples):
                self.left.add(name)
                return output
            if shared:
                # Position ids are shared by the batch; a copy an example has its own gradient.
                output = output.detach().expand(self.examples, *output.shape[1:]).clone()
                seen = seen.expand(self.examples, *seen.shape[1:])
            if not output.requires_grad:  # the first layers: nothing before them needs a gradient
                output = output.requires_grad_().clone()  # a leaf could not be changed in place
            output.register_hook(lambda g: self.uses[name].append((seen, g.detach())))
            return output

        return hook


def _batched(module: nn.Module, seen: Tensor, examples: int) -> bool:
    """Whether the rows of a layer's input are the examples, or as many rows of each in turn."""
    if isinstance(module, nn.Conv2d):
        return seen.ndim == 4 and len(seen) == examples
    if isinstance(module, nn.Embedding):
        places = torch.arange(examples, device=seen.device)  # a table of places, not of examples
        own = seen.ndim > 1 or examples == 1 or not torch.equal(seen.to(places.dtype), places)
        return own and seen.ndim > 0 and examples in (1, len(seen))
    return seen.ndim > 1 and len(seen) > 0 and len(seen) % examples == 0
