"""Hooks that note what every layer of a model saw; all is restored on exit.

`Capture` is for a batch, whose examples are told apart by the layers' inputs; `Alone` for one
example by itself, whose gradients are PyTorch's own.  `verify.py` compares the two.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import gram
from .copies import Copies

Uses = list[tuple[Tensor, Tensor]]  # input and output gradient of each call of a layer
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CHANNEL_NORMS = (nn.GroupNorm, *BATCH_NORMS)  # (examples, channels, ...)


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
    own = isinstance(module, nn.Embedding) and (
        _forward_is(module, nn.Embedding.forward) or is_scaled(module)
    )
    return own and "relative" not in name.rpartition(".")[2]


def is_scaled(module: nn.Module) -> bool:
    """A table whose rows are multiplied by `embed_scale`, as Gemma's, BART's and others' are."""
    return isinstance(module, nn.Embedding) and hasattr(module, "embed_scale")


PLAIN = (nn.Linear, nn.LayerNorm, nn.Conv2d, *CHANNEL_NORMS)


def is_plain(module: nn.Module) -> bool:
    """A linear layer, norm over the last dimension or the channels, or convolution of PyTorch's.

    Not a subclass with a forward of its own: it standardises its weight, norms the channels, ….
    """
    kind = next((kind for kind in PLAIN if isinstance(module, kind)), None)
    if kind is None or not _forward_is(module, kind.forward):
        return False
    if isinstance(module, nn.Conv2d):
        return type(module)._conv_forward is nn.Conv2d._conv_forward
    if isinstance(module, BATCH_NORMS):
        return module.running_mean is not None
    return not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) == 1


def is_guess(module: nn.Module) -> bool:
    """Whether only a comparison can tell that a module computes as its class's name says.

    A LayerNorm with a forward of its own may have the channels first, or be the same in another
    precision; a linear layer may standardise its weight; a table may have more than its scale.
    """
    kinds = isinstance(module, nn.Linear | nn.LayerNorm) and not is_plain(module)
    several = isinstance(module, nn.LayerNorm) and len(module.normalized_shape) > 1
    return (kinds and not several) or is_scaled(module)


def _forward_is(module: nn.Module, forward: Callable[..., Any]) -> bool:
    """Whether it is a module's own; accelerate's hooks keep it as `_old_forward`."""
    replaced = "forward" in vars(module) and not hasattr(module, "_hf_hook")
    return type(module).forward is forward and not replaced


def handled(name: str, module: nn.Module) -> bool:
    """Whether statistics of a module can be computed from what it saw."""
    known = is_plain(module) or is_conv1d(module) or is_rms_norm(module)
    return known or is_guess(module) or is_embedding(name, module)


@contextlib.contextmanager
def eager(model: nn.Module) -> Iterator[None]:
    """A context in which hooks are called and every layer has a gradient.

    Compiled parts of a model run as they were before; recurrent layers without cuDNN, which has no
    gradient for them in evaluation mode.
    """
    compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    with contextlib.ExitStack() as stack:
        if compiled:  # only where it is needed, for the compiler takes seconds to import
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        if recurrent and torch.backends.cudnn.is_available():
            stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        yield


class Notes:
    """What the layers of a model saw in one forward and backward pass.

    examples  their number
    masks     (examples, tokens) each: which tokens of the layers with as many are no padding
    uses      layer → inputs and output gradients of each of its calls
    """

    def __init__(self, examples: int, masks: Sequence[Tensor]) -> None:
        self.examples, self.masks = examples, masks
        self.uses: dict[str, Uses] = defaultdict(list)

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


