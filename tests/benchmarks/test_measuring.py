"""One example at a time: the published statistics, against formulas and against ours."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from benchmarks.performance.measuring import differences, one_by_one
from mats_core.statistics.collect import measure
from tests.layer_cases import close


class Encoder(nn.Module):
    """Two linear layers over tokens, and a mean."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.second(self.first(x).tanh()).mean(1))


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(8, 4, 5, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def test_one_example_at_a_time_equals_a_batch():
    model, (x, y) = Encoder(), drawn()
    examples = (({"x": x[i : i + 1]}, y[i : i + 1]) for i in range(len(x)))
    published = one_by_one(model, examples)
    ours = measure(model, [({"x": x}, y)])
    assert len(published) == 2 * 2 + 4
    assert all(apart < 1e-5 for apart in differences(ours, published).values())
    published["first.weight.fisher"] *= 1.1
    assert differences(ours, published)["Fisher"] > 0.05


def test_its_statistics_are_those_of_the_papers():
    model, (x, y) = Encoder(), drawn()
    found = one_by_one(model, (({"x": x[i : i + 1]}, y[i : i + 1]) for i in range(len(x))))
    tokens = x.reshape(-1, 5)
    close(found["first.input_gram"], tokens.T @ tokens / len(tokens), 1e-6)
    # Of the last layer: ∂ log p / ∂ logits = onehot − p, shared by the tokens of the mean.
    hidden = model.first(x).tanh().detach()
    p = model.second(hidden).mean(1).softmax(-1).detach()
    gradient = nn.functional.one_hot(y, 3) - p
    close(found["second.output_gradient_gram"], gradient.T @ gradient / 16 / len(x), 1e-6)
    own = torch.einsum("no,ni->noi", gradient, hidden.mean(1))
    close(found["second.weight.fisher"], own.square().mean(0), 1e-6)
