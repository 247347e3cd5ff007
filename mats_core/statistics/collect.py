"""One forward and backward pass of a model, and everything the methods need out of it.

Hooks note what each layer saw; the mathematics lives in `gram.py` and `fisher.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from .. import encoding, models
from ..checkpoints import Checkpoint
from ..checks import InputError, member
from ..names import module_of
from ..tasks import Task
from . import fisher, gram
from .store import FORMAT, Statistics

EXAMPLES = 256  # a task, where nobody says how many
Labels = Literal["empirical", "true"]
Batch = tuple[Mapping[str, Tensor], Tensor | None]  # the model's keyword arguments, labels (n,)
HANDLED = (nn.Linear, nn.LayerNorm, nn.Embedding, nn.Conv2d)


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear layer, `y = x W + b`; by name, for transformers takes seconds to import."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


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
                if isinstance(module, HANDLED) or _is_conv1d(module):
                    hook = module.register_forward_hook(self._note(name))
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

    def _note(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen = inputs[0].detach()
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


class Accumulator:
    """Sums over examples and tokens, by the checkpoint's names."""

    def __init__(self, model: nn.Module, names: Mapping[str, str], blocks: int) -> None:
        self.modules = dict(model.named_modules())
        self.names, self.blocks = names, blocks
        self.sums: dict[str, Tensor] = {}
        self.tokens: dict[str, int] = defaultdict(int)
        self.examples = 0

    def add(self, capture: Capture, mask: Tensor | None) -> None:
        """Add what `capture` noted in one batch; `mask` (examples, tokens) leaves padding out."""
        self.examples += capture.examples
        # Query, key and value share one input: one Gram for three.  The input itself is kept with
        # it, because the address of a freed one could come back with other contents.
        seen: dict[object, tuple[Tensor, Tensor]] = {}
        for name, uses in capture.uses.items():
            module = self.modules[name]
            if isinstance(module, nn.Linear) or _is_conv1d(module):
                self._linear(name, uses, capture.examples, mask, seen)
            elif isinstance(module, nn.LayerNorm):
                x, g = _joined(uses, capture.examples, mask)
                weight = fisher.layer_norm_weight(x, g, module.eps)
                self._per_example(f"{name}.weight", weight)
                self._per_example(f"{name}.bias", fisher.bias(g))
            elif isinstance(module, nn.Embedding):
                self._embedding(name, module, uses, capture.examples)
            elif isinstance(module, nn.Conv2d) and fisher.unfolds(module):
                self._convolution(name, module, uses)
        for name, leaf in capture.expanded.items():
            if leaf.grad is not None:
                self._per_example(name, leaf.grad)

    def _linear(
        self,
        name: str,
        uses: list[tuple[Tensor, Tensor]],
        examples: int,
        mask: Tensor | None,
        seen: dict[object, tuple[Tensor, Tensor]],
    ) -> None:
        layer = module_of(self.names.get(f"{name}.weight", ""))
        x, g = _joined(uses, examples, mask)
        if layer:
            # The whole layout is the key: a view such as hidden[:, 0] starts at the same address.
            key = (x.data_ptr(), tuple(x.shape), x.stride(), mask is None)
            if mask is not None or key not in seen:
                seen[key] = x, gram.gram_sum(x)
            self._sum(f"{layer}.input_gram", seen[key][1])
            self._sum(f"{layer}.input_mean", x.sum((0, 1)))
            self._sum(f"{layer}.output_gradient_gram", gram.gram_sum(g))
            self.tokens[layer] += sum(
                gram.token_count(gram.tokens_of(used, examples), mask) for used, _ in uses
            )
            square = fisher.linear_weight_square_sum(x, g)
            # The Fisher has the parameter's own layout, which Conv1D stores as (d_in, d_out).
            own = square.T if _is_conv1d(self.modules[name]) else square
            self._sum(f"{layer}.weight.fisher", own)
        self._per_example(f"{name}.bias", fisher.bias(g))

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
        square = (gradients**2).sum(0)
        # An expanded parameter keeps its leading 1.
        self._sum(f"{parameter}.fisher", square[None] if gradients.ndim > 2 else square)
        if square.numel() <= self.blocks:
            rows = gradients.flatten(1)
            self._sum(f"{parameter}.block", rows.T @ rows)

    def _sum(self, name: str, value: Tensor) -> None:
        if name in self.sums:
            self.sums[name] += value
        else:
            self.sums[name] = value.clone()

    def means(self) -> dict[str, Tensor]:
        """The sums divided by N tokens (Grams, means) or by the examples (Fishers, blocks).

        In place, for the sums can be as large as the model: they are the means afterwards.
        """
        return {
            name: value.div_(
                self.examples
                if name.endswith((".fisher", ".block"))
                else self.tokens[module_of(name)]
            )
            for name, value in self.sums.items()
        }