class Capture(Notes):
    """While active, notes the input and the output gradient of every layer of a model.

    Parameters do not require gradients meanwhile: their own are never formed; what is needed is
    computed per example from what was noted.  A parameter of shape (1, ...) that a module holds
    itself, such as a class token, is one copy an example where it is added to the batch or put
    beside it (`copies.py`).  All is restored on exit.

    follow    whether what all examples share has a copy an example; a model that looks at the
              shapes may not go through with it
    copies    the parameters that have a copy an example
    left      layers whose statistics would be wrong: rows of another number than the examples'
    """

    def __init__(
        self, model: nn.Module, examples: int, masks: Sequence[Tensor], *, follow: bool = True
    ) -> None:
        super().__init__(examples, masks)
        self.model, self.follow = model, follow
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
                if self.follow and id(value) in own and id(value) not in shared:
                    self.copies.follow(name, value)
            undo.enter_context(self.copies)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def copied(self) -> dict[str, Tensor]:
        """Per-example gradients (examples, 1, ...) of the parameters that had a copy an example."""
        return {name: value[:, None] for name, value in self.copies.gradients().items()}

    def _note(self, name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: Any, keywords: Any, output: Tensor) -> Tensor:
            if not torch.is_grad_enabled():  # what is checkpointed runs once more, with gradients
                return output
            seen = next(iter((*inputs, *keywords.values()))).detach()
            alike = isinstance(module, nn.Embedding) and len(output) == 1 < self.examples
            shared = self.follow and alike and seen.ndim > 1
            if not shared and not _batched(module, seen, self.examples):
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


class Alone(Notes):
    """While active, gives PyTorch's own gradients of one example, and notes what layers saw.

    parameters  names of those whose gradients are wanted
    layers      names of the modules whose inputs and output gradients are noted
    take        is given each gradient with its parameter's name in the backward pass

    All is restored on exit, gradients that the parameters had before, too.
    """

    def __init__(
        self,
        model: nn.Module,
        masks: Sequence[Tensor],
        parameters: Container[str],
        layers: Iterable[str],
        take: Callable[[str, Tensor], None],
    ) -> None:
        super().__init__(1, masks)
        self.model, self.take = model, take
        self.parameters, self.layers = parameters, layers

    def __enter__(self) -> Alone:
        with contextlib.ExitStack() as undo:
            for name, parameter in self.model.named_parameters():
                undo.callback(_restored, parameter, parameter.requires_grad, parameter.grad)
                parameter.grad = None
                wanted = name in self.parameters and parameter.is_floating_point()
                parameter.requires_grad_(wanted)
                if wanted:
                    hook = parameter.register_post_accumulate_grad_hook(self._taken(name))
                    undo.callback(hook.remove)
            for name in self.layers:
                module = self.model.get_submodule(name)
                hook = module.register_forward_hook(self._note(name), with_kwargs=True)
                undo.callback(hook.remove)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def _taken(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            self.take(name, gradient.to_dense() if gradient.is_sparse else gradient)

        return hook

    def _note(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, keywords: Any, output: Tensor) -> None:
            seen = next(iter((*inputs, *keywords.values()))).detach()
            if output.requires_grad:
                output.register_hook(lambda g: self.uses[name].append((seen, g.detach())))

        return hook


def _restored(parameter: nn.Parameter, requires: bool, gradient: Tensor | None) -> None:
    parameter.requires_grad_(requires)
    parameter.grad = gradient


def _batched(module: nn.Module, seen: Tensor, examples: int) -> bool:
    """Whether the rows of a layer's input are the examples, or as many rows of each in turn."""
    if isinstance(module, nn.Conv2d):
        return seen.ndim == 4 and len(seen) == examples
    if isinstance(module, CHANNEL_NORMS):
        return seen.ndim > 1 and len(seen) == examples
    if isinstance(module, nn.Embedding):
        places = torch.arange(examples, device=seen.device)  # a table of places, not of examples
        own = seen.ndim > 1 or examples == 1 or not torch.equal(seen.to(places.dtype), places)
        return own and seen.ndim > 0 and examples in (1, len(seen))
    return seen.ndim > 1 and len(seen) > 0 and len(seen) % examples == 0
