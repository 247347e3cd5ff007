"""Statistics of one expert: batches against one example at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mats_core import models, tasks
from mats_core.checkpoints import Checkpoint
from mats_core.statistics import EXAMPLES, Statistics, measure, measure_task

from .base import Line, Row, in_turns, relative, threads

DRAWN = Path(__file__).resolve().parents[2] / "sample_models" / "drawn"
KINDS = {
    "input Gram": ".input_gram",
    "output-gradient Gram": ".output_gradient_gram",
    "Fisher": ".fisher",
}
WIDE = 16  # examples of the ViT-B/32-shaped model
Example = tuple[Mapping[str, Tensor], Tensor]


def one_by_one(model: nn.Module, examples: Iterator[Example]) -> dict[str, Tensor]:
    """A and B of every linear layer and the diagonal Fisher of all its parameters, as published.

    One forward and backward pass an example, on which PyTorch's own gradients are that example's;
    hooks on the linear layers see inputs x and output gradients g (tokens, d).  A = Σ x xᵀ and
    B = Σ g gᵀ over tokens, divided by their number; F = Σ (∂ log p)² over examples, likewise.
    """
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    sums: dict[str, Tensor] = {}
    tokens: dict[str, int] = {}

    def add(name: str, value: Tensor) -> None:
        if name in sums:
            sums[name] += value
        else:
            sums[name] = value.clone()

    def note(name: str) -> Callable[..., None]:
        def forward(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            x = inputs[0].detach().flatten(0, -2)

            def backward(gradient: Tensor) -> None:
                g = gradient.flatten(0, -2)
                add(f"{name}.input_gram", x.T @ x)
                add(f"{name}.output_gradient_gram", g.T @ g)
                tokens[name] = tokens.get(name, 0) + len(x)

            output.register_hook(backward)

        return forward

    hooks = [module.register_forward_hook(note(name)) for name, module in linear.items()]
    count = 0
    for inputs, label in examples:
        model.zero_grad(set_to_none=True)
        logits = model(**inputs).logits
        torch.log_softmax(logits, -1)[0, label].sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                add(f"{name}.fisher", parameter.grad.square())
        count += 1
    for hook in hooks:
        hook.remove()
    model.zero_grad(set_to_none=True)
    return {
        name: value / (count if name.endswith(".fisher") else tokens[name.rpartition(".")[0]])
        for name, value in sums.items()
    }


def sample() -> Line:
    """The sample family's expert 'digits', as the page measures it."""
    checkpoint, task = Checkpoint.open(DRAWN / "digits"), tasks.load("sample:digits")

    def published() -> dict[str, Tensor]:
        tensors = models.tensors_of(checkpoint, torch.float32)
        model = models.build(checkpoint.directory, tensors, device="cpu", dtype=torch.float32)
        names = models.parameter_names(checkpoint.directory, tensors)
        order = _order(len(task.train))
        chosen = task.train.take(order)
        rows = models.encode(chosen, checkpoint.directory, device="cpu", dtype=torch.float32)
        labels = torch.from_numpy(chosen.labels)
        found = one_by_one(
            model.eval(),
            ((rows.batch([i], None).inputs, labels[i : i + 1]) for i in range(len(order))),
        )
        return _renamed(found, names)

    return _line(
        "sample family's 'digits', 256 examples",
        lambda: measure_task(checkpoint, task),
        published,
        repeats=3,
    )


def _order(count: int) -> np.ndarray:
    """The examples that `measure_task` draws."""
    return np.random.default_rng(0).permutation(count)[:EXAMPLES]


def _renamed(found: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Under the checkpoint's names, as our files have them."""
    modules = {own.rpartition(".")[0]: name.rpartition(".")[0] for own, name in names.items()}
    both = modules | dict(names)
    return {
        f"{both[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": value
        for name, value in found.items()
        if name.rpartition(".")[0] in both
    }


def wide(layers: int = 2) -> Line:
    """Some layers of a ViT-B/32 with drawn weights: 768 numbers, 50 tokens."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=768, num_hidden_layers=layers, num_attention_heads=12,
        intermediate_size=3072, image_size=224, patch_size=32, num_labels=100,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    pixels, labels = torch.randn(WIDE, 3, 224, 224), torch.randint(0, 100, (WIDE,))
    return _line(
        f"ViT-B/32-shaped, {layers} of its 12 layers, {WIDE} examples",
        lambda: measure(model, [({"pixel_values": pixels}, labels)]),
        lambda: one_by_one(
            model,
            (({"pixel_values": p[None]}, y[None]) for p, y in zip(pixels, labels, strict=True)),
        ),
        repeats=3,
        note="Each example's gradient of each weight is a product that both sides have to make: "
        "the machine's floating-point operations are the limit, not the calls.",
    )


def _line(
    case: str,
    ours: Callable[[], Statistics],
    theirs: Callable[[], Mapping[str, Tensor]],
    *,
    repeats: int,
    note: str = "",
) -> Line:
    with threads(1):
        one, other, found, published = in_turns(ours, theirs, repeats=repeats)
    return Line(
        f"{case}, one thread", one, other, goal=8.0, checks=differences(found, published), note=note
    )


def differences(ours: Statistics, theirs: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest relative difference of each kind, over all tensors that both have."""
    found: dict[str, float] = {}
    for kind, ending in KINDS.items():
        names = [n for n in theirs if n.endswith(ending) and n in ours.shapes]
        # The bias of a key moves no output: its gradient is zero but for rounding.
        names = [n for n in names if float(theirs[n].norm()) > 1e-12]
        found[kind] = max(
            relative(ours.stored(n).reshape(theirs[n].shape), theirs[n]) for n in names
        )
    return found


def run() -> Sequence[Line]:
    return [sample(), wide()]


ROWS = (
    Row("statistics", "Statistics (A, B, exact per-example diagonal Fisher) of one expert",
        "one example at a time, PyTorch's own gradients and hooks", run, minutes=1.5),
)  # fmt: skip