def _joined(
    uses: list[tuple[Tensor, Tensor]], examples: int, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients of all uses of one layer, side by side along the tokens."""
    x = [gram.tokens_of(used, examples, mask) for used, _ in uses]
    g = [gram.tokens_of(gradient, examples, mask) for _, gradient in uses]
    return (x[0], g[0]) if len(uses) == 1 else (torch.cat(x, 1), torch.cat(g, 1))


def measure(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    names: Mapping[str, str] | None = None,
    labels: Labels = "empirical",
    seed: int = 0,
    blocks: int = 0,
    metadata: Mapping[str, str] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Statistics:
    """Statistics of a classifier from one forward and backward pass a batch.

    `batches`: keyword arguments of the model (an `attention_mask` (n, tokens) leaves padding out)
    and labels (n,).  `names`: the checkpoint's name of each parameter, by the module's; the same
    names by default.  `blocks`: parameters of at most so many elements get their full block, too.
    Raises `InputError` for an empty calibration set or a loss that is not finite.
    """
    member("labels", labels, ("empirical", "true"))
    own = {name: name for name, _ in model.named_parameters()} if names is None else names
    accumulator = Accumulator(model, own, blocks)
    sampler = np.random.default_rng(seed)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        for inputs, truth in batches:
            examples = len(next(iter(inputs.values())))
            with Capture(model, examples) as capture, torch.enable_grad():
                output = model(**inputs)
                logits = output.logits if hasattr(output, "logits") else output
                scores = torch.log_softmax(logits, -1)
                chosen = _labels(scores, truth, labels, sampler)
                likelihood = scores.gather(1, chosen[:, None]).sum()
                if not torch.isfinite(likelihood):
                    raise InputError("log-likelihood", expected="a finite number", found="none")
                likelihood.backward()
            accumulator.add(capture, inputs.get("attention_mask"))
            if on_batch is not None:
                on_batch(accumulator.examples)
    finally:
        for module, training in modes.items():
            module.training = training
    if not accumulator.examples:
        raise InputError("calibration set", expected="at least one example", found="none")
    description = {
        "format": FORMAT,
        "examples": str(accumulator.examples),
        "tokens": str(max(accumulator.tokens.values(), default=accumulator.examples)),
        "seed": str(seed),
        "labels": labels,
        **(metadata or {}),
    }
    return Statistics.of(accumulator.means(), description)


def _labels(
    scores: Tensor, truth: Tensor | None, labels: Labels, sampler: np.random.Generator
) -> Tensor:
    if labels == "empirical":
        if truth is None:
            raise InputError("labels", expected="true labels", found="none", remedy="Use 'true'.")
        return truth.to(scores.device)
    # One uniform number an example, in order: the draw does not depend on the batch size.
    uniform = torch.from_numpy(sampler.random(len(scores))).to(scores.device)
    cumulative = scores.detach().double().exp().cumsum(-1)
    chosen = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:]).squeeze(1)
    return chosen.clamp_max(scores.shape[-1] - 1)


def measure_task(
    checkpoint: Checkpoint,
    task: Task,
    *,
    examples: int = EXAMPLES,
    batch_size: int = 64,
    labels: Labels = "empirical",
    seed: int = 0,
    blocks: int = 0,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    tensors: Mapping[str, Tensor] | None = None,
    only: Container[str] | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> Statistics:
    """Statistics of a checkpoint directory on seeded draws from its task's train split.

    `tensors` are measured in place of the checkpoint's own: a merge with this checkpoint's head.
    `only`: parameters, by the checkpoint's names; all by default (`passes.py` has the reason).
    """
    encoding.check(checkpoint, task)
    if tensors is None:
        tensors = models.tensors_of(checkpoint, dtype)
    model = models.build(checkpoint.directory, tensors, device=device, dtype=dtype)
    order = np.random.default_rng(seed).permutation(len(task.train))[:examples]
    chosen = task.train.take(order)
    rows = encoding.encode(chosen, checkpoint.directory, device=device, dtype=dtype)
    # Texts of like length side by side; of images nothing moves.
    places = np.argsort(-rows.lengths, kind="stable")

    def batches() -> Iterable[Batch]:
        for start in range(0, len(places), batch_size):
            some = places[start : start + batch_size]
            yield rows.batch(some).inputs, torch.from_numpy(chosen.labels[some])

    return measure(
        model,
        batches(),
        names={
            own: name
            for own, name in models.parameter_names(checkpoint.directory, tensors).items()
            if only is None or name in only
        },
        labels=labels,
        seed=seed,
        blocks=blocks,
        metadata={"fingerprint": checkpoint.fingerprint, "task": task.name},
        on_batch=on_batch,
    )
