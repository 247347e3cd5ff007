"""Hooks that note what every layer of a model saw; all is restored on exit."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .copies import Copies


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

    uses    layer → inputs and output gradients of each of its calls
    copies  the parameters that have a copy an example
    left    layers whose statistics would be wrong: rows of another number than the examples'
    """

    def __init__(self, model: nn.Module, examples: int) -> None:
        self.model, self.examples = model, examples
        self.uses: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self.copies = Copies(examples)
        self.left: set[str] = set()
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Capture:
        try:
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
                    self._undo.append(lambda p=parameter: p.requires_grad_(True))
            own, shared = {}, set()
            for name, module in self.model.named_modules():
                if handled(name, module):
                    hook = module.register_forward_hook(self._note(name), with_kwargs=True)
                    self._undo.append(hook.remove)
                    shared |= {id(value) for value in module._parameters.values()}
                else:
                    own |= {id(value): value for value in module._parameters.values()}
            for name, value in self.model.named_parameters():
                if id(value) in own and id(value) not in shared:
                    self.copies.follow(name, value)
            self.copies.__enter__()
            self._undo.append(lambda: self.copies.__exit__(None, None, None))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        while self._undo:
            self._undo.pop()()

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
