"""Hooks that note what every layer of a model saw; all is restored on exit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


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


class Capture:
    """While active, notes the input and the output gradient of every layer of a model.

    Parameters do not require gradients meanwhile (their own are never formed; what is needed is
    computed per example from what was noted), and parameters of shape (1, ...) that a module holds
    itself, such as a class token, are expanded to one copy an example.  All is restored on exit.
    """

    def __init__(self, model: nn.Module, examples: int) -> None:
        self.model, self.examples = model, examples
        self.uses: dict[str, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        self.expanded: dict[str, Tensor] = {}
        self._undo: list[Callable[[], object]] = []

    def __enter__(self) -> Capture:
        try:
            for parameter in self.model.parameters():
                if parameter.requires_grad:
                    parameter.requires_grad_(False)
                    self._undo.append(lambda p=parameter: p.requires_grad_(True))
            for name, module in self.model.named_modules():
                if handled(name, module):
                    hook = module.register_forward_hook(self._note(name), with_kwargs=True)
                    self._undo.append(hook.remove)
                else:
                    self._expand(name, module)
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
            if isinstance(module, nn.Embedding) and len(output) == 1 < self.examples:
                # Position ids are shared by the batch; a copy an example has its own gradient.
                output = output.detach().expand(self.examples, *output.shape[1:]).clone()
                seen = seen.expand(self.examples, *seen.shape[1:])
            if not output.requires_grad:  # the first layers: nothing before them needs a gradient
                output = output.requires_grad_().clone()  # a leaf could not be changed in place
            output.register_hook(lambda g: self.uses[name].append((seen, g.detach())))
            return output

        return hook

    def _expand(self, name: str, module: nn.Module) -> None:
        for key, parameter in list(module._parameters.items()):
            if parameter is None or parameter.ndim < 3 or parameter.shape[0] != 1:
                continue
            copies = parameter.detach().expand(self.examples, *parameter.shape[1:])
            leaf = copies.clone().requires_grad_()
            # A plain tensor stands in for the parameter, so the declared type does not fit.
            module._parameters[key] = leaf  # type: ignore[assignment]
            self.expanded[f"{name}.{key}" if name else key] = leaf
            self._undo.append(lambda m=module, k=key, p=parameter: m._parameters.__setitem__(k, p))
